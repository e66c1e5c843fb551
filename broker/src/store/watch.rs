//! Looks how long the file system takes: one that hangs says nothing by itself.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc},
    time::{Duration, Instant},
};

use tracing::error;

use super::{Condition, Store};

/// How often it is looked, as a part of the patience.
const LOOKS: u32 = 4;

/// The write, or other question to the file system, that is under way.
pub(super) struct Watch {
    store: Arc<Store>,
    patience: Duration,
    began: Mutex<Option<Instant>>,
}

impl Watch {
    pub(super) fn new(store: Arc<Store>, patience: Duration) -> Self {
        Self {
            store,
            patience,
            began: Mutex::default(),
        }
    }

    /// What is asked next is part of what has begun.
    pub(super) fn begin(&self) {
        self.lock().get_or_insert_with(Instant::now);
    }

    /// What the store's condition is the caller says, who knows what came of the write.
    pub(super) fn end(&self) {
        *self.lock() = None;
    }

    /// Looks until the other end of `over` is gone.
    pub(super) fn run(&self, over: &mpsc::Receiver<()>) {
        while over.recv_timeout(self.patience / LOOKS) == Err(mpsc::RecvTimeoutError::Timeout) {
            self.look(Instant::now());
        }
    }

    pub(super) fn look(&self, now: Instant) {
        // Held until the condition is set, or it would be set after the write's end.
        let began = self.lock();
        let hangs =
            began.is_some_and(|began| now.saturating_duration_since(began) >= self.patience);
        if hangs && self.store.set_condition(Condition::Failing) != Condition::Failing {
            error!(
                patience = ?self.patience,
                "the store's file system hangs: what needs the store is refused until it answers"
            );
        }
    }

    fn lock(&self) -> MutexGuard<'_, Option<Instant>> {
        self.began.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn write_that_takes_too_long_is_a_condition() {
        let store = Arc::new(Store::for_tests(1));
        let watch = Watch::new(Arc::clone(&store), Duration::from_secs(10));
        let later = |seconds| Instant::now() + Duration::from_secs(seconds);
        watch.look(later(60));
        assert_eq!(store.condition(), Condition::Good);
        watch.begin();
        watch.look(later(9));
        assert_eq!(store.condition(), Condition::Good);
        watch.look(later(10));
        assert_eq!(store.condition(), Condition::Failing);
        watch.end();
        store.set_condition(Condition::Good);
        watch.look(later(60));
        assert_eq!(store.condition(), Condition::Good);
    }
}
