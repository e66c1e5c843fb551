//! What clients make the node hold is bounded in bytes, too.

use super::{
    Broker, Node,
    client::{Client, Hello},
};
use crate::{codec::packet::Version, metrics::Metric};

/// A kilobyte that begins with this.
fn kilobyte(number: u32) -> String {
    format!("{number:01000}")
}

/// An absent client with a QoS 1 subscription, and what brings it back.
async fn absent(broker: &Broker, id: &str, filter: &str) -> Hello {
    let mut hello = Hello::persistent(Version::V5, id);
    let (mut client, _) = Client::connect(broker.address, &hello).await;
    assert_eq!(client.subscribe(filter, 1).await, 1);
    client.leave().await;
    hello.clean = false;
    hello
}

/// Publishes kilobytes of these numbers.
async fn publish(broker: &Broker, topic: &str, numbers: std::ops::Range<u32>) {
    let mut publisher = broker.join(Version::V5, "publisher").await;
    for number in numbers {
        publisher.deliver(topic, &kilobyte(number), 1).await;
    }
    publisher.leave().await;
}

async fn expect_all(broker: &Broker, hello: &Hello, numbers: std::ops::Range<u32>) {
    let (mut client, welcome) = Client::connect(broker.address, hello).await;
    assert!(welcome.session_present);
    for number in numbers {
        assert_eq!(client.receive().await.payload, kilobyte(number));
    }
    client.ping().await;
    client.leave().await;
}

#[tokio::test]
async fn queue_of_one_client_ends_with_its_bytes() {
    let broker = Broker::start_with("[limits]\nqueue_bytes = 10000\n").await;
    let (one, other) = (
        absent(&broker, "one", "t").await,
        absent(&broker, "other", "t").await,
    );
    publish(&broker, "t", 0..15).await;
    // Nine have room, with their topics.
    broker.wait_for(Metric::DroppedQueue, 2 * 6).await;
    for hello in [&one, &other] {
        expect_all(&broker, hello, 0..9).await;
    }
    publish(&broker, "t", 20..29).await;
    expect_all(&broker, &one, 20..29).await;
    assert_eq!(broker.count(Metric::DroppedQueue), 2 * 6);
    broker.stop().await;
}

#[tokio::test]
async fn queues_of_all_clients_end_with_the_nodes_bytes() {
    let broker = Broker::start_with("[limits]\nnode_queue_bytes = 10000\n").await;
    let shared = &broker.node.status().shared;
    let one = absent(&broker, "one", "1").await;
    let other = absent(&broker, "other", "2").await;
    publish(&broker, "1", 0..8).await;
    let is_queued = |node: &Node| node.status().shared.stock.bytes() == 8008;
    broker.wait_until(is_queued).await;
    publish(&broker, "2", 0..8).await;
    broker.wait_for(Metric::DroppedQueue, 7).await;
    assert_eq!((shared.stock.bytes(), shared.stock.refused()), (9009, 7));
    // Who reads need not wait.
    let mut reader = broker.join(Version::V5, "reader").await;
    reader.subscribe("1", 1).await;
    publish(&broker, "1", 8..9).await;
    assert_eq!(reader.receive().await.payload, kilobyte(8));
    broker.wait_for(Metric::DroppedQueue, 8).await;

    expect_all(&broker, &one, 0..8).await;
    publish(&broker, "2", 1..4).await;
    expect_all(&broker, &other, 0..4).await;
    assert_eq!(shared.stock.bytes(), 0);
    let mut metrics = String::new();
    broker.node.status().render(&mut metrics);
    for line in ["queue_bytes 0\n", "queue_refused_total 8\n"] {
        let line = format!("\ntidegate_broker_{line}");
        assert!(metrics.contains(&line), "{line} {metrics}");
    }
    broker.stop().await;
}

#[tokio::test]
async fn retained_messages_end_with_their_bytes() {
    let broker = Broker::start_with("[limits]\nretained_bytes = 4000\n").await;
    let mut old = broker.join(Version::V311, "old").await;
    let mut new = broker.join(Version::V5, "new").await;
    new.publish("a", &kilobyte(1), 0b0011, 1).await;
    new.expect(0x40, &[0, 1, 0x10]).await;
    let long = kilobyte(2).repeat(3);
    for topic in ["a", "b"] {
        new.publish(topic, &long.repeat(2), 0b0011, 2).await;
        new.expect(0x40, &[0, 2, 0x97]).await;
    }
    let mut late = broker.join(Version::V311, "late").await;
    late.subscribe("#", 0).await;
    assert_eq!(late.receive().await.payload, kilobyte(1));
    // Who cannot be told is not refused, and what was the last message is not any more.
    old.publish("a", &long.repeat(2), 0b0011, 3).await;
    old.expect(0x40, &[0, 3]).await;
    assert_eq!(late.receive().await.payload, long.repeat(2));
    let mut later = broker.join(Version::V311, "later").await;
    later.subscribe("#", 0).await;
    later.ping().await;
    assert_eq!(broker.count(Metric::RefusedRetained), 3);
    new.publish("b", &long, 0b0011, 4).await;
    new.expect(0x40, &[0, 4]).await;
    assert_eq!(later.receive().await.payload, long);
    broker.stop().await;
}

#[tokio::test]
async fn subscriptions_of_one_client_end_with_their_bytes() {
    let broker = Broker::start_with("[limits]\nsubscription_bytes = 5000\n").await;
    for (version, code) in [(Version::V311, 0x80), (Version::V5, 0x97)] {
        let mut client = broker.join(version, "client").await;
        // Each level of a filter takes a kilobyte.
        assert_eq!(client.subscribe("a/b/c/d", 0).await, 0);
        assert_eq!(client.subscribe("e", 0).await, code);
        assert_eq!(client.subscribe("a/b/c/d", 1).await, 1);
        client.unsubscribe("a/b/c/d").await;
        assert_eq!(client.subscribe(&"x".repeat(4000), 0).await, code);
        assert_eq!(client.subscribe(&"x".repeat(3000), 0).await, 0);
        client.leave().await;
    }
    assert_eq!(broker.count(Metric::RefusedSubscriptions), 4);
    broker.stop().await;
}
