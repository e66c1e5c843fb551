//! Shared subscriptions over several nodes.

use std::collections::BTreeSet;

use tokio::{
    sync::mpsc::{UnboundedSender, unbounded_channel},
    task::JoinHandle,
};

use super::{ALL, Broker, client::Client, cluster::Cluster};
use crate::{codec::packet::Version, metrics::Metric};

const V5: Version = Version::V5;
const FILTER: &str = "$share/g/jobs/#";

/// Messages that a publisher sends before it waits for their acknowledgements.
const WINDOW: usize = 100;

async fn member(broker: &Broker, id: &str) -> Client {
    let mut member = broker.join(V5, id).await;
    assert_eq!(member.subscribe(FILTER, 1).await, 1);
    member
}

/// Publishes numbers, and waits until all are acknowledged.
async fn publish(publisher: &mut Client, numbers: std::ops::Range<usize>) {
    let numbers: Vec<_> = numbers.collect();
    for window in numbers.chunks(WINDOW) {
        for (id, number) in (1..).zip(window) {
            let payload = number.to_string();
            publisher.publish("jobs/x", &payload, 0b0010, id).await;
        }
        for (id, _number) in (1_u16..).zip(window) {
            let (first, body) = publisher.recv().await;
            assert_eq!((first, &body[..2]), (0x40, &id.to_be_bytes()[..]));
        }
    }
}

/// Has a member tell of all that it gets.
fn work(mut member: Client, index: usize, to: &UnboundedSender<(usize, usize)>) -> JoinHandle<()> {
    let to = to.clone();
    tokio::spawn(async move {
        loop {
            let number = member.receive().await.payload.parse().unwrap();
            if to.send((index, number)).is_err() {
                return;
            }
        }
    })
}

async fn numbers(client: &mut Client, count: usize) -> BTreeSet<usize> {
    let mut numbers = BTreeSet::new();
    for _ in 0..count {
        let number = client.receive().await.payload.parse().unwrap();
        assert!(numbers.insert(number), "{number} twice");
    }
    numbers
}

#[tokio::test]
async fn messages_are_spread_over_the_members_of_all_nodes_and_each_goes_to_one() {
    const MESSAGES: usize = 30_000;
    const MEMBERS: usize = 6;
    let cluster = Cluster::new();
    // Members may be slower than publishers, and none is to be full.
    let limits = "[limits]\nqueue_messages = 30000\n";
    let one = cluster.start("one", &[], limits).await;
    let two = cluster.start("two", &[&one], limits).await;
    let third = cluster.start("three", &[&one, &two], limits).await;
    one.wait_for_members(&["three", "two"]).await;
    two.wait_for_members(&["one", "three"]).await;
    third.wait_for_members(&["one", "two"]).await;
    let brokers = [one, two, third];
    let (told, mut heard) = unbounded_channel();
    let mut workers = Vec::new();
    // Half of them are on the second node, and one on the third.
    for (index, place) in [0, 0, 1, 1, 1, 2].into_iter().enumerate() {
        let member = member(&brokers[place], &format!("member {index}")).await;
        workers.push(work(member, index, &told));
    }
    let mut publishers = Vec::new();
    for (broker, id) in brokers.iter().zip(["a", "b", "c"]) {
        publishers.push(broker.join(V5, id).await);
    }
    let [a, b, c] = &mut publishers[..] else {
        panic!("there are three nodes");
    };
    let third = MESSAGES / 3;
    tokio::join!(
        publish(a, 0..third),
        publish(b, third..2 * third),
        publish(c, 2 * third..MESSAGES),
    );
    let mut counts = [0; MEMBERS];
    let mut seen = BTreeSet::new();
    while seen.len() < MESSAGES {
        let (index, number) = heard.recv().await.unwrap();
        assert!(seen.insert(number), "{number} twice");
        counts[index] += 1;
    }
    assert!(heard.try_recv().is_err());
    let even = MESSAGES / MEMBERS;
    let is_fair = |count: &usize| (even / 2..2 * even).contains(count);
    assert!(counts.iter().all(is_fair), "{counts:?}");
    workers.iter().for_each(JoinHandle::abort);
    for broker in brokers {
        assert_eq!(broker.count(Metric::DroppedShared), 0);
        broker.stop().await;
    }
}

#[tokio::test]
async fn only_member_may_be_on_another_node_than_the_publisher() {
    let cluster = Cluster::new();
    let (one, two) = cluster.pair().await;
    for version in ALL {
        let mut member = two.join(version, "member").await;
        let mut publisher = one.join(version, "publisher").await;
        for (filter, qos) in [("$share/g/t", 0), ("$queue/t", 1), ("$share/h/+", 2)] {
            // Who has its SUBACK misses nothing.
            assert_eq!(member.subscribe(filter, qos).await, qos);
            publisher.publish("t", "x", 0b0010, 7).await;
            let (first, body) = publisher.recv().await;
            // There is somebody: no reason is given.
            assert_eq!((first, &body[..2]), (0x40, &[0, 7][..]));
            assert_ne!(body.get(2), Some(&0x10));
            let received = member.receive().await;
            assert_eq!((&*received.payload, received.qos), ("x", qos.min(1)));
            member.unsubscribe(filter).await;
        }
        publisher.leave().await;
        member.leave().await;
    }
    one.stop().await;
    two.stop().await;
}

#[tokio::test]
async fn own_members_come_first_if_the_node_is_told_so() {
    let cluster = Cluster::new();
    let local = "shared_subscriptions = \"local\"\n";
    let one = cluster.start("one", &[], local).await;
    let two = cluster.start("two", &[&one], local).await;
    one.wait_for_members(&["two"]).await;
    two.wait_for_members(&["one"]).await;
    let mut near = member(&one, "near").await;
    let mut far = member(&two, "far").await;
    let mut publisher = one.join(V5, "publisher").await;
    publish(&mut publisher, 0..50).await;
    assert_eq!(numbers(&mut near, 50).await.len(), 50);
    near.leave().await;
    one.wait_for(Metric::SharedSubscriptions, 0).await;
    publish(&mut publisher, 50..100).await;
    assert!(numbers(&mut far, 50).await.into_iter().eq(50..100));
    one.stop().await;
    two.stop().await;
}

#[tokio::test]
async fn what_a_member_leaves_goes_to_one_of_another_node() {
    let cluster = Cluster::new();
    let (one, two) = cluster.pair().await;
    let mut leaver = member(&one, "leaver").await;
    let mut publisher = two.join(V5, "publisher").await;
    // Some that it was sent, and some that wait.
    publish(&mut publisher, 0..150).await;
    assert_eq!(leaver.receive_silently().await.payload, "0");
    let mut other = member(&two, "other").await;
    drop(leaver);
    assert!(numbers(&mut other, 150).await.into_iter().eq(0..150));
    other.ping().await;
    assert_eq!(one.count(Metric::DroppedShared), 0);
    one.stop().await;
    two.stop().await;
}

#[tokio::test]
async fn what_was_for_a_member_of_a_lost_node_goes_to_another_one() {
    let cluster = Cluster::new();
    let (one, two) = cluster.pair().await;
    let mut near = member(&one, "near").await;
    let far = member(&two, "far").await;
    let mut publisher = one.join(V5, "publisher").await;
    let hung = two.hang_cluster().await;
    let publishing = publish(&mut publisher, 0..WINDOW);
    let (received, ()) = tokio::join!(numbers(&mut near, WINDOW), publishing);
    assert!(received.into_iter().eq(0..WINDOW));
    assert!(one.count(Metric::ClusterGone) > 0);
    publish(&mut publisher, 0..10).await;
    assert_eq!(numbers(&mut near, 10).await.len(), 10);
    near.ping().await;
    drop((hung, far));
    one.stop().await;
    two.stop().await;
}

#[tokio::test]
async fn absent_member_of_a_lost_node_gets_at_another_what_nobody_else_could_take() {
    let cluster = Cluster::new();
    let [one, two, three] = cluster.three(["2s"; 3]).await;
    let (mut absent, _new) = two.resume(V5, "absent").await;
    assert_eq!(absent.subscribe(FILTER, 1).await, 1);
    absent.leave().await;
    two.wait_for_copies(1).await;
    let mut publisher = one.join(V5, "publisher").await;
    publish(&mut publisher, 0..10).await;
    let hung = two.hang_cluster().await;
    publish(&mut publisher, 10..20).await;
    assert_eq!(one.count(Metric::DroppedShared), 0);
    assert_eq!(three.count(Metric::DroppedShared), 0);
    publish(&mut publisher, 20..30).await;
    let (mut absent, is_present) = one.resume(V5, "absent").await;
    assert!(is_present);
    let mut received = BTreeSet::new();
    while received.len() < 30 {
        let number = absent.receive().await.payload.parse::<usize>().unwrap();
        // What its node had taken may come once more.
        let is_new = received.insert(number);
        assert!(is_new || number < 10, "{number} twice");
    }
    drop(hung);
    for broker in [one, two, three] {
        broker.stop().await;
    }
}

#[tokio::test]
async fn members_of_a_node_that_stops_are_made_good_for_by_others() {
    let cluster = Cluster::new();
    let (one, two) = cluster.pair().await;
    let (told, mut heard) = unbounded_channel();
    let near = work(member(&one, "near").await, 0, &told);
    let (mut far, _new) = two.resume(V5, "far").await;
    assert_eq!(far.subscribe(FILTER, 1).await, 1);
    let far = work(far, 1, &told);
    let mut publisher = one.join(V5, "publisher").await;
    let mut received = Vec::new();
    publish(&mut publisher, 0..50).await;
    while received.len() < 50 {
        received.push(heard.recv().await.unwrap());
    }
    far.abort();
    two.stop().await;
    publish(&mut publisher, 50..100).await;
    while received.len() < 100 {
        received.push(heard.recv().await.unwrap());
    }
    let members: BTreeSet<_> = received.iter().map(|(member, _number)| *member).collect();
    let numbers: BTreeSet<_> = received.iter().map(|(_member, number)| *number).collect();
    assert!(members.into_iter().eq([0, 1]) && numbers.into_iter().eq(0..100));
    near.abort();
    one.stop().await;
}

#[tokio::test]
async fn member_that_moves_misses_nothing_that_is_published_meanwhile() {
    let cluster = Cluster::new();
    let brokers = cluster.three(["2s"; 3]).await;
    let (mut member, _new) = brokers[0].resume(V5, "member").await;
    assert_eq!(member.subscribe(FILTER, 1).await, 1);
    let mut publishers = Vec::new();
    for (broker, id) in brokers.iter().zip(["a", "b", "c"]) {
        publishers.push(broker.join(V5, id).await);
    }
    let [a, b, c] = &mut publishers[..] else {
        panic!("there are three nodes");
    };
    for round in 0..12 {
        member.leave().await;
        let first = round * 400;
        publish(a, first..first + 100).await;
        let to = &brokers[(round + 1) % 3];
        let (resumed, (), (), ()) = tokio::join!(
            to.resume(V5, "member"),
            publish(a, first + 100..first + 200),
            publish(b, first + 200..first + 300),
            publish(c, first + 300..first + 400),
        );
        let is_present;
        (member, is_present) = resumed;
        assert!(is_present);
        let received = numbers(&mut member, 400).await;
        assert!(received.into_iter().eq(first..first + 400), "round {round}");
    }
    member.ping().await;
    for broker in brokers {
        assert_eq!(broker.count(Metric::DroppedShared), 0);
        broker.stop().await;
    }
}

/// Resumes a session, ends it at once, and tells what its client has got all the same.
async fn end_at(broker: &Broker, id: &str) -> BTreeSet<usize> {
    let (mut client, is_present) = broker.resume(V5, id).await;
    assert!(is_present);
    // DISCONNECT with an expiry of 0.
    client.send(&[0xe0, 7, 0, 5, 0x11, 0, 0, 0, 0]).await;
    let mut received = BTreeSet::new();
    while let Some((first, body)) = client.read_packet().await {
        assert_eq!(first & 0xf0, 0x30);
        // Behind topic, identifier and no properties.
        let payload = std::str::from_utf8(&body[2 + "jobs/x".len() + 2 + 1..]);
        received.insert(payload.unwrap().parse().unwrap());
    }
    received
}

#[tokio::test]
async fn what_was_for_a_member_that_ends_where_it_has_just_come_is_for_others() {
    const ROUND: usize = 100;
    const ROUNDS: usize = 5;
    let cluster = Cluster::new();
    let brokers = cluster.three(["2s"; 3]).await;
    let (mut heir, _new) = brokers[2].resume(V5, "heir").await;
    assert_eq!(heir.subscribe(FILTER, 1).await, 1);
    heir.leave().await;
    let mut publisher = brokers[0].join(V5, "publisher").await;
    let mut received = BTreeSet::new();
    for round in 0..ROUNDS {
        let (mut member, _new) = brokers[0].resume(V5, "member").await;
        assert_eq!(member.subscribe(FILTER, 1).await, 1);
        member.leave().await;
        let first = round * ROUND;
        let (had, ()) = tokio::join!(
            end_at(&brokers[1], "member"),
            publish(&mut publisher, first..first + ROUND),
        );
        received.extend(had);
    }
    let (mut heir, is_present) = brokers[2].resume(V5, "heir").await;
    assert!(is_present);
    while received.len() < ROUNDS * ROUND {
        received.insert(heir.receive().await.payload.parse().unwrap());
    }
    for broker in brokers {
        assert_eq!(broker.count(Metric::DroppedShared), 0);
        broker.stop().await;
    }
}
