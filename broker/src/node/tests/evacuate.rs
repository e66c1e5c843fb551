//! Clients that are sent away, to empty a node or to even it out.

use std::path::Path;

use console::client::ClientError;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use super::{
    ALL, Broker,
    client::{Client, Hello, Testament},
    cluster::Cluster,
    operate::{get, post, serve},
};
use crate::{
    codec::packet::Version,
    control::view::{EvacuationPhase, EvacuationView, NodeStatus},
    metrics::Metric,
};

const AVAILABILITY: &str = "/api/v5/load_rebalance/availability_check";

async fn evacuate(socket: &Path, order: &str) -> Result<EvacuationView, ClientError> {
    post(socket, "/v1/node/evacuate", Some(order.to_owned())).await
}

async fn rebalance(socket: &Path, order: &str) -> Result<EvacuationView, ClientError> {
    post(socket, "/v1/node/rebalance", Some(order.to_owned())).await
}

/// Waits until the node says so of what was ordered.
async fn wait_for(
    socket: &Path,
    is_so: impl Fn(Option<&EvacuationView>) -> bool,
) -> Option<EvacuationView> {
    let becomes_so = async {
        loop {
            let status: NodeStatus = get(socket, "/v1/status").await.unwrap();
            if is_so(status.evacuation.as_ref()) {
                break status.evacuation;
            }
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
    };
    let became_so = tokio::time::timeout(std::time::Duration::from_secs(20), becomes_so).await;
    became_so.expect("waited in vain")
}

fn is_evacuated(view: Option<&EvacuationView>) -> bool {
    view.is_some_and(|view| view.phase == EvacuationPhase::Evacuated)
}

/// What the port for balancers answers to a route.
async fn ask(broker: &Broker, route: &str) -> String {
    let address = broker.node.health_address().unwrap();
    let mut stream = TcpStream::connect(address).await.unwrap();
    let request = format!("GET {route} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer.lines().next().unwrap().to_owned()
}

const HEALTH: &str = "[health]\nlisten = \"127.0.0.1:0\"\n";

#[tokio::test]
async fn evacuated_node_sends_its_clients_on_and_keeps_their_sessions() {
    let broker = Broker::start_with(HEALTH).await;
    let (socket, _serving) = serve(&broker).await;
    let mut clients = Vec::new();
    for number in 0..9 {
        let version = ALL[number % 3];
        let hello = Hello::persistent(version, &format!("c{number}"));
        let (mut client, _) = Client::connect(broker.address, &hello).await;
        client.subscribe("t", 1).await;
        clients.push((version, client));
    }
    let order = r#"{"rate": 1000, "wait_seconds": 0, "servers": ["b:1883", "c:1883"]}"#;
    let begun = evacuate(&socket, order).await.unwrap();
    assert_eq!((begun.left, begun.sent), (9, 0));
    for (version, client) in &mut clients {
        if version.is_v5() {
            let (first, body) = client.recv().await;
            assert_eq!((first, body[0]), (0xe0, 0x9c));
            assert_eq!(&body[2..18], b"\x1c\0\x0db:1883 c:1883");
        }
        client.expect_close().await;
    }
    let view = wait_for(&socket, is_evacuated).await.unwrap();
    assert_eq!((view.sent, view.left), (9, 0));
    assert_eq!(view.servers.as_deref(), Some("b:1883 c:1883"));
    assert_eq!(broker.count(Metric::ClosedReferred), 9);
    assert_eq!(broker.count(Metric::Sessions), 9);

    for version in ALL {
        let hello = Hello::new(version, "late");
        let (_, welcome) = Client::connect(broker.address, &hello).await;
        if version.is_v5() {
            assert_eq!(welcome.code, 0x9c);
            let told = b"\x1c\0\x0db:1883 c:1883";
            assert!(welcome.properties.ends_with(told), "{welcome:?}");
        } else {
            assert_eq!(welcome.code, 3);
        }
    }
    broker.wait_for(Metric::RefusedReferred, 3).await;
    assert_eq!(broker.count(Metric::Connected), 9);

    let status: NodeStatus = post(&socket, "/v1/node/serve", None).await.unwrap();
    assert!(status.ready && status.evacuation.is_none());
    let hello = Hello::persistent(Version::V5, "c2");
    let (_, welcome) = Client::connect(broker.address, &hello).await;
    assert_eq!((welcome.code, welcome.session_present), (0, true));
    broker.stop().await;
}

#[tokio::test]
async fn balancers_are_told_before_anybody_is_sent_away() {
    let broker = Broker::start_with(HEALTH).await;
    let (socket, _serving) = serve(&broker).await;
    let mut client = broker.join(Version::V5, "early").await;
    for route in ["/readyz", AVAILABILITY] {
        assert_eq!(ask(&broker, route).await, "HTTP/1.1 200 OK");
    }
    let order = r#"{"rate": 1, "wait_seconds": 3600}"#;
    let begun = evacuate(&socket, order).await.unwrap();
    assert_eq!(begun.phase, EvacuationPhase::Waiting);
    for route in ["/readyz", AVAILABILITY] {
        assert_eq!(
            ask(&broker, route).await,
            "HTTP/1.1 503 Service Unavailable"
        );
    }
    assert_eq!(ask(&broker, "/healthz").await, "HTTP/1.1 200 OK");
    assert_eq!(ask(&broker, "/metrics").await, "HTTP/1.1 404 Not Found");
    // A balancer that has not looked yet still brings some.
    let mut late = broker.join(Version::V311, "late").await;
    late.ping().await;
    client.ping().await;
    let mut metrics = String::new();
    broker.node.status().render(&mut metrics);
    assert!(metrics.contains("tidegate_broker_evacuating 1\n"));
    assert!(metrics.contains("tidegate_broker_ready 0\n"));

    let order = r#"{"rate": 1000, "wait_seconds": 0, "permanent": true}"#;
    evacuate(&socket, order).await.unwrap();
    client.expect(0xe0, &[0x9d]).await;
    late.expect_close().await;
    broker.stop().await;
}

#[tokio::test]
async fn rebalanced_node_keeps_so_many_and_is_ready_again() {
    let broker = Broker::start_with(HEALTH).await;
    let (socket, _serving) = serve(&broker).await;
    let mut clients = Vec::new();
    for number in 0..10 {
        clients.push(broker.join(Version::V5, &format!("c{number}")).await);
    }
    let order = r#"{"keep": 4, "terms": {"rate": 1000, "wait_seconds": 0}}"#;
    let begun = rebalance(&socket, order).await.unwrap();
    assert_eq!(begun.left, 6);
    wait_for(&socket, |view| view.is_none()).await;
    assert_eq!(broker.count(Metric::ClosedReferred), 6);
    broker.wait_for(Metric::SessionsConnected, 4).await;
    assert_eq!(ask(&broker, "/readyz").await, "HTTP/1.1 200 OK");
    let _another = broker.join(Version::V5, "another").await;
    broker.stop().await;
}

#[tokio::test]
async fn client_that_is_sent_away_leaves_no_will_unless_asked() {
    let broker = Broker::start().await;
    let (socket, _serving) = serve(&broker).await;
    let connect = async |id: &str, topic, delay: &[u8]| {
        let mut hello = Hello::persistent(Version::V5, id);
        hello.will = Some(Testament {
            topic,
            payload: "gone",
            retain: true,
            properties: delay.to_vec(),
        });
        Client::connect(broker.address, &hello).await.0
    };
    let mut prompt = connect("prompt", "will/prompt", &[]).await;
    let mut patient = connect("patient", "will/patient", &[0x18, 0, 0, 0, 1]).await;
    let order = r#"{"rate": 1000, "wait_seconds": 0}"#;
    evacuate(&socket, order).await.unwrap();
    prompt.expect(0xe0, &[0x9c]).await;
    patient.expect(0xe0, &[0x9c]).await;
    let _: NodeStatus = post(&socket, "/v1/node/serve", None).await.unwrap();
    // One with a delay waits for it; it would be behind the other.
    let mut watcher = broker.join(Version::V311, "watcher").await;
    watcher.subscribe("will/#", 0).await;
    assert_eq!(watcher.receive().await.topic, "will/patient");

    let mut prompt = connect("prompt", "will/prompt", &[]).await;
    let order = r#"{"rate": 1000, "wait_seconds": 0, "publish_wills": true}"#;
    evacuate(&socket, order).await.unwrap();
    prompt.expect(0xe0, &[0x9c]).await;
    let mut left = Vec::new();
    while let Some((first, body)) = watcher.try_recv().await {
        assert_eq!(first >> 4, 3);
        left.push(body);
    }
    // The watcher may have gone first; the message is retained.
    let _: NodeStatus = post(&socket, "/v1/node/serve", None).await.unwrap();
    let mut watcher = broker.join(Version::V311, "watcher").await;
    watcher.subscribe("will/prompt", 0).await;
    assert_eq!(watcher.receive().await.topic, "will/prompt");
    assert!(left.len() <= 1);
    broker.stop().await;
}

#[tokio::test]
async fn orders_that_cannot_be_are_refused_and_change_nothing() {
    let broker = Broker::start().await;
    let (socket, _serving) = serve(&broker).await;
    let many = format!("{:?}", vec!["b:1"; 9]);
    for (order, told) in [
        (
            r#"{"rate": 0, "wait_seconds": 0}"#.to_owned(),
            "1 to 100000",
        ),
        (r#"{"rate": 1, "wait_seconds": 3601}"#.to_owned(), "an hour"),
        (
            r#"{"rate": 1, "wait_seconds": 0, "servers": ["b 1"]}"#.to_owned(),
            "host and port",
        ),
        (
            format!(r#"{{"rate": 1, "wait_seconds": 0, "servers": {many}}}"#),
            "8 at most",
        ),
        (r#"{"rate": 1, "wait": 0}"#.to_owned(), "wait_seconds"),
    ] {
        let refusal = evacuate(&socket, &order).await.unwrap_err();
        assert!(
            refusal.is_usage() && refusal.to_string().contains(told),
            "{refusal}"
        );
    }
    let status: NodeStatus = get(&socket, "/v1/status").await.unwrap();
    assert!(status.ready && status.evacuation.is_none());
    broker.stop().await;
}

#[tokio::test]
async fn stop_with_a_rate_sends_clients_away_first() {
    let broker = Broker::start().await;
    let mut clients = Vec::new();
    for number in 0..6 {
        clients.push(broker.join(ALL[number % 3], &format!("c{number}")).await);
    }
    broker.node.empty(1000.try_into().unwrap()).await;
    assert_eq!(broker.count(Metric::SessionsConnected), 0);
    assert_eq!(broker.count(Metric::ClosedReferred), 6);
    for (number, client) in clients.iter_mut().enumerate() {
        if ALL[number % 3].is_v5() {
            client.expect(0xe0, &[0x9c]).await;
        }
        client.expect_close().await;
    }
    broker.stop().await;
}

#[tokio::test]
async fn stop_that_has_begun_is_not_taken_back() {
    let broker = Broker::start().await;
    let (socket, _serving) = serve(&broker).await;
    let mut clients = Vec::new();
    for number in 0..20 {
        clients.push(broker.join(ALL[number % 3], &format!("c{number}")).await);
    }
    let order = r#"{"keep": 100, "terms": {"rate": 1000, "wait_seconds": 0}}"#;
    let asked = async {
        wait_for(&socket, |view| view.is_some()).await;
        let served = post::<NodeStatus>(&socket, "/v1/node/serve", None).await;
        for refusal in [
            served.unwrap_err(),
            rebalance(&socket, order).await.unwrap_err(),
        ] {
            assert!(refusal.to_string().contains("the node stops"), "{refusal}");
        }
        let hello = Hello::new(Version::V5, "late");
        let (_, welcome) = Client::connect(broker.address, &hello).await;
        assert_eq!(welcome.code, 0x9c);
        let order = r#"{"rate": 1000, "wait_seconds": 0}"#;
        evacuate(&socket, order).await.unwrap_err();
    };
    tokio::select! {
        () = broker.node.empty(1.try_into().unwrap()) => panic!("all have gone at once"),
        () = asked => {}
    }
    broker.stop().await;
}

#[tokio::test]
async fn session_and_waiting_will_go_where_a_client_that_was_sent_away_connects() {
    let cluster = Cluster::new();
    let (one, two) = cluster.pair().await;
    let (socket, _serving) = serve(&one).await;
    let mut watcher = two.join(Version::V5, "watcher").await;
    watcher.subscribe("will/#", 0).await;
    let with_will = |id, topic, seconds| {
        let mut hello = Hello::persistent(Version::V5, id);
        hello.will = Some(Testament {
            topic,
            payload: "gone",
            retain: false,
            properties: vec![0x18, 0, 0, 0, seconds],
        });
        hello
    };
    let hello = with_will("mover", "will/mover", 1);
    let (mut mover, _) = Client::connect(one.address, &hello).await;
    mover.subscribe("t", 1).await;
    let order = r#"{"rate": 1000, "wait_seconds": 0}"#;
    evacuate(&socket, order).await.unwrap();
    mover.expect(0xe0, &[0x9c]).await;
    mover.expect_close().await;
    let mut publisher = two.join(Version::V5, "publisher").await;
    publisher.deliver("t", "queued", 1).await;

    let (mut mover, welcome) = Client::connect(two.address, &hello).await;
    assert_eq!((welcome.code, welcome.session_present), (0, true));
    assert_eq!(mover.receive().await.payload, "queued");
    // What is due later comes first, as the other is not due any more.
    let later = with_will("later", "will/later", 2);
    drop(Client::connect(two.address, &later).await);
    assert_eq!(watcher.receive().await.topic, "will/later");
    one.stop().await;
    two.stop().await;
}
