//! What all clients together have counted and timed.

use std::{
    collections::BTreeMap,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use hdrhistogram::Histogram;

use super::gaps::Missing;

/// Times up to ten minutes, to three digits.
const LONGEST: u64 = 600_000_000_000;
/// The shortest time told apart, in nanoseconds.
const SHORTEST: u64 = 128;
/// Locks per timer, so that the threads rarely meet.
const SHARDS: usize = 8;

/// A number that only the summary orders in time.
#[derive(Debug, Default)]
pub(super) struct Counter(AtomicU64);

impl Counter {
    pub(super) fn add(&self, by: u64) {
        self.0.fetch_add(by, Relaxed);
    }

    pub(super) fn subtract(&self, by: u64) {
        self.0.fetch_sub(by, Relaxed);
    }

    pub(super) fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

/// Everything counted. Clients write, the swarm's supervisor reads.
#[derive(Debug)]
pub(super) struct Tally {
    start: Instant,
    /// Clients that were up at least once.
    pub(super) connected: Counter,
    /// Clients that are up.
    pub(super) up: Counter,
    /// Clients that were never up though they have tried.
    pub(super) failed: Counter,
    /// Connections that ended by themselves after they were up.
    pub(super) lost: Counter,
    pub(super) reconnected: Counter,
    /// Clients that were told to connect anew and did.
    pub(super) moved: Counter,
    pub(super) published: Counter,
    pub(super) acked: Counter,
    /// Messages the server refused in its acknowledgement.
    pub(super) refused: Counter,
    /// Messages whose client went away before their acknowledgement came.
    pub(super) abandoned: Counter,
    pub(super) received: Counter,
    pub(super) gaps: Counter,
    pub(super) duplicates: Counter,
    /// Which messages the gaps consist of, noted when clients end.
    pub(super) missing: Missing,
    /// TCP connect to CONNACK.
    pub(super) connect: Timer,
    /// PINGREQ to PINGRESP.
    pub(super) round_trip: Timer,
    /// PUBLISH to its last acknowledgement, or to its arrival at a subscriber.
    pub(super) latency: Timer,
    /// Loss of a connection to the next CONNACK.
    pub(super) outage: Timer,
    /// When the connecting and when the messages began and ended.
    pub(super) connecting: Span,
    pub(super) messages: Span,
    errors: Mutex<BTreeMap<String, u64>>,
}

impl Tally {
    pub(super) fn new(start: Instant) -> Self {
        Self {
            start,
            connected: Counter::default(),
            up: Counter::default(),
            failed: Counter::default(),
            lost: Counter::default(),
            reconnected: Counter::default(),
            moved: Counter::default(),
            published: Counter::default(),
            acked: Counter::default(),
            refused: Counter::default(),
            abandoned: Counter::default(),
            received: Counter::default(),
            gaps: Counter::default(),
            duplicates: Counter::default(),
            missing: Missing::default(),
            connect: Timer::default(),
            round_trip: Timer::default(),
            latency: Timer::default(),
            outage: Timer::default(),
            connecting: Span::new(start),
            messages: Span::new(start),
            errors: Mutex::default(),
        }
    }

    pub(super) fn start(&self) -> Instant {
        self.start
    }

    /// Every client that was started has come up or failed.
    pub(super) fn settled(&self) -> u64 {
        self.connected.get() + self.failed.get()
    }

    pub(super) fn error(&self, reason: String) {
        *lock(&self.errors).entry(reason).or_default() += 1;
    }

    pub(super) fn errors(&self) -> BTreeMap<String, u64> {
        lock(&self.errors).clone()
    }
}

/// The first and the last moment of something, in nanoseconds after the start.
#[derive(Debug)]
pub(super) struct Span {
    start: Instant,
    first: AtomicU64,
    last: AtomicU64,
}

impl Span {
    fn new(start: Instant) -> Self {
        Self {
            start,
            first: AtomicU64::new(u64::MAX),
            last: AtomicU64::new(0),
        }
    }

    pub(super) fn touch(&self, now: Instant) {
        let at = nanoseconds(now.saturating_duration_since(self.start));
        if at < self.first.load(Relaxed) {
            self.first.fetch_min(at, Relaxed);
        }
        if at > self.last.load(Relaxed) {
            self.last.fetch_max(at, Relaxed);
        }
    }

    /// How long ago the last moment was; `None` before the first.
    pub(super) fn silence(&self, now: Instant) -> Option<Duration> {
        (self.first.load(Relaxed) != u64::MAX).then(|| {
            let last = self.start + Duration::from_nanos(self.last.load(Relaxed));
            now.saturating_duration_since(last)
        })
    }

    pub(super) fn seconds(&self) -> f64 {
        let length = self
            .last
            .load(Relaxed)
            .saturating_sub(self.first.load(Relaxed));
        Duration::from_nanos(length).as_secs_f64()
    }
}

/// A histogram of times, written by many threads.
#[derive(Debug, Default)]
pub(super) struct Timer([Mutex<Option<Box<Histogram<u64>>>>; SHARDS]);

impl Timer {
    /// Adds one time; `client` chooses the lock.
    pub(super) fn record(&self, client: u32, time: Duration) {
        let mut shard = lock(&self.0[client as usize % SHARDS]);
        if shard.is_none() {
            *shard = histogram().map(Box::new);
        }
        if let Some(histogram) = shard.as_mut() {
            histogram.saturating_record(nanoseconds(time));
        }
    }

    /// All times in one histogram; `None` if there are none.
    pub(super) fn merged(&self) -> Option<Histogram<u64>> {
        let mut merged = histogram()?;
        for shard in &self.0 {
            if let Some(histogram) = lock(shard).as_ref() {
                // All have the same bounds, so adding cannot fail.
                merged.add(&**histogram).ok()?;
            }
        }
        (!merged.is_empty()).then_some(merged)
    }
}

fn histogram() -> Option<Histogram<u64>> {
    // Fails only for bounds that contradict each other.
    Histogram::new_with_bounds(SHORTEST, LONGEST, 3).ok()
}

fn nanoseconds(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Counts stay usable whatever the thread that held the lock went through.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::{Span, Timer};

    #[test]
    fn a_timer_merges_what_all_clients_recorded() {
        let timer = Timer::default();
        for client in 0..100 {
            timer.record(client, Duration::from_millis(u64::from(client) + 1));
        }
        let merged = timer.merged().unwrap();
        assert_eq!(merged.len(), 100);
        assert_eq!(merged.value_at_quantile(0.5) / 100_000, 500);
    }

    #[test]
    fn a_timer_without_times_has_no_histogram() {
        assert!(Timer::default().merged().is_none());
    }

    #[test]
    fn a_span_reaches_from_the_first_touch_to_the_last() {
        let start = Instant::now();
        let span = Span::new(start);
        assert_eq!((span.seconds(), span.silence(start)), (0.0, None));
        for after in [3, 9, 5] {
            span.touch(start + Duration::from_secs(after));
        }
        assert_eq!(span.seconds(), 6.0);
        let now = start + Duration::from_secs(20);
        assert_eq!(span.silence(now), Some(Duration::from_secs(11)));
    }
}
