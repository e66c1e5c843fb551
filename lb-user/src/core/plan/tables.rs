//! From one table of a service to the next.

use std::collections::{BTreeMap, BTreeSet};

use lb_common::abi::{BackendId, Forward, RING_PROBES};

use crate::core::image::{ServiceImage, Table, records_all};
use crate::core::maglev::{self, Lender, Member};
use crate::core::plan::{DesiredService, Takers};
use crate::core::ring;
use crate::core::slots::{self, Holds, Slots, State, Terms};

/// The table that follows the one that is there, or that the peer has, if it is another.
pub(super) fn follow(
    (previous, inherited): (Option<&ServiceImage>, Option<(Vec<BackendId>, Holds)>),
    service: &DesiredService,
    Takers { members, full }: &Takers,
    terms: &Terms<impl Fn(BackendId) -> bool>,
) -> Option<Table> {
    let none = Table::default();
    let old = previous.map_or(&none, |previous| &previous.table);
    let weights: BTreeMap<BackendId, u16> = members
        .iter()
        .map(|member| (member.id, member.weight))
        .collect();
    let lenders: BTreeSet<Lender> = service.lenders.iter().copied().collect();
    let has_same_owners = !old.deferred && old.weights == weights && old.lenders == lenders;
    let is_inherited = inherited.is_some();
    let own = || (old.slots.clone(), holds(previous, service));
    let (owners, holds) = inherited.unwrap_or_else(own);
    let was_standby = previous.is_some_and(|previous| previous.is_standby);
    let holds = if service.is_standby || was_standby {
        holds.ending(terms.until)
    } else {
        holds
    };
    let left_out = left_out(members, full);
    let is_same = has_same_owners && !is_inherited && holds == old.holds;
    let is_same = is_same && left_out == old.left_out;
    if is_same && !has_widows(&holds, terms) {
        return None;
    }
    let wanted = if has_same_owners {
        old.slots.clone()
    } else {
        maglev::slots(members, &Vec::from_iter(lenders.iter().copied()))
    };
    let Slots {
        owners,
        holds,
        deferred,
    } = if service.forward == Forward::Nat || service.is_fresh && !is_inherited {
        // None of its flows depends on its slot, or there are none.
        Slots {
            owners: wanted,
            ..Slots::default()
        }
    } else {
        slots::change((&owners, &holds), &wanted, terms)
    };
    let records_all = records_all(service.balance, service.forward);
    let table = Table {
        weights,
        lenders,
        slots: owners,
        holds: if records_all {
            holds.without_mixed()
        } else {
            holds
        },
        deferred,
        ring: ring::turns(&without(members, &left_out)),
        left_out,
    };
    (table != *old).then_some(table)
}

/// Who of those that are full is in the way of the others: the program looks at so many places of the
/// ring and no more. When all are full, the first that has room again is to be found without delay.
fn left_out(members: &[Member], full: &BTreeSet<BackendId>) -> BTreeSet<BackendId> {
    let are_found = full.is_empty() || ring::places(members) <= RING_PROBES as usize;
    if are_found || members.iter().all(|member| full.contains(&member.id)) {
        return BTreeSet::new();
    }
    full.clone()
}

fn without(members: &[Member], left_out: &BTreeSet<BackendId>) -> Vec<Member> {
    let rest = members.iter().filter(|it| !left_out.contains(&it.id));
    rest.copied().collect()
}

/// Whether any slot waits for flows of a backend that is no more.
fn has_widows(holds: &Holds, terms: &Terms<impl Fn(BackendId) -> bool>) -> bool {
    holds.iter().any(|(_, state)| match state {
        State::AtRisk { previous, .. } => !(terms.is_alive)(previous),
        State::Safe | State::Mixed => false,
    })
}

/// The holds that the service starts from: where all flows were recorded and will not be, there may
/// be records in any slot.
fn holds(previous: Option<&ServiceImage>, service: &DesiredService) -> Holds {
    let Some(previous) = previous else {
        return Holds::default();
    };
    let table = &previous.table;
    match (
        previous.records_all(),
        records_all(service.balance, service.forward),
    ) {
        (false, false) | (true, true) => table.holds.clone(),
        (false, true) => table.holds.without_mixed(),
        (true, false) => {
            let state = |slot| match table.holds.get(slot) {
                State::Safe => State::Mixed,
                state @ (State::Mixed | State::AtRisk { .. }) => state,
            };
            let slots = (0..).zip(&table.slots);
            slots.map(|(slot, _)| (slot, state(slot))).collect()
        }
    }
}
