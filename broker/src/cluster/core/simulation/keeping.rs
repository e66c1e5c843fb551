//! What a simulated node has retained, and the clock by which it knows what is last.

use std::sync::Arc;

use super::*;
use crate::{
    cluster::{
        clock::{Clock, at_wall},
        news::{Early, ON_THE_WAY},
    },
    message::{self, MessageId, Qos},
    retained::{Bounds, Buckets, Retained, Sums, mark_of},
};

/// Bytes of a page: two messages.
const PAGE: usize = 20;

/// A publication that is to be retained.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Stamp {
    pub(super) topic: u64,
    /// When it was published, by the cluster's clock; 0 for what is not to be retained.
    pub(super) at: u64,
    /// What tells it from others; 0 if it deletes.
    pub(super) number: u64,
    /// When it expires, in milliseconds since the world began; 0 if it does not.
    pub(super) expires: u64,
    /// What is told of a deletion that was meant.
    is_meant: bool,
}

impl Stamp {
    /// Words that it takes.
    pub(super) const WORDS: usize = 5;

    pub(super) const NONE: Self = Self {
        topic: 0,
        at: 0,
        number: 0,
        expires: 0,
        is_meant: false,
    };

    pub(super) fn read(words: &[u64]) -> Self {
        Self {
            topic: words[0],
            at: words[1],
            number: words[2],
            expires: words[3],
            is_meant: words[4] == 1,
        }
    }

    pub(super) fn words(self) -> [u64; Self::WORDS] {
        let is_meant = u64::from(self.is_meant);
        [self.topic, self.at, self.number, self.expires, is_meant]
    }
}

/// Reads the words of a message between nodes.
pub(super) fn words(bytes: &[u8]) -> Vec<u64> {
    let word = |word: &[u8]| u64::from_be_bytes(word.try_into().unwrap());
    bytes.chunks_exact(8).map(word).collect()
}

/// What a node has retained, by the rules of all nodes.
pub(super) struct Keeping {
    /// When the world began.
    start: Instant,
    retained: Retained,
    /// What has come before its own frame.
    early: Early,
    clock: Clock,
    /// How late its time of day is for that of the world.
    behind: Duration,
}

impl Keeping {
    pub(super) fn new(start: Instant, behind: Duration) -> Self {
        Self {
            start,
            retained: Retained::new(Bounds::NONE),
            early: Early::default(),
            clock: Clock::default(),
            behind,
        }
    }

    /// What the next run of the node begins with.
    pub(super) fn restart(&mut self, has_disk: bool) -> Self {
        let mut next = Self::new(self.start, self.behind);
        if has_disk {
            std::mem::swap(&mut next.retained, &mut self.retained);
            next.clock.see(next.retained.latest());
        }
        next
    }

    /// The time of day.
    fn wall(&self, now: Duration) -> u64 {
        const BEGUN: Duration = Duration::from_hours(10);
        let millis = (BEGUN + now).saturating_sub(self.behind).as_millis();
        at_wall(u64::try_from(millis).unwrap())
    }

    /// What its clock shows.
    pub(super) fn time(&self, now: Duration) -> u64 {
        self.clock.now_at(self.wall(now))
    }

    pub(super) fn see_time(&self, time: u64) {
        self.clock.see(time);
    }

    /// Whether there is nothing to begin with.
    pub(super) fn is_empty(&self) -> bool {
        self.retained.len() == 0
    }

    /// By topics: which publications are their last.
    pub(super) fn messages(&self, now: Duration) -> Vec<(String, u64, u64)> {
        let (mut all, mut after) = (Vec::new(), None);
        loop {
            let page = self.retained.page("#", after.as_deref(), self.start + now);
            all.extend(page.messages.iter().map(|kept| {
                let number = words(&kept.message.payload)[0];
                (kept.message.topic.to_string(), kept.at, number)
            }));
            after = page.next;
            if after.is_none() {
                return all;
            }
        }
    }

    fn message(&self, stamp: Stamp) -> Arc<message::Message> {
        let number = stamp.number.to_be_bytes();
        let payload: &[u8] = if stamp.number == 0 { &[] } else { &number };
        let expires = self.start + Duration::from_millis(stamp.expires);
        Arc::new(message::Message {
            topic: stamp.topic.to_string().into(),
            payload: payload.into(),
            properties: Box::default(),
            qos: if stamp.is_meant {
                Qos::AtLeastOnce
            } else {
                Qos::AtMostOnce
            },
            retain: true,
            expires: (stamp.expires > 0).then_some(expires),
            id: MessageId::NONE,
        })
    }

    /// Retains what a client of the node publishes.
    pub(super) fn publish(
        &mut self,
        topic: u64,
        number: u64,
        expires: u64,
        now: Duration,
    ) -> Stamp {
        let stamp = Stamp {
            topic,
            at: self.clock.next_at(self.wall(now)),
            number,
            expires,
            is_meant: false,
        };
        self.keep(stamp, now);
        stamp
    }

    fn keep(&mut self, stamp: Stamp, now: Duration) {
        let message = self.message(stamp);
        assert!(self.retained.store(&message, stamp.at, self.start + now));
    }

    /// Retains what was published at another node.
    pub(super) fn hear(&mut self, stamp: Stamp, now: Duration) {
        self.clock.see(stamp.at);
        let topic = stamp.topic.to_string();
        self.early.handle_published(mark_of(&topic, stamp.at));
        self.keep(stamp, now);
    }

    /// Keeps what another node has told; the result is whether others may not have some of it.
    pub(super) fn keep_page(&mut self, page: &[u8], now: Duration) -> bool {
        let mut is_news = false;
        for stamp in words(page).chunks_exact(Stamp::WORDS).map(Stamp::read) {
            let message = self.message(stamp);
            if !self.retained.is_news(&message, stamp.at) {
                continue;
            }
            self.clock.see(stamp.at);
            let at = self.start + now;
            assert!(self.retained.store_told(&message, stamp.at, at));
            let age = self.clock.age_at(self.wall(now), stamp.at);
            let mark = mark_of(&message.topic, stamp.at);
            let is_early = age < ON_THE_WAY * LEASE && self.early.hold(mark, at);
            is_news |= !is_early;
        }
        is_news
    }

    pub(super) fn page(
        &self,
        buckets: Buckets,
        after: Option<&str>,
        now: Duration,
    ) -> (Bytes, Option<Box<str>>) {
        let copied = self.retained.copy(buckets, PAGE, after, self.start + now);
        let stamp = |(message, at): &(Arc<message::Message>, u64)| Stamp {
            topic: message.topic.parse().unwrap(),
            at: *at,
            number: words(&message.payload).first().copied().unwrap_or(0),
            expires: message.expires.map_or(0, |expires| {
                u64::try_from((expires - self.start).as_millis()).unwrap()
            }),
            is_meant: message.payload.is_empty() && message.qos == Qos::AtLeastOnce,
        };
        let words = copied.messages.iter().map(stamp).flat_map(Stamp::words);
        let bytes: Vec<_> = words.flat_map(u64::to_be_bytes).collect();
        (bytes.into(), copied.next)
    }

    pub(super) fn sums(&self) -> &Sums {
        self.retained.sums()
    }

    pub(super) fn differing(&self, turn: Turn, sums: &Sums) -> Buckets {
        self.retained.differing(turn, sums)
    }

    /// Tells whether something was told that should have come by itself since.
    pub(super) fn handle_timeout(&mut self, now: Duration) -> bool {
        let at = self.start + now;
        self.retained.handle_timeout(at);
        self.early.poll_missing(ON_THE_WAY * LEASE, at)
    }
}
