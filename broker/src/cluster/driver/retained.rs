//! Retained messages of this node, for others.

use std::{
    cell::RefCell,
    collections::VecDeque,
    rc::Rc,
    sync::{PoisonError, atomic::Ordering},
    time::Instant,
};

use super::Driver;
use crate::{
    cluster::{
        PEERS, keeper,
        news::{Early, ON_THE_WAY},
        slot::Slot,
        telling::Turn,
    },
    retained::{Buckets, Sums},
};

/// A page that is to be read.
#[derive(Debug, PartialEq, Eq)]
struct Reading {
    slot: u16,
    buckets: Buckets,
    after: Option<Box<str>>,
}

/// Pages to be read, of each slot one, in the order in which they were asked for.
#[derive(Debug, Default)]
struct Readings(VecDeque<Reading>);

/// A peer's sums which wait until what it has told before is kept.
#[derive(Debug)]
struct Late {
    slot: u16,
    turn: Turn,
    sums: Sums,
    /// They wait no longer than that.
    until: Instant,
}

/// What there is to do with retained messages.
#[derive(Debug, Default)]
pub(super) struct Chores {
    readings: Readings,
    /// What has come before its own frame.
    pub(super) early: RefCell<Early>,
    /// Of each slot and turn one at most.
    late: Vec<Late>,
}

impl Readings {
    /// The last one that was asked of a slot counts.
    fn push(&mut self, reading: Reading) {
        self.0.retain(|older| older.slot != reading.slot);
        self.0.push_back(reading);
    }

    fn pop(&mut self) -> Option<Reading> {
        self.0.pop_front()
    }
}

/// Reads page after page, and lets the other tasks have their turn in between: a million topics are read
/// for a peer while the others are told, in time, that this node is there.
pub(super) async fn read_pages(driver: Rc<RefCell<Driver>>) {
    let work = Rc::clone(&driver.borrow().work);
    loop {
        work.pages.notified().await;
        loop {
            let is_done = !driver.borrow_mut().read_page(Instant::now());
            if is_done {
                break;
            }
            tokio::task::yield_now().await;
        }
    }
}

impl Driver {
    pub(super) fn read_later(&mut self, slot: u16, buckets: Buckets, after: Option<Box<str>>) {
        self.chores.readings.push(Reading {
            slot,
            buckets,
            after,
        });
        self.work.pages.notify_one();
    }

    /// Reads the next page; `false` when there is none to read.
    fn read_page(&mut self, now: Instant) -> bool {
        let Some(reading) = self.chores.readings.pop() else {
            return false;
        };
        let Reading {
            slot,
            buckets,
            after,
        } = reading;
        let retained = &self.shared.retained;
        let (messages, next) = keeper::retained_page(retained, buckets, after.as_deref(), now);
        self.core.handle_retained(slot, messages, next);
        self.settle(now);
        true
    }

    /// Has others asked where something was told that should have come by itself since.
    pub(super) fn look_for_missing(&mut self, now: Instant) {
        let patience = ON_THE_WAY * self.core.longest_lease();
        if self.chores.early.borrow_mut().poll_missing(patience, now) {
            self.core.handle_missing();
        }
    }

    /// Sums up what there is, or waits to be asked again.
    pub(super) fn sum_retained(&mut self, slot: u16) {
        // What shards retain from now on they send to whom they find to be there.
        self.publish_masks();
        // What a peer that is gone had passed on may be among it; what others do they pass on to all.
        let alive = self.cluster.alive.load(Ordering::Acquire);
        let mut slots = (0..PEERS).zip(&self.slots);
        if slots.any(|(slot, state)| alive & (1 << slot) == 0 && state.is_waiting()) {
            return;
        }
        let retained = self.shared.retained.read();
        let retained = retained.unwrap_or_else(PoisonError::into_inner);
        self.core.handle_sums(slot, retained.sums());
    }

    /// Compares a peer's sums with those of this node, when that has kept what it was told before.
    pub(super) fn compare_retained(&mut self, slot: u16, turn: Turn, sums: Sums, now: Instant) {
        if !self.is_waiting(slot) {
            self.compare(slot, turn, &sums);
            return;
        }
        let late = &mut self.chores.late;
        late.retain(|late| (late.slot, late.turn) != (slot, turn));
        late.push(Late {
            slot,
            turn,
            sums,
            until: now + self.core.longest_lease(),
        });
    }

    /// Compares what could not be compared before; tells whether there was any.
    pub(super) fn compare_late(&mut self, now: Instant) -> bool {
        let mut is_any = false;
        for late in std::mem::take(&mut self.chores.late) {
            if late.until > now && self.is_waiting(late.slot) {
                self.chores.late.push(late);
            } else {
                self.compare(late.slot, late.turn, &late.sums);
                is_any = true;
            }
        }
        is_any
    }

    fn is_waiting(&self, slot: u16) -> bool {
        let state = self.slots.get(usize::from(slot));
        state.is_some_and(Slot::is_waiting)
    }

    fn compare(&mut self, slot: u16, turn: Turn, sums: &Sums) {
        self.publish_masks();
        let retained = self.shared.retained.read();
        let retained = retained.unwrap_or_else(PoisonError::into_inner);
        let buckets = retained.differing(turn, sums);
        drop(retained);
        self.core.handle_compared(slot, turn, buckets);
    }
}

#[cfg(test)]
mod tests {
    use std::{net::Ipv4Addr, sync::Arc};

    use bytes::Bytes;
    use tokio::sync::mpsc;

    use super::*;
    use crate::{
        cluster::{
            core::LinkId,
            slot::Kind,
            wire::{Hello, Item, Message, Resume},
        },
        config::Config,
        message::Qos,
        shard::Shared,
        testing::message,
    };

    const LINK: LinkId = LinkId(1);

    /// That of a node with so many retained messages, which has met another one, at its first slot.
    fn driver(topics: usize, now: Instant) -> Driver {
        let settings = "[cluster]\nname = \"c\"\nlisten = \"127.0.0.1:0\"\nkey_file = \"key\"";
        let shared = Shared::for_tests(settings, 1);
        for topic in 0..topics {
            let mut message = message(b"x".as_slice(), Qos::AtMostOnce);
            message.topic = topic.to_string().into();
            let mut retained = shared.retained.write().unwrap();
            assert!(retained.store(&Arc::new(message), 1, now));
        }
        let text = format!(
            "node = \"n\"\n[access]\nanonymous = true\n[[listener]]\naddress = \"127.0.0.1:0\"\n{settings}"
        );
        let config = Config::parse(&text).unwrap();
        let config = config.cluster().unwrap().clone();
        let cluster = Arc::clone(shared.cluster.as_ref().unwrap());
        let (asking, _asked) = mpsc::channel(1);
        let counters = Arc::default();
        let mut driver = Driver::new(config, cluster, shared, None, counters, asking);
        let core = &mut driver.core;
        core.handle_connected(LINK, None, Ipv4Addr::LOCALHOST.into(), now);
        let hello = Message::Hello(Hello {
            cluster: "c".to_owned(),
            node: "a".to_owned(),
            incarnation: 1,
            port: 7884,
            lease_millis: 2000,
        });
        let resume = Message::Resume(Resume {
            stream: 1,
            heard: None,
            is_choked: false,
            wants_retained: false,
            time: 0,
        });
        for message in [hello, resume] {
            core.handle_message(LINK, message.encode(), now);
        }
        driver.settle(now);
        driver
    }

    /// The other node asks; it differs in one topic.
    fn ask(driver: &mut Driver, now: Instant) {
        let mut sums = driver.shared.retained.read().unwrap().sums().clone();
        sums.add("0", 1);
        let question = Message::Item(1, Item::Sums(Turn::Question, sums)).encode();
        driver.core.handle_message(LINK, question, now);
        driver.settle(now);
    }

    #[test]
    fn page_after_page_is_read_and_none_of_them_at_once() {
        let now = Instant::now();
        let mut driver = driver(5000, now);
        ask(&mut driver, now);
        // Two are full, one is not, and one is for what was deleted.
        let pages = std::iter::from_fn(|| driver.read_page(now).then_some(()));
        assert_eq!(pages.count(), 4);
    }

    #[test]
    fn sums_wait_until_what_was_told_before_is_kept_and_not_for_ever() {
        for is_late in [false, true] {
            let now = Instant::now();
            let mut driver = driver(1, now);
            driver.slots[0].push((1, 1), Kind::Retained, Bytes::new());
            ask(&mut driver, now);
            assert!(!driver.read_page(now));
            let later = if is_late {
                now + driver.core.longest_lease()
            } else {
                driver.pass_on(0, now);
                now
            };
            driver.settle(later);
            assert!(driver.read_page(later));
        }
    }

    #[test]
    fn node_that_waits_for_what_others_have_is_ready_for_nobody_until_it_has_it() {
        let now = Instant::now();
        let mut driver = driver(0, now);
        let is_ready = |driver: &Driver| {
            driver.publish_view(now);
            driver.shared.tally().welcomes
        };
        assert!(!is_ready(&driver));
        let end = Item::Retained {
            messages: Bytes::new(),
            is_last: true,
        };
        let end = Message::Item(1, end).encode();
        driver.core.handle_message(LINK, end, now);
        assert!(is_ready(&driver));
    }

    fn reading(slot: u16, after: &str) -> Reading {
        Reading {
            slot,
            buckets: Buckets::default(),
            after: Some(after.into()),
        }
    }

    #[test]
    fn peers_get_their_pages_in_turn_and_what_was_asked_last() {
        let mut readings = Readings::default();
        readings.push(reading(0, "a"));
        readings.push(reading(1, "a"));
        assert_eq!(readings.pop(), Some(reading(0, "a")));
        readings.push(reading(0, "b"));
        assert_eq!(readings.pop(), Some(reading(1, "a")));
        // Its stream has begun anew meanwhile.
        readings.push(reading(1, "c"));
        readings.push(reading(0, "x"));
        assert_eq!(readings.pop(), Some(reading(1, "c")));
        assert_eq!(readings.pop(), Some(reading(0, "x")));
        assert_eq!(readings.pop(), None);
    }
}
