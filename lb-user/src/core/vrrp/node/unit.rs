//! One group of routers, from its configuration to its machines.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::IpAddr;
use std::time::{Duration, Instant};

use super::faults::{cost, faults, handicaps, has_source, lower, source, tracked};
use super::leased::NOBODY;
use super::router::{Identity, Router, identity};
use super::trial::{Outcome, Trial};
use super::{Backing, Event, Facts, Leased, Line, Outgoing, Placement, RouterState};
use crate::config::model::Vrrp;
use crate::core::vrrp::advert::{Advert, Envelope, Family, Priority, Vrid};
use crate::core::vrrp::announce::Presence;
use crate::core::vrrp::group::Group;
use crate::core::vrrp::machine::Machine;
use crate::core::vrrp::packet;
use crate::core::vrrp::role::{Hold, Role};
use crate::core::vrrp::settings::{Reach, Settings};

/// Routers that move together.
#[derive(Debug)]
pub(super) struct Unit {
    routers: Vec<Router>,
    /// `None` until all of them know the address that they speak from.
    group: Option<Group>,
    /// Whether an operator has released it.
    is_released: bool,
    events: Vec<Event>,
}

impl Unit {
    /// Of these, some of which may take the places of others, or of nobody.
    pub(super) fn new(
        vrrps: Vec<Vrrp>,
        old: &[Self],
        leased: &Leased,
        inherited: &BTreeSet<IpAddr>,
    ) -> Self {
        let mut is_released = false;
        let routers = vrrps.into_iter().map(|vrrp| {
            let mut router = Router {
                leased_until: leased.until(&vrrp),
                vrrp,
                line: None,
                faults: BTreeSet::new(),
                handicaps: BTreeSet::new(),
                lowered: None,
                tracked: Vec::new(),
                unfit: None,
                placed: None,
                trial: Trial::new(),
                last: None,
                changes: BTreeMap::new(),
                was_active: false,
                has_started: false,
            };
            let Some((unit, at)) = predecessor(old, &router.vrrp) else {
                let mut vips = router.vrrp.vips().iter();
                router.was_active = vips.all(|vip| inherited.contains(vip));
                return router;
            };
            is_released |= unit.is_released;
            if let Some(before) = unit.routers.get(at) {
                router.last = before.last;
                router.changes.clone_from(&before.changes);
                router.has_started = before.has_started;
            }
            let before = unit.machine(at);
            router.was_active = before.is_some_and(Machine::is_standing);
            router.has_started |= before.is_some_and(|machine| machine.role() != Role::Initialize);
            router
        });
        Self {
            routers: routers.collect(),
            group: None,
            is_released,
            events: Vec::new(),
        }
    }

    /// Whether it is the unit of these.
    pub(super) fn is_of(&self, vrrps: &[Vrrp]) -> bool {
        self.routers.iter().map(|router| &router.vrrp).eq(vrrps)
    }

    pub(super) fn has_router(&self, name: &str) -> bool {
        let mut routers = self.routers.iter();
        routers.any(|router| router.vrrp.name() == name)
    }

    pub(super) fn group(&self) -> Option<&str> {
        self.routers.first().and_then(|router| router.vrrp.group())
    }

    pub(super) fn position(&self, interface: &str, family: Family, vrid: Vrid) -> Option<usize> {
        let mut routers = self.routers.iter();
        routers.position(|router| router.identity() == (interface, Some(family), vrid))
    }

    pub(super) fn line(&self, at: usize) -> Option<&Line> {
        self.routers.get(at)?.line.as_ref()
    }

    pub(super) fn lines(&self) -> impl Iterator<Item = &Line> {
        self.routers
            .iter()
            .filter_map(|router| router.line.as_ref())
    }

    /// Those that are Active.
    pub(super) fn actives(&self) -> impl Iterator<Item = Identity<'_>> {
        let members = self.members();
        let actives = members.filter(|(_, machine)| machine.role() == Role::Active);
        actives.map(|(router, _)| router.identity())
    }

    /// All routers, and whether they are Active.
    pub(super) fn roles(&self) -> impl Iterator<Item = (&Vrrp, bool)> {
        let routers = self.routers.iter().enumerate();
        routers.map(|(at, router)| {
            let machine = self.machine(at);
            let is_active = machine.is_some_and(|machine| machine.role() == Role::Active);
            (&router.vrrp, is_active)
        })
    }

    /// The addresses that should be there.
    pub(super) fn held(&self) -> impl Iterator<Item = IpAddr> {
        let members = self.members();
        let holders = members.filter(|(_, machine)| machine.accepts());
        holders.flat_map(|(router, _)| router.vrrp.vips().iter().copied())
    }

    /// Who goes on with each address, and the end of its lease if it has one. Who has said that it goes has
    /// a successor as soon as any peer likes.
    pub(super) fn leases(&self) -> impl Iterator<Item = (IpAddr, (u8, Option<Instant>))> {
        let routers = self.routers.iter().enumerate();
        let routers = routers.filter(|(_, it)| it.vrrp.priority().get() != Priority::OWNER.0);
        routers.flat_map(|(at, router)| {
            let machine = self.machine(at);
            let is_leaving = machine.is_some_and(Machine::is_leaving);
            let vrid = router.vrrp.vrid().get();
            let heir = if is_leaving { NOBODY } else { vrid };
            let lease = (heir, machine.and_then(Machine::lease));
            router.vrrp.vips().iter().map(move |vip| (*vip, lease))
        })
    }

    pub(super) fn next_deadline(&self) -> Option<Instant> {
        let trials = self.routers.iter().map(|router| router.trial.deadline());
        let group = self.group.as_ref().and_then(Group::next_deadline);
        trials.chain([group]).flatten().min()
    }

    pub(super) fn states(&self, now: Instant) -> impl Iterator<Item = RouterState> {
        let routers = self.routers.iter().enumerate();
        routers.map(move |(at, router)| RouterState::of(router, self.machine(at), now))
    }

    pub(super) fn handle_advert(
        &mut self,
        at: usize,
        advert: &Advert,
        envelope: &Envelope,
        now: Instant,
    ) -> Option<Event> {
        let outcome = self
            .group
            .as_mut()?
            .handle_advert(at, advert, envelope, now);
        let router = self.routers.get(at)?.vrrp.name().to_owned();
        let source = envelope.source;
        match outcome {
            Ok(None) => None,
            Ok(Some(remark)) => Some(Event::Remarked {
                router,
                source,
                remark,
            }),
            Err(refusal) => Some(Event::Refused {
                router,
                source,
                refusal,
            }),
        }
    }

    pub(super) fn handle_timeout(&mut self, facts: &Facts, now: Instant) {
        if let Some(group) = &mut self.group {
            group.handle_timeout(now);
        }
        let mut trials = self.routers.iter().filter_map(|r| r.trial.deadline());
        if trials.any(|deadline| deadline <= now) {
            self.refresh(facts, now);
        }
    }

    pub(super) fn release(&mut self, now: Instant) {
        self.is_released = true;
        self.each(|group, at| {
            group.update(at, now, |machine| machine.release(Hold::Operator, now));
        });
    }

    pub(super) fn resume(&mut self, facts: &Facts, now: Instant) {
        self.is_released = false;
        self.each(|group, at| {
            group.update(at, now, |machine| machine.resume(Hold::Operator, now));
        });
        for router in &mut self.routers {
            router.trial = Trial::new();
        }
        self.refresh(facts, now);
    }

    /// Stops, and says goodbye for those that nobody takes the place of.
    pub(super) fn retire(
        &mut self,
        successors: &BTreeSet<Identity<'_>>,
        now: Instant,
    ) -> VecDeque<Outgoing> {
        let mut outgoing = VecDeque::new();
        if let Some(group) = &mut self.group {
            group.handle_shutdown(now);
        }
        self.note_changes(now);
        self.poll_adverts(|it| !successors.contains(&it), &mut outgoing);
        outgoing
    }

    /// Takes in what is known of the host and the balancer.
    pub(super) fn refresh(&mut self, facts: &Facts, now: Instant) {
        let sources: Vec<Option<IpAddr>> = self
            .routers
            .iter()
            .map(|router| source(&router.vrrp, facts))
            .collect();
        let is_stale = self.lines().any(|line| !has_source(line, facts));
        if is_stale {
            // The old machines give their roles up before new ones take their places.
            for at in 0..self.routers.len() {
                self.refresh_router(at, None, facts, now);
            }
            self.note_changes(now);
        }
        if (self.group.is_none() || is_stale)
            && let Some(sources) = sources.iter().copied().collect::<Option<Vec<_>>>()
        {
            self.build(&sources, facts, now);
        }
        for at in 0..self.routers.len() {
            let source = sources.get(at).copied().flatten();
            self.refresh_router(at, source, facts, now);
        }
    }

    /// Makes the machines that speak from these addresses, and starts them.
    fn build(&mut self, sources: &[IpAddr], facts: &Facts, now: Instant) {
        let before = self.group.take();
        let before = before.iter().flat_map(Group::machines);
        for (router, machine) in self.routers.iter_mut().zip(before) {
            router.has_started |= machine.role() != Role::Initialize;
        }
        let mut machines = Vec::new();
        for (router, source) in self.routers.iter_mut().zip(sources) {
            (router.line, router.placed) = (None, None);
            let settings = Settings::of(&router.vrrp, *source).map(|settings| Settings {
                startup_delay: if router.has_started {
                    Duration::ZERO
                } else {
                    settings.startup_delay
                },
                ..settings
            });
            let machine = settings.and_then(Machine::new);
            let unfit = machine.as_ref().err().copied();
            machines.extend(machine);
            if let Some(unfit) = unfit.filter(|unfit| router.unfit != Some(*unfit)) {
                let router = router.vrrp.name().to_owned();
                self.events.push(Event::Unfit { router, unfit });
            }
            router.unfit = unfit;
        }
        if machines.len() < self.routers.len() {
            return;
        }
        for (router, source) in self.routers.iter_mut().zip(sources) {
            router.line = Some(Line {
                interface: router.vrrp.interface().to_owned(),
                source: *source,
                reach: match router.vrrp.peers() {
                    [] => Reach::Multicast,
                    _ => Reach::Unicast,
                },
            });
        }
        self.group = Some(Group::new(machines));
        if self.is_released {
            self.release(now);
        }
        for (at, source) in sources.iter().enumerate() {
            self.refresh_router(at, Some(*source), facts, now);
        }
        let adopted: Vec<bool> = self
            .routers
            .iter()
            .map(|router| router.was_active || router.leased_until.is_some_and(|until| until > now))
            .collect();
        self.each(|group, at| {
            if adopted.get(at) == Some(&true) {
                group.update(at, now, |machine| machine.adopt(now));
            }
        });
        if let Some(group) = &mut self.group {
            group.handle_startup(now);
        }
        for router in &mut self.routers {
            (router.was_active, router.leased_until) = (false, None);
        }
    }

    /// Has one router know what it lacks, and where its addresses are.
    fn refresh_router(&mut self, at: usize, source: Option<IpAddr>, facts: &Facts, now: Instant) {
        let backing = self.backing(facts);
        let costs = self.routers.iter().map(|router| cost(&router.vrrp, facts));
        let cost = costs.sum();
        let machine = self.machine(at);
        let is_active = machine.is_some_and(|machine| machine.role() == Role::Active);
        let is_wanted = machine.is_some_and(Machine::accepts);
        let Some(router) = self.routers.get_mut(at) else {
            return;
        };
        let placements = router.vrrp.vips().iter().map(|vip| facts.placed.get(vip));
        let placed: Option<u64> = placements.clone().map(times).sum();
        let is_refused = placements.flatten().any(|it| *it == Placement::Refused);
        let outcome = match placed {
            _ if !is_wanted => Outcome::Open,
            _ if is_refused => Outcome::Refused,
            Some(_) => Outcome::Placed,
            None => Outcome::Open,
        };
        router.trial.note(outcome, now);
        let faults = faults(router, source, backing, is_active, facts);
        let is_held = !faults.is_empty();
        if faults != router.faults {
            router.faults.clone_from(&faults);
            let router = router.vrrp.name().to_owned();
            self.events.push(Event::Faults { router, faults });
        }
        let states = tracked(&router.vrrp, facts);
        let states = states.map(|(track, state)| (track.name().to_owned(), state));
        let states: Vec<_> = states.collect();
        router.tracked = states;
        let handicaps = handicaps(&router.vrrp, backing, cost);
        let configured = Priority(router.vrrp.priority().get());
        let lowered = (!handicaps.is_empty()).then(|| lower(configured, cost, &handicaps));
        let priority = lowered.unwrap_or(configured);
        let before = std::mem::replace(&mut router.lowered, lowered);
        if std::mem::replace(&mut router.handicaps, handicaps.clone()) != handicaps
            || before != lowered
        {
            let router = router.vrrp.name().to_owned();
            self.events.push(Event::Handicap {
                router,
                handicaps,
                priority,
            });
        }
        let Some(group) = &mut self.group else {
            return;
        };
        let is_news = std::mem::replace(&mut router.placed, placed) != placed;
        group.update(at, now, |machine| {
            machine.set_priority(priority);
            machine.set_behind(facts.forwarding.is_behind);
            if is_held && !machine.holds().any(|hold| hold == Hold::Fault) {
                machine.release(Hold::Fault, now);
            } else if !is_held {
                machine.resume(Hold::Fault, now);
            }
            if is_news {
                machine.handle_presence(Presence::Absent, now);
            }
            if is_news && placed.is_some() {
                machine.handle_presence(Presence::Present, now);
            }
        });
    }

    /// The best that any service of the unit's addresses has; without services nothing is needed.
    fn backing(&self, facts: &Facts) -> Backing {
        let vips = self.routers.iter().flat_map(|router| router.vrrp.vips());
        let backing = vips.filter_map(|vip| facts.forwarding.backing.get(vip).copied());
        backing.max().unwrap_or(Backing::Sound)
    }

    /// Takes what there is to do by now out of the machines.
    pub(super) fn poll(
        &mut self,
        now: Instant,
        outgoing: &mut VecDeque<Outgoing>,
        announcements: &mut VecDeque<IpAddr>,
    ) {
        self.note_changes(now);
        self.poll_adverts(|_| true, outgoing);
        let group = self.group.as_mut();
        let rounds = group.map(|group| std::iter::from_fn(move || group.poll_announce(now)));
        for (_, addresses) in rounds.into_iter().flatten() {
            announcements.extend(addresses.iter());
        }
    }

    fn note_changes(&mut self, now: Instant) {
        while let Some((at, change)) = self.group.as_mut().and_then(Group::poll_change) {
            let priority = self.machine(at).map(Machine::priority);
            let Some(router) = self.routers.get_mut(at) else {
                continue;
            };
            router.last = Some((change, now));
            *router.changes.entry(change.to).or_default() += 1;
            let priority = priority.unwrap_or(Priority(router.vrrp.priority().get()));
            let router = router.vrrp.name().to_owned();
            self.events.push(Event::Changed {
                router,
                change,
                priority,
            });
        }
    }

    /// Takes out the adverts, and drops those of routers that are not `wanted`.
    fn poll_adverts(
        &mut self,
        wanted: impl Fn(Identity<'_>) -> bool,
        outgoing: &mut VecDeque<Outgoing>,
    ) {
        while let Some((at, advert)) = self.group.as_mut().and_then(Group::poll_advert) {
            let (router, machine) = (self.routers.get(at), self.machine(at));
            let router = router.filter(|router| wanted(router.identity()));
            let line = router.and_then(|router| router.line.as_ref());
            let (Some(line), Some(machine)) = (line, machine) else {
                continue;
            };
            let settings = machine.settings();
            let mac = router.and_then(|router| router.vrrp.virtual_mac());
            outgoing.extend(settings.envelopes().map(|envelope| {
                let mut message = Vec::new();
                packet::encode(&advert, &envelope, settings.dialect, &mut message);
                Outgoing {
                    line: line.clone(),
                    mac,
                    to: envelope.destination,
                    message,
                }
            }));
        }
    }

    pub(super) fn poll_events(&mut self) -> Vec<Event> {
        std::mem::take(&mut self.events)
    }

    fn machine(&self, at: usize) -> Option<&Machine> {
        self.group.as_ref()?.machines().nth(at)
    }

    fn members(&self) -> impl Iterator<Item = (&Router, &Machine)> {
        let machines = self.group.iter().flat_map(Group::machines);
        self.routers.iter().zip(machines)
    }

    fn each(&mut self, mut change: impl FnMut(&mut Group, usize)) {
        if let Some(group) = &mut self.group {
            for at in 0..self.routers.len() {
                change(group, at);
            }
        }
    }
}

/// How often an address was put in place; `None` if it is not there.
fn times(placement: Option<&Placement>) -> Option<u64> {
    match placement? {
        Placement::Done(times) => Some(*times),
        Placement::Refused => None,
    }
}

/// The router that was advertised as this one is to be, under whatever name.
fn predecessor<'a>(old: &'a [Unit], vrrp: &Vrrp) -> Option<(&'a Unit, usize)> {
    old.iter().find_map(|unit| {
        let mut routers = unit.routers.iter();
        let at = routers.position(|router| router.identity() == identity(vrrp))?;
        Some((unit, at))
    })
}
