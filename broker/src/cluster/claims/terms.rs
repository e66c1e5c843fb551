//! What nodes say to each other of client ids, and what is said of them.

use std::time::Instant;

use serde::{Deserialize, Serialize};

use crate::routes::ShardId;

/// When a client has connected, so that all nodes agree on which connection is the newest.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct Stamp {
    /// Of a clock that no node's is behind, once they have heard of each other.
    pub(crate) time: u64,
    pub(crate) node: Box<str>,
}

/// What a claim asks for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Terms {
    pub(crate) user: Option<Box<str>>,
    /// The client wants no older session.
    pub(crate) clean_start: bool,
    /// The user has a right to the id by the rules, and need not have been given it.
    pub(crate) is_entitled: bool,
    /// It is for a session that is there, and not for a client who waits.
    pub(crate) has_session: bool,
    /// A node that may have had the session is gone: who has a copy answers when it is a session.
    pub(crate) is_bereft: bool,
}

/// How good a claim's right to the id is, before anybody has said whose session there is. Claims are
/// compared by their ranks first, and then by their stamps.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Rank {
    /// By the rules there is none. The id may have been given to the user, by whoever has the session.
    Unentitled,
    Anonymous,
    User,
}

impl Terms {
    pub(super) fn rank(&self) -> Rank {
        match &self.user {
            _ if !self.is_entitled => Rank::Unentitled,
            None => Rank::Anonymous,
            Some(_user) => Rank::User,
        }
    }
}

/// Another node, as long as it is not lost: the end of the lane to it, and how often it was lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Fellow {
    pub(crate) end: ShardId,
    pub(crate) life: u64,
}

/// A claim of another node's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Claim {
    pub(crate) from: Fellow,
    pub(crate) client_id: Box<str>,
    pub(crate) stamp: Stamp,
    pub(crate) terms: Terms,
    pub(crate) heard: Instant,
}

/// What a node says to a claim.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Answer {
    /// It has nothing of the id, or has it no longer.
    Nothing,
    /// It has a newer connection, or knows of one.
    Newer(Stamp),
    /// The id is another user's, or was given to one.
    Denied,
    /// The session is on its way.
    Coming,
}

/// Why a client is not let in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    TakenOver,
    Denied,
    /// There is a session, and it cannot come.
    Stuck,
}

/// What is here of a client id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Here {
    Nothing,
    /// The copy of a session whose node is not held for gone here.
    Copied,
    /// A session whose client has connected at this time.
    Session {
        time: u64,
    },
    /// A session that is on its way from one node to another.
    Moving {
        time: u64,
    },
}

impl Here {
    pub(super) fn time(self) -> Option<u64> {
        match self {
            Self::Nothing | Self::Copied => None,
            Self::Session { time } | Self::Moving { time } => Some(time),
        }
    }
}
