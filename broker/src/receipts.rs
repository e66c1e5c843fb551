//! Who has yet to take a message before its publisher hears of it.
//!
//! PUBACK and PUBREC say that the publisher may forget its message, so they are sent when everyone
//! that the message is for has taken it. A shard notes a [`Need`] for each batch that a message has
//! left in. Messages with the same needs share one [`Receipt`], so the work is by the batch; a message
//! for sessions of its own shard alone has none, and is acknowledged at once.
//!
//! ```text
//! PUBLISH -> frames to other shards -> needs -> Ledger::open -> Receipt <- Acks of the connection
//! frame was taken -> Ledger::confirm -> receipts that are complete -> who waits for them
//! ```
//!
//! Frames are confirmed one by one and not up to a number. A shard that hands messages on waits for
//! others before it confirms, and a frame that waits for one of its successors must not hold it up.

use std::{
    cell::RefCell,
    collections::{BTreeMap, VecDeque},
    rc::Rc,
};

use crate::{codec::packet::Ack, routes::ShardId};

/// One thing that must be confirmed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Need {
    /// Another shard has taken a frame into its sessions.
    Frame { to: ShardId, sequence: u64 },
    /// Another node has a frame's messages, whether they could be lost there or not.
    Taken { to: ShardId, sequence: u64 },
    /// The store has a parcel of this shard's changes.
    Parcel(u64),
}

/// What one message needs, or what all messages of a frame do.
#[derive(Debug, Default)]
pub struct Needs(Vec<Need>);

/// Who is told when a receipt is complete.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Waiter {
    /// The connection of the session with this number: acknowledgements wait there.
    Session(u32),
    /// A frame of another shard, with messages that were handed on.
    Frame { from: ShardId, sequence: u64 },
    /// What others are to have of a session, by its number.
    Move(u64),
    /// The node that a session has come from, by a number.
    Install(u64),
}

/// What is still missing for some messages.
#[derive(Debug)]
pub struct Receipt {
    missing: RefCell<Vec<Need>>,
    waiters: RefCell<Vec<Waiter>>,
}

/// The receipts of a shard that are not complete.
#[derive(Debug, Default)]
pub struct Ledger {
    open: BTreeMap<Need, Vec<Rc<Receipt>>>,
    /// What came in one burst left in the same frames for the most part.
    last: Option<Rc<Receipt>>,
}

/// The answers to a connection's PUBLISH packets that cannot be given yet. They leave in the order of
/// the packets (4.6).
#[derive(Debug, Default)]
pub struct Acks(VecDeque<(Ack, Option<Rc<Receipt>>)>);

impl Needs {
    pub fn add(&mut self, need: Need) {
        if !self.0.contains(&need) {
            self.0.push(need);
        }
    }

    /// Adds what others need, but of frames for some destinations only that they are taken.
    pub fn absorb(&mut self, other: Self, suffices: impl Fn(ShardId) -> bool) {
        for need in other.0 {
            self.add(match need {
                Need::Frame { to, sequence } if suffices(to) => Need::Taken { to, sequence },
                Need::Frame { .. } | Need::Taken { .. } | Need::Parcel(_) => need,
            });
        }
    }

    /// Adds what others need, but for frames to other destinations than these.
    pub fn absorb_of(&mut self, other: Self, is_of: impl Fn(ShardId) -> bool) {
        for need in other.0 {
            match need {
                Need::Frame { to, .. } | Need::Taken { to, .. } if !is_of(to) => {}
                Need::Frame { .. } | Need::Taken { .. } | Need::Parcel(_) => self.add(need),
            }
        }
    }

    pub fn clear(&mut self) {
        self.0.clear();
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    #[cfg(test)]
    pub(crate) fn all(&self) -> &[Need] {
        &self.0
    }
}

impl Receipt {
    pub fn is_complete(&self) -> bool {
        self.missing.borrow().is_empty()
    }

    /// Has the waiter told when nothing is missing any more.
    pub fn tell(&self, waiter: Waiter) {
        self.waiters.borrow_mut().push(waiter);
    }

    /// Takes note of what was confirmed; tells who waited for it if that was all.
    fn confirm(&self, need: Need) -> Vec<Waiter> {
        let mut missing = self.missing.borrow_mut();
        missing.retain(|missing| *missing != need);
        if missing.is_empty() {
            // Kept for as long as a QoS 2 exchange goes on.
            *missing = Vec::new();
            self.waiters.take()
        } else {
            Vec::new()
        }
    }
}

impl Ledger {
    /// The receipt for messages with these needs; `None` for those that need nothing.
    pub fn open(&mut self, needs: &Needs) -> Option<Rc<Receipt>> {
        if needs.is_empty() {
            return None;
        }
        let is_same = |last: &&Rc<Receipt>| *last.missing.borrow() == needs.0;
        if let Some(last) = self.last.as_ref().filter(is_same) {
            return Some(Rc::clone(last));
        }
        let receipt = Rc::new(Receipt {
            missing: RefCell::new(needs.0.clone()),
            waiters: RefCell::default(),
        });
        for need in &needs.0 {
            let receipts = self.open.entry(*need).or_default();
            receipts.push(Rc::clone(&receipt));
        }
        self.last = Some(Rc::clone(&receipt));
        Some(receipt)
    }

    /// Takes note that one need is met; tells who waited for that and for nothing else.
    pub fn confirm(&mut self, need: Need) -> Vec<Waiter> {
        let receipts = self.open.remove(&need).unwrap_or_default();
        receipts
            .iter()
            .flat_map(|receipt| receipt.confirm(need))
            .collect()
    }

    /// Whether nothing is missing for any message.
    pub fn is_empty(&self) -> bool {
        self.open.is_empty()
    }
}

impl Acks {
    /// Whether an acknowledgement with this receipt must wait, for it or for those before it.
    pub fn must_wait(&self, receipt: Option<&Rc<Receipt>>) -> bool {
        !self.0.is_empty() || receipt.is_some_and(|receipt| !receipt.is_complete())
    }

    /// Adds an acknowledgement; `waiter` is whom to tell when [`Acks::pop`] has one.
    pub fn push(&mut self, ack: Ack, receipt: Option<Rc<Receipt>>, waiter: Waiter) {
        let is_first = self.0.is_empty();
        self.0.push_back((ack, receipt));
        if is_first {
            self.tell(waiter);
        }
    }

    /// The next acknowledgement, if it need not wait any more.
    pub fn pop(&mut self, waiter: Waiter) -> Option<Ack> {
        let is_due = |(_ack, receipt): &mut (Ack, Option<Rc<Receipt>>)| {
            receipt.as_ref().is_none_or(|receipt| receipt.is_complete())
        };
        let (ack, _receipt) = self.0.pop_front_if(is_due)?;
        self.tell(waiter);
        // Most connections are idle most of the time.
        if self.0.is_empty() && self.0.capacity() > 64 {
            self.0 = VecDeque::new();
        }
        Some(ack)
    }

    /// Once for each that has come to the front, so that nobody is told twice.
    fn tell(&self, waiter: Waiter) {
        if let Some((_ack, Some(receipt))) = self.0.front()
            && !receipt.is_complete()
        {
            receipt.tell(waiter);
        }
    }

    pub fn len(&self) -> usize {
        self.0.len()
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

#[cfg(test)]
mod tests;
