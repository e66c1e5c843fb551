//! What happens at the door, as numbers.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, PoisonError, RwLock,
        atomic::{AtomicU64, Ordering},
    },
};

use serde::{Deserialize, Serialize};

use crate::refusal::Reason;

/// How an attempt to log in ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Attempted {
    Ok,
    Failed,
    /// Not looked at: there were too many before.
    Throttled,
    /// Not looked at: too many were being looked at.
    Busy,
}

impl Attempted {
    const ALL: [Self; 4] = [Self::Ok, Self::Failed, Self::Throttled, Self::Busy];

    const fn label(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Failed => "failed",
            Self::Throttled => "throttled",
            Self::Busy => "busy",
        }
    }
}

/// The numbers.
#[derive(Debug, Default)]
pub struct Counters {
    logins: [AtomicU64; Attempted::ALL.len()],
    refused: [AtomicU64; Reason::ALL.len()],
    pub(crate) sessions: Arc<AtomicU64>,
    pub(crate) connections: AtomicU64,
    pub(crate) turned_away: AtomicU64,
    pub(crate) streams: AtomicU64,
    pub(crate) accounts: AtomicU64,
    pub(crate) tokens: AtomicU64,
    accounts_error: RwLock<Option<String>>,
}

/// The numbers as the outside gets them; fields are added, not renamed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DashboardStatus {
    pub accounts: u64,
    pub tokens: u64,
    /// Why the file of accounts cannot be used; then those that were read before are in force.
    pub accounts_error: Option<String>,
    pub sessions: u64,
    pub connections: u64,
    /// Connections that were closed at once, as there were too many.
    pub connections_refused: u64,
    pub live_streams: u64,
    /// Attempts to log in, by how they ended.
    pub logins: BTreeMap<String, u64>,
    /// Requests that were refused, by why.
    pub refused: BTreeMap<String, u64>,
}

impl Counters {
    pub(crate) fn count_login(&self, attempted: Attempted) {
        if let Some(counter) = self.logins.get(attempted as usize) {
            counter.fetch_add(1, Ordering::Relaxed);
        }
    }

    pub(crate) fn count_refused(&self, reason: Reason) {
        if let Some(counter) = self.refused.get(reason as usize) {
            counter.fetch_add(1, Ordering::Relaxed);
        }
    }

    pub(crate) fn set_accounts(&self, (accounts, tokens): (u64, u64), error: Option<String>) {
        self.accounts.store(accounts, Ordering::Relaxed);
        self.tokens.store(tokens, Ordering::Relaxed);
        let mut slot = self
            .accounts_error
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        *slot = error;
    }

    /// All of them.
    #[must_use]
    pub fn status(&self) -> DashboardStatus {
        let of = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let logins = Attempted::ALL.iter().zip(&self.logins);
        let refused = Reason::ALL.iter().zip(&self.refused);
        let error = self.accounts_error.read();
        DashboardStatus {
            accounts: of(&self.accounts),
            tokens: of(&self.tokens),
            accounts_error: error.unwrap_or_else(PoisonError::into_inner).clone(),
            sessions: of(&self.sessions),
            connections: of(&self.connections),
            connections_refused: of(&self.turned_away),
            live_streams: of(&self.streams),
            logins: logins
                .map(|(it, count)| (it.label().to_owned(), of(count)))
                .collect(),
            refused: refused
                .map(|(it, count)| (it.label().to_owned(), of(count)))
                .collect(),
        }
    }
}

/// One more as long as it lives.
pub(crate) struct Counted<F: Fn(&Counters) -> &AtomicU64> {
    counters: Arc<Counters>,
    of: F,
}

impl<F: Fn(&Counters) -> &AtomicU64> Counted<F> {
    pub(crate) fn new(counters: Arc<Counters>, of: F) -> Self {
        of(&counters).fetch_add(1, Ordering::Relaxed);
        Self { counters, of }
    }
}

impl<F: Fn(&Counters) -> &AtomicU64> Drop for Counted<F> {
    fn drop(&mut self) {
        (self.of)(&self.counters).fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_is_counted_under_its_own_name() {
        let counters = Arc::new(Counters::default());
        for (times, attempted) in (1..).zip(Attempted::ALL) {
            (0..times).for_each(|_| counters.count_login(attempted));
        }
        for (times, reason) in (1..).zip(Reason::ALL) {
            (0..times).for_each(|_| counters.count_refused(reason));
        }
        let stream = Counted::new(Arc::clone(&counters), |counters| &counters.streams);
        let status = counters.status();
        for (times, attempted) in (1..).zip(Attempted::ALL) {
            assert_eq!(status.logins[attempted.label()], times);
        }
        for (times, reason) in (1..).zip(Reason::ALL) {
            assert_eq!(status.refused[reason.label()], times);
        }
        assert_eq!(status.live_streams, 1);
        drop(stream);
        assert_eq!(counters.status().live_streams, 0);
    }
}
