//! The streams between two nodes: numbered, acknowledged, and repeated after an interruption.
//!
//! Each direction is a stream of items, numbered from 1. Who sends keeps an item until the other end
//! has *taken* it: for messages that is when they are in its sessions. A connection that breaks is
//! followed by another one, on which both say how far they have come ([`super::wire::Resume`]), and
//! nothing is lost, doubled or out of order. A stream ends when the sender gives the peer up, or
//! when either end starts again; what was not taken by then is gone.
//!
//! ```text
//! push -> [ taken | on its way, up to WINDOW | waits ] -> poll
//! ```

use std::collections::VecDeque;

use bytes::Bytes;

use super::{
    core::Mutant,
    sized,
    wire::{Item, numbered},
};
use crate::routes::ShardId;

/// What may be on its way, by weight, or one item that weighs more. The other end holds no more of a
/// stream than that, however slow its shards are, so it can always read on and hear the peer's beats.
/// It refuses what is more, so this, and what an item weighs, is a part of the protocol.
pub(super) const WINDOW: usize = sized(4 * 1024 * 1024);

/// What an item weighs besides its bytes: the other end has to remember it.
const ITEM_WEIGHT: usize = 128;

fn weight(item: &[u8]) -> usize {
    item.len() + ITEM_WEIGHT
}

/// What is to be done when an item is taken, or gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Token {
    /// A frame of a shard with words for the other end's, which waits to hear that they were heard.
    Frame(FrameId),
    /// Changes of filters up to this version.
    Routes(u64),
    /// The end of a full copy of filters, of this version.
    Synced(u64),
    /// Nothing.
    None,
}

/// A frame of a shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct FrameId {
    pub(crate) from: ShardId,
    pub(crate) sequence: u64,
}

/// The stream that is sent.
#[derive(Debug)]
pub(super) struct Outgoing {
    stream: u64,
    /// The number of the first of `items`.
    first: u64,
    items: VecDeque<Sent>,
    /// How many of them are on their way, and what they weigh.
    sent: usize,
    sent_weight: usize,
    bytes: usize,
    /// Of filters and retained messages.
    told_bytes: usize,
    /// The last number that the other end is known to have had.
    reached: u64,
    /// The last number that was ever sent.
    highest: u64,
    /// Items that were sent again, over another connection.
    repeated: u64,
}

#[derive(Debug)]
struct Sent {
    bytes: Bytes,
    token: Token,
    kind: Kind,
}

/// What an item is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Messages,
    /// To tell what this node has: filters, and retained messages.
    Tell,
}

impl Outgoing {
    pub(super) fn new(stream: u64) -> Self {
        Self {
            stream,
            first: 1,
            items: VecDeque::new(),
            sent: 0,
            sent_weight: 0,
            bytes: 0,
            told_bytes: 0,
            reached: 0,
            highest: 0,
            repeated: 0,
        }
    }

    pub(super) fn stream(&self) -> u64 {
        self.stream
    }

    /// Bytes that the other end has not taken.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Bytes of filters and retained messages that the other end has not taken.
    pub(super) fn told_bytes(&self) -> usize {
        self.told_bytes
    }

    /// Whether there is something that the other end has not taken.
    pub(super) fn is_waiting(&self) -> bool {
        !self.items.is_empty()
    }

    /// The number of what was pushed last.
    pub(super) fn last(&self) -> u64 {
        (self.first + self.items.len() as u64).saturating_sub(1)
    }

    /// The last number that the other end is known to have had.
    pub(super) fn reached(&self) -> u64 {
        self.reached
    }

    /// Items that were sent again, of all streams to the peer.
    pub(super) fn repeated(&self) -> u64 {
        self.repeated
    }

    pub(super) fn push(&mut self, item: &Item, token: Token) {
        let kind = match item {
            Item::Messages(_) => Kind::Messages,
            Item::Changes(_) | Item::Page(_) | Item::Retained { .. } | Item::Sums(..) => Kind::Tell,
        };
        self.push_bytes(item.encode(), kind, token);
    }

    /// As [`Outgoing::push`], for an item that others are told too.
    pub(super) fn push_told(&mut self, item: &Bytes, token: Token) {
        self.push_bytes(item.clone(), Kind::Tell, token);
    }

    fn push_bytes(&mut self, bytes: Bytes, kind: Kind, token: Token) {
        self.bytes += bytes.len();
        if kind == Kind::Tell {
            self.told_bytes += bytes.len();
        }
        self.items.push_back(Sent { bytes, token, kind });
    }

    /// The next message to send on a connection that works.
    pub(super) fn poll(&mut self) -> Option<Bytes> {
        let next = self.items.get(self.sent)?;
        // An item longer than the window must still get through, alone.
        if self.sent > 0 && self.sent_weight + weight(&next.bytes) > WINDOW {
            return None;
        }
        let number = self.first + self.sent as u64;
        if number > self.highest {
            self.highest = number;
        } else {
            self.repeated += 1;
        }
        self.sent += 1;
        self.sent_weight += weight(&next.bytes);
        Some(numbered(number, &next.bytes))
    }

    /// Forgets what the other end has taken. `None` when it was never sent that much.
    pub(super) fn handle_taken(&mut self, up_to: u64) -> Option<Vec<Token>> {
        let taken = up_to.saturating_add(1).saturating_sub(self.first);
        let taken = usize::try_from(taken).ok()?;
        if taken > self.sent {
            return None;
        }
        self.first += taken as u64;
        self.reached = self.reached.max(up_to);
        self.sent -= taken;
        let tokens = self.items.drain(..taken).map(|item| {
            self.bytes -= item.bytes.len();
            self.sent_weight -= weight(&item.bytes);
            if item.kind == Kind::Tell {
                self.told_bytes -= item.bytes.len();
            }
            item.token
        });
        Some(tokens.collect())
    }

    /// Goes on over a new connection; `received` is the last number that the other end has.
    /// `false` when the stream cannot go on there.
    #[must_use]
    pub(super) fn resume(&mut self, received: u64) -> bool {
        let there = received.saturating_add(1).checked_sub(self.first);
        let there = there.and_then(|there| usize::try_from(there).ok());
        let Some(mut there) = there.filter(|there| *there <= self.items.len()) else {
            return false;
        };
        if Mutant::SkipsOne.is_on() && there < self.items.len() {
            there += 1;
        }
        self.sent = there;
        let sent = self.items.iter().take(there);
        self.sent_weight = sent.map(|item| weight(&item.bytes)).sum();
        self.reached = self.reached.max(received);
        true
    }

    /// Ends the stream and begins another; the result is what was not taken.
    pub(super) fn restart(&mut self, stream: u64) -> Vec<Token> {
        let next = Self {
            repeated: self.repeated,
            ..Self::new(stream)
        };
        let ended = std::mem::replace(self, next);
        ended.items.into_iter().map(|item| item.token).collect()
    }
}

/// The stream that is received.
#[derive(Debug, Default)]
pub(super) struct Incoming {
    stream: Option<u64>,
    /// A number of the stream that no other one of any peer has, so that what is said of an older
    /// one is told apart.
    epoch: u64,
    received: u64,
    /// Numbers whose messages are not in the sessions, and what they weigh.
    open: VecDeque<(u64, usize)>,
    open_weight: usize,
    /// It has a copy of retained messages that is not over.
    is_telling: bool,
    /// How far the sender was told of.
    told: u64,
}

/// What has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Arrival {
    New,
    /// Out of order, which no sender is that keeps to the rules.
    Gap,
}

impl Incoming {
    /// The stream, and how far it has come.
    pub(super) fn heard(&self) -> Option<(u64, u64)> {
        Some((self.stream?, self.received))
    }

    /// Says which stream comes over a new connection; `epoch` is for one that is new.
    pub(super) fn begin(&mut self, stream: u64, epoch: u64) {
        if self.stream != Some(stream) {
            *self = Self {
                stream: Some(stream),
                epoch,
                ..Self::default()
            };
        }
        // Whether the last word of it was heard is not known.
        self.told = 0;
    }

    /// Forgets the stream: its sender has started again.
    pub(super) fn forget(&mut self) {
        *self = Self::default();
    }

    /// Whether a copy of retained messages has begun and is not over.
    pub(super) fn is_telling(&self) -> bool {
        self.is_telling
    }

    pub(super) fn note_telling(&mut self, is_telling: bool) {
        self.is_telling = is_telling;
    }

    pub(super) fn epoch(&self) -> u64 {
        self.epoch
    }

    pub(super) fn receive(&mut self, number: u64) -> Arrival {
        if number != self.received + 1 {
            return Arrival::Gap;
        }
        self.received = number;
        Arrival::New
    }

    /// Whether the sender may have sent another item with these messages.
    pub(super) fn has_room(&self, messages: &[u8]) -> bool {
        self.open.is_empty() || self.open_weight + weight(messages) <= WINDOW
    }

    /// Holds the answer to the item that was received last until its messages are delivered. The
    /// result is what they weigh.
    pub(super) fn hold(&mut self, messages: &[u8]) -> usize {
        let weight = weight(messages);
        if !Mutant::TakesUnseen.is_on() {
            self.open.push_back((self.received, weight));
            self.open_weight += weight;
        }
        weight
    }

    /// Notes that all messages up to this number are delivered.
    pub(super) fn handle_delivered(&mut self, epoch: u64, up_to: u64) {
        if epoch == self.epoch || Mutant::MixesStreams.is_on() {
            let is_there = |(number, _weight): &mut (u64, usize)| *number <= up_to;
            while let Some((_number, weight)) = self.open.pop_front_if(is_there) {
                self.open_weight -= weight;
            }
        }
    }

    /// The last number of those that are taken, all.
    pub(super) fn taken(&self) -> u64 {
        let first = self.open.front();
        first.map_or(self.received, |(number, _weight)| number - 1)
    }

    /// What the sender has not been told.
    pub(super) fn poll_taken(&mut self) -> Option<u64> {
        let taken = self.taken();
        (taken > self.told).then(|| {
            self.told = taken;
            taken
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn item(bytes: usize) -> Item {
        Item::Messages(vec![0; bytes].into())
    }

    fn numbers(out: &mut Outgoing) -> Vec<u64> {
        let sent = std::iter::from_fn(|| out.poll());
        let number = |bytes: Bytes| u64::from_be_bytes(bytes[1..9].try_into().unwrap());
        sent.map(number).collect()
    }

    #[test]
    fn no_more_is_on_its_way_than_the_window() {
        let mut out = Outgoing::new(1);
        for version in 0..3 {
            out.push(&item(WINDOW / 2 - ITEM_WEIGHT - 1), Token::Routes(version));
        }
        out.push(&item(2 * WINDOW), Token::None);
        assert_eq!(numbers(&mut out), [1, 2]);
        let taken = out.handle_taken(1).unwrap();
        assert_eq!(taken, [Token::Routes(0)]);
        assert_eq!(numbers(&mut out), [3]);
        assert_eq!(out.handle_taken(3).unwrap().len(), 2);
        // Longer than the window, and alone.
        assert_eq!(numbers(&mut out), [4]);
        assert_eq!(out.handle_taken(4).unwrap().len(), 1);
        assert_eq!((out.bytes(), out.sent_weight, out.told_bytes()), (0, 0, 0));
        assert!(!out.is_waiting());
    }

    #[test]
    fn stream_goes_on_where_the_other_end_is() {
        let mut out = Outgoing::new(1);
        for _ in 0..4 {
            out.push(&item(1), Token::None);
        }
        assert_eq!(numbers(&mut out), [1, 2, 3, 4]);
        out.handle_taken(1).unwrap();
        assert!(out.resume(3));
        assert_eq!(numbers(&mut out), [4]);
        assert!(out.resume(1));
        assert_eq!(numbers(&mut out), [2, 3, 4]);
        // Neither what is forgotten nor what never was can be where it goes on.
        assert!(!out.resume(0) && !out.resume(5) && !out.resume(u64::MAX));
    }

    #[test]
    fn more_cannot_be_taken_than_was_sent() {
        let mut out = Outgoing::new(1);
        out.push(&item(1), Token::None);
        assert_eq!(out.handle_taken(1), None);
        assert_eq!(numbers(&mut out), [1]);
        assert_eq!(out.handle_taken(2), None);
        assert_eq!(out.handle_taken(u64::MAX), None);
        assert_eq!(out.handle_taken(1).unwrap().len(), 1);
        assert_eq!(out.handle_taken(1).unwrap().len(), 0);
    }

    #[test]
    fn what_is_not_delivered_is_not_taken() {
        let mut inc = Incoming::default();
        inc.begin(5, 1);
        for number in 1..=4 {
            assert_eq!(inc.receive(number), Arrival::New);
            if number != 2 {
                inc.hold(b"m");
            }
        }
        assert_eq!(inc.receive(4), Arrival::Gap);
        assert_eq!(inc.receive(6), Arrival::Gap);
        assert_eq!(inc.taken(), 0);
        let epoch = inc.epoch();
        inc.handle_delivered(epoch, 1);
        assert_eq!(inc.poll_taken(), Some(2));
        assert_eq!(inc.poll_taken(), None);
        inc.handle_delivered(epoch + 1, 4);
        assert_eq!(inc.taken(), 2);
        // The same stream over another connection: what was said is said again.
        inc.begin(5, 2);
        assert_eq!((inc.poll_taken(), inc.heard()), (Some(2), Some((5, 4))));
        inc.handle_delivered(epoch, 4);
        assert_eq!(inc.poll_taken(), Some(4));
        inc.begin(6, 3);
        assert_eq!(inc.heard(), Some((6, 0)));
        inc.handle_delivered(epoch, 4);
        assert_eq!(inc.taken(), 0);
    }

    #[test]
    fn no_more_is_held_than_may_be_on_its_way() {
        let mut out = Outgoing::new(1);
        let mut inc = Incoming::default();
        inc.begin(1, 7);
        let all = [WINDOW, 1, WINDOW / 2, WINDOW / 3, WINDOW / 2, 2 * WINDOW, 1];
        for bytes in all {
            out.push(&item(bytes), Token::None);
        }
        // Who keeps to the window is never sent away, however late it is taken.
        for number in 1..=all.len() as u64 {
            for sent in std::iter::from_fn(|| out.poll()) {
                assert!(inc.has_room(&sent[10..]));
                assert_eq!(inc.receive(inc.received + 1), Arrival::New);
                inc.hold(&sent[10..]);
            }
            inc.handle_delivered(7, number);
            out.handle_taken(number).unwrap();
        }
        assert_eq!((inc.open_weight, out.sent_weight), (0, 0));
        for _ in 0..WINDOW / ITEM_WEIGHT / 2 {
            assert!(inc.has_room(&[0; ITEM_WEIGHT]));
            inc.receive(inc.received + 1);
            inc.hold(&[0; ITEM_WEIGHT]);
        }
        assert!(!inc.has_room(&[0; ITEM_WEIGHT]));
    }

    #[test]
    fn what_was_not_taken_is_told_when_a_stream_ends() {
        let mut out = Outgoing::new(1);
        for version in 0..3 {
            out.push(&item(1), Token::Synced(version));
        }
        assert_eq!(numbers(&mut out), [1, 2, 3]);
        out.handle_taken(1).unwrap();
        let gone = out.restart(2);
        assert_eq!(gone, [Token::Synced(1), Token::Synced(2)]);
        assert_eq!((out.stream(), out.bytes()), (2, 0));
        out.push(&item(1), Token::None);
        assert_eq!(numbers(&mut out), [1]);
    }
}
