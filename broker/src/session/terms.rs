//! What goes in and out of a session's calls.

use std::{rc::Rc, sync::Arc, time::Duration};

use super::{
    Shelf,
    journal::{Seq, SessionId},
    stock::Place,
};
use crate::{
    codec::packet::{RetainHandling, Will},
    message::{Message, Qos},
    shares::ShareId,
};

/// What a client asked for with one filter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Subscription {
    pub qos: Qos,
    pub no_local: bool,
    pub retain_as_published: bool,
    pub id: Option<u32>,
}

/// What a session wants from the store of retained messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Greeting<'a> {
    pub filter: &'a str,
    /// The place in the store that was reached.
    pub after: Option<&'a str>,
}

/// What a message may be delivered as: all of a client's matching subscriptions taken together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grant {
    pub qos: Qos,
    pub retain: bool,
    pub subscription_ids: Vec<u32>,
    /// The group that the client got the message for.
    pub share: Option<ShareId>,
}

/// A message of a group whose member has left before it had it.
#[derive(Debug)]
pub struct Orphan {
    pub share: ShareId,
    pub message: Arc<Message>,
    /// Where it is noted, in a session that goes on. It is to be noted as done there when others
    /// have it.
    pub noted: Option<(SessionId, Seq)>,
    /// In the queue that it was in: it takes as much room until another member has it.
    pub place: Option<Place>,
}

/// What may wait for a client.
#[derive(Clone, Debug)]
pub struct Room {
    pub messages: usize,
    /// Of messages. One waits however long it is, and as much again may be on its way.
    pub bytes: usize,
    /// Where they wait with those of others.
    pub shelf: Rc<Shelf>,
}

/// What a connection brings to its session.
#[derive(Debug)]
pub struct Terms {
    /// Messages of QoS 1 and 2 that may be unacknowledged at once.
    pub window: u16,
    /// QoS 2 messages that the client may have half delivered at once.
    pub receive: usize,
    /// How long the session outlives the connection.
    pub expiry: Duration,
    pub will: Option<Will>,
}

/// Why a connection is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// The client said DISCONNECT, which deletes its will.
    Goodbye,
    /// Anything else: the will is due.
    Broken,
    /// The client was told to go on elsewhere. It has not died, so a will that would be due at once
    /// is not; one with a delay is, if its client is not there by then.
    Referred,
    /// The node stops; its sessions end with it.
    Shutdown,
}

/// What is left to do after a connection or a deadline.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Aftermath {
    /// A will to publish at once.
    pub will: Option<Arc<Message>>,
    /// The session is over: its owner must forget it and its subscriptions.
    pub ended: bool,
}

/// A client sent more half-delivered QoS 2 messages than the CONNACK allowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReceiveMaximumExceeded;

impl RetainHandling {
    /// Whether a SUBSCRIBE with this option is answered with retained messages.
    pub fn asks(self, is_new: bool) -> bool {
        match self {
            Self::Always => true,
            Self::IfNew => is_new,
            Self::Never => false,
        }
    }
}
