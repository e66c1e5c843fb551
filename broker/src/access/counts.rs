//! What is counted of who was let in, and how often the log tells of it.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use crate::metrics::{render_head, render_value};

/// How often the log tells of refused clients at most.
const COMPLAINT_INTERVAL: Duration = Duration::from_secs(10);

/// An authenticator's answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Answered {
    Allowed,
    Denied,
    Ignored,
    Unavailable,
}

const ANSWERS: [(Answered, &str); 4] = [
    (Answered::Allowed, "allowed"),
    (Answered::Denied, "denied"),
    (Answered::Ignored, "ignored"),
    (Answered::Unavailable, "unavailable"),
];

/// One authenticator's counts.
#[derive(Debug, Default)]
pub(super) struct Counts([AtomicU64; ANSWERS.len()]);

impl Counts {
    pub(super) fn inc(&self, answered: Answered) {
        self.0[answered as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// In the order of [`Answered`].
    pub(super) fn all(&self) -> [u64; ANSWERS.len()] {
        self.0.each_ref().map(|count| count.load(Ordering::Relaxed))
    }
}

/// All counts by name; they go on when the configuration is read again.
#[derive(Debug, Default)]
pub(super) struct Board(Mutex<BTreeMap<String, Arc<Counts>>>);

impl Board {
    /// Name and counts of the authenticator of a kind that has so many of its kind before it.
    pub(super) fn counts(&self, kind: &str, before: usize) -> (String, Arc<Counts>) {
        let name = if before == 0 {
            kind.to_owned()
        } else {
            format!("{kind}-{}", before + 1)
        };
        let mut board = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let counts = Arc::clone(board.entry(name.clone()).or_default());
        (name, counts)
    }

    pub(super) fn render(&self, out: &mut String) {
        let help =
            "Answers to CONNECT packets, by authenticator; \"none\" is for clients unknown to all.";
        render_head(out, "access_total", "counter", help);
        let board = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for (name, counts) in &*board {
            for (answered, answer) in ANSWERS {
                let label = format!("authenticator=\"{name}\",answer=\"{answer}\"");
                let value = counts.0[answered as usize].load(Ordering::Relaxed);
                render_value(out, "access_total", &label, value);
            }
        }
    }
}

/// Keeps clients that are refused from filling the log.
#[derive(Debug, Default)]
pub(super) struct Complaints(Mutex<Complaint>);

#[derive(Debug, Default)]
struct Complaint {
    last: Option<Instant>,
    untold: u64,
}

impl Complaints {
    /// Takes note of a refusal; how many there were since the log told of it, when it should again.
    pub(super) fn note(&self, now: Instant) -> Option<u64> {
        let mut complaint = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        complaint.untold += 1;
        let waits = complaint
            .last
            .is_some_and(|last| now < last + COMPLAINT_INTERVAL);
        if waits {
            return None;
        }
        complaint.last = Some(now);
        Some(std::mem::take(&mut complaint.untold))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_in_the_order_of_their_numbers() {
        for (index, (answered, _name)) in ANSWERS.iter().enumerate() {
            assert_eq!(*answered as usize, index);
        }
    }

    #[test]
    fn log_tells_at_once_and_then_in_sums() {
        let complaints = Complaints::default();
        let now = Instant::now();
        assert_eq!(complaints.note(now), Some(1));
        assert_eq!(complaints.note(now), None);
        assert_eq!(complaints.note(now), None);
        assert_eq!(complaints.note(now + COMPLAINT_INTERVAL), Some(3));
    }

    #[test]
    fn counts_go_on_under_their_name() {
        let board = Board::default();
        board.counts("file", 0).1.inc(Answered::Allowed);
        board.counts("file", 0).1.inc(Answered::Allowed);
        board.counts("file", 1).1.inc(Answered::Denied);
        let mut text = String::new();
        board.render(&mut text);
        assert!(text.contains("access_total{authenticator=\"file\",answer=\"allowed\"} 2\n"));
        assert!(text.contains("access_total{authenticator=\"file-2\",answer=\"denied\"} 1\n"));
    }
}
