//! One virtual router, and what is known of it besides its machine.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use super::Line;
use super::faults::{Fault, Handicap, family_of};
use super::trial::Trial;
use crate::config::model::Vrrp;
use crate::core::vrrp::advert::{Family, Priority, Vrid};
use crate::core::vrrp::role::{Change, Role};
use crate::core::vrrp::settings::Unfit;
use crate::core::vrrp::track::TrackState;

/// One router of a unit.
#[derive(Debug)]
pub(super) struct Router {
    pub(super) vrrp: Vrrp,
    pub(super) line: Option<Line>,
    pub(super) faults: BTreeSet<Fault>,
    pub(super) handicaps: BTreeSet<Handicap>,
    /// The priority that is left with these.
    pub(super) lowered: Option<Priority>,
    /// What it depends on, by name.
    pub(super) tracked: Vec<(String, TrackState)>,
    pub(super) unfit: Option<Unfit>,
    /// How often its addresses were put in place, as its machine knows it; `None`: they are not.
    pub(super) placed: Option<u64>,
    pub(super) trial: Trial,
    pub(super) last: Option<(Change, Instant)>,
    pub(super) changes: BTreeMap<Role, u64>,
    /// Whether its machine takes the place of one that was Active.
    pub(super) was_active: bool,
    /// Until when it is Active because an earlier process said so.
    pub(super) leased_until: Option<Instant>,
    /// Whether a machine of it has started: another one does not wait for that again.
    pub(super) has_started: bool,
}

/// What routers are told apart by where they are heard: interface, family and number.
pub(super) type Identity<'a> = (&'a str, Option<Family>, Vrid);

impl Router {
    pub(super) fn identity(&self) -> Identity<'_> {
        identity(&self.vrrp)
    }
}

pub(super) fn identity(vrrp: &Vrrp) -> Identity<'_> {
    (vrrp.interface(), family_of(vrrp), Vrid::from(vrrp.vrid()))
}
