//! What the broker keeps for clients: retained messages, wills, sessions.

use super::{
    ALL, Broker,
    client::{Client, Hello, Testament},
};
use crate::{codec::packet::Version, metrics::Metric};

#[tokio::test]
async fn retained_messages_greet_new_subscribers() {
    let broker = Broker::start().await;
    let mut sender = broker.join(Version::V5, "sender").await;
    for (topic, payload) in [
        ("r/1", "old"),
        ("r/1", "one"),
        ("r/2", "two"),
        ("$r/3", "three"),
    ] {
        sender.publish(topic, payload, 0b0011, 1).await;
        sender.recv().await;
    }
    for version in ALL {
        let mut receiver = broker.join(version, "receiver").await;
        receiver.subscribe("+/+", 1).await;
        let (one, two) = (receiver.receive().await, receiver.receive().await);
        assert_eq!((one.payload.as_str(), two.payload.as_str()), ("one", "two"));
        assert!(one.retain && two.retain && one.qos == 1);
        // What is published to a subscriber that is there is not marked as retained.
        sender.publish("r/2", "two", 0b0011, 2).await;
        sender.recv().await;
        assert!(!receiver.receive().await.retain);
        receiver.leave().await;
    }
    sender.publish("r/1", "", 0b0001, 0).await;
    let mut receiver = broker.join(Version::V311, "receiver").await;
    sender.deliver("sync", "", 1).await;
    receiver.subscribe("r/#", 0).await;
    assert_eq!(receiver.receive().await.payload, "two");
    receiver.ping().await;
    broker.stop().await;
}

#[tokio::test]
async fn retain_options_of_mqtt5_are_kept() {
    let broker = Broker::start().await;
    let mut sender = broker.join(Version::V5, "sender").await;
    sender.publish("r", "kept", 0b0011, 1).await;
    sender.recv().await;
    let mut receiver = broker.join(Version::V5, "receiver").await;
    // Retain handling 2: none; 1: for a new subscription only; 0: always.
    receiver.subscribe("r", 0x20).await;
    receiver.ping().await;
    receiver.subscribe("r", 0x10).await;
    receiver.ping().await;
    receiver.subscribe("r", 0x08).await;
    assert!(receiver.receive().await.retain);
    // Retain as published.
    sender.publish("r", "again", 0b0011, 1).await;
    assert!(receiver.receive().await.retain);
    broker.stop().await;
}

#[tokio::test]
async fn will_is_published_when_a_connection_breaks_and_not_after_goodbye() {
    let broker = Broker::start().await;
    let mut watcher = broker.join(Version::V311, "watcher").await;
    watcher.subscribe("will/#", 1).await;
    for version in ALL {
        let mut hello = Hello::new(version, "mortal");
        let testament = |payload| Testament {
            topic: "will/x",
            payload,
            retain: true,
            properties: Vec::new(),
        };
        hello.will = Some(testament("quiet"));
        Client::connect(broker.address, &hello)
            .await
            .0
            .leave()
            .await;
        hello.will = Some(testament("loud"));
        drop(Client::connect(broker.address, &hello).await);
        assert_eq!(watcher.receive().await.payload, "loud");
    }
    let mut late = broker.join(Version::V5, "late").await;
    late.subscribe("will/x", 0).await;
    assert!(late.receive().await.retain);
    broker.stop().await;
}

#[tokio::test]
async fn disconnect_with_will_publishes_it() {
    let broker = Broker::start().await;
    let mut watcher = broker.join(Version::V5, "watcher").await;
    watcher.subscribe("will", 0).await;
    let mut hello = Hello::new(Version::V5, "mortal");
    hello.will = Some(Testament {
        topic: "will",
        payload: "x",
        retain: false,
        properties: Vec::new(),
    });
    let (mut mortal, _) = Client::connect(broker.address, &hello).await;
    mortal.send(&[0xe0, 1, 4]).await;
    assert_eq!(watcher.receive().await.payload, "x");
    broker.stop().await;
}

#[tokio::test]
async fn delayed_will_waits_for_its_delay() {
    let broker = Broker::start().await;
    let mut watcher = broker.join(Version::V5, "watcher").await;
    watcher.subscribe("will", 0).await;
    let mut hello = Hello::persistent(Version::V5, "mortal");
    let properties = vec![0x18, 0, 0, 0, 1];
    hello.will = Some(Testament {
        topic: "will",
        payload: "late",
        retain: false,
        properties,
    });
    drop(Client::connect(broker.address, &hello).await);
    broker.wait_for(Metric::ClosedLost, 1).await;
    watcher.ping().await;
    assert_eq!(watcher.receive().await.payload, "late");
    broker.stop().await;
}

#[tokio::test]
async fn second_connection_takes_the_session_over() {
    let broker = Broker::start().await;
    let mut sender = broker.join(Version::V311, "sender").await;
    for version in ALL {
        let hello = Hello::persistent(version, "twin");
        let (mut first, _) = Client::connect(broker.address, &hello).await;
        first.subscribe("t", 1).await;
        let (mut second, welcome) = Client::connect(broker.address, &hello).await;
        assert_eq!(welcome.session_present, version != Version::V31);
        if version.is_v5() {
            first.expect(0xe0, &[0x8e]).await;
        }
        first.expect_close().await;
        sender.deliver("t", "to the second", 1).await;
        assert_eq!(second.receive().await.payload, "to the second");
        second.leave().await;
    }
    assert_eq!(broker.count(Metric::ClosedTakenOver), 3);
    assert_eq!(broker.count(Metric::Sessions), 2);
    broker.stop().await;
}

#[tokio::test]
async fn persistent_session_gets_what_it_missed() {
    let broker = Broker::start().await;
    let mut sender = broker.join(Version::V311, "sender").await;
    for version in ALL {
        let hello = Hello::persistent(version, &format!("{version:?}"));
        let (mut client, welcome) = Client::connect(broker.address, &hello).await;
        assert!(!welcome.session_present);
        client.subscribe("p", 2).await;
        sender.deliver("p", "unacknowledged", 1).await;
        let unacknowledged = client.receive_silently().await;
        client.leave().await;
        for (payload, qos) in [("queued 1", 1), ("queued 2", 2)] {
            sender.deliver("p", payload, qos).await;
        }
        let (mut client, welcome) = Client::connect(broker.address, &hello).await;
        assert_eq!(welcome.session_present, version != Version::V31);
        let again = client.receive().await;
        assert_eq!(
            (again.payload.as_str(), again.dup),
            ("unacknowledged", true)
        );
        assert_eq!(again.id, unacknowledged.id);
        let (one, two) = (client.receive().await, client.receive().await);
        assert_eq!(
            (one.payload.as_str(), two.payload.as_str()),
            ("queued 1", "queued 2")
        );
        assert!(!one.dup && !two.dup);
        client.leave().await;

        let mut clean = hello.clone();
        clean.clean = true;
        let (client, welcome) = Client::connect(broker.address, &clean).await;
        assert!(!welcome.session_present);
        client.leave().await;
        let (mut client, _) = Client::connect(broker.address, &hello).await;
        sender.deliver("p", "unsubscribed", 1).await;
        client.ping().await;
        client.leave().await;
    }
    broker.stop().await;
}

#[tokio::test]
async fn session_without_expiry_is_forgotten() {
    let broker = Broker::start().await;
    let mut hello = Hello::new(Version::V5, "fleeting");
    hello.clean = false;
    let (mut client, _) = Client::connect(broker.address, &hello).await;
    client.subscribe("x", 1).await;
    client.leave().await;
    broker.wait_for(Metric::Sessions, 0).await;
    broker.wait_for(Metric::Subscriptions, 0).await;
    let (_client, welcome) = Client::connect(broker.address, &hello).await;
    assert!(!welcome.session_present);
    broker.stop().await;
}

#[tokio::test]
async fn absent_sessions_expire() {
    let broker = Broker::start_with("[session]\nmax_expiry = \"1s\"\n").await;
    let hello = Hello::persistent(Version::V5, "fleeting");
    let (client, welcome) = Client::connect(broker.address, &hello).await;
    // The CONNACK tells that an hour is more than there is.
    assert!(
        welcome
            .properties
            .windows(5)
            .any(|bytes| bytes == [0x11, 0, 0, 0, 1])
    );
    client.leave().await;
    broker.wait_for(Metric::Sessions, 0).await;
    broker.stop().await;
}

#[tokio::test]
async fn thousands_of_retained_messages_reach_a_subscriber_that_reads_late() {
    const MESSAGES: usize = 3000;
    let broker = Broker::start_with("[limits]\nqueue_messages = 0\n").await;
    let mut sender = broker.join(Version::V311, "sender").await;
    let padding = "x".repeat(1000);
    for number in 0..MESSAGES {
        let topic = format!("r/{}/{number:04}", number % 7);
        sender.publish(&topic, &padding, 0b0001, 0).await;
    }
    sender.ping().await;
    for (version, qos) in [(Version::V5, 0), (Version::V311, 1)] {
        let mut receiver = broker.join(version, "receiver").await;
        receiver.subscribe("r/#", qos).await;
        sender.deliver("sync", "", 1).await;
        let mut previous = String::new();
        for _ in 0..MESSAGES {
            let received = receiver.receive().await;
            assert!(received.retain && received.topic > previous);
            previous = received.topic;
        }
        receiver.ping().await;
        receiver.leave().await;
    }
    broker.stop().await;
}
