//! Topics whose messages were deleted: other nodes may have older ones still, and not know that these do
//! not count any more.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Bound,
    sync::Arc,
};

/// Memory that these may take, about. Of more, the oldest are forgotten: a message of theirs comes back
/// with a node that was away for so long.
const MOST_BYTES: usize = 16 * 1024 * 1024;

/// What a topic takes besides its name.
const TOPIC_BYTES: usize = 160;

/// Of that, what those may take which others must make room for: clients and an overload can make any
/// number of them, and what was deleted on purpose is not to be forgotten for it.
const PASSING_BYTES: usize = MOST_BYTES / 4;

/// Why nothing older of a topic counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cause {
    /// A message was deleted.
    Meant,
    /// There was none to delete, or it has expired, or there was no room for it.
    Passing,
}

/// Up to when nothing of a topic counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Deletion {
    pub(crate) at: u64,
    pub(crate) cause: Cause,
}

#[derive(Debug, Default)]
pub(super) struct Deleted {
    topics: BTreeMap<Arc<str>, Deletion>,
    meant: Order,
    passing: Order,
}

/// Topics by when they were deleted, the oldest first.
#[derive(Debug, Default)]
struct Order {
    topics: BTreeSet<(u64, Arc<str>)>,
    bytes: usize,
}

impl Order {
    fn insert(&mut self, at: u64, topic: Arc<str>) {
        self.bytes += weight(&topic);
        self.topics.insert((at, topic));
    }

    fn remove(&mut self, at: u64, topic: Arc<str>) -> bool {
        self.bytes -= weight(&topic);
        self.topics.remove(&(at, topic))
    }

    fn pop(&mut self) -> Option<Arc<str>> {
        let (_at, topic) = self.topics.pop_first()?;
        self.bytes -= weight(&topic);
        Some(topic)
    }
}

impl Deleted {
    pub(super) fn get(&self, topic: &str) -> Option<Deletion> {
        self.topics.get(topic).copied()
    }

    /// Up to when nothing of the topic counts.
    pub(super) fn time_of(&self, topic: &str) -> Option<u64> {
        self.get(topic).map(|deletion| deletion.at)
    }

    pub(super) fn note(&mut self, topic: &str, deletion: Deletion) {
        self.remove(topic);
        let topic: Arc<str> = topic.into();
        self.topics.insert(Arc::clone(&topic), deletion);
        self.order(deletion.cause).insert(deletion.at, topic);
    }

    /// Forgets one; tells whether it was known.
    pub(super) fn remove(&mut self, topic: &str) -> bool {
        let Some((topic, Deletion { at, cause })) = self.topics.remove_entry(topic) else {
            return false;
        };
        self.order(cause).remove(at, topic)
    }

    /// Forgets the oldest if they are too many.
    pub(super) fn pop_excess(&mut self) -> Option<Arc<str>> {
        if self.bytes() <= MOST_BYTES {
            return None;
        }
        let order = if self.passing.bytes > PASSING_BYTES {
            &mut self.passing
        } else {
            &mut self.meant
        };
        let topic = order.pop()?;
        self.topics.remove(&topic);
        Some(topic)
    }

    pub(super) fn len(&self) -> usize {
        self.topics.len()
    }

    fn bytes(&self) -> usize {
        self.meant.bytes + self.passing.bytes
    }

    fn order(&mut self, cause: Cause) -> &mut Order {
        match cause {
            Cause::Meant => &mut self.meant,
            Cause::Passing => &mut self.passing,
        }
    }

    /// Those behind a topic.
    pub(super) fn behind(&self, topic: &str) -> impl Iterator<Item = (&Arc<str>, Deletion)> {
        let range = (Bound::Excluded(topic), Bound::Unbounded);
        let topics = self.topics.range::<str, _>(range);
        topics.map(|(topic, deletion)| (topic, *deletion))
    }
}

fn weight(topic: &str) -> usize {
    TOPIC_BYTES + topic.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn meant(at: u64) -> Deletion {
        Deletion {
            at,
            cause: Cause::Meant,
        }
    }

    const fn passing(at: u64) -> Deletion {
        Deletion {
            at,
            cause: Cause::Passing,
        }
    }

    #[test]
    fn clients_that_delete_without_end_fill_no_memory() {
        let mut deleted = Deleted::default();
        let long = "x".repeat(60_000);
        let mut forgotten = Vec::new();
        for number in 0..MOST_BYTES as u64 / 50_000 {
            deleted.note(&format!("{number}/{long}"), meant(10 + number));
            deleted.note("again", meant(10 + number));
            forgotten.extend(std::iter::from_fn(|| deleted.pop_excess()));
        }
        assert!(deleted.bytes() <= MOST_BYTES && deleted.topics.len() > 200);
        assert_eq!(deleted.topics.len(), deleted.meant.topics.len());
        // The oldest go.
        assert!(forgotten[0].starts_with("0/") && deleted.time_of("again").is_some());
        let sum: usize = deleted.topics.keys().map(|topic| weight(topic)).sum();
        assert_eq!(deleted.bytes(), sum);
        assert!(deleted.remove("again") && !deleted.remove("again"));
    }

    #[test]
    fn what_was_deleted_is_not_forgotten_for_topics_that_had_nothing() {
        let mut deleted = Deleted::default();
        let long = "x".repeat(60_000);
        deleted.note("meant", meant(1));
        let mut forgotten = 0;
        for number in 0..MOST_BYTES as u64 / 30_000 {
            deleted.note(&format!("{number}/{long}"), passing(10 + number));
            forgotten += std::iter::from_fn(|| deleted.pop_excess()).count();
        }
        assert!(forgotten > 200 && deleted.time_of("meant") == Some(1));
        // Those have some room of their own, too.
        for number in 0..MOST_BYTES as u64 / 30_000 {
            deleted.note(&format!("m/{number}/{long}"), meant(10 + number));
            while deleted.pop_excess().is_some() {}
        }
        assert_eq!(deleted.time_of("meant"), None);
        let passing = deleted.passing.bytes;
        assert!(PASSING_BYTES / 2 < passing && passing <= PASSING_BYTES);
        assert!(deleted.bytes() <= MOST_BYTES);
    }
}
