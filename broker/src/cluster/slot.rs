//! What the driver has for one peer: the way of its messages to this node's shards.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Arc, PoisonError},
    time::Instant,
};

use bytes::Bytes;

use crate::{
    lanes::{
        Outbox,
        frame::{self, Writer},
    },
    message::Qos,
    metrics::{Counters, Metric},
    retained::Page,
    routes::ShardId,
    shard::Shared,
    sys, topic,
};

/// Bytes of retained messages after which a page of them for a peer ends.
pub(super) const PAGE_BYTES: usize = 256 * 1024;

/// Messages of a peer on their way to the shards.
pub(super) struct Slot {
    pub(super) outbox: Outbox,
    /// Items that find no room on the lanes. They are bounded by what the peer may send without an
    /// answer.
    waiting: VecDeque<Item>,
    /// Items that are not in all sessions, in order.
    open: VecDeque<Open>,
    /// Which items wait for a frame to a shard.
    awaited: BTreeMap<(ShardId, u64), Vec<ItemId>>,
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
}

struct Open {
    id: ItemId,
    /// Frames that shards have not confirmed.
    missing: usize,
}

impl Slot {
    pub(super) fn new(outbox: Outbox) -> Self {
        Self {
            outbox,
            waiting: VecDeque::new(),
            open: VecDeque::new(),
            awaited: BTreeMap::new(),
        }
    }

    pub(super) fn push(&mut self, id: ItemId, kind: Kind, messages: Bytes) {
        self.waiting.push_back(Item { id, kind, messages });
    }

    /// Passes on what there is room for.
    pub(super) fn pass_on(&mut self, shared: &Shared, counters: &Counters, now: Instant) {
        while !self.outbox.is_congested()
            && let Some(Item { id, kind, messages }) = self.waiting.pop_front()
        {
            let missing = match kind {
                Kind::Published => self.deliver(shared, counters, id, &messages, now),
                Kind::Retained => {
                    keep(shared, counters, &messages, now);
                    0
                }
            };
            self.open.push_back(Open { id, missing });
        }
    }

    /// Passes one item's messages on; the result is how many frames have to be confirmed.
    fn deliver(
        &mut self,
        shared: &Shared,
        counters: &Counters,
        id: ItemId,
        mut messages: &[u8],
        now: Instant,
    ) -> usize {
        let mut missing = 0;
        while let Some((message, _seats)) = frame::read_message(&mut messages, now) {
            if !topic::is_valid_name(&message.topic) || sys::is_reserved(&message.topic) {
                continue;
            }
            counters.inc(Metric::ClusterIn);
            let message = Arc::new(message);
            if message.retain {
                let retained = &shared.retained;
                let mut retained = retained.write().unwrap_or_else(PoisonError::into_inner);
                let is_kept = retained.store(&message, now);
                counters.add(Metric::RefusedRetained, usize::from(!is_kept));
            }
            let shards = shared.routes.matching(&message.topic);
            for shard in (0..shared.shards).map(ShardId) {
                if !shards.contains(shard) {
                    continue;
                }
                let sequence = self.outbox.push(shard, &message, &[], now);
                if message.qos > Qos::AtMostOnce {
                    let items = self.awaited.entry((shard, sequence)).or_default();
                    if items.last() != Some(&id) {
                        items.push(id);
                        missing += 1;
                    }
                }
            }
        }
        missing
    }

    /// Whether some found no room.
    pub(super) fn is_waiting(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// Notes that a shard has taken a frame.
    pub(super) fn confirm(&mut self, shard: ShardId, sequence: u64) {
        for id in self.awaited.remove(&(shard, sequence)).unwrap_or_default() {
            // In the order in which they came, so the search is short.
            let open = self.open.iter_mut().find(|open| open.id == id);
            if let Some(open) = open {
                open.missing = open.missing.saturating_sub(1);
            }
        }
    }

    /// The last of the items in front that are in all sessions.
    pub(super) fn poll_delivered(&mut self) -> Option<ItemId> {
        let mut delivered = None;
        while let Some(open) = self.open.pop_front_if(|open| open.missing == 0) {
            delivered = Some(open.id);
        }
        delivered
    }
}

/// Keeps another node's retained messages of topics that have none here.
fn keep(shared: &Shared, counters: &Counters, mut messages: &[u8], now: Instant) {
    let retained = &shared.retained;
    let mut retained = retained.write().unwrap_or_else(PoisonError::into_inner);
    while let Some((message, _seats)) = frame::read_message(&mut messages, now) {
        let is_legal = topic::is_valid_name(&message.topic) && !sys::is_reserved(&message.topic);
        if is_legal && !retained.has_message(&message.topic) {
            let is_kept = retained.store(&Arc::new(message), now);
            counters.add(Metric::RefusedRetained, usize::from(!is_kept));
        }
    }
}

/// One page of this node's retained messages, and the topic behind which the next one begins.
pub(super) fn retained_page(
    shared: &Shared,
    after: Option<&str>,
    now: Instant,
) -> (Bytes, Option<Box<str>>) {
    let retained = &shared.retained;
    let retained = retained.read().unwrap_or_else(PoisonError::into_inner);
    let Page { messages, next } = retained.page_within(PAGE_BYTES, after, now);
    drop(retained);
    let mut page = Writer::new(ShardId(0), 0);
    for kept in messages {
        page.push(&kept.message, &[], now);
    }
    // The header is of lanes alone.
    (page.finish().slice(frame::HEADER..), next)
}
