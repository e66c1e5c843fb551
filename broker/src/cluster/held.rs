//! What a peer has passed on and this node's shards have not taken.
//!
//! It is counted for each slot, over all streams that follow each other in it: a peer that holds this
//! node for stuck begins another one, and what it passed on before waits all the same. While that
//! does not move, nothing is taken of a new stream, so the peer does not hold this node for alive.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use super::{core::Mutant, pair::WINDOW};

/// An item: the number that its stream has here, and its own in that.
type Id = (u64, u64);

/// Items handed to the driver, in order.
#[derive(Debug)]
pub(super) struct Held {
    items: VecDeque<(Id, usize)>,
    weight: usize,
    /// When one was taken last, or the first of them came.
    progress: Instant,
}

impl Held {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            items: VecDeque::new(),
            weight: 0,
            progress: now,
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    pub(super) fn push(&mut self, id: Id, weight: usize, now: Instant) {
        if self.items.is_empty() {
            self.progress = now;
        }
        self.items.push_back((id, weight));
        self.weight += weight;
    }

    /// Notes that all up to this item are taken.
    pub(super) fn handle_delivered(&mut self, up_to: Id, now: Instant) {
        while let Some((_id, weight)) = self.items.pop_front_if(|(id, _weight)| *id <= up_to) {
            self.weight -= weight;
            self.progress = now;
        }
    }

    /// Whether a new stream has to wait: the items do not move, or are too many already.
    pub(super) fn is_choked(&self, patience: Duration, now: Instant) -> bool {
        let waits = now.saturating_duration_since(self.progress) > patience;
        let is_choked = self.weight > WINDOW || waits && !self.items.is_empty();
        is_choked && !Mutant::TakesAll.is_on()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_move_or_is_too_much_keeps_new_streams_out() {
        const PATIENCE: Duration = Duration::from_secs(2);
        let now = Instant::now();
        let late = now + PATIENCE + Duration::from_millis(1);
        let mut held = Held::new(now);
        assert!(!held.is_choked(PATIENCE, late));
        held.push((1, 1), 100, late);
        held.push((2, 1), 100, late);
        assert!(!held.is_choked(PATIENCE, late));
        assert!(held.is_choked(PATIENCE, late + 2 * PATIENCE));
        // Of another stream.
        held.handle_delivered((1, 9), late + 2 * PATIENCE);
        assert!(!held.is_choked(PATIENCE, late + 2 * PATIENCE));
        held.push((2, 2), WINDOW, late);
        assert!(held.is_choked(PATIENCE, late));
        held.handle_delivered((2, 2), late);
        assert!(held.is_empty() && !held.is_choked(PATIENCE, late + 9 * PATIENCE));
    }
}
