//! Retained messages of nodes that were parted.

use std::{
    sync::{Arc, PoisonError},
    time::Instant,
};

use super::{
    Broker,
    client::Client,
    cluster::{Cluster, status},
    persist,
};
use crate::{
    codec::packet::Version,
    message::Qos,
    node::Node,
    shard::Shared,
    testing::{Dir, message},
};

/// All that a node has retained: topics and payloads.
fn retained_of(node: &Node) -> Vec<(String, String)> {
    let retained = &node.status().shared.retained;
    let retained = retained.read().unwrap_or_else(PoisonError::into_inner);
    let page = retained.page("#", None, Instant::now());
    assert!(page.next.is_none());
    let text = |payload: &[u8]| String::from_utf8(payload.to_vec()).unwrap();
    let messages = page.messages.iter().map(|kept| &kept.message);
    messages
        .map(|message| (message.topic.to_string(), text(&message.payload)))
        .collect()
}

fn all(expected: &[(&str, &str)]) -> Vec<(String, String)> {
    let owned = |(topic, payload): &(&str, &str)| ((*topic).to_owned(), (*payload).to_owned());
    expected.iter().map(owned).collect()
}

impl Broker {
    async fn wait_for_retained(&self, expected: &[(&str, &str)]) {
        let expected = all(expected);
        self.wait_until(|node| retained_of(node) == expected).await;
    }
}

/// Publishes with QoS 0, which waits for nobody.
async fn retain(client: &mut Client, topic: &str, payload: &str) {
    client.publish(topic, payload, 0b0001, 0).await;
}

#[tokio::test]
async fn what_was_said_last_on_either_side_is_what_both_have_when_they_meet() {
    let cluster = Cluster::new();
    let (one, two) = cluster.pair().await;
    let mut at_one = one.join(Version::V311, "a").await;
    let mut at_two = two.join(Version::V311, "b").await;
    for topic in ["deleted", "kept", "later", "$own/state"] {
        retain(&mut at_one, topic, "before").await;
    }
    let before = [
        ("deleted", "before"),
        ("kept", "before"),
        ("later", "before"),
    ];
    two.wait_for_retained(&before).await;
    let hung = two.hang_cluster().await;
    one.wait_until(|node| !status(node).members[0].alive).await;
    retain(&mut at_one, "deleted", "").await;
    retain(&mut at_one, "later", "one").await;
    retain(&mut at_one, "of/one", "1").await;
    let of_one = [("kept", "before"), ("later", "one"), ("of/one", "1")];
    one.wait_for_retained(&of_one).await;
    retain(&mut at_two, "later", "two").await;
    retain(&mut at_two, "of/two", "2").await;
    let of_two = [
        ("deleted", "before"),
        ("kept", "before"),
        ("later", "two"),
        ("of/two", "2"),
    ];
    two.wait_for_retained(&of_two).await;
    drop(hung);
    let both = [
        ("kept", "before"),
        ("later", "two"),
        ("of/one", "1"),
        ("of/two", "2"),
    ];
    one.wait_for_retained(&both).await;
    two.wait_for_retained(&both).await;
    // Also what wildcards do not show.
    let kept = |node: &Node| {
        let retained = node.status().shared.retained.read();
        let retained = retained.unwrap_or_else(PoisonError::into_inner);
        let page = retained.page("$own/#", None, Instant::now());
        page.messages.len()
    };
    assert_eq!((kept(&one.node), kept(&two.node)), (1, 1));
    one.stop().await;
    two.stop().await;
}

#[tokio::test]
async fn what_was_deleted_while_a_node_was_away_does_not_come_back_with_it() {
    let cluster = Cluster::new();
    let (of_one, of_two) = (Dir::new(), Dir::new());
    let start_one = async |seeds: &[&Broker]| {
        let settings = cluster.settings(seeds, "") + &persist::settings(&of_one);
        Broker::start_named("one", &settings).await
    };
    let one = start_one(&[]).await;
    let settings = |seeds: &[&Broker]| cluster.settings(seeds, "") + &persist::settings(&of_two);
    let two = Broker::start_named("two", &settings(&[&one])).await;
    one.wait_for_members(&["two"]).await;
    let mut client = one.join(Version::V311, "a").await;
    for (topic, payload) in [("deleted", "x"), ("replaced", "x")] {
        client.publish(topic, payload, 0b0011, 7).await;
        client.expect(0x40, &[0, 7]).await;
    }
    two.wait_for_retained(&[("deleted", "x"), ("replaced", "x")])
        .await;
    two.stop().await;
    for (topic, payload) in [("deleted", ""), ("replaced", "y")] {
        client.publish(topic, payload, 0b0011, 7).await;
        client.expect(0x40, &[0, 7]).await;
    }
    // Not even if the one that knows of it has been away since.
    one.stop().await;
    let two = Broker::start_named("two", &settings(&[])).await;
    let mut at_two = two.join(Version::V311, "b").await;
    retain(&mut at_two, "told", "z").await;
    let of_two = [("deleted", "x"), ("replaced", "x"), ("told", "z")];
    two.wait_for_retained(&of_two).await;
    let one = start_one(&[&two]).await;
    // What is told is in the order of topics, so the others have come as well.
    let both = [("replaced", "y"), ("told", "z")];
    one.wait_for_retained(&both).await;
    two.wait_for_retained(&both).await;
    one.stop().await;
    two.stop().await;
}

/// Has the node retain something, as if it had come from one that has not reached the others yet.
fn take_in(node: &Node) {
    let Shared {
        retained, cluster, ..
    } = &*node.status().shared;
    let at = cluster.as_ref().unwrap().next_time();
    let mut message = message(b"x".as_slice(), Qos::AtMostOnce);
    message.retain = true;
    let mut retained = retained.write().unwrap_or_else(PoisonError::into_inner);
    assert!(retained.store(&Arc::new(message), at, Instant::now()));
}

#[tokio::test]
async fn nodes_compare_what_they_have_when_one_is_lost() {
    let cluster = Cluster::new();
    let [one, two, three] = cluster.three(["2s"; 3]).await;
    for broker in [&one, &two, &three] {
        let is_settled = |node: &Node| node.status().cluster().unwrap().is_settled();
        broker.wait_until(is_settled).await;
    }
    take_in(&two.node);
    assert_eq!(retained_of(&three.node), all(&[]));
    one.stop().await;
    three.wait_for_retained(&[("t", "x")]).await;
    two.stop().await;
    three.stop().await;
}
