//! A session that goes to another node, and one that has come from there.

use std::{collections::BTreeSet, sync::Arc, time::Instant};

use super::{
    Delivered, Grant, Held, Received, RestoredMessage, Session, Subscription, Wire,
    journal::{Change, SessionId, Spread, State},
};
use crate::{
    codec::packet::PacketId,
    message::{Message, MessageId},
    session::journal::Profile,
    topic,
};

/// How far a session was told to another node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Place {
    #[default]
    Start,
    /// Behind this subscription.
    Subscription(Box<str>),
    /// At the message that is so far behind the first.
    Message(usize),
    End,
}

/// A part of a session.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Portion {
    /// In the first one.
    pub state: Option<State>,
    pub received: Vec<(PacketId, Spread)>,
    pub subscriptions: Vec<(Box<str>, Subscription)>,
    pub messages: Vec<RestoredMessage>,
}

impl Session {
    /// What is at this place of an absent session, about so many bytes of it, and the place behind it.
    /// What is taken meanwhile comes last.
    pub fn portion(&self, profile: Profile, place: &Place, bytes: usize) -> (Portion, Place) {
        let mut portion = Portion::default();
        let after = match place {
            Place::Start => {
                portion.state = Some(State {
                    profile: Arc::new(profile),
                    expiry: self.expiry,
                    ends: self.ends,
                    will: self.will.clone(),
                    will_due: self.will_due,
                });
                let received = self.received.iter();
                portion.received = received
                    .map(|(id, received)| (*id, received.spread_elsewhere()))
                    .collect();
                None
            }
            Place::Subscription(filter) => Some(&**filter),
            Place::Message(first) => {
                let (messages, next) = self.outgoing.portion(*first, bytes);
                portion.messages = messages;
                return (portion, next.map_or(Place::End, Place::Message));
            }
            Place::End => return (portion, Place::End),
        };
        let state = portion.state.as_ref().map_or(0, |state| {
            let will = state.will.as_ref();
            state.profile.held_bytes() + will.map_or(0, |will| will.message.size())
        });
        let mut room = bytes.saturating_sub(state);
        for (filter, subscription) in self.subscriptions_after(after) {
            portion.subscriptions.push((filter.into(), *subscription));
            room = room.saturating_sub(topic::weight(filter));
            if room == 0 {
                return (portion, Place::Subscription(filter.into()));
            }
        }
        if self.outgoing.is_long(room) {
            return (portion, Place::Message(0));
        }
        let (messages, next) = self.outgoing.portion(0, room);
        portion.messages = messages;
        (portion, next.map_or(Place::End, Place::Message))
    }

    /// Whether a QoS 2 message of the client's is on its way to some who are to have it.
    pub fn is_spreading(&self) -> bool {
        self.received.values().any(|received| {
            let receipt = received.receipt.as_ref();
            receipt.is_some_and(|receipt| !receipt.is_complete())
        })
    }

    /// Retained messages that are not all queued, with the places reached.
    pub fn greetings(&self) -> Vec<(Box<str>, Option<Box<str>>)> {
        let greetings = self.greetings.iter();
        let greetings = greetings.map(|(filter, after)| (filter.clone(), after.clone()));
        greetings.collect()
    }

    /// Goes on with retained messages where another node was.
    pub fn take_over_greeting(&mut self, filter: Box<str>, after: Option<Box<str>>) {
        if self.subscriptions.contains_key(&filter) {
            self.greetings.insert(filter, after);
        }
    }

    /// Is as it was on another node, but for subscriptions and messages.
    pub fn take_over_state(&mut self, state: State, now: Instant) {
        let State {
            profile: _,
            expiry,
            ends,
            will,
            will_due,
        } = state;
        self.expiry = expiry;
        self.will = will;
        self.will_due = will_due;
        self.ends = Some(ends.unwrap_or(now + expiry));
        self.note_state();
    }

    /// Knows a QoS 2 message of the client's, by a number of this node's.
    pub fn take_over_received(&mut self, id: PacketId, spread: Spread) {
        // Without a store no other shard asks for the session's number.
        let session = self.outgoing.record().session().unwrap_or(SessionId(0));
        if let std::collections::btree_map::Entry::Vacant(vacant) = self.received.entry(id) {
            let (_id, received) = Received::restore(session, id, spread);
            vacant.insert(received);
            self.note(|| Change::Received(id, spread));
        }
    }

    /// Takes a message over, behind those that the session has.
    pub fn take_over_message(&mut self, message: RestoredMessage) {
        self.outgoing.take_over(message);
    }

    /// Of those that the client has not acknowledged.
    pub fn message_ids(&self) -> BTreeSet<MessageId> {
        self.outgoing.message_ids()
    }

    /// Takes a message of QoS 1 or 2 without saying whether it will be sent; `None` when there is no
    /// room.
    pub fn hold(
        &mut self,
        message: &Arc<Message>,
        grant: Grant,
        held_bytes: usize,
    ) -> Option<Held> {
        self.outgoing.hold(message, grant, held_bytes)
    }

    /// Sends a message that was held, or queues it.
    pub fn let_go(&mut self, held: Held, wire: Option<&mut impl Wire>, now: Instant) -> Delivered {
        self.outgoing.let_go(held, wire, now)
    }

    /// Nothing is held any more: what comes next is behind it.
    pub fn end_hold(&mut self) {
        self.outgoing.end_hold();
    }

    /// Forgets a message that was held.
    pub fn drop_held(&self, held: &Held) {
        self.outgoing.drop_held(held);
    }

    /// Forgets all but its subscriptions: the session lives elsewhere. Tells under which number it was
    /// noted.
    pub fn hollow(&mut self) -> Option<SessionId> {
        let session = self.keep_no_longer();
        self.outgoing.clear();
        self.received.clear();
        self.greetings.clear();
        self.will = None;
        self.will_due = None;
        session
    }
}
