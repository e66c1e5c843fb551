//! Copies of one owner's sessions.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use crate::replica::{Recent, Shadow, Step, hash_of, wire::Whose};

/// Copies that become sessions before it is asked whether the turn is over.
const PROMOTED_AT_ONCE: usize = 32;

/// An owner, and what it has told.
pub(super) struct Owner {
    pub(super) shadows: BTreeMap<Whose, Shadow>,
    pub(super) recent: Recent,
    pub(super) bytes: usize,
    /// That of its place here for which it tells of them.
    pub(super) life: u64,
    /// It is gone: they become sessions, one after another.
    pub(super) is_lost: bool,
    /// How many have.
    pub(super) promoted: usize,
}

impl Owner {
    pub(super) fn new(memory: Duration) -> Self {
        Self {
            shadows: BTreeMap::new(),
            recent: Recent::new(memory),
            bytes: 0,
            life: 0,
            is_lost: false,
            promoted: 0,
        }
    }

    /// Takes a step in; tells whether the session has ended.
    pub(super) fn apply(&mut self, whose: Whose, step: Step, now: Instant) -> bool {
        if matches!(step, Step::Whole | Step::Replacing) {
            self.shadows.entry(whose).or_default();
        }
        // Of a session that nothing was told of before, a part is of no use.
        let Some(shadow) = self.shadows.get_mut(&whose) else {
            return false;
        };
        if let Step::Done(seq) | Step::Released(seq, _) = &step
            && let Some(id) = shadow.message_id(*seq)
        {
            self.recent.insert(whose.client, id, now);
        }
        self.bytes -= shadow.bytes();
        let has_ended = !shadow.apply(step);
        if has_ended {
            self.shadows.remove(&whose);
        } else {
            self.bytes += shadow.bytes();
        }
        has_ended
    }

    /// From now on what its clients had is remembered for so long.
    pub(super) fn remember_for(&mut self, memory: Duration) {
        self.recent.remember_for(memory);
    }

    pub(super) fn take_recent(&mut self) -> Recent {
        let memory = self.recent.memory();
        std::mem::replace(&mut self.recent, Recent::new(memory))
    }

    /// Takes out some copies.
    pub(super) fn take_some(&mut self) -> Vec<(Whose, Shadow)> {
        let shadows = std::iter::from_fn(|| self.shadows.pop_first());
        let taken: Vec<_> = shadows.take(PROMOTED_AT_ONCE).collect();
        let bytes: usize = taken.iter().map(|(_whose, shadow)| shadow.bytes()).sum();
        self.bytes -= bytes;
        self.promoted += taken.len();
        taken
    }

    /// Takes out the copy of a client's session.
    pub(super) fn take(&mut self, client_id: &str) -> Option<(Whose, Shadow)> {
        let whose = self.find(client_id, hash_of(client_id))?;
        let shadow = self.shadows.remove(&whose)?;
        self.bytes -= shadow.bytes();
        Some((whose, shadow))
    }

    pub(super) fn find(&self, client_id: &str, client: u64) -> Option<Whose> {
        let of_client = Whose::first(client)..=Whose::last(client);
        let mut shadows = self.shadows.range(of_client);
        let is_its = |shadow: &Shadow| {
            let state = shadow.state();
            state.is_some_and(|state| &*state.profile.client_id == client_id)
        };
        let found = shadows.find(|(_whose, shadow)| is_its(shadow));
        found.map(|(whose, _shadow)| *whose)
    }
}
