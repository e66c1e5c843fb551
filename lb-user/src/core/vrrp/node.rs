//! All virtual routers of a node: which groups they make, what they need, what keeps them back.
//!
//! ```text
//!   Plan (the configuration)   \                        / Outgoing  adverts as bytes
//!   Links, Placed (the host)    >  Node = Unit ... Unit  - held()   addresses to have
//!   Forwarding (the balancer)  /     a Group each       \ Event     what is worth a log line
//! ```
//! Facts come in as levels and may come as often as they like. What a router lacks is a [`Fault`]:
//! while it has one it is held, and its group with it.

mod events;
mod faults;
mod leased;
mod macs;
mod router;
mod state;
mod trial;
mod unit;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::IpAddr;
use std::time::Instant;

use lb_common::abi::VirtualMac;

use self::leased::NOBODY;
use self::unit::Unit;
use super::advert::{Envelope, Family, Vrid};
use super::packet;
use super::refusal::{Refusal, Refusals};
use super::settings::Reach;
use super::track::TrackState;
use crate::config::model::{Config, Vrrp};

pub use self::events::Event;
pub use self::faults::{Fault, Handicap};
pub use self::leased::Leased;
pub use self::macs::Macs;
pub use self::state::{Report, RouterState};

/// The virtual routers that a node should have.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// The interface that carries the addresses.
    pub carrier: String,
    /// All addresses of services, with the lengths of their prefixes: no router speaks from one.
    pub vips: BTreeMap<IpAddr, u8>,
    /// Those of them that this host has had without a router until now.
    pub inherited: BTreeSet<IpAddr>,
    pub routers: Vec<Vrrp>,
}

/// An interface.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Link {
    pub is_up: bool,
    pub addresses: Vec<IpAddr>,
}

/// Interfaces by name.
pub type Links = BTreeMap<String, Link>;

/// What the balancer can do at the moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Forwarding {
    /// Whether the program is attached, and its maps hold what they should, or did a moment ago.
    pub is_ready: bool,
    /// Whether the other node may know of sessions that this one has not been told of.
    pub is_behind: bool,
    /// Addresses of services, and what these have to send packets to.
    pub backing: BTreeMap<IpAddr, Backing>,
    /// What routers depend on, by the names of both.
    pub tracked: BTreeMap<(String, String), TrackState>,
}

/// What services have to send packets to, from nothing to all that they need.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Backing {
    /// No backend takes new flows.
    Nobody,
    /// Those that do are held: nobody has answered this node for a while. It may be the one that is
    /// cut off, or they may all be dead.
    Silent,
    Sound,
}

/// What became of an address that should be in place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Placement {
    /// It is, and was put there so often: who took it away may have had others look elsewhere.
    Done(u64),
    /// It could not be put there.
    Refused,
}

/// Where adverts go out and come in.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Line {
    pub interface: String,
    pub source: IpAddr,
    pub reach: Reach,
}

/// Lines that should be open and are not.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Closed {
    /// Those that are being opened: who is Active goes on meanwhile, and nobody becomes it.
    pub opening: BTreeSet<Line>,
    /// Those that cannot be opened.
    pub broken: BTreeSet<Line>,
}

/// An advert on its way out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outgoing {
    pub line: Line,
    /// What it is sent from, if not the interface's own.
    pub mac: Option<VirtualMac>,
    pub to: IpAddr,
    pub message: Vec<u8>,
}

/// Nobody has that name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("there is no virtual router or group named {name}")]
pub struct UnknownRouter {
    pub name: String,
}

/// What was read on a line.
#[derive(Clone, Copy, Debug)]
pub struct Incoming<'a> {
    pub line: &'a Line,
    pub envelope: Envelope,
    pub payload: &'a [u8],
}

/// What is known of the host and the balancer.
#[derive(Clone, Debug, Default)]
struct Facts {
    plan: Plan,
    links: Links,
    closed: Closed,
    placed: BTreeMap<IpAddr, Placement>,
    forwarding: Forwarding,
}

/// The virtual routers of a node. See the module.
#[derive(Debug, Default)]
pub struct Node {
    facts: Facts,
    units: Vec<Unit>,
    /// What an earlier process has left to the first routers.
    leased: Leased,
    /// Addresses whose routers are no more, and that may still be on the interface.
    parting: BTreeSet<IpAddr>,
    /// Adverts that were nobody's, by interface.
    strays: BTreeMap<String, Refusals>,
    outgoing: VecDeque<Outgoing>,
    announcements: VecDeque<IpAddr>,
    events: VecDeque<Event>,
}

impl Plan {
    /// Those of a configuration.
    #[must_use]
    pub fn of(config: &Config) -> Self {
        let vips = config.vips().iter();
        Self {
            carrier: config.interface().to_owned(),
            vips: vips.map(|vip| (vip.address(), vip.prefix())).collect(),
            inherited: BTreeSet::new(),
            routers: config.vrrps().to_vec(),
        }
    }

    /// The addresses that a router may have, with the lengths of their prefixes.
    pub fn held_by_routers(&self) -> impl Iterator<Item = (IpAddr, u8)> {
        let vips = self.routers.iter().flat_map(Vrrp::vips);
        vips.filter_map(|vip| Some((*vip, *self.vips.get(vip)?)))
    }

    /// All interfaces that matter.
    pub fn interfaces(&self) -> impl Iterator<Item = &str> {
        let routers = self.routers.iter().map(Vrrp::interface);
        routers.chain([self.carrier.as_str()])
    }
}

/// What comes in.
impl Node {
    /// Makes the routers those of `plan`. Groups that stay as they were are not disturbed; a router
    /// that changes, be it its name, keeps its role, unless peers would take it for another. One whose
    /// addresses this host has held alone goes on holding them, as Active.
    pub fn handle_plan(&mut self, plan: Plan, now: Instant) {
        self.part();
        let mut old = std::mem::take(&mut self.units);
        let inherited = &plan.inherited - &self.parting;
        for routers in units(&plan.routers) {
            if let Some(at) = old.iter().position(|unit| unit.is_of(&routers)) {
                self.units.push(old.remove(at));
            } else {
                let unit = Unit::new(routers, &old, &self.leased, &inherited);
                self.units.push(unit);
            }
        }
        self.leased = Leased::default();
        let routers = plan.routers.iter();
        for vip in routers.flat_map(Vrrp::vips) {
            self.parting.remove(vip);
        }
        self.facts.plan = plan;
        self.refresh(now);
        for mut unit in old {
            let successors: BTreeSet<_> = self.units.iter().flat_map(Unit::actives).collect();
            let farewells = unit.retire(&successors, now);
            self.outgoing.extend(farewells);
            self.events.extend(unit.poll_events());
        }
    }

    /// Has the routers of the first plan go on with the roles that these tell of.
    pub fn handle_leased(&mut self, leased: Leased) {
        self.leased = leased;
    }

    /// Takes in how the interfaces are.
    pub fn handle_links(&mut self, links: Links, now: Instant) {
        self.facts.links = links;
        self.refresh(now);
    }

    /// Takes in what became of the addresses.
    pub fn handle_placed(&mut self, placed: BTreeMap<IpAddr, Placement>, now: Instant) {
        self.facts.placed = placed;
        self.refresh(now);
    }

    /// Takes in that addresses of routers that are no more are off the interface, but for those that
    /// may be left.
    pub fn handle_removed(&mut self, is_left: impl Fn(&IpAddr) -> bool) {
        self.parting.retain(is_left);
    }

    /// Takes in which of the lines are not open.
    pub fn handle_closed(&mut self, closed: Closed, now: Instant) {
        if closed != self.facts.closed {
            self.facts.closed = closed;
            self.refresh(now);
        }
    }

    /// Takes in what the balancer can do.
    pub fn handle_forwarding(&mut self, forwarding: Forwarding, now: Instant) {
        self.facts.forwarding = forwarding;
        self.refresh(now);
    }

    /// Takes in an advert.
    pub fn handle_advert(&mut self, incoming: &Incoming<'_>, now: Instant) {
        let Incoming {
            line,
            envelope,
            payload,
        } = incoming;
        let advert = match packet::decode(payload, envelope) {
            Ok(advert) => advert,
            Err(refusal) => return self.stray(incoming, refusal),
        };
        let family = Family::of(&envelope.source);
        let Some((unit, at)) = self.find(&line.interface, family, advert.vrid) else {
            return self.stray(incoming, Refusal::Vrid);
        };
        // Who speaks on another line hears it there too.
        if unit.line(at) == Some(line) {
            let event = unit.handle_advert(at, &advert, envelope, now);
            self.events.extend(event);
        }
    }

    /// Takes in that it is `now`. Adverts that have arrived by then go first.
    pub fn handle_timeout(&mut self, now: Instant) {
        for unit in &mut self.units {
            unit.handle_timeout(&self.facts, now);
        }
    }

    /// Has a router hand its role over, with its group, and keeps them from it.
    ///
    /// # Errors
    /// If there is none of that name.
    pub fn release(&mut self, name: &str, now: Instant) -> Result<(), UnknownRouter> {
        let at = self.named(name)?;
        let unit = self.units.get_mut(at);
        unit.into_iter().for_each(|unit| unit.release(now));
        Ok(())
    }

    /// Ends that, and has them try again what they could not do.
    ///
    /// # Errors
    /// If there is none of that name.
    pub fn resume(&mut self, name: &str, now: Instant) -> Result<(), UnknownRouter> {
        let at = self.named(name)?;
        let unit = self.units.get_mut(at);
        unit.into_iter()
            .for_each(|unit| unit.resume(&self.facts, now));
        Ok(())
    }

    /// Has all hand their roles over.
    pub fn release_all(&mut self, now: Instant) {
        for unit in &mut self.units {
            unit.release(now);
        }
    }

    /// Gives all roles up at once, for good.
    pub fn handle_shutdown(&mut self, now: Instant) {
        self.part();
        for mut unit in std::mem::take(&mut self.units) {
            self.outgoing.extend(unit.retire(&BTreeSet::new(), now));
            self.events.extend(unit.poll_events());
        }
        self.facts.plan.routers.clear();
    }
}

/// What comes out. After all that came in, [`Node::settle`] goes first.
impl Node {
    /// Has the routers do what there is to do by now.
    pub fn settle(&mut self, now: Instant) {
        for unit in &mut self.units {
            unit.poll(now, &mut self.outgoing, &mut self.announcements);
            self.events.extend(unit.poll_events());
        }
    }

    /// The next advert to send.
    pub fn poll_outgoing(&mut self) -> Option<Outgoing> {
        self.outgoing.pop_front()
    }

    /// The next address to announce.
    pub fn poll_announcement(&mut self) -> Option<IpAddr> {
        self.announcements.pop_front()
    }

    /// The next thing that is worth telling.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// When there is something to do at the latest.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Instant> {
        self.units.iter().filter_map(Unit::next_deadline).min()
    }

    /// The lines that should be open, those of adverts that have not gone yet among them.
    #[must_use]
    pub fn lines(&self) -> BTreeSet<Line> {
        let outgoing = self.outgoing.iter().map(|outgoing| &outgoing.line);
        let lines = self.units.iter().flat_map(Unit::lines);
        lines.chain(outgoing).cloned().collect()
    }

    /// The addresses that should be there.
    #[must_use]
    pub fn held(&self) -> BTreeSet<IpAddr> {
        self.units.iter().flat_map(Unit::held).collect()
    }

    /// Who goes on with each router's address after a kill, and until when no peer can have taken it over
    /// because of silence; `None` if it is not here, or must go. None of an owner's: its host has the
    /// address of its own, and answers for it whatever becomes of the daemon.
    #[must_use]
    pub fn leases(&self) -> BTreeMap<IpAddr, (u8, Option<Instant>)> {
        let parting = self.parting.iter().map(|vip| (*vip, (NOBODY, None)));
        let leases = self.units.iter().flat_map(Unit::leases);
        parting.chain(leases).collect()
    }

    /// Whether any router is Active.
    #[must_use]
    pub fn is_active(&self) -> bool {
        self.units
            .iter()
            .any(|unit| unit.actives().next().is_some())
    }

    /// How all of them are.
    #[must_use]
    pub fn report(&self, now: Instant) -> Report {
        Report {
            routers: self
                .units
                .iter()
                .flat_map(|unit| unit.states(now))
                .collect(),
            strays: self.strays.clone(),
        }
    }
}

impl Node {
    /// Has neighbours not be told of the addresses of today's routers, which may be no more, until they
    /// are off the interface: a peer may have them before.
    fn part(&mut self) {
        self.parting = self.leases().into_keys().collect();
    }

    /// Has everybody know the facts.
    fn refresh(&mut self, now: Instant) {
        for unit in &mut self.units {
            unit.refresh(&self.facts, now);
            self.events.extend(unit.poll_events());
        }
    }

    /// Counts an advert that is nobody's, once for each interface and family.
    fn stray(&mut self, incoming: &Incoming<'_>, refusal: Refusal) {
        let Incoming { line, envelope, .. } = incoming;
        let mut lines = self.units.iter().flat_map(Unit::lines);
        let is_same = |other: &&Line| {
            other.interface == line.interface && other.source.is_ipv4() == line.source.is_ipv4()
        };
        if lines.by_ref().filter(is_same).min() != Some(line) {
            return;
        }
        let refusals = self.strays.entry(line.interface.clone()).or_default();
        refusals.count(refusal);
        self.events.push_back(Event::Stray {
            interface: line.interface.clone(),
            source: envelope.source,
            refusal,
        });
    }

    fn find(&mut self, interface: &str, family: Family, vrid: Vrid) -> Option<(&mut Unit, usize)> {
        self.units.iter_mut().find_map(|unit| {
            let at = unit.position(interface, family, vrid)?;
            Some((unit, at))
        })
    }

    fn named(&self, name: &str) -> Result<usize, UnknownRouter> {
        let by_router = self.units.iter().position(|unit| unit.has_router(name));
        let by_group = || {
            self.units
                .iter()
                .position(|unit| unit.group() == Some(name))
        };
        by_router.or_else(by_group).ok_or_else(|| UnknownRouter {
            name: name.to_owned(),
        })
    }
}

/// The routers that move together, in the order of the first of each.
fn units(routers: &[Vrrp]) -> Vec<Vec<Vrrp>> {
    let mut units: Vec<Vec<Vrrp>> = Vec::new();
    for router in routers {
        let is_of_group = |unit: &&mut Vec<Vrrp>| {
            let mut others = unit.iter();
            router.group().is_some() && others.any(|other| other.group() == router.group())
        };
        match units.iter_mut().find(is_of_group) {
            Some(unit) => unit.push(router.clone()),
            None => units.push(vec![router.clone()]),
        }
    }
    units
}

#[cfg(test)]
mod tests;
