//! What the nodes that are left tell each other of one that is gone.

use std::time::Instant;

use bytes::Bytes;

use super::Driver;
use crate::{
    cluster::{
        PEERS,
        pair::FrameId,
        peer::Peer,
        slot::{Grave, Kind, Rest, Slot},
    },
    lanes::{
        Level,
        frame::{self, Writer},
    },
    replica::{
        hash_of,
        word::{Fate, Word, of_heirs},
    },
    routes::ShardId,
};

impl Driver {
    /// Has the shards make sessions of a lost peer's copies, behind all that it has said.
    pub(super) fn bury(&mut self, slot: u16, node: &str, fate: Fate, now: Instant) {
        let node = hash_of(node);
        let wake = self.core.burial_patience();
        let patience = now + wake;
        let end = self.cluster.end(slot);
        let recent = now.checked_sub(wake);
        self.buried
            .retain(|_by, since| recent.is_none_or(|recent| *since > recent));
        let others = match fate {
            Fate::Promoted => self.others(slot),
            Fate::Dropped | Fate::Renewed | Fate::Apart => Vec::new(),
        };
        let others = others
            .into_iter()
            .map(|slot| self.cluster.end(slot))
            .filter(|other| !self.buried.contains_key(&(*other, node)))
            .collect();
        for state in &mut self.slots {
            state.burial().hear(end);
        }
        if let Some(state) = self.slots.get_mut(usize::from(slot)) {
            state.burial().begin(node, fate, others, patience);
            state.push((0, 0), Kind::Lost(fate), Bytes::new());
        }
        self.pass_on(slot, now);
    }

    /// Has the shards hear that a peer makes its copies anew.
    pub(super) fn renew_copies(&mut self, slot: u16, now: Instant) {
        if let Some(state) = self.slots.get_mut(usize::from(slot)) {
            state.burial().note_loss();
            state.push((0, 0), Kind::Lost(Fate::Renewed), Bytes::new());
        }
        self.pass_on(slot, now);
    }

    /// The slots of other peers that are there.
    fn others(&self, slot: u16) -> Vec<u16> {
        let peers = self.core.peers();
        let alive = peers.filter(|(_node, peer)| peer.is_alive() && peer.slot != slot);
        alive.map(|(_node, peer)| peer.slot).collect()
    }

    /// Hands a shard's frame for a peer to the core. Where it was lost a moment ago, and is back, its
    /// older sessions go on elsewhere, and may be who the frame is for.
    pub(super) fn send_frame(
        &mut self,
        slot: u16,
        frame: Option<FrameId>,
        messages: Bytes,
        now: Instant,
    ) {
        let mut theirs = messages.clone();
        let is_there = |peer: &Peer| peer.slot == slot && peer.is_alive();
        let is_back = self.core.peers().any(|(_node, peer)| is_there(peer));
        let state = self.slots.get_mut(usize::from(slot));
        if let Some((frame, state)) = frame.zip(state)
            && is_back
            && state.burial().has_heirs(now)
        {
            // It was chosen for its older members. What finds another one then must not find one there
            // as well.
            if state.burial().is_silent() {
                state.park(frame, &messages);
                theirs = frame::without_seats(&messages);
            }
            let is_parked = theirs.len() < messages.len();
            // Copies of sessions are the most of what such a peer is sent.
            let inherited = of_heirs(&messages, now);
            if !inherited.is_empty() || is_parked && !theirs.is_empty() {
                state.burial().share(frame);
            }
            if !inherited.is_empty() {
                self.pass_to_heirs(slot, frame, inherited, now);
            }
            if is_parked && !frame::has_words(&theirs) {
                let (end, FrameId { from, sequence }) = (self.cluster.end(slot), frame);
                // What was handed on is not waited for: its burial may wait for who waits for this.
                self.shared.lanes.tell(end, from, sequence, Level::Taken);
            }
            if theirs.is_empty() && is_parked {
                return;
            }
        }
        self.core.handle_frame(slot, frame, theirs, now);
    }

    /// Tells a frame's sender how far a peer has got with it.
    pub(super) fn confirm(&mut self, slot: u16, frame: FrameId, level: Level, now: Instant) {
        let end = self.cluster.end(slot);
        let state = self.slots.get_mut(usize::from(slot));
        let is_shared =
            |state: &mut Slot| level != Level::Taken && state.burial().handle_shared(frame, level);
        if state.is_some_and(is_shared) {
            return self.finish_burials(now);
        }
        let FrameId { from, sequence } = frame;
        self.shared.lanes.tell(end, from, sequence, level);
    }

    /// Passes on what a lost peer may not have had to whoever may have its sessions: this node's shards
    /// and all other nodes.
    pub(super) fn take_orphan(
        &mut self,
        slot: u16,
        frame: FrameId,
        messages: &Bytes,
        now: Instant,
    ) {
        let (end, FrameId { from, sequence }) = (self.cluster.end(slot), frame);
        // Of words in it no more is to come.
        self.shared.lanes.tell(end, from, sequence, Level::Taken);
        if let Some(state) = self.slots.get_mut(usize::from(slot)) {
            state.park(frame, messages);
        }
        self.pass_to_heirs(slot, frame, of_heirs(messages, now), now);
        if let Some(state) = self.slots.get_mut(usize::from(slot)) {
            state.burial().handle_shared(frame, Level::Safe);
        }
    }

    fn pass_to_heirs(&mut self, slot: u16, frame: FrameId, messages: Bytes, now: Instant) {
        let (end, FrameId { from, .. }) = (self.cluster.end(slot), frame);
        let others = self.others(slot);
        let is_it = |peer: &Peer| peer.slot == slot && peer.is_elsewhere();
        let is_elsewhere = self.core.peers().any(|(_node, peer)| is_it(peer));
        let Some(state) = self.slots.get_mut(usize::from(slot)) else {
            return;
        };
        state.push_orphan(frame, messages.clone());
        // What was strayed already goes no further, and nobody else has sessions of a peer that has them
        // itself.
        let stops_here = from.0 >= self.shared.shards || is_elsewhere || messages.is_empty();
        if let Some(node) = state.burial().node().filter(|_node| !stops_here) {
            let messages = &messages;
            let word = framed(Word::Strays { node, messages });
            for other in others {
                let sequence = state.burial().expect(frame, self.cluster.end(other));
                let frame = FrameId {
                    from: end,
                    sequence,
                };
                self.core
                    .handle_frame(other, Some(frame), word.clone(), now);
            }
        }
        self.pass_on(slot, now);
    }

    /// Who was there, and whether the sessions of each are where they are to be.
    pub(super) fn graves(&mut self, now: Instant) -> Vec<Grave> {
        let mut graves = Vec::new();
        let patience = self.core.loss_spread();
        for (name, peer) in self.core.peers() {
            let state = self.slots.get_mut(usize::from(peer.slot));
            let rest = state.map_or(Rest::Buried, |state| {
                let burial = state.burial();
                if burial.is_under_way() {
                    Rest::Burying
                } else if peer.is_alive() && !burial.is_recent(now) {
                    Rest::Alive
                } else {
                    // One that is back so soon was lost to others in the same way.
                    Rest::Buried
                }
            });
            graves.push(Grave {
                node: hash_of(name),
                end: self.cluster.end(peer.slot),
                rest,
                patience,
            });
        }
        graves
    }

    /// Tells others when a peer is buried here, and hears who is buried there.
    pub(super) fn follow_burials(&mut self, slot: u16, now: Instant) {
        let end = self.cluster.end(slot);
        let Some(state) = self.slots.get_mut(usize::from(slot)) else {
            return;
        };
        let heard = state.take_heard();
        if let Some(node) = state.burial().poll_buried() {
            self.tell_buried(slot, node, now);
        }
        for node in heard {
            self.buried.insert((end, node), now);
            for state in &mut self.slots {
                if state.burial().node() == Some(node) {
                    state.burial().hear(end);
                }
            }
        }
    }

    fn tell_buried(&mut self, slot: u16, node: u64, now: Instant) {
        // Behind the filters of its sessions.
        let table = &self.cluster.table;
        let mut table = table
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        self.core.pump(&mut table, now);
        drop(table);
        let word = framed(Word::Buried(node));
        for other in self.others(slot) {
            self.core.handle_behind_filters(other, word.clone(), now);
        }
    }

    /// Removes the filters of peers that are buried everywhere.
    pub(super) fn finish_burials(&mut self, now: Instant) {
        let mut is_news = false;
        for slot in 0..PEERS {
            let end = self.cluster.end(slot);
            if let Some(state) = self.slots.get_mut(usize::from(slot)) {
                is_news |= state.finish_burial(end, &self.shared, now);
            }
        }
        if is_news {
            self.work.outbox.notify_one();
        }
    }
}

/// A word as what is behind a frame's header.
fn framed(word: Word<'_>) -> Bytes {
    let mut writer = Writer::new(ShardId(0), 0);
    writer.push_word(&word.encode(), true);
    writer.finish().slice(frame::HEADER..)
}
