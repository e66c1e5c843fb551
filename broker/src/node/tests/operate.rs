//! What operators see and do: listings, kicks, and how a node ends.

use std::{
    path::{Path, PathBuf},
    sync::atomic::{AtomicUsize, Ordering},
};

use console::client::{Client as Console, ClientError};
use serde::de::DeserializeOwned;

use super::{
    ALL, Broker,
    client::{Client, Hello, Testament},
};
use crate::{
    codec::packet::Version,
    config::Control,
    control::{
        DAEMON, Server,
        view::{ClientView, Kicked, NodeStatus, Page, Reloaded, SessionView, SubscriptionView},
    },
    metrics::Metric,
};

/// A control socket of a path of its own.
fn control() -> Control {
    static COUNT: AtomicUsize = AtomicUsize::new(0);
    let name = format!(
        "tidegate-broker-{}-{}.sock",
        std::process::id(),
        COUNT.fetch_add(1, Ordering::Relaxed)
    );
    Control {
        socket: std::env::temp_dir().join(name),
        mode: 0o600,
        group: None,
        is_default: false,
    }
}

/// Serves the broker's control socket for as long as the second value is held.
pub(super) async fn serve(broker: &Broker) -> (PathBuf, impl Sized + use<>) {
    let (reloads, _nobody_reloads) = tokio::sync::mpsc::channel(1);
    serve_with(broker, reloads).await
}

async fn serve_with(
    broker: &Broker,
    reloads: tokio::sync::mpsc::Sender<crate::control::Reload>,
) -> (PathBuf, impl Sized + use<>) {
    let control = control();
    let server = Server::bind(&control).await.unwrap().unwrap();
    let status = std::sync::Arc::clone(broker.node.status());
    (control.socket, server.serve(status, reloads))
}

pub(super) async fn get<T: DeserializeOwned + Send + 'static>(
    socket: &Path,
    route: &str,
) -> Result<T, ClientError> {
    let (socket, route) = (socket.to_owned(), route.to_owned());
    let asked = move || Console::new(DAEMON, &socket).unwrap().get(&route);
    tokio::task::spawn_blocking(asked).await.unwrap()
}

pub(super) async fn post<T: DeserializeOwned + Send + 'static>(
    socket: &Path,
    route: &str,
    body: Option<String>,
) -> Result<T, ClientError> {
    let (socket, route) = (socket.to_owned(), route.to_owned());
    let asked = move || Console::new(DAEMON, &socket).unwrap().post(&route, body);
    tokio::task::spawn_blocking(asked).await.unwrap()
}

async fn reload(socket: &Path) -> Result<Reloaded, ClientError> {
    let socket = socket.to_owned();
    let asked = move || {
        let console = Console::new(DAEMON, &socket).unwrap();
        console.post("/v1/reload", None)
    };
    tokio::task::spawn_blocking(asked).await.unwrap()
}

async fn kick(socket: &Path, order: &str) -> Result<Kicked, ClientError> {
    let (socket, order) = (socket.to_owned(), order.to_owned());
    let asked = move || {
        let console = Console::new(DAEMON, &socket).unwrap();
        console.post("/v1/kick", Some(order))
    };
    tokio::task::spawn_blocking(asked).await.unwrap()
}

#[tokio::test]
async fn clients_are_listed_in_order_page_by_page() {
    let broker = Broker::start().await;
    let (socket, _serving) = serve(&broker).await;
    let mut clients = Vec::new();
    for number in 0..40 {
        let version = ALL[number % 3];
        clients.push(broker.join(version, &format!("c {number:02}")).await);
    }
    let mut other = broker.join(Version::V5, "other").await;
    other.publish("t", "xyz", 0, 0).await;
    other.ping().await;

    let mut listed = Vec::new();
    let mut route = "/v1/clients?limit=7&prefix=c".to_owned();
    loop {
        let page: Page<ClientView> = get(&socket, &route).await.unwrap();
        assert!(page.rows.len() <= 7);
        listed.extend(page.rows.into_iter().map(|client| client.client_id));
        let Some(next) = page.next else { break };
        let next = console::client::encode(&next);
        route = format!("/v1/clients?limit=7&prefix=c&after={next}");
    }
    let expected: Vec<_> = (0..40).map(|number| format!("c {number:02}")).collect();
    assert_eq!(listed, expected);

    let page: Page<ClientView> = get(&socket, "/v1/clients?client=other").await.unwrap();
    let [other] = &page.rows[..] else {
        panic!("one client, not {page:?}");
    };
    assert_eq!((other.version.as_ref(), other.messages_in), ("5", 1));
    assert_eq!((other.keep_alive_seconds, other.clean_start), (60, true));
    assert!(other.address.starts_with("127.0.0.1:") && !other.slow);
    assert!(other.bytes_in >= 8 && other.bytes_out >= 2);
    broker.stop().await;
}

#[tokio::test]
async fn absent_sessions_and_their_subscriptions_are_listed() {
    let broker = Broker::start().await;
    let (socket, _serving) = serve(&broker).await;
    let hello = Hello::persistent(Version::V5, "away");
    let (mut away, _) = Client::connect(broker.address, &hello).await;
    away.subscribe("plant/+/alarm", 1).await;
    away.subscribe("plant/3/#", 0).await;
    away.leave().await;
    let mut here = broker.join(Version::V311, "here").await;
    here.subscribe("other", 2).await;
    here.deliver("plant/4/alarm", "x", 1).await;

    let page: Page<SessionView> = get(&socket, "/v1/sessions").await.unwrap();
    let [away, here] = &page.rows[..] else {
        panic!("two sessions, not {page:?}");
    };
    assert!(!away.connected && away.ends_in_seconds.is_some_and(|left| left > 3500));
    assert_eq!((away.subscriptions, away.queued), (2, 1));
    assert!(here.connected && here.ends_in_seconds.is_none());

    let filters = async |options: &str| {
        let route = format!("/v1/subscriptions?{options}");
        let page: Page<SubscriptionView> = get(&socket, &route).await.unwrap();
        let rows = page.rows.into_iter();
        rows.map(|row| (row.filter, row.qos)).collect::<Vec<_>>()
    };
    let [alarm, three, other] =
        [("plant/+/alarm", 1), ("plant/3/#", 0), ("other", 2)].map(|(f, q)| (f.to_owned(), q));
    assert_eq!(
        filters("").await,
        [alarm.clone(), three.clone(), other.clone()]
    );
    assert_eq!(filters("client=here").await, [other]);
    assert_eq!(
        filters("topic=plant/3/alarm").await,
        [alarm.clone(), three.clone()]
    );
    assert_eq!(filters("topic=plant/4/alarm").await, [alarm]);
    assert_eq!(filters("filter=plant/3/%23").await, [three]);
    broker.stop().await;
}

#[tokio::test]
async fn pages_of_subscriptions_go_on_inside_a_session() {
    let broker = Broker::start().await;
    let (socket, _serving) = serve(&broker).await;
    let mut clients = Vec::new();
    for id in ["a", "b", "c"] {
        let mut client = broker.join(Version::V5, id).await;
        for number in 0..7 {
            client.subscribe(&format!("t/{number}"), 0).await;
        }
        clients.push(client);
    }
    let mut listed = Vec::new();
    let mut after = String::new();
    loop {
        let route = format!("/v1/subscriptions?limit=4{after}");
        let page: Page<SubscriptionView> = get(&socket, &route).await.unwrap();
        listed.extend(page.rows.into_iter().map(|row| (row.client_id, row.filter)));
        let Some(next) = page.next else { break };
        after = format!("&after={}", console::client::encode(&next));
    }
    let expected: Vec<_> = ["a", "b", "c"]
        .into_iter()
        .flat_map(|id| (0..7).map(move |number| (id.to_owned(), format!("t/{number}"))))
        .collect();
    assert_eq!(listed, expected);
    broker.stop().await;
}

#[tokio::test]
async fn kicked_clients_are_told_and_their_sessions_kept_unless_asked() {
    let broker = Broker::start().await;
    let (socket, _serving) = serve(&broker).await;
    let mut watcher = broker.join(Version::V311, "watcher").await;
    watcher.subscribe("will", 1).await;
    for version in [Version::V311, Version::V5] {
        let mut hello = Hello::persistent(version, "victim/ä");
        hello.will = Some(Testament {
            topic: "will",
            payload: "kicked",
            retain: false,
            properties: Vec::new(),
        });
        let (mut victim, _) = Client::connect(broker.address, &hello).await;
        let kicked = kick(&socket, r#"{"client_id": "victim/ä"}"#).await.unwrap();
        assert!(kicked.was_connected && !kicked.session_ended);
        if version.is_v5() {
            victim.expect(0xe0, &[0x98]).await;
        }
        victim.expect_close().await;
        assert_eq!(watcher.receive().await.payload, "kicked");
        let (mut victim, welcome) = Client::connect(broker.address, &hello).await;
        assert!(welcome.session_present);

        let order = r#"{"client_id": "victim/ä", "end_session": true}"#;
        let kicked = kick(&socket, order).await.unwrap();
        assert!(kicked.was_connected && kicked.session_ended);
        if version.is_v5() {
            victim.expect(0xe0, &[0x98]).await;
        }
        victim.expect_close().await;
        assert_eq!(watcher.receive().await.payload, "kicked");
    }
    let refusal = kick(&socket, r#"{"client_id": "victim/ä"}"#).await;
    let refusal = refusal.unwrap_err();
    assert!(
        refusal.is_usage() && refusal.to_string().contains("no client"),
        "{refusal}"
    );
    assert_eq!(broker.count(Metric::ClosedKicked), 4);
    assert_eq!(broker.count(Metric::Sessions), 1);
    broker.stop().await;
}

#[tokio::test]
async fn absent_session_is_ended_on_demand() {
    let broker = Broker::start().await;
    let (socket, _serving) = serve(&broker).await;
    let hello = Hello::persistent(Version::V5, "away");
    let (mut away, _) = Client::connect(broker.address, &hello).await;
    away.subscribe("a", 1).await;
    away.leave().await;
    let kicked = kick(&socket, r#"{"client_id": "away"}"#).await.unwrap();
    assert!(!kicked.was_connected && !kicked.session_ended);
    let order = r#"{"client_id": "away", "end_session": true}"#;
    let kicked = kick(&socket, order).await.unwrap();
    assert!(!kicked.was_connected && kicked.session_ended);
    assert_eq!(broker.count(Metric::Subscriptions), 0);
    broker.stop().await;
}

#[tokio::test]
async fn reload_is_passed_on_and_its_outcome_back() {
    let broker = Broker::start().await;
    let (reloads, mut orders) = tokio::sync::mpsc::channel(1);
    let (socket, _serving) = serve_with(&broker, reloads).await;
    let reloaded = Reloaded {
        needs_restart: vec!["log".to_owned()],
    };
    let expected = reloaded.clone();
    let owner = tokio::spawn(async move {
        let refusal = crate::config::Config::parse("node = \"\"").unwrap_err();
        orders
            .recv()
            .await
            .unwrap()
            .send(Err(refusal.into()))
            .unwrap();
        orders.recv().await.unwrap().send(Ok(reloaded)).unwrap();
    });
    let refusal = reload(&socket).await.unwrap_err();
    assert!(
        refusal.is_usage() && refusal.to_string().contains("node"),
        "{refusal}"
    );
    assert_eq!(reload(&socket).await.unwrap(), expected);
    owner.await.unwrap();
    let refusal = reload(&socket).await.unwrap_err();
    assert!(
        !refusal.is_usage() && refusal.to_string().contains("stopping"),
        "{refusal}"
    );
    broker.stop().await;
}

#[tokio::test]
async fn status_tells_of_clients_and_shards() {
    let broker = Broker::start().await;
    let (socket, _serving) = serve(&broker).await;
    let _client = broker.join(Version::V5, "c").await;
    // The first beat of the pulse may be on its way.
    let status = loop {
        let status: NodeStatus = get(&socket, "/v1/status").await.unwrap();
        if status.shards.iter().any(|shard| shard.connections == 1) {
            break status;
        }
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    };
    assert!(status.ready && status.node == "test");
    assert_eq!((status.connections, status.sessions), (1, 1));
    assert_eq!(status.listeners, [broker.address.to_string()]);
    assert!(
        status
            .shards
            .iter()
            .all(|shard| shard.answered_in_seconds.is_some())
    );
    let refusal = get::<NodeStatus>(&socket, "/v1/clients?limit=0").await;
    assert!(refusal.unwrap_err().is_usage());
    let refusal = get::<NodeStatus>(&socket, "/v1/clients?colour=red").await;
    assert!(refusal.unwrap_err().to_string().contains("prefix"));
    broker.stop().await;
}

#[tokio::test]
async fn stopped_node_delivers_what_it_acknowledged_and_says_goodbye() {
    const MESSAGES: usize = 250;
    let broker = Broker::start().await;
    let mut receivers = Vec::new();
    for number in 0..8 {
        let version = ALL[number % 3];
        let mut receiver = broker.join(version, &format!("r{number}")).await;
        receiver.subscribe("t", 1).await;
        receivers.push((version, receiver));
    }
    let mut sender = broker.join(Version::V5, "sender").await;
    for number in 0..MESSAGES {
        sender.deliver("t", &number.to_string(), 1).await;
    }
    let address = broker.address;
    let stopped = tokio::spawn(broker.stop());
    let mut reading = tokio::task::JoinSet::new();
    for (version, mut receiver) in receivers {
        reading.spawn(async move {
            // More than a window: the rest waits for acknowledgements.
            for number in 0..MESSAGES {
                assert_eq!(receiver.receive().await.payload, number.to_string());
            }
            if version.is_v5() {
                receiver.expect(0xe0, &[0x8b]).await;
            }
            receiver.expect_close().await;
        });
    }
    reading.join_all().await;
    sender.expect(0xe0, &[0x8b]).await;
    stopped.await.unwrap();
    assert!(tokio::net::TcpStream::connect(address).await.is_err());
}

#[tokio::test]
async fn stopped_node_hears_acknowledgements_behind_messages_that_it_does_not_take() {
    const MESSAGES: usize = 250;
    let broker = Broker::start().await;
    let mut receiver = broker.join(Version::V5, "receiver").await;
    receiver.subscribe("t", 1).await;
    let mut sender = broker.join(Version::V5, "sender").await;
    for number in 0..MESSAGES {
        sender.deliver("t", &number.to_string(), 1).await;
    }
    let address = broker.address;
    let stopped = tokio::spawn(broker.stop());
    for number in 0..MESSAGES {
        let received = receiver.receive_silently().await;
        assert_eq!(received.payload, number.to_string());
        receiver.publish("elsewhere", "x", 0, 0).await;
        let [high, low] = received.id.to_be_bytes();
        receiver.send(&[0x40, 2, high, low]).await;
    }
    receiver.expect(0xe0, &[0x8b]).await;
    stopped.await.unwrap();
    assert!(tokio::net::TcpStream::connect(address).await.is_err());
}

#[tokio::test]
async fn stopped_node_publishes_no_will_where_clients_may_not() {
    let broker = Broker::start().await;
    let mut watcher = broker.join(Version::V5, "watcher").await;
    watcher.subscribe("$SYS/forged", 0).await;
    let mut hello = Hello::new(Version::V5, "forger");
    hello.will = Some(Testament {
        topic: "$SYS/forged",
        payload: "",
        retain: false,
        properties: Vec::new(),
    });
    let (_forger, welcome) = Client::connect(broker.address, &hello).await;
    assert_eq!(welcome.code, 0);
    let status = std::sync::Arc::clone(broker.node.status());
    broker.stop().await;
    watcher.expect(0xe0, &[0x8b]).await;
    assert_eq!(status.metrics().get(Metric::RefusedPublish), 1);
}

#[tokio::test]
async fn stopped_node_publishes_wills_that_may_not_wait() {
    let broker = Broker::start().await;
    let mut watcher = broker.join(Version::V5, "watcher").await;
    watcher.subscribe("will/#", 0).await;
    let testament = |topic, properties| {
        Some(Testament {
            topic,
            payload: "",
            retain: false,
            properties,
        })
    };
    let delay = vec![0x18, 0, 0, 0x0e, 0x10];
    let mut hello = Hello::persistent(Version::V5, "prompt");
    hello.will = testament("will/prompt", Vec::new());
    let (_prompt, _) = Client::connect(broker.address, &hello).await;
    let mut hello = Hello::persistent(Version::V5, "patient");
    hello.will = testament("will/patient", delay.clone());
    let (_patient, _) = Client::connect(broker.address, &hello).await;
    let mut hello = Hello::persistent(Version::V5, "gone");
    hello.will = testament("will/gone", delay);
    drop(Client::connect(broker.address, &hello).await);
    broker.wait_for(Metric::ClosedLost, 1).await;

    let stopped = tokio::spawn(broker.stop());
    let mut topics = [watcher.receive().await.topic, watcher.receive().await.topic];
    topics.sort();
    assert_eq!(topics, ["will/gone", "will/prompt"]);
    watcher.expect(0xe0, &[0x8b]).await;
    stopped.await.unwrap();
}
