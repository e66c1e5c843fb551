//! What becomes of a slot when its owner changes, so that no session changes its backend.
//!
//! A change of backends gives some slots another owner. The sessions in them must stay where they
//! are as long as their backend lives, and nobody knows which sessions those are. So a slot that its
//! old owner survives is *at risk* for a while: flows that start belong to the new owner and are
//! recorded, packets of unknown flows go to the old one and are recorded as well. A live session
//! sends something every now and then, so after the learning window all sessions of the old owner
//! are records; then the slot is *mixed* until the last record that differs from its owner is gone,
//! and *safe* from then on: nobody looks for records.
//!
//! ```text
//!             new owner, old one X lives                window over
//!   +------+ ------------------------------> +---------+ -----------> +-------+
//!   | safe |                                 | at risk |              | mixed |
//!   +------+ <--+      +-------------------> | X waits | <----------  +-------+
//!       ^       |      |  new owner:         +---------+  new owner,      |
//!       |       |      +--- X still waits ------+ |       old one lives   |
//!       |       |                                 | X takes the slot      |
//!       |       |                                 | back, or X dies       |
//!       |       |                                 +---------------------> |
//!       |       +--- new owner, old one is dead: at once; so too if mixed |
//!       +------------------------ no record differs from the owner -------+
//! ```
//! A second change within the window leaves the window as it is: all that the second owner got since
//! the first change is recorded already.
//!
//! The states of a service that records every flow anyway are fewer: mixed is as good as safe there.

use std::time::Duration;

use lb_common::abi::{BackendId, Slot, Tick};

/// The longest silence of a live session, by its keep-alive: after one and a half times that the
/// server may end it (MQTT 5.0, section 3.1.2.10).
#[must_use]
pub fn window(keep_alive: Duration) -> Duration {
    keep_alive.saturating_add(keep_alive / 2)
}

/// The state of one slot.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum State {
    /// Every packet goes to the owner.
    #[default]
    Safe,
    /// Some flows are recorded that belong to others.
    Mixed,
    /// Flows that are not recorded belong to `previous`.
    AtRisk {
        previous: BackendId,
        /// When all of its live sessions have been seen.
        until: Tick,
    },
}

impl State {
    /// The slot as the kernel has it.
    #[must_use]
    pub const fn slot(self, owner: BackendId) -> Slot {
        match self {
            Self::Safe => Slot::safe(owner),
            Self::Mixed => Slot::mixed(owner),
            Self::AtRisk { previous, .. } => Slot::at_risk(owner, previous),
        }
    }
}

/// The slots that are not safe, in their order: few, most of the time.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Holds(Vec<(u32, State)>);

impl Holds {
    /// Each slot that is not safe, with its state.
    pub fn iter(&self) -> impl Iterator<Item = (u32, State)> + '_ {
        self.0.iter().copied()
    }

    /// Whether every slot is safe.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The state of a slot.
    #[must_use]
    pub fn get(&self, slot: u32) -> State {
        let found = self.0.binary_search_by_key(&slot, |&(slot, _)| slot);
        found.map_or(State::Safe, |at| self.0[at].1)
    }

    /// How many slots are mixed, and how many at risk.
    #[must_use]
    pub fn count(&self) -> (usize, usize) {
        let mixed = self.iter().filter(|(_, state)| *state == State::Mixed);
        let mixed = mixed.count();
        (mixed, self.0.len() - mixed)
    }

    /// When the last of the learning windows is over.
    #[must_use]
    pub fn until(&self) -> Option<Tick> {
        self.iter()
            .filter_map(|(_, state)| match state {
                State::AtRisk { until, .. } => Some(until),
                State::Safe | State::Mixed => None,
            })
            .max()
    }

    /// Whether unknown flows of any slot may be a backend's that does not own it.
    #[must_use]
    pub fn has_previous(&self, backend: BackendId) -> bool {
        self.iter().any(|(_, state)| match state {
            State::AtRisk { previous, .. } => previous == backend,
            State::Safe | State::Mixed => false,
        })
    }

    /// The same without slots that are only mixed: where every flow is looked up anyway, they are
    /// as good as safe.
    #[must_use]
    pub fn without_mixed(&self) -> Self {
        self.map(|_, state| match state {
            State::Mixed => State::Safe,
            State::Safe | State::AtRisk { .. } => state,
        })
    }

    /// The same with all learning windows ending at one time.
    #[must_use]
    pub fn ending(&self, until: Tick) -> Self {
        self.map(|_, state| match state {
            State::AtRisk { previous, .. } => State::AtRisk { previous, until },
            State::Safe | State::Mixed => state,
        })
    }

    /// The same with no learning window that ends before `end`.
    #[must_use]
    pub fn beginning(&self, end: Tick) -> Self {
        self.map(|_, state| match state {
            State::AtRisk { previous, until } => {
                let until = until.max(end);
                State::AtRisk { previous, until }
            }
            State::Safe | State::Mixed => state,
        })
    }

    /// The same slots in the states that `change` gives them.
    #[must_use]
    pub fn map(&self, mut change: impl FnMut(u32, State) -> State) -> Self {
        self.iter()
            .map(|(slot, state)| (slot, change(slot, state)))
            .collect()
    }
}

impl FromIterator<(u32, State)> for Holds {
    /// Slots must come in their order.
    fn from_iter<I: IntoIterator<Item = (u32, State)>>(states: I) -> Self {
        let unsafe_ones = |(_, state): &(u32, State)| *state != State::Safe;
        Self(states.into_iter().filter(unsafe_ones).collect())
    }
}

/// What a change of owners depends on besides the owners.
pub struct Terms<F> {
    /// Whether a backend still takes packets.
    pub is_alive: F,
    /// When the learning window of slots that change now is over.
    pub until: Tick,
    /// Whether there is room to record flows: else slots with live owners stay as they are.
    pub has_room: bool,
}

/// The owners and states of all slots after a change.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Slots {
    pub owners: Vec<BackendId>,
    pub holds: Holds,
    /// Whether some slots have waited for room.
    pub deferred: bool,
}

/// Gives every slot to the owner that is wanted; nobody, if `wanted` is empty.
///
/// Empty if nobody takes packets in any slot.
#[must_use]
pub fn change(
    (owners, holds): (&[BackendId], &Holds),
    wanted: &[BackendId],
    terms: &Terms<impl Fn(BackendId) -> bool>,
) -> Slots {
    if owners.is_empty() {
        return Slots {
            owners: wanted.to_vec(),
            ..Slots::default()
        };
    }
    let mut slots = Slots {
        owners: Vec::with_capacity(owners.len()),
        ..Slots::default()
    };
    let mut held = holds.0.iter().peekable();
    for (slot, &owner) in (0..).zip(owners) {
        let state = held.next_if(|(at, _)| *at == slot);
        let state = state.map_or(State::Safe, |&(_, state)| state);
        let wanted = wanted.get(slot as usize).copied();
        let (owner, state) = change_one((owner, state), wanted.unwrap_or(BackendId::NONE), terms)
            .unwrap_or_else(|| {
                slots.deferred = true;
                (owner, state)
            });
        slots.owners.push(owner);
        if state != State::Safe {
            slots.holds.0.push((slot, state));
        }
    }
    let is_nobodys = |owner: &BackendId| *owner == BackendId::NONE;
    if slots.holds.is_empty() && slots.owners.iter().all(is_nobodys) {
        return Slots::default();
    }
    slots
}

/// One slot after a change; `None` if it has to wait for room.
fn change_one(
    (owner, state): (BackendId, State),
    wanted: BackendId,
    terms: &Terms<impl Fn(BackendId) -> bool>,
) -> Option<(BackendId, State)> {
    let is_alive = &terms.is_alive;
    match state {
        // All that the owner got here is recorded, whoever comes after it.
        State::AtRisk { previous, .. } if previous == wanted || !is_alive(previous) => {
            Some((wanted, State::Mixed))
        }
        State::AtRisk { .. } => Some((wanted, state)),
        State::Safe | State::Mixed if owner == wanted || !is_alive(owner) => Some((wanted, state)),
        State::Safe | State::Mixed => terms.has_room.then_some((
            wanted,
            State::AtRisk {
                previous: owner,
                until: terms.until,
            },
        )),
    }
}
