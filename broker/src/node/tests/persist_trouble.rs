//! What becomes of clients when nothing more can be stored.

use super::{
    Broker,
    client::{Client, Hello},
    cluster::Cluster,
    persist::settings,
};
use crate::{
    codec::packet::Version,
    metrics::Metric,
    routes::ShardId,
    shard::Request,
    store::{Condition, faults},
    testing::Dir,
};

fn condition(broker: &Broker) -> Condition {
    broker.node.status().view().store.unwrap().condition
}

async fn wait_for(broker: &Broker, wanted: Condition) {
    broker
        .wait_until(|node| node.status().view().store.unwrap().condition == wanted)
        .await;
}

/// An absent client that has subscribed to `kept`.
async fn leave_session(broker: &Broker) -> Hello {
    let hello = Hello::persistent(Version::V5, "keeper");
    let (mut client, _) = Client::connect(broker.address, &hello).await;
    assert_eq!(client.subscribe("kept", 2).await, 2);
    client.leave().await;
    hello
}

/// What a publisher of MQTT 5 is told of a message of QoS 1.
async fn publish(sender: &mut Client, topic: &str, payload: &str, flags: u8) -> u8 {
    sender.publish(topic, payload, flags, 7).await;
    let (_puback, body) = sender.recv().await;
    body.get(2).copied().unwrap_or(0)
}

/// That all goes on that needs no store.
async fn expect_transient_traffic(broker: &Broker) {
    let mut reader = broker.join(Version::V311, "transient reader").await;
    reader.subscribe("passing/#", 2).await;
    let mut sender = broker.join(Version::V311, "transient sender").await;
    for qos in 0..3 {
        sender.deliver("passing/by", "on", qos).await;
        assert_eq!(reader.receive().await.qos, qos);
    }
    reader.leave().await;
    sender.leave().await;
}

/// That what needs the store is refused, and said to be.
async fn expect_refusals(broker: &Broker) {
    let newcomer = Hello::persistent(Version::V5, "newcomer");
    assert_eq!(
        Client::connect(broker.address, &newcomer).await.1.code,
        0x97
    );
    let newcomer = Hello::persistent(Version::V311, "newcomer");
    assert_eq!(Client::connect(broker.address, &newcomer).await.1.code, 3);
    // Of the keeper's shard, so that what is passed on is there when the next packet is answered.
    let mut sender = broker.join(Version::V5, &broker.beside("keeper")).await;
    assert_eq!(publish(&mut sender, "kept", "refused", 0b0010).await, 0x97);
    assert_eq!(publish(&mut sender, "kept", "refused", 0b0100).await, 0x97);
    assert_eq!(publish(&mut sender, "r", "refused", 0b0011).await, 0x97);
    // Delivered, and neither queued nor retained.
    sender.publish("kept", "passes", 0b0001, 0).await;
    sender.ping().await;
    sender.leave().await;
    let mut sender = broker.join(Version::V311, "sender").await;
    sender.publish("kept", "refused", 0b0010, 7).await;
    sender.expect_close().await;
    expect_transient_traffic(broker).await;
}

#[tokio::test]
async fn full_store_refuses_and_goes_on_when_it_has_room() {
    let dir = Dir::new();
    let settings = format!(
        "{}max_bytes = 1048576\n[limits]\nretained = 10\n",
        settings(&dir)
    );
    let broker = Broker::start_with(&settings).await;
    let keeper = leave_session(&broker).await;
    let mut sender = broker.join(Version::V5, &broker.beside("keeper")).await;
    let steady = Hello::persistent(Version::V5, "steady");
    let (mut steady, _) = Client::connect(broker.address, &steady).await;
    let payload = "x".repeat(100_000);
    let mut taken = 0;
    while publish(&mut sender, "kept", &payload, 0b0010).await != 0x97 {
        taken += 1;
        assert!(taken < 100, "a store that is never full");
    }
    assert_eq!(condition(&broker), Condition::Full);
    sender.leave().await;
    expect_refusals(&broker).await;
    assert_eq!(steady.subscribe("more", 1).await, 0x97);
    assert!(broker.count(Metric::RefusedStore) >= 2);
    assert!(broker.count(Metric::RefusedUnstored) >= 4);

    // Who has something there may take it.
    let (mut client, welcome) = Client::connect(broker.address, &keeper).await;
    assert!(welcome.session_present);
    for _ in 0..taken {
        assert_eq!(client.receive().await.payload.len(), payload.len());
    }
    wait_for(&broker, Condition::Good).await;
    assert_eq!(steady.subscribe("more", 1).await, 1);
    client.leave().await;
    let mut sender = broker.join(Version::V5, "sender").await;
    assert_eq!(publish(&mut sender, "kept", "fits", 0b0010).await, 0);
    broker.stop().await;
    let broker = Broker::start_with(&settings).await;
    let (mut client, _) = Client::connect(broker.address, &keeper).await;
    assert_eq!(client.receive().await.payload, "fits");
    broker.stop().await;
}

#[tokio::test]
async fn disk_that_fails_loses_nothing_that_was_acknowledged() {
    let dir = Dir::new();
    let store = dir.path("store");
    let broker = Broker::start_with(&settings(&dir)).await;
    let keeper = leave_session(&broker).await;
    let mut sender = broker.join(Version::V5, &broker.beside("keeper")).await;
    assert_eq!(publish(&mut sender, "kept", "before", 0b0010).await, 0);
    let steady = Hello::persistent(Version::V5, "steady");
    let (mut steady, _) = Client::connect(broker.address, &steady).await;
    faults::begin(&store);
    // Its acknowledgement cannot be given, and it is told so.
    sender.publish("kept", "in between", 0b0010, 8).await;
    sender.expect(0xe0, &[0x97]).await;
    sender.expect_close().await;
    wait_for(&broker, Condition::Failing).await;
    expect_refusals(&broker).await;
    assert_eq!(Client::connect(broker.address, &keeper).await.1.code, 0x97);
    // A session that is there goes on with what needs no store.
    steady.ping().await;
    assert_eq!(steady.subscribe("t", 0).await, 0x97);

    faults::end(&store);
    wait_for(&broker, Condition::Good).await;
    let mut sender = broker.join(Version::V5, "sender").await;
    assert_eq!(publish(&mut sender, "kept", "after", 0b0010).await, 0);
    broker.stop().await;

    let broker = Broker::start_with(&settings(&dir)).await;
    let (mut client, welcome) = Client::connect(broker.address, &keeper).await;
    assert!(welcome.session_present);
    for payload in ["before", "in between", "after"] {
        assert_eq!(client.receive().await.payload, payload);
    }
    broker.stop().await;
}

#[tokio::test]
async fn disk_that_hangs_holds_nobody_up_for_long_and_loses_nothing() {
    let dir = Dir::new();
    let store = dir.path("store");
    let settings = format!("{}patience = \"1s\"\n", settings(&dir));
    let broker = Broker::start_with(&settings).await;
    let keeper = leave_session(&broker).await;
    let mut sender = broker.join(Version::V5, &broker.beside("keeper")).await;
    faults::hang(&store);
    sender.publish("kept", "under way", 0b0010, 8).await;
    sender.expect(0xe0, &[0x97]).await;
    sender.expect_close().await;
    assert_eq!(condition(&broker), Condition::Failing);
    expect_refusals(&broker).await;

    faults::end(&store);
    wait_for(&broker, Condition::Good).await;
    let mut sender = broker.join(Version::V5, "sender").await;
    assert_eq!(publish(&mut sender, "kept", "after", 0b0010).await, 0);
    broker.stop().await;
    let broker = Broker::start_with(&settings).await;
    let (mut client, _) = Client::connect(broker.address, &keeper).await;
    for payload in ["under way", "after"] {
        assert_eq!(client.receive().await.payload, payload);
    }
    broker.stop().await;
}

#[tokio::test]
async fn disk_that_hangs_has_the_broker_take_no_more_than_it_can_hold() {
    const MESSAGES: u64 = 640;
    const BYTES: usize = 64_000;
    let dir = Dir::new();
    let store = dir.path("store");
    let settings = format!("{}patience = \"10m\"\n", settings(&dir));
    let broker = Broker::start_sharded(2, &settings).await;
    let mut sender = broker.join(Version::V5, "sender").await;
    faults::hang(&store);
    sender.publish("r", "first", 0b0001, 0).await;
    broker
        .wait_until(|_node| faults::of(&store).holds_write())
        .await;
    let flood = tokio::spawn(async move {
        let payload = "x".repeat(BYTES);
        for number in 0..MESSAGES {
            let topic = format!("r/{number}");
            sender.publish(&topic, &payload, 0b0001, 0).await;
        }
        sender.leave().await;
    });
    let noted = broker.node.status().shared.store.clone().unwrap();
    broker.wait_until(|_node| noted.has_many_notes()).await;
    // Who comes then waits for its turn, on every shard.
    let connected = broker.count(Metric::Connected);
    let mut arrivals = Vec::new();
    for shard in 0..2 {
        let mut client = Client::open(broker.address).await;
        let id = broker.id_on(shard, "newcomer");
        client
            .send(&Hello::persistent(Version::V5, &id).encode())
            .await;
        arrivals.push(client);
    }
    for _ in 0..100 {
        for shard in [ShardId(0), ShardId(1)] {
            let shards = broker.node.status().shards();
            shards.ask(shard, Request::Vitals).await.unwrap();
        }
    }
    let taken = broker.count(Metric::MessagesIn) * BYTES as u64;
    assert!(taken < 10 << 20, "{taken}");
    assert_eq!(broker.count(Metric::Connected), connected);
    assert!(!flood.is_finished());

    faults::end(&store);
    flood.await.unwrap();
    for client in &mut arrivals {
        assert_eq!(client.recv().await.0, 0x20);
    }
    broker.wait_for(Metric::MessagesIn, 1 + MESSAGES).await;
    broker.stop().await;
}

#[tokio::test]
async fn file_system_without_room_is_said_so() {
    let dir = Dir::new();
    let settings =
        settings(&dir).replace("min_free_bytes = 0", "min_free_bytes = 4611686018427387904");
    let broker = Broker::start_with(&settings).await;
    wait_for(&broker, Condition::LowSpace).await;
    let newcomer = Hello::persistent(Version::V5, "newcomer");
    assert_eq!(
        Client::connect(broker.address, &newcomer).await.1.code,
        0x97
    );
    let mut metrics = String::new();
    broker.node.status().render(&mut metrics);
    assert!(
        metrics.contains("tidegate_broker_store_condition{condition=\"low_space\"} 1"),
        "{metrics}"
    );
    expect_transient_traffic(&broker).await;
    broker.stop().await;
}

#[tokio::test]
async fn node_whose_disk_hangs_takes_what_others_send_and_is_not_held_for_gone() {
    const MESSAGES: u16 = 100;
    let cluster = Cluster::new();
    let dir = Dir::new();
    let store = dir.path("store");
    let one = cluster.start("one", &[], "").await;
    let settings = cluster.settings(&[&one], "") + &settings(&dir) + "patience = \"10m\"\n";
    let two = Broker::start_named("two", &settings).await;
    one.wait_for_members(&["two"]).await;
    two.wait_for_members(&["one"]).await;
    leave_session(&two).await;
    let mut publisher = one.join(Version::V5, "publisher").await;
    faults::hang(&store);
    let taken = two.count(Metric::LaneMessages);
    let payload = "x".repeat(100_000);
    for id in 1..=MESSAGES {
        publisher.publish("kept", &payload, 0b0010, id).await;
    }
    // More than shards take from their own clients while so much waits.
    two.wait_until(|_node| two.count(Metric::LaneMessages) >= taken + u64::from(MESSAGES))
        .await;
    assert!(faults::of(&store).holds_write());
    assert_eq!(one.count(Metric::ClusterLost), 0);
    faults::end(&store);
    for id in 1..=MESSAGES {
        publisher.expect(0x40, &id.to_be_bytes()).await;
    }
    one.stop().await;
    two.stop().await;
}
