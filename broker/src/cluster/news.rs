//! What peers have told of retained messages that others may not have either.
//!
//! A publication is in the store before its frames go to other nodes, and a page for a peer is read from
//! the store: it may overtake publications on their way to all. If each of these were a reason to ask the
//! others, every answer would bring more of them. So what a page brings that is young waits for its own
//! frame. Who gets that knows that the others get theirs; what does not come is news.

use std::{
    collections::{BTreeSet, VecDeque},
    time::{Duration, Instant},
};

use super::core::Mutant;

/// Leases, the longest of all, that a frame may be on its way: who takes nothing for so long is gone.
pub(super) const ON_THE_WAY: u32 = 2;

/// Messages that wait at most; more are taken for news, which costs a comparison.
const MOST: usize = 16 * 1024;

/// Messages that have come before their own frames, by their values.
#[derive(Debug, Default)]
pub(super) struct Early {
    waiting: BTreeSet<u64>,
    order: VecDeque<(Instant, u64)>,
}

impl Early {
    /// Has a message wait for its frame; `false` when there is no room for it.
    pub(super) fn hold(&mut self, value: u64, now: Instant) -> bool {
        if self.order.len() >= MOST || Mutant::TakesAllForNews.is_on() {
            return false;
        }
        if self.waiting.insert(value) {
            self.order.push_back((now, value));
        }
        true
    }

    /// Whether none waits.
    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// A message's own frame has come.
    pub(super) fn handle_published(&mut self, value: u64) {
        self.waiting.remove(&value);
    }

    /// Forgets what has waited for so long; tells whether some of it has not come.
    pub(super) fn poll_missing(&mut self, patience: Duration, now: Instant) -> bool {
        let mut is_missing = false;
        while let Some((since, value)) = self.order.front().copied()
            && now.saturating_duration_since(since) >= patience
        {
            self.order.pop_front();
            is_missing |= self.waiting.remove(&value);
        }
        is_missing
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATIENCE: Duration = Duration::from_secs(4);

    #[test]
    fn what_comes_by_itself_is_no_news_and_what_does_not_is_so_once() {
        let mut early = Early::default();
        let now = Instant::now();
        assert!(early.hold(1, now) && early.hold(2, now) && early.hold(1, now));
        early.handle_published(1);
        early.handle_published(3);
        assert!(!early.is_empty());
        assert!(!early.poll_missing(PATIENCE, now + PATIENCE / 2));
        assert!(early.poll_missing(PATIENCE, now + PATIENCE));
        assert!(early.is_empty() && !early.poll_missing(PATIENCE, now + 9 * PATIENCE));
        assert!(early.hold(4, now));
        early.handle_published(4);
        assert!(!early.poll_missing(PATIENCE, now + PATIENCE));
    }

    #[test]
    fn messages_that_wait_are_bounded() {
        let mut early = Early::default();
        let now = Instant::now();
        for value in 0..MOST as u64 {
            assert!(early.hold(value, now));
        }
        assert!(!early.hold(u64::MAX, now));
        assert!(early.poll_missing(PATIENCE, now + PATIENCE));
        assert!(early.hold(u64::MAX, now));
    }
}
