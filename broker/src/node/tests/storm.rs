//! Bad clients by the hundred, all at once, and witnesses who must not notice any of them.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use tokio::{
    net::{TcpSocket, TcpStream},
    task::JoinSet,
};

use super::{
    ALL, Broker,
    client::{Client, Hello},
    probes::{Dice, size, vanish},
};
use crate::{codec::packet::Version, metrics::Metric};

/// How long a connection may go without a CONNECT.
const SETTINGS: &str = "[limits]\nconnect_timeout = \"2s\"\nqueue_messages = 50\n";

/// What those who never read have coming to them: more than sockets hold.
const FLOOD_BYTES: usize = 8192;

/// A receive buffer of which a slow reader fills the most.
const NARROW: u32 = 4096;

/// How many there are of each kind.
struct Sizes {
    vanishing: usize,
    half_open: usize,
    slow: usize,
    flood: usize,
}

impl Sizes {
    fn new() -> Self {
        Self {
            vanishing: size(100_000, 600),
            half_open: size(2000, 60),
            slow: size(100, 6),
            flood: size(20_000, 2000),
        }
    }
}

/// A pair of clients: one sends numbers, and the other has to get each once and in order.
struct Witnesses {
    sender: Client,
    receiver: Client,
    qos: u8,
}

impl Witnesses {
    async fn new(broker: &Broker, version: Version, qos: u8) -> Self {
        let name = |part| format!("{part} {version:?} {qos}");
        let mut receiver = broker.join(version, &name("witness")).await;
        let topic = Self::topic(version, qos);
        assert_eq!(receiver.subscribe(&topic, qos).await, qos);
        let sender = broker.join(version, &name("sender")).await;
        Self {
            sender,
            receiver,
            qos,
        }
    }

    fn topic(version: Version, qos: u8) -> String {
        format!("witness/{version:?}/{qos}")
    }

    /// Talks until it is told that the storm is over; the result is how many messages it took.
    async fn talk(mut self, version: Version, is_over: Arc<AtomicBool>) -> u64 {
        let topic = Self::topic(version, self.qos);
        let mut number = 0;
        while !is_over.load(Ordering::Relaxed) {
            let payload = number.to_string();
            self.sender.deliver(&topic, &payload, self.qos).await;
            assert_eq!(self.receiver.receive().await.payload, payload);
            number += 1;
        }
        self.sender.leave().await;
        self.receiver.leave().await;
        number
    }
}

/// Clients that break off anywhere, in turn.
async fn vanishing(address: SocketAddr, clients: usize, seed: u64) {
    let mut dice = Dice(seed);
    for number in 0..clients {
        vanish(address, ALL[number % 3], &mut dice).await;
    }
}

/// A client that stops within its CONNECT; the result comes when it is given up.
async fn half_open(address: SocketAddr, number: usize) {
    let mut client = Client::open(address).await;
    let hello = Hello::new(ALL[number % 3], "half open").encode();
    client.send(&hello[..number % hello.len()]).await;
    client.expect_close().await;
}

/// A client whose network is gone behind its CONNECT.
async fn silent(address: SocketAddr, number: usize) {
    let mut hello = Hello::new(ALL[number % 3], &format!("silent {number}"));
    hello.keep_alive = 1;
    let (mut client, _welcome) = Client::connect(address, &hello).await;
    while client.try_recv().await.is_some() {}
}

/// A client that wants everything and reads nothing.
async fn slow(address: SocketAddr, number: usize) -> Client<TcpStream> {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(NARROW).unwrap();
    let mut client = Client::over(socket.connect(address).await.unwrap());
    let version = ALL[number % 3];
    let hello = Hello::new(version, &format!("slow {number}"));
    assert_eq!(client.greet(&hello).await.code, 0);
    client
        .subscribe("flood/#", u8::try_from(number % 3).unwrap())
        .await;
    client
}

/// Sends what the slow readers do not read.
async fn flood(mut sender: Client, messages: usize) {
    let payload = "x".repeat(FLOOD_BYTES);
    for number in 0..messages {
        // Waits for an answer now and then, so that it is not slowed down for its own sake.
        if number % 100 == 0 {
            sender.deliver("flood/a", &payload, 2).await;
        } else {
            sender.publish("flood/a", &payload, 0, 0).await;
        }
    }
    sender.deliver("flood/a", &payload, 1).await;
    sender.leave().await;
}

#[tokio::test]
async fn storm_of_bad_clients_is_not_noticed_by_others() {
    // Where it stays as it is, so small a storm as there is room for has to do.
    let _ = crate::open_files::raise_limit();
    let sizes = Sizes::new();
    let broker = Broker::start_with(SETTINGS).await;
    let address = broker.address;
    let is_over = Arc::new(AtomicBool::new(false));
    let mut witnesses = JoinSet::new();
    for version in ALL {
        for qos in [1, 2] {
            let pair = Witnesses::new(&broker, version, qos).await;
            witnesses.spawn(pair.talk(version, Arc::clone(&is_over)));
        }
    }

    let mut readers = Vec::new();
    for number in 0..sizes.slow {
        readers.push(slow(address, number).await);
    }
    let mut storm = JoinSet::new();
    let flooder = broker.join(Version::V5, "flooder").await;
    storm.spawn(flood(flooder, sizes.flood));
    for seed in 1..=6 {
        storm.spawn(vanishing(address, sizes.vanishing / 6, seed));
    }
    for number in 0..sizes.half_open {
        storm.spawn(half_open(address, number));
        storm.spawn(silent(address, number));
    }
    storm.join_all().await;
    is_over.store(true, Ordering::Relaxed);
    let told = witnesses.join_all().await;
    assert!(told.iter().all(|messages| *messages > 0), "{told:?}");

    let held = sizes.half_open as u64;
    broker.wait_for(Metric::RefusedTimeout, held).await;
    broker.wait_for(Metric::ClosedKeepAlive, held).await;
    assert!(broker.count(Metric::DroppedQueue) > 0);
    broker
        .wait_for(Metric::Connections, sizes.slow as u64)
        .await;
    drop(readers);
    for metric in [
        Metric::Connections,
        Metric::Sessions,
        Metric::SessionsConnected,
        Metric::Subscriptions,
        Metric::SharedSubscriptions,
    ] {
        broker.wait_for(metric, 0).await;
    }
    assert_eq!(broker.count(Metric::LaneRestarts), 0);
    broker.stop().await;
}
