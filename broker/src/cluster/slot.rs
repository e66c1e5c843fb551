//! What the driver has for one peer: the way of its messages to this node's shards.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Arc, PoisonError, RwLockWriteGuard},
    time::Instant,
};

use bytes::Bytes;

use super::{
    Ledger,
    word::{Recipient, Word},
};
use crate::{
    lanes::{
        Outbox,
        frame::{self, Content, Writer},
    },
    message::{Message, Qos},
    metrics::{Counters, Metric},
    retained::{Page, Retained},
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
    /// The store's parcel that has what is retained of it.
    parcel: Option<u64>,
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
    pub(super) fn pass_on(
        &mut self,
        shared: &Shared,
        mut ledger: Option<&mut Ledger>,
        counters: &Counters,
        now: Instant,
    ) {
        let mut is_noted = false;
        while !self.outbox.is_congested()
            && let Some(Item { id, kind, messages }) = self.waiting.pop_front()
        {
            let keeper = Keeper {
                shared,
                ledger: ledger.as_deref(),
                counters,
                now,
            };
            let (missing, is_retained) = match kind {
                Kind::Published => self.deliver(&keeper, id, &messages),
                Kind::Retained => (0, keeper.keep(&messages)),
            };
            let parcel = keeper.ledger.filter(|_ledger| is_retained);
            let parcel = parcel.map(Ledger::next_parcel);
            is_noted |= parcel.is_some();
            self.open.push_back(Open {
                id,
                missing,
                parcel,
            });
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
            let message = match content {
                Content::Message(item) => item.message,
                Content::Word { bytes, is_awaited } => {
                    missing += self.pass_word(shared, id, bytes, is_awaited);
                    continue;
                }
            };
            if !topic::is_valid_name(&message.topic) || sys::is_reserved(&message.topic) {
                continue;
            }
            counters.inc(Metric::ClusterIn);
            let message = Arc::new(message);
            if message.retain {
                is_retained |= keeper.store(&mut keeper.retained(), &message);
            }
            let shards = shared.routes.matching(&message.topic);
            for shard in (0..shared.shards).map(ShardId) {
                if !shards.contains(shard) {
                    continue;
                }
                let sequence = self.outbox.push(shard, &message, &[], now);
                if message.qos > Qos::AtMostOnce {
                    missing += self.await_frame(id, shard, sequence);
                }
            }
        }
        (missing, is_retained)
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
                missing += self.await_frame(id, shard, sequence);
            }
        }
        missing
    }

    /// Has an item wait for a frame; the result is 1 unless it does so already.
    fn await_frame(&mut self, id: ItemId, shard: ShardId, sequence: u64) -> usize {
        let items = self.awaited.entry((shard, sequence)).or_default();
        let is_new = items.last() != Some(&id);
        if is_new {
            items.push(id);
        }
        usize::from(is_new)
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

    /// The last of the items in front that are in all sessions, and in the store up to this parcel.
    pub(super) fn poll_delivered(&mut self, stored: u64) -> Option<ItemId> {
        let is_there = |open: &mut Open| {
            open.missing == 0 && open.parcel.is_none_or(|parcel| parcel <= stored)
        };
        let mut delivered = None;
        while let Some(open) = self.open.pop_front_if(is_there) {
            delivered = Some(open.id);
        }
        delivered
    }
}

/// Where retained messages go.
struct Keeper<'a> {
    shared: &'a Shared,
    ledger: Option<&'a Ledger>,
    counters: &'a Counters,
    now: Instant,
}

impl Keeper<'_> {
    /// Tells whether the store may have to know.
    fn store(&self, retained: &mut Retained, message: &Arc<Message>) -> bool {
        let can_retain = |ledger: &Ledger| ledger.can_retain(message);
        let can_retain = self.ledger.is_none_or(can_retain);
        let is_kept = can_retain && retained.store(message, self.now);
        self.counters
            .add(Metric::RefusedRetained, usize::from(!is_kept));
        can_retain
    }

    fn retained(&self) -> RwLockWriteGuard<'_, Retained> {
        let retained = self.shared.retained.write();
        retained.unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps another node's retained messages of topics that have none here; tells whether the store
    /// may have to know.
    fn keep(&self, mut messages: &[u8]) -> bool {
        let mut is_noted = false;
        let mut retained = self.retained();
        while let Some((message, _seats)) = frame::read_message(&mut messages, self.now) {
            let is_legal =
                topic::is_valid_name(&message.topic) && !sys::is_reserved(&message.topic);
            if is_legal && !retained.has_message(&message.topic) {
                is_noted |= self.store(&mut retained, &Arc::new(message));
            }
        }
        is_noted
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
