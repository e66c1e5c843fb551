//! What nodes that are left owe to the sessions of one that is gone, and to each other.

use std::{collections::BTreeSet, time::Duration};

use super::{
    client::{Client, Hello},
    cluster::Cluster,
    replicas::{connect, leave_session},
};
use crate::{codec::packet::Version, metrics::Metric};

const V5: Version = Version::V5;

/// Publishes the numbers from one on until something is so; the result is the last of them, which are
/// not acknowledged.
async fn publish_until(
    publishers: &mut [Client],
    topic: &str,
    mut is_over: impl FnMut() -> bool,
) -> u16 {
    let mut last = 0;
    while !is_over() {
        last += 1;
        for publisher in &mut *publishers {
            let payload = last.to_string();
            publisher.publish(topic, &payload, 0b0010, last).await;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    last
}

async fn expect_answers(publishers: &mut [Client], last: u16) {
    for publisher in publishers {
        for id in 1..=last {
            publisher.expect(0x40, &id.to_be_bytes()).await;
        }
    }
}

/// Each has something for sessions of the lost one at the other, and behind it what the other has copies
/// of. That a loss is heard of before all is safe, `cluster::burial` shows.
#[tokio::test]
async fn nodes_that_are_left_do_not_wait_for_each_other() {
    let cluster = Cluster::new();
    let [one, two, three] = cluster.three(["2s"; 3]).await;
    for (broker, name) in [(&one, "a"), (&two, "b"), (&three, "c")] {
        for number in 0..10 {
            leave_session(broker, V5, &format!("{name}{number}"), &[("t", 1)]).await;
        }
        broker.wait_for_copies(10).await;
    }
    let mut publishers = Vec::new();
    for number in 0..10 {
        publishers.push(two.join(V5, &format!("p{number}")).await);
        publishers.push(three.join(V5, &format!("q{number}")).await);
    }
    let hung = one.hang_cluster().await;
    for publisher in &mut publishers {
        publisher.publish("t", "x", 0b0010, 1).await;
    }
    let mut shards = Vec::new();
    for broker in [&two, &three] {
        for shard in 0..broker.node.status().shared.shards {
            shards.push(broker.hang(shard).await);
        }
    }
    for publisher in &mut publishers {
        publisher.publish("t", "x", 0b0010, 2).await;
    }
    let lost = || [&two, &three].map(|broker| broker.count(Metric::ClusterLost));
    two.wait_until(|_node| lost() == [1, 1]).await;
    drop(shards);
    expect_answers(&mut publishers, 2).await;
    assert_eq!(lost(), [1, 1]);
    drop(hung);
    for broker in [one, two, three] {
        broker.stop().await;
    }
}

#[tokio::test]
async fn what_is_for_a_node_that_others_hold_for_alive_longer_goes_to_its_sessions() {
    let cluster = Cluster::new();
    let [one, two, three] = cluster.three(["1s", "1s", "4s"]).await;
    for number in 0..10 {
        leave_session(&one, V5, &format!("c{number}"), &[("t", 1)]).await;
    }
    one.wait_for_copies(10).await;
    let copies = || [&two, &three].map(|broker| broker.count(Metric::Copies));
    two.wait_until(|_node| copies().iter().sum::<u64>() == 10)
        .await;
    assert!(copies().iter().all(|copies| *copies > 0));
    let mut publishers = [two.join(V5, "publisher").await];
    let hung = one.hang_cluster().await;
    let is_lost = || three.count(Metric::ClusterLost) > 0;
    let last = publish_until(&mut publishers, "t", is_lost).await;
    expect_answers(&mut publishers, last).await;
    // Neither has given up the other one meanwhile.
    let lost = [&two, &three].map(|broker| broker.count(Metric::ClusterLost));
    assert_eq!(lost, [1, 1]);
    for number in 0..10 {
        let hello = Hello::persistent(V5, &format!("c{number}"));
        let (mut client, is_present) = connect(&two, &hello).await;
        assert!(is_present);
        let mut missing: BTreeSet<_> = (1..=last).map(|number| number.to_string()).collect();
        for _ in 1..=last {
            let payload = client.receive().await.payload;
            assert!(missing.remove(&payload), "{payload} came twice");
        }
        client.ping().await;
    }
    drop(hung);
    for broker in [one, two, three] {
        broker.stop().await;
    }
}

/// Whom nobody has heard of the lost node's sessions need not wait for the one that holds it for alive.
#[tokio::test]
async fn node_that_holds_a_lost_one_for_alive_longer_holds_up_nobody_else() {
    let cluster = Cluster::new();
    let [one, two, three] = cluster.three(["1s", "1s", "30s"]).await;
    for number in 0..10 {
        leave_session(&one, V5, &format!("c{number}"), &[("t", 1)]).await;
    }
    one.wait_for_copies(10).await;
    let mut far = three.join(V5, "far").await;
    assert_eq!(far.subscribe("other", 1).await, 1);
    let mut publisher = two.join(V5, "publisher").await;
    let hung = one.hang_cluster().await;
    publisher.publish("t", "x", 0b0010, 1).await;
    two.wait_for(Metric::ClusterLost, 1).await;
    // All three shards of each node have something to say to the other.
    for number in 0..10 {
        let (mut late, _present) =
            connect(&two, &Hello::persistent(V5, &format!("late{number}"))).await;
        late.deliver("other", "y", 1).await;
        assert_eq!(far.receive().await.payload, "y");
        late.leave().await;
    }
    assert_eq!(three.count(Metric::ClusterLost), 0);
    drop(hung);
    for broker in [one, two, three] {
        broker.stop().await;
    }
}
