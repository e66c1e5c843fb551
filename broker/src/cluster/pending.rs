//! Which items of a peer are where they belong, in order.

use std::collections::{BTreeMap, VecDeque};

use super::slot::ItemId;
use crate::routes::ShardId;

/// Items that wait for their frames to shards.
#[derive(Debug, Default)]
pub(super) struct Pending {
    open: VecDeque<Open>,
    /// Which items wait for a frame to a shard.
    awaited: BTreeMap<(ShardId, u64), Vec<ItemId>>,
}

#[derive(Debug)]
struct Open {
    id: ItemId,
    /// Frames that shards have not confirmed.
    missing: usize,
    /// The store's parcel that has what is retained of it.
    parcel: Option<u64>,
}

impl Pending {
    /// Has an item wait for a frame; the result is for how many more that is.
    pub(super) fn wait_for(&mut self, shard: ShardId, sequence: u64, id: ItemId) -> usize {
        let items = self.awaited.entry((shard, sequence)).or_default();
        if items.last() == Some(&id) {
            return 0;
        }
        items.push(id);
        1
    }

    /// Adds an item that waits for so many frames.
    pub(super) fn push(&mut self, id: ItemId, missing: usize, parcel: Option<u64>) {
        self.open.push_back(Open {
            id,
            missing,
            parcel,
        });
    }

    /// Notes that a shard has confirmed a frame.
    pub(super) fn confirm(&mut self, shard: ShardId, sequence: u64) {
        for id in self.awaited.remove(&(shard, sequence)).unwrap_or_default() {
            // In the order in which they came, so the search is short.
            let open = self.open.iter_mut().find(|open| open.id == id);
            if let Some(open) = open {
                open.missing = open.missing.saturating_sub(1);
            }
        }
    }

    /// The last of the items in front that wait for nothing, if the store has parcels up to this one.
    pub(super) fn poll(&mut self, stored: u64) -> Option<ItemId> {
        let is_there = |open: &mut Open| {
            open.missing == 0 && open.parcel.is_none_or(|parcel| parcel <= stored)
        };
        let mut there = None;
        while let Some(open) = self.open.pop_front_if(is_there) {
            there = Some(open.id);
        }
        there
    }
}
