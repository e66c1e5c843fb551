//! Back to safe slots: what the flow tables say of slots that are not.
//!
//! The daemon walks the flow tables over and over. What a walk finds, [`Findings`], says which slots
//! may become mixed or safe; [`settle`] makes the next image of it.

use std::collections::BTreeMap;
use std::sync::Arc;

use lb_common::abi::{BackendId, ServiceKey, Tick};

use crate::core::image::{MapImage, ServiceImage, Table};
use crate::core::load::Census;
use crate::core::plan::Moment;
use crate::core::slots::{Holds, State};

/// A set of slots of one service: a bit each.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SlotSet(Vec<u64>);

impl SlotSet {
    /// Takes a slot in.
    pub fn insert(&mut self, slot: u32) {
        let word = slot as usize / 64;
        if self.0.len() <= word {
            self.0.resize(word + 1, 0);
        }
        self.0[word] |= 1 << (slot % 64);
    }

    /// Whether a slot is in it.
    #[must_use]
    pub fn contains(&self, slot: u32) -> bool {
        let word = self.0.get(slot as usize / 64).copied().unwrap_or(0);
        word >> (slot % 64) & 1 == 1
    }
}

/// What a walk over the flow tables has found.
#[derive(Clone, Debug)]
pub struct Findings {
    /// What was in force when the walk began: its slots say which records matter.
    pub image: Arc<MapImage>,
    /// When it began.
    pub started: Tick,
    /// Whether it has seen every record that was there from its begin to its end.
    pub complete: bool,
    /// Whether the tables have room again, or had no need of it.
    pub has_room: bool,
    /// By service, the slots with records of flows of other backends than their owners.
    pub strays: BTreeMap<ServiceKey, SlotSet>,
    /// How many flows are recorded for each backend: by id and epoch.
    pub sessions: BTreeMap<(BackendId, u16), Sessions>,
    /// Of the backends whose flows the program counts: how far that can be trusted.
    pub loads: BTreeMap<(BackendId, u16), Census>,
}

impl Findings {
    /// Whether the walk has seen everything, by the table that is in force for a service now.
    #[must_use]
    pub fn is_current(&self, key: &ServiceKey, service: &ServiceImage) -> bool {
        self.complete
            && self.image.services.get(key).is_some_and(|walked| {
                walked.id == service.id && Arc::ptr_eq(&walked.table, &service.table)
            })
    }
}

/// How many flows are recorded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sessions {
    /// Those that have sent data and have not closed.
    pub live: u64,
    /// Those of which only SYNs were seen.
    pub begun: u64,
}

/// The image that follows `image` when nothing else is wanted than before.
///
/// Slots whose learning window is over become mixed, unless there is no room to record flows. Mixed slots without stray records become safe: a few at a time are not worth writing a table.
/// Services that this node stands by for stay as they are.
#[must_use]
pub fn settle(image: &MapImage, findings: &Findings, moment: Moment) -> MapImage {
    let mut settled = image.clone();
    let services = settled.services.iter_mut();
    for (key, service) in services.filter(|(_, service)| !service.is_standby) {
        let strays = strays(key, service, findings);
        let has_learned = |until: Tick| moment.has_room && moment.now >= until;
        let holds = settle_slots(&service.table.holds, has_learned, strays);
        if holds == service.table.holds {
            continue;
        }
        let holds = if service.records_all() {
            holds.without_mixed()
        } else {
            holds
        };
        service.generation ^= 1;
        service.table = Arc::new(with_holds(&service.table, holds));
    }
    settled
}

/// The image that follows `image` when there is room for flows again.
///
/// Flows that could not be recorded meanwhile may be anybody's, so learning windows begin once more.
/// The maps are told, not this process alone: another one may have to go on with them.
#[must_use]
pub fn begin_windows(image: &MapImage, now: Tick) -> MapImage {
    let mut begun = image.clone();
    let services = begun.services.values_mut();
    for service in services.filter(|service| !service.is_standby) {
        let end = now.after(service.window);
        let holds = service.table.holds.beginning(end);
        if holds != service.table.holds {
            service.generation ^= 1;
            service.table = Arc::new(with_holds(&service.table, holds));
        }
    }
    begun
}

/// The stray records of a service, if the walk went by the table that is in force.
fn strays<'a>(
    key: &ServiceKey,
    service: &ServiceImage,
    findings: &'a Findings,
) -> Option<&'a SlotSet> {
    static NONE: SlotSet = SlotSet(Vec::new());
    let is_current = findings.is_current(key, service);
    is_current.then(|| findings.strays.get(key).unwrap_or(&NONE))
}

fn with_holds(table: &Table, holds: Holds) -> Table {
    let nobody_left = holds.is_empty() && table.ring.is_empty();
    Table {
        slots: if nobody_left {
            Vec::new()
        } else {
            table.slots.clone()
        },
        holds,
        ..table.clone()
    }
}

/// The states that follow; `strays`, if known, are the slots with records of others' flows.
#[must_use]
pub fn settle_slots(
    holds: &Holds,
    has_learned: impl Fn(Tick) -> bool,
    strays: Option<&SlotSet>,
) -> Holds {
    /// Of all mixed slots, the share that is worth a table: one in so many.
    const WORTH: usize = 16;
    let is_clean =
        |slot, state| state == State::Mixed && strays.is_some_and(|strays| !strays.contains(slot));
    let clean = holds.iter().filter(|&(slot, state)| is_clean(slot, state));
    let worth_it = clean.count() * WORTH >= holds.count().0;
    holds.map(|slot, state| match state {
        State::AtRisk { until, .. } if has_learned(until) => State::Mixed,
        State::Mixed if worth_it && is_clean(slot, state) => State::Safe,
        State::Safe | State::Mixed | State::AtRisk { .. } => state,
    })
}

#[cfg(test)]
mod tests;
