//! What is left to do for a peer that is gone: its sessions go on from their copies, and what it was
//! sent and may not have had is for them.
//!
//! ```text
//! the peer is lost -> word to all shards, behind all that it said -> copies become sessions
//! what it had not taken -> to all shards, behind that word -> taken -> its publishers are answered
//! its filters stay in the routes until all shards have its sessions: no message falls in between
//! ```

use std::collections::{BTreeMap, BTreeSet};

use super::{pair::FrameId, wire::Change};
use crate::{lanes::Outbox, replica::word::Word, routes::ShardId, shard::Shared};

/// Of one slot.
#[derive(Debug, Default)]
pub(super) struct Burial {
    /// Losses that not all shards have heard of.
    losses: usize,
    /// Frames to shards that have to be confirmed.
    awaited: BTreeMap<(ShardId, u64), Vec<Matter>>,
    /// Of how many shards each has yet to be confirmed.
    missing: BTreeMap<Matter, usize>,
    /// Filters that are to be removed from the routes.
    routes: BTreeSet<Box<str>>,
    /// Frames whose messages are where they belong.
    done: Vec<FrameId>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Matter {
    Loss(u64),
    Orphan(FrameId),
}

impl Burial {
    /// Notes that the peer is lost; a word to the shards is to follow.
    pub(super) fn begin(&mut self) {
        self.losses += 1;
    }

    /// Tells all shards; the frame is one whose messages these are.
    pub(super) fn tell(
        &mut self,
        word: Word<'_>,
        frame: Option<FrameId>,
        outbox: &mut Outbox,
        shards: u16,
    ) {
        let word = word.encode();
        let mut matter = frame.map(Matter::Orphan);
        for shard in (0..shards).map(ShardId) {
            let sequence = outbox.push_word(shard, &word, true);
            let matter = *matter.get_or_insert(Matter::Loss(sequence));
            self.awaited
                .entry((shard, sequence))
                .or_default()
                .push(matter);
            *self.missing.entry(matter).or_default() += 1;
        }
    }

    /// Notes that a shard has taken a frame.
    pub(super) fn confirm(&mut self, shard: ShardId, sequence: u64) {
        for matter in self.awaited.remove(&(shard, sequence)).unwrap_or_default() {
            let Some(missing) = self.missing.get_mut(&matter) else {
                continue;
            };
            *missing -= 1;
            if *missing > 0 {
                continue;
            }
            self.missing.remove(&matter);
            match matter {
                Matter::Loss(_) => self.losses = self.losses.saturating_sub(1),
                Matter::Orphan(frame) => self.done.push(frame),
            }
        }
    }

    /// A frame whose messages the shards have, if there is one.
    pub(super) fn poll_done(&mut self) -> Option<FrameId> {
        self.done.pop()
    }

    /// Makes messages for a filter go to the peer, or no longer.
    pub(super) fn change_route(&mut self, change: Change, end: ShardId, shared: &Shared) {
        match change {
            Change::Added(filter) => {
                self.routes.remove(&filter);
                shared.routes.add(&filter, end);
            }
            Change::Removed(filter) if self.losses > 0 => drop(self.routes.insert(filter)),
            Change::Removed(filter) => shared.routes.remove(&filter, end),
        }
    }

    /// Removes the filters of a peer whose sessions all shards have by now.
    pub(super) fn finish(&mut self, end: ShardId, shared: &Shared) {
        if self.losses == 0 {
            for filter in std::mem::take(&mut self.routes) {
                shared.routes.remove(&filter, end);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::replica::word::Fate;

    const END: ShardId = ShardId(2);

    fn frame(sequence: u64) -> FrameId {
        let from = ShardId(0);
        FrameId { from, sequence }
    }

    #[test]
    fn filters_of_a_lost_peer_stay_until_all_shards_have_its_sessions() {
        let shared = Shared::for_tests("", 3);
        let mut outbox = Outbox::new(END, 3, Arc::clone(&shared.lanes));
        let mut burial = Burial::default();
        let goes_there = || shared.routes.matching("t").contains(END);
        burial.change_route(Change::Added("t".into()), END, &shared);
        burial.begin();
        burial.tell(Word::Lost(Fate::Promoted), None, &mut outbox, 2);
        burial.change_route(Change::Removed("t".into()), END, &shared);
        burial.confirm(ShardId(0), 1);
        burial.finish(END, &shared);
        assert!(goes_there());
        burial.confirm(ShardId(1), 1);
        burial.finish(END, &shared);
        assert!(!goes_there());
        burial.change_route(Change::Added("t".into()), END, &shared);
        burial.change_route(Change::Removed("t".into()), END, &shared);
        assert!(!goes_there());
    }

    #[test]
    fn filter_that_the_peer_has_again_is_not_removed() {
        let shared = Shared::for_tests("", 2);
        let mut outbox = Outbox::new(END, 2, Arc::clone(&shared.lanes));
        let mut burial = Burial::default();
        burial.change_route(Change::Added("t".into()), END, &shared);
        burial.begin();
        burial.change_route(Change::Removed("t".into()), END, &shared);
        burial.change_route(Change::Added("t".into()), END, &shared);
        burial.tell(Word::Lost(Fate::Promoted), None, &mut outbox, 1);
        burial.confirm(ShardId(0), 1);
        burial.finish(END, &shared);
        assert!(shared.routes.matching("t").contains(END));
    }

    #[test]
    fn frame_is_done_when_all_shards_have_its_messages() {
        let shared = Shared::for_tests("", 2);
        let mut outbox = Outbox::new(END, 2, Arc::clone(&shared.lanes));
        let mut burial = Burial::default();
        for number in 1..=2 {
            let word = Word::Orphans(b"messages");
            burial.tell(word, Some(frame(number)), &mut outbox, 2);
        }
        burial.confirm(ShardId(0), 1);
        assert_eq!(burial.poll_done(), None);
        burial.confirm(ShardId(1), 1);
        let mut done: Vec<_> = std::iter::from_fn(|| burial.poll_done()).collect();
        done.sort();
        assert_eq!(done, [frame(1), frame(2)]);
        assert!(burial.awaited.is_empty() && burial.missing.is_empty());
    }
}
