//! What the broker refuses, and how connections end.

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::{
    Broker,
    client::{Client, Hello, packet},
};
use crate::{codec::packet::Version, metrics::Metric};

#[tokio::test]
async fn silent_client_is_closed_and_keep_alive_zero_is_not() {
    let broker = Broker::start().await;
    let mut hello = Hello::new(Version::V5, "patient");
    hello.keep_alive = 0;
    let (mut patient, welcome) = Client::connect(broker.address, &hello).await;
    assert_eq!(welcome.code, 0);
    hello.id = "silent".to_owned();
    hello.keep_alive = 1;
    let (mut silent, _) = Client::connect(broker.address, &hello).await;
    silent.ping().await;
    silent.expect(0xe0, &[0x8d]).await;
    silent.expect_close().await;
    assert_eq!(broker.count(Metric::ClosedKeepAlive), 1);
    patient.ping().await;
    broker.stop().await;
}

#[tokio::test]
async fn silent_client_is_closed_whatever_waits_for_it() {
    let broker = Broker::start_with("[limits]\nqueue_messages = 100000\n").await;
    let mut hello = Hello::new(Version::V311, "hung");
    hello.keep_alive = 1;
    let (mut hung, _) = Client::connect(broker.address, &hello).await;
    hung.subscribe("t", 0).await;
    let mut sender = broker.join(Version::V311, "sender").await;
    // More than the system's buffers and the broker's own output hold.
    let payload = "x".repeat(100_000);
    for _ in 0..300 {
        sender.publish("t", &payload, 0, 0).await;
    }
    broker.wait_for(Metric::ClosedKeepAlive, 1).await;
    sender.ping().await;
    broker.stop().await;
}

#[tokio::test]
async fn illegal_filters_are_refused_one_by_one() {
    let broker = Broker::start().await;
    let mut old = broker.join(Version::V311, "old").await;
    let mut new = broker.join(Version::V5, "new").await;
    for filter in ["a/#/b", "a+", ""] {
        assert_eq!(old.subscribe(filter, 0).await, 0x80);
        assert_eq!(new.subscribe(filter, 0).await, 0x8f);
    }
    broker.stop().await;
}

#[tokio::test]
async fn filters_beyond_a_thousand_in_one_packet_are_refused() {
    const FILTERS: usize = 3000;
    let broker = Broker::start().await;
    for (version, code) in [(Version::V311, 0x80), (Version::V5, 0x97)] {
        let mut client = broker.join(version, "greedy").await;
        let mut body = vec![0, 9];
        body.extend(version.is_v5().then_some(0));
        body.extend([0, 1, b'#', 0].repeat(FILTERS));
        client.send(&packet(0x82, &body)).await;
        let (first, body) = client.recv().await;
        assert_eq!(first, 0x90, "SUBACK");
        let codes = &body[body.len() - FILTERS..];
        assert!(codes[..1024].iter().all(|granted| *granted == 0));
        assert!(codes[1024..].iter().all(|refused| *refused == code));
        client.leave().await;
    }
    broker.stop().await;
}

/// The packets that wait for room among the answers must be handled once there is some.
#[tokio::test]
async fn client_that_reads_late_gets_an_answer_to_each_packet() {
    const PINGS: usize = 1024 * 1024;
    let broker = Broker::start().await;
    let client = broker.join(Version::V311, "late").await;
    let (mut reading, mut writing) = client.stream.into_split();
    let asking = tokio::spawn(async move {
        writing.write_all(&[0xc0, 0].repeat(PINGS)).await.unwrap();
        writing
    });
    let mut answers = vec![0; 2 * PINGS];
    reading.read_exact(&mut answers).await.unwrap();
    assert!(answers.chunks(2).all(|answer| answer == [0xd0, 0]));
    drop(asking.await.unwrap());
    broker.stop().await;
}

#[tokio::test]
async fn malformed_input_closes_its_own_connection_only() {
    let broker = Broker::start().await;
    let mut bystander = broker.join(Version::V311, "bystander").await;
    let cases: [(&[u8], u8); 5] = [
        (&[0x30, 3, 0, 9, b'a'], 0x81),
        (&[0x36, 3, 0, 1, b'a'], 0x81),
        (&[0x20, 2, 0, 0], 0x82),
        (&[0x30, 4, 0, 1, b'#', 0], 0x90),
        (&[0x30, 0xff, 0xff, 0xff, 0x7f], 0x95),
    ];
    for (bytes, reason) in cases {
        let mut client = broker.join(Version::V5, "broken").await;
        client.send(bytes).await;
        client.expect(0xe0, &[reason]).await;
        client.expect_close().await;
        let mut client = broker.join(Version::V311, "broken").await;
        client.send(bytes).await;
        client.expect_close().await;
    }
    assert_eq!(broker.count(Metric::ClosedProtocol), 2 * cases.len() as u64);
    bystander.ping().await;
    broker.stop().await;
}

#[tokio::test]
async fn strangers_are_refused_and_counted() {
    let broker = Broker::start().await;
    let mut browser = Client::open(broker.address).await;
    browser.send(b"GET / HTTP/1.1\r\n\r\n").await;
    browser.expect_close().await;
    // A protocol level from the future gets an answer that old clients understand.
    let mut future = Client::open(broker.address).await;
    future
        .send(b"\x10\x0d\0\x04MQTT\x09\x02\0\x3c\0\x01c")
        .await;
    future.expect(0x20, &[0, 1]).await;
    future.expect_close().await;
    broker.wait_for(Metric::RefusedProtocol, 2).await;
    broker.stop().await;
}

#[tokio::test]
async fn client_that_says_nothing_is_refused() {
    let broker = Broker::start_with("[limits]\nconnect_timeout = \"50ms\"\n").await;
    let mut silent = Client::open(broker.address).await;
    silent.expect_close().await;
    broker.wait_for(Metric::RefusedTimeout, 1).await;
    broker.wait_for(Metric::Connections, 0).await;
    broker.stop().await;
}

#[tokio::test]
async fn connections_beyond_the_limit_are_refused() {
    let broker = Broker::start_with("[limits]\nconnections = 1\n").await;
    let client = broker.join(Version::V311, "only").await;
    Client::open(broker.address).await.expect_close().await;
    assert_eq!(broker.count(Metric::RefusedFull), 1);
    client.leave().await;
    broker.wait_for(Metric::Connections, 0).await;
    broker.join(Version::V311, "next").await;
    broker.stop().await;
}

#[tokio::test]
async fn sessions_beyond_the_limit_are_refused() {
    let broker = Broker::start_with("[limits]\nsessions = 1\n").await;
    let kept = Hello::persistent(Version::V5, "kept");
    Client::connect(broker.address, &kept).await.0.leave().await;
    for (version, code) in [(Version::V311, 3), (Version::V5, 0x97)] {
        let hello = Hello::new(version, "another");
        let (mut client, welcome) = Client::connect(broker.address, &hello).await;
        assert_eq!(welcome.code, code);
        client.expect_close().await;
    }
    assert_eq!(broker.count(Metric::RefusedSessions), 2);
    let (client, welcome) = Client::connect(broker.address, &kept).await;
    assert!(welcome.session_present);
    client.leave().await;
    let fleeting = Hello::new(Version::V311, "kept");
    Client::connect(broker.address, &fleeting)
        .await
        .0
        .leave()
        .await;
    broker.join(Version::V311, "another").await;
    broker.stop().await;
}

#[tokio::test]
async fn subscriptions_beyond_the_limit_are_refused() {
    let broker = Broker::start_with("[limits]\nsubscriptions = 2\n").await;
    for (version, code) in [(Version::V311, 0x80), (Version::V5, 0x97)] {
        let mut client = broker.join(version, "client").await;
        assert_eq!(client.subscribe("a", 0).await, 0);
        assert_eq!(client.subscribe("b", 0).await, 0);
        assert_eq!(client.subscribe("c", 0).await, code);
        assert_eq!(client.subscribe("a", 1).await, 1);
        client.unsubscribe("b").await;
        assert_eq!(client.subscribe("c", 0).await, 0);
        client.leave().await;
    }
    assert_eq!(broker.count(Metric::RefusedSubscriptions), 2);
    broker.stop().await;
}

#[tokio::test]
async fn retained_messages_beyond_the_limit_are_not_kept() {
    let broker = Broker::start_with("[limits]\nretained = 1\n").await;
    let mut watcher = broker.join(Version::V5, "watcher").await;
    watcher.subscribe("#", 0).await;
    let mut old = broker.join(Version::V311, "old").await;
    let mut new = broker.join(Version::V5, "new").await;
    new.publish("a", "kept", 0b0011, 1).await;
    new.expect(0x40, &[0, 1]).await;
    assert_eq!(watcher.receive().await.payload, "kept");
    // Refused as a whole, so that an identifier is free again.
    new.publish("b", "refused", 0b0011, 2).await;
    new.expect(0x40, &[0, 2, 0x97]).await;
    for _ in 0..2 {
        new.publish("b", "refused", 0b0101, 3).await;
        new.expect(0x50, &[0, 3, 0x97]).await;
    }
    old.publish("b", "not kept", 0b0011, 4).await;
    old.expect(0x40, &[0, 4]).await;
    assert_eq!(watcher.receive().await.payload, "not kept");
    assert_eq!(broker.count(Metric::RefusedRetained), 4);
    let mut late = broker.join(Version::V311, "late").await;
    late.subscribe("#", 0).await;
    assert_eq!(late.receive().await.payload, "kept");
    late.ping().await;
    broker.stop().await;
}

#[tokio::test]
async fn empty_client_id_follows_each_versions_rule() {
    let broker = Broker::start().await;
    let code = async |version, clean| {
        let mut hello = Hello::new(version, "");
        hello.clean = clean;
        Client::connect(broker.address, &hello).await.1
    };
    assert_eq!(code(Version::V31, true).await.code, 2);
    assert_eq!(code(Version::V311, true).await.code, 0);
    assert_eq!(code(Version::V311, false).await.code, 2);
    let welcome = code(Version::V5, true).await;
    let properties = String::from_utf8_lossy(&welcome.properties).into_owned();
    assert!(
        welcome.code == 0 && properties.contains("auto-"),
        "{properties:?}"
    );
    broker.stop().await;
}

#[tokio::test]
async fn stopping_says_goodbye() {
    let broker = Broker::start().await;
    let mut new = broker.join(Version::V5, "new").await;
    let mut old = broker.join(Version::V311, "old").await;
    let (address, status) = (broker.address, std::sync::Arc::clone(broker.node.status()));
    broker.stop().await;
    new.expect(0xe0, &[0x8b]).await;
    new.expect_close().await;
    old.expect_close().await;
    assert!(!status.is_ready());
    assert!(tokio::net::TcpStream::connect(address).await.is_err());
}

#[tokio::test]
async fn client_is_sent_no_answer_that_is_longer_than_it_takes() {
    let broker = Broker::start().await;
    let hello = |bytes| {
        let mut hello = Hello::new(Version::V5, "narrow");
        hello.properties = vec![0x27, 0, 0, 0, bytes];
        hello
    };
    let mut narrow = Client::open(broker.address).await;
    narrow.send(&hello(8).encode()).await;
    narrow.expect_close().await;
    let (mut narrow, welcome) = Client::connect(broker.address, &hello(24)).await;
    assert_eq!(welcome.code, 0);
    let mut body = vec![0, 9, 0];
    body.extend([0, 1, b'#', 0].repeat(20));
    narrow.send(&packet(0x82, &body)).await;
    narrow.expect(0xe0, &[0x95]).await;
    narrow.expect_close().await;
    broker.wait_for(Metric::Sessions, 0).await;
    broker.stop().await;
}

#[tokio::test]
async fn busy_client_still_hears_why_it_is_closed() {
    let broker = Broker::start().await;
    let mut client = broker.join(Version::V5, "busy").await;
    // A length above the limit, and a part of what it announces.
    let mut bytes = vec![0x30, 0xff, 0xff, 0xff, 0x7f];
    bytes.resize(300_000, 0);
    client.send(&bytes).await;
    client.expect(0xe0, &[0x95]).await;
    client.expect_close().await;
    broker.stop().await;
}

#[tokio::test]
async fn metrics_port_answers() {
    let broker = Broker::start().await;
    let _client = broker.join(Version::V5, "client").await;
    let address = broker.node.metrics_address().unwrap();
    let get = async |path: &str| {
        let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    };
    assert!(get("/healthz").await.starts_with("HTTP/1.1 200"));
    assert!(get("/readyz").await.starts_with("HTTP/1.1 200"));
    let metrics = get("/metrics").await;
    assert!(
        metrics.contains("tidegate_broker_connections 1\n"),
        "{metrics}"
    );
    assert!(
        metrics.contains("tidegate_broker_lane_gaps_total 0\n"),
        "{metrics}"
    );
    broker.stop().await;
}
