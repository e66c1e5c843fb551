//! A claim under way.

use std::time::Instant;

use super::{Action, Claim, Fellow, Rank, Stamp, Terms};

#[derive(Debug)]
pub(super) struct Open<W> {
    /// By which it was asked for; what is said of another one is late.
    pub(super) time: u64,
    /// The time of who was the first to wait then.
    pub(super) asked_for: u64,
    /// What those have who waited then.
    pub(super) rank: Rank,
    pub(super) deadline: Instant,
    /// Who was there then.
    pub(super) told: Vec<Fellow>,
    /// Who has not answered.
    pub(super) asked: Vec<Fellow>,
    pub(super) asked_again: Vec<Fellow>,
    /// The newest connection elsewhere.
    pub(super) newer: Option<Stamp>,
    pub(super) is_denied: bool,
    /// It was said that somebody is gone.
    pub(super) is_bereft: bool,
    pub(super) is_granted: bool,
    /// In the order of their times.
    pub(super) waiters: Vec<Waiter<W>>,
}

#[derive(Debug)]
pub(super) struct Waiter<W> {
    pub(super) time: u64,
    pub(super) terms: Terms,
    /// Not there once it was granted.
    pub(super) who: Option<W>,
}

impl<W> Open<W> {
    /// The time of the newest client that waits.
    pub(super) fn newest(&self) -> Option<u64> {
        self.waiters.last().map(|waiter| waiter.time)
    }

    /// The time of the newest client that has waited with such a right to the id, or a better one.
    pub(super) fn newest_of(&self, rank: Rank) -> Option<u64> {
        let is_such = |waiter: &&Waiter<W>| waiter.terms.rank() >= rank;
        let newest = self.waiters.iter().rfind(is_such);
        // Who waited may be refused by now, by somebody newer still; the others go on answering.
        let asked = (self.rank >= rank).then_some(self.time);
        newest.map(|waiter| waiter.time).max(asked)
    }

    /// Whether a client waits, or has waited, that has a better right to the id.
    pub(super) fn outranks(&self, rank: Rank) -> bool {
        let waiters = self.waiters.iter().map(|waiter| waiter.terms.rank());
        !self.is_granted && waiters.chain([self.rank]).max() > Some(rank)
    }

    /// Asks a node again that has claimed the id as well, in vain: a session may have gone there before
    /// it heard of that. Once, so that it cannot make this claim wait by claiming again and again.
    pub(super) fn ask_again(&mut self, claim: &Claim) -> Option<Action<W>> {
        let from = claim.from;
        let first = self.waiters.first()?;
        if self.asked_again.contains(&from) {
            return None;
        }
        self.asked_again.push(from);
        if !self.asked.contains(&from) {
            self.asked.push(from);
        }
        Some(Action::Ask {
            client_id: claim.client_id.clone(),
            time: self.time,
            terms: Terms {
                is_bereft: self.is_bereft,
                ..first.terms.clone()
            },
            fellows: vec![from],
        })
    }
}
