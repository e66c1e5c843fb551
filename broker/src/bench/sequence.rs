//! Counts what is missing and what came twice in one publisher's numbered messages.

use std::collections::BTreeMap;

/// The numbers seen so far of one publisher.
///
/// The first number seen is where counting starts: a subscriber may come late. A number that
/// was skipped and arrives afterwards (a publisher repeats what was not acknowledged) fills its
/// gap again.
#[derive(Debug, Default)]
pub(super) struct Sequence {
    next: Option<u64>,
    /// Ranges of numbers skipped so far: first number -> the one after the last.
    missing: BTreeMap<u64, u64>,
}

/// How a message changed the counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Seen {
    /// The number expected, or the first one.
    InOrder,
    /// This many numbers were skipped.
    Skipped(u64),
    /// It was counted as missing, and is here.
    Late,
    Duplicate,
}

impl Sequence {
    /// Takes the next message's number.
    pub(super) fn observe(&mut self, number: u64) -> Seen {
        let next = self.next.unwrap_or(number);
        if number < next {
            return if self.fill(number) {
                Seen::Late
            } else {
                Seen::Duplicate
            };
        }
        self.next = Some(number.saturating_add(1));
        if number == next {
            return Seen::InOrder;
        }
        self.missing.insert(next, number);
        Seen::Skipped(number - next)
    }

    /// Ranges of numbers that are missing: the first and the last of each.
    pub(super) fn missing(&self) -> impl Iterator<Item = (u64, u64)> + '_ {
        self.missing
            .iter()
            .map(|(first, end)| (*first, end.saturating_sub(1)))
    }

    fn fill(&mut self, number: u64) -> bool {
        let Some((&first, &end)) = self.missing.range(..=number).next_back() else {
            return false;
        };
        if number >= end {
            return false;
        }
        self.missing.remove(&first);
        if first < number {
            self.missing.insert(first, number);
        }
        if number + 1 < end {
            self.missing.insert(number + 1, end);
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::{Seen, Sequence};

    fn observe_all<const N: usize>(numbers: [u64; N]) -> [Seen; N] {
        let mut sequence = Sequence::default();
        numbers.map(|number| sequence.observe(number))
    }

    #[test]
    fn counting_starts_at_the_first_number_seen() {
        assert_eq!(observe_all([40, 41, 42]), [Seen::InOrder; 3]);
    }

    #[test]
    fn skipped_numbers_are_counted_once() {
        assert_eq!(
            observe_all([0, 4, 5]),
            [Seen::InOrder, Seen::Skipped(3), Seen::InOrder]
        );
    }

    #[test]
    fn a_late_number_fills_its_gap_and_then_is_a_duplicate() {
        assert_eq!(
            observe_all([0, 4, 2, 2, 1, 3, 3]),
            [
                Seen::InOrder,
                Seen::Skipped(3),
                Seen::Late,
                Seen::Duplicate,
                Seen::Late,
                Seen::Late,
                Seen::Duplicate
            ]
        );
    }

    #[test]
    fn a_repeated_number_is_a_duplicate() {
        assert_eq!(
            observe_all([7, 7, 6]),
            [Seen::InOrder, Seen::Duplicate, Seen::Duplicate]
        );
    }
}
