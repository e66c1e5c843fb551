//! What subscribers lose that do not keep up, and how often the log tells of it.

use std::time::{Duration, Instant};

/// How often one client is named; as long is it called slow after a loss.
const PER_CLIENT: Duration = Duration::from_secs(60);

/// What was lost to one client's full queue since it last connected.
#[derive(Debug)]
pub(super) struct Losses {
    pub(super) messages: u64,
    /// Of payload.
    pub(super) bytes: u64,
    last: Instant,
    told: Option<Instant>,
}

impl Losses {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            messages: 0,
            bytes: 0,
            last: now,
            told: None,
        }
    }

    /// Notes a loss; tells whether it is time to tell of it.
    pub(super) fn note(&mut self, bytes: usize, now: Instant) -> bool {
        self.messages += 1;
        self.bytes = self.bytes.saturating_add(bytes as u64);
        self.last = now;
        let is_due = |told| now.saturating_duration_since(told) >= PER_CLIENT;
        self.told.is_none_or(is_due)
    }

    /// Notes that the log has told of it.
    pub(super) fn note_told(&mut self, now: Instant) {
        self.told = Some(now);
    }

    pub(super) fn is_recent(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.last) < PER_CLIENT
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_client_is_named_once_a_minute() {
        let start = Instant::now();
        let mut losses = Losses::new(start);
        assert!(losses.note(10, start));
        losses.note_told(start);
        assert!(!losses.note(5, start + Duration::from_secs(59)));
        assert!(losses.note(5, start + Duration::from_secs(60)));
        assert_eq!((losses.messages, losses.bytes), (3, 20));
        assert!(losses.is_recent(start + Duration::from_secs(119)));
        assert!(!losses.is_recent(start + Duration::from_secs(120)));
    }
}
