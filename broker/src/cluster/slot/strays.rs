//! What a peer had sent a node that it holds for gone, and that is for that one's sessions here.
//!
//! These may not be sessions yet: nodes notice at different times that one is gone, up to the difference
//! of their leases. Until then it is put aside, and counts as taken, so that what the peer says besides
//! does not wait as well: there is no session that would get the one before the other.
//!
//! ```text
//! the lost node is
//!   alive here       put aside until it is buried, or patience ends: it may be gone for the peer alone
//!   being buried     put aside; what comes behind it waits too, as some of its sessions are here
//!   buried           given to its sessions
//! ```

use std::{
    collections::{BTreeMap, VecDeque},
    time::Instant,
};

use bytes::Bytes;

use super::{Grave, ItemId};
use crate::{lanes::frame, replica::word::Word, routes::ShardId};

/// Bytes of a peer's that may be put aside. When they are more, all that it says waits.
const ROOM: usize = 16 * 1024 * 1024;

/// Times the patience with one loss of a node that may be between its first consequences and the last.
const SAME_LOSS: u32 = 3;

/// How far a node is that was there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::cluster) enum Rest {
    /// Nobody has held it for gone here.
    Alive,
    /// Not all shards have heard that it is gone.
    Burying,
    Buried,
}

/// What becomes of what waits first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Turn {
    Pass,
    /// It is put aside, for the sessions of this node.
    Aside(u64),
    Wait,
}

/// Those of one peer.
#[derive(Debug, Default)]
pub(in crate::cluster) struct Strays {
    /// By the hash of the name of whose sessions they are for.
    aside: BTreeMap<u64, VecDeque<(ItemId, Bytes)>>,
    bytes: usize,
    /// Since when something waits for a node to be buried.
    since: BTreeMap<u64, Instant>,
    /// Which of those that were put aside wait for a frame to a shard, and each for how many.
    awaited: BTreeMap<(ShardId, u64), Vec<ItemId>>,
    missing: BTreeMap<ItemId, usize>,
    /// What the core is to hear.
    put: VecDeque<ItemId>,
    safe: VecDeque<ItemId>,
}

impl Strays {
    /// What is to be done with the messages that wait first.
    pub(super) fn judge(&mut self, messages: &[u8], graves: &[Grave], now: Instant) -> Turn {
        let word = frame::first_word(messages).and_then(Word::decode);
        if let Some(Word::Strays { node, .. }) = word
            && let Some(grave) = graves.iter().find(|grave| grave.node == node)
            && self.must_wait(grave, graves, now)
        {
            return if self.bytes < ROOM {
                Turn::Aside(node)
            } else {
                Turn::Wait
            };
        }
        let mut burying = graves.iter().filter(|grave| grave.rest == Rest::Burying);
        let comes_behind =
            |grave: &Grave| self.aside.contains_key(&grave.node) && self.is_patient(grave, now);
        if burying.any(comes_behind) {
            Turn::Wait
        } else {
            Turn::Pass
        }
    }

    /// Whether what is for a node's sessions cannot be given to them.
    fn must_wait(&mut self, grave: &Grave, graves: &[Grave], now: Instant) -> bool {
        match grave.rest {
            Rest::Buried => {
                self.since.remove(&grave.node);
                false
            }
            Rest::Burying => {
                self.note_since(grave, graves, now);
                true
            }
            Rest::Alive => {
                self.note_since(grave, graves, now);
                self.is_patient(grave, now)
            }
        }
    }

    /// What comes later waits no longer, unless it is of another loss.
    fn note_since(&mut self, grave: &Grave, graves: &[Grave], now: Instant) {
        self.since
            .retain(|node, _since| graves.iter().any(|grave| grave.node == *node));
        let since = self.since.entry(grave.node).or_insert(now);
        if now.saturating_duration_since(*since) >= SAME_LOSS * grave.patience {
            *since = now;
        }
    }

    fn is_patient(&self, grave: &Grave, now: Instant) -> bool {
        let since = self.since.get(&grave.node);
        since.is_none_or(|since| now.saturating_duration_since(*since) < grave.patience)
    }

    pub(super) fn put(&mut self, node: u64, id: ItemId, messages: Bytes) {
        self.bytes += messages.len();
        self.aside
            .entry(node)
            .or_default()
            .push_back((id, messages));
        self.put.push_back(id);
    }

    /// The next one that need not wait any more.
    pub(super) fn poll(&mut self, graves: &[Grave], now: Instant) -> Option<(ItemId, Bytes)> {
        let nodes: Vec<_> = self.aside.keys().copied().collect();
        let is_due = |node: &u64| {
            let grave = graves.iter().find(|grave| grave.node == *node);
            grave.is_none_or(|grave| !self.must_wait(grave, graves, now))
        };
        let node = nodes.into_iter().find(is_due)?;
        let aside = self.aside.get_mut(&node)?;
        let next = aside.pop_front();
        if aside.is_empty() {
            self.aside.remove(&node);
        }
        let (id, messages) = next?;
        self.bytes -= messages.len();
        Some((id, messages))
    }

    /// Has one of those that were put aside wait until these frames are safe.
    pub(super) fn expect(&mut self, id: ItemId, frames: &[(ShardId, u64)]) {
        if frames.is_empty() {
            self.safe.push_back(id);
            return;
        }
        self.missing.insert(id, frames.len());
        for frame in frames {
            self.awaited.entry(*frame).or_default().push(id);
        }
    }

    /// Notes that what a frame had for a shard is safe.
    pub(super) fn confirm(&mut self, shard: ShardId, sequence: u64) {
        for id in self.awaited.remove(&(shard, sequence)).unwrap_or_default() {
            if let Some(missing) = self.missing.get_mut(&id) {
                *missing -= 1;
                if *missing == 0 {
                    self.missing.remove(&id);
                    self.safe.push_back(id);
                }
            }
        }
    }

    /// Whether some are put aside.
    pub(in crate::cluster) fn are_waiting(&self) -> bool {
        !self.aside.is_empty()
    }

    /// One that was put aside.
    pub(in crate::cluster) fn poll_put(&mut self) -> Option<ItemId> {
        self.put.pop_front()
    }

    /// One of those that is safe.
    pub(in crate::cluster) fn poll_safe(&mut self) -> Option<ItemId> {
        self.safe.pop_front()
    }
}

#[cfg(test)]
mod tests {
    use std::{cell::RefCell, sync::Arc, time::Duration};

    use super::*;
    use crate::{
        cluster::slot::{Kind, Slot},
        lanes::{Confirmation, Level, Outbox, frame::Writer},
        message::Qos,
        metrics::Counters,
        shard::Shared,
        testing,
    };

    const NODE: u64 = 7;
    /// Of the lane of the peer.
    const END: ShardId = ShardId(1);
    const PATIENCE: Duration = Duration::from_secs(3);
    const NONE: Vec<u64> = Vec::new();

    struct Scene {
        shared: Arc<Shared>,
        slot: Slot,
        now: Instant,
        rest: Rest,
        sent: u64,
    }

    impl Scene {
        fn new(rest: Rest) -> Self {
            let shared = Shared::for_tests("", 2);
            shared.routes.add("t", ShardId(0));
            Self {
                slot: Slot::new(Outbox::new(END, 2, Arc::clone(&shared.lanes))),
                shared,
                now: Instant::now(),
                rest,
                sent: 0,
            }
        }

        fn push(&mut self, messages: Writer) {
            self.sent += 1;
            let messages = messages.finish().slice(frame::HEADER..);
            self.slot.push((1, self.sent), Kind::Published, messages);
            self.pass_on();
        }

        fn push_stray(&mut self) {
            let mut writer = Writer::new(ShardId(0), 0);
            let messages = b"messages";
            let word = Word::Strays {
                node: NODE,
                messages,
            };
            writer.push_word(&word.encode(), true);
            self.push(writer);
        }

        /// A message to this node's subscribers.
        fn push_message(&mut self) {
            let mut writer = Writer::new(ShardId(0), 0);
            let message = testing::message([], Qos::AtLeastOnce);
            writer.push(&message, &[], self.now);
            self.push(writer);
        }

        fn pass_on(&mut self) {
            let grave = Grave {
                node: NODE,
                end: ShardId(2),
                rest: self.rest,
                patience: PATIENCE,
            };
            let counters = Counters::default();
            let Self {
                shared, slot, now, ..
            } = self;
            let early = RefCell::default();
            slot.pass_on(shared, None, &counters, &[grave], &early, *now);
        }

        /// How many frames the shard was sent by now, which it makes safe.
        fn confirm(&mut self, frames: std::ops::RangeInclusive<u64>) {
            for sequence in frames {
                for reader in (0..self.shared.shards).map(ShardId) {
                    for level in [Level::Taken, Level::Safe] {
                        self.slot.confirm(Confirmation {
                            reader,
                            sequence,
                            level,
                        });
                    }
                }
            }
        }

        fn delivered(&mut self) -> Option<u64> {
            self.slot.poll_delivered().map(|(_stream, number)| number)
        }

        fn safe(&mut self) -> Option<u64> {
            self.slot.poll_safe(0).map(|(_stream, number)| number)
        }

        fn strays(&mut self) -> [Vec<u64>; 2] {
            let strays = self.slot.strays();
            let put = std::iter::from_fn(|| strays.poll_put())
                .map(|id| id.1)
                .collect();
            let safe = std::iter::from_fn(|| strays.poll_safe())
                .map(|id| id.1)
                .collect();
            [put, safe]
        }
    }

    #[test]
    fn what_is_for_a_node_that_stays_alive_here_waits_beside_the_stream_and_once() {
        let mut scene = Scene::new(Rest::Alive);
        scene.push_stray();
        scene.push_message();
        scene.slot.outbox.flush();
        assert_eq!(scene.strays(), [vec![1], NONE]);
        scene.confirm(1..=1);
        assert_eq!((scene.delivered(), scene.safe()), (Some(2), Some(2)));
        scene.now += PATIENCE;
        scene.pass_on();
        scene.slot.outbox.flush();
        scene.push_stray();
        // It goes the way of all else.
        assert_eq!(scene.strays(), [NONE, NONE]);
        assert!(!scene.slot.strays().are_waiting());
        scene.slot.outbox.flush();
        scene.confirm(1..=3);
        assert_eq!(scene.strays(), [NONE, vec![1]]);
        assert_eq!((scene.delivered(), scene.safe()), (Some(3), Some(3)));
        // Another loss is another matter.
        scene.now += SAME_LOSS * PATIENCE;
        scene.push_stray();
        assert_eq!(scene.strays(), [vec![4], NONE]);
        // So is what is there when it is buried here.
        scene.rest = Rest::Buried;
        scene.pass_on();
        assert!(!scene.slot.strays().are_waiting());
    }

    #[test]
    fn what_comes_behind_it_waits_while_the_shards_hear_of_the_loss() {
        let mut scene = Scene::new(Rest::Alive);
        scene.push_stray();
        scene.rest = Rest::Burying;
        scene.push_message();
        scene.push_stray();
        assert_eq!(scene.delivered(), Some(1));
        assert!(scene.slot.is_waiting());
        scene.rest = Rest::Buried;
        scene.pass_on();
        assert!(!scene.slot.is_waiting());
        scene.slot.outbox.flush();
        scene.confirm(1..=1);
        assert_eq!((scene.delivered(), scene.safe()), (Some(3), Some(3)));
        assert_eq!(scene.strays(), [vec![1], vec![1]]);
    }

    #[test]
    fn shards_that_hear_late_hold_up_what_is_for_the_lost_nodes_sessions_alone() {
        let mut scene = Scene::new(Rest::Burying);
        scene.push_stray();
        scene.push_message();
        assert!(scene.slot.is_waiting());
        scene.now += PATIENCE;
        scene.pass_on();
        assert!(!scene.slot.is_waiting() && scene.slot.strays().are_waiting());
    }

    #[test]
    fn no_more_is_put_aside_than_there_is_room_for() {
        let mut scene = Scene::new(Rest::Alive);
        scene.slot.strays().bytes = ROOM - 1;
        scene.push_stray();
        scene.push_stray();
        assert!(scene.slot.is_waiting());
        assert_eq!(scene.strays(), [vec![1], NONE]);
        scene.slot.strays().bytes -= ROOM - 1;
        scene.rest = Rest::Buried;
        scene.pass_on();
        assert!(!scene.slot.is_waiting());
    }
}
