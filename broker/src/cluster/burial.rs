//! What is left to do for a peer that is gone: its sessions go on from their copies, and what it was
//! sent and may not have had is for them.
//!
//! ```text
//! the peer is lost -> word to all shards, behind all that it said -> copies become sessions
//! what it had not taken -> to all shards, behind that word -> taken -> its publishers are answered
//! its filters stay in the routes until all shards have its sessions: no message falls in between
//! ```
//! What was for its groups waits until then: whoever takes it may have become a member by that alone.
//! Until then groups have it as the last of their nodes, if they have nobody else.
//!
//! Other nodes have other copies. So they are sent what the peer had not taken as well, and its filters
//! stay until they have all said that it is buried there, and before that which filters they have.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Instant,
};

use bytes::Bytes;

use super::{pair::FrameId, wire::Change};
use crate::{
    lanes::{Level, Outbox},
    replica::word::{Fate, Word},
    routes::ShardId,
    shard::Shared,
    topic::{self, Wanted},
};

/// Of one slot.
#[derive(Debug, Default)]
pub(super) struct Burial {
    /// Losses whose word is not on its way to the shards, and frames with it that these have not taken.
    untold: usize,
    unheard: BTreeSet<(ShardId, u64)>,
    /// Losses of which what all shards have made is not safe, and how many there ever were.
    losses: usize,
    told: u64,
    /// The hash of the name of who was lost last.
    node: Option<u64>,
    /// It has said nothing of filters since.
    is_silent: bool,
    /// The others were told that it is buried here.
    is_told: bool,
    /// Other nodes that have not buried it, and until when they are waited for.
    others: BTreeSet<ShardId>,
    patience: Option<Instant>,
    /// Sessions of who was lost have become others' then, or this node's, and until when it may be sent
    /// what is for them.
    heirs: Option<Instant>,
    /// The last frame to another node.
    sent: u64,
    /// Frames to shards that have to be confirmed.
    awaited: BTreeMap<(ShardId, u64), Vec<Matter>>,
    /// Of how many shards each has yet to be confirmed.
    missing: BTreeMap<Matter, usize>,
    /// Filters that are to be removed from the routes.
    routes: BTreeSet<Box<str>>,
    /// Frames that the peer has to make safe as well, as it is there again.
    shared: BTreeSet<FrameId>,
    /// Those of which it is only known that they are on their way to it.
    passed: BTreeSet<FrameId>,
    /// Frames with messages for its groups, each once.
    parked: BTreeMap<FrameId, Bytes>,
    parked_bytes: usize,
    /// Frames whose messages are where they belong.
    done: Vec<FrameId>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Matter {
    Loss(u64),
    Orphan(FrameId),
}

impl Burial {
    /// Notes that the peer is lost, by the hash of its name; a word to the shards is to follow. Its
    /// filters stay until the others have buried it too, or until patience ends.
    pub(super) fn begin(
        &mut self,
        node: u64,
        fate: Fate,
        others: BTreeSet<ShardId>,
        patience: Instant,
    ) {
        self.note_loss();
        if fate == Fate::Promoted {
            self.heirs = Some(patience);
        }
        self.node = Some(node);
        self.is_silent = true;
        self.is_told = false;
        self.others = others;
        self.patience = Some(patience);
    }

    /// Notes that what the peer has said of copies is to be settled, and it may be there; a word to the
    /// shards is to follow.
    pub(super) fn note_loss(&mut self) {
        self.untold += 1;
        self.losses += 1;
    }

    /// Who was lost here last.
    pub(super) fn node(&self) -> Option<u64> {
        self.node
    }

    /// Whether not all shards have the sessions of who was lost. That these are safe is not waited for:
    /// it may take another node, which waits for the same here.
    pub(super) fn is_under_way(&self) -> bool {
        self.untold > 0 || !self.unheard.is_empty()
    }

    /// Whether what comes for its place may be for sessions of who was lost, whoever is there by now:
    /// their filters were not known elsewhere when a shard put it into the lane. One that is held for
    /// gone by this node alone has its sessions still.
    pub(super) fn has_heirs(&self, now: Instant) -> bool {
        self.heirs
            .is_some_and(|until| self.losses > 0 || now < until)
    }

    /// Whether it was lost a short time ago.
    pub(super) fn is_recent(&self, now: Instant) -> bool {
        self.patience.is_some_and(|patience| now < patience)
    }

    /// Whether it has said nothing of filters since it was lost.
    pub(super) fn is_silent(&self) -> bool {
        self.is_silent
    }

    /// Who is buried here, and others are to be told of.
    pub(super) fn poll_buried(&mut self) -> Option<u64> {
        let node = self
            .node
            .filter(|_node| !self.is_told && self.losses == 0)?;
        self.is_told = true;
        Some(node)
    }

    /// Notes that another node has buried it, or is gone itself.
    pub(super) fn hear(&mut self, other: ShardId) {
        self.others.remove(&other);
    }

    /// Has a frame's messages wait until this node's shards have them as well.
    pub(super) fn hold(&mut self, frame: FrameId) {
        *self.missing.entry(Matter::Orphan(frame)).or_default() += 1;
    }

    /// Has them wait for the peer too, which is there again.
    pub(super) fn share(&mut self, frame: FrameId) {
        if self.shared.insert(frame) {
            self.hold(frame);
        }
    }

    /// Notes that the peer has made a frame's messages safe, or is gone again, or that they are on their
    /// way to it, where that is enough; tells whether others are waited for as well, who will be the
    /// last.
    pub(super) fn handle_shared(&mut self, frame: FrameId, level: Level) -> bool {
        let is_shared = self.shared.remove(&frame);
        if is_shared {
            if level == Level::Passed {
                self.passed.insert(frame);
            }
            self.settle(Matter::Orphan(frame));
        }
        is_shared
    }

    /// Has them wait for another node too; the result is the number of the frame to it.
    pub(super) fn expect(&mut self, frame: FrameId, other: ShardId) -> u64 {
        self.sent += 1;
        let matter = Matter::Orphan(frame);
        self.awaited
            .entry((other, self.sent))
            .or_default()
            .push(matter);
        *self.missing.entry(matter).or_default() += 1;
        self.sent
    }

    /// Has a frame's messages for groups wait until the peer is buried.
    pub(super) fn park(&mut self, frame: FrameId, messages: Bytes) {
        if self.parked.contains_key(&frame) {
            return;
        }
        self.hold(frame);
        self.parked_bytes += messages.len();
        self.parked.insert(frame, messages);
    }

    /// Bytes of frames that wait for the peer to be buried.
    pub(super) fn parked_bytes(&self) -> usize {
        self.parked_bytes
    }

    /// Has shards find new members for messages that were for groups of the peer, which is buried: each
    /// those that it has sent, as many as there is room for. Tells whether there were any.
    fn regroup(&mut self, outbox: &mut Outbox, shards: u16) -> bool {
        let is_any = !self.parked.is_empty();
        while !outbox.is_congested()
            && let Some((frame, messages)) = self.parked.pop_first()
        {
            self.parked_bytes = self.parked_bytes.saturating_sub(messages.len());
            let own = ShardId(0)..ShardId(shards);
            let shard = if own.contains(&frame.from) {
                frame.from
            } else {
                ShardId(0)
            };
            let word = Word::Regroup(&messages).encode();
            let matter = Matter::Orphan(frame);
            let sequence = outbox.push_word(shard, &word, true);
            let awaited = self.awaited.entry((shard, sequence));
            // In the place of what it was held for.
            awaited.or_default().push(matter);
        }
        is_any
    }

    /// Tells all shards; the frame is one whose messages these are, and that was held for them.
    pub(super) fn tell(
        &mut self,
        word: Word<'_>,
        frame: Option<FrameId>,
        outbox: &mut Outbox,
        shards: u16,
    ) {
        let word = word.encode();
        let matter = frame.map_or_else(
            || {
                self.untold = self.untold.saturating_sub(1);
                self.told += 1;
                Matter::Loss(self.told)
            },
            Matter::Orphan,
        );
        for shard in (0..shards).map(ShardId) {
            let sequence = outbox.push_word(shard, &word, true);
            if frame.is_none() {
                self.unheard.insert((shard, sequence));
            }
            self.awaited
                .entry((shard, sequence))
                .or_default()
                .push(matter);
            *self.missing.entry(matter).or_default() += 1;
        }
        if frame.is_some() {
            self.settle(matter);
        }
    }

    /// Notes that a shard has taken a frame, which need not be safe.
    pub(super) fn handle_taken(&mut self, shard: ShardId, sequence: u64) {
        self.unheard.remove(&(shard, sequence));
    }

    /// Notes that what a frame had for a shard, or another node, is safe.
    pub(super) fn confirm(&mut self, shard: ShardId, sequence: u64) {
        self.handle_taken(shard, sequence);
        for matter in self.awaited.remove(&(shard, sequence)).unwrap_or_default() {
            self.settle(matter);
        }
    }

    /// One less is missing.
    fn settle(&mut self, matter: Matter) {
        let Some(missing) = self.missing.get_mut(&matter) else {
            return;
        };
        *missing -= 1;
        if *missing > 0 {
            return;
        }
        self.missing.remove(&matter);
        match matter {
            Matter::Loss(_) => self.losses = self.losses.saturating_sub(1),
            Matter::Orphan(frame) => self.done.push(frame),
        }
    }

    /// A frame whose messages the shards have, if there is one, and how far it is with the peer.
    pub(super) fn poll_done(&mut self) -> Option<(FrameId, Level)> {
        let frame = self.done.pop()?;
        let is_passed = self.passed.remove(&frame);
        let level = if is_passed {
            Level::Passed
        } else {
            Level::Safe
        };
        Some((frame, level))
    }

    /// Makes messages for a filter go to the peer, or no longer.
    pub(super) fn change_route(&mut self, change: Change, end: ShardId, shared: &Shared) {
        match change {
            Change::Added(filter) => {
                self.is_silent = false;
                self.routes.remove(&filter);
                shared.routes.add(&filter, end);
            }
            Change::Group(filter, room) => {
                self.is_silent = false;
                self.routes.remove(&filter);
                if let Some(Wanted::Share(group)) = topic::parse_filter(&filter) {
                    shared.shares.set_room(group, end, Some(room));
                }
            }
            Change::Removed(filter) if self.is_silent => {
                if let Some(Wanted::Share(group)) = topic::parse_filter(&filter) {
                    shared.shares.lose_room(group, end);
                }
                self.routes.insert(filter);
            }
            Change::Removed(filter) => remove_route(&filter, end, shared),
        }
    }

    /// Removes the filters of a peer that is buried, and has others get what was for its groups; tells
    /// whether shards are to be told.
    pub(super) fn finish(
        &mut self,
        end: ShardId,
        outbox: &mut Outbox,
        shared: &Shared,
        now: Instant,
    ) -> bool {
        if !self.has_heirs(now) {
            self.heirs = None;
        }
        if self.losses == 0 && (self.others.is_empty() || !self.is_recent(now)) {
            for filter in std::mem::take(&mut self.routes) {
                remove_route(&filter, end, shared);
            }
            return self.regroup(outbox, shared.shards);
        }
        false
    }
}

fn remove_route(filter: &str, end: ShardId, shared: &Shared) {
    match topic::parse_filter(filter) {
        Some(Wanted::Share(group)) => shared.shares.set_room(group, end, None),
        Some(Wanted::All(_)) | None => shared.routes.remove(filter, end),
    }
}

#[cfg(test)]
mod tests;
