//! Rates and overload.

use std::time::{Duration, Instant};

use tokio::io::AsyncReadExt;

use super::{
    Broker,
    client::{Client, Hello},
    config,
};
use crate::{codec::packet::Version, metrics::Metric};

/// Connects until it is refused.
async fn refusal(broker: &Broker, version: Version) -> u8 {
    let refused = async {
        loop {
            let hello = Hello::new(version, "c");
            let (mut client, welcome) = Client::connect(broker.address, &hello).await;
            if welcome.code != 0 {
                client.expect_close().await;
                return welcome.code;
            }
        }
    };
    let refused = tokio::time::timeout(Duration::from_secs(20), refused).await;
    refused.expect("a refusal")
}

#[tokio::test]
async fn connects_beyond_the_rate_are_refused_with_the_reason() {
    for (version, code) in [(Version::V31, 3), (Version::V311, 3), (Version::V5, 0x9f)] {
        let broker = Broker::start_with("[limits]\nconnect_rate = 1\n").await;
        assert_eq!(refusal(&broker, version).await, code);
        broker.wait_for(Metric::RefusedRate, 1).await;
        broker.stop().await;
    }
}

#[tokio::test]
async fn refusal_reaches_a_client_that_says_more_than_its_connect() {
    let broker = Broker::start_with("[overload]\nlag = \"1h\"\nmemory_mib = 1\n").await;
    refusal(&broker, Version::V5).await;
    let mut client = Client::open(broker.address).await;
    let mut bytes = b"\x10\x0e\0\x04MQTT\x05\x02\0\x3c\0\0\x01c".to_vec();
    bytes.resize(20_000, 0xc0);
    client.send(&bytes).await;
    let mut answer = Vec::new();
    // A reset would be an error.
    client.stream.read_to_end(&mut answer).await.unwrap();
    assert_eq!((answer[0], &answer[2..4]), (0x20, &[0, 0x89][..]));
    assert!(answer.ends_with(b"the broker is busy: try again later"));
    broker.stop().await;
}

#[tokio::test]
async fn limits_are_changed_by_a_reload() {
    let broker = Broker::start().await;
    let _client = broker.join(Version::V5, "before").await;
    let limited = config("[limits]\nconnect_rate = 1\n");
    broker.node.reload(&limited).unwrap();
    assert_eq!(refusal(&broker, Version::V5).await, 0x9f);
    let limited = config("[limits]\nconnections = 1\n");
    broker.node.reload(&limited).unwrap();
    Client::open(broker.address).await.expect_close().await;
    broker.wait_for(Metric::RefusedFull, 1).await;
    broker.node.reload(&config("")).unwrap();
    broker.join(Version::V5, "after").await;
    broker.stop().await;
}

#[tokio::test]
async fn flood_is_refused_before_anything_is_read() {
    let settings = "[limits]\nconnect_rate = 1\nconnect_burst = 2\n";
    let broker = Broker::start_with(settings).await;
    let mut silent = Vec::new();
    for _ in 0..50 {
        silent.push(Client::open(broker.address).await);
    }
    // Two for the tokens that are there, two for a whole burst, and the one that is next.
    broker.wait_for(Metric::RefusedRate, 45).await;
    broker.wait_for(Metric::Connections, 5).await;
    broker.stop().await;
}

#[tokio::test]
async fn clients_that_only_connect_are_bounded() {
    let broker = Broker::start_with("[limits]\nconnecting = 2\n").await;
    // Those that are through do not count.
    let _first = broker.join(Version::V5, "first").await;
    let _second = broker.join(Version::V5, "second").await;
    let silent = Client::open(broker.address).await;
    let _silent = Client::open(broker.address).await;
    Client::open(broker.address).await.expect_close().await;
    broker.wait_for(Metric::RefusedBusy, 1).await;
    drop(silent);
    broker.wait_for(Metric::RefusedClosed, 1).await;
    broker.join(Version::V5, "third").await;
    broker.stop().await;
}

#[tokio::test]
async fn node_whose_memory_is_short_is_busy_for_new_clients_only() {
    for (version, code) in [(Version::V311, 3), (Version::V5, 0x89)] {
        let broker = Broker::start_with("[overload]\nlag = \"1h\"\nmemory_mib = 1\n").await;
        assert_eq!(refusal(&broker, version).await, code);
        broker.wait_for(Metric::RefusedBusy, 1).await;
        broker.stop().await;
    }
}

#[tokio::test]
async fn node_whose_memory_is_short_takes_no_new_subscriptions() {
    let broker = Broker::start().await;
    let mut client = broker.join(Version::V5, "client").await;
    assert_eq!(client.subscribe("old", 0).await, 0);
    let short = config("[overload]\nlag = \"1h\"\nmemory_mib = 1\n");
    broker.node.reload(&short).unwrap();
    broker
        .wait_until(|node| node.status().shared.load.is_swollen())
        .await;
    assert_eq!(client.subscribe("new", 0).await, 0x97);
    assert_eq!(client.subscribe("old", 1).await, 1);
    broker.node.reload(&config("")).unwrap();
    broker
        .wait_until(|node| !node.status().shared.load.is_swollen())
        .await;
    assert_eq!(client.subscribe("new", 0).await, 0);
    broker.stop().await;
}

#[tokio::test]
async fn long_connect_is_refused_before_it_is_held() {
    let broker = Broker::start_with("[limits]\nconnect_bytes = 1000\n").await;
    // A thousand bytes are announced.
    for (start, answer) in [
        (
            &b"\x10\xe9\x07\0\x04MQTT\x05\x02\0\0\0"[..],
            &[0x20, 3, 0, 0x95, 0][..],
        ),
        (b"\x10\xe9\x07\0\x04MQTT\x04\x02\0\0\0", &[]),
        (b"\x10\xe9\x07\0\x06MQIsdp\x03\x02\0\0", &[]),
        (
            b"\x10\xe9\x07\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff",
            &[],
        ),
    ] {
        let mut client = Client::open(broker.address).await;
        client.send(start).await;
        let mut received = Vec::new();
        client.stream.read_to_end(&mut received).await.unwrap();
        assert_eq!(received, answer);
    }
    broker.wait_for(Metric::RefusedProtocol, 4).await;
    broker.stop().await;
}

#[tokio::test]
async fn client_above_its_rate_is_slowed_down_and_loses_nothing() {
    for (settings, padding) in [
        ("publish_rate = 100", 0),
        ("publish_bytes_rate = 100000", 987),
    ] {
        let broker = Broker::start_with(&format!("[limits]\n{settings}\n")).await;
        let mut subscriber = broker.join(Version::V5, "subscriber").await;
        subscriber.subscribe("t", 0).await;
        let mut publisher = broker.join(Version::V311, "publisher").await;
        let start = Instant::now();
        let payload = |number: u32| format!("{number:03}{}", "x".repeat(padding));
        for number in 0..250 {
            publisher.publish("t", &payload(number), 0, 0).await;
        }
        for number in 0..250 {
            assert_eq!(subscriber.receive().await.payload, payload(number));
        }
        // The first hundred come at once.
        let took = start.elapsed();
        assert!(took >= Duration::from_millis(1400), "{settings}: {took:?}");
        assert!(broker.count(Metric::MessagesThrottled) > 0);
        publisher.ping().await;
        broker.stop().await;
    }
}

#[tokio::test]
async fn client_that_is_held_up_is_not_taken_for_silent() {
    let broker = Broker::start_with("[limits]\npublish_rate = 1\n").await;
    let mut hello = Hello::new(Version::V311, "c");
    hello.keep_alive = 2;
    let (mut client, _welcome) = Client::connect(broker.address, &hello).await;
    for _ in 0..6 {
        client.publish("t", "", 0, 0).await;
    }
    // Behind five seconds' worth of messages, which is more than the keep-alive allows.
    let start = Instant::now();
    let mut tick = tokio::time::interval(Duration::from_millis(500));
    loop {
        tokio::select! {
            _ = tick.tick() => client.send(&[0xc0, 0]).await,
            answer = client.recv() => break assert_eq!(answer, (0xd0, Vec::new())),
        }
    }
    assert!(start.elapsed() > Duration::from_secs(4));
    assert_eq!(broker.count(Metric::ClosedKeepAlive), 0);
    broker.stop().await;
}
