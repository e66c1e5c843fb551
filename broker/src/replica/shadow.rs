//! What another node has told of a session.

use std::collections::BTreeMap;

use super::{
    Step,
    step::{content_bytes, without_content},
};
use crate::{
    codec::packet::PacketId,
    message::MessageId,
    session::{
        Restored, RestoredMessage, Subscription,
        journal::{Profile, Progress, Seq, SessionId, Spread, State},
    },
    topic,
};

/// What a message is taken for beside its content.
const MESSAGE_BYTES: usize = 160;

/// What the id of a message is taken for that the client may have had.
const HAD_BYTES: usize = 40;

/// A session's copy: the steps so far, added up.
///
/// It believes what it is told, and steps that make no sense do no harm: they come from a node with
/// the cluster's key, and the owner's journal is held against it by tests.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Shadow {
    state: Option<State>,
    subscriptions: BTreeMap<Box<str>, Subscription>,
    messages: BTreeMap<Seq, RestoredMessage>,
    received: BTreeMap<PacketId, Spread>,
    had: BTreeMap<MessageId, u64>,
    bytes: usize,
    /// This node has all of it, as long as not all is here.
    whole_at: Option<u64>,
}

impl Shadow {
    /// Takes a step in; `false` when the session has ended, and nothing is left of it.
    pub fn apply(&mut self, step: Step) -> bool {
        match step {
            Step::State(state) => self.set_state(state),
            Step::Subscribed(filter, subscription) => {
                let weight = topic::weight(&filter);
                if self.subscriptions.insert(filter, subscription).is_none() {
                    self.bytes += weight;
                }
            }
            Step::Unsubscribed(filter) => {
                if self.subscriptions.remove(&filter).is_some() {
                    self.bytes -= topic::weight(&filter);
                }
            }
            Step::Taken(message) => self.put(message),
            Step::Published(seq, id) => {
                if let Some(message) = self.messages.get_mut(&seq) {
                    message.progress = Progress::Published(id);
                }
            }
            Step::Released(seq, id) => self.put(without_content(seq, Progress::Released(id))),
            Step::Done(seq) => self.remove(seq),
            Step::Received(id, spread) => drop(self.received.insert(id, spread)),
            Step::Completed(id) => drop(self.received.remove(&id)),
            Step::Had(node, id) => {
                if self.had.insert(id, node).is_none() {
                    self.bytes += HAD_BYTES;
                }
            }
            Step::Whole => *self = Self::default(),
            Step::Replacing(node) => {
                *self = Self {
                    whole_at: Some(node),
                    ..Self::default()
                }
            }
            Step::Complete => self.whole_at = None,
            Step::Ended => {
                *self = Self::default();
                return false;
            }
        }
        true
    }

    fn set_state(&mut self, state: State) {
        let weight = |state: &State| {
            let will = state.will.as_ref();
            will.map_or(0, |will| will.message.size())
        };
        self.bytes += weight(&state);
        if let Some(before) = self.state.replace(state) {
            self.bytes -= weight(&before);
        }
    }

    fn put(&mut self, message: RestoredMessage) {
        self.remove(message.seq);
        self.bytes += MESSAGE_BYTES + content_bytes(&message);
        self.messages.insert(message.seq, message);
    }

    fn remove(&mut self, seq: Seq) {
        if let Some(message) = self.messages.remove(&seq) {
            self.bytes -= MESSAGE_BYTES + content_bytes(&message);
        }
    }

    /// Whether there was a whole copy when this one was begun, which is none yet.
    pub fn is_partial(&self) -> bool {
        self.whole_at.is_some()
    }

    /// The node with that one, by the hash of its name.
    pub fn whole_at(&self) -> Option<u64> {
        self.whole_at
    }

    /// About how much memory it holds.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// What it is but for subscriptions and messages, once that was told.
    pub fn state(&self) -> Option<&State> {
        self.state.as_ref()
    }

    /// What the client may have had, and the nodes that may bring it once more.
    pub fn had(&self) -> &BTreeMap<MessageId, u64> {
        &self.had
    }

    /// The ids of messages that the session has.
    pub fn message_ids(&self) -> impl Iterator<Item = MessageId> {
        let contents = self.messages.values();
        contents.filter_map(|message| Some(message.content.as_ref()?.0.id))
    }

    /// The id of a message that the session has.
    pub fn message_id(&self, seq: Seq) -> Option<MessageId> {
        Some(self.messages.get(&seq)?.content.as_ref()?.0.id)
    }

    /// The session, under a number of this node; `None` when too little was told of it.
    ///
    /// Nobody here knows who has a QoS 2 message of the client's that was not acknowledged.
    pub fn into_restored(self, session: SessionId) -> Option<Restored> {
        let State {
            profile,
            expiry,
            ends,
            will,
            will_due,
        } = self.state?;
        let placed = |(id, spread)| match spread {
            Spread::Begun | Spread::Unplaced => (id, Spread::Unplaced),
            Spread::Done => (id, Spread::Done),
        };
        Some(Restored {
            session,
            profile: Profile::clone(&profile),
            expiry,
            ends,
            will,
            will_due,
            subscriptions: self.subscriptions.into_iter().collect(),
            received: self.received.into_iter().map(placed).collect(),
            messages: self.messages.into_values().collect(),
        })
    }
}
