//! How long it takes until the peer has what has come to be: the distribution over the last minute.

use std::time::Duration;

/// Parts of the window: the oldest is forgotten as a whole.
const SLICES: usize = 6;
/// The length of one.
const SLICE: Duration = Duration::from_secs(10);
/// Buckets for each doubling of the time, so that a bucket is a sixteenth of its time wide.
const STEPS: usize = 16;
/// Doublings from [`STEPS`] microseconds up: 2^37 of these are more than a day.
const DOUBLINGS: usize = 33;
const BUCKETS: usize = STEPS + DOUBLINGS * STEPS;

/// What the lags of the last minute were like.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Quantiles {
    pub count: u64,
    /// Half of them were this or less. At most a sixteenth more than it was, and never less.
    pub p50: Duration,
    /// Of a hundred, 99 were this or less. As exact.
    pub p99: Duration,
    pub max: Duration,
}

/// The lags of the last minute.
#[derive(Clone, Debug, Default)]
pub(super) struct Lags {
    slices: [Slice; SLICES],
}

#[derive(Clone, Debug)]
struct Slice {
    /// Which one since the start.
    number: u64,
    counts: Box<[u32; BUCKETS]>,
    max: Duration,
}

impl Default for Slice {
    fn default() -> Self {
        Self::empty(0)
    }
}

impl Slice {
    fn empty(number: u64) -> Self {
        Self {
            number,
            counts: Box::new([0; BUCKETS]),
            max: Duration::ZERO,
        }
    }
}

impl Lags {
    /// Takes in a lag that ended at some time.
    pub(super) fn note(&mut self, at: Duration, lag: Duration) {
        let number = slice(at);
        // As many as fit into a usize, of which there are fewer.
        let slice = &mut self.slices[(number % SLICES as u64) as usize];
        if slice.number != number {
            *slice = Slice::empty(number);
        }
        let count = &mut slice.counts[bucket(lag)];
        *count = count.saturating_add(1);
        slice.max = slice.max.max(lag);
    }

    /// What they are like.
    pub(super) fn quantiles(&self, at: Duration) -> Quantiles {
        let now = slice(at);
        let is_recent = |it: &&Slice| it.number <= now && now - it.number < SLICES as u64;
        let recent: Vec<&Slice> = self.slices.iter().filter(is_recent).collect();
        let in_bucket = |at: usize| recent.iter().map(move |it| u64::from(it.counts[at]));
        let count: u64 = (0..BUCKETS).flat_map(in_bucket).sum();
        let max = recent.iter().map(|it| it.max).max().unwrap_or_default();
        let quantile = |percent: u64| {
            let mut left = (count * percent).div_ceil(100);
            for at in 0..BUCKETS {
                let here: u64 = in_bucket(at).sum();
                if here >= left {
                    return end(at).min(max);
                }
                left -= here;
            }
            max
        };
        Quantiles {
            count,
            p50: quantile(50),
            p99: quantile(99),
            max,
        }
    }
}

fn slice(at: Duration) -> u64 {
    at.as_secs() / SLICE.as_secs()
}

/// Which bucket a lag belongs to.
fn bucket(lag: Duration) -> usize {
    let micros = lag.as_micros().max(1);
    let doublings = (micros.ilog2() as usize).saturating_sub(STEPS.ilog2() as usize);
    if doublings >= DOUBLINGS {
        return BUCKETS - 1;
    }
    // Below twice the number of steps.
    let step = (micros >> doublings) as usize;
    doublings * STEPS + step
}

/// Where a bucket ends.
fn end(bucket: usize) -> Duration {
    let doublings = (bucket / STEPS).saturating_sub(1);
    let step = (bucket - doublings * STEPS) as u64;
    Duration::from_micros((step + 1) << doublings)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{Lags, Quantiles, bucket, end};

    #[test]
    fn a_bucket_ends_little_above_what_is_in_it() {
        let mut micros = 1;
        while micros < 1 << 36 {
            let lag = Duration::from_micros(micros);
            let end = end(bucket(lag));
            assert!(lag < end, "{lag:?} is not before {end:?}");
            assert!(
                end <= lag + lag / 16 + Duration::from_micros(1),
                "{lag:?}: {end:?}"
            );
            micros += 1 + micros / 37;
        }
        // Longer than anything that there is a bucket for.
        bucket(Duration::MAX);
    }

    #[test]
    fn quantiles_are_those_of_the_last_minute() {
        let (seconds, millis) = (Duration::from_secs, Duration::from_millis);
        let mut lags = Lags::default();
        assert_eq!(lags.quantiles(seconds(0)), Quantiles::default());
        for number in 1..=1_000 {
            lags.note(seconds(5), Duration::from_micros(number));
        }
        lags.note(seconds(15), millis(700));
        let found = lags.quantiles(seconds(20));
        let is_about = |found: Duration, micros: u64| {
            let range = Duration::from_micros(micros)..Duration::from_micros(micros * 17 / 16 + 1);
            assert!(range.contains(&found), "{found:?}");
        };
        is_about(found.p50, 501);
        is_about(found.p99, 991);
        assert_eq!((found.count, found.max), (1_001, millis(700)));
        let later = lags.quantiles(seconds(65));
        assert_eq!(
            (later.count, later.p50, later.max),
            (1, millis(700), millis(700))
        );
        assert_eq!(lags.quantiles(seconds(75)), Quantiles::default());
        // Its place was another's.
        lags.note(seconds(125), millis(1));
        assert_eq!(lags.quantiles(seconds(125)).count, 1);
    }
}
