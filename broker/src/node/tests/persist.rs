//! What outlives the broker.

use super::{
    ALL, Broker,
    access::{delete, set},
    client::{Client, Hello, Testament},
    config,
};
use crate::{codec::packet::Version, metrics::Metric, node::Node, store::Condition, testing::Dir};

/// A broker's settings with a store in `dir`; the tests' disks are not to be waited for.
pub(super) fn settings(dir: &Dir) -> String {
    let directory = dir.path("store");
    format!(
        "[persistence]\ndirectory = \"{}\"\nsync = \"process\"\nmin_free_bytes = 0\n",
        directory.display()
    )
}

async fn start(dir: &Dir) -> Broker {
    Broker::start_with(&settings(dir)).await
}

#[tokio::test]
async fn sessions_and_their_messages_outlive_the_broker() {
    let dir = Dir::new();
    let broker = start(&dir).await;
    let mut sender = broker.join(Version::V311, "sender").await;
    for version in ALL {
        let id = format!("{version:?}");
        let (mut client, _) =
            Client::connect(broker.address, &Hello::persistent(version, &id)).await;
        assert_eq!(client.subscribe("p/#", 1).await, 1);
        assert_eq!(client.subscribe("gone", 1).await, 1);
        client.unsubscribe("gone").await;
        client.leave().await;
    }
    for (payload, qos) in [("one", 1), ("two", 2), ("three", 1)] {
        sender.deliver("p/x", payload, qos).await;
    }
    broker.stop().await;

    let broker = start(&dir).await;
    assert_eq!(broker.count(Metric::Sessions), 3);
    assert_eq!(broker.count(Metric::Subscriptions), 3);
    let mut sender = broker.join(Version::V311, "sender").await;
    sender.deliver("p/y", "four", 1).await;
    sender.deliver("gone", "nobody's", 1).await;
    for version in ALL {
        let id = format!("{version:?}");
        let hello = Hello::persistent(version, &id);
        let (mut client, welcome) = Client::connect(broker.address, &hello).await;
        assert_eq!(welcome.session_present, version != Version::V31);
        for payload in ["one", "two", "three", "four"] {
            let received = client.receive().await;
            assert_eq!((&*received.payload, received.dup), (payload, false));
        }
        client.leave().await;
    }
    broker.stop().await;

    // What was acknowledged is gone for good.
    let broker = start(&dir).await;
    for version in ALL {
        let hello = Hello::persistent(version, &format!("{version:?}"));
        let (mut client, _) = Client::connect(broker.address, &hello).await;
        client.ping().await;
    }
    broker.stop().await;
}

#[tokio::test]
async fn messages_under_way_are_sent_again_with_their_identifiers() {
    let dir = Dir::new();
    let broker = start(&dir).await;
    let hello = Hello::persistent(Version::V311, "reader");
    let (mut client, _) = Client::connect(broker.address, &hello).await;
    client.subscribe("t", 2).await;
    let mut sender = broker.join(Version::V5, "sender").await;
    let mut ids = Vec::new();
    for (payload, qos) in [("released", 2), ("once", 2), ("at least", 1), ("done", 1)] {
        sender.deliver("t", payload, qos).await;
        ids.push(client.receive_silently().await.id);
    }
    let [high, low] = ids[0].to_be_bytes();
    client.send(&[0x50, 2, high, low]).await;
    client.expect(0x62, &[high, low]).await;
    let [high_done, low_done] = ids[3].to_be_bytes();
    client.send(&[0x40, 2, high_done, low_done]).await;
    client.ping().await;
    broker.stop().await;

    let broker = start(&dir).await;
    let (mut client, welcome) = Client::connect(broker.address, &hello).await;
    assert!(welcome.session_present);
    // What the client has received once it is not sent again.
    client.expect(0x62, &[high, low]).await;
    for (payload, id) in [("once", ids[1]), ("at least", ids[2])] {
        let again = client.receive_silently().await;
        assert_eq!((&*again.payload, again.id, again.dup), (payload, id, true));
    }
    client.send(&[0x70, 2, high, low]).await;
    client.ping().await;
    broker.stop().await;
}

#[tokio::test]
async fn message_of_qos_2_that_was_received_is_known_again() {
    let dir = Dir::new();
    let broker = start(&dir).await;
    let hello = Hello::persistent(Version::V311, "sender");
    let (mut sender, _) = Client::connect(broker.address, &hello).await;
    let keeper = Hello::persistent(Version::V311, "keeper");
    let (mut reader, _) = Client::connect(broker.address, &keeper).await;
    reader.subscribe("t", 2).await;
    reader.leave().await;
    sender.publish("t", "once", 0b0100, 5).await;
    sender.expect(0x50, &[0, 5]).await;
    broker.stop().await;

    let broker = start(&dir).await;
    let (mut sender, _) = Client::connect(broker.address, &hello).await;
    sender.publish("t", "once", 0b1100, 5).await;
    sender.expect(0x50, &[0, 5]).await;
    sender.send(&[0x62, 2, 0, 5]).await;
    sender.expect(0x70, &[0, 5]).await;
    sender.publish("t", "another", 0b0100, 5).await;
    sender.expect(0x50, &[0, 5]).await;
    let (mut reader, _) = Client::connect(broker.address, &keeper).await;
    assert_eq!(reader.receive_silently().await.payload, "once");
    assert_eq!(reader.receive_silently().await.payload, "another");
    broker.stop().await;
}

#[tokio::test]
async fn retained_messages_outlive_the_broker() {
    let dir = Dir::new();
    let broker = start(&dir).await;
    let mut sender = broker.join(Version::V5, "sender").await;
    for (topic, payload) in [("r/1", "old"), ("r/1", "one"), ("r/2", "two"), ("r/3", "x")] {
        sender.publish(topic, payload, 0b0011, 1).await;
        sender.recv().await;
    }
    sender.publish("r/3", "", 0b0011, 1).await;
    sender.recv().await;
    // QoS 0 is not acknowledged, and stored all the same.
    sender.publish("r/4", "four", 0b0001, 0).await;
    let hour = [2, 0, 0, 0x0e, 0x10];
    sender.publish_with("r/5", &hour, "five", 0b0011, 1).await;
    sender.recv().await;
    sender
        .publish_with("r/6", &[2, 0, 0, 0, 1], "six", 0b0011, 1)
        .await;
    sender.recv().await;
    let is_gone = |node: &Node| node.status().view().retained == 4;
    broker.wait_until(is_gone).await;
    broker.stop().await;

    let broker = start(&dir).await;
    let mut reader = broker.join(Version::V5, "reader").await;
    reader.subscribe("r/+", 1).await;
    for (topic, payload) in [
        ("r/1", "one"),
        ("r/2", "two"),
        ("r/4", "four"),
        ("r/5", "five"),
    ] {
        let received = reader.receive().await;
        assert!(received.retain);
        assert_eq!((&*received.topic, &*received.payload), (topic, payload));
        // The hour goes on.
        assert_eq!(received.properties.first(), (topic == "r/5").then_some(&2));
    }
    reader.ping().await;
    broker.stop().await;
}

#[tokio::test]
async fn session_that_ends_is_stored_no_longer() {
    let dir = Dir::new();
    let broker = start(&dir).await;
    let hello = Hello::persistent(Version::V5, "clean");
    let (mut client, _) = Client::connect(broker.address, &hello).await;
    client.subscribe("t", 1).await;
    client.leave().await;
    let mut sender = broker.join(Version::V5, "sender").await;
    sender.deliver("t", "waits", 1).await;
    let clean = Hello::new(Version::V5, "clean");
    let (client, welcome) = Client::connect(broker.address, &clean).await;
    assert!(!welcome.session_present);
    client.leave().await;
    // One that is to end with its connection ends with the broker too.
    let (mut client, _) = Client::connect(broker.address, &Hello::new(Version::V5, "brief")).await;
    client.subscribe("t", 1).await;
    // One that takes its expiry back says so with its goodbye.
    let late = Hello::persistent(Version::V5, "late");
    let (mut late, _) = Client::connect(broker.address, &late).await;
    late.send(&[0xe0, 7, 0, 5, 0x11, 0, 0, 0, 0]).await;
    late.expect_close().await;
    broker.stop().await;

    let broker = start(&dir).await;
    assert_eq!(broker.count(Metric::Sessions), 0);
    let view = broker.node.status().view().store.unwrap();
    assert_eq!((view.condition, view.bytes), (Condition::Good, 0));
    broker.stop().await;
}

#[tokio::test]
async fn absent_session_ends_in_time_while_the_broker_is_away() {
    let dir = Dir::new();
    let broker = start(&dir).await;
    let mut hello = Hello::persistent(Version::V5, "fleeting");
    hello.properties = vec![0x11, 0, 0, 0, 1];
    hello.will = Some(Testament {
        topic: "will",
        payload: "over",
        retain: true,
        // As long as the session.
        properties: vec![0x18, 0, 0, 0, 9],
    });
    drop(Client::connect(broker.address, &hello).await);
    broker.wait_for(Metric::ClosedLost, 1).await;
    broker.stop().await;

    let broker = start(&dir).await;
    broker.wait_for(Metric::SessionsExpired, 1).await;
    let mut watcher = broker.join(Version::V5, "watcher").await;
    watcher.subscribe("will", 1).await;
    assert_eq!(watcher.receive().await.payload, "over");
    broker.stop().await;
}

#[tokio::test]
async fn members_of_groups_are_members_after_a_restart() {
    let dir = Dir::new();
    let broker = start(&dir).await;
    let hello = Hello::persistent(Version::V5, "member");
    let (mut client, _) = Client::connect(broker.address, &hello).await;
    client.subscribe("$share/g/t/#", 1).await;
    client.leave().await;
    let mut sender = broker.join(Version::V5, "sender").await;
    sender.deliver("t/1", "before", 1).await;
    broker.stop().await;

    let broker = start(&dir).await;
    assert_eq!(broker.count(Metric::SharedSubscriptions), 1);
    let mut sender = broker.join(Version::V5, "sender").await;
    sender.deliver("t/1", "after", 1).await;
    let (mut client, _) = Client::connect(broker.address, &hello).await;
    assert_eq!(client.receive().await.payload, "before");
    assert_eq!(client.receive().await.payload, "after");
    // What waits for one that leaves the group is for the others: it is known what that was for.
    client.leave().await;
    broker.stop().await;
}

#[tokio::test]
async fn session_is_its_users_after_a_restart() {
    let dir = Dir::new();
    let passwords = dir.path("passwords");
    for user in ["alice", "bob"] {
        set(&passwords, user, "sesame");
    }
    let settings = format!(
        "[access]\nanonymous = false\n[[access.authenticator]]\ntype = \"file\"\npath = \"{}\"\n{}",
        passwords.display(),
        settings(&dir)
    );
    let hello = Hello::persistent(Version::V311, "device");
    let broker = Broker::start_with(&settings).await;
    let alices = hello.clone().with_login("alice", "sesame");
    let (client, _) = Client::connect(broker.address, &alices).await;
    client.leave().await;
    broker.stop().await;

    let broker = Broker::start_with(&settings).await;
    let (client, welcome) = Client::connect(broker.address, &alices).await;
    assert!(welcome.session_present);
    client.leave().await;
    let bobs = hello.with_login("bob", "sesame");
    let (client, welcome) = Client::connect(broker.address, &bobs).await;
    assert_eq!((welcome.code, welcome.session_present), (0, false));
    client.leave().await;
    broker.stop().await;

    // The session of a user that is gone ends with the start.
    delete(&passwords, "bob");
    let broker = Broker::start_with(&settings).await;
    broker.wait_for(Metric::Sessions, 0).await;
    broker.stop().await;
}

#[tokio::test]
async fn what_waited_for_a_member_that_is_gone_is_for_one_on_another_shard() {
    let dir = Dir::new();
    let passwords = dir.path("passwords");
    for user in ["alice", "bob"] {
        set(&passwords, user, "sesame");
    }
    let settings = format!(
        "[access]\nanonymous = false\n[[access.authenticator]]\ntype = \"file\"\npath = \"{}\"\n{}",
        passwords.display(),
        settings(&dir)
    );
    let broker = Broker::start_sharded(2, &settings).await;
    let member = |shard, user| {
        let id = broker.id_on(shard, user);
        Hello::persistent(Version::V5, &id).with_login(user, "sesame")
    };
    let (alices, bobs) = (member(0, "alice"), member(1, "bob"));
    let (mut alice, _) = Client::connect(broker.address, &alices).await;
    assert_eq!(alice.subscribe("$share/g/t", 1).await, 1);
    alice.leave().await;
    let (mut bob, _) = Client::connect(broker.address, &bobs).await;
    bob.deliver("t", "left behind", 1).await;
    assert_eq!(bob.subscribe("$share/g/t", 1).await, 1);
    bob.leave().await;
    broker.stop().await;

    delete(&passwords, "alice");
    let broker = Broker::start_sharded(2, &settings).await;
    broker.wait_for(Metric::Sessions, 1).await;
    let (mut bob, welcome) = Client::connect(broker.address, &bobs).await;
    assert!(welcome.session_present);
    assert_eq!(bob.receive().await.payload, "left behind");
    assert_eq!(broker.count(Metric::DroppedShared), 0);
    bob.leave().await;
    broker.stop().await;
}

#[tokio::test]
async fn store_is_one_nodes_alone() {
    let dir = Dir::new();
    let broker = start(&dir).await;
    broker.stop().await;
    let text = format!(
        "node = \"other\"\naccess.anonymous = true\n[[listener]]\naddress = \"127.0.0.1:0\"\n{}",
        settings(&dir)
    );
    let other = crate::config::Config::parse(&text).unwrap();
    let refused = Node::start(&other).await.map(drop).unwrap_err();
    assert!(refused.to_string().contains("node \"test\""), "{refused}");
    // It is let go of all the same.
    start(&dir).await.stop().await;
    std::fs::write(dir.path("store").join("store.redb"), "not a database").unwrap();
    let refused = Node::start(&config(&settings(&dir))).await.map(drop);
    let refused = refused.unwrap_err().to_string();
    assert!(refused.contains("move it away"), "{refused}");
}
