//! Nodes that are back before others have settled that they were gone.

use std::time::Duration;

use super::{
    Broker, Node,
    client::{Client, Hello},
    cluster::Cluster,
    config_of, persist,
    replicas::{connect, leave_session},
};
use crate::{codec::packet::Version, metrics::Metric, testing::Dir};

const V5: Version = Version::V5;

#[tokio::test]
async fn message_for_a_node_that_is_back_goes_to_the_sessions_that_it_had_before() {
    let cluster = Cluster::new();
    let one = cluster.start("one", &[], "").await;
    let settings = cluster.settings(&[&one], "");
    let two = Node::start_with(&config_of("two", &settings), 2).await;
    let two = Broker::of(two.unwrap());
    one.wait_for_members(&["two"]).await;
    two.wait_for_members(&["one"]).await;
    let id = two.id_on(1, "c");
    leave_session(&one, V5, &id, &[("t", 1)]).await;
    let mut publisher = two.join(V5, &two.id_on(0, "publisher")).await;
    publisher.deliver("t", "before", 1).await;
    one.wait_for_copies(1).await;
    // The shard with the copy hears of nothing.
    let hung = two.hang(1).await;
    one.stop().await;
    let one = cluster.start("one", &[&two], "").await;
    one.wait_for_members(&["two"]).await;
    two.wait_for_members(&["one"]).await;
    publisher.publish("t", "meanwhile", 0b0010, 9).await;
    publisher.ping().await;
    drop(hung);
    publisher.expect(0x40, &[0, 9]).await;
    let (mut client, is_present) = connect(&two, &Hello::persistent(V5, &id)).await;
    assert!(is_present);
    for payload in ["before", "meanwhile"] {
        assert_eq!(client.receive().await.payload, payload);
    }
    client.ping().await;
    one.stop().await;
    two.stop().await;
}

#[tokio::test]
async fn node_that_starts_again_from_its_store_brings_nothing_that_clients_have_had_elsewhere() {
    let cluster = Cluster::new();
    let dir = Dir::new();
    let settings = cluster.settings(&[], "") + &persist::settings(&dir);
    let one = Broker::start_named("one", &settings).await;
    let two = cluster.start("two", &[&one], "").await;
    one.wait_for_members(&["two"]).await;
    two.wait_for_members(&["one"]).await;
    leave_session(&one, V5, "c", &[("t", 2)]).await;
    let mut publisher = two.join(V5, "publisher").await;
    for (payload, qos) in [("1", 1), ("2", 1), ("3", 2)] {
        publisher.deliver("t", payload, qos).await;
    }
    one.wait_for_copies(1).await;
    one.stop().await;
    two.wait_for(Metric::Promoted, 1).await;
    let (mut client, is_present) = connect(&two, &Hello::persistent(V5, "c")).await;
    assert!(is_present);
    for payload in ["1", "2", "3"] {
        assert_eq!(client.receive().await.payload, payload);
    }
    client.ping().await;
    let settings = cluster.settings(&[&two], "") + &persist::settings(&dir);
    let one = Broker::start_named("one", &settings).await;
    one.wait_for_members(&["two"]).await;
    one.wait_for(Metric::ClusterMovedOut, 1).await;
    publisher.deliver("t", "4", 1).await;
    assert_eq!(client.receive().await.payload, "4");
    client.ping().await;
    one.stop().await;
    two.stop().await;
}

/// The session goes on at one node, and its client comes to another one.
#[tokio::test]
async fn what_clients_have_had_goes_with_their_sessions() {
    let cluster = Cluster::new();
    let dir = Dir::new();
    let settings = cluster.settings(&[], "") + &persist::settings(&dir);
    let one = Broker::start_named("one", &settings).await;
    let two = cluster.start("two", &[&one], "").await;
    let three = cluster.start("three", &[&one, &two], "").await;
    for (broker, others) in [(&one, ["three", "two"]), (&two, ["one", "three"])] {
        broker.wait_for_members(&others).await;
    }
    three.wait_for_members(&["one", "two"]).await;
    leave_session(&one, V5, "c", &[("t", 2)]).await;
    let mut publishers = [two.join(V5, "p").await, three.join(V5, "q").await];
    for (payload, qos) in [("1", 1), ("2", 1), ("3", 2)] {
        publishers[0].deliver("t", payload, qos).await;
    }
    one.wait_for_copies(1).await;
    one.stop().await;
    let promoted = || [&two, &three].map(|broker| broker.count(Metric::Promoted));
    two.wait_until(|_node| promoted() != [0, 0]).await;
    let (there, elsewhere) = if promoted() == [1, 0] {
        (&two, &three)
    } else {
        (&three, &two)
    };
    let (mut client, is_present) = connect(elsewhere, &Hello::persistent(V5, "c")).await;
    assert!(is_present);
    for payload in ["1", "2", "3"] {
        assert_eq!(client.receive().await.payload, payload);
    }
    there.wait_for(Metric::ClusterMovedOut, 1).await;
    let settings = cluster.settings(&[&two, &three], "") + &persist::settings(&dir);
    let one = Broker::start_named("one", &settings).await;
    one.wait_for_members(&["three", "two"]).await;
    one.wait_for(Metric::ClusterMovedOut, 1).await;
    for publisher in &mut publishers {
        publisher.deliver("t", "4", 2).await;
        assert_eq!(client.receive().await.payload, "4");
    }
    client.ping().await;
    for broker in [one, two, three] {
        broker.stop().await;
    }
}

/// Its threads hung, so the other one has given it up, and is back.
#[tokio::test]
async fn sessions_of_a_node_that_dies_before_it_has_copied_them_anew_go_on() {
    let cluster = Cluster::new();
    let (one, two) = cluster.pair().await;
    for number in 0..6 {
        leave_session(&one, V5, &format!("c{number}"), &[("t", 1)]).await;
    }
    let mut far = two.join(V5, "far").await;
    assert_eq!(far.subscribe("far", 1).await, 1);
    let mut publisher = one.join(V5, "publisher").await;
    publisher.deliver("t", "before", 1).await;
    one.wait_for_copies(6).await;
    let shards = async |broker: &Broker| {
        let mut hung = Vec::new();
        for shard in 0..broker.node.status().shared.shards {
            hung.push(broker.hang(shard).await);
        }
        hung
    };
    let two_hangs = shards(&two).await;
    publisher.publish("far", "x", 0b0010, 9).await;
    two.wait_for(Metric::ClusterLost, 1).await;
    publisher.expect(0x40, &[0, 9]).await;
    // From now on nothing is copied.
    let one_hangs = shards(&one).await;
    drop(two_hangs);
    two.wait_for(Metric::ClusterJoined, 2).await;
    let hung = one.hang_cluster().await;
    two.wait_for(Metric::Promoted, 6).await;
    for number in 0..6 {
        let hello = Hello::persistent(V5, &format!("c{number}"));
        let (mut client, is_present) = connect(&two, &hello).await;
        assert!(is_present);
        assert_eq!(client.receive().await.payload, "before");
    }
    drop((one_hangs, hung));
    one.stop().await;
    two.stop().await;
}

/// A balancer may send clients there as it did before: it has not noticed anything.
#[tokio::test]
async fn client_that_comes_to_a_node_that_has_just_started_again_finds_its_session() {
    let cluster = Cluster::new();
    let (one, two) = cluster.pair().await;
    leave_session(&two, V5, "c", &[("t", 1)]).await;
    let mut publisher = one.join(V5, "publisher").await;
    publisher.deliver("t", "before", 1).await;
    two.wait_for_copies(1).await;
    two.stop().await;
    one.wait_for(Metric::Promoted, 1).await;
    // It takes a moment to answer.
    let hung = one.hang_cluster().await;
    let two = cluster.start("two", &[&one], "").await;
    let address = two.address;
    let mut coming = tokio::spawn(async move {
        let hello = Hello::persistent(V5, "c");
        Client::connect(address, &hello).await
    });
    let early = tokio::time::timeout(Duration::from_millis(200), &mut coming).await;
    assert!(early.is_err(), "let in before the other node was met");
    drop(hung);
    let (mut client, welcome) = coming.await.unwrap();
    assert_eq!((welcome.code, welcome.session_present), (0, true));
    publisher.deliver("t", "after", 1).await;
    for payload in ["before", "after"] {
        assert_eq!(client.receive().await.payload, payload);
    }
    client.ping().await;
    one.stop().await;
    two.stop().await;
}

#[tokio::test]
async fn node_that_finds_nobody_lets_clients_in() {
    let cluster = Cluster::new();
    // Nobody listens at the one address, and who does at the other says nothing.
    let mute = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let seeds = [
        "127.0.0.1:1".to_owned(),
        mute.local_addr().unwrap().to_string(),
    ];
    for seeds in [&seeds[..1], &seeds[1..]] {
        let settings = cluster.settings_at("127.0.0.1:0", seeds, "");
        let one = Broker::start_named("one", &settings).await;
        let _client = one.join(V5, "c").await;
        one.stop().await;
    }
}
