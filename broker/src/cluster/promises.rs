//! What two nodes promise each other about messages.
//!
//! An item is *taken* when its messages are in the sessions of the other end, and *safe* when these are
//! in its store, and in the copies that third nodes, or this one, have of them. The window moves with
//! what is taken, publishers are answered for what is safe. One counter would not do: two nodes that
//! have each other's copies would each wait for the other to take the next item.

use std::collections::VecDeque;

use bytes::Bytes;

use super::{
    core::Mutant,
    pair::{FrameId, Incoming},
};

/// Frames that the other end has not made safe.
#[derive(Debug, Default)]
pub(super) struct Promised {
    frames: VecDeque<(u64, FrameId, Bytes)>,
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

    /// The next of the frames that are safe, when all items up to this number are.
    pub(super) fn pop_safe(&mut self, up_to: u64) -> Option<FrameId> {
        let is_safe = |(number, _frame, _messages): &mut (u64, FrameId, Bytes)| *number <= up_to;
        let (_number, frame, messages) = self.frames.pop_front_if(is_safe)?;
        self.bytes -= messages.len();
        Some(frame)
    }

    /// All of them: the peer is gone.
    pub(super) fn take(&mut self) -> impl Iterator<Item = (FrameId, Bytes)> + use<> {
        let frames = std::mem::take(self).frames.into_iter();
        frames.map(|(_number, frame, messages)| (frame, messages))
    }
}

/// What of the other end's messages is not safe here.
#[derive(Debug, Default)]
pub(super) struct Owed {
    /// Of the stream that the numbers are of.
    epoch: u64,
    open: VecDeque<u64>,
    told: u64,
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

    /// Up to where all is safe, if that was not told yet, or is to be told again.
    pub(super) fn poll(&mut self, stream: &Incoming, is_beat: bool) -> Option<u64> {
        self.follow(stream.epoch());
        let received = stream.heard().map_or(0, |(_stream, received)| received);
        let safe = self.open.front().map_or(received, |first| first - 1);
        let is_due = is_beat || safe > self.told;
        self.told = safe;
        is_due.then_some(safe)
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
        assert_eq!(promised.pop_safe(1), None);
        assert_eq!(promised.pop_safe(5), Some(frame(2)));
        assert_eq!(promised.pop_safe(5), Some(frame(5)));
        assert_eq!(promised.pop_safe(5), None);
        assert!(promised.take().map(|(frame, _)| frame).eq([frame(6)]));
        assert_eq!((promised.bytes(), promised.pop_safe(9)), (0, None));
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
        assert_eq!(owed.poll(&stream, true), Some(0));
        owed.handle_safe(stream.epoch(), 1);
        assert_eq!(owed.poll(&stream, false), Some(2));
        assert_eq!(owed.poll(&stream, false), None);
        assert_eq!(owed.poll(&stream, true), Some(2));
        // Another stream begins with nothing.
        stream.begin(8, 2);
        assert_eq!(owed.poll(&stream, true), Some(0));
        owed.handle_safe(stream.epoch() - 1, 4);
        assert_eq!(owed.poll(&stream, false), None);
    }
}
