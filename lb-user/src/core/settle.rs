//! Back to safe slots: what the flow tables say of slots that are not.
//!
//! The daemon walks the flow tables over and over. What a walk finds, [`Findings`], says which slots
//! may become mixed or safe; [`settle`] makes the next image of it.

use std::collections::BTreeMap;
use std::sync::Arc;

use lb_common::abi::{BackendId, ServiceId, ServiceKey, Tick};

use crate::core::image::{BackendImage, MapImage, ServiceImage, Table};
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
    /// Whether the walk has found all flows of a backend, and none can have come after it.
    #[must_use]
    pub fn has_all(&self, key: &ServiceKey, service: &ServiceImage, id: BackendId) -> bool {
        let table = &service.table;
        let gets_more = table.slots.contains(&id) || table.ring.contains(&id);
        !gets_more && !table.holds.has_previous(id) && self.is_current(key, service)
    }

    /// Whether no flow could be taken back to a backend that has this epoch, for as long as the walk
    /// took: see [`settle`].
    #[must_use]
    pub fn was_emptied(&self, id: BackendId, epoch: u16) -> bool {
        let backend = self.image.backends.get(&id);
        backend.is_some_and(|backend| backend.emptied && backend.epoch == epoch)
    }

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
/// Slots of services that this node stands by for stay as they are.
///
/// A backend that gets no new flows and of which no session was found is emptied. Until then a client
/// that connects again from the port of a connection that seems to be closed meets the backend of that
/// one, which alone knows whether it is. So a session may begin behind a walk's back, and only what
/// the next one finds is all that there is.
#[must_use]
pub fn settle(image: &MapImage, findings: &Findings, moment: Moment) -> MapImage {
    let mut settled = image.clone();
    for id in emptied(image, findings, moment) {
        settled
            .backends
            .entry(id)
            .and_modify(|backend| backend.emptied = true);
    }
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

/// The backends that get no new flows and have no session left.
fn emptied(
    image: &MapImage,
    findings: &Findings,
    moment: Moment,
) -> impl Iterator<Item = BackendId> {
    let services: BTreeMap<ServiceId, (&ServiceKey, &ServiceImage)> = image
        .services
        .iter()
        .map(|(key, service)| (service.id, (key, service)))
        .collect();
    let drains = |backend: &BackendImage| backend.weight == 0 && !backend.emptied;
    let candidates = image.backends.iter();
    candidates
        .filter(move |(_, backend)| moment.has_room && drains(backend))
        .filter_map(move |(&id, backend)| {
            let (key, service) = services.get(&backend.service)?;
            let left = findings.sessions.get(&(id, backend.epoch))?;
            let is_empty = left.live + left.begun == 0;
            (is_empty && findings.has_all(key, service, id)).then_some(id)
        })
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
