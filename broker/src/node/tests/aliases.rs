//! Topic aliases, the client's and the broker's.

use super::{
    Broker,
    client::{Client, Hello},
};
use crate::codec::packet::Version;

const fn alias(number: u8) -> [u8; 3] {
    [0x23, 0, number]
}

/// A client that takes so many aliases.
async fn taker(broker: &Broker, aliases: u8) -> Client {
    let mut hello = Hello::new(Version::V5, "taker");
    hello.properties = vec![0x22, 0, aliases];
    let (mut client, welcome) = Client::connect(broker.address, &hello).await;
    assert_eq!(welcome.code, 0);
    client.subscribe("topic/#", 0).await;
    client
}

#[tokio::test]
async fn clients_aliases_stand_for_their_topics() {
    let broker = Broker::start().await;
    let mut watcher = broker.join(Version::V311, "watcher").await;
    watcher.subscribe("#", 0).await;
    let (mut sender, welcome) =
        Client::connect(broker.address, &Hello::new(Version::V5, "sender")).await;
    let granted = |bytes: &[u8]| bytes == [0x22, 0, 32];
    assert!(welcome.properties.windows(3).any(granted));
    for (topic, number, told) in [
        ("a/b", 32, "a/b"),
        ("", 32, "a/b"),
        ("c", 1, "c"),
        ("", 32, "a/b"),
        ("d", 32, "d"),
        ("", 32, "d"),
    ] {
        sender.publish_with(topic, &alias(number), "x", 0, 0).await;
        let received = watcher.receive().await;
        assert_eq!(
            (received.topic.as_str(), received.payload.as_str()),
            (told, "x")
        );
    }
    broker.stop().await;
}

#[tokio::test]
async fn clients_aliases_end_with_the_connection() {
    let broker = Broker::start().await;
    let hello = Hello::persistent(Version::V5, "sender");
    let (mut sender, _) = Client::connect(broker.address, &hello).await;
    sender.publish_with("a", &alias(1), "x", 0, 0).await;
    sender.leave().await;
    let (mut sender, welcome) = Client::connect(broker.address, &hello).await;
    assert!(welcome.session_present);
    sender.publish_with("", &alias(1), "x", 0, 0).await;
    sender.expect(0xe0, &[0x82]).await;
    sender.expect_close().await;
    broker.stop().await;
}

#[tokio::test]
async fn illegal_aliases_close_their_connection() {
    let broker = Broker::start_with("[limits]\ntopic_aliases = 2\n").await;
    for (topic, number, reason) in [("a", 0, 0x94), ("a", 3, 0x94), ("", 2, 0x82)] {
        let mut sender = broker.join(Version::V5, "sender").await;
        sender.publish_with(topic, &alias(number), "x", 0, 0).await;
        sender.expect(0xe0, &[reason]).await;
        sender.expect_close().await;
    }
    broker.stop().await;
}

#[tokio::test]
async fn broker_uses_the_aliases_that_a_client_takes() {
    let broker = Broker::start().await;
    let mut taker = taker(&broker, 2).await;
    let mut sender = broker.join(Version::V311, "sender").await;
    for (topic, told, number) in [
        ("topic/a", "topic/a", 1),
        ("topic/b", "topic/b", 2),
        ("topic/a", "", 1),
        ("topic/c", "topic/c", 2),
        ("topic/a", "", 1),
        ("topic/b", "topic/b", 2),
    ] {
        sender.deliver(topic, "x", 1).await;
        let received = taker.receive().await;
        assert_eq!(received.topic, told);
        assert_eq!(received.properties, alias(number));
    }
    broker.stop().await;
}

#[tokio::test]
async fn broker_uses_no_more_aliases_than_both_sides_allow() {
    let broker = Broker::start_with("[limits]\ntopic_aliases = 1\n").await;
    let mut taker = taker(&broker, 200).await;
    let mut sender = broker.join(Version::V311, "sender").await;
    for topic in ["topic/a", "topic/b"] {
        sender.deliver(topic, "x", 1).await;
        assert_eq!(taker.receive().await.properties, alias(1));
    }
    let mut plain = broker.join(Version::V5, "plain").await;
    plain.subscribe("topic/#", 0).await;
    sender.deliver("topic/a", "x", 1).await;
    assert!(plain.receive().await.properties.is_empty());
    broker.stop().await;
}

#[tokio::test]
async fn alias_makes_no_packet_longer_than_the_client_takes() {
    const TOPIC: &str = "topic/of/20/letters!";
    let broker = Broker::start().await;
    let mut hello = Hello::new(Version::V5, "narrow");
    hello.properties = vec![0x22, 0, 9, 0x27, 0, 0, 0, 32];
    let (mut narrow, _) = Client::connect(broker.address, &hello).await;
    narrow.subscribe("topic/#", 0).await;
    let mut sender = broker.join(Version::V311, "sender").await;
    for (payload, told, properties) in [
        (7, TOPIC, &[][..]),
        (4, TOPIC, &alias(1)),
        // Only the alias makes room for it.
        (24, "", &alias(1)),
    ] {
        sender.deliver(TOPIC, &"x".repeat(payload), 1).await;
        let received = narrow.receive().await;
        assert_eq!(
            (received.topic.as_str(), &received.properties[..]),
            (told, properties)
        );
        assert_eq!(received.payload.len(), payload);
    }
    broker.stop().await;
}
