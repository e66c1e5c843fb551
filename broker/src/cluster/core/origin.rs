//! What a node begins with: its own retained messages, or a copy of the others'.
//!
//! A node that begins without any asks each peer, in each stream, until one has told it all of its
//! own; keeping a copy only adds what is not there, so it is never too late for one. Whether the node
//! may show itself, and answer others, is another question: it need not wait for who is not there, or
//! says nothing. Two that begin together would wait for each other; a first one has nobody to ask.

use std::time::{Duration, Instant};

/// How far a node is with what it begins with.
#[derive(Debug, Default)]
pub(super) struct Origin {
    /// It began with nothing, and nobody has told it all.
    wants: bool,
    /// It has waited for long enough; this is not taken back.
    is_settled: bool,
    /// Since when others are there and do not tell.
    unanswered: Option<Instant>,
}

/// What other nodes do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Others {
    /// Calls are under way for the first time.
    Sought,
    /// All calls were in vain.
    Nobody,
    Silent,
    /// One is about to tell what it has.
    Tell,
}

impl Origin {
    /// The node begins without retained messages.
    pub(super) fn want(&mut self) {
        self.wants = true;
    }

    pub(super) fn wants(&self) -> bool {
        self.wants
    }

    /// Whether the node has what it is to begin with, or there is nobody to have it from.
    pub(super) fn is_settled(&self) -> bool {
        self.is_settled || !self.wants
    }

    /// A peer has told all of its messages.
    pub(super) fn handle_copy(&mut self) {
        self.wants = false;
    }

    pub(super) fn handle_timeout(&mut self, others: Others, patience: Duration, now: Instant) {
        let since = match others {
            Others::Sought | Others::Tell => None,
            Others::Nobody => {
                self.is_settled = true;
                None
            }
            Others::Silent => Some(self.unanswered.unwrap_or(now)),
        };
        self.unanswered = since;
        // They have none themselves, and wait too.
        let is_over = |since: Instant| now.saturating_duration_since(since) >= patience;
        self.is_settled |= since.is_some_and(is_over);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATIENCE: Duration = Duration::from_secs(6);

    #[test]
    fn first_node_need_not_wait_and_asks_who_comes_later() {
        let mut origin = Origin::default();
        origin.want();
        let now = Instant::now();
        origin.handle_timeout(Others::Sought, PATIENCE, now + 9 * PATIENCE);
        assert!(!origin.is_settled());
        origin.handle_timeout(Others::Nobody, PATIENCE, now);
        assert!(origin.is_settled() && origin.wants());
        // To have asked does not make it one that has just begun.
        origin.handle_timeout(Others::Tell, PATIENCE, now);
        assert!(origin.is_settled() && origin.wants());
        origin.handle_copy();
        assert!(!origin.wants());
    }

    #[test]
    fn copy_that_goes_on_is_waited_for_however_long_it_takes() {
        let mut origin = Origin::default();
        origin.want();
        let now = Instant::now();
        origin.handle_timeout(Others::Silent, PATIENCE, now);
        origin.handle_timeout(Others::Tell, PATIENCE, now + PATIENCE);
        origin.handle_timeout(Others::Tell, PATIENCE, now + 9 * PATIENCE);
        assert!(!origin.is_settled());
        // Who told it has gone.
        origin.handle_timeout(Others::Silent, PATIENCE, now + 9 * PATIENCE);
        assert!(!origin.is_settled());
        origin.handle_timeout(Others::Silent, PATIENCE, now + 10 * PATIENCE);
        assert!(origin.is_settled() && origin.wants());
    }
}
