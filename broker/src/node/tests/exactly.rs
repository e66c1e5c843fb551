//! What is left of messages when clients come and go and Routers die: all of them, in order, and QoS 2
//! once.

use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet, VecDeque},
    time::Duration,
};

use futures_util::future::join_all;
use proptest::prelude::*;

use super::{
    Broker,
    client::{Client, Hello},
};
use crate::{codec::packet::Version, metrics::Metric};

const PUBLISHERS: usize = 3;
const MESSAGES: usize = 120;

/// Of one publisher at once; the broker takes a few more.
const WINDOW: usize = 15;
const SETTINGS: &str = "[limits]\ninflight = 20\nqueue_messages = 10000\n";

/// One in so many steps of a client is the end of its connection.
const STEPS: u64 = 25;

/// How long a client looks for a packet before it thinks of something else.
const GLANCE: Duration = Duration::from_millis(5);

/// Knuth's generator: what happens next, the same for the same seed.
struct Dice(u64);

impl Dice {
    fn one_in(&mut self, sides: u64) -> bool {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33).is_multiple_of(sides)
    }
}

/// A publisher's message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Letter {
    publisher: usize,
    qos: u8,
    number: usize,
}

impl Letter {
    fn parse(payload: &str) -> Self {
        let parts: Vec<usize> = payload
            .split(' ')
            .map(|part| part.parse().unwrap())
            .collect();
        Self {
            publisher: parts[0],
            qos: u8::try_from(parts[1]).unwrap(),
            number: parts[2],
        }
    }

    fn payload(self) -> String {
        let Self {
            publisher,
            qos,
            number,
        } = self;
        format!("{publisher} {qos} {number}")
    }

    /// QoS 1 and 2 in turn.
    fn all() -> BTreeSet<Self> {
        let of = |publisher| {
            (0..MESSAGES).map(move |number| Self {
                publisher,
                qos: if number % 2 == 0 { 1 } else { 2 },
                number,
            })
        };
        (0..PUBLISHERS).flat_map(of).collect()
    }
}

/// A client that loses its connection now and then.
struct Fickle<'a> {
    broker: &'a Broker,
    hello: Hello,
    client: Client,
    dice: Dice,
    /// It keeps its connection from then on.
    is_calm: bool,
}

impl<'a> Fickle<'a> {
    async fn new(broker: &'a Broker, name: String, seed: u64) -> Self {
        let version = [Version::V311, Version::V5][usize::from(seed % 2 == 1)];
        let hello = Hello::persistent(version, &name);
        let (client, _welcome) = Client::connect(broker.address, &hello).await;
        Self {
            broker,
            hello,
            client,
            dice: Dice(seed),
            is_calm: false,
        }
    }

    /// Whether the connection breaks here.
    fn stumbles(&mut self) -> bool {
        !self.is_calm && self.dice.one_in(STEPS)
    }

    /// Breaks the connection and opens the next one, sometimes the other way round.
    async fn reconnect(&mut self) {
        if self.dice.one_in(2) {
            self.client = Client::open(self.broker.address).await;
            self.client.greet(&self.hello).await;
        } else {
            let (client, welcome) = Client::connect(self.broker.address, &self.hello).await;
            assert!(welcome.session_present);
            self.client = client;
        }
    }

    /// The next packet, if there is one soon.
    async fn look(&mut self) -> Option<(u8, Vec<u8>)> {
        let packet = tokio::time::timeout(GLANCE, self.client.read_packet()).await;
        packet
            .ok()
            .map(|packet| packet.expect("no one else ends a connection"))
    }
}

/// A message that is not done with.
struct Outstanding {
    id: u16,
    letter: Letter,
    is_released: bool,
}

struct Publisher<'a> {
    fickle: Fickle<'a>,
    number: usize,
    outstanding: VecDeque<Outstanding>,
    /// The identifiers of what was published on this connection and is not answered.
    unanswered: VecDeque<u16>,
    last_id: u16,
}

impl<'a> Publisher<'a> {
    async fn run(mut self) {
        let mut next = (0..MESSAGES).peekable();
        while next.peek().is_some() || !self.outstanding.is_empty() {
            if self.fickle.stumbles() {
                self.fickle.reconnect().await;
                self.publish_again().await;
            } else if self.outstanding.len() < WINDOW
                && !self.fickle.dice.one_in(4)
                && next.peek().is_some()
            {
                let letter = Letter {
                    publisher: self.number,
                    qos: if next.peek().unwrap() % 2 == 0 { 1 } else { 2 },
                    number: next.next().unwrap(),
                };
                self.last_id = self.last_id % 1000 + 1;
                let outstanding = Outstanding {
                    id: self.last_id,
                    letter,
                    is_released: false,
                };
                self.publish(&outstanding, 0).await;
                self.outstanding.push_back(outstanding);
            } else if let Some((first, body)) = self.fickle.look().await {
                self.handle(first, &body).await;
            }
        }
    }

    async fn publish(&mut self, outstanding: &Outstanding, dup: u8) {
        let Outstanding { id, letter, .. } = outstanding;
        let topic = format!("t/{}", letter.qos);
        let flags = letter.qos << 1 | dup;
        let client = &mut self.fickle.client;
        client.publish(&topic, &letter.payload(), flags, *id).await;
        self.unanswered.push_back(*id);
    }

    async fn publish_again(&mut self) {
        self.unanswered.clear();
        for outstanding in std::mem::take(&mut self.outstanding) {
            if outstanding.is_released {
                self.release(outstanding.id).await;
            } else {
                self.publish(&outstanding, 0b1000).await;
            }
            self.outstanding.push_back(outstanding);
        }
    }

    async fn release(&mut self, id: u16) {
        let [high, low] = id.to_be_bytes();
        self.fickle.client.send(&[0x62, 2, high, low]).await;
    }

    async fn handle(&mut self, first: u8, body: &[u8]) {
        let id = u16::from_be_bytes([body[0], body[1]]);
        // A PUBREL that is sent again may be for a message that is done with.
        let is_well = |reason: &u8| *reason < 0x80 || (first, *reason) == (0x70, 0x92);
        assert!(body.get(2).is_none_or(is_well), "{first:#x} {body:?}");
        let of_id = |outstanding: &Outstanding| outstanding.id == id;
        let position = self
            .outstanding
            .iter()
            .position(of_id)
            .expect("an outstanding message");
        match first {
            0x40 | 0x50 => {
                assert_eq!(
                    self.unanswered.pop_front(),
                    Some(id),
                    "answers come in order"
                );
                if first == 0x40 {
                    self.outstanding.remove(position);
                } else {
                    self.outstanding[position].is_released = true;
                    self.release(id).await;
                }
            }
            0x70 => {
                self.outstanding.remove(position);
            }
            _ => panic!("{first:#x} {body:?}"),
        }
    }
}

/// What one subscriber, or all of a group together, have received.
#[derive(Default)]
struct Mailbox {
    received: BTreeSet<Letter>,
    /// The last number of each publisher and QoS that was new.
    last: BTreeMap<(usize, u8), usize>,
    is_group: bool,
}

impl Mailbox {
    fn put(&mut self, letter: Letter) {
        let Letter {
            publisher,
            qos,
            number,
        } = letter;
        let is_new = self.received.insert(letter);
        assert!(is_new || qos == 1, "{letter:?} came twice");
        if is_new && !self.is_group {
            let last = self.last.insert((publisher, qos), number);
            assert!(
                last.is_none_or(|last| last < number),
                "{letter:?} came after {last:?}"
            );
        }
    }

    fn is_complete(&self) -> bool {
        self.received.len() == PUBLISHERS * MESSAGES
    }
}

struct Subscriber<'a> {
    fickle: Fickle<'a>,
    mailbox: &'a RefCell<Mailbox>,
    /// The identifiers of QoS 2 messages that were received and not released.
    held: BTreeSet<u16>,
}

impl<'a> Subscriber<'a> {
    async fn new(
        broker: &'a Broker,
        name: String,
        seed: u64,
        mailbox: &'a RefCell<Mailbox>,
    ) -> Self {
        let mut fickle = Fickle::new(broker, name, seed).await;
        let is_group = mailbox.borrow().is_group;
        let filter = if is_group { "$share/g/t/#" } else { "t/#" };
        assert_eq!(fickle.client.subscribe(filter, 2).await, 2);
        Self {
            fickle,
            mailbox,
            held: BTreeSet::new(),
        }
    }

    async fn run(mut self) {
        while !self.mailbox.borrow().is_complete() {
            if self.fickle.stumbles() {
                self.fickle.reconnect().await;
            }
            self.step().await;
        }
        // Nothing comes after that but what was sent and not acknowledged.
        self.fickle.is_calm = true;
        self.fickle.client.send(&[0xc0, 0]).await;
        while self.step().await != Some(0xd0) {}
    }

    /// Looks for a packet and answers it, unless the connection breaks before that.
    async fn step(&mut self) -> Option<u8> {
        let (first, body) = self.fickle.look().await?;
        let [high, low] = match first >> 4 {
            3 => self.receive(first, &body),
            6 => {
                self.held.remove(&u16::from_be_bytes([body[0], body[1]]));
                [body[0], body[1]]
            }
            _ => return Some(first),
        };
        let answer = match first & 0b1111_0110 {
            0x32 => 0x40,
            0x34 => 0x50,
            _ => 0x70,
        };
        if !self.fickle.stumbles() {
            self.fickle.client.send(&[answer, 2, high, low]).await;
        } else {
            self.fickle.reconnect().await;
        }
        Some(first)
    }

    fn receive(&mut self, first: u8, body: &[u8]) -> [u8; 2] {
        let (topic, rest) = body[2..].split_at(usize::from(body[1]));
        let (id, rest) = rest.split_first_chunk::<2>().unwrap();
        let properties = usize::from(self.fickle.hello.version.is_v5());
        let letter = Letter::parse(std::str::from_utf8(&rest[properties..]).unwrap());
        assert_eq!(topic, format!("t/{}", letter.qos).as_bytes());
        assert_eq!((first >> 1) & 3, letter.qos);
        if letter.qos == 1 || self.held.insert(u16::from_be_bytes(*id)) {
            self.mailbox.borrow_mut().put(letter);
        }
        *id
    }
}

/// Kills the Router now and then, until all messages were received.
async fn kill_routers(broker: &Broker, mut dice: Dice, mailboxes: &[&RefCell<Mailbox>]) {
    let shards = u64::from(broker.node.status().shared.shards);
    let is_over = || {
        mailboxes
            .iter()
            .all(|mailbox| mailbox.borrow().is_complete())
    };
    for killed in 1.. {
        let before = broker.count(Metric::MessagesIn);
        let wait = if dice.one_in(2) { 20 } else { 60 };
        while broker.count(Metric::MessagesIn) < before + wait {
            if is_over() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        broker.node.status().shared.lanes.kill_router();
        broker.wait_for(Metric::LaneRestarts, killed * shards).await;
    }
}

async fn play(shards: u16, seed: u64) {
    let broker = Broker::start_sharded(shards, SETTINGS).await;
    let own = [(); 3].map(|()| RefCell::new(Mailbox::default()));
    let group = RefCell::new(Mailbox {
        is_group: true,
        ..Mailbox::default()
    });
    let mut subscribers = Vec::new();
    let mailboxes: Vec<_> = own.iter().chain([&group, &group, &group]).collect();
    for (index, mailbox) in mailboxes.iter().enumerate() {
        let name = format!("subscriber {index}");
        let seed = seed.wrapping_add(index as u64);
        subscribers.push(Subscriber::new(&broker, name, seed, mailbox).await);
    }
    let mut publishers = Vec::new();
    for number in 0..PUBLISHERS {
        let name = format!("publisher {number}");
        publishers.push(Publisher {
            fickle: Fickle::new(&broker, name, seed.wrapping_mul(3 + number as u64)).await,
            number,
            outstanding: VecDeque::new(),
            unanswered: VecDeque::new(),
            last_id: 0,
        });
    }
    tokio::join!(
        join_all(publishers.into_iter().map(Publisher::run)),
        join_all(subscribers.into_iter().map(Subscriber::run)),
        kill_routers(&broker, Dice(seed), &mailboxes),
    );
    for mailbox in mailboxes {
        assert_eq!(mailbox.borrow().received, Letter::all());
    }
    assert_eq!(broker.count(Metric::DroppedQueue), 0);
    assert_eq!(broker.count(Metric::DroppedShared), 0);
    broker.stop().await;
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 4,
        max_shrink_iters: 0,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn messages_outlive_connections_and_routers_in_order_and_qos2_once(
        shards in 2..5_u16,
        seed in any::<u64>(),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let game = async {
            let played = tokio::time::timeout(Duration::from_secs(120), play(shards, seed));
            played.await.expect("all messages in time");
        };
        runtime.unwrap().block_on(game);
    }
}
