//! How far behind the node is: how late its threads come to what they have to do, and how much
//! memory it holds. New clients are turned away for it; those that are there go on.

use std::{
    fs, io,
    sync::{
        Arc, PoisonError, RwLock,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use tokio::time::MissedTickBehavior;
use tracing::warn;

use crate::{
    config::Overload,
    metrics::{render_head, render_value},
    routes::ShardId,
};

/// How often each thread tells that it has come round. A load that is over sooner harms nobody.
const BEAT: Duration = Duration::from_millis(100);

/// How often memory is read.
const MEMORY: Duration = Duration::from_millis(250);

/// The load of all threads of a node: the shards, and after them the thread that accepts.
#[derive(Debug)]
pub(crate) struct Load {
    bounds: RwLock<Overload>,
    epoch: Instant,
    threads: Vec<Pulse>,
    /// Whether memory is above its bound.
    is_swollen: AtomicBool,
}

/// Milliseconds since the epoch.
#[derive(Debug, Default)]
struct Pulse {
    beat: AtomicU64,
    /// By how much the last beat was late.
    lateness: AtomicU64,
}

impl Load {
    pub(crate) fn new(bounds: Overload, shards: u16, now: Instant) -> Self {
        Self {
            bounds: RwLock::new(bounds),
            epoch: now,
            threads: (0..=shards).map(|_thread| Pulse::default()).collect(),
            is_swollen: AtomicBool::new(false),
        }
    }

    /// Whether a thread is later than it may be, or memory is short.
    pub(crate) fn is_over(&self, thread: usize, now: Instant) -> bool {
        self.is_swollen() || self.lag(thread, now) > self.patience()
    }

    /// Whether the node holds more memory than it may.
    pub(crate) fn is_swollen(&self) -> bool {
        self.is_swollen.load(Ordering::Relaxed)
    }

    /// Whether the thread that accepts is later than it may be.
    pub(crate) fn accepts_late(&self, now: Instant) -> bool {
        self.lag(self.accepting(), now) > self.patience()
    }

    /// How long a client may wait for its shard.
    pub(crate) fn patience(&self) -> Duration {
        self.bounds().lag
    }

    fn bounds(&self) -> Overload {
        *self.bounds.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn set_bounds(&self, bounds: Overload) {
        *self.bounds.write().unwrap_or_else(PoisonError::into_inner) = bounds;
    }

    fn accepting(&self) -> usize {
        self.threads.len().saturating_sub(1)
    }

    /// A thread has come round.
    fn beat(&self, thread: usize, now: Instant) {
        let Some(pulse) = self.threads.get(thread) else {
            return;
        };
        let at = self.millis(now);
        let last = pulse.beat.swap(at, Ordering::Relaxed);
        pulse.lateness.store(late(last, at), Ordering::Relaxed);
    }

    /// How late the thread was the last time, or is already.
    fn lag(&self, thread: usize, now: Instant) -> Duration {
        let Some(pulse) = self.threads.get(thread) else {
            return Duration::ZERO;
        };
        let overdue = late(pulse.beat.load(Ordering::Relaxed), self.millis(now));
        Duration::from_millis(overdue.max(pulse.lateness.load(Ordering::Relaxed)))
    }

    fn millis(&self, now: Instant) -> u64 {
        let millis = now.saturating_duration_since(self.epoch).as_millis();
        u64::try_from(millis).unwrap_or(u64::MAX)
    }

    fn weigh(&self, bytes: u64) {
        let is_swollen = self.bounds().memory.is_some_and(|bound| bytes > bound);
        let was_swollen = self.is_swollen.swap(is_swollen, Ordering::Relaxed);
        if is_swollen && !was_swollen {
            warn!(bytes, "memory is above its bound: no new clients");
        }
    }

    /// Appends the load in Prometheus's text format.
    pub(crate) fn render(&self, out: &mut String) {
        let now = Instant::now();
        let name = "lag_milliseconds";
        render_head(out, name, "gauge", "How late a thread comes to its work.");
        for thread in 0..self.threads.len() {
            let millis = u64::try_from(self.lag(thread, now).as_millis()).unwrap_or(u64::MAX);
            let label = if thread == self.accepting() {
                "thread=\"accept\"".to_owned()
            } else {
                format!("thread=\"shard-{thread}\"")
            };
            render_value(out, name, &label, millis);
        }
        // Without it the rest is still worth reading.
        if let Ok(bytes) = resident_bytes() {
            let name = "resident_bytes";
            render_head(out, name, "gauge", "Memory that the process holds.");
            render_value(out, name, "", bytes);
        }
    }
}

fn late(last: u64, now: u64) -> u64 {
    let beat = u64::try_from(BEAT.as_millis()).unwrap_or_default();
    now.saturating_sub(last).saturating_sub(beat)
}

/// Tells of a thread's pulse for as long as the task runs on it. `None` is the thread that accepts.
pub(crate) async fn pulse(load: Arc<Load>, shard: Option<ShardId>) {
    let thread = shard.map_or(load.accepting(), |shard| usize::from(shard.0));
    let mut tick = tokio::time::interval(BEAT);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tick.tick().await;
        load.beat(thread, Instant::now());
    }
}

/// Watches the process's memory; it may get a bound later.
pub(crate) async fn watch_memory(load: Arc<Load>) {
    let mut tick = tokio::time::interval(MEMORY);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tick.tick().await;
        match resident_bytes() {
            Ok(bytes) => load.weigh(bytes),
            Err(error) => {
                warn!(%error, "cannot read how much memory is held: it has no bound");
                return std::future::pending().await;
            }
        }
    }
}

/// Memory of the process that is not swapped out; the second number of `statm`, in pages.
fn resident_bytes() -> io::Result<u64> {
    let text = fs::read_to_string("/proc/self/statm")?;
    let pages = text.split(' ').nth(1).and_then(|pages| pages.parse().ok());
    let pages: u64 = pages.ok_or(io::ErrorKind::InvalidData)?;
    Ok(pages.saturating_mul(rustix::param::page_size() as u64))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bounded(memory: Option<u64>) -> (Load, Instant) {
        let start = Instant::now();
        let bounds = Overload {
            lag: Duration::from_secs(1),
            memory,
        };
        (Load::new(bounds, 2, start), start)
    }

    #[test]
    fn thread_that_does_not_come_round_is_late() {
        let (load, start) = bounded(None);
        let at = |millis| start + Duration::from_millis(millis);
        for thread in 0..3 {
            load.beat(thread, at(100));
        }
        assert_eq!(load.lag(0, at(200)), Duration::ZERO);
        assert!(!load.is_over(0, at(1200)));
        assert!(load.is_over(0, at(1201)) && load.accepts_late(at(1201)));
        // It was late, and is not yet known to be better.
        load.beat(0, at(1500));
        assert_eq!(load.lag(0, at(1501)), Duration::from_millis(1300));
        assert!(load.is_over(0, at(1501)));
        load.beat(0, at(1600));
        assert!(!load.is_over(0, at(1601)));
        assert!(load.is_over(1, at(1601)));
    }

    #[test]
    fn memory_above_its_bound_is_overload_for_all() {
        let (load, start) = bounded(Some(1000));
        load.weigh(1001);
        assert!((0..3).all(|thread| load.is_over(thread, start)));
        assert!(!load.accepts_late(start));
        load.weigh(1000);
        assert!(!load.is_over(0, start));
        let (unbounded, start) = bounded(None);
        unbounded.weigh(u64::MAX);
        assert!(!unbounded.is_over(0, start));
    }

    #[test]
    fn own_memory_is_known() {
        assert!(resident_bytes().unwrap() > 1024 * 1024);
    }
}
