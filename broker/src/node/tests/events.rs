//! What operators are told has happened.

use std::path::Path;

use console::events::{EventRecord, EventsPage};

use super::{
    Broker,
    cluster::Cluster,
    operate::{get, post, serve},
};
use crate::control::view::{EvacuationView, NodeStatus};

/// Waits for the next event behind a number that fits; tells its own number, too.
async fn next(socket: &Path, since: u64, narrow: &str) -> EventRecord {
    loop {
        let route = format!("/v1/events?since={since}&wait=5{narrow}");
        let page: EventsPage = get(socket, &route).await.unwrap();
        if let Some(event) = page.events.into_iter().next() {
            return event;
        }
    }
}

#[tokio::test]
async fn nodes_that_come_and_go_are_told_of_as_it_happens() {
    let cluster = Cluster::new();
    let one = cluster.start("one", &[], "").await;
    let (socket, _serving) = serve(&one).await;
    let page: EventsPage = get(&socket, "/v1/events").await.unwrap();
    let kinds: Vec<_> = page.events.iter().map(|event| &*event.kind).collect();
    assert_eq!(kinds, ["started"]);
    let asked = socket.clone();
    let waiting =
        tokio::spawn(async move { next(&asked, page.last, "&kind=node_joined,node_left").await });
    let two = cluster.start("two", &[&one], "").await;
    let came = waiting.await.unwrap();
    assert_eq!(came.text("node"), Some("two"));
    two.stop().await;
    let gone = next(&socket, came.seq, "&kind=node_lost,node_left").await;
    assert_eq!(gone.kind, "node_left");
    assert_eq!(gone.text("cause"), Some("it has stopped"));
    one.stop().await;
}

#[tokio::test]
async fn node_that_hangs_is_an_error_and_one_that_stops_is_not() {
    let cluster = Cluster::new();
    let (one, two) = cluster.pair().await;
    let (socket, _serving) = serve(&one).await;
    let hung = two.hang_cluster().await;
    let lost = next(&socket, 0, "&severity=error").await;
    assert_eq!((&*lost.kind, lost.text("node")), ("node_lost", Some("two")));
    drop(hung);
    one.stop().await;
    two.stop().await;
}

#[tokio::test]
async fn evacuation_is_told_of_in_the_order_in_which_it_happens() {
    let broker = Broker::start().await;
    let (socket, _serving) = serve(&broker).await;
    let order = r#"{"rate": 1000, "wait_seconds": 0}"#.to_owned();
    let _begun: EvacuationView = post(&socket, "/v1/node/evacuate", Some(order))
        .await
        .unwrap();
    let done = next(&socket, 0, "&kind=evacuated").await;
    let _status: NodeStatus = post(&socket, "/v1/node/serve", None).await.unwrap();
    let page: EventsPage = get(&socket, "/v1/events").await.unwrap();
    let kinds: Vec<_> = page.events.iter().map(|event| &*event.kind).collect();
    assert_eq!(kinds, ["started", "evacuating", "evacuated", "welcoming"]);
    assert_eq!(page.events[2], done);
    broker.stop().await;
}

#[tokio::test]
async fn unknown_kinds_and_options_are_refused() {
    let broker = Broker::start().await;
    let (socket, _serving) = serve(&broker).await;
    for route in ["kind=weather", "severity=loud", "color=red", "since=-1"] {
        let refusal = get::<EventsPage>(&socket, &format!("/v1/events?{route}")).await;
        assert!(refusal.unwrap_err().is_usage(), "{route}");
    }
    broker.stop().await;
}
