//! How soon a Router may follow one that has failed. Pure; the time is passed in.

use std::time::{Duration, Instant};

/// A Router that has lived for this long has not failed by what killed the one before it.
const STABLE: Duration = Duration::from_secs(10);

/// What the second Router in a row waits that fails before that; each one after it waits twice as long.
const FIRST_REST: Duration = Duration::from_millis(50);
const LONGEST_REST: Duration = Duration::from_secs(30);

/// When a Router was built, and how many before it had failed soon.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pace {
    built: Instant,
    failed: Option<Instant>,
    hasty: u32,
}

impl Pace {
    /// Of the first Router.
    pub(super) fn new(now: Instant) -> Self {
        Self {
            built: now,
            failed: None,
            hasty: 0,
        }
    }

    /// Notes that the Router has failed; tells whether that is news.
    pub(super) fn fail(&mut self, now: Instant) -> bool {
        let is_news = self.failed.is_none();
        self.failed.get_or_insert(now);
        is_news
    }

    /// Of the Router that takes its place.
    pub(super) fn next(self, now: Instant) -> Self {
        let lived = self.failed.unwrap_or(now) - self.built;
        let hasty = if lived >= STABLE { 0 } else { self.hasty + 1 };
        Self {
            hasty,
            ..Self::new(now)
        }
    }

    /// How long it is until that may be built.
    pub(super) fn rest(self, now: Instant) -> Duration {
        let Some(doublings) = self.hasty.checked_sub(1) else {
            return Duration::ZERO;
        };
        let rest = FIRST_REST.saturating_mul(2_u32.saturating_pow(doublings));
        let failed = self.failed.unwrap_or(now);
        (failed + rest.min(LONGEST_REST)).saturating_duration_since(now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn routers_that_fail_one_after_the_other_follow_ever_more_slowly() {
        let mut now = Instant::now();
        let mut pace = Pace::new(now);
        let mut rests = Vec::new();
        for _ in 0..40 {
            now += Duration::from_secs(1);
            assert!(pace.fail(now) && !pace.fail(now));
            let rest = pace.rest(now);
            assert_eq!(pace.rest(now + rest), Duration::ZERO);
            rests.push(rest.as_millis());
            now += rest;
            pace = pace.next(now);
        }
        assert_eq!(rests[..5], [0, 50, 100, 200, 400]);
        assert!(rests[12..].iter().all(|rest| *rest == 30_000));
    }

    #[test]
    fn router_that_has_lived_long_is_replaced_at_once() {
        let mut now = Instant::now();
        let mut pace = Pace::new(now);
        for _ in 0..5 {
            pace.fail(now);
            pace = pace.next(now);
        }
        now += STABLE;
        pace.fail(now);
        // That it has to rest itself is no life.
        now += pace.rest(now);
        pace = pace.next(now);
        pace.fail(now);
        assert_eq!(pace.rest(now), Duration::ZERO);
    }
}
