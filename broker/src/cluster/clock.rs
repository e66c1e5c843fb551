//! A clock that all nodes' events can be ordered by, as far as they have heard of each other.
//!
//! A time is the milliseconds since 1970, and behind them a count. No time is given twice by a node, or
//! is older than one that it has seen: who is told of a connection cannot have an older one that comes
//! later, however wrong its time of day is.

use std::{
    hash::{BuildHasher, RandomState},
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

/// Bits of the count: so many events in a millisecond take the next one's.
const COUNT_BITS: u32 = 16;

/// The year 2200: what is later is no time that a node has given, and would be later than all to come.
const LATEST: u64 = 7_258_118_400_000 << COUNT_BITS;

#[derive(Debug, Default)]
pub(super) struct Clock(AtomicU64);

/// Whether a node can have given it; 0 is none.
pub(crate) fn is_credible(time: u64) -> bool {
    (1..=LATEST).contains(&time)
}

/// When a time of day was, in milliseconds since 1970; never 0.
pub(crate) fn at_wall(millis: u64) -> u64 {
    millis.saturating_mul(1 << COUNT_BITS).clamp(1, LATEST)
}

impl Clock {
    /// A time that is later than all that were given or seen.
    pub(super) fn next(&self) -> u64 {
        self.next_at(wall())
    }

    /// How long ago a time was. Less than in truth while the clock is ahead of the time of day.
    pub(super) fn age_of(&self, time: u64) -> Duration {
        self.age_at(wall(), time)
    }

    /// The last time that was given or seen, or the time of day.
    pub(super) fn now(&self) -> u64 {
        self.now_at(wall())
    }

    pub(super) fn now_at(&self, wall: u64) -> u64 {
        self.0.load(Ordering::Acquire).max(wall)
    }

    /// How far a node whose times were seen is ahead of this one's time of day.
    pub(super) fn ahead(&self) -> Duration {
        self.ahead_of(wall())
    }

    fn ahead_of(&self, wall: u64) -> Duration {
        let ahead = self.0.load(Ordering::Acquire).saturating_sub(wall);
        Duration::from_millis(ahead >> COUNT_BITS)
    }

    pub(super) fn age_at(&self, wall: u64, time: u64) -> Duration {
        let now = self.now_at(wall);
        Duration::from_millis((now >> COUNT_BITS).saturating_sub(time >> COUNT_BITS))
    }

    pub(super) fn next_at(&self, wall: u64) -> u64 {
        let later = |last: u64| Some(last.saturating_add(1).max(wall));
        let (set, get) = (Ordering::AcqRel, Ordering::Acquire);
        // The closure has an answer for all.
        let last = self.0.fetch_update(set, get, later).unwrap_or_default();
        last.saturating_add(1).max(wall)
    }

    /// Takes note of a time that another node has given.
    pub(super) fn see(&self, time: u64) {
        if is_credible(time) {
            self.0.fetch_max(time, Ordering::AcqRel);
        }
    }
}

/// The time of day.
fn wall() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    let millis = u64::try_from(since.unwrap_or_default().as_millis()).unwrap_or(0);
    millis << COUNT_BITS
}

/// A number that no other run of a node has.
pub(super) fn random() -> u64 {
    // Each `RandomState` has keys of its own from the system's random numbers.
    RandomState::new().hash_one(0).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_later_than_all_before_them_and_no_earlier_than_the_time_of_day() {
        let clock = Clock::default();
        assert_eq!(clock.next_at(7), 7);
        assert_eq!(clock.next_at(7), 8);
        assert_eq!(clock.next_at(3), 9);
        clock.see(100);
        assert_eq!(clock.next_at(9), 101);
        clock.see(50);
        assert_eq!(clock.next_at(500), 500);
        // Times go on, whatever a peer says.
        clock.see(u64::MAX);
        assert_eq!(clock.next_at(9), 501);
        assert_eq!((at_wall(0), at_wall(7)), (1, 7 << COUNT_BITS));
        assert!(is_credible(at_wall(u64::MAX)) && is_credible(1));
        assert!(!is_credible(u64::MAX) && !is_credible(0));
        let (early, late) = (7 << COUNT_BITS, 9 << COUNT_BITS);
        assert_eq!(clock.age_at(late, early + 5), Duration::from_millis(2));
        assert_eq!(clock.age_at(early, late), Duration::ZERO);
        clock.see(late);
        assert_eq!(clock.age_at(early, early), Duration::from_millis(2));
        assert_eq!(clock.ahead_of(early), Duration::from_millis(2));
        assert_eq!(clock.ahead_of(late + 1), Duration::ZERO);
    }
}
