//! Several nodes on one clock, over a network that delays, breaks, holds back and divides, with
//! nodes that die and nodes that freeze. What must hold is checked as it happens, and at the end.

mod users;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr},
};

use super::*;

/// How many worlds are tried.
const SEEDS: u64 = 300;

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
    /// The next bytes on a connection are there.
    Arrived {
        link: u64,
    },
    Join,
    Closed {
        link: u64,
    },
    Delivered {
        slot: u16,
        epoch: u64,
        number: u64,
    },
    /// As [`Event::Delivered`], and stored and copied.
    Safe(u16, u64, u64),
}

/// By sender and its run: the numbers of what was delivered.
type Delivered = BTreeMap<(usize, u64), BTreeSet<u64>>;

struct Sent {
    to: usize,
    to_run: u64,
    lost_before: u64,
    outcome: Option<Outcome>,
}

struct Node {
    core: Core,
    table: Table,
    run: u64,
    frozen_until: Duration,
    /// What the driver would have in the tree of routes.
    routes: BTreeMap<u16, BTreeSet<Box<str>>>,
    /// Frames of this run, by number.
    sent: Vec<Sent>,
    /// How often each other node was lost.
    losses: BTreeMap<usize, u64>,
    /// What this run's subscribers were given.
    delivered: Delivered,
}

/// One connection; its two ends are `2 * n` (of who has called) and `2 * n + 1`.
struct Wire {
    ends: [usize; 2],
    runs: [u64; 2],
    is_open: bool,
    /// What is on its way to each end, and when the last of it is to arrive.
    bytes: [VecDeque<Bytes>; 2],
    busy_until: [Duration; 2],
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Mood {
    Wild,
    Busy,
    /// Clients do nothing any more.
    Quiet,
}

struct World {
    start: Instant,
    now: Duration,
    dice: Dice,
    mood: Mood,
    nodes: Vec<Node>,
    wires: Vec<Wire>,
    events: BTreeMap<(Duration, u64), (usize, u64, Event)>,
    count: u64,
    divided: BTreeSet<(usize, usize)>,
    /// What earlier runs of nodes had delivered, by node and run.
    dead: BTreeMap<(usize, u64), Delivered>,
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

impl Node {
    fn new(number: usize, run: u64, now: Instant) -> Self {
        let me = Me {
            cluster: "c".into(),
            node: name(number),
            // Each time that it leaves it is another one.
            incarnation: RUN * run,
            port: 7883,
        };
        let seeds = [address(0), address(1)];
        let mut core = Core::new(me, Acknowledge::Replicated, LEASE, &seeds, now);
        if run > 1 {
            core.want_retained();
        }
        Self {
            core,
            table: Table::default(),
            run,
            frozen_until: Duration::ZERO,
            routes: BTreeMap::new(),
            sent: Vec::new(),
            losses: BTreeMap::new(),
            delivered: BTreeMap::new(),
        }
    }
}

impl World {
    fn new(seed: u64) -> Self {
        let mut dice = Dice(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
        let start = Instant::now();
        let count = 2 + usize::try_from(dice.roll(4)).unwrap();
        let mut world = Self {
            start,
            now: Duration::ZERO,
            dice,
            mood: Mood::Wild,
            nodes: Vec::new(),
            wires: Vec::new(),
            events: BTreeMap::new(),
            count: 0,
            divided: BTreeSet::new(),
            dead: BTreeMap::new(),
        };
        for number in 0..count {
            world.nodes.push(Node::new(number, 1, start));
            world.at(Duration::ZERO, number, Event::Tick);
        }
        world
    }

    fn at(&mut self, time: Duration, node: usize, event: Event) {
        self.count += 1;
        let run = self.nodes[node].run;
        self.events.insert((time, self.count), (node, run, event));
    }

    fn is_divided(&self, one: usize, other: usize) -> bool {
        self.divided.contains(&(one.min(other), one.max(other)))
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
            if self.mood == Mood::Wild && self.dice.roll(150) == 0 {
                self.disturb();
            }
        }
        self.now = until;
    }

    fn happen(&mut self, node: usize, event: Event) {
        let now = self.start + self.now;
        let core = &mut self.nodes[node].core;
        match event {
            Event::Tick => {
                core.handle_timeout(now);
                if self.mood != Mood::Quiet {
                    self.act_as_users(node);
                }
                self.at(self.now + TICK, node, Event::Tick);
            }
            Event::Connected { link, called } => {
                let (wire, to) = ends(link);
                let other = self.wires[wire].ends[1 - to];
                core.handle_connected(LinkId(link), called, host(other), now);
            }
            Event::CallFailed(address) => core.handle_call_failed(&address, "no", now),
            Event::Arrived { link } => self.arrive(node, link),
            Event::Closed { link } => core.handle_closed(LinkId(link), Some("cut"), now),
            Event::Delivered {
                slot,
                epoch,
                number,
            } => {
                core.handle_delivered(slot, epoch, number, now);
                let later = self.now + self.dice.millis(50);
                self.at(later, node, Event::Safe(slot, epoch, number));
            }
            Event::Safe(slot, epoch, number) => core.handle_safe(slot, epoch, number),
            Event::Join => {
                core.join(&address(0), now);
                core.join(&address(1), now);
            }
        }
        self.settle(node);
    }

    fn arrive(&mut self, node: usize, link: u64) {
        let (number, to) = ends(link);
        let wire = &mut self.wires[number];
        let [one, other] = wire.ends;
        // What a division holds back TCP repeats when it is over.
        if self.divided.contains(&(one.min(other), one.max(other))) {
            self.at(self.now + TICK, node, Event::Arrived { link });
        } else if let Some(bytes) = wire.bytes[to].pop_front()
            && wire.is_open
        {
            let now = self.start + self.now;
            self.nodes[node]
                .core
                .handle_message(LinkId(link), bytes, now);
        }
    }

    /// Does what the core wants done.
    fn settle(&mut self, node: usize) {
        let now = self.start + self.now;
        let Node { core, table, .. } = &mut self.nodes[node];
        core.pump(table, now);
        while let Some(action) = self.nodes[node].core.poll_action() {
            match action {
                Action::Call(address) => self.call(node, address),
                Action::Send(LinkId(link), bytes) => self.send(link, bytes),
                Action::Close(LinkId(link)) => self.hang_up(link),
                Action::Deliver {
                    slot,
                    epoch,
                    number,
                    messages,
                } => {
                    self.deliver(node, &messages);
                    let later = self.now + self.dice.millis(20);
                    self.at(
                        later,
                        node,
                        Event::Delivered {
                            slot,
                            epoch,
                            number,
                        },
                    );
                }
                Action::Keep {
                    slot,
                    epoch,
                    number,
                    messages,
                } => {
                    assert_eq!(messages, &b"r"[..]);
                    let event = Event::Delivered {
                        slot,
                        epoch,
                        number,
                    };
                    self.at(self.now, node, event);
                }
                Action::ReadRetained { slot, after } => {
                    // Two pages, of a message each.
                    let next = after.is_none().then(|| "a".into());
                    let core = &mut self.nodes[node].core;
                    core.handle_retained(slot, Bytes::from_static(b"r"), next);
                    self.settle(node);
                }
                Action::Route { slot, change } => {
                    let routes = self.nodes[node].routes.entry(slot).or_default();
                    match change {
                        Change::Added(filter) => assert!(routes.insert(filter), "added twice"),
                        Change::Removed(filter) => assert!(routes.remove(&filter), "not there"),
                    }
                }
                Action::Confirm { frame, level, .. } => {
                    if level == Level::Safe {
                        self.confirm(node, frame.sequence, Outcome::Taken);
                    }
                }
                Action::Orphan { frame, .. } => {
                    self.confirm(node, frame.sequence, Outcome::Gone);
                }
                Action::Bury { .. } => {}
                Action::Note(Notice::Lost { node: other, .. }) => {
                    let other = other[1..].parse().unwrap();
                    *self.nodes[node].losses.entry(other).or_default() += 1;
                }
                Action::Note(_) => {}
            }
        }
    }

    fn call(&mut self, node: usize, to: Box<str>) {
        let other = (0..self.nodes.len()).find(|other| address(*other) == to);
        let delay = self.dice.millis(20);
        let other = other.filter(|other| !self.is_divided(node, *other));
        let Some(other) = other else {
            self.at(self.now + delay, node, Event::CallFailed(to));
            return;
        };
        let link = 2 * self.wires.len() as u64;
        let runs = [self.nodes[node].run, self.nodes[other].run];
        let connected = self.now + delay;
        self.wires.push(Wire {
            ends: [node, other],
            runs,
            is_open: true,
            bytes: Default::default(),
            busy_until: [connected; 2],
        });
        self.at(
            connected,
            node,
            Event::Connected {
                link,
                called: Some(to),
            },
        );
        self.at(
            connected,
            other,
            Event::Connected {
                link: link + 1,
                called: None,
            },
        );
    }

    fn send(&mut self, link: u64, bytes: Bytes) {
        let delay = self.dice.millis(10);
        let (wire, from) = ends(link);
        let (wire, to) = (&mut self.wires[wire], 1 - from);
        let node = wire.ends[to];
        let arrival = (self.now + delay).max(wire.busy_until[to]);
        wire.busy_until[to] = arrival;
        if wire.is_open && wire.runs[to] == self.nodes[node].run {
            wire.bytes[to].push_back(bytes);
            self.at(arrival, node, Event::Arrived { link: link ^ 1 });
        }
    }

    /// One end closes: the other one reads what was sent before, and then the end.
    fn hang_up(&mut self, link: u64) {
        let (wire, from) = ends(link);
        let (wire, to) = (&self.wires[wire], 1 - from);
        let (node, time) = (wire.ends[to], wire.busy_until[to].max(self.now));
        if wire.runs[to] == self.nodes[node].run {
            self.at(time, node, Event::Closed { link: link ^ 1 });
        }
    }

    fn cut(&mut self, wire: usize) {
        if !std::mem::take(&mut self.wires[wire].is_open) {
            return;
        }
        for end in 0..2 {
            let node = self.wires[wire].ends[end];
            if self.wires[wire].runs[end] == self.nodes[node].run {
                let later = self.now + self.dice.millis(50);
                self.at(
                    later,
                    node,
                    Event::Closed {
                        link: 2 * wire as u64 + end as u64,
                    },
                );
            }
        }
    }

    fn disturb(&mut self) {
        let nodes = self.nodes.len() as u64;
        let node = usize::try_from(self.dice.roll(nodes)).unwrap();
        let other = usize::try_from(self.dice.roll(nodes)).unwrap();
        match self.dice.roll(12) {
            0 => self.restart(node),
            1 => self.nodes[node].frozen_until = self.now + self.dice.millis(4000),
            8 => {
                let now = self.start + self.now;
                self.nodes[node].core.leave(Parting::Stops, now);
                self.settle(node);
                let later = self.now + self.dice.millis(2000);
                self.at(later, node, Event::Join);
            }
            2..=4 if node != other => {
                self.divided.insert((node.min(other), node.max(other)));
            }
            5..=7 => {
                self.divided.pop_first();
            }
            _ if !self.wires.is_empty() => {
                let wire = self.dice.roll(self.wires.len() as u64);
                self.cut(usize::try_from(wire).unwrap());
            }
            _ => {}
        }
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
        self.nodes[node] = Node::new(node, run + 1, self.start + self.now);
        let later = self.now + self.dice.millis(3000);
        self.at(later, node, Event::Tick);
    }
}

/// Which connection a number means, and which end of it.
fn ends(link: u64) -> (usize, usize) {
    let end = |number: u64| usize::try_from(number).unwrap();
    (end(link / 2), end(link % 2))
}

fn live(seed: u64) {
    let mut world = World::new(seed);
    world.run(CHAOS, Mood::Wild);
    world.divided.clear();
    world.run(CALM, Mood::Busy);
    world.run(CALM, Mood::Quiet);
    world.check();
}

#[test]
fn nothing_is_lost_while_both_live_and_all_agree_when_it_is_calm() {
    for seed in 1..=SEEDS {
        let lived = std::panic::catch_unwind(|| live(seed));
        assert!(lived.is_ok(), "in the world of seed {seed}");
    }
}
