//! Which messages are missing: the worst of it, in so many words that a report stays readable.

use std::{fmt, sync::Mutex};

use serde::Serialize;

use super::{subscriber::Sequences, tally::lock};

/// Publishers that are named, those with the most missing.
const WORST: usize = 20;
/// Ranges that are named of each, the first ones.
const RANGES: usize = 5;

/// What all subscribers lack.
#[derive(Debug, Default)]
pub(super) struct Missing(Mutex<Account>);

/// What is told of it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub(super) struct Account {
    /// Publishers of which a subscriber lacks something, each as often as there are such subscribers.
    pub(super) streams: usize,
    /// Those with the most.
    pub(super) worst: Vec<Lack>,
}

/// What one subscriber lacks of one publisher's messages.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Lack {
    /// Its number; none if it is the members of a group together.
    subscriber: Option<u32>,
    /// Client number of the publisher, and what its run is told from others by.
    publisher: u32,
    run: u16,
    messages: u64,
    ranges: usize,
    /// First and last number of each, the earliest ones.
    first: Vec<(u64, u64)>,
}

impl Missing {
    /// Adds what is missing in what one subscriber has seen, or a group.
    pub(super) fn note(&self, subscriber: Option<u32>, sequences: &Sequences) {
        let mut account = lock(&self.0);
        for (source, sequence) in sequences {
            let mut lack = Lack {
                subscriber,
                publisher: source.client,
                run: source.run,
                messages: 0,
                ranges: 0,
                first: Vec::new(),
            };
            for (first, last) in sequence.missing() {
                lack.messages += last - first + 1;
                lack.ranges += 1;
                if lack.first.len() < RANGES {
                    lack.first.push((first, last));
                }
            }
            if lack.ranges > 0 {
                account.add(lack);
            }
        }
    }

    pub(super) fn account(&self) -> Account {
        lock(&self.0).clone()
    }
}

impl Account {
    fn add(&mut self, lack: Lack) {
        self.streams += 1;
        // The same in every run, whoever ends first.
        let rank = |lack: &Lack| {
            let Lack {
                subscriber,
                publisher,
                run,
                messages,
                ..
            } = *lack;
            (u64::MAX - messages, subscriber, run, publisher)
        };
        let place = self
            .worst
            .partition_point(|other| rank(other) < rank(&lack));
        self.worst.insert(place, lack);
        self.worst.truncate(WORST);
    }
}

impl fmt::Display for Lack {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            subscriber,
            publisher,
            run,
            messages,
            ranges,
            first,
        } = self;
        write!(f, "{messages} of publisher {publisher} (run {run:04x}) at ")?;
        match subscriber {
            Some(number) => write!(f, "subscriber {number}: ")?,
            None => f.write_str("the group: ")?,
        }
        for (index, (from, to)) in first.iter().enumerate() {
            let comma = if index == 0 { "" } else { ", " };
            if from == to {
                write!(f, "{comma}{from}")?;
            } else {
                write!(f, "{comma}{from}-{to}")?;
            }
        }
        let more = ranges - first.len();
        if more > 0 {
            write!(f, " and {more} more gaps")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::{payload::Source, sequence::Sequence};

    fn seen(client: u32, numbers: impl IntoIterator<Item = u64>) -> Sequences {
        let mut sequence = Sequence::default();
        for number in numbers {
            sequence.observe(number);
        }
        let run = 0xbeef;
        Sequences::from([(Source { run, client }, sequence)])
    }

    #[test]
    fn gaps_are_told_by_their_first_ranges() {
        let missing = Missing::default();
        missing.note(Some(7), &seen(3, [0, 2, 6, 8, 10, 12, 14, 17]));
        missing.note(None, &seen(4, [0, 2]));
        missing.note(Some(8), &seen(5, [0, 1, 2]));
        let account = missing.account();
        let told: Vec<String> = account.worst.iter().map(ToString::to_string).collect();
        assert_eq!(
            told,
            [
                "10 of publisher 3 (run beef) at subscriber 7: 1, 3-5, 7, 9, 11 and 2 more gaps",
                "1 of publisher 4 (run beef) at the group: 1",
            ]
        );
        assert_eq!(account.streams, 2);
    }

    #[test]
    fn only_the_worst_are_named_and_all_are_counted() {
        let missing = Missing::default();
        for client in 0..100 {
            missing.note(Some(0), &seen(client, [0, u64::from(client) + 2]));
        }
        let account = missing.account();
        assert_eq!((account.streams, account.worst.len()), (100, WORST));
        assert_eq!(account.worst[0].messages, 100);
        assert_eq!(account.worst[WORST - 1].messages, 81);
    }
}
