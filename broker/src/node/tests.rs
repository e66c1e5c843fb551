//! A node on a loopback port, with clients of every version.

mod client;
mod mosquitto;

use std::{net::SocketAddr, time::Duration};

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use self::client::{Client, Hello, Testament, packet};
use super::Node;
use crate::{codec::packet::Version, config::Config, metrics::Metric};

const ALL: [Version; 3] = [Version::V31, Version::V311, Version::V5];

struct Broker {
    node: Node,
    address: SocketAddr,
}

impl Broker {
    async fn start() -> Self {
        Self::start_with("").await
    }

    async fn start_with(settings: &str) -> Self {
        let text = format!(
            "node = \"test\"\n[[listener]]\naddress = \"127.0.0.1:0\"\n\
             [metrics]\nlisten = \"127.0.0.1:0\"\n{settings}"
        );
        let node = Node::start(&Config::parse(&text).unwrap()).await.unwrap();
        let address = node.addresses()[0];
        Self { node, address }
    }

    async fn join(&self, version: Version, id: &str) -> Client {
        Client::join(self.address, version, id).await
    }

    fn count(&self, metric: Metric) -> u64 {
        self.node.status().metrics().get(metric)
    }

    /// Waits for a count that changes on another thread.
    async fn wait_for(&self, metric: Metric, value: u64) {
        let reached = async {
            while self.count(metric) != value {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        let reached = tokio::time::timeout(Duration::from_secs(20), reached).await;
        assert!(
            reached.is_ok(),
            "{metric:?} is {}, not {value}",
            self.count(metric)
        );
    }

    async fn stop(self) {
        assert_eq!(self.count(Metric::LaneGaps), 0);
        self.node.stop().await;
    }
}

#[tokio::test]
async fn every_qos_flows_between_all_versions() {
    let broker = Broker::start().await;
    for from in ALL {
        for to in ALL {
            let mut sender = broker.join(from, "sender").await;
            let mut receiver = broker.join(to, "receiver").await;
            for qos in 0..=2 {
                assert_eq!(receiver.subscribe("a/+/c", qos).await, qos);
                for sent in 0..=2 {
                    let payload = format!("{from:?} {to:?} {qos} {sent}");
                    sender.deliver("a/b/c", &payload, sent).await;
                    let received = receiver.receive().await;
                    assert_eq!((received.payload, received.qos), (payload, qos.min(sent)));
                    assert_eq!((received.retain, received.dup), (false, false));
                }
            }
            sender.leave().await;
            receiver.leave().await;
        }
    }
    broker.stop().await;
}

#[tokio::test]
async fn odd_topics_are_delivered_and_hurt_nobody() {
    let broker = Broker::start().await;
    let mut everything = broker.join(Version::V311, "everything").await;
    everything.subscribe("#", 0).await;
    let mut dollar = broker.join(Version::V5, "dollar").await;
    dollar.subscribe("$own/#", 0).await;
    let mut sender = broker.join(Version::V311, "sender").await;
    let odd = [
        "ä",
        "日本/語",
        "//",
        "/",
        "\u{10ffff}",
        " ",
        "lane/0",
        "lane/1",
        "nudge",
    ];
    for topic in odd {
        sender.deliver(topic, "x", 1).await;
        assert_eq!(everything.receive().await.topic, topic);
    }
    sender.deliver("$own/x", "hidden from wildcards", 1).await;
    assert_eq!(dollar.receive().await.topic, "$own/x");
    sender.deliver("end", "", 1).await;
    assert_eq!(everything.receive().await.topic, "end");
    broker.stop().await;
}

#[tokio::test]
async fn retained_messages_greet_new_subscribers() {
    let broker = Broker::start().await;
    let mut sender = broker.join(Version::V5, "sender").await;
    for (topic, payload) in [
        ("r/1", "old"),
        ("r/1", "one"),
        ("r/2", "two"),
        ("$r/3", "three"),
    ] {
        sender.publish(topic, payload, 0b0011, 1).await;
        sender.recv().await;
    }
    for version in ALL {
        let mut receiver = broker.join(version, "receiver").await;
        receiver.subscribe("+/+", 1).await;
        let (one, two) = (receiver.receive().await, receiver.receive().await);
        assert_eq!((one.payload.as_str(), two.payload.as_str()), ("one", "two"));
        assert!(one.retain && two.retain && one.qos == 1);
        // What is published to a subscriber that is there is not marked as retained.
        sender.publish("r/2", "two", 0b0011, 2).await;
        sender.recv().await;
        assert!(!receiver.receive().await.retain);
        receiver.leave().await;
    }
    sender.publish("r/1", "", 0b0001, 0).await;
    let mut receiver = broker.join(Version::V311, "receiver").await;
    sender.deliver("sync", "", 1).await;
    receiver.subscribe("r/#", 0).await;
    assert_eq!(receiver.receive().await.payload, "two");
    receiver.ping().await;
    broker.stop().await;
}

#[tokio::test]
async fn retain_options_of_mqtt5_are_kept() {
    let broker = Broker::start().await;
    let mut sender = broker.join(Version::V5, "sender").await;
    sender.publish("r", "kept", 0b0011, 1).await;
    sender.recv().await;
    let mut receiver = broker.join(Version::V5, "receiver").await;
    // Retain handling 2: none; 1: for a new subscription only; 0: always.
    receiver.subscribe("r", 0x20).await;
    receiver.ping().await;
    receiver.subscribe("r", 0x10).await;
    receiver.ping().await;
    receiver.subscribe("r", 0x08).await;
    assert!(receiver.receive().await.retain);
    // Retain as published.
    sender.publish("r", "again", 0b0011, 1).await;
    assert!(receiver.receive().await.retain);
    broker.stop().await;
}

#[tokio::test]
async fn will_is_published_when_a_connection_breaks_and_not_after_goodbye() {
    let broker = Broker::start().await;
    let mut watcher = broker.join(Version::V311, "watcher").await;
    watcher.subscribe("will/#", 1).await;
    for version in ALL {
        let mut hello = Hello::new(version, "mortal");
        let testament = |payload| Testament {
            topic: "will/x",
            payload,
            retain: true,
            properties: Vec::new(),
        };
        hello.will = Some(testament("quiet"));
        Client::connect(broker.address, &hello)
            .await
            .0
            .leave()
            .await;
        hello.will = Some(testament("loud"));
        drop(Client::connect(broker.address, &hello).await);
        assert_eq!(watcher.receive().await.payload, "loud");
    }
    let mut late = broker.join(Version::V5, "late").await;
    late.subscribe("will/x", 0).await;
    assert!(late.receive().await.retain);
    broker.stop().await;
}

#[tokio::test]
async fn disconnect_with_will_publishes_it() {
    let broker = Broker::start().await;
    let mut watcher = broker.join(Version::V5, "watcher").await;
    watcher.subscribe("will", 0).await;
    let mut hello = Hello::new(Version::V5, "mortal");
    hello.will = Some(Testament {
        topic: "will",
        payload: "x",
        retain: false,
        properties: Vec::new(),
    });
    let (mut mortal, _) = Client::connect(broker.address, &hello).await;
    mortal.send(&[0xe0, 1, 4]).await;
    assert_eq!(watcher.receive().await.payload, "x");
    broker.stop().await;
}

#[tokio::test]
async fn delayed_will_waits_for_its_delay() {
    let broker = Broker::start().await;
    let mut watcher = broker.join(Version::V5, "watcher").await;
    watcher.subscribe("will", 0).await;
    let mut hello = Hello::persistent(Version::V5, "mortal");
    let properties = vec![0x18, 0, 0, 0, 1];
    hello.will = Some(Testament {
        topic: "will",
        payload: "late",
        retain: false,
        properties,
    });
    drop(Client::connect(broker.address, &hello).await);
    broker.wait_for(Metric::ClosedLost, 1).await;
    watcher.ping().await;
    assert_eq!(watcher.receive().await.payload, "late");
    broker.stop().await;
}

#[tokio::test]
async fn second_connection_takes_the_session_over() {
    let broker = Broker::start().await;
    let mut sender = broker.join(Version::V311, "sender").await;
    for version in ALL {
        let hello = Hello::persistent(version, "twin");
        let (mut first, _) = Client::connect(broker.address, &hello).await;
        first.subscribe("t", 1).await;
        let (mut second, welcome) = Client::connect(broker.address, &hello).await;
        assert_eq!(welcome.session_present, version != Version::V31);
        if version.is_v5() {
            first.expect(0xe0, &[0x8e]).await;
        }
        first.expect_close().await;
        sender.deliver("t", "to the second", 1).await;
        assert_eq!(second.receive().await.payload, "to the second");
        second.leave().await;
    }
    assert_eq!(broker.count(Metric::ClosedTakenOver), 3);
    assert_eq!(broker.count(Metric::Sessions), 2);
    broker.stop().await;
}

#[tokio::test]
async fn persistent_session_gets_what_it_missed() {
    let broker = Broker::start().await;
    let mut sender = broker.join(Version::V311, "sender").await;
    for version in ALL {
        let hello = Hello::persistent(version, &format!("{version:?}"));
        let (mut client, welcome) = Client::connect(broker.address, &hello).await;
        assert!(!welcome.session_present);
        client.subscribe("p", 2).await;
        sender.deliver("p", "unacknowledged", 1).await;
        let unacknowledged = client.receive_silently().await;
        client.leave().await;
        for (payload, qos) in [("lost", 0), ("queued 1", 1), ("queued 2", 2)] {
            sender.deliver("p", payload, qos).await;
        }
        let (mut client, welcome) = Client::connect(broker.address, &hello).await;
        assert_eq!(welcome.session_present, version != Version::V31);
        let again = client.receive().await;
        assert_eq!(
            (again.payload.as_str(), again.dup),
            ("unacknowledged", true)
        );
        assert_eq!(again.id, unacknowledged.id);
        let (one, two) = (client.receive().await, client.receive().await);
        assert_eq!(
            (one.payload.as_str(), two.payload.as_str()),
            ("queued 1", "queued 2")
        );
        assert!(!one.dup && !two.dup);
        client.leave().await;

        let mut clean = hello.clone();
        clean.clean = true;
        let (client, welcome) = Client::connect(broker.address, &clean).await;
        assert!(!welcome.session_present);
        client.leave().await;
        let (mut client, _) = Client::connect(broker.address, &hello).await;
        sender.deliver("p", "unsubscribed", 1).await;
        client.ping().await;
        client.leave().await;
    }
    broker.stop().await;
}

#[tokio::test]
async fn session_without_expiry_is_forgotten() {
    let broker = Broker::start().await;
    let mut hello = Hello::new(Version::V5, "fleeting");
    hello.clean = false;
    let (mut client, _) = Client::connect(broker.address, &hello).await;
    client.subscribe("x", 1).await;
    client.leave().await;
    broker.wait_for(Metric::Sessions, 0).await;
    broker.wait_for(Metric::Subscriptions, 0).await;
    let (_client, welcome) = Client::connect(broker.address, &hello).await;
    assert!(!welcome.session_present);
    broker.stop().await;
}

#[tokio::test]
async fn absent_sessions_expire() {
    let broker = Broker::start_with("[session]\nmax_expiry = \"1s\"\n").await;
    let hello = Hello::persistent(Version::V5, "fleeting");
    let (client, welcome) = Client::connect(broker.address, &hello).await;
    // The CONNACK tells that an hour is more than there is.
    assert!(
        welcome
            .properties
            .windows(5)
            .any(|bytes| bytes == [0x11, 0, 0, 0, 1])
    );
    client.leave().await;
    broker.wait_for(Metric::Sessions, 0).await;
    broker.stop().await;
}

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
async fn overlapping_subscriptions_give_one_copy_with_all_ids() {
    let broker = Broker::start().await;
    let mut client = broker.join(Version::V5, "client").await;
    for (filter, id, qos) in [("a/#", 1, 0), ("a/+", 2, 1)] {
        let mut body = vec![0, 9, 2, 0x0b, id, 0, 3];
        body.extend(filter.as_bytes());
        body.push(qos);
        client.send(&packet(0x82, &body)).await;
        client.recv().await;
    }
    let mut sender = broker.join(Version::V311, "sender").await;
    sender.deliver("a/b", "x", 1).await;
    let received = client.receive().await;
    assert_eq!(
        (received.qos, received.properties),
        (1, vec![0x0b, 1, 0x0b, 2])
    );
    client.ping().await;
    broker.stop().await;
}

#[tokio::test]
async fn no_local_keeps_a_clients_own_messages_from_it() {
    let broker = Broker::start().await;
    let mut client = broker.join(Version::V5, "client").await;
    client.subscribe("a", 0b100).await;
    let mut other = broker.join(Version::V5, "other").await;
    other.subscribe("a", 0).await;
    client.publish("a", "x", 0, 0).await;
    assert_eq!(other.receive().await.payload, "x");
    client.ping().await;
    broker.stop().await;
}

#[tokio::test]
async fn unsubscribed_client_gets_nothing_more() {
    let broker = Broker::start().await;
    for version in ALL {
        let mut client = broker.join(version, "client").await;
        client.subscribe("a", 0).await;
        let code = |code| {
            if version.is_v5() {
                vec![0, 8, 0, code]
            } else {
                vec![0, 8]
            }
        };
        assert_eq!(client.unsubscribe("a").await, code(0));
        assert_eq!(client.unsubscribe("a").await, code(0x11));
        client.publish("a", "x", 0, 0).await;
        client.ping().await;
        client.leave().await;
    }
    broker.stop().await;
}

#[tokio::test]
async fn publish_that_nobody_wants_says_so_in_mqtt5() {
    let broker = Broker::start().await;
    let mut client = broker.join(Version::V5, "client").await;
    client.publish("a", "x", 0b0010, 7).await;
    client.expect(0x40, &[0, 7, 0x10]).await;
    broker.stop().await;
}

#[tokio::test]
async fn illegal_filters_are_refused_one_by_one() {
    let broker = Broker::start().await;
    let mut old = broker.join(Version::V311, "old").await;
    let mut new = broker.join(Version::V5, "new").await;
    for (filter, code) in [
        ("a/#/b", 0x8f),
        ("a+", 0x8f),
        ("", 0x8f),
        ("$share/g/t", 0x9e),
    ] {
        assert_eq!(old.subscribe(filter, 0).await, 0x80);
        assert_eq!(new.subscribe(filter, 0).await, code);
    }
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
async fn receive_maximum_and_packet_size_of_the_client_are_kept() {
    let broker = Broker::start().await;
    let mut hello = Hello::new(Version::V5, "small");
    hello.properties = vec![0x21, 0, 1, 0x27, 0, 0, 0, 20];
    let (mut small, _) = Client::connect(broker.address, &hello).await;
    small.subscribe("t", 1).await;
    let mut sender = broker.join(Version::V311, "sender").await;
    sender.deliver("t", &"x".repeat(100), 1).await;
    sender.deliver("t", "one", 1).await;
    sender.deliver("t", "two", 1).await;
    let one = small.receive_silently().await;
    assert_eq!(one.payload, "one");
    small.ping().await;
    small.send(&[0x40, 2, 0, one.id as u8]).await;
    assert_eq!(small.receive().await.payload, "two");
    broker.stop().await;
}

#[tokio::test]
async fn burst_for_a_client_that_reads_late_arrives_whole_and_in_order() {
    const MESSAGES: usize = 5000;
    let broker = Broker::start_with("[limits]\nqueue_messages = 10000\n").await;
    let mut receiver = broker.join(Version::V311, "receiver").await;
    receiver.subscribe("t", 1).await;
    let mut sender = broker.join(Version::V311, "sender").await;
    let padding = "x".repeat(1000);
    for number in 0..MESSAGES {
        sender
            .deliver("t", &format!("{number} {padding}"), (number % 2) as u8)
            .await;
    }
    let mut next = [0, 1];
    for _ in 0..MESSAGES {
        let received = receiver.receive().await;
        let number: usize = received.payload.split(' ').next().unwrap().parse().unwrap();
        // QoS 0 may pass QoS 1; each keeps its own order.
        assert_eq!(number, next[number % 2]);
        next[number % 2] += 2;
    }
    assert_eq!(broker.count(Metric::DroppedQueue), 0);
    broker.stop().await;
}

#[tokio::test]
async fn messages_for_a_full_queue_are_dropped_and_counted() {
    let broker = Broker::start_with("[limits]\nqueue_messages = 2\ninflight = 1\n").await;
    let mut receiver = broker.join(Version::V311, "receiver").await;
    receiver.subscribe("t", 1).await;
    let mut sender = broker.join(Version::V311, "sender").await;
    for number in 0..5 {
        sender.deliver("t", &number.to_string(), 1).await;
    }
    broker.wait_for(Metric::DroppedQueue, 2).await;
    for number in 0..3 {
        assert_eq!(receiver.receive().await.payload, number.to_string());
    }
    receiver.ping().await;
    broker.stop().await;
}

#[tokio::test]
async fn many_clients_on_all_shards_reach_each_other() {
    const CLIENTS: usize = 100;
    let broker = Broker::start().await;
    let mut clients = Vec::new();
    for index in 0..CLIENTS {
        let mut client = broker
            .join(ALL[index % 3], &format!("client {index}"))
            .await;
        client.subscribe("all", 1).await;
        clients.push(client);
    }
    for (index, client) in clients.iter_mut().enumerate() {
        client.publish("all", &index.to_string(), 0, 0).await;
    }
    for client in &mut clients {
        let mut seen = [false; CLIENTS];
        for _ in 0..CLIENTS {
            let index: usize = client.receive().await.payload.parse().unwrap();
            assert!(!std::mem::replace(&mut seen[index], true));
        }
    }
    assert_eq!(broker.count(Metric::MessagesIn), CLIENTS as u64);
    assert_eq!(
        broker.count(Metric::MessagesOut),
        (CLIENTS * CLIENTS) as u64
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
