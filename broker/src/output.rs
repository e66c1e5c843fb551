//! What waits for a client's socket, and how much of it may go there yet.
//!
//! What is said to a client may rest on changes that are not stored yet. It is encoded at once, so
//! that all stays in its order, and held back until the store has them: a mark in the bytes says
//! behind which parcel of changes they come.

use std::collections::VecDeque;

use bytes::{Buf, BytesMut};

/// Bytes in the order in which they were said.
#[derive(Debug, Default)]
pub(crate) struct Output {
    bytes: BytesMut,
    /// In the order of both places and numbers.
    holds: VecDeque<Hold>,
}

/// From here on bytes wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Hold {
    at: usize,
    /// The parcel that has to be stored.
    number: u64,
}

impl Output {
    pub(crate) fn len(&self) -> usize {
        self.bytes.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    pub(crate) fn capacity(&self) -> usize {
        self.bytes.capacity()
    }

    /// Where packets are encoded to: they are appended.
    pub(crate) fn buffer(&mut self) -> &mut BytesMut {
        &mut self.bytes
    }

    /// Takes back what was appended to so many bytes.
    pub(crate) fn truncate(&mut self, length: usize) {
        self.bytes.truncate(length);
    }

    /// What may be written.
    pub(crate) fn writable(&self) -> &[u8] {
        let end = self.holds.front().map_or(self.bytes.len(), |hold| hold.at);
        self.bytes.get(..end).unwrap_or(&self.bytes)
    }

    /// Notes that so much of [`Output::writable`] was written.
    pub(crate) fn advance(&mut self, written: usize) {
        self.bytes.advance(written);
        for hold in &mut self.holds {
            hold.at = hold.at.saturating_sub(written);
        }
    }

    /// Has all that is said from now on wait until this parcel is stored.
    pub(crate) fn hold(&mut self, number: u64) {
        let at = self.bytes.len();
        match self.holds.back_mut() {
            Some(last) if last.number >= number => {}
            Some(last) if last.at == at => last.number = number,
            Some(_) | None => self.holds.push_back(Hold { at, number }),
        }
    }

    /// Parcels up to this one are stored.
    pub(crate) fn release(&mut self, stored: u64) {
        while self.holds.front().is_some_and(|hold| hold.number <= stored) {
            self.holds.pop_front();
        }
        // Most links have none, most of the time.
        if self.holds.is_empty() {
            self.holds = VecDeque::new();
        }
    }

    pub(crate) fn is_held(&self) -> bool {
        !self.holds.is_empty()
    }

    /// Throws away what is held back.
    pub(crate) fn forget_held(&mut self) {
        let end = self.writable().len();
        self.bytes.truncate(end);
        self.holds.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn say(output: &mut Output, text: &str) {
        output.buffer().extend_from_slice(text.as_bytes());
    }

    fn write(output: &mut Output, most: usize) -> String {
        let written = output.writable();
        let written = String::from_utf8(written[..most.min(written.len())].to_vec()).unwrap();
        output.advance(written.len());
        written
    }

    #[test]
    fn what_rests_on_a_parcel_waits_for_it_and_what_came_before_does_not() {
        let mut output = Output::default();
        say(&mut output, "free ");
        output.hold(1);
        say(&mut output, "first ");
        output.hold(1);
        say(&mut output, "more ");
        output.hold(3);
        say(&mut output, "third");
        assert_eq!(write(&mut output, 2), "fr");
        assert_eq!(write(&mut output, 9), "ee ");
        assert_eq!(write(&mut output, 9), "");
        output.release(2);
        assert_eq!(write(&mut output, 4), "firs");
        assert_eq!(write(&mut output, 99), "t more ");
        assert!(output.is_held() && !output.is_empty());
        output.release(3);
        assert_eq!(write(&mut output, 99), "third");
        assert!(!output.is_held() && output.is_empty());
        output.hold(4);
        output.release(4);
        say(&mut output, "on");
        assert_eq!(write(&mut output, 99), "on");
    }

    #[test]
    fn later_hold_at_the_same_place_takes_the_place_of_the_earlier() {
        let mut output = Output::default();
        output.hold(1);
        output.hold(2);
        say(&mut output, "x");
        output.release(1);
        assert_eq!(write(&mut output, 9), "");
        output.release(2);
        assert_eq!(write(&mut output, 9), "x");
    }

    #[test]
    fn held_bytes_can_be_thrown_away() {
        let mut output = Output::default();
        say(&mut output, "said");
        output.hold(1);
        say(&mut output, "unsaid");
        output.forget_held();
        say(&mut output, ".");
        assert_eq!(write(&mut output, 99), "said.");
    }
}
