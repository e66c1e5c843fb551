//! When a service challenges its clients: more SYNs a second than it should see, until they have
//! been few for a while.
//!
//! Sums of counters and times go in; nothing here reads a clock.

use std::time::Duration;

/// For how long SYNs must have been few: a flood that pauses is not over.
const CALM: Duration = Duration::from_secs(10);

/// What part of the limit is few. SYNs are counted alike whether they are challenged or not, so
/// challenging does not by itself end it.
const FEW: u64 = 2;

/// Watches the SYNs of one service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Watch {
    /// All SYNs so far, and when that was, since any fixed moment.
    seen: Option<(u64, Duration)>,
    is_attacked: bool,
    /// For how long there have been few.
    calm: Duration,
    /// SYNs a second, at the last look.
    rate: u64,
}

impl Watch {
    /// Has seen nothing.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            seen: None,
            is_attacked: false,
            calm: Duration::ZERO,
            rate: 0,
        }
    }

    /// Takes in how many SYNs there have been by `now`; tells whether that begins or ends an attack.
    /// `above` is how many a second there may be.
    pub fn observe(&mut self, syns: u64, now: Duration, above: u64) -> Option<Change> {
        let before = self.seen.replace((syns, now));
        let (seen, then) = before?;
        let elapsed = now.saturating_sub(then);
        let micros = u64::try_from(elapsed.as_micros())
            .unwrap_or(u64::MAX)
            .max(1);
        self.rate = syns.saturating_sub(seen).saturating_mul(1_000_000) / micros;
        if self.rate > above {
            self.calm = Duration::ZERO;
            let begins = !std::mem::replace(&mut self.is_attacked, true);
            return begins.then_some(Change::Begins);
        }
        if self.rate > above / FEW {
            self.calm = Duration::ZERO;
        } else {
            self.calm = self.calm.saturating_add(elapsed);
        }
        let ends = self.is_attacked && self.calm >= CALM;
        self.is_attacked &= !ends;
        ends.then_some(Change::Ends)
    }

    /// Whether there were too many SYNs.
    #[must_use]
    pub const fn is_attacked(&self) -> bool {
        self.is_attacked
    }

    /// SYNs a second, at the last look.
    #[must_use]
    pub const fn rate(&self) -> u64 {
        self.rate
    }
}

impl Default for Watch {
    fn default() -> Self {
        Self::new()
    }
}

/// What an observation changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    Begins,
    Ends,
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::{Change, Watch};

    const ABOVE: u64 = 20_000;

    /// Looks once a second at these rates; says at which look what changed.
    fn changes(rates: &[u64]) -> Vec<(usize, Change)> {
        let mut watch = Watch::new();
        let mut syns = 1_000;
        assert_eq!(watch.observe(syns, Duration::ZERO, ABOVE), None);
        let mut changes = Vec::new();
        for (at, rate) in rates.iter().enumerate() {
            syns += rate;
            let now = Duration::from_secs(at as u64 + 1);
            if let Some(change) = watch.observe(syns, now, ABOVE) {
                changes.push((at, change));
            }
            assert_eq!(watch.rate(), *rate);
        }
        changes
    }

    #[test]
    fn a_flood_is_noticed_at_once_and_over_after_a_calm() {
        let mut rates = vec![100, 20_000, 20_001, 90_000];
        rates.extend([9_000; 20]);
        assert_eq!(changes(&rates), [(2, Change::Begins), (13, Change::Ends)]);
    }

    #[test]
    fn a_pause_or_a_weaker_flood_ends_nothing() {
        let mut rates = vec![50_000];
        for _ in 0..5 {
            rates.extend([100; 9]);
            rates.push(15_000);
        }
        assert_eq!(changes(&rates), [(0, Change::Begins)]);
    }

    #[test]
    fn what_was_there_before_the_first_look_is_no_flood() {
        let mut watch = Watch::new();
        assert_eq!(watch.observe(u64::MAX / 2, Duration::ZERO, ABOVE), None);
        assert!(!watch.is_attacked());
    }

    #[test]
    fn a_late_look_counts_by_time() {
        let mut watch = Watch::new();
        watch.observe(0, Duration::ZERO, ABOVE);
        assert_eq!(watch.observe(100_000, Duration::from_secs(10), ABOVE), None);
        assert_eq!(watch.rate(), 10_000);
        // Counters that start anew.
        assert_eq!(watch.observe(5, Duration::from_secs(11), ABOVE), None);
    }

    proptest! {
        #[test]
        fn begins_and_ends_alternate(rates in prop::collection::vec(0_u64..60_000, 0..200)) {
            let changes = changes(&rates);
            for (at, (_, change)) in changes.iter().enumerate() {
                let expected = if at % 2 == 0 { Change::Begins } else { Change::Ends };
                prop_assert_eq!(*change, expected);
            }
            let first = rates.iter().position(|rate| *rate > ABOVE);
            prop_assert_eq!(changes.first().map(|(at, _)| *at), first);
        }
    }
}
