//! What is written at once: the last word on each key.

use std::collections::{BTreeMap, HashSet};

use super::record::BodyId;
use crate::session::journal::{Seq, SessionId};

/// A key's value, or that it has none any more.
pub(super) type Cell = Option<Vec<u8>>;

/// Changes to the store. In the order of keys, in which a tree takes them best.
#[derive(Debug, Default)]
pub(super) struct Batch {
    pub(super) sessions: BTreeMap<SessionId, Cell>,
    pub(super) subscriptions: BTreeMap<(SessionId, Box<str>), Cell>,
    pub(super) entries: BTreeMap<(SessionId, Seq), Cell>,
    pub(super) bodies: BTreeMap<BodyId, Cell>,
    pub(super) received: BTreeMap<(SessionId, u16), Cell>,
    pub(super) spread: BTreeMap<(SessionId, u16, u16), Cell>,
    pub(super) retained: BTreeMap<Box<str>, Cell>,
    /// Entries that nothing is stored of yet.
    pub(super) fresh: HashSet<(SessionId, Seq)>,
    /// A write of this batch has failed, and may yet have taken place.
    pub(super) is_uncertain: bool,
}

impl Batch {
    pub(super) fn len(&self) -> usize {
        let Self {
            sessions,
            subscriptions,
            entries,
            bodies,
            received,
            spread,
            retained,
            fresh: _,
            is_uncertain: _,
        } = self;
        sessions.len()
            + subscriptions.len()
            + entries.len()
            + bodies.len()
            + received.len()
            + spread.len()
            + retained.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Removes an entry, of which nothing need be written if it is new.
    pub(super) fn remove_entry(&mut self, key: (SessionId, Seq)) {
        if self.fresh.remove(&key) {
            self.entries.remove(&key);
        } else {
            self.entries.insert(key, None);
        }
    }

    /// As [`Batch::remove_entry`]. A message is written once, so one that is in the batch is new.
    pub(super) fn remove_body(&mut self, body: BodyId) {
        if self.is_uncertain || self.bodies.remove(&body).is_none() {
            self.bodies.insert(body, None);
        }
    }

    /// A write has failed: it may yet have taken place, so nothing is new any more.
    pub(super) fn distrust(&mut self) {
        self.is_uncertain = true;
        self.fresh.clear();
    }
}
