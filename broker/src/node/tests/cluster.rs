//! Two and three nodes in one process, on loopback.

use std::{path::PathBuf, time::Duration};

use super::{
    ALL, Broker,
    client::{Client, Hello, Testament, packet},
    operate::{post, serve},
    persist,
};
use crate::{
    cluster::view::{ClusterStatus, Joined},
    codec::packet::Version,
    metrics::Metric,
    node::Node,
    testing::Dir,
};

/// Nodes that have one key.
pub(super) struct Cluster {
    dir: Dir,
}

impl Cluster {
    pub(super) fn new() -> Self {
        let dir = Dir::new();
        channel::Key::create(&dir.path("key")).unwrap();
        Self { dir }
    }

    pub(super) fn key(&self) -> PathBuf {
        self.dir.path("key")
    }

    /// Settings of a node that calls others; `more` is for its `[cluster]`.
    pub(super) fn settings(&self, seeds: &[&Broker], more: &str) -> String {
        let seeds: Vec<_> = seeds.iter().map(|seed| port_of(&seed.node)).collect();
        self.settings_at("127.0.0.1:0", &seeds, more)
    }

    pub(super) fn settings_at(&self, listen: &str, seeds: &[String], more: &str) -> String {
        format!(
            "[cluster]\nname = \"c\"\nlisten = {listen:?}\nseeds = {seeds:?}\nkey_file = {:?}\n\
             lease = \"2s\"\n{more}",
            self.key()
        )
    }

    pub(super) async fn start(&self, name: &str, seeds: &[&Broker], more: &str) -> Broker {
        Broker::start_named(name, &self.settings(seeds, more)).await
    }

    pub(super) async fn pair(&self) -> (Broker, Broker) {
        let one = self.start("one", &[], "").await;
        let two = self.start("two", &[&one], "").await;
        one.wait_for_members(&["two"]).await;
        two.wait_for_members(&["one"]).await;
        (one, two)
    }

    /// Nodes `one`, `two` and `three` with these leases.
    pub(super) async fn three(&self, leases: [&str; 3]) -> [Broker; 3] {
        let start = async |name, seeds: &[&Broker], lease| {
            let settings = self.settings(seeds, "").replace("2s", lease);
            Broker::start_named(name, &settings).await
        };
        let one = start("one", &[], leases[0]).await;
        let two = start("two", &[&one], leases[1]).await;
        let three = start("three", &[&one, &two], leases[2]).await;
        one.wait_for_members(&["three", "two"]).await;
        two.wait_for_members(&["one", "three"]).await;
        three.wait_for_members(&["one", "two"]).await;
        [one, two, three]
    }
}

pub(super) fn status(node: &Node) -> ClusterStatus {
    node.status().cluster().unwrap().view().borrow().clone()
}

/// Where a node waits for others.
pub(super) fn port_of(node: &Node) -> String {
    status(node).listen
}

pub(super) fn troubles(node: &Node) -> String {
    let status = status(node);
    let troubles = status.troubles.into_iter().map(|trouble| trouble.trouble);
    troubles.collect::<Vec<_>>().join("\n")
}

impl Broker {
    /// Waits until these nodes are there, and know all filters.
    pub(super) async fn wait_for_members(&self, names: &[&str]) {
        self.wait_until(|node| {
            let status = status(node);
            let alive = status.members.iter().filter(|member| member.synced);
            let alive: Vec<_> = alive.map(|member| &*member.node).collect();
            alive == names
        })
        .await;
    }
}

#[tokio::test]
async fn message_reaches_subscribers_of_another_node_at_all_qos() {
    let cluster = Cluster::new();
    let (one, two) = cluster.pair().await;
    for version in ALL {
        for qos in 0..3_u8 {
            let id = format!("{version:?}-{qos}");
            let topic = format!("plant/{id}");
            let mut subscriber = two.join(version, &format!("sub-{id}")).await;
            assert_eq!(subscriber.subscribe(&topic, qos).await, qos);
            let mut publisher = one.join(version, &format!("pub-{id}")).await;
            publisher.deliver(&topic, "payload", qos).await;
            let received = subscriber.receive().await;
            assert_eq!((&*received.topic, &*received.payload), (&*topic, "payload"));
            assert_eq!((received.qos, received.retain), (qos, false));
        }
    }
    assert_eq!(one.count(Metric::ClusterOut), 9);
    two.wait_for(Metric::ClusterIn, 9).await;
    one.stop().await;
    two.stop().await;
}

#[tokio::test]
async fn who_has_its_suback_misses_nothing_that_is_published_elsewhere() {
    let cluster = Cluster::new();
    let (one, two) = cluster.pair().await;
    let mut publisher = one.join(Version::V5, "publisher").await;
    let mut subscriber = two.join(Version::V5, "subscriber").await;
    for number in 0..500 {
        let topic = format!("t/{number}");
        assert_eq!(subscriber.subscribe(&topic, 1).await, 1);
        publisher.deliver(&topic, "x", 1).await;
        assert_eq!(subscriber.receive().await.topic, topic);
        if number % 2 == 0 {
            subscriber.unsubscribe(&topic).await;
        }
    }
    one.stop().await;
    two.stop().await;
}

#[tokio::test]
async fn order_is_kept_and_nothing_goes_round() {
    let cluster = Cluster::new();
    let one = cluster.start("one", &[], "").await;
    let two = cluster.start("two", &[&one], "").await;
    // It knows of the second one only from the first.
    let three = cluster.start("three", &[&one], "").await;
    one.wait_for_members(&["three", "two"]).await;
    two.wait_for_members(&["one", "three"]).await;
    three.wait_for_members(&["one", "two"]).await;
    let mut subscribers = Vec::new();
    for (broker, name) in [(&one, "a"), (&two, "b"), (&three, "c")] {
        let mut subscriber = broker.join(Version::V311, name).await;
        assert_eq!(subscriber.subscribe("t/#", 1).await, 1);
        subscribers.push(subscriber);
    }
    let mut publisher = two.join(Version::V311, "publisher").await;
    // No more than a window: behind a full one QoS 0 does not wait.
    for number in 0..90_u16 {
        let qos = u8::try_from(number % 3).unwrap();
        publisher.deliver("t/x", &number.to_string(), qos).await;
    }
    publisher.deliver("t/x", "end", 1).await;
    for subscriber in &mut subscribers {
        for number in 0..90 {
            assert_eq!(subscriber.receive().await.payload, number.to_string());
        }
        assert_eq!(subscriber.receive().await.payload, "end");
    }
    for broker in [one, two, three] {
        broker.stop().await;
    }
}

#[tokio::test]
async fn retained_messages_are_kept_by_all_nodes_that_are_there() {
    let cluster = Cluster::new();
    let (one, two) = cluster.pair().await;
    let mut publisher = one.join(Version::V311, "publisher").await;
    publisher.publish("plant/state", "on", 0b0011, 77).await;
    publisher.expect(0x40, &[0, 77]).await;
    let mut late = two.join(Version::V311, "late").await;
    // What is retained need not wait for the SUBACK, which waits for the other node.
    late.send(&packet(0x82, b"\0\x09\0\x07plant/#\x01")).await;
    let (mut received, mut is_acknowledged) = (None, false);
    while received.is_none() || !is_acknowledged {
        match late.recv().await {
            (0x90, _) => is_acknowledged = true,
            (first, body) => received = Some((first & 1, body)),
        }
    }
    let (retain, body) = received.unwrap();
    assert!(retain == 1 && body.ends_with(b"on"));
    publisher.publish("plant/state", "", 0b0011, 77).await;
    publisher.expect(0x40, &[0, 77]).await;
    let mut later = two.join(Version::V311, "later").await;
    assert_eq!(later.subscribe("plant/#", 1).await, 1);
    later.ping().await;
    one.stop().await;
    two.stop().await;
}

#[tokio::test]
async fn retained_message_is_in_the_other_nodes_store_when_it_is_acknowledged() {
    let cluster = Cluster::new();
    let dir = Dir::new();
    let one = cluster.start("one", &[], "").await;
    let settings = cluster.settings(&[&one], "") + &persist::settings(&dir);
    let two = Broker::start_named("two", &settings).await;
    one.wait_for_members(&["two"]).await;
    let stored = || {
        let store = two.node.status().shared.store.as_ref().unwrap();
        let mut text = String::new();
        store.render(&mut text);
        let mut lines = text.lines();
        let line = lines.find_map(|line| line.strip_prefix("tidegate_broker_store_records_total "));
        line.unwrap().parse::<u64>().unwrap()
    };
    let before = stored();
    let mut publisher = one.join(Version::V311, "publisher").await;
    // Somebody there, for whom nothing is stored, has the publisher wait for the node.
    let mut subscriber = two.join(Version::V311, "subscriber").await;
    assert_eq!(subscriber.subscribe("t", 1).await, 1);
    publisher.publish("t", "x", 0b0011, 7).await;
    publisher.expect(0x40, &[0, 7]).await;
    assert!(stored() > before);
    one.stop().await;
    two.stop().await;
}

#[tokio::test]
async fn node_that_begins_with_nothing_is_told_what_others_keep() {
    let cluster = Cluster::new();
    let one = cluster.start("one", &[], "").await;
    let mut publisher = one.join(Version::V311, "publisher").await;
    for number in 0..600 {
        let topic = format!("t/{number}");
        publisher.publish(&topic, "old", 0b0011, 77).await;
        publisher.expect(0x40, &[0, 77]).await;
    }
    let two = cluster.start("two", &[&one], "").await;
    two.wait_until(|node| node.status().is_ready()).await;
    assert_eq!(two.node.status().retained(), 600);
    // What there is meanwhile is newer.
    let three = cluster.start("three", &[], "").await;
    let mut elsewhere = three.join(Version::V311, "elsewhere").await;
    elsewhere.publish("t/0", "new", 0b0011, 77).await;
    elsewhere.expect(0x40, &[0, 77]).await;
    let (socket, _serving) = serve(&three).await;
    let order = format!("{{\"address\": {:?}}}", port_of(&one.node));
    let joined: Joined = post(&socket, "/v1/cluster/join", Some(order))
        .await
        .unwrap();
    assert_eq!(joined.node, "one");
    three.wait_for_members(&["one", "two"]).await;
    three
        .wait_until(|node| node.status().retained() == 600)
        .await;
    let mut late = three.join(Version::V311, "late").await;
    late.send(&packet(0x82, b"\0\x09\0\x03t/0\x01")).await;
    let (mut payload, mut is_acknowledged) = (Vec::new(), false);
    while payload.is_empty() || !is_acknowledged {
        match late.recv().await {
            (0x90, _) => is_acknowledged = true,
            (_, body) => payload = body,
        }
    }
    assert!(payload.ends_with(b"new"));
    for broker in [one, two, three] {
        broker.stop().await;
    }
}

#[tokio::test]
async fn will_is_published_on_all_nodes() {
    let cluster = Cluster::new();
    let (one, two) = cluster.pair().await;
    let mut subscriber = two.join(Version::V311, "subscriber").await;
    subscriber.subscribe("wills", 1).await;
    let mut hello = Hello::new(Version::V311, "mortal");
    hello.will = Some(Testament {
        topic: "wills",
        payload: "gone",
        retain: false,
        properties: Vec::new(),
    });
    let (mortal, _welcome) = Client::connect(one.address, &hello).await;
    drop(mortal);
    assert_eq!(subscriber.receive().await.payload, "gone");
    one.stop().await;
    two.stop().await;
}

/// The publisher hears of its message when the peer is given up, not before and not never.
#[tokio::test]
async fn hung_peer_holds_up_its_own_messages_and_only_for_the_lease() {
    let cluster = Cluster::new();
    let (one, two) = cluster.pair().await;
    let mut far = two.join(Version::V311, "far").await;
    far.subscribe("t/#", 1).await;
    let mut near = one.join(Version::V311, "near").await;
    near.subscribe("t/#", 1).await;
    let mut publisher = one.join(Version::V311, "publisher").await;
    let hung = two.hang_cluster().await;
    publisher.publish("t/1", "x", 0b0010, 77).await;
    // Those who are here need not wait.
    let begun = std::time::Instant::now();
    assert_eq!(near.receive().await.payload, "x");
    assert!(begun.elapsed() < Duration::from_secs(1));
    publisher.expect(0x40, &[0, 77]).await;
    assert!(begun.elapsed() > Duration::from_millis(500));
    one.wait_until(|node| !status(node).members[0].alive).await;
    publisher.deliver("t/2", "y", 1).await;
    // It comes back, and is told of nothing that it has missed.
    drop(hung);
    one.wait_for_members(&["two"]).await;
    two.wait_for_members(&["one"]).await;
    publisher.deliver("t/3", "z", 1).await;
    let mut last = String::new();
    while last != "z" {
        last = far.receive().await.payload;
    }
    one.stop().await;
    two.stop().await;
}

#[tokio::test]
async fn publisher_need_not_wait_for_others_where_it_is_so_configured() {
    let cluster = Cluster::new();
    let local = "acknowledge = \"local\"\n";
    let one = cluster.start("one", &[], local).await;
    let two = cluster.start("two", &[&one], "").await;
    one.wait_for_members(&["two"]).await;
    two.wait_for_members(&["one"]).await;
    let mut far = two.join(Version::V311, "far").await;
    far.subscribe("t/#", 1).await;
    let mut publisher = one.join(Version::V311, "publisher").await;
    let hung = two.hang_cluster().await;
    let begun = std::time::Instant::now();
    publisher.deliver("t/1", "x", 1).await;
    assert!(begun.elapsed() < Duration::from_millis(500));
    drop(hung);
    assert_eq!(far.receive().await.payload, "x");
    one.stop().await;
    two.stop().await;
}
