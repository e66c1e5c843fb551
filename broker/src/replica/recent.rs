//! Which sessions have had which messages, lately.
//!
//! When a node dies, what others had sent it may or may not have reached its sessions. What their
//! copies have had of it, also if their clients had it too, they are not to get once more.

use std::{
    collections::{HashSet, VecDeque},
    time::{Duration, Instant},
};

use super::place::mix;
use crate::message::MessageId;

/// How long it is remembered at least.
const MEMORY: Duration = Duration::from_secs(10);

/// Leases for which it is remembered: longer than a node that is dead may be held for alive, and what
/// was sent to it may wait.
const LEASES: u32 = 5;

/// How many at most: what a shard takes in that time, if it takes much.
const MOST: usize = 200_000;

/// How long what nodes of this lease have had is remembered.
pub fn memory(lease: Duration) -> Duration {
    MEMORY.max(LEASES * lease)
}

/// A session's client, by its hash, and a message.
#[derive(Debug)]
pub struct Recent {
    memory: Duration,
    /// In the order of time.
    order: VecDeque<(Instant, u64)>,
    had: HashSet<u64>,
}

impl Recent {
    pub fn new(memory: Duration) -> Self {
        Self {
            memory,
            order: VecDeque::new(),
            had: HashSet::new(),
        }
    }

    pub fn memory(&self) -> Duration {
        self.memory
    }

    /// From now on all that is there is remembered for so long.
    pub fn remember_for(&mut self, memory: Duration) {
        self.memory = memory;
    }

    /// Notes that a client's session has had a message; `false` if it had before.
    pub fn insert(&mut self, client: u64, id: MessageId, now: Instant) -> bool {
        // Such a message comes by one way alone.
        if id.is_none() {
            return true;
        }
        self.forget(now);
        let key = mix(client ^ mix(id.run ^ mix(id.number)));
        let is_new = self.had.insert(key);
        if is_new {
            self.order.push_back((now, key));
        }
        is_new
    }

    /// Adds what somebody else has noted of the same messages.
    pub fn absorb(&mut self, other: Self) {
        if other.order.is_empty() {
            return;
        }
        let theirs = other.order.into_iter();
        self.order
            .extend(theirs.filter(|(_since, key)| self.had.insert(*key)));
        let order = self.order.make_contiguous();
        order.sort_by_key(|(since, _key)| *since);
        while self.order.len() > MOST
            && let Some((_since, key)) = self.order.pop_front()
        {
            self.had.remove(&key);
        }
    }

    fn forget(&mut self, now: Instant) {
        let memory = self.memory;
        let is_old =
            |(since, _key): &mut (Instant, u64)| now.saturating_duration_since(*since) > memory;
        while let Some((_since, key)) = self.order.pop_front_if(is_old) {
            self.had.remove(&key);
        }
        if self.order.len() >= MOST
            && let Some((_since, key)) = self.order.pop_front()
        {
            self.had.remove(&key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(number: u64) -> MessageId {
        MessageId { run: 7, number }
    }

    #[test]
    fn message_is_had_once_by_each_session() {
        let mut recent = Recent::new(MEMORY);
        let now = Instant::now();
        assert!(recent.insert(1, id(1), now) && recent.insert(2, id(1), now));
        assert!(recent.insert(1, id(2), now));
        assert!(!recent.insert(1, id(1), now) && !recent.insert(2, id(1), now));
        for _ in 0..2 {
            assert!(recent.insert(1, MessageId::NONE, now));
        }
    }

    #[test]
    fn what_two_have_noted_is_had_as_long_as_it_would_be_by_either() {
        let now = Instant::now();
        let later = now + MEMORY / 2;
        let (mut recent, mut other) = (Recent::new(MEMORY), Recent::new(MEMORY));
        assert!(recent.insert(1, id(1), later));
        assert!(other.insert(1, id(2), now) && other.insert(1, id(1), now));
        recent.absorb(other);
        assert!(!recent.insert(1, id(1), later) && !recent.insert(1, id(2), later));
        let latest = now + MEMORY + Duration::from_millis(1);
        assert!(recent.insert(1, id(2), latest) && !recent.insert(1, id(1), latest));
    }

    #[test]
    fn nodes_of_more_patience_remember_for_longer() {
        assert_eq!(memory(Duration::from_secs(2)), MEMORY);
        let mut recent = Recent::new(memory(Duration::from_mins(1)));
        let now = Instant::now();
        assert!(recent.insert(1, id(1), now));
        assert!(!recent.insert(1, id(1), now + Duration::from_mins(3)));
    }

    #[test]
    fn what_is_old_is_forgotten_and_what_is_much_too() {
        let mut recent = Recent::new(MEMORY);
        let now = Instant::now();
        assert!(recent.insert(1, id(1), now));
        let later = now + MEMORY + Duration::from_secs(1);
        assert!(recent.insert(1, id(2), later));
        assert_eq!((recent.order.len(), recent.had.len()), (1, 1));
        for number in 0..MOST as u64 + 10 {
            recent.insert(1, id(number), later);
        }
        assert_eq!((recent.order.len(), recent.had.len()), (MOST, MOST));
    }
}
