//! How messages of peers get to the shards.

use std::time::Instant;

use bytes::Bytes;

use super::Driver;
use crate::{
    cluster::{
        Ledger, PEERS,
        peer::FULL,
        slot::{Grave, ItemId, Kind},
    },
    lanes::Flushed,
};

impl Driver {
    pub(super) fn take_in(
        &mut self,
        slot: u16,
        id: ItemId,
        kind: Kind,
        messages: Bytes,
        now: Instant,
    ) {
        if let Some(slot) = self.slots.get_mut(usize::from(slot)) {
            slot.push(id, kind, messages);
        }
        self.pass_on(slot, now);
    }

    /// Passes messages of a peer on to the shards, and tells the core what is there.
    pub(super) fn pass_on(&mut self, slot: u16, now: Instant) {
        let graves = self.graves(now);
        self.pass_what_waits(slot, &graves, now);
        self.note_progress(slot, now);
        self.work.outbox.notify_one();
    }

    fn pass_what_waits(&mut self, slot: u16, graves: &[Grave], now: Instant) {
        let Some(state) = self.slots.get_mut(usize::from(slot)) else {
            return;
        };
        let (ledger, counters) = (self.ledger.as_mut(), &self.counters);
        let early = &self.chores.early;
        state.pass_on(&self.shared, ledger, counters, graves, early, now);
        if state.take_learned() {
            self.core.handle_news(slot);
        }
        self.follow_burials(slot, now);
        self.finish_burials(now);
    }

    /// Tells the core what of a peer's messages is in the sessions, and what is safe.
    fn note_progress(&mut self, slot: u16, now: Instant) {
        let Some(state) = self.slots.get_mut(usize::from(slot)) else {
            return;
        };
        // What is behind it is not to be safe in its place.
        while let Some((epoch, number)) = state.strays().poll_put() {
            self.core.handle_put_aside(slot, epoch, number);
        }
        while let Some((epoch, number)) = state.strays().poll_safe() {
            self.core.handle_aside_safe(slot, epoch, number);
        }
        if let Some((epoch, number)) = state.poll_delivered() {
            self.core.handle_delivered(slot, epoch, number, now);
        }
        let stored = self.ledger.as_ref().map_or(0, Ledger::stored);
        if let Some((epoch, number)) = state.poll_safe(stored) {
            self.core.handle_safe(slot, epoch, number);
        }
    }

    /// Whether so much waits for the peer of a slot, or for its burial, that no more should be read for
    /// it, or for others who get it as well.
    pub(super) fn is_full(&mut self, slot: u16, now: Instant) -> bool {
        let Some(state) = self.slots.get_mut(usize::from(slot)) else {
            return false;
        };
        let has_heirs = state.burial().has_heirs(now);
        let mut peers = self.core.peers();
        state.parked_bytes() > FULL
            || peers.any(|(_node, peer)| peer.is_full() && (has_heirs || peer.slot == slot))
    }

    /// Looks whether something that was put aside has waited for long enough.
    pub(super) fn look_for_strays(&mut self) {
        if self
            .slots
            .iter_mut()
            .any(|state| state.strays().are_waiting())
        {
            self.work.outbox.notify_one();
        }
    }

    /// Flushes all slots' outboxes; `true` when some have to be flushed again.
    pub(super) fn flush(&mut self) -> bool {
        let now = Instant::now();
        let mut is_blocked = false;
        let graves = self.graves(now);
        for slot in 0..PEERS {
            self.pass_what_waits(slot, &graves, now);
            if let Some(state) = self.slots.get_mut(usize::from(slot)) {
                is_blocked |= state.outbox.flush() == Flushed::Blocked || state.is_waiting();
            }
        }
        self.note_delivered(now);
        is_blocked
    }

    /// Tells the core what is in sessions and store.
    pub(super) fn note_delivered(&mut self, now: Instant) {
        for slot in 0..PEERS {
            self.note_progress(slot, now);
        }
        self.settle(now);
    }
}
