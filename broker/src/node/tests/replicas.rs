//! Sessions whose node is gone go on at another one.

use std::time::{Duration, Instant};

use super::{
    ALL, Broker,
    client::{Client, Hello, Testament},
    cluster::{Cluster, status},
    persist,
};
use crate::{codec::packet::Version, metrics::Metric, testing::Dir};

const V5: Version = Version::V5;

pub(super) async fn connect(broker: &Broker, hello: &Hello) -> (Client, bool) {
    let (client, welcome) = Client::connect(broker.address, hello).await;
    assert_eq!(welcome.code, 0);
    (client, welcome.session_present)
}

/// A session with these subscriptions whose client is away.
pub(super) async fn leave_session(
    broker: &Broker,
    version: Version,
    id: &str,
    filters: &[(&str, u8)],
) {
    let (mut client, _present) = connect(broker, &Hello::persistent(version, id)).await;
    for (filter, qos) in filters {
        assert_eq!(client.subscribe(filter, *qos).await, *qos);
    }
    client.leave().await;
}

impl Broker {
    /// Waits until each session has a copy.
    pub(super) async fn wait_for_copies(&self, sessions: u64) {
        self.wait_until(|node| {
            let metrics = node.status().metrics();
            metrics.get(Metric::CopiedSessions) == sessions
                && metrics.get(Metric::BareSessions) == 0
        })
        .await;
    }
}

#[tokio::test]
async fn absent_sessions_of_a_node_that_is_gone_go_on_with_their_messages() {
    let cluster = Cluster::new();
    let (one, two) = cluster.pair().await;
    for version in ALL {
        let id = format!("{version:?}");
        leave_session(&one, version, &id, &[("t/#", 1), ("gone", 1)]).await;
    }
    let (mut client, _present) = connect(&one, &Hello::persistent(V5, "V5")).await;
    client.unsubscribe("gone").await;
    client.leave().await;
    let mut near = one.join(V5, "near").await;
    let mut far = two.join(V5, "far").await;
    for (number, qos) in (0..6).zip([1, 2].into_iter().cycle()) {
        let publisher = if number < 3 { &mut near } else { &mut far };
        publisher.deliver("t/x", &number.to_string(), qos).await;
    }
    one.wait_for_copies(3).await;
    let hung = one.hang_cluster().await;
    two.wait_for(Metric::Promoted, 3).await;
    far.deliver("t/x", "6", 1).await;
    far.deliver("gone", "gone", 1).await;
    for version in ALL {
        let id = format!("{version:?}");
        let (mut client, is_present) = connect(&two, &Hello::persistent(version, &id)).await;
        assert_eq!(is_present, version != Version::V31);
        for number in 0..7 {
            assert_eq!(client.receive().await.payload, number.to_string());
        }
        if version != V5 {
            assert_eq!(client.receive().await.payload, "gone");
        }
        client.ping().await;
    }
    drop(hung);
    one.stop().await;
    two.stop().await;
}

#[tokio::test]
async fn connected_client_of_a_node_that_is_gone_finds_at_another_what_it_has_not_acknowledged() {
    let cluster = Cluster::new();
    let (one, two) = cluster.pair().await;
    let hello = Hello::persistent(V5, "c");
    let (mut client, _present) = connect(&one, &hello).await;
    assert_eq!(client.subscribe("t", 2).await, 2);
    let mut publisher = two.join(V5, "publisher").await;
    for (payload, qos) in [("a", 1), ("b", 2), ("c", 1)] {
        publisher.deliver("t", payload, qos).await;
    }
    let a = client.receive().await;
    assert_eq!((&*a.payload, a.dup), ("a", false));
    let b = client.receive_silently().await;
    let c = client.receive_silently().await;
    assert_eq!((&*b.payload, &*c.payload), ("b", "c"));
    // What the client has said has reached the copy when its answer comes.
    client.send(&[0x50, 2, (b.id >> 8) as u8, b.id as u8]).await;
    client.expect(0x62, &b.id.to_be_bytes()).await;
    let hung = one.hang_cluster().await;
    two.wait_for(Metric::Promoted, 1).await;
    let (mut client, is_present) = connect(&two, &hello).await;
    assert!(is_present);
    // PUBREL of the one that it has, and the other once more.
    client.expect(0x62, &b.id.to_be_bytes()).await;
    let again = client.receive().await;
    assert_eq!((&*again.payload, again.dup, again.id), ("c", true, c.id));
    drop(hung);
    one.stop().await;
    two.stop().await;
}

#[tokio::test]
async fn what_a_node_that_is_gone_was_sent_goes_to_its_sessions_elsewhere_before_it_is_acknowledged()
 {
    let cluster = Cluster::new();
    let (one, two) = cluster.pair().await;
    leave_session(&one, V5, "c", &[("t", 2)]).await;
    let mut publisher = two.join(V5, "publisher").await;
    publisher.deliver("t", "before", 1).await;
    one.wait_for_copies(1).await;
    let hung = one.hang_cluster().await;
    let began = Instant::now();
    for (id, qos) in [(1_u16, 1_u8), (2, 2), (3, 1)] {
        publisher.publish("t", &id.to_string(), qos << 1, id).await;
    }
    publisher.expect(0x40, &[0, 1]).await;
    assert!(began.elapsed() > Duration::from_millis(500));
    publisher.expect(0x50, &[0, 2]).await;
    publisher.expect(0x40, &[0, 3]).await;
    // Those that come later find it here.
    publisher.publish("t", "4", 0b0010, 4).await;
    publisher.expect(0x40, &[0, 4]).await;
    let (mut client, is_present) = connect(&two, &Hello::persistent(V5, "c")).await;
    assert!(is_present);
    for payload in ["before", "1", "2", "3", "4"] {
        assert_eq!(client.receive_silently().await.payload, payload);
    }
    client.ping().await;
    drop(hung);
    one.stop().await;
    two.stop().await;
}

/// Whoever has the copy, and whoever had sent something to the node that is gone.
#[tokio::test]
async fn what_any_of_three_nodes_had_sent_one_that_is_gone_goes_to_its_sessions_elsewhere() {
    let cluster = Cluster::new();
    let one = cluster.start("one", &[], "").await;
    let two = cluster.start("two", &[&one], "").await;
    let three = cluster.start("three", &[&one], "").await;
    one.wait_for_members(&["three", "two"]).await;
    two.wait_for_members(&["one", "three"]).await;
    three.wait_for_members(&["one", "two"]).await;
    for number in 0..10 {
        leave_session(&one, V5, &format!("c{number}"), &[("t", 1)]).await;
    }
    one.wait_for_copies(10).await;
    let copies = || [&two, &three].map(|broker| broker.count(Metric::Copies));
    two.wait_until(|_node| copies().iter().sum::<u64>() == 10)
        .await;
    assert!(copies().iter().all(|copies| *copies > 0));
    let mut publishers = [two.join(V5, "p2").await, three.join(V5, "p3").await];
    let hung = one.hang_cluster().await;
    for id in 1..=5 {
        for publisher in &mut publishers {
            publisher.publish("t", "x", 0b0010, id).await;
        }
    }
    // While it is buried, and after.
    for publisher in &mut publishers {
        for id in 1..=5_u16 {
            publisher.expect(0x40, &id.to_be_bytes()).await;
        }
    }
    for _ in 0..20 {
        for publisher in &mut publishers {
            publisher.deliver("t", "y", 1).await;
        }
    }
    for number in 0..10 {
        let hello = Hello::persistent(V5, &format!("c{number}"));
        let (mut client, is_present) = connect(&two, &hello).await;
        assert!(is_present);
        let mut payloads = Vec::new();
        for _ in 0..50 {
            payloads.push(client.receive().await.payload);
        }
        let early = payloads.iter().filter(|payload| *payload == "x");
        assert_eq!(early.count(), 10, "{payloads:?}");
        client.ping().await;
    }
    drop(hung);
    for broker in [one, two, three] {
        broker.stop().await;
    }
}

#[tokio::test]
async fn wills_of_a_node_that_is_gone_are_published_when_they_are_due() {
    let cluster = Cluster::new();
    let (one, two) = cluster.pair().await;
    let mut witness = two.join(V5, "witness").await;
    witness.subscribe("wills/#", 1).await;
    let mut mortals = Vec::new();
    for (id, topic, delay, is_kept) in [
        ("brief", "wills/brief", 0, false),
        ("kept", "wills/kept", 0, true),
        ("late", "wills/late", 1, true),
        ("saved", "wills/saved", 60, true),
    ] {
        let mut hello = if is_kept {
            Hello::persistent(V5, id)
        } else {
            Hello::new(V5, id)
        };
        hello.will = Some(Testament {
            topic,
            payload: id,
            retain: false,
            properties: vec![0x18, 0, 0, 0, delay],
        });
        mortals.push(connect(&one, &hello).await);
    }
    // One that says goodbye has none.
    let mut hello = Hello::new(V5, "polite");
    hello.will = Some(Testament {
        topic: "wills/polite",
        payload: "polite",
        retain: false,
        properties: Vec::new(),
    });
    connect(&one, &hello).await.0.leave().await;
    one.wait_for_copies(4).await;
    let hung = one.hang_cluster().await;
    two.wait_for(Metric::Promoted, 4).await;
    let (_saved, is_present) = connect(&two, &Hello::persistent(V5, "saved")).await;
    assert!(is_present);
    let mut wills = Vec::new();
    for _ in 0..3 {
        wills.push(witness.receive().await.payload);
    }
    assert_eq!(wills[2], "late");
    wills.sort();
    assert_eq!(wills, ["brief", "kept", "late"]);
    witness.ping().await;
    drop(hung);
    one.stop().await;
    two.stop().await;
}

/// Before anybody has noticed that its node is gone, and whoever has the copy.
#[tokio::test]
async fn client_that_comes_within_the_lease_finds_its_session_at_any_node() {
    let cluster = Cluster::new();
    let [one, two, three] = cluster.three(["2s"; 3]).await;
    for number in 0..10 {
        leave_session(&one, V5, &format!("c{number}"), &[("t", 1)]).await;
    }
    let mut publisher = three.join(V5, "publisher").await;
    publisher.deliver("t", "before", 1).await;
    one.wait_for_copies(10).await;
    let copies = || [&two, &three].map(|broker| broker.count(Metric::Copies));
    two.wait_until(|_node| copies().iter().sum::<u64>() == 10)
        .await;
    assert!(copies().iter().all(|copies| *copies > 0));
    let hung = one.hang_cluster().await;
    let mut coming = tokio::task::JoinSet::new();
    for number in 0..10 {
        let (address, id) = (two.address, format!("c{number}"));
        coming.spawn(async move {
            let hello = Hello::persistent(V5, &id);
            let (client, welcome) = Client::connect(address, &hello).await;
            assert_eq!((welcome.code, welcome.session_present), (0, true), "{id}");
            client
        });
    }
    let mut clients = coming.join_all().await;
    let sessions = || [&two, &three].map(|broker| broker.count(Metric::Sessions));
    two.wait_until(|_node| sessions() == [10, 1]).await;
    publisher.deliver("t", "after", 1).await;
    for client in &mut clients {
        for payload in ["before", "after"] {
            assert_eq!(client.receive().await.payload, payload);
        }
        client.ping().await;
    }
    drop(hung);
    for broker in [one, two, three] {
        broker.stop().await;
    }
}

#[tokio::test]
async fn sessions_that_were_there_before_are_copied_to_a_node_that_comes() {
    let cluster = Cluster::new();
    let one = cluster.start("one", &[], "").await;
    for number in 0..50 {
        leave_session(&one, V5, &format!("c{number}"), &[("t", 1)]).await;
    }
    let mut publisher = one.join(V5, "publisher").await;
    let long = "x".repeat(20_000);
    for number in 0..10 {
        publisher.deliver("t", &format!("{number}{long}"), 1).await;
    }
    one.wait_until(|node| node.status().metrics().get(Metric::BareSessions) == 50)
        .await;
    let two = cluster.start("two", &[&one], "").await;
    one.wait_for_copies(50).await;
    two.wait_for(Metric::Copies, 50).await;
    publisher.deliver("t", "last", 1).await;
    let three = cluster.start("three", &[&one], "").await;
    one.wait_for_members(&["three", "two"]).await;
    one.wait_for_copies(50).await;
    let copies = |broker: &Broker| broker.count(Metric::Copies);
    two.wait_until(|_node| copies(&three) > 5 && copies(&two) + copies(&three) == 50)
        .await;
    one.wait_for_copies(50).await;
    let shown = status(&one.node);
    assert_eq!((shown.copied_sessions, shown.bare_sessions), (50, 0));
    let hung = one.hang_cluster().await;
    let counts = || [&two, &three].map(|node| node.count(Metric::Promoted));
    two.wait_until(|_node| counts().iter().sum::<u64>() == 50)
        .await;
    for number in 0..50 {
        let hello = Hello::persistent(V5, &format!("c{number}"));
        let (mut client, mut is_present) = connect(&two, &hello).await;
        if !is_present {
            client.leave().await;
            (client, is_present) = connect(&three, &hello).await;
        }
        assert!(is_present);
        for number in 0..10 {
            assert_eq!(client.receive().await.payload, format!("{number}{long}"));
        }
        assert_eq!(client.receive().await.payload, "last");
        client.leave().await;
    }
    drop(hung);
    for broker in [one, two, three] {
        broker.stop().await;
    }
}

#[tokio::test]
async fn session_of_a_node_that_only_hung_is_one_again_when_the_nodes_have_met() {
    let cluster = Cluster::new();
    let (one, two) = cluster.pair().await;
    leave_session(&one, V5, "c", &[("t", 1)]).await;
    let mut publisher = two.join(V5, "publisher").await;
    publisher.deliver("t", "before", 1).await;
    one.wait_for_copies(1).await;
    let hung = one.hang_cluster().await;
    two.wait_for(Metric::Promoted, 1).await;
    publisher.deliver("t", "meanwhile", 1).await;
    drop(hung);
    one.wait_for_members(&["two"]).await;
    two.wait_for_members(&["one"]).await;
    let sessions = || [&one, &two].map(|broker| broker.count(Metric::Sessions));
    // The publisher has one as well.
    two.wait_until(|_node| sessions().iter().sum::<u64>() == 2)
        .await;
    publisher.deliver("t", "after", 1).await;
    let (mut client, is_present) = connect(&one, &Hello::persistent(V5, "c")).await;
    assert!(is_present);
    for payload in ["before", "meanwhile", "after"] {
        assert_eq!(client.receive().await.payload, payload);
    }
    client.ping().await;
    one.stop().await;
    two.stop().await;
}

/// A node whose shard hangs is held for gone by who sends it something, and need not notice.
#[tokio::test]
async fn copies_on_a_node_that_had_held_this_one_for_gone_are_made_anew() {
    let cluster = Cluster::new();
    let (one, two) = cluster.pair().await;
    // Of two sessions that are as old, that of the latter by name stays.
    leave_session(&two, V5, "c", &[("t", 1)]).await;
    let mut publisher = one.join(V5, "publisher").await;
    publisher.deliver("t", "before", 1).await;
    two.wait_for_copies(1).await;
    let shard = two.node.status().shared.shard_of("c");
    let hung = two.hang(shard.0).await;
    publisher.publish("t", "meanwhile", 0b0010, 7).await;
    one.wait_for(Metric::ClusterLost, 1).await;
    drop(hung);
    publisher.expect(0x40, &[0, 7]).await;
    one.wait_for(Metric::Promoted, 1).await;
    one.wait_for_members(&["two"]).await;
    two.wait_for_members(&["one"]).await;
    let sessions = || [&one, &two].map(|broker| broker.count(Metric::Sessions));
    one.wait_until(|_node| sessions().iter().sum::<u64>() == 2)
        .await;
    one.wait_for(Metric::Copies, 1).await;
    two.wait_for_copies(1).await;
    publisher.deliver("t", "after", 1).await;
    let hung = two.hang_cluster().await;
    one.wait_for(Metric::Promoted, 2).await;
    let (mut client, is_present) = connect(&one, &Hello::persistent(V5, "c")).await;
    assert!(is_present);
    for payload in ["before", "meanwhile", "after"] {
        assert_eq!(client.receive().await.payload, payload);
    }
    client.ping().await;
    drop(hung);
    one.stop().await;
    two.stop().await;
}

#[tokio::test]
async fn session_that_goes_on_at_another_node_is_in_its_store() {
    let cluster = Cluster::new();
    let [of_one, of_two] = [Dir::new(), Dir::new()];
    let settings = cluster.settings(&[], "") + &persist::settings(&of_one);
    let one = Broker::start_named("one", &settings).await;
    let settings = cluster.settings(&[&one], "") + &persist::settings(&of_two);
    let two = Broker::start_named("two", &settings).await;
    one.wait_for_members(&["two"]).await;
    leave_session(&one, V5, "c", &[("t", 2)]).await;
    let mut publisher = one.join(V5, "publisher").await;
    publisher.deliver("t", "kept", 2).await;
    one.wait_for_copies(1).await;
    let hung = one.hang_cluster().await;
    two.wait_for(Metric::Promoted, 1).await;
    two.stop().await;
    drop(hung);
    one.stop().await;
    let alone = Broker::start_named("two", &persist::settings(&of_two)).await;
    let (mut client, is_present) = connect(&alone, &Hello::persistent(V5, "c")).await;
    assert!(is_present);
    assert_eq!(client.receive().await.payload, "kept");
    alone.stop().await;
}

/// Each waits for the other to have copies of what it was sent.
#[tokio::test]
async fn two_nodes_with_each_others_copies_do_not_wait_for_each_other() {
    let cluster = Cluster::new();
    let (one, two) = cluster.pair().await;
    let mut publishers = Vec::new();
    for (broker, id) in [(&one, "a"), (&two, "b")] {
        leave_session(broker, V5, id, &[("t", 1)]).await;
        publishers.push(broker.join(V5, &format!("publisher-{id}")).await);
    }
    const COUNT: u16 = 2000;
    let [first, second] = &mut publishers[..] else {
        panic!("there are two");
    };
    let began = Instant::now();
    let publish = async |client: &mut Client| {
        for id in 1..=COUNT {
            client.publish("t", "x", 0b0010, id).await;
        }
        for id in 1..=COUNT {
            client.expect(0x40, &id.to_be_bytes()).await;
        }
    };
    tokio::join!(publish(first), publish(second));
    // Nobody was held for gone, which would end it too.
    assert_eq!(
        one.count(Metric::ClusterLost) + two.count(Metric::ClusterLost),
        0
    );
    println!("{} messages took {:?}", 2 * COUNT, began.elapsed());
    for (broker, id) in [(&one, "a"), (&two, "b")] {
        let (_client, is_present) = connect(broker, &Hello::persistent(V5, id)).await;
        assert!(is_present);
    }
    one.stop().await;
    two.stop().await;
}
