//! What a node begins with: its own retained messages, or a copy of the others'.
//!
//! Nodes that meet tell each other what differs. One that begins without any waits until a peer has told
//! it all. What one has that began with nothing itself is no answer for all: who has more may come yet.
//! Whether the node may show itself, and answer others, is another question: it need not wait for who is
//! not there, or says nothing. Two that begin together would wait for each other; a first one has nobody
//! to ask.

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

/// Peers that are remembered; a cluster has far fewer.
const MOST: usize = 64;

/// How far a node is with what it begins with.
#[derive(Debug, Default)]
pub(super) struct Origin {
    /// It began with nothing, and nobody has told it all who did not begin so.
    wants: bool,
    /// Who did, and has told all of theirs.
    told: BTreeSet<Box<str>>,
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
    /// All who are there have told what they have.
    Told,
}

impl Origin {
    /// The node begins without retained messages.
    pub(super) fn want(&mut self) {
        self.wants = true;
    }

    /// Whether nobody has told it all.
    pub(super) fn wants(&self) -> bool {
        self.wants
    }

    /// Whether this peer has what the node waits for.
    pub(super) fn wants_of(&self, peer: &str) -> bool {
        self.wants && !self.told.contains(peer)
    }

    /// Whether the node has what it is to begin with, or there is nobody to have it from.
    pub(super) fn is_settled(&self) -> bool {
        self.is_settled || !self.wants
    }

    /// A peer has told all of its messages, and did not begin with nothing.
    pub(super) fn handle_copy(&mut self) {
        self.wants = false;
    }

    /// A peer has told all of its messages that began with nothing, as this one did.
    pub(super) fn note_told(&mut self, peer: &str) {
        if self.told.len() < MOST {
            self.told.insert(peer.into());
        }
    }

    pub(super) fn handle_timeout(&mut self, others: Others, patience: Duration, now: Instant) {
        let since = match others {
            Others::Sought | Others::Tell => None,
            Others::Nobody | Others::Told => {
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
        assert!(origin.is_settled() && origin.wants_of("two"));
        // To have asked does not make it one that has just begun.
        origin.handle_timeout(Others::Tell, PATIENCE, now);
        assert!(origin.is_settled() && origin.wants_of("two"));
        origin.handle_copy();
        assert!(!origin.wants_of("two"));
    }

    #[test]
    fn peers_that_began_with_nothing_too_are_asked_once_and_are_no_answer_for_others() {
        let mut origin = Origin::default();
        origin.want();
        origin.note_told("two");
        assert!(!origin.wants_of("two") && origin.wants_of("three") && !origin.is_settled());
        origin.handle_timeout(Others::Told, PATIENCE, Instant::now());
        assert!(origin.is_settled() && origin.wants_of("three"));
        origin.handle_copy();
        assert!(!origin.wants_of("three"));
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
        assert!(origin.is_settled() && origin.wants_of("two"));
    }
}
