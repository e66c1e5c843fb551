//! Where other nodes' retained messages go, and pages of this node's for them.

use std::{
    cell::RefCell,
    sync::{Arc, PoisonError, RwLock, RwLockWriteGuard},
    time::Instant,
};

use bytes::Bytes;

use super::{
    Ledger,
    clock::is_credible,
    news::{Early, ON_THE_WAY},
    slot::Grave,
};
use crate::{
    lanes::frame::{self, Mark, Writer},
    message::Message,
    metrics::{Counters, Metric},
    retained::{Buckets, Copied, Retained, mark_of},
    routes::ShardId,
    shard::Shared,
    sys, topic,
};

/// Bytes of retained messages after which a page of them for a peer ends.
pub(super) const PAGE_BYTES: usize = 256 * 1024;

/// Where retained messages go.
pub(super) struct Keeper<'a> {
    pub(super) shared: &'a Shared,
    pub(super) graves: &'a [Grave],
    pub(super) ledger: Option<&'a Ledger>,
    pub(super) counters: &'a Counters,
    /// What has come before its own frame.
    pub(super) early: &'a RefCell<Early>,
    pub(super) now: Instant,
}

/// [`Retained::store`], or as it is for what another node tells.
type How = fn(&mut Retained, &Arc<Message>, u64, Instant) -> bool;

/// What has become of a page of another node's messages.
#[derive(Default)]
pub(super) struct Taken {
    /// The store may have to know.
    pub(super) is_noted: bool,
    /// Some of it was not known here, and may not be elsewhere.
    pub(super) is_news: bool,
}

impl Keeper<'_> {
    /// Keeps what was published on another node; tells whether the store may have to know.
    pub(super) fn publish(&self, message: &Arc<Message>, at: u64) -> bool {
        // One that is sent again after a crash has none: who had it first tells it when nodes compare.
        if !is_credible(at) {
            return false;
        }
        let mut early = self.early.borrow_mut();
        if !early.is_empty() {
            early.handle_published(mark_of(&message.topic, at));
        }
        drop(early);
        self.store(Retained::store, &mut self.retained(), message, at)
    }

    /// Tells whether the store may have to know.
    fn store(&self, how: How, retained: &mut Retained, message: &Arc<Message>, at: u64) -> bool {
        if let Some(cluster) = &self.shared.cluster {
            cluster.see_time(at);
        }
        let can_retain = |ledger: &Ledger| ledger.can_retain(message);
        let can_retain = self.ledger.is_none_or(can_retain);
        let is_kept = can_retain && how(retained, message, at, self.now);
        self.counters
            .add(Metric::RefusedRetained, usize::from(!is_kept));
        can_retain
    }

    fn retained(&self) -> RwLockWriteGuard<'_, Retained> {
        let retained = self.shared.retained.write();
        retained.unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps another node's retained messages, and what it knows was deleted, as far as nothing later is
    /// known here.
    pub(super) fn keep(&self, mut messages: &[u8]) -> Taken {
        let mut taken = Taken::default();
        let mut retained = self.retained();
        while let Some(item) = frame::read_item(&mut messages, self.now) {
            let (message, at) = (Arc::new(item.message), item.mark.retained_at);
            let is_legal =
                topic::is_valid_name(&message.topic) && !sys::is_reserved(&message.topic);
            if is_legal
                && is_credible(at)
                && retained.is_news(&message, at)
                && !retained.is_refused(&message, at)
            {
                taken.is_noted |= self.store(Retained::store_told, &mut retained, &message, at);
                // What finds no room is none, or nodes with different room would never be done.
                let is_kept = !retained.is_news(&message, at);
                taken.is_news |= is_kept && !self.is_early(&message, at);
            }
        }
        taken
    }

    /// Whether a message that was told may be on its way to all nodes, and waits for its own frame.
    fn is_early(&self, message: &Message, at: u64) -> bool {
        let Some(cluster) = &self.shared.cluster else {
            return false;
        };
        let is_young = cluster.age_of(at) < ON_THE_WAY * cluster.lease();
        let mark = mark_of(&message.topic, at);
        is_young && self.early.borrow_mut().hold(mark, self.now)
    }
}

/// One page of this node's retained messages in these buckets, and where the next one begins.
pub(super) fn retained_page(
    retained: &RwLock<Retained>,
    buckets: Buckets,
    after: Option<&str>,
    now: Instant,
) -> (Bytes, Option<Box<str>>) {
    let retained = retained.read().unwrap_or_else(PoisonError::into_inner);
    let Copied { messages, next } = retained.copy(buckets, PAGE_BYTES, after, now);
    drop(retained);
    let mut page = Writer::new(ShardId(0), 0);
    for (message, retained_at) in messages {
        let mark = Mark {
            retained_at,
            ..Mark::default()
        };
        page.push_marked(mark, &message, &[], now);
    }
    // The header is of lanes alone.
    (page.finish().slice(frame::HEADER..), next)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{message::Qos, retained::Bounds, testing};

    /// Where a node's retained messages go, and what they are told by.
    struct Scene {
        shared: Arc<Shared>,
        counters: Counters,
        early: RefCell<Early>,
        message: Arc<Message>,
        now: Instant,
    }

    impl Scene {
        fn new() -> Self {
            let mut message = testing::message(b"x".as_slice(), Qos::AtMostOnce);
            message.retain = true;
            Self {
                shared: Shared::for_tests("", 1),
                counters: Counters::default(),
                early: RefCell::default(),
                message: Arc::new(message),
                now: Instant::now(),
            }
        }

        fn keeper(&self) -> Keeper<'_> {
            Keeper {
                shared: &self.shared,
                graves: &[],
                ledger: None,
                counters: &self.counters,
                early: &self.early,
                now: self.now,
            }
        }

        fn publish(&self, at: u64) -> bool {
            self.keeper().publish(&self.message, at)
        }

        fn tell(&self, retained_at: u64) -> Taken {
            let mut page = Writer::new(ShardId(0), 0);
            let mark = Mark {
                retained_at,
                ..Mark::default()
            };
            page.push_marked(mark, &self.message, &[], self.now);
            self.keeper().keep(&page.finish()[frame::HEADER..])
        }
    }

    #[test]
    fn message_of_a_time_that_no_node_can_have_given_is_not_kept() {
        let scene = Scene::new();
        for at in [u64::MAX, 0] {
            assert!(!scene.publish(at) && !scene.tell(at).is_news);
        }
        assert_eq!(scene.keeper().retained().len(), 0);
        let is_news = |at| scene.tell(at).is_news;
        assert!(is_news(5) && !is_news(5) && !is_news(4));
        // It is the last one, and whatever comes later can be.
        assert!(scene.publish(6));
        let keeper = scene.keeper();
        let retained = keeper.retained();
        assert_eq!((retained.len(), retained.latest()), (1, 6));
    }

    #[test]
    fn message_that_finds_no_room_is_noted_once_and_is_no_news() {
        let scene = Scene::new();
        let none = Bounds {
            messages: 0,
            ..Bounds::NONE
        };
        scene.keeper().retained().set_bounds(none);
        for is_first in [true, false] {
            let Taken { is_noted, is_news } = scene.tell(5);
            assert_eq!((is_noted, is_news), (is_first, false));
        }
        assert!(scene.tell(6).is_noted);
        scene.keeper().retained().set_bounds(Bounds::NONE);
        assert!(scene.tell(6).is_news);
    }
}
