//! Traps that brokers have fallen into. Each probe ends with a node that still serves its clients.
//!
//! `TIDEGATE_PROBES=full` makes them as large as they are meant to be; without it, they are as
//! small as a test that runs on every change can afford.

use std::{net::SocketAddr, time::Duration};

use tokio::{io::AsyncWriteExt, net::TcpStream};

use super::{
    ALL, Broker,
    client::{Client, Hello, packet},
};
use crate::{codec::packet::Version, metrics::Metric};

pub(super) fn size(full: usize, small: usize) -> usize {
    match std::env::var("TIDEGATE_PROBES").as_deref() {
        Ok("full") => full,
        _ => small,
    }
}

/// Xorshift: what a probe does is the same in every run.
pub(super) struct Dice(pub(super) u64);

impl Dice {
    pub(super) fn roll(&mut self, sides: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 16) as usize % sides
    }
}

/// A message still gets from one client to another, on every pair of versions.
async fn assert_alive(broker: &Broker) {
    for (from, to) in ALL.into_iter().zip(ALL.into_iter().rev()) {
        let mut receiver = broker.join(to, "alive: receiver").await;
        receiver.subscribe("alive/+", 2).await;
        let mut sender = broker.join(from, "alive: sender").await;
        sender.deliver("alive/ä", "yes", 2).await;
        assert_eq!(receiver.receive().await.payload, "yes");
        receiver.leave().await;
        sender.leave().await;
    }
}

/// A client that says some of what clients say and breaks off anywhere, by a close or a reset.
pub(super) async fn vanish(address: SocketAddr, version: Version, dice: &mut Dice) {
    let mut bytes = Hello::new(version, &format!("client {}", dice.roll(50))).encode();
    let none: &[u8] = if version.is_v5() { &[0] } else { &[] };
    bytes.extend(packet(0x82, &[b"\0\x09", none, b"\0\x03t/#\x02"].concat()));
    bytes.extend(packet(
        0x34,
        &[b"\0\x03t/x\0\x07", none, b"payload"].concat(),
    ));
    bytes.extend(packet(0x62, b"\0\x07"));
    let shared = [b"\0\x09", none, b"\0\x0a$share/g/t\x01"].concat();
    bytes.extend(packet(0x82, &shared));
    bytes.truncate(dice.roll(bytes.len() + 1));
    let mut stream = TcpStream::connect(address).await.unwrap();
    // One that has taken its name may have had it closed by then.
    let _ = stream.write_all(&bytes).await;
    if dice.roll(2) == 0 {
        socket2::SockRef::from(&stream)
            .set_linger(Some(Duration::ZERO))
            .unwrap();
    }
}

#[tokio::test]
async fn longest_topics_are_topics_like_others() {
    let broker = Broker::start().await;
    let deep = format!("{}x", "/".repeat(127));
    let mut sender = broker.join(Version::V311, "sender").await;
    for version in ALL {
        let mut receiver = broker.join(version, "receiver").await;
        for topic in ["x".repeat(65_535), "ä".repeat(32_767), deep.clone()] {
            assert_eq!(receiver.subscribe(&topic, 1).await, 1);
            sender.publish(&topic, "kept", 0b0011, 1).await;
            sender.recv().await;
            assert_eq!(receiver.receive().await.topic, topic);
            receiver.subscribe(&topic, 1).await;
            let kept = receiver.receive().await;
            assert!(kept.retain && kept.topic == topic);
            receiver.unsubscribe(&topic).await;
            sender.publish(&topic, "", 0b0011, 1).await;
            sender.recv().await;
        }
        receiver.leave().await;
    }
    // Deeper ones would cost more than they are worth, and are refused by name.
    let mut client = broker.join(Version::V5, "deep").await;
    let too_deep = "/".repeat(65_535);
    assert_eq!(client.subscribe(&too_deep, 0).await, 0x8f);
    client.publish(&too_deep, "x", 0, 0).await;
    client.expect(0xe0, &[0x90]).await;
    assert_alive(&broker).await;
    broker.stop().await;
}

#[tokio::test]
async fn very_many_filters_slow_nobody_down_and_leave_nothing() {
    const AT_ONCE: usize = 1000;
    let filters = size(100_000, 10_000);
    let broker = Broker::start_with("[limits]\nsubscriptions = 1000000\n").await;
    let mut greedy = broker.join(Version::V5, "greedy").await;
    for first in (0..filters).step_by(AT_ONCE) {
        let mut body = vec![0, 9, 0];
        for number in first..first + AT_ONCE {
            let filter = format!("f/{number}/+");
            body.extend(u16::try_from(filter.len()).unwrap().to_be_bytes());
            body.extend(filter.as_bytes());
            body.push(0);
        }
        greedy.send(&packet(0x82, &body)).await;
        assert_eq!(greedy.recv().await.0, 0x90);
    }
    assert_eq!(broker.count(Metric::Subscriptions), filters as u64);
    let mut sender = broker.join(Version::V311, "sender").await;
    for number in (0..filters).step_by(filters / 100) {
        sender.deliver(&format!("f/{number}/x"), "x", 1).await;
        assert_eq!(greedy.receive().await.topic, format!("f/{number}/x"));
    }
    assert_alive(&broker).await;
    greedy.leave().await;
    broker.wait_for(Metric::Subscriptions, 0).await;
    broker.stop().await;
}

#[tokio::test]
async fn topics_that_were_never_seen_before_and_never_come_again() {
    const LETTERS: [&str; 8] = ["a", "/", "ä", "$", "日", " ", "0", "\u{10ffff}"];
    let topics = size(1_000_000, 20_000);
    let broker = Broker::start().await;
    let mut watcher = broker.join(Version::V311, "watcher").await;
    watcher.subscribe("#", 0).await;
    watcher.subscribe("+/+", 0).await;
    let counting = tokio::spawn(async move {
        let mut seen = 0_usize;
        while watcher.receive().await.topic != "end" {
            seen += 1;
        }
        (watcher, seen)
    });
    let mut sender = broker.join(Version::V5, "sender").await;
    let mut dice = Dice(7);
    let mut sent = 0;
    for number in 0..topics {
        let mut topic = String::new();
        for _ in 0..1 + dice.roll(12) {
            topic.push_str(LETTERS[dice.roll(LETTERS.len())]);
        }
        topic.push_str(&number.to_string());
        sent += usize::from(!topic.starts_with('$'));
        // Waits for an answer now and then, so that no queue overflows.
        if number % 200 == 0 {
            sender.deliver(&topic, "x", 1).await;
        } else {
            sender.publish(&topic, "x", 0, 0).await;
        }
    }
    sender.deliver("end", "", 1).await;
    let (_watcher, seen) = tokio::time::timeout(Duration::from_secs(600), counting)
        .await
        .unwrap()
        .unwrap();
    let dropped = usize::try_from(broker.count(Metric::DroppedQueue)).unwrap();
    assert_eq!(seen + dropped, sent);
    assert_alive(&broker).await;
    broker.stop().await;
}

#[tokio::test]
async fn clients_that_vanish_at_any_point_leave_nothing() {
    let clients = size(20_000, 1000);
    let broker = Broker::start_with("[limits]\nconnect_timeout = \"1s\"\n").await;
    let mut dice = Dice(3);
    for number in 0..clients {
        vanish(broker.address, ALL[number % 3], &mut dice).await;
    }
    broker.wait_for(Metric::Connections, 0).await;
    broker.wait_for(Metric::Sessions, 0).await;
    broker.wait_for(Metric::Subscriptions, 0).await;
    broker.wait_for(Metric::SharedSubscriptions, 0).await;
    broker.wait_for(Metric::SessionsConnected, 0).await;
    assert_alive(&broker).await;
    broker.stop().await;
}

#[tokio::test]
async fn half_open_connections_are_given_up() {
    let broker = Broker::start_with("[limits]\nconnect_timeout = \"3s\"\n").await;
    let mut held = Vec::new();
    for number in 0..100 {
        let mut client = Client::open(broker.address).await;
        let hello = Hello::new(ALL[number % 3], "half").encode();
        client.send(&hello[..number % hello.len()]).await;
        held.push(client);
    }
    let mut hello = Hello::new(Version::V311, "silent");
    hello.keep_alive = 1;
    held.push(Client::connect(broker.address, &hello).await.0);
    broker.wait_for(Metric::Connections, 0).await;
    assert_eq!(broker.count(Metric::RefusedTimeout), 100);
    assert_eq!(broker.count(Metric::ClosedKeepAlive), 1);
    drop(held);
    assert_alive(&broker).await;
    broker.stop().await;
}

#[tokio::test]
async fn noise_on_live_connections_ends_those_alone() {
    let rounds = size(20_000, 1500);
    let broker = Broker::start().await;
    let mut bystander = broker.join(Version::V311, "bystander").await;
    bystander.subscribe("quiet", 1).await;
    let mut dice = Dice(11);
    for round in 0..rounds {
        let mut client = broker
            .join(ALL[round % 3], &format!("noisy {}", round % 20))
            .await;
        let mut noise = Vec::new();
        for _ in 0..1 + dice.roll(5) {
            // A kind of packet, a length that is likely right, and anything behind it.
            let length = dice.roll(40);
            noise.push((dice.roll(256)) as u8);
            let is_true = dice.roll(8) != 0;
            noise.push((if is_true { length } else { dice.roll(256) }) as u8);
            noise.extend((0..length).map(|_| {
                let byte = dice.roll(256) as u8;
                if byte.is_multiple_of(2) {
                    byte % 8
                } else {
                    byte
                }
            }));
        }
        // The broker may close the connection before all of it is written.
        let _ = client.stream.write_all(&noise).await;
        if round % 500 == 0 {
            bystander.ping().await;
        }
    }
    let mut sender = broker.join(Version::V5, "sender").await;
    sender.deliver("quiet", "still here", 1).await;
    assert_eq!(bystander.receive().await.payload, "still here");
    assert_alive(&broker).await;
    broker.stop().await;
}
