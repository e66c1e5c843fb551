//! What the driver has for one peer: the way of its messages to this node's shards.

mod groups;
mod strays;

use std::{
    cell::RefCell,
    collections::VecDeque,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;

pub(super) use strays::Rest;
use strays::{Strays, Turn};

use super::{
    Ledger,
    burial::Burial,
    keeper::Keeper,
    news::Early,
    pair::FrameId,
    pending::Pending,
    word::{Recipient, Word},
};
use crate::{
    lanes::{
        Confirmation, Level, Outbox,
        frame::{self, Content},
    },
    message::Qos,
    metrics::{Counters, Metric},
    replica::{self, wire::split, word::Fate},
    routes::ShardId,
    shard::Shared,
    sys, topic,
};

/// Messages of a peer on their way to the shards.
pub(super) struct Slot {
    pub(super) outbox: Outbox,
    /// Items that find no room on the lanes. The core takes no more of a peer than it may send without
    /// an answer, and of the next stream nothing while these do not move (`held`).
    waiting: VecDeque<Item>,
    /// Items that are not in all sessions.
    untaken: Pending,
    /// Those that could be lost.
    unsafe_yet: Pending,
    burial: Burial,
    /// Nodes that the peer has buried.
    heard: Vec<u64>,
    strays: Strays,
    /// A copy has brought what others may not have either.
    has_learned: bool,
}

/// The peer's stream, and the number in it.
pub(super) type ItemId = (u64, u64);

struct Item {
    id: ItemId,
    kind: Kind,
    messages: Bytes,
}

/// What messages are for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// This node's subscribers.
    Published,
    /// Those who will subscribe, where this node has none of the topic.
    Retained,
    /// Copies of the peer's sessions, which is gone.
    Lost(Fate),
    /// Those of its sessions that are here: the frame was for it.
    Orphan(FrameId),
}

impl Slot {
    pub(super) fn new(outbox: Outbox) -> Self {
        Self {
            outbox,
            waiting: VecDeque::new(),
            untaken: Pending::default(),
            unsafe_yet: Pending::default(),
            burial: Burial::default(),
            heard: Vec::new(),
            strays: Strays::default(),
            has_learned: false,
        }
    }

    pub(super) fn burial(&mut self) -> &mut Burial {
        &mut self.burial
    }

    pub(super) fn strays(&mut self) -> &mut Strays {
        &mut self.strays
    }

    /// Takes messages that the peer, which is gone, may not have had.
    pub(super) fn push_orphan(&mut self, frame: FrameId, messages: Bytes) {
        self.burial.hold(frame);
        self.push((0, 0), Kind::Orphan(frame), messages);
    }

    /// Whether a copy has brought what others may not have either, since it was last asked.
    pub(super) fn take_learned(&mut self) -> bool {
        std::mem::take(&mut self.has_learned)
    }

    /// What others have said about nodes that are gone.
    pub(super) fn take_heard(&mut self) -> Vec<u64> {
        std::mem::take(&mut self.heard)
    }

    /// Answers whose messages have found the sessions of a peer that is gone; tells whether there is
    /// something for the shards.
    pub(super) fn finish_burial(&mut self, end: ShardId, shared: &Shared, now: Instant) -> bool {
        while let Some((FrameId { from, sequence }, level)) = self.burial.poll_done() {
            shared.lanes.tell(end, from, sequence, level);
        }
        self.burial.finish(end, &mut self.outbox, shared, now)
    }

    pub(super) fn push(&mut self, id: ItemId, kind: Kind, messages: Bytes) {
        self.waiting.push_back(Item { id, kind, messages });
    }

    /// Passes on what there is room for.
    pub(super) fn pass_on(
        &mut self,
        shared: &Shared,
        mut ledger: Option<&mut Ledger>,
        counters: &Counters,
        graves: &[Grave],
        early: &RefCell<Early>,
        now: Instant,
    ) {
        let mut is_noted = false;
        while !self.outbox.is_congested() {
            if let Some((id, messages)) = self.strays.poll(graves, now) {
                self.give_stray(shared, id, &messages, graves);
                continue;
            }
            let first = self.waiting.front();
            let Some(turn) = first.map(|item| self.strays.judge(&item.messages, graves, now))
            else {
                break;
            };
            if turn == Turn::Wait {
                break;
            }
            let Some(Item { id, kind, messages }) = self.waiting.pop_front() else {
                break;
            };
            if let Turn::Aside(node) = turn {
                self.strays.put(node, id, messages);
                self.untaken.push(id, 0, None);
                continue;
            }
            let keeper = Keeper {
                shared,
                ledger: ledger.as_deref(),
                counters,
                graves,
                early,
                now,
            };
            let (missing, is_retained) = match kind {
                Kind::Published => self.deliver(&keeper, id, &messages),
                Kind::Retained => {
                    let kept = keeper.keep(&messages);
                    self.has_learned |= kept.is_news;
                    (0, kept.is_noted)
                }
                Kind::Lost(fate) => {
                    let (word, shards) = (replica::word::Word::Lost(fate), shared.shards);
                    self.burial.tell(word, None, &mut self.outbox, shards);
                    continue;
                }
                Kind::Orphan(frame) => {
                    let word = replica::word::Word::Orphans {
                        of: self.outbox.me(),
                        messages: &messages,
                    };
                    let shards = shared.shards;
                    self.burial
                        .tell(word, Some(frame), &mut self.outbox, shards);
                    continue;
                }
            };
            let parcel = keeper.ledger.filter(|_ledger| is_retained);
            let parcel = parcel.map(Ledger::next_parcel);
            is_noted |= parcel.is_some();
            self.untaken.push(id, missing, None);
            self.unsafe_yet.push(id, missing, parcel);
        }
        if let Some(ledger) = ledger.as_mut().filter(|_ledger| is_noted) {
            ledger.send();
        }
    }

    /// Passes one item's messages on; the result is how many frames have to be confirmed, and whether
    /// some are retained.
    fn deliver(&mut self, keeper: &Keeper<'_>, id: ItemId, mut messages: &[u8]) -> (usize, bool) {
        let Keeper {
            shared,
            counters,
            now,
            ..
        } = *keeper;
        let (mut missing, mut is_retained) = (0, false);
        while let Some(content) = frame::read_content(&mut messages, now) {
            let (message, seats, at) = match content {
                Content::Message(item) => (item.message, item.seats, item.mark.retained_at),
                Content::Word { bytes, is_awaited } => {
                    missing += if replica::word::is_such(bytes) {
                        self.pass_copy(keeper, id, bytes)
                    } else {
                        self.pass_word(shared, id, bytes, is_awaited)
                    };
                    continue;
                }
            };
            if !topic::is_valid_name(&message.topic) || sys::is_reserved(&message.topic) {
                continue;
            }
            counters.inc(Metric::ClusterIn);
            if !seats.is_empty() {
                missing += self.share_out(keeper, id, &message, &seats);
                continue;
            }
            let message = Arc::new(message);
            if message.retain {
                is_retained |= keeper.publish(&message, at);
            }
            let shards = shared.routes.matching(&message.topic);
            for shard in (0..shared.shards).map(ShardId) {
                if !shards.contains(shard) {
                    continue;
                }
                let sequence = self.outbox.push(shard, &message, &[], now);
                if message.qos > Qos::AtMostOnce {
                    missing += self.wait_for(shard, sequence, id);
                }
            }
        }
        (missing, is_retained)
    }

    /// Has an item wait for a frame; the result is for how many more that is.
    fn wait_for(&mut self, shard: ShardId, sequence: u64, id: ItemId) -> usize {
        self.untaken.wait_for(shard, sequence, id);
        self.unsafe_yet.wait_for(shard, sequence, id)
    }

    /// Passes a word on to the shards that it is for; the result is how many frames have to be
    /// confirmed.
    fn pass_word(&mut self, shared: &Shared, id: ItemId, bytes: &[u8], is_awaited: bool) -> usize {
        let Some(word) = Word::decode(bytes) else {
            return 0;
        };
        let shards = match word.recipient() {
            Recipient::Client(client_id) => {
                let shard = shared.shard_of(client_id);
                shard.0..shard.0 + 1
            }
            Recipient::Shard(shard) if shard < shared.shards => shard..shard + 1,
            Recipient::Shard(_) => 0..0,
            Recipient::All => 0..shared.shards,
        };
        let mut missing = 0;
        for shard in shards.map(ShardId) {
            let sequence = self.outbox.push_word(shard, bytes, is_awaited);
            if is_awaited {
                missing += self.wait_for(shard, sequence, id);
            }
        }
        missing
    }

    /// As [`Slot::pass_word`], for what is told of copies.
    fn pass_copy(&mut self, keeper: &Keeper<'_>, id: ItemId, word: &[u8]) -> usize {
        let (shared, now) = (keeper.shared, keeper.now);
        let mut missing = 0;
        let (life, piece) = match replica::word::Word::decode(word) {
            Some(replica::word::Word::Steps { life, piece }) => (life, piece),
            Some(replica::word::Word::Strays { node, messages }) => {
                for (shard, sequence) in self.push_orphans(shared, node, messages, keeper.graves) {
                    missing += self.wait_for(shard, sequence, id);
                }
                return missing;
            }
            Some(replica::word::Word::Buried(node)) => {
                self.heard.push(node);
                return 0;
            }
            Some(replica::word::Word::Told { .. }) => {
                for shard in (0..shared.shards).map(ShardId) {
                    self.outbox.push_word(shard, word, false);
                }
                return 0;
            }
            // The others are a node's own.
            Some(
                replica::word::Word::Lost(_)
                | replica::word::Word::Orphans { .. }
                | replica::word::Word::Regroup(_),
            )
            | None => return 0,
        };
        for (shard, piece) in split(piece, now, |client| shared.shard_of_hash(client)) {
            let piece = &piece;
            let word = replica::word::Word::Steps { life, piece }.encode();
            let sequence = self.outbox.push_word(shard, &word, true);
            missing += self.wait_for(shard, sequence, id);
        }
        missing
    }

    /// Hands messages for the sessions of a node that was there to all shards; the result is the frames
    /// that they are in.
    fn push_orphans(
        &mut self,
        shared: &Shared,
        node: u64,
        messages: &[u8],
        graves: &[Grave],
    ) -> Vec<(ShardId, u64)> {
        let grave = graves.iter().find(|grave| grave.node == node);
        let Some(Grave { end: of, .. }) = grave.copied() else {
            return Vec::new();
        };
        let word = replica::word::Word::Orphans { of, messages }.encode();
        let shards = (0..shared.shards).map(ShardId);
        let push = |shard| (shard, self.outbox.push_word(shard, &word, true));
        shards.map(push).collect()
    }

    /// Gives what was put aside to the sessions that it is for, if there are any.
    fn give_stray(&mut self, shared: &Shared, id: ItemId, messages: &[u8], graves: &[Grave]) {
        let word = frame::first_word(messages).and_then(replica::word::Word::decode);
        let frames = match word {
            Some(replica::word::Word::Strays { node, messages }) => {
                self.push_orphans(shared, node, messages, graves)
            }
            // No other words are put aside.
            Some(
                replica::word::Word::Steps { .. }
                | replica::word::Word::Lost(_)
                | replica::word::Word::Orphans { .. }
                | replica::word::Word::Buried(_)
                | replica::word::Word::Regroup(_)
                | replica::word::Word::Told { .. },
            )
            | None => Vec::new(),
        };
        self.strays.expect(id, &frames);
    }

    /// Whether some found no room, or wait for what is before them.
    pub(super) fn is_waiting(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// Takes note of what became of a frame.
    pub(super) fn confirm(&mut self, confirmation: Confirmation) {
        let Confirmation {
            reader: shard,
            sequence,
            level,
        } = confirmation;
        match level {
            Level::Taken => {
                self.untaken.confirm(shard, sequence);
                self.burial.handle_taken(shard, sequence);
            }
            Level::Passed | Level::Safe => {
                self.unsafe_yet.confirm(shard, sequence);
                self.strays.confirm(shard, sequence);
                self.burial.confirm(shard, sequence);
            }
        }
    }

    /// The last of the items in front that are in all sessions.
    pub(super) fn poll_delivered(&mut self) -> Option<ItemId> {
        self.untaken.poll(0)
    }

    /// The last of those that cannot be lost, if the store has parcels up to this one.
    pub(super) fn poll_safe(&mut self, stored: u64) -> Option<ItemId> {
        self.unsafe_yet.poll(stored)
    }
}

/// A node that was there.
#[derive(Clone, Copy, Debug)]
pub(super) struct Grave {
    /// The hash of its name.
    pub(super) node: u64,
    pub(super) end: ShardId,
    pub(super) rest: Rest,
    /// For how long it is waited for that it is buried.
    pub(super) patience: Duration,
}
