//! Token buckets: how often something may happen. Pure; the time is passed in.

use std::{
    num::NonZeroU32,
    time::{Duration, Instant},
};

/// So many a second, and so many at once after a rest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    pub per_second: NonZeroU32,
    pub burst: NonZeroU32,
}

impl Rate {
    /// How long the bucket takes to get so many tokens.
    fn time_for(self, tokens: u64) -> Duration {
        let nanos = tokens.saturating_mul(1_000_000_000);
        Duration::from_nanos(nanos / u64::from(self.per_second.get()))
    }

    fn depth(self) -> Duration {
        self.time_for(u64::from(self.burst.get()))
    }
}

/// A bucket is a point in time: when it will be full again if nothing is taken any more.
#[derive(Debug)]
pub(crate) struct Bucket {
    rate: Rate,
    full_at: Instant,
}

impl Bucket {
    /// A full one.
    pub(crate) fn new(rate: Rate, now: Instant) -> Self {
        Self { rate, full_at: now }
    }

    pub(crate) fn rate(&self) -> Rate {
        self.rate
    }

    /// Takes a token, if there is one.
    pub(crate) fn take(&mut self, now: Instant) -> bool {
        let full_at = self.full_at.max(now) + self.rate.time_for(1);
        let is_there = full_at - now <= self.rate.depth();
        if is_there {
            self.full_at = full_at;
        }
        is_there
    }

    /// Takes tokens, whether they are there or not.
    pub(crate) fn charge(&mut self, tokens: u64, now: Instant) {
        self.full_at = self.full_at.max(now) + self.rate.time_for(tokens);
    }

    /// How long it takes until no token is owed.
    pub(crate) fn debt(&self, now: Instant) -> Duration {
        let missing = self.full_at.saturating_duration_since(now);
        missing.saturating_sub(self.rate.depth())
    }

    /// Whole tokens that are there.
    pub(crate) fn tokens(&self, now: Instant) -> u64 {
        let missing = self.full_at.saturating_duration_since(now);
        let there = self.rate.depth().saturating_sub(missing);
        let tokens = there.as_nanos() * u128::from(self.rate.per_second.get()) / 1_000_000_000;
        u64::try_from(tokens).unwrap_or(u64::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rate(per_second: u32, burst: u32) -> Rate {
        Rate {
            per_second: NonZeroU32::new(per_second).unwrap(),
            burst: NonZeroU32::new(burst).unwrap(),
        }
    }

    #[test]
    fn burst_is_taken_at_once_and_the_rest_at_the_rate() {
        let start = Instant::now();
        let mut bucket = Bucket::new(rate(10, 3), start);
        let mut taken = Vec::new();
        for milli in 0..1000 {
            if bucket.take(start + Duration::from_millis(milli)) {
                taken.push(milli);
            }
        }
        assert_eq!(
            taken,
            [0, 1, 2, 100, 200, 300, 400, 500, 600, 700, 800, 900]
        );
    }

    #[test]
    fn rest_fills_the_bucket_and_no_more() {
        let start = Instant::now();
        let mut bucket = Bucket::new(rate(10, 3), start);
        let much_later = start + Duration::from_secs(3600);
        assert_eq!(bucket.tokens(much_later), 3);
        assert!((0..3).all(|_| bucket.take(much_later)));
        assert!(!bucket.take(much_later));
        assert_eq!(bucket.tokens(much_later), 0);
        assert_eq!(bucket.tokens(much_later + Duration::from_millis(250)), 2);
    }

    #[test]
    fn what_is_owed_is_paid_by_waiting() {
        let start = Instant::now();
        let mut bucket = Bucket::new(rate(1000, 500), start);
        bucket.charge(500, start);
        assert_eq!(bucket.debt(start), Duration::ZERO);
        bucket.charge(250, start);
        assert_eq!(bucket.debt(start), Duration::from_millis(250));
        assert_eq!(bucket.tokens(start), 0);
        let later = start + Duration::from_millis(200);
        assert_eq!(bucket.debt(later), Duration::from_millis(50));
        bucket.charge(u64::MAX, later);
        assert!(bucket.debt(later) > Duration::from_secs(1_000_000));
    }
}
