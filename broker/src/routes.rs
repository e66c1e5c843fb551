//! Which shards of this node have subscribers for a topic.
//!
//! Shared by all shards: a publisher's shard asks here where a message has to go, so that a lane
//! carries it only to shards that want it. Peer nodes of a cluster are further destinations of the
//! same tree.

use std::sync::{PoisonError, RwLock};

use crate::trie::Trie;

/// A shard's place in its node. Behind the shards are the places of other nodes of a cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ShardId(pub u16);

/// A set of shards, and of other nodes; there are at most [`ShardSet::CAPACITY`] of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ShardSet(u64);

impl ShardSet {
    /// What one machine word can name.
    pub const CAPACITY: u16 = 64;

    pub const NONE: Self = Self(0);

    pub fn insert(&mut self, shard: ShardId) {
        self.0 |= 1_u64.wrapping_shl(u32::from(shard.0));
    }

    pub fn contains(self, shard: ShardId) -> bool {
        self.0 & 1_u64.wrapping_shl(u32::from(shard.0)) != 0
    }

    #[must_use]
    pub fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    pub fn is_empty(self) -> bool {
        self.0 == 0
    }
}

/// The node's tree of filters by shard.
#[derive(Debug, Default)]
pub struct Routes {
    tree: RwLock<Trie<ShardId, ()>>,
}

impl Routes {
    /// Makes messages for the filter go to the shard, from the return of this call on.
    pub fn add(&self, filter: &str, shard: ShardId) {
        self.tree
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(filter, shard, ());
    }

    pub fn remove(&self, filter: &str, shard: ShardId) {
        self.tree
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(filter, &shard);
    }

    #[cfg(test)]
    pub(crate) fn nodes(&self) -> usize {
        self.tree.read().unwrap().nodes()
    }

    /// The shards that have a subscriber for the topic.
    pub fn matching(&self, topic: &str) -> ShardSet {
        let mut shards = ShardSet::default();
        self.tree
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .for_each_match(topic, |shard, ()| shards.insert(*shard));
        shards
    }
}
