//! What operators see of all nodes at one of them, and do there.

use std::{path::Path, time::Duration};

use serde::de::DeserializeOwned;

use super::{
    Broker,
    client::{Client, Hello},
    cluster::{Cluster, status},
    operate::{get, post, serve},
};
use crate::{
    codec::packet::Version,
    control::view::{
        ClientView, ClusterNodes, EvacuationView, Kicked, SessionView, SubscriptionView, TopicView,
        WidePage,
    },
    metrics::Metric,
};

/// All rows of a listing, as nodes and what is wanted of the rows.
async fn list<T: DeserializeOwned + Send + 'static>(
    socket: &Path,
    what: &str,
    limit: usize,
    word: impl Fn(&T) -> String,
) -> Vec<(String, String)> {
    let mut listed = Vec::new();
    let mut after = String::new();
    loop {
        let route = format!("/v1/cluster/{what}limit={limit}{after}");
        let page: WidePage<T> = get(socket, &route).await.unwrap();
        assert!(page.silent.is_empty(), "{:?}", page.silent);
        let rows = page.rows.into_iter();
        listed.extend(rows.map(|row| (row.node, word(&row.row))));
        let Some(next) = page.next else { return listed };
        after = format!("&after={}", console::client::encode(&next));
    }
}

#[tokio::test]
async fn listings_of_all_nodes_are_in_order_page_by_page() {
    let cluster = Cluster::new();
    let (one, two) = cluster.pair().await;
    let (socket, _serving) = serve(&two).await;
    let is_on_one = |number: usize| number.is_multiple_of(3);
    let mut clients = Vec::new();
    for number in 0..30 {
        let broker = if is_on_one(number) { &one } else { &two };
        let mut client = broker.join(Version::V5, &format!("c{number:02}")).await;
        client.subscribe("all", 0).await;
        client.subscribe(&format!("of/{number:02}"), 0).await;
        clients.push(client);
    }
    let node = |number| if is_on_one(number) { "one" } else { "two" }.to_owned();
    let ids = (0..30).map(|number| (node(number), format!("c{number:02}")));
    let ids: Vec<_> = ids.collect();
    for limit in [1, 7, 500] {
        let listed = list(&socket, "clients?", limit, |row: &ClientView| {
            row.client_id.clone()
        });
        assert_eq!(listed.await, ids, "{limit}");
        let listed = list(
            &socket,
            "sessions?prefix=c1&",
            limit,
            |row: &SessionView| row.client_id.clone(),
        );
        assert_eq!(listed.await, ids[10..20], "{limit}");
        // Each node has subscribers of its own for this one.
        let listed = list(&socket, "topics?prefix=a&", limit, |row: &TopicView| {
            format!("{} {}", row.filter, row.subscribers)
        });
        let all = [("one", "all 10"), ("two", "all 20")];
        let all = all.map(|(node, row)| (node.to_owned(), row.to_owned()));
        let mut listed = listed.await;
        listed.sort();
        assert_eq!(listed, all, "{limit}");
    }
    let listed = list(
        &socket,
        "subscriptions?topic=of/03&",
        500,
        |row: &SubscriptionView| row.client_id.clone(),
    );
    assert_eq!(listed.await, ids[3..4]);

    let ClusterNodes { mut nodes, silent } = get(&socket, "/v1/cluster/nodes").await.unwrap();
    assert!(silent.is_empty(), "{silent:?}");
    nodes.sort_by(|a, b| a.node.cmp(&b.node));
    let sessions: Vec<_> = nodes.iter().map(|node| node.sessions).collect();
    assert_eq!(sessions, [10, 20]);
    one.stop().await;
    two.stop().await;
}

#[tokio::test]
async fn client_is_kicked_on_whichever_node_it_is() {
    let cluster = Cluster::new();
    let (one, two) = cluster.pair().await;
    let (socket, _serving) = serve(&one).await;
    let kick = async |order: &str| {
        let order = Some(order.to_owned());
        post::<Kicked>(&socket, "/v1/kick", order).await
    };
    let mut here = one.join(Version::V5, "here").await;
    let kicked = kick(r#"{"client_id": "here"}"#).await.unwrap();
    assert_eq!(kicked.node.as_deref(), Some("one"));
    here.expect(0xe0, &[0x98]).await;

    let hello = Hello::persistent(Version::V5, "there");
    let (mut there, _) = Client::connect(two.address, &hello).await;
    there.subscribe("t", 1).await;
    let kicked = kick(r#"{"client_id": "there"}"#).await.unwrap();
    assert_eq!(kicked.node.as_deref(), Some("two"));
    assert!(kicked.was_connected && !kicked.session_ended);
    there.expect(0xe0, &[0x98]).await;
    let order = r#"{"client_id": "there", "end_session": true}"#;
    let kicked = kick(order).await.unwrap();
    assert!(!kicked.was_connected && kicked.session_ended);
    two.wait_for(Metric::Sessions, 0).await;

    assert!(kick(order).await.unwrap_err().is_usage());
    one.stop().await;
    two.stop().await;
}

#[tokio::test]
async fn node_that_does_not_answer_is_named_and_the_others_are_listed() {
    let cluster = Cluster::new();
    let one = cluster.start("one", &[], "").await;
    let two = cluster.start("two", &[&one], "").await;
    let three = cluster.start("three", &[&one], "").await;
    one.wait_for_members(&["three", "two"]).await;
    three.wait_for_members(&["one", "two"]).await;
    let (socket, _serving) = serve(&one).await;
    let mut clients = Vec::new();
    for number in 0..6 {
        let broker = [&one, &two, &three][number % 3];
        clients.push(broker.join(Version::V5, &format!("c{number}")).await);
    }
    let hung = two.hang_cluster().await;
    let begun = std::time::Instant::now();
    let page = |route| get::<WidePage<ClientView>>(&socket, route);
    let first = page("/v1/cluster/clients?limit=3").await.unwrap();
    // The connection to it is given up before whoever asks does.
    assert!(begun.elapsed() < Duration::from_secs(8));
    let ids = |page: &WidePage<ClientView>| -> Vec<_> {
        let rows = page.rows.iter();
        rows.map(|row| format!("{} {}", row.node, row.row.client_id))
            .collect()
    };
    let silent: Vec<_> = first.silent.iter().map(|silent| &*silent.node).collect();
    assert_eq!(silent, ["two"]);
    assert_eq!(ids(&first), ["one c0", "three c2", "one c3"]);
    // Who goes on does not ask it again.
    let route = format!(
        "/v1/cluster/clients?limit=3&after={}&skip=two",
        first.next.as_deref().unwrap()
    );
    let rest = page(&route).await.unwrap();
    assert!(rest.silent.is_empty() && rest.next.is_none(), "{rest:?}");
    assert_eq!(ids(&rest), ["three c5"]);

    let nodes: ClusterNodes = get(&socket, "/v1/cluster/nodes").await.unwrap();
    assert_eq!((nodes.nodes.len(), nodes.silent.len()), (2, 1), "{nodes:?}");
    // Once it is held for gone it is named without being asked, and with the reason.
    one.wait_until(|node| status(node).members.iter().any(|member| !member.alive))
        .await;
    let again = page("/v1/cluster/clients?limit=3").await.unwrap();
    assert_eq!(ids(&again), ids(&first));
    let told = &again.silent[0].trouble;
    assert!(told.starts_with("gone: "), "{told}");
    drop(hung);
    for broker in [one, two, three] {
        broker.stop().await;
    }
}

#[tokio::test]
async fn kick_says_which_nodes_could_not_be_asked() {
    let cluster = Cluster::new();
    let (one, two) = cluster.pair().await;
    let (socket, _serving) = serve(&one).await;
    let _there = two.join(Version::V5, "there").await;
    let hung = two.hang_cluster().await;
    let order = Some(r#"{"client_id": "there"}"#.to_owned());
    let refusal = post::<Kicked>(&socket, "/v1/kick", order.clone()).await;
    let refusal = refusal.unwrap_err();
    // It may be there: that is no mistake of who asks.
    assert!(!refusal.is_usage(), "{refusal}");
    assert!(refusal.to_string().contains("two: "), "{refusal}");
    one.wait_until(|node| !status(node).members[0].alive).await;
    let refusal = post::<Kicked>(&socket, "/v1/kick", order).await;
    let refusal = refusal.unwrap_err().to_string();
    assert!(refusal.contains("two: gone: "), "{refusal}");
    drop(hung);
    one.stop().await;
    two.stop().await;
}

#[tokio::test]
async fn node_without_a_cluster_says_so() {
    let broker = Broker::start().await;
    let (socket, _serving) = serve(&broker).await;
    let refusal = get::<WidePage<ClientView>>(&socket, "/v1/cluster/clients").await;
    assert!(refusal.unwrap_err().is_usage());
    let order = r#"{"terms": {"rate": 1000, "wait_seconds": 0}}"#.to_owned();
    let refusal = post::<EvacuationView>(&socket, "/v1/node/rebalance", Some(order)).await;
    assert!(refusal.unwrap_err().is_usage());
    broker.stop().await;
}

#[tokio::test]
async fn rebalanced_node_keeps_as_many_as_the_nodes_have_on_average() {
    let cluster = Cluster::new();
    let (one, two) = cluster.pair().await;
    let (socket, _serving) = serve(&one).await;
    let mut clients = Vec::new();
    for number in 0..9 {
        clients.push(one.join(Version::V5, &format!("a{number}")).await);
    }
    for number in 0..2 {
        clients.push(two.join(Version::V5, &format!("b{number}")).await);
    }
    let told = |node: &super::Node| {
        let tally = status(node).members.first().and_then(|member| member.tally);
        tally.map(|tally| tally.clients)
    };
    one.wait_until(|node| told(node) == Some(2)).await;
    two.wait_until(|node| told(node) == Some(9)).await;
    let order = r#"{"terms": {"rate": 1000, "wait_seconds": 0}}"#.to_owned();
    let begun: EvacuationView = post(&socket, "/v1/node/rebalance", Some(order.clone()))
        .await
        .unwrap();
    // Of eleven, six are its part.
    assert_eq!(begun.left, 3);
    one.wait_for(Metric::SessionsConnected, 6).await;
    one.wait_until(|node| !node.status().is_evacuating()).await;
    assert_eq!(one.count(Metric::ClosedReferred), 3);

    // Who has no more than the others has nobody to send away.
    let (socket, _serving) = serve(&two).await;
    let begun: EvacuationView = post(&socket, "/v1/node/rebalance", Some(order))
        .await
        .unwrap();
    assert_eq!(begun.left, 0);
    two.wait_until(|node| !node.status().is_evacuating()).await;
    assert_eq!(two.count(Metric::ClosedReferred), 0);
    one.stop().await;
    two.stop().await;
}

#[tokio::test]
async fn each_node_tells_of_all_of_them() {
    let cluster = Cluster::new();
    let sys = "[sys]\ninterval = \"250ms\"\n";
    let one = cluster.start("one", &[], sys).await;
    let two = cluster.start("two", &[&one], sys).await;
    one.wait_for_members(&["two"]).await;
    let mut watcher = one.join(Version::V311, "watcher").await;
    let root = "$SYS/broker/cluster/node/two";
    watcher.subscribe(&format!("{root}/#"), 0).await;
    let _client = two.join(Version::V311, "client").await;
    wait_for(&mut watcher, &format!("{root}/clients/connected"), "1").await;
    wait_for(&mut watcher, &format!("{root}/state"), "alive").await;
    two.stop().await;
    // Who says goodbye is not known any more: all of it is taken back.
    wait_for(&mut watcher, &format!("{root}/state"), "").await;
    one.stop().await;
}

/// Waits until that is what is said of a topic.
async fn wait_for(watcher: &mut Client, topic: &str, payload: &str) {
    loop {
        let received = watcher.receive().await;
        if received.topic == topic && received.payload == payload {
            break;
        }
    }
}
