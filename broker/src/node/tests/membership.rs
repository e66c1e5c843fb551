//! Which nodes belong to a cluster, and where they are.

use tokio::net::TcpSocket;

use super::{
    Broker,
    cluster::{Cluster, port_of, status, troubles},
    operate::{get, post, serve},
};
use crate::{
    cluster::view::{ClusterStatus, Joined},
    codec::packet::Version,
    metrics::Metric,
    node::{Node, NodeError},
};

impl Broker {
    async fn wait_for_trouble(&self, words: &str) {
        let has_it = |node: &Node| troubles(node).contains(words);
        self.wait_until(has_it).await;
    }
}

#[tokio::test]
async fn nodes_with_one_seed_learn_the_addresses_that_the_others_listen_on() {
    let cluster = Cluster::new();
    let one = cluster.start("one", &[], "").await;
    let seeds = [port_of(&one.node)];
    let start = async |name: &'static str, listen: &'static str| {
        Broker::start_named(name, &cluster.settings_at(listen, &seeds, "")).await
    };
    // On loopback, as on a host with several addresses, calls would come from another one by themselves.
    let two = start("two", "127.0.0.2:0").await;
    let three = start("three", "127.0.0.3:0").await;
    one.wait_for_members(&["three", "two"]).await;
    two.wait_for_members(&["one", "three"]).await;
    three.wait_for_members(&["one", "two"]).await;
    for broker in [one, two, three] {
        broker.stop().await;
    }
}

#[tokio::test]
async fn node_that_starts_again_is_met_again() {
    let cluster = Cluster::new();
    let (one, two) = cluster.pair().await;
    let address = port_of(&two.node);
    let seeds = [port_of(&one.node)];
    two.stop().await;
    one.wait_until(|node| status(node).members.is_empty()).await;
    // Nobody is waited for that is not there.
    let mut publisher = one.join(Version::V311, "publisher").await;
    publisher.deliver("t", "to nobody", 1).await;
    let settings = cluster.settings_at(&address, &seeds, "");
    let two = Broker::start_named("two", &settings).await;
    one.wait_for_members(&["two"]).await;
    two.wait_for_members(&["one"]).await;
    let mut subscriber = two.join(Version::V311, "subscriber").await;
    subscriber.subscribe("t", 1).await;
    publisher.deliver("t", "again", 1).await;
    assert_eq!(subscriber.receive().await.payload, "again");
    one.stop().await;
    two.stop().await;
}

#[tokio::test]
async fn strangers_are_refused_and_told_why() {
    let cluster = Cluster::new();
    let one = cluster.start("one", &[], "").await;
    let elsewhere = cluster.settings(&[&one], "").replace("\"c\"", "\"d\"");
    let elsewhere = Broker::start_named("two", &elsewhere).await;
    elsewhere
        .wait_for_trouble("check `cluster.name` of both")
        .await;
    let clash = cluster.start("one", &[&one], "").await;
    clash
        .wait_for_trouble("has a live node \"one\" already")
        .await;
    let another_key = Cluster::new();
    let locked_out = another_key.start("three", &[&one], "").await;
    locked_out
        .wait_for_trouble("its key may be another one")
        .await;
    assert!(status(&one.node).members.is_empty());
    assert!(one.count(Metric::ClusterRefused) > 0);
    // Neither of them has done any harm.
    let two = cluster.start("two", &[&one], "").await;
    one.wait_for_members(&["two"]).await;
    for broker in [one, two, elsewhere, clash, locked_out] {
        broker.stop().await;
    }
}

#[tokio::test]
async fn node_whose_name_is_taken_by_one_that_it_does_not_call_is_refused() {
    let cluster = Cluster::new();
    let (one, two) = cluster.pair().await;
    let clash = cluster.start("two", &[&one], "").await;
    clash
        .wait_for_trouble("has a live node \"two\" already")
        .await;
    one.wait_for_members(&["two"]).await;
    for broker in [one, two, clash] {
        broker.stop().await;
    }
}

#[tokio::test]
async fn nodes_join_and_leave_by_order() {
    let cluster = Cluster::new();
    let one = cluster.start("one", &[], "").await;
    let two = cluster.start("two", &[], "").await;
    let (socket, _serving) = serve(&two).await;
    let order = |address: &str| Some(format!("{{\"address\": {address:?}}}"));
    let joined: Joined = post(&socket, "/v1/cluster/join", order(&port_of(&one.node)))
        .await
        .unwrap();
    assert_eq!(joined.node, "one");
    one.wait_for_members(&["two"]).await;
    let left: ClusterStatus = post(&socket, "/v1/cluster/leave", None).await.unwrap();
    assert!(left.left && left.members.is_empty());
    one.wait_until(|node| status(node).members.is_empty()).await;
    let again: Joined = post(&socket, "/v1/cluster/join", order(&port_of(&one.node)))
        .await
        .unwrap();
    assert_eq!(again.node, "one");
    one.wait_for_members(&["two"]).await;
    let seen: ClusterStatus = get(&socket, "/v1/cluster").await.unwrap();
    assert!(!seen.left && seen.members[0].alive);
    let nobody = post::<Joined>(&socket, "/v1/cluster/join", order("127.0.0.1:1")).await;
    let told = nobody.unwrap_err().to_string();
    assert!(told.contains("no connection to 127.0.0.1:1"), "{told}");
    let nonsense = post::<Joined>(&socket, "/v1/cluster/join", order("nowhere")).await;
    assert!(nonsense.unwrap_err().to_string().contains("is not a host"));
    one.stop().await;
    two.stop().await;
}

#[tokio::test]
async fn broker_without_a_cluster_says_so() {
    let broker = Broker::start().await;
    let (socket, _serving) = serve(&broker).await;
    let asked = get::<ClusterStatus>(&socket, "/v1/cluster").await;
    let told = asked.unwrap_err().to_string();
    assert!(told.contains("not configured for a cluster"), "{told}");
    broker.stop().await;
}

#[tokio::test]
async fn node_does_not_start_without_its_key() {
    let cluster = Cluster::new();
    let settings = cluster.settings(&[], "");
    std::fs::remove_file(cluster.key()).unwrap();
    let started = Node::start(&super::config(&settings)).await;
    let Err(NodeError::Cluster(error)) = started else {
        panic!("it starts");
    };
    let cause = std::error::Error::source(&error).unwrap().to_string();
    assert!(cause.contains("tidegate-broker cluster key"), "{cause}");
}

#[tokio::test]
async fn who_has_shaken_hands_and_says_nothing_is_a_stranger_still() {
    let cluster = Cluster::new();
    let one = cluster.start("one", &[], "").await;
    let key = channel::Key::load(&cluster.key(), crate::cluster::PURPOSE).unwrap();
    let call = async |from: [u8; 4]| {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind((from, 0).into()).unwrap();
        let address = port_of(&one.node).parse().unwrap();
        let stream = socket.connect(address).await.unwrap();
        channel::call(stream, &key, 1024).await
    };
    let mut silent = Vec::new();
    for _ in 0..4 {
        silent.push(call([127, 0, 0, 1]).await.unwrap());
    }
    assert!(call([127, 0, 0, 1]).await.is_err());
    // They are in nobody else's way.
    silent.push(call([127, 0, 0, 2]).await.unwrap());
    // They are not waited for.
    for (_writer, mut reader) in silent {
        while reader.receive().await.is_ok() {}
    }
    let two = cluster.start("two", &[&one], "").await;
    one.wait_for_members(&["two"]).await;
    one.stop().await;
    two.stop().await;
}
