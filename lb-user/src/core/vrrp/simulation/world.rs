//! The virtual network, and what is watched all the time.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use crate::core::vrrp::advert::{Advert, Envelope, Interval, Priority};
use crate::core::vrrp::announce::Presence;
use crate::core::vrrp::group::Group;
use crate::core::vrrp::machine::Machine;
use crate::core::vrrp::machine::tests::bench::{epoch, from};
use crate::core::vrrp::role::Role;
use crate::core::vrrp::settings::{Preemption, Settings};
use crate::core::vrrp::timers;

struct Node {
    settings: Vec<Settings>,
    /// `None` while it is down.
    group: Option<Group>,
    /// Until when it stands still.
    stalled_until: Instant,
    announcements: u64,
}

/// An advert on its way.
struct Flight {
    to: usize,
    member: usize,
    envelope: Envelope,
    advert: Advert,
}

/// For how long one virtual router has had too many Actives, or none.
#[derive(Clone, Copy, Default)]
struct Stretch {
    two_since: Option<Instant>,
    none_since: Option<Instant>,
}

pub(super) struct World {
    now: Instant,
    nodes: Vec<Node>,
    flights: BTreeMap<(Instant, u64), Flight>,
    /// Numbers flights that arrive at the same time.
    number: u64,
    /// From, to, member.
    cuts: BTreeSet<(usize, usize, usize)>,
    loss: u64,
    random: u64,
    /// When something happened for the last time.
    disturbed_at: Instant,
    stretches: Vec<Stretch>,
    longest_gap: Duration,
}

impl World {
    /// Nodes that have just been started.
    pub(super) fn new(nodes: Vec<Vec<Settings>>, seed: u64) -> Self {
        let now = epoch();
        let members = nodes[0].len();
        let node = |settings| Node {
            settings,
            group: None,
            stalled_until: now,
            announcements: 0,
        };
        let mut world = Self {
            now,
            nodes: nodes.into_iter().map(node).collect(),
            flights: BTreeMap::new(),
            number: 0,
            cuts: BTreeSet::new(),
            loss: 0,
            random: seed | 1,
            disturbed_at: now,
            stretches: vec![Stretch::default(); members],
            longest_gap: Duration::ZERO,
        };
        (0..world.nodes.len()).for_each(|node| world.start(node));
        world
    }

    pub(super) fn members(&self) -> usize {
        self.stretches.len()
    }

    fn intervals(&self) -> impl Iterator<Item = Interval> {
        self.nodes.iter().map(|node| node.settings[0].interval)
    }

    pub(super) fn slowest(&self) -> Duration {
        self.intervals().max().unwrap().duration()
    }

    /// The longest way of an advert.
    pub(super) fn delay(&self) -> Duration {
        self.intervals().min().unwrap().duration() / 10
    }

    /// What the protocol allows: Active_Down_Interval of the lowest priority, and the way there.
    pub(super) fn bound(&self) -> Duration {
        let version = self.nodes[0].settings[0].version;
        let slowest = self.intervals().max().unwrap();
        timers::down(version, Priority(1), slowest) + self.delay()
    }

    /// xorshift64*, below a limit that is not 0.
    fn random(&mut self, limit: u64) -> u64 {
        self.random ^= self.random >> 12;
        self.random ^= self.random << 25;
        self.random ^= self.random >> 27;
        (self.random.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 32) % limit
    }

    // What happens.

    fn disturb(&mut self) {
        self.disturbed_at = self.disturbed_at.max(self.now);
    }

    pub(super) fn cut(&mut self, from: usize, to: usize, member: usize) {
        self.disturb();
        self.cuts.insert((from, to, member));
    }

    pub(super) fn heal(&mut self) {
        self.disturb();
        self.cuts.clear();
    }

    pub(super) fn lose(&mut self, percent: u64) {
        self.disturb();
        self.loss = percent;
    }

    pub(super) fn crash(&mut self, node: usize) {
        self.disturb();
        if let Some(node) = self.nodes.get_mut(node) {
            node.group = None;
        }
    }

    pub(super) fn stop(&mut self, node: usize) {
        let now = self.now;
        self.disturb();
        if let Some(Node {
            group: Some(group), ..
        }) = self.nodes.get_mut(node)
        {
            group.handle_shutdown(now);
            self.drain(node);
            self.nodes[node].group = None;
        }
    }

    pub(super) fn start(&mut self, node: usize) {
        let now = self.now;
        self.disturb();
        let Some(started) = self.nodes.get_mut(node) else {
            return;
        };
        if started.group.is_some() {
            return;
        }
        let settings = started.settings.iter().cloned();
        let mut group = Group::new(settings.map(|one| Machine::new(one).unwrap()).collect());
        for member in 0..started.settings.len() {
            group.update(member, now, |machine| {
                machine.handle_presence(Presence::Present, now);
            });
        }
        group.handle_startup(now);
        started.group = Some(group);
        self.drain(node);
    }

    pub(super) fn stall(&mut self, node: usize, time: Duration) {
        if let Some(node) = self.nodes.get_mut(node) {
            node.stalled_until = node.stalled_until.max(self.now + time);
            self.disturbed_at = self.disturbed_at.max(node.stalled_until);
        }
    }

    pub(super) fn with(
        &mut self,
        node: usize,
        member: usize,
        change: impl FnOnce(&mut Machine, Instant),
    ) {
        let now = self.now;
        self.disturb();
        if let Some(Node {
            group: Some(group), ..
        }) = self.nodes.get_mut(node)
        {
            group.update(member, now, |machine| change(machine, now));
            self.drain(node);
        }
    }

    pub(super) fn for_each_of(&mut self, node: usize, change: impl Fn(&mut Machine, Instant)) {
        (0..self.members()).for_each(|member| self.with(node, member, &change));
    }

    // How time passes.

    /// Lets time pass, from one event to the next.
    pub(super) fn run(&mut self, time: Duration) {
        let end = self.now + time;
        while let Some(at) = self.next_event().filter(|at| *at <= end) {
            self.advance(at);
            self.deliver();
            for node in 0..self.nodes.len() {
                if self.is_awake(node) {
                    self.wake(node);
                }
            }
        }
        self.advance(end);
    }

    fn is_awake(&self, node: usize) -> bool {
        self.nodes[node].stalled_until <= self.now
    }

    fn next_event(&self) -> Option<Instant> {
        let flights = self.flights.iter();
        let arrivals =
            flights.map(|((at, _), flight)| (*at).max(self.nodes[flight.to].stalled_until));
        let deadlines = self.nodes.iter().filter_map(|node| {
            let deadline = node.group.as_ref()?.next_deadline()?;
            Some(deadline.max(node.stalled_until))
        });
        let next = arrivals.chain(deadlines).min();
        next.map(|at| at.max(self.now))
    }

    /// What has arrived goes before what is due.
    fn deliver(&mut self) {
        let arrived: Vec<_> = self
            .flights
            .range(..=(self.now, u64::MAX))
            .filter(|(_, flight)| self.is_awake(flight.to))
            .map(|(key, _)| *key)
            .collect();
        for key in arrived {
            let Some(flight) = self.flights.remove(&key) else {
                continue;
            };
            let now = self.now;
            if let Some(group) = &mut self.nodes[flight.to].group {
                let heard =
                    group.handle_advert(flight.member, &flight.advert, &flight.envelope, now);
                assert!(heard.is_ok(), "{heard:?}");
                self.drain(flight.to);
            }
        }
    }

    fn wake(&mut self, node: usize) {
        let now = self.now;
        if let Some(group) = &mut self.nodes[node].group {
            group.handle_timeout(now);
            self.drain(node);
        }
    }

    /// Sends what a node has to send, and checks what must hold at any time.
    fn drain(&mut self, node: usize) {
        let now = self.now;
        loop {
            let Some(group) = &mut self.nodes[node].group else {
                return;
            };
            if let Some((member, addresses)) = group.poll_announce(now) {
                let role = group.machines().nth(member).unwrap().role();
                assert_eq!(role, Role::Active, "{addresses:?} are not ours");
                self.nodes[node].announcements += 1;
            } else if let Some((member, advert)) = group.poll_advert() {
                self.send(node, member, &advert);
            } else {
                break;
            }
        }
        self.watch();
    }

    fn send(&mut self, from_node: usize, member: usize, advert: &Advert) {
        let source = self.nodes[from_node].settings[member].source.to_string();
        for to in (0..self.nodes.len()).filter(|to| *to != from_node) {
            let is_cut = self.cuts.contains(&(from_node, to, member));
            if is_cut || self.random(100) < self.loss {
                continue;
            }
            let longest = u64::try_from(self.delay().as_micros()).unwrap();
            let delay = Duration::from_micros(self.random(longest) + 1);
            self.number += 1;
            let flight = Flight {
                to,
                member,
                envelope: from(&source),
                advert: advert.clone(),
            };
            self.flights.insert((self.now + delay, self.number), flight);
        }
    }

    // What is watched.

    fn advance(&mut self, to: Instant) {
        self.now = to;
        self.watch();
    }

    fn count(&self, member: usize, is_one: impl Fn(&Machine) -> bool) -> usize {
        let groups = self.nodes.iter().filter_map(|node| node.group.as_ref());
        let machines = groups.filter_map(|group| group.machines().nth(member));
        machines.filter(|machine| is_one(machine)).count()
    }

    /// While the network is whole, nothing wrong lasts.
    fn watch(&mut self) {
        let now = self.now;
        let is_whole = self.cuts.is_empty() && self.loss == 0;
        let bound = self.bound();
        for member in 0..self.members() {
            let actives = self.count(member, |machine| machine.role() == Role::Active);
            let free = self.count(member, |machine| machine.holds().next().is_none());
            let stretch = &mut self.stretches[member];
            if let Some(since) = stretch.none_since {
                self.longest_gap = self.longest_gap.max(now.duration_since(since));
            }
            note(&mut stretch.two_since, actives > 1, now);
            note(&mut stretch.none_since, actives == 0 && free > 0, now);
            let stretch = self.stretches[member];
            for (since, what) in [(stretch.two_since, "two"), (stretch.none_since, "none")] {
                let since = since.map(|since| since.max(self.disturbed_at));
                let lasts = since.map_or(Duration::ZERO, |since| now.duration_since(since));
                assert!(
                    !is_whole || lasts <= bound,
                    "{what} for {lasts:?} of {bound:?}"
                );
            }
        }
    }

    /// The one who should be Active is, all routers of a group on the same node.
    pub(super) fn check_settled(&self) {
        for member in 0..self.members() {
            let free = self.count(member, |machine| machine.holds().next().is_none());
            let actives = self.count(member, |machine| machine.role() == Role::Active);
            assert_eq!(actives, free.min(1), "of {free}");
        }
        let actives = self.actives();
        assert!(
            actives.iter().all(|nodes| *nodes == actives[0]),
            "{actives:?}"
        );
        for active in self.all().filter(|machine| machine.role() == Role::Active) {
            let rivals = self.all().filter(|rival| rival.holds().next().is_none());
            for rival in rivals {
                let preempts = rival.settings().preemption != Preemption::Never;
                assert!(!preempts || rival.priority() <= active.priority());
            }
        }
    }

    fn all(&self) -> impl Iterator<Item = &Machine> {
        let groups = self.nodes.iter().filter_map(|node| node.group.as_ref());
        groups.flat_map(Group::machines)
    }

    /// The nodes that are Active, for each virtual router.
    pub(super) fn actives(&self) -> Vec<Vec<usize>> {
        let is_active = |node: usize, member| {
            let group = self.nodes[node].group.as_ref();
            let machine = group.and_then(|group| group.machines().nth(member));
            machine.is_some_and(|machine| machine.role() == Role::Active)
        };
        let of = |member| (0..self.nodes.len()).filter(move |node| is_active(*node, member));
        (0..self.members())
            .map(|member| of(member).collect())
            .collect()
    }

    pub(super) fn announcements(&self, node: usize) -> u64 {
        self.nodes[node].announcements
    }

    pub(super) fn forget_announcements(&mut self) {
        self.nodes
            .iter_mut()
            .for_each(|node| node.announcements = 0);
    }

    /// The longest time that nobody was Active.
    pub(super) fn longest_gap(&self) -> Duration {
        self.longest_gap
    }

    pub(super) fn forget_gaps(&mut self) {
        self.longest_gap = Duration::ZERO;
    }
}

/// Notes when something began, or that it is over.
fn note(since: &mut Option<Instant>, is_so: bool, now: Instant) {
    *since = is_so.then(|| since.unwrap_or(now));
}
