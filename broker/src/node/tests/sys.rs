//! What the node tells about itself under `$SYS`.

use super::{
    ALL, Broker,
    client::{Client, Hello, Testament},
};
use crate::{codec::packet::Version, metrics::Metric};

#[tokio::test]
async fn subscriber_hears_at_once_what_was_said_last() {
    let broker = Broker::start_with("[sys]\ninterval = \"1h\"\n").await;
    broker
        .wait_until(|node| node.status().shared.sys.read().unwrap().len() > 0)
        .await;
    for version in ALL {
        let mut client = broker.join(version, "client").await;
        client.subscribe("$SYS/broker/uptime", 0).await;
        let received = client.receive().await;
        assert_eq!(received.topic, "$SYS/broker/uptime");
        assert!(
            received.retain && received.payload.ends_with(" seconds"),
            "{received:?}"
        );
        client.leave().await;
    }
    broker.stop().await;
}

#[tokio::test]
async fn wildcards_below_the_level_match_and_those_before_it_do_not() {
    let broker = Broker::start_with("[sys]\ninterval = \"250ms\"\n").await;
    let mut everything = broker.join(Version::V311, "everything").await;
    everything.subscribe("#", 0).await;
    everything.subscribe("+/broker/node", 0).await;
    let mut watcher = broker.join(Version::V311, "watcher").await;
    watcher.subscribe("$SYS/+/node", 0).await;
    for _ in 0..3 {
        let received = watcher.receive().await;
        assert_eq!(
            (received.topic, received.payload),
            ("$SYS/broker/node".into(), "test".into())
        );
    }
    // Published through the same lanes as what came before.
    everything.ping().await;
    broker.stop().await;
}

#[tokio::test]
async fn counts_are_those_of_the_whole_node() {
    let broker = Broker::start_with("[sys]\ninterval = \"250ms\"\n").await;
    let mut clients = Vec::new();
    for index in 0..8 {
        let client = broker.join(Version::V311, &format!("client {index}")).await;
        clients.push(client);
    }
    let mut watcher = broker.join(Version::V311, "watcher").await;
    watcher.subscribe("$SYS/broker/clients/connected", 0).await;
    while watcher.receive().await.payload != "9" {}
    drop(clients);
    while watcher.receive().await.payload != "1" {}
    broker.stop().await;
}

#[tokio::test]
async fn clients_publish_nothing_there() {
    let broker = Broker::start_with("[sys]\ninterval = \"0s\"\n").await;
    let mut watcher = broker.join(Version::V311, "watcher").await;
    watcher.subscribe("$SYS/#", 0).await;
    watcher.subscribe("end", 0).await;
    let mut new = broker.join(Version::V5, "new").await;
    new.publish("$SYS/broker/uptime", "x", 0b0011, 1).await;
    new.expect(0x40, &[0, 1, 0x87]).await;
    new.publish("$SYS", "x", 0b0100, 2).await;
    new.expect(0x50, &[0, 2, 0x87]).await;
    new.publish("$SYS/x", "x", 0, 0).await;
    let mut old = broker.join(Version::V311, "old").await;
    old.deliver("$SYS/x", "x", 2).await;
    let mut hello = Hello::new(Version::V311, "mortal");
    hello.will = Some(Testament {
        topic: "$SYS/x",
        payload: "x",
        retain: false,
        properties: Vec::new(),
    });
    drop(Client::connect(broker.address, &hello).await);
    broker.wait_for(Metric::RefusedPublish, 5).await;
    new.deliver("end", "x", 1).await;
    assert_eq!(watcher.receive().await.topic, "end");
    broker.stop().await;
}
