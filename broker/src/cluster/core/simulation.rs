//! Several nodes on one clock, over a network that delays, breaks, holds back and divides, with
//! nodes that die and nodes that freeze, shards that hang, and clients that do too much. What must
//! hold is checked as it happens, and at the end.
//!
//! | file | what |
//! |---|---|
//! | `network` | connections: how long bytes are on their way, and what becomes of them |
//! | `node` | one node: what its driver, its shards and its clients' sessions would have |
//! | `keeping` | what it has retained, and its clock |
//! | `users` | what clients do |
//! | `groups` | members of a group, and messages for them |
//! | `check` | what must hold |
//! | `lives` | what worlds go through, with and without a mistake |

mod check;
mod groups;
mod keeping;
mod lives;
mod network;
mod node;
mod users;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr},
    sync::{
        Mutex,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use super::{mutant::Mutant, *};
use groups::Job;
use keeping::Keeping;
use network::Wire;
use node::{Delivered, Node};

/// Incarnations of one run of a node.
const RUN: u64 = 1_000_000;

const LEASE: Duration = Duration::from_secs(2);
const TICK: Duration = Duration::from_millis(100);
const CHAOS: Duration = Duration::from_secs(10);
const CALM: Duration = Duration::from_secs(8);

/// A small generator of numbers, the same for the same seed.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % sides
    }

    fn millis(&mut self, most: u64) -> Duration {
        Duration::from_millis(self.roll(most) + 1)
    }

    /// Whether something happens that does so once in so many times.
    fn hits(&mut self, sides: u64) -> bool {
        self.roll(sides) == 0
    }
}

/// What became of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    Taken,
    Gone,
}

enum Event {
    Tick,
    Connected {
        link: u64,
        called: Option<Box<str>>,
    },
    CallFailed(Box<str>),
    /// Some bytes of a message on a connection are there.
    Part {
        link: u64,
    },
    /// The next message on a connection is there.
    Arrived {
        link: u64,
    },
    Join,
    Closed {
        link: u64,
    },
    /// A shard comes to a slot's next item for it.
    Taken {
        slot: u16,
        shard: u64,
    },
    /// What was delivered of a slot, up to an item of a stream, is stored and copied.
    Safe(u16, u64, u64),
    /// A shard that hung may go on.
    GoesOn,
    /// What was in a frame for a group is given to somebody else.
    Regroup(u64),
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Mood {
    Wild,
    Busy,
    /// Clients do nothing any more.
    Quiet,
}

/// What a world is like.
struct Nature {
    /// Nothing happens that is a reason to lose a node.
    is_gentle: bool,
    /// Filters that clients may have.
    filters: Vec<Box<str>>,
    /// Bytes of a message at most.
    longest: u64,
    /// Microseconds for each kilobyte on a connection.
    slowness: u64,
    has_group: bool,
    /// Milliseconds that something is on its way at most, however short.
    distance: u64,
    /// More than a client publishes in a tick.
    haste: u64,
}

/// Of so many worlds one has many filters, and one has long messages and a shard that hangs.
const KINDS: u64 = 8;

impl Nature {
    fn new(seed: u64, dice: &mut Dice) -> Self {
        let kind = seed % KINDS;
        // Many filters fill pages, and queues.
        let (count, length) = if kind == 0 { (200, 50) } else { (5, 0) };
        let filter = |number: u64| format!("t/{number}/{}", "x".repeat(length)).into();
        Self {
            is_gentle: dice.hits(4) && kind != 1,
            filters: (0..count).map(filter).collect(),
            longest: match kind {
                // Those may take longer than a peer may be without progress.
                1 => 16 * 1024,
                2 => 1024,
                _ => 100,
            },
            slowness: match dice.roll(6) {
                0 => 20_000,
                1 => 100_000,
                _ => 0,
            },
            has_group: matches!(kind, 3 | 6),
            distance: 10,
            haste: 4,
        }
    }
}

struct World {
    start: Instant,
    now: Duration,
    dice: Dice,
    nature: Nature,
    mood: Mood,
    nodes: Vec<Node>,
    wires: Vec<Wire>,
    events: BTreeMap<(Duration, u64), (usize, u64, Event)>,
    count: u64,
    divided: BTreeSet<(usize, usize)>,
    /// What earlier runs of nodes had delivered, by node and run.
    dead: BTreeMap<(usize, u64), Delivered>,
    /// Publications that were to be retained.
    published: u64,
    /// How often sums were compared.
    comparisons: u64,
    jobs: Vec<Job>,
}

fn address(node: usize) -> Box<str> {
    format!("10.0.0.{node}:7883").into()
}

fn host(node: usize) -> IpAddr {
    Ipv4Addr::new(10, 0, 0, u8::try_from(node).unwrap()).into()
}

fn name(node: usize) -> Box<str> {
    format!("n{node}").into()
}

fn number(name: &str) -> usize {
    name[1..].parse().unwrap()
}

impl World {
    fn new(seed: u64) -> Self {
        let mut dice = Dice(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
        let start = Instant::now();
        let count = 2 + usize::try_from(dice.roll(4)).unwrap();
        let mut world = Self {
            start,
            now: Duration::ZERO,
            nature: Nature::new(seed, &mut dice),
            dice,
            mood: Mood::Wild,
            nodes: Vec::new(),
            wires: Vec::new(),
            events: BTreeMap::new(),
            count: 0,
            divided: BTreeSet::new(),
            dead: BTreeMap::new(),
            published: 0,
            comparisons: 0,
            jobs: Vec::new(),
        };
        for number in 0..count {
            // Their times of day differ by seconds, and sometimes by more.
            let behind = match world.dice.roll(8) {
                0 => Duration::from_hours(1),
                1..=3 => world.dice.millis(5000),
                _ => Duration::ZERO,
            };
            let mut node = Node::new(number, 1, Keeping::new(start, behind), start);
            node.has_disk = world.dice.hits(3);
            world.nodes.push(node);
            world.set_up_group(number);
            world.at(Duration::ZERO, number, Event::Tick);
        }
        if seed % KINDS == 1 {
            world.nodes[1].hung_until = [CHAOS; 2];
        }
        world
    }

    fn at(&mut self, time: Duration, node: usize, event: Event) {
        self.count += 1;
        let run = self.nodes[node].run;
        self.events.insert((time, self.count), (node, run, event));
    }

    fn run(&mut self, time: Duration, mood: Mood) {
        let until = self.now + time;
        self.mood = mood;
        while let Some(entry) = self.events.first_entry()
            && entry.key().0 <= until
        {
            let ((time, count), (node, run, event)) = entry.remove_entry();
            self.now = time;
            if self.nodes[node].run != run {
                continue;
            }
            let frozen = self.nodes[node].frozen_until;
            if frozen > time {
                self.events.insert((frozen, count), (node, run, event));
                continue;
            }
            self.happen(node, event);
            if self.mood == Mood::Wild && self.dice.hits(150) {
                self.disturb();
            }
        }
        self.now = until;
    }

    fn happen(&mut self, node: usize, event: Event) {
        let now = self.start + self.now;
        let Node { core, retained, .. } = &mut self.nodes[node];
        core.set_time(retained.time(self.now));
        match event {
            Event::Tick => {
                if retained.handle_timeout(self.now) {
                    core.handle_missing();
                }
                core.handle_timeout(now);
                if self.mood != Mood::Quiet {
                    self.act_as_users(node);
                }
                self.at(self.now + TICK, node, Event::Tick);
            }
            Event::Connected { link, called } => {
                let other = self.other_end(link);
                let core = &mut self.nodes[node].core;
                core.handle_connected(LinkId(link), called, host(other), now);
            }
            Event::CallFailed(address) => core.handle_call_failed(&address, "no", now),
            Event::Part { link } => core.handle_part(LinkId(link), now),
            Event::Arrived { link } => self.arrive(node, link),
            Event::Closed { link } => core.handle_closed(LinkId(link), Some("cut"), now),
            Event::Taken { slot, shard } => self.take(node, slot, shard),
            Event::Safe(slot, epoch, number) => self.make_safe(node, slot, epoch, number),
            Event::Regroup(frame) => self.regroup(node, frame),
            Event::GoesOn => self.go_on(node),
            Event::Join => {
                core.join(&address(0), now);
                core.join(&address(1), now);
            }
        }
        self.settle(node);
    }

    fn disturb(&mut self) {
        let nodes = self.nodes.len() as u64;
        let node = usize::try_from(self.dice.roll(nodes)).unwrap();
        let other = usize::try_from(self.dice.roll(nodes)).unwrap();
        let kind = self.dice.roll(14);
        match kind {
            _ if self.nature.is_gentle => match kind {
                0..3 => self.nodes[node].frozen_until = self.now + self.dice.millis(500),
                3..6 => self.hang_shard(node, 1000),
                _ => self.cut_some(),
            },
            0 => self.restart(node),
            1 => self.nodes[node].frozen_until = self.now + self.dice.millis(4000),
            2..=4 if node != other => {
                self.divided.insert((node.min(other), node.max(other)));
            }
            5..=7 => {
                self.divided.pop_first();
            }
            8 => {
                let now = self.start + self.now;
                self.nodes[node].core.leave(Parting::Stops, now);
                self.settle(node);
                let later = self.now + self.dice.millis(2000);
                self.at(later, node, Event::Join);
            }
            9 => self.hang_shard(node, 12_000),
            10 => self.hang_shard(node, 2000),
            _ => self.cut_some(),
        }
    }

    fn hang_shard(&mut self, node: usize, longest: u64) {
        let shard = usize::from(self.dice.hits(2));
        let until = self.now + self.dice.millis(longest);
        self.nodes[node].hung_until[shard] = until;
        self.at(until, node, Event::GoesOn);
    }

    fn restart(&mut self, node: usize) {
        let run = self.nodes[node].run;
        let had = std::mem::take(&mut self.nodes[node].delivered);
        self.dead.insert((node, run), had);
        for wire in 0..self.wires.len() {
            if self.wires[wire].ends.contains(&node) {
                self.cut(wire);
            }
        }
        let now = self.start + self.now;
        let next = self.nodes[node].next_run(node, now);
        self.nodes[node] = next;
        self.set_up_group(node);
        let longest = if self.dice.hits(2) { 200 } else { 3000 };
        let later = self.now + self.dice.millis(longest);
        self.at(later, node, Event::Tick);
    }

    /// Nothing disturbs any more, and what was held up goes on.
    fn calm_down(&mut self) {
        self.divided.clear();
        self.nature.slowness = 0;
        for node in 0..self.nodes.len() {
            self.nodes[node].hung_until = [self.now; 2];
            self.at(self.now, node, Event::GoesOn);
        }
    }
}
