//! A shard's sending half: frames being filled, waiting, and on their way.

use std::{collections::VecDeque, sync::Arc, time::Instant};

use bytes::Bytes;
use rumqttd::{
    local::LinkTx,
    protocol::{Packet, Publish},
};

use super::{
    Lanes,
    frame::{Mark, Writer},
    lane_topic,
};
use crate::{message::Message, routes::ShardId, shares::Seat};

/// A frame is closed when it is this long, so that a burst does not become one huge copy.
const FRAME_BYTES: usize = 64 * 1024;

/// Bytes that may wait for a full lane before the shard stops reading from its clients.
const WAITING_BOUND: usize = 2 * 1024 * 1024;

/// Below this it reads again. Far enough below the bound that every client gets a turn before the
/// next stop: with less room than one turn takes, the first in line would be served for ever.
const WAITING_LOW: usize = WAITING_BOUND / 2;

/// Bytes that may wait for another node before the shard reads nothing at all. What is published there
/// ends far below, and the steps of sessions by what may be noted and not be safe; this is for what
/// has no other bound: claims, and steps while the store fails.
const PEER_BOUND: usize = 8 * WAITING_BOUND;

/// Below this it reads again.
const PEER_LOW: usize = PEER_BOUND / 2;

/// No lane has this topic; a publish to it only makes the Router look at the link.
const NUDGE: &str = "nudge";

/// Frames to all other shards.
pub struct Outbox {
    me: ShardId,
    lanes: Arc<Lanes>,
    tx: Option<LinkTx>,
    to: Vec<Destination>,
    needs_nudge: bool,
}

/// Whether a flush sent everything.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flushed {
    All,
    /// A lane or the Router's channel is full: flush again soon.
    Blocked,
}

struct Destination {
    shard: ShardId,
    topic: Bytes,
    sequence: u64,
    open: Option<Writer>,
    waiting: VecDeque<Sealed>,
    waiting_bytes: usize,
    /// Sent, and not yet known to be consumed.
    sent: VecDeque<Sealed>,
}

#[derive(Clone)]
struct Sealed {
    sequence: u64,
    bytes: Bytes,
}

impl Outbox {
    pub fn new(me: ShardId, shards: u16, lanes: Arc<Lanes>) -> Self {
        let destination = |shard| Destination {
            shard,
            topic: Bytes::from(lane_topic(shard)),
            sequence: 0,
            open: None,
            waiting: VecDeque::new(),
            waiting_bytes: 0,
            sent: VecDeque::new(),
        };
        let to = (0..shards).map(ShardId).map(destination).collect();
        Self {
            me,
            lanes,
            tx: None,
            to,
            needs_nudge: false,
        }
    }

    /// Whose frames these are.
    pub fn me(&self) -> ShardId {
        self.me
    }

    /// Adds a message to the open frame for a shard: for all of its subscribers, or for these seats.
    /// Returns the frame's number.
    pub fn push(&mut self, to: ShardId, message: &Message, seats: &[Seat], now: Instant) -> u64 {
        self.push_marked(Mark::default(), to, message, seats, now)
    }

    /// As [`Outbox::push`], with what its reader is to know of it besides.
    pub fn push_marked(
        &mut self,
        mark: Mark,
        to: ShardId,
        message: &Message,
        seats: &[Seat],
        now: Instant,
    ) -> u64 {
        self.write(to, |frame| frame.push_marked(mark, message, seats, now))
    }

    /// Adds a word to the open frame for a shard. Returns the frame's number.
    pub fn push_word(&mut self, to: ShardId, word: &[u8], is_awaited: bool) -> u64 {
        self.write(to, |frame| frame.push_word(word, is_awaited))
    }

    fn write(&mut self, to: ShardId, write: impl FnOnce(&mut Writer)) -> u64 {
        let destination = &mut self.to[usize::from(to.0)];
        let open = destination.open.get_or_insert_with(|| {
            destination.sequence += 1;
            Writer::new(self.me, destination.sequence)
        });
        write(open);
        if open.len() >= FRAME_BYTES {
            destination.seal();
        }
        destination.sequence
    }

    /// Bytes that wait for room on the lane of a shard.
    pub fn waiting(&self, to: ShardId) -> usize {
        let destination = self.to.get(usize::from(to.0));
        destination.map_or(0, |destination| destination.waiting_bytes)
    }

    /// Whether so much waits that the shard should not take more from its clients.
    pub fn is_congested(&self) -> bool {
        waits_above(WAITING_BOUND, &self.to)
    }

    /// As [`Outbox::is_congested`], for a shard that sends nothing more of publishers to other nodes: they
    /// come behind the node's own shards, which are so many.
    pub fn is_blocked(&self, shards: u16) -> bool {
        let (shards, peers) = self.split(shards);
        waits_above(WAITING_BOUND, shards) || waits_above(PEER_BOUND, peers)
    }

    /// Whether enough was sent that clients may be read from again.
    pub fn is_relieved(&self) -> bool {
        !waits_above(WAITING_LOW, &self.to)
    }

    /// As [`Outbox::is_relieved`], where [`Outbox::is_blocked`] was true.
    pub fn is_unblocked(&self, shards: u16) -> bool {
        let (shards, peers) = self.split(shards);
        !waits_above(WAITING_LOW, shards) && !waits_above(PEER_LOW, peers)
    }

    fn split(&self, shards: u16) -> (&[Destination], &[Destination]) {
        self.to.split_at(usize::from(shards).min(self.to.len()))
    }

    /// Whether every frame has reached its reader.
    pub fn is_delivered(&self) -> bool {
        self.to.iter().all(|destination| {
            destination.open.is_none()
                && destination.waiting.is_empty()
                && self.lanes.consumed(destination.shard, self.me) >= destination.sequence
        })
    }

    /// How many frames there were, the open ones included.
    pub fn frames(&self) -> u64 {
        self.to.iter().map(|destination| destination.sequence).sum()
    }

    /// Hands frames to the Router, with one wake-up for all of them.
    pub fn flush(&mut self) -> Flushed {
        let mut batch = Vec::new();
        let mut flushed = Flushed::All;
        for destination in &mut self.to {
            destination.seal();
            destination.forget_consumed(self.lanes.consumed(destination.shard, self.me));
            while let Some(next) = destination.waiting.front() {
                if !self.lanes.reserve(destination.shard, next.bytes.len()) {
                    flushed = Flushed::Blocked;
                    break;
                }
                let Some(next) = destination.waiting.pop_front() else {
                    break;
                };
                destination.waiting_bytes -= next.bytes.len();
                batch.push((destination.topic.clone(), next.bytes.clone()));
                destination.sent.push_back(next);
            }
        }
        self.send(batch);
        if self.needs_nudge {
            Flushed::Blocked
        } else {
            flushed
        }
    }

    /// Takes the link to a new Router and repeats what the old one may have lost.
    pub fn rejoin(&mut self, tx: LinkTx) {
        self.tx = Some(tx);
        let mut batch = Vec::new();
        for destination in &mut self.to {
            destination.forget_consumed(self.lanes.consumed(destination.shard, self.me));
            let repeat = |sealed: &Sealed| (destination.topic.clone(), sealed.bytes.clone());
            batch.extend(destination.sent.iter().map(repeat));
        }
        self.send(batch);
    }

    fn send(&mut self, mut batch: Vec<(Bytes, Bytes)>) {
        // Between two Routers there is no link; `rejoin` repeats what is sent into the void.
        let Some(tx) = &mut self.tx else { return };
        let is_nudge = batch.is_empty();
        let last = match batch.pop() {
            Some(last) => last,
            None if self.needs_nudge => (Bytes::from_static(NUDGE.as_bytes()), Bytes::new()),
            None => return,
        };
        if !batch.is_empty() {
            let frames = batch
                .into_iter()
                .map(|(topic, frame)| Packet::Publish(Publish::new(topic, frame, false), None));
            tx.buffer().extend(frames);
        }
        // The frame is in the link's buffer even when the wake-up does not fit into the Router's
        // channel. A closed channel is noticed by the inbox, which then rejoins.
        self.needs_nudge = tx.try_publish(last.0, last.1).is_err();
        // A Router that takes nothing for long is not to find a heap of nudges.
        if is_nudge && self.needs_nudge {
            tx.buffer().pop_back();
        }
    }
}

fn waits_above(bytes: usize, to: &[Destination]) -> bool {
    to.iter()
        .any(|destination| destination.waiting_bytes > bytes)
}

impl Destination {
    fn seal(&mut self) {
        let Some(open) = self.open.take() else { return };
        let sealed = Sealed {
            sequence: self.sequence,
            bytes: open.finish(),
        };
        self.waiting_bytes += sealed.bytes.len();
        self.waiting.push_back(sealed);
    }

    fn forget_consumed(&mut self, consumed: u64) {
        while self
            .sent
            .front()
            .is_some_and(|sealed| sealed.sequence <= consumed)
        {
            self.sent.pop_front();
        }
    }
}
