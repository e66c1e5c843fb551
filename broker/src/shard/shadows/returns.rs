//! Which nodes are there, and since when: one that was held for gone brings its own sessions once more,
//! and for a while it has to be known what clients have had of them here.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use crate::{replica::place::Peer, routes::ShardId};

/// Of all other nodes, by the hashes of their names.
#[derive(Debug, Default)]
pub(super) struct Returns {
    /// Who was at the end of a lane last.
    nodes: BTreeMap<ShardId, u64>,
    /// Since when it is there; `None` when it has brought what it had.
    there: BTreeMap<u64, Option<Instant>>,
}

impl Returns {
    pub(super) fn note_peers(&mut self, peers: &[Peer], now: Instant) {
        let nodes = peers.iter().map(|peer| (peer.place.end, peer.node));
        self.nodes.extend(nodes);
        let there = peers.iter().map(|peer| {
            let since = self.there.get(&peer.node);
            (peer.node, since.copied().unwrap_or(Some(now)))
        });
        self.there = there.collect();
    }

    /// Who is, or was, at this end of a lane.
    pub(super) fn node_at(&self, end: ShardId) -> Option<u64> {
        self.nodes.get(&end).copied()
    }

    /// Whether a node is there, and has brought all that it had.
    pub(super) fn is_over(&self, node: u64) -> bool {
        self.there.get(&node) == Some(&None)
    }

    /// Whether some have just been there for so long.
    pub(super) fn poll_over(&mut self, memory: Duration, now: Instant) -> bool {
        let mut is_news = false;
        for since in self.there.values_mut() {
            let is_old = |since: &mut Instant| now.saturating_duration_since(*since) >= memory;
            is_news |= since.take_if(is_old).is_some();
        }
        is_news
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::replica::place::Place;

    #[test]
    fn node_has_brought_all_when_it_was_there_for_a_while_each_time() {
        const MEMORY: Duration = Duration::from_secs(10);
        let (end, node) = (ShardId(3), 7);
        let place = Place { end, life: 1 };
        let peer = Peer { place, node };
        let mut now = Instant::now();
        let mut returns = Returns::default();
        assert_eq!(returns.node_at(end), None);
        for _ in 0..2 {
            returns.note_peers(&[peer], now);
            now += MEMORY / 2;
            returns.note_peers(&[peer], now);
            assert!(!returns.poll_over(MEMORY, now) && !returns.is_over(node));
            now += MEMORY / 2;
            assert!(returns.poll_over(MEMORY, now) && returns.is_over(node));
            returns.note_peers(&[peer], now);
            assert!(!returns.poll_over(MEMORY, now) && returns.is_over(node));
            returns.note_peers(&[], now);
            assert!(!returns.is_over(node));
            assert_eq!(returns.node_at(end), Some(node));
        }
    }
}
