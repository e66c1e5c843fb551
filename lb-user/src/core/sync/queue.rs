//! What waits to be sent: keys, those that were just made in front.

use std::collections::VecDeque;
use std::time::Duration;

/// What waits, each key once, which is the user's to see to.
pub(super) struct Queue<K> {
    urgent: VecDeque<Waiting<K>>,
    rest: VecDeque<Waiting<K>>,
    /// How many of all have been [made](Waiting::made) at some time.
    measured: usize,
}

/// A key that waits, or waited.
#[derive(Clone, Debug)]
pub(super) struct Waiting<K> {
    pub(super) key: K,
    /// For how long it may have been like that.
    pub(super) since: Duration,
    /// When it came to be, if it is measured how long it takes to be at the peer.
    pub(super) made: Option<Duration>,
}

/// Where a key waits.
#[derive(Clone, Copy, Debug)]
pub(super) enum Turn {
    /// It was just made.
    First { made: Duration },
    /// It was found, and may have been like that for a while.
    Last {
        since: Duration,
        made: Option<Duration>,
    },
}

impl Turn {
    /// That of something else about a key that was found before: it came to be back then.
    pub(super) const fn of_known(self) -> Self {
        match self {
            Self::First { .. } => self,
            Self::Last { since, .. } => Self::Last { since, made: None },
        }
    }
}

impl<K> Queue<K> {
    pub(super) const fn new() -> Self {
        Self {
            urgent: VecDeque::new(),
            rest: VecDeque::new(),
            measured: 0,
        }
    }

    /// All of a snapshot, in its order.
    pub(super) fn of_all(keys: Vec<K>, since: Duration) -> Self {
        let made = None;
        let rest = keys.into_iter().map(|key| Waiting { key, since, made });
        Self {
            rest: rest.collect(),
            ..Self::new()
        }
    }

    pub(super) fn push(&mut self, key: K, turn: Turn) {
        match turn {
            Turn::First { made } => {
                let (since, made) = (made, Some(made));
                self.measured += 1;
                self.urgent.push_back(Waiting { key, since, made });
            }
            Turn::Last { since, made } => {
                self.measured += usize::from(made.is_some());
                self.rest.push_back(Waiting { key, since, made });
            }
        }
    }

    /// Has a key wait again that was taken, before all others.
    pub(super) fn push_back_in_front(&mut self, waiting: Waiting<K>) {
        self.measured += usize::from(waiting.made.is_some());
        self.urgent.push_front(waiting);
    }

    /// Takes the next one of those that were just made.
    pub(super) fn pop_urgent(&mut self) -> Option<Waiting<K>> {
        let waiting = self.urgent.pop_front()?;
        self.measured -= usize::from(waiting.made.is_some());
        Some(waiting)
    }

    /// Takes the next one of the others.
    pub(super) fn pop(&mut self) -> Option<Waiting<K>> {
        let waiting = self.rest.pop_front()?;
        self.measured -= usize::from(waiting.made.is_some());
        Some(waiting)
    }

    pub(super) fn clear(&mut self) {
        *self = Self::new();
    }

    pub(super) fn len(&self) -> usize {
        self.urgent.len() + self.rest.len()
    }

    /// How many are measured.
    pub(super) const fn measured(&self) -> usize {
        self.measured
    }

    /// Since when the first ones of either kind wait.
    pub(super) fn oldest(&self) -> Option<Duration> {
        let fronts = [self.urgent.front(), self.rest.front()];
        fronts
            .into_iter()
            .flatten()
            .map(|waiting| waiting.since)
            .min()
    }
}
