//! A shard's part in the cluster: filters that other nodes are told, and SUBACKs that wait until they
//! know of them.
//!
//! Who has its SUBACK gets what is published anywhere in the cluster from then on. Nodes are told in
//! milliseconds; one that hangs is not waited for longer than [`PATIENCE`].

use std::{
    collections::VecDeque,
    rc::{Rc, Weak},
    time::{Duration, Instant},
};

use super::{SessionKey, Shard, Shared};
use crate::{codec::packet::PacketId, link::Link, routes::ShardId, trie::Removed};

/// How long a client waits for its SUBACK at most.
const PATIENCE: Duration = Duration::from_secs(1);

/// SUBACKs that may wait. When more do, nodes do not keep up, and clients are answered at once.
const WAITING: usize = 10_000;

/// SUBACKs that have not been sent, in the order of their packets.
#[derive(Default)]
pub(super) struct Subacks(VecDeque<Suback>);

struct Suback {
    /// The filters that other nodes have to know.
    version: u64,
    deadline: Instant,
    /// The client may have gone meanwhile.
    link: Weak<Link>,
    id: PacketId,
    codes: Vec<u8>,
}

impl Subacks {
    /// The next one that need not wait any more.
    fn pop(&mut self, known: u64, now: Instant) -> Option<Suback> {
        self.0
            .pop_front_if(|suback| suback.version <= known || suback.deadline <= now)
    }
}

impl Shard {
    /// Sends the session nothing more for a filter that is its own.
    pub(super) fn cancel(&mut self, key: SessionKey, filter: &str) {
        if self.subscribers.remove(filter, &key) == Removed::LastSubscriber {
            self.shared.remove_route(filter, self.id);
            if self.account.is_some() {
                self.shared.kept_routes.remove(filter, self.id);
            }
        }
    }

    /// Answers a SUBSCRIBE, once other nodes know of its filters.
    pub(super) fn answer_subscribe(
        &mut self,
        link: &Rc<Link>,
        id: PacketId,
        codes: Vec<u8>,
        now: Instant,
    ) {
        let cluster = self.shared.cluster.as_ref();
        let version = cluster.and_then(|cluster| cluster.untold());
        match version.filter(|_version| self.clustered.subacks.0.len() < WAITING) {
            None => link.suback(id, &codes),
            Some(version) => self.clustered.subacks.0.push_back(Suback {
                version,
                deadline: now + PATIENCE,
                link: Rc::downgrade(link),
                id,
                codes,
            }),
        }
    }

    /// Sends the SUBACKs whose time has come; `known` is the version that other nodes have.
    pub(super) fn release_subacks(&mut self, known: u64, now: Instant) {
        while let Some(suback) = self.clustered.subacks.pop(known, now) {
            if let Some(link) = suback.link.upgrade() {
                link.suback(suback.id, &suback.codes);
            }
        }
    }
}

impl Shared {
    /// How many destinations the lanes have: shards, and places for other nodes.
    pub(crate) fn ends(&self) -> u16 {
        match &self.cluster {
            Some(_cluster) => self.shards + crate::cluster::PEERS,
            None => self.shards,
        }
    }

    /// Makes messages for the filter go to a shard, and has other nodes know.
    pub(super) fn add_route(&self, filter: &str, shard: ShardId) {
        self.routes.add(filter, shard);
        if let Some(cluster) = &self.cluster {
            cluster.add_filter(filter);
        }
    }

    pub(super) fn remove_route(&self, filter: &str, shard: ShardId) {
        self.routes.remove(filter, shard);
        if let Some(cluster) = &self.cluster {
            cluster.remove_filter(filter);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn suback(version: u64, deadline: Instant) -> Suback {
        Suback {
            version,
            deadline,
            link: Weak::new(),
            id: PacketId::MIN,
            codes: Vec::new(),
        }
    }

    #[test]
    fn subacks_leave_in_order_when_nodes_know_or_time_is_over() {
        let now = Instant::now();
        let mut subacks = Subacks::default();
        for version in 1..=3 {
            let patience = PATIENCE * u32::try_from(version).unwrap();
            subacks.0.push_back(suback(version, now + patience));
        }
        assert!(subacks.pop(0, now).is_none());
        assert_eq!(subacks.pop(1, now).unwrap().version, 1);
        assert!(subacks.pop(1, now).is_none());
        let later = now + 2 * PATIENCE;
        assert_eq!(subacks.pop(1, later).unwrap().version, 2);
        assert!(subacks.pop(1, later).is_none());
    }
}
