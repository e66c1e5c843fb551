//! The store's thread: what waits is one batch, which is written and then confirmed.

use std::{
    sync::{Arc, atomic::Ordering, mpsc},
    time::{Duration, Instant},
};

use tracing::{error, info, warn};

use super::{
    Condition, Parcel, Store,
    clock::Clock,
    disk::{Medium, WriteError},
    scribe::Scribe,
    status::Stats,
    watch::Watch,
};
use crate::{config::Persistence, routes::ShardId};

/// When a write that failed is tried again, and how often a file system that is full is looked at.
const RETRY: Duration = Duration::from_secs(1);

/// When it is tried again at the latest. Each time it doubles until then: the store is opened anew,
/// and all of it is read.
const LONGEST_RETRY: Duration = Duration::from_secs(16);

/// Writes what the shards send.
pub(super) struct Worker {
    store: Arc<Store>,
    scribe: Scribe,
    medium: Box<dyn Medium>,
    watch: Arc<Watch>,
    max_bytes: u64,
    min_free_bytes: u64,
    /// Parcels whose changes are in the batch.
    waiting: Vec<(ShardId, u64)>,
    /// When a failed write is to be tried again.
    retry: Option<Instant>,
    pause: Duration,
}

impl Worker {
    pub(super) fn new(
        store: Arc<Store>,
        scribe: Scribe,
        medium: Box<dyn Medium>,
        watch: Arc<Watch>,
        config: &Persistence,
    ) -> Self {
        Self {
            store,
            scribe,
            medium,
            watch,
            max_bytes: config.max_bytes,
            min_free_bytes: config.min_free_bytes,
            waiting: Vec::new(),
            retry: None,
            pause: RETRY,
        }
    }

    /// Serves until nobody can send any more.
    pub(super) fn run(mut self, parcels: &mpsc::Receiver<Parcel>) {
        self.look();
        loop {
            let next = if self.store.condition() == Condition::Good {
                parcels
                    .recv()
                    .map_err(|_gone| mpsc::RecvTimeoutError::Disconnected)
            } else {
                parcels.recv_timeout(RETRY)
            };
            let clock = Clock::read();
            match next {
                Ok(parcel) => self.take(parcel, clock),
                Err(mpsc::RecvTimeoutError::Timeout) => {}
                Err(mpsc::RecvTimeoutError::Disconnected) => break,
            }
            while let Ok(parcel) = parcels.try_recv() {
                self.take(parcel, clock);
            }
            self.turn(clock);
        }
        // The last word of retained messages may have come without a parcel.
        self.retry = None;
        self.turn(Clock::read());
        if self.store.condition() == Condition::Failing {
            error!("the broker ends with changes that could not be stored");
        }
    }

    fn take(&mut self, parcel: Parcel, clock: Clock) {
        let Parcel {
            shard,
            number,
            changes,
        } = parcel;
        for (session, change) in changes {
            self.scribe.note(session, change, clock);
        }
        self.waiting.push((shard, number));
    }

    fn turn(&mut self, clock: Clock) {
        // Behind the parcels: what a shard noted before it sent one is there.
        for note in self.store.take_notes() {
            self.scribe.note_retained(note, clock);
        }
        if self.retry.is_some_and(|due| Instant::now() < due) {
            return;
        }
        self.watch.begin();
        if let Err(error) = self.write() {
            self.watch.end();
            self.store.stats.errors.fetch_add(1, Ordering::Relaxed);
            self.fail(&error);
            return;
        }
        self.retry = None;
        self.pause = RETRY;
        // What is stored waits for nothing more, least of all for a file system that hangs.
        for (shard, number) in self.waiting.drain(..) {
            self.store.set_stored(shard, number);
        }
        self.look();
    }

    fn write(&mut self) -> Result<(), WriteError> {
        let batch = self.scribe.batch();
        if batch.is_empty() {
            return Ok(());
        }
        let began = Instant::now();
        self.medium.write(batch)?;
        let Stats {
            commits,
            records,
            commit_times,
            ..
        } = &self.store.stats;
        commit_times.observe(began.elapsed());
        commits.fetch_add(1, Ordering::Relaxed);
        records.fetch_add(batch.len() as u64, Ordering::Relaxed);
        self.scribe.handle_written();
        Ok(())
    }

    fn fail(&mut self, error: &(dyn std::error::Error + 'static)) {
        self.scribe.handle_failure();
        // It may be failing already, as the write hung before.
        let is_first = self.retry.is_none();
        self.retry = Some(Instant::now() + self.pause);
        self.pause = (self.pause * 2).min(LONGEST_RETRY);
        self.store.set_condition(Condition::Failing);
        if is_first {
            error!(
                error,
                "cannot store: what needs the store is refused until it can be written again"
            );
        }
    }

    /// Looks whether more may be stored, which may take as long as a write does.
    fn look(&self) {
        self.watch.begin();
        let free = self.medium.free_bytes();
        self.watch.end();
        self.note_condition(free);
    }

    /// What was refused leaves some room before it is taken again, or every message would change
    /// that.
    fn note_condition(&self, free: Option<u64>) {
        let bytes = self.medium.bytes();
        self.store.stats.bytes.store(bytes, Ordering::Relaxed);
        let is_good = self.store.condition() == Condition::Good;
        let tenth = |of: u64| if is_good { 0 } else { of / 10 };
        let condition = if bytes >= self.max_bytes - tenth(self.max_bytes) {
            Condition::Full
        } else if free.is_some_and(|free| free < self.min_free_bytes + tenth(self.min_free_bytes)) {
            Condition::LowSpace
        } else {
            Condition::Good
        };
        let before = self.store.set_condition(condition);
        if before == condition {
            return;
        }
        if condition == Condition::Good {
            info!(before = before.name(), "the store takes more again");
        } else {
            warn!(
                condition = condition.name(),
                bytes,
                max_bytes = self.max_bytes,
                free_bytes = free,
                min_free_bytes = self.min_free_bytes,
                "the store takes no more: what needs it is refused"
            );
        }
    }
}

#[cfg(test)]
mod tests;
