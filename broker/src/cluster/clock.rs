//! A clock that all nodes' events can be ordered by, as far as they have heard of each other.
//!
//! A time is the milliseconds since 1970, and behind them a count. No time is given twice by a node, or
//! is older than one that it has seen: who is told of a connection cannot have an older one that comes
//! later, however wrong its time of day is.

use std::{
    hash::{BuildHasher, RandomState},
    sync::atomic::{AtomicU64, Ordering},
    time::{SystemTime, UNIX_EPOCH},
};

/// Bits of the count: so many events in a millisecond take the next one's.
const COUNT_BITS: u32 = 16;

#[derive(Debug, Default)]
pub(super) struct Clock(AtomicU64);

impl Clock {
    /// A time that is later than all that were given or seen.
    pub(super) fn next(&self) -> u64 {
        let since = SystemTime::now().duration_since(UNIX_EPOCH);
        let millis = u64::try_from(since.unwrap_or_default().as_millis()).unwrap_or(0);
        self.next_at(millis << COUNT_BITS)
    }

    fn next_at(&self, wall: u64) -> u64 {
        let later = |last: u64| Some(last.saturating_add(1).max(wall));
        let (set, get) = (Ordering::AcqRel, Ordering::Acquire);
        // The closure has an answer for all.
        let last = self.0.fetch_update(set, get, later).unwrap_or_default();
        last.saturating_add(1).max(wall)
    }

    /// Takes note of a time that another node has given.
    pub(super) fn see(&self, time: u64) {
        self.0.fetch_max(time, Ordering::AcqRel);
    }
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
    }
}
