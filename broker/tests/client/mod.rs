//! Clients whose sessions outlive their connections: what they have not finished is in their memory,
//! as it is in the broker's. For the tests that end brokers, and for `cargo xtask bench`.

pub(crate) mod line;
mod publisher;
mod subscriber;

use std::{
    collections::BTreeMap,
    env,
    net::{Ipv4Addr, SocketAddr, TcpListener},
    sync::{
        OnceLock,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use line::{Hello, Line, Start, Version};
pub(crate) use publisher::Publisher;
pub(crate) use subscriber::Subscriber;

/// A broker that is started again is there within this, and longer than anything takes that is left
/// to do when the last one is up.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// Between two attempts to connect.
const PAUSE: Duration = Duration::from_millis(5);

/// A silence that is longer is told.
const STALL: Duration = Duration::from_millis(250);

/// What was acknowledged, by topic.
pub(crate) type Taken = BTreeMap<String, Vec<u64>>;

/// Where a client finds brokers.
#[derive(Clone)]
pub(crate) struct Way {
    /// Tried in turn, from the one that served last.
    pub(crate) addresses: Vec<SocketAddr>,
    /// A connection that has answered nothing for so long is given up.
    pub(crate) patience: Duration,
}

impl From<SocketAddr> for Way {
    fn from(address: SocketAddr) -> Self {
        Self {
            addresses: vec![address],
            patience: PATIENCE,
        }
    }
}

/// What a client went through.
#[derive(Clone, Default)]
pub(crate) struct Story {
    /// For each connection but the first: when the one before it was last heard, and how long the
    /// client was without any.
    pub(crate) outages: Vec<(Instant, Duration)>,
    /// The same of connections that were silent for long, and went on.
    pub(crate) stalls: Vec<(Instant, Duration)>,
    /// When a broker did not know the session that it had.
    pub(crate) lost_sessions: Vec<Instant>,
}

/// A client's connection, made anew whenever it breaks.
struct Tie {
    way: Way,
    client_id: String,
    line: Option<Line>,
    turn: usize,
    has_session: bool,
    /// When the broker last said something.
    heard: Option<Instant>,
    story: Story,
}

impl Tie {
    fn new(way: impl Into<Way>, client_id: &str) -> Self {
        Self {
            way: way.into(),
            client_id: client_id.to_owned(),
            line: None,
            turn: 0,
            has_session: false,
            heard: None,
            story: Story::default(),
        }
    }

    /// Connects to the session, as soon as there is a broker; `false` when there is a connection.
    fn renew(&mut self) -> bool {
        if self.line.is_some() {
            return false;
        }
        let is_present = self.open(Start::GoOn);
        if self.has_session && !is_present {
            self.story.lost_sessions.push(Instant::now());
        }
        self.has_session = true;
        let now = Instant::now();
        if let Some(heard) = self.heard.replace(now) {
            self.story.outages.push((heard, now - heard));
        }
        true
    }

    /// Connects; whether there was a session.
    fn open(&mut self, start: Start) -> bool {
        let hello = Hello {
            start,
            ..Hello::again(Version::V311, &self.client_id)
        };
        let deadline = Instant::now() + PATIENCE;
        loop {
            let address = self.way.addresses[self.turn % self.way.addresses.len()];
            match Line::connect(address, &hello, self.way.patience) {
                Ok((line, is_present)) => {
                    self.line = Some(line);
                    return is_present;
                }
                Err(error) => {
                    let name = hello.client_id;
                    assert!(Instant::now() < deadline, "{name} finds no broker: {error}");
                }
            }
            self.turn += 1;
            thread::sleep(PAUSE);
        }
    }

    /// Notes that the broker has said something.
    fn hear(&mut self) {
        let now = Instant::now();
        if let Some(heard) = self.heard.replace(now)
            && now - heard > STALL
        {
            self.story.stalls.push((heard, now - heard));
        }
    }

    /// How long the broker has said nothing.
    fn silence(&self) -> Duration {
        self.heard.map_or(Duration::ZERO, |heard| heard.elapsed())
    }

    /// Leaves as if the network had failed, of its own will.
    fn leave(&mut self) {
        self.line = None;
        self.heard = None;
    }
}

/// What a variable of the environment says, a number.
pub(crate) fn number(variable: &str) -> Option<u64> {
    let text = env::var(variable).ok()?;
    Some(text.parse().expect(variable))
}

/// Where nobody listens.
pub(crate) fn free_address() -> SocketAddr {
    let socket = TcpListener::bind((Ipv4Addr::LOCALHOST, 0));
    let address = socket.and_then(|socket| socket.local_addr());
    address.expect("there is a free port")
}

/// Marsaglia's xorshift: what happens is to fall at other moments each time, and be told again.
pub(crate) struct Dice(u64);

impl Dice {
    pub(crate) fn new(seed: u64) -> Self {
        // Zero stays zero.
        Self(seed | 1)
    }

    pub(crate) fn roll(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    /// Within a second from `earliest`.
    pub(crate) fn moment(&mut self, earliest: Duration) -> Duration {
        earliest + Duration::from_millis(self.roll() % 1000)
    }
}

/// How a publisher goes about it.
#[derive(Clone, Copy)]
pub(crate) struct Pace {
    /// Messages of one turn.
    pub(crate) burst: usize,
    pub(crate) turn: Duration,
}

/// Publishes until it is over and everything is acknowledged.
pub(crate) fn publish(mut publisher: Publisher, pace: Pace, is_over: &AtomicBool) -> Publisher {
    while !is_over.load(Ordering::Relaxed) {
        let began = Instant::now();
        publisher.turn(pace.burst);
        thread::sleep(pace.turn.saturating_sub(began.elapsed()));
    }
    let deadline = Instant::now() + PATIENCE;
    while !publisher.is_idle() {
        assert!(Instant::now() < deadline, "{} is stuck", publisher.topic());
        publisher.turn(0);
    }
    publisher
}

/// Receives until everything has come that was acknowledged, or nothing more does.
pub(crate) fn subscribe(mut subscriber: Subscriber, taken: &OnceLock<Taken>) -> Subscriber {
    let mut deadline = None;
    loop {
        subscriber.turn(Duration::from_millis(50));
        if let Some(taken) = taken.get() {
            let deadline = *deadline.get_or_insert_with(|| Instant::now() + PATIENCE);
            if subscriber.lost(taken).is_empty() || Instant::now() > deadline {
                break;
            }
        }
    }
    // What comes twice comes now.
    subscriber.turn(Duration::from_millis(500));
    subscriber
}

/// Has a member of a group break its connection again and again, with messages that it has not
/// acknowledged, or end its session if it is called fickle.
pub(crate) fn take_part(mut member: Subscriber, pace: Pace, is_over: &AtomicBool) -> Subscriber {
    let is_fickle = member.name().starts_with("fickle");
    while !is_over.load(Ordering::Relaxed) {
        member.turn(Duration::from_millis(100));
        thread::sleep(pace.turn);
        if is_fickle {
            member.end_session();
        } else {
            member.leave();
        }
    }
    member
}
