//! How often the log tells of what strangers, or slow clients, may bring about without end.

use std::time::{Duration, Instant};

/// The most lines of one herald in [`WINDOW`]: there may be thousands, for one reason.
const LINES: u32 = 10;
const WINDOW: Duration = Duration::from_secs(10);

/// Keeps the log short.
#[derive(Debug, Default)]
pub(crate) struct Herald {
    since: Option<Instant>,
    lines: u32,
    unsaid: u64,
}

impl Herald {
    /// Whether there may be a line; if so, how many there were not since the last one.
    pub(crate) fn speak(&mut self, now: Instant) -> Option<u64> {
        let is_over = |since| now.saturating_duration_since(since) >= WINDOW;
        if self.since.is_none_or(is_over) {
            self.since = Some(now);
            self.lines = 0;
        }
        if self.lines == LINES {
            self.unsaid += 1;
            return None;
        }
        self.lines += 1;
        Some(std::mem::take(&mut self.unsaid))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_few_and_the_others_counted() {
        let start = Instant::now();
        let mut herald = Herald::default();
        let said = (0..100).filter(|_| herald.speak(start).is_some()).count();
        assert_eq!(said, 10);
        assert_eq!(herald.speak(start + WINDOW), Some(90));
        assert_eq!(herald.speak(start + WINDOW), Some(0));
    }
}
