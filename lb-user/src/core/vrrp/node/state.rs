//! How routers are, for those who show it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::{Duration, Instant};

use super::router::Router;
use super::{Fault, Handicap};
use crate::config::model::Vrrp;
use crate::core::vrrp::advert::Priority;
use crate::core::vrrp::machine::Machine;
use crate::core::vrrp::refusal::Refusals;
use crate::core::vrrp::role::{Change, Counters, Hold, Role};
use crate::core::vrrp::track::TrackState;

/// All of them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    pub routers: Vec<RouterState>,
    /// Adverts that were nobody's, by interface.
    pub strays: BTreeMap<String, Refusals>,
}

/// One router.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RouterState {
    pub vrrp: Vrrp,
    pub role: Role,
    /// Whether it is Active, and waits for its successor.
    pub is_leaving: bool,
    /// The effective priority.
    pub priority: Priority,
    /// The address that it speaks from.
    pub source: Option<IpAddr>,
    /// Who is Active, if another is.
    pub active: Option<(IpAddr, Priority)>,
    pub holds: Vec<Hold>,
    pub faults: BTreeSet<Fault>,
    /// Why its priority is lower than configured, if it is.
    pub handicaps: BTreeSet<Handicap>,
    /// What is known of each thing that it depends on, by name.
    pub tracked: Vec<(String, TrackState)>,
    /// Whether it leaves an Active of lower priority alone until it knows of its sessions.
    pub awaits_sync: bool,
    /// The last change of role, and how long ago it was.
    pub last: Option<(Change, Duration)>,
    /// How often it came to each role.
    pub changes: BTreeMap<Role, u64>,
    pub counters: Counters,
}

impl RouterState {
    /// Of a router, with its machine if it has one.
    pub(super) fn of(router: &Router, machine: Option<&Machine>, now: Instant) -> Self {
        let Router {
            vrrp,
            line: _,
            faults,
            handicaps,
            lowered: _,
            tracked,
            unfit: _,
            placed: _,
            trial: _,
            last,
            changes,
            was_active: _,
            leased_until: _,
            has_started: _,
        } = router;
        let configured = Priority(vrrp.priority().get());
        let active = machine.and_then(Machine::active);
        Self {
            role: machine.map_or(Role::Initialize, Machine::role),
            is_leaving: machine.is_some_and(Machine::is_leaving),
            priority: machine.map_or(configured, Machine::priority),
            source: machine.map(|machine| machine.settings().source),
            active: active.map(|peer| (peer.address, peer.priority)),
            holds: machine.into_iter().flat_map(Machine::holds).collect(),
            faults: faults.clone(),
            handicaps: handicaps.clone(),
            tracked: tracked.clone(),
            awaits_sync: machine.is_some_and(Machine::awaits_sync),
            last: last.map(|(change, at)| (change, now.duration_since(at))),
            changes: changes.clone(),
            counters: machine.map(|m| m.counters().clone()).unwrap_or_default(),
            vrrp: vrrp.clone(),
        }
    }
}
