//! Topics whose messages were deleted while other nodes are asked for what they have: they may have read
//! a message before they heard of its end.

use std::collections::BTreeSet;

/// Memory that these may take, about. Of more deletions, some may be undone by a copy.
const MOST_BYTES: usize = 16 * 1024 * 1024;

/// What a topic takes besides its name.
const TOPIC_BYTES: usize = 64;

#[derive(Debug, Default)]
pub(super) struct Deleted {
    topics: BTreeSet<Box<str>>,
    bytes: usize,
}

impl Deleted {
    pub(super) fn note(&mut self, topic: &str) {
        let bytes = TOPIC_BYTES + topic.len();
        if self.bytes + bytes <= MOST_BYTES && self.topics.insert(topic.into()) {
            self.bytes += bytes;
        }
    }

    pub(super) fn contains(&self, topic: &str) -> bool {
        self.topics.contains(topic)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clients_that_delete_without_end_fill_no_memory() {
        let mut deleted = Deleted::default();
        let long = "x".repeat(60_000);
        for number in 0..MOST_BYTES / 50_000 {
            deleted.note(&format!("{number}/{long}"));
            deleted.note("twice");
        }
        assert!(deleted.contains("twice") && deleted.contains(&format!("0/{long}")));
        assert!(deleted.bytes <= MOST_BYTES && deleted.topics.len() > 200);
        let sum = |topics: &BTreeSet<Box<str>>| -> usize {
            topics.iter().map(|topic| TOPIC_BYTES + topic.len()).sum()
        };
        assert_eq!(deleted.bytes, sum(&deleted.topics));
    }
}
