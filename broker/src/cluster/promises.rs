//! What two nodes promise each other about messages.
//!
//! An item is *taken* when its messages are in the sessions of the other end, and *safe* when these are
//! in its store, and in the copies that third nodes, or this one, have of them. The window moves with
//! what is taken, publishers are answered for what is safe. One counter would not do: two nodes that
//! have each other's copies would each wait for the other to take the next item.
//!
//! What is for sessions of a third node that one end holds for gone, and the other one not yet, waits
//! there *aside*: it is taken, and not safe, and what comes behind it is.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::{
    core::Mutant,
    pair::{FrameId, Incoming},
};

/// Ranges of numbers that are told as put aside. With more, what comes behind these waits as well.
pub(super) const MOST_ASIDE: usize = 1024;

/// What of a stream is where it cannot be lost.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Safe {
    /// All items up to this number.
    pub(super) up_to: u64,
    /// But for those from the first to the last number of each of these, which are in order: they wait
    /// beside the stream.
    pub(super) aside: Vec<(u64, u64)>,
}

impl Safe {
    /// Whether the item of this number waits.
    pub(super) fn is_aside(&self, number: u64) -> bool {
        let behind = self
            .aside
            .partition_point(|(first, _last)| *first <= number);
        let range = behind.checked_sub(1).and_then(|at| self.aside.get(at));
        range.is_some_and(|(_first, last)| number <= *last)
    }

    #[cfg(test)]
    pub(super) fn up_to(up_to: u64) -> Self {
        let aside = Vec::new();
        Self { up_to, aside }
    }
}

/// Frames that the other end has not made safe.
#[derive(Debug, Default)]
pub(super) struct Promised {
    frames: VecDeque<(u64, FrameId, Bytes)>,
    /// Those that the other end has put aside, all before the others.
    aside: BTreeMap<u64, (FrameId, Bytes)>,
    /// As it was told last.
    told: Vec<(u64, u64)>,
    bytes: usize,
}

impl Promised {
    /// Adds a frame's messages, by the number of their item.
    pub(super) fn push(&mut self, number: u64, frame: FrameId, messages: Bytes) {
        self.bytes += messages.len();
        self.frames.push_back((number, frame, messages));
    }

    /// Bytes of messages that are not safe.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// The frames that are safe besides those of which that is known.
    pub(super) fn settle(&mut self, safe: &Safe) -> Vec<FrameId> {
        let mut settled = Vec::new();
        if self.told != safe.aside {
            self.told.clone_from(&safe.aside);
            let given = self
                .aside
                .extract_if(.., |number, _frame| !safe.is_aside(*number));
            settled.extend(given.map(|(_number, frame)| frame));
        }
        let is_next = |(number, _, _): &mut (u64, FrameId, Bytes)| *number <= safe.up_to;
        while let Some((number, frame, messages)) = self.frames.pop_front_if(is_next) {
            if safe.is_aside(number) {
                self.aside.insert(number, (frame, messages));
            } else {
                settled.push((frame, messages));
            }
        }
        let bytes: usize = settled.iter().map(|(_frame, bytes)| bytes.len()).sum();
        self.bytes -= bytes;
        settled.into_iter().map(|(frame, _bytes)| frame).collect()
    }

    /// All of them: the peer is gone.
    pub(super) fn take(&mut self) -> impl Iterator<Item = (FrameId, Bytes)> + use<> {
        let Self { frames, aside, .. } = std::mem::take(self);
        let frames = frames.into_iter();
        let frames = frames.map(|(_number, frame, messages)| (frame, messages));
        aside.into_values().chain(frames)
    }
}

/// What of the other end's messages is not safe here.
#[derive(Debug, Default)]
pub(super) struct Owed {
    /// Of the stream that the numbers are of.
    epoch: u64,
    open: VecDeque<u64>,
    told: u64,
    /// Those that were put aside, and their ranges as far as they are told.
    aside: BTreeSet<u64>,
    ranges: Vec<(u64, u64)>,
    /// The first that is not.
    untold: Option<u64>,
    /// Some are safe of which that is to be told.
    is_news: bool,
}

impl Owed {
    fn follow(&mut self, epoch: u64) {
        if self.epoch != epoch {
            *self = Self {
                epoch,
                ..Self::default()
            };
        }
    }

    /// Holds the promise for an item of messages.
    pub(super) fn hold(&mut self, epoch: u64, number: u64) {
        self.follow(epoch);
        if !Mutant::TakesUnseen.is_on() {
            self.open.push_back(number);
        }
    }

    /// Notes that all messages up to this number are safe.
    pub(super) fn handle_safe(&mut self, epoch: u64, up_to: u64) {
        if self.epoch == epoch || Mutant::MixesStreams.is_on() {
            while self.open.front().is_some_and(|number| *number <= up_to) {
                self.open.pop_front();
            }
        }
    }

    /// Notes that an item waits, and those behind it need not.
    pub(super) fn put_aside(&mut self, epoch: u64, number: u64) {
        if self.epoch == epoch
            && let Ok(at) = self.open.binary_search(&number)
        {
            self.open.remove(at);
            self.aside.insert(number);
            self.add_to_ranges(number);
        }
    }

    /// Notes that one which was put aside is safe.
    pub(super) fn handle_aside_safe(&mut self, epoch: u64, number: u64) {
        if self.epoch == epoch && self.aside.remove(&number) {
            self.is_news = true;
        }
    }

    /// They are put aside in order.
    fn add_to_ranges(&mut self, number: u64) {
        if self.untold.is_some() {
            return;
        }
        if let Some((_first, last)) = self.ranges.last_mut()
            && *last + 1 == number
        {
            *last = number;
        } else if self.ranges.len() < MOST_ASIDE {
            self.ranges.push((number, number));
        } else {
            self.untold = Some(number);
        }
    }

    /// What is safe, if that was not told yet, or is to be told again.
    pub(super) fn poll(&mut self, stream: &Incoming, is_beat: bool) -> Option<Safe> {
        self.follow(stream.epoch());
        let is_news = std::mem::take(&mut self.is_news);
        if is_news {
            self.ranges.clear();
            self.untold = None;
            for number in std::mem::take(&mut self.aside) {
                self.add_to_ranges(number);
                self.aside.insert(number);
            }
        }
        let received = stream.heard().map_or(0, |(_stream, received)| received);
        let open = self.open.front().into_iter().chain(&self.untold).min();
        let up_to = open.map_or(received, |first| first - 1);
        let is_due = is_beat || is_news || up_to > self.told;
        self.told = up_to;
        is_due.then(|| Safe {
            up_to,
            aside: self.ranges.clone(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::routes::ShardId;

    fn frame(sequence: u64) -> FrameId {
        let from = ShardId(0);
        FrameId { from, sequence }
    }

    #[test]
    fn frames_are_safe_in_order_and_the_rest_is_told_when_the_peer_is_gone() {
        let mut promised = Promised::default();
        for number in [2, 5, 6] {
            promised.push(number, frame(number), Bytes::from_static(b"message"));
        }
        assert_eq!(promised.bytes(), 21);
        assert_eq!(promised.settle(&Safe::up_to(1)), []);
        assert_eq!(promised.settle(&Safe::up_to(5)), [frame(2), frame(5)]);
        assert_eq!(promised.settle(&Safe::up_to(5)), []);
        assert!(promised.take().map(|(frame, _)| frame).eq([frame(6)]));
        assert_eq!(promised.bytes(), 0);
        assert_eq!(promised.settle(&Safe::up_to(9)), []);
    }

    #[test]
    fn what_is_put_aside_is_safe_later_than_what_comes_behind_it() {
        let mut promised = Promised::default();
        for number in 1..=9 {
            promised.push(number, frame(number), Bytes::from_static(b"message"));
        }
        let safe = |up_to, aside: &[(u64, u64)]| Safe {
            up_to,
            aside: aside.to_vec(),
        };
        assert_eq!(promised.settle(&safe(4, &[(2, 3)])), [frame(1), frame(4)]);
        assert_eq!(promised.settle(&safe(6, &[(2, 3), (6, 8)])), [frame(5)]);
        assert_eq!(promised.settle(&safe(6, &[(3, 3), (6, 8)])), [frame(2)]);
        assert_eq!(promised.bytes(), 5 * 7);
        let left = [3, 6, 7, 8, 9].map(frame);
        assert!(promised.take().map(|(frame, _)| frame).eq(left));
        assert_eq!(promised.bytes(), 0);
    }

    #[test]
    fn what_is_put_aside_is_told_in_ranges_and_of_too_many_that_nothing_behind_is_safe() {
        let mut stream = Incoming::default();
        let mut owed = Owed::default();
        stream.begin(7, 1);
        let epoch = stream.epoch();
        let most = 2 * MOST_ASIDE as u64;
        for number in 1..=most + 5 {
            stream.receive(number);
            owed.hold(epoch, number);
        }
        for number in [2, 3].into_iter().chain((5..=most + 3).step_by(2)) {
            owed.put_aside(epoch, number);
        }
        owed.handle_safe(epoch, 4);
        let safe = owed.poll(&stream, false).unwrap();
        assert_eq!((safe.up_to, &safe.aside[..2]), (5, &[(2, 3), (5, 5)][..]));
        owed.handle_safe(epoch, most + 5);
        let safe = owed.poll(&stream, false).unwrap();
        assert_eq!((safe.up_to, safe.aside.len()), (most + 2, MOST_ASIDE));
        assert_eq!(owed.poll(&stream, false), None);
        owed.handle_aside_safe(epoch, 2);
        owed.handle_aside_safe(epoch, 3);
        let safe = owed.poll(&stream, false).unwrap();
        assert_eq!((safe.up_to, safe.aside[0]), (most + 5, (5, 5)));
        assert_eq!(owed.poll(&stream, true), Some(safe));
        // Another stream begins with nothing.
        stream.begin(8, 2);
        assert_eq!(owed.poll(&stream, true), Some(Safe::up_to(0)));
    }

    #[test]
    fn what_is_not_safe_is_not_told_though_it_is_taken() {
        let mut stream = Incoming::default();
        let mut owed = Owed::default();
        stream.begin(7, 1);
        for number in 1..=4 {
            stream.receive(number);
            if number != 2 {
                owed.hold(stream.epoch(), number);
            }
        }
        assert_eq!(owed.poll(&stream, true), Some(Safe::up_to(0)));
        owed.handle_safe(stream.epoch(), 1);
        assert_eq!(owed.poll(&stream, false), Some(Safe::up_to(2)));
        assert_eq!(owed.poll(&stream, false), None);
        assert_eq!(owed.poll(&stream, true), Some(Safe::up_to(2)));
        // Another stream begins with nothing.
        stream.begin(8, 2);
        assert_eq!(owed.poll(&stream, true), Some(Safe::up_to(0)));
        owed.handle_safe(stream.epoch() - 1, 4);
        assert_eq!(owed.poll(&stream, false), None);
    }
}
