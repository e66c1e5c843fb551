//! What two nodes say to each other, as bytes.
//!
//! ```text
//! message  kind u8 | body
//!   hello     protocol u16 | Hello      the first one, of both
//!   refusal   Refusal                   the last one
//!   resume    Resume                    the second one, of both
//!   taken     up to u64                 said as a beat too, when there is nothing else to say
//!   item      number u64 | item         numbered within a stream, see `pair`
//!   members   [Member]
//!   farewell  parting u8                the node stops, or leaves the cluster and goes on without it
//!   safe      Safe                      beside what is taken, see `promises`
//!   question  number u64 | Question     beside the streams, see `questions`
//!   answer    number u64 | JSON         to the question of that number
//!   tally     time u64 | Tally          now and then
//! item     kind u8 | body
//!   messages  the messages of a lane's frame
//!   changes   [Change]                  of the node's filters and groups
//!   page      Page                      all of its filters between two
//!   retained  is last u8 | messages as above, each with its time: what differs at the other end
//!   sums      turn u8 | sum u64, as often as there are buckets
//! ```
//! What has a name is in postcard's form. The protocol's number comes first and stays where it is, so
//! that nodes of different versions understand why they do not.

use std::net::IpAddr;

use bytes::{Buf, BufMut, Bytes};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use thiserror::Error;

use super::{
    promises::Safe,
    questions::{Aside, Question},
    telling::Turn,
    view::Tally,
};
use crate::{
    retained::{BUCKETS, Sums},
    shares::Room,
};

/// The version of all that is said here. Nodes of different ones refuse each other.
pub(super) const PROTOCOL: u16 = 9;

const HELLO: u8 = 1;
const REFUSAL: u8 = 2;
const RESUME: u8 = 3;
const TAKEN: u8 = 4;
const ITEM: u8 = 5;
const MEMBERS: u8 = 6;
const FAREWELL: u8 = 7;
const SAFE: u8 = 8;
const QUESTION: u8 = 9;
const ANSWER: u8 = 10;
const TALLY: u8 = 11;

const MESSAGES: u8 = 1;
const CHANGES: u8 = 2;
const PAGE: u8 = 3;
const RETAINED: u8 = 4;
const SUMS: u8 = 5;

/// Who calls, or is called.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Hello {
    pub(super) cluster: String,
    pub(super) node: String,
    /// Tells one run of the node from the next.
    pub(super) incarnation: u64,
    /// Where the node listens; its host is seen by who is called.
    pub(super) port: u16,
    /// How long it waits for who is silent.
    pub(super) lease_millis: u32,
}

/// Where the streams of both directions go on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Resume {
    /// The stream that the speaker sends.
    pub(super) stream: u64,
    /// The stream that it receives, and the last number of it that it has.
    pub(super) heard: Option<(u64, u64)>,
    /// It can take no other stream: what it was passed on before waits.
    pub(super) is_choked: bool,
    /// It began without retained messages, and waits for those of others.
    pub(super) wants_retained: bool,
    /// No earlier than all times that the speaker has given or seen.
    pub(super) time: u64,
}

/// A node that the speaker is connected to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Member {
    pub(super) node: String,
    pub(super) host: IpAddr,
    pub(super) port: u16,
}

/// Why a node is not talked to; the text is for the operator of the one that is told.
#[derive(Clone, Debug, PartialEq, Eq, Error, Serialize, Deserialize)]
pub(super) enum Refusal {
    #[error("the nodes are of clusters {ours:?} and {theirs:?}: check `cluster.name` of both")]
    OtherCluster { theirs: String, ours: String },
    #[error("the cluster has a live node {name:?} already: give one of the two another name")]
    NameTaken { name: String },
    #[error(
        "the nodes speak versions {ours} and {theirs} of the cluster's protocol: \
         run the same version of tidegate-broker on both"
    )]
    Protocol { theirs: u16, ours: u16 },
    #[error("it has left the cluster: `tidegate-broker cluster join` on it brings it back")]
    Left,
    #[error("it has no room for another node: a cluster has {most} at most")]
    Full { most: usize },
    /// A node that has called itself.
    #[error("it is this node itself")]
    Myself,
    /// Another connection of the two serves already.
    #[error("the two nodes are connected already")]
    Double,
    #[error(
        "what it was passed on before is not taken in: a thread of the node that refuses hangs, \
         or its disk"
    )]
    Choked,
}

impl Refusal {
    /// Whether it is no trouble.
    pub(super) fn is_quiet(&self) -> bool {
        matches!(self, Self::Myself | Self::Double)
    }
}

/// A change of the filters that a node has subscribers for, and of the groups that it has members of.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Change {
    Added(Box<str>),
    /// What the members of a group can take, which goes by its filter: `$share/GROUP/FILTER`.
    Group(Box<str>, Room),
    Removed(Box<str>),
}

/// All filters and groups of a node behind `after` and up to the last one that is here, or all of the
/// rest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Page {
    pub(super) after: Option<Box<str>>,
    pub(super) filters: Vec<(Box<str>, Option<Room>)>,
    pub(super) is_last: bool,
}

/// One message between nodes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Message {
    Hello(Hello),
    /// Somebody greets in another version of the protocol.
    Foreign(u16),
    Refusal(Refusal),
    Resume(Resume),
    Taken(u64),
    Safe(Safe),
    Item(u64, Item),
    Members(Vec<Member>),
    Farewell(Parting),
    /// A question or an answer, of this number.
    Aside(u64, Aside),
    /// With a time, no earlier than all that the speaker has given or seen.
    Tally(u64, Tally),
}

/// Why a node says goodbye.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Parting {
    Stops,
    /// Its clients stay with it.
    Leaves,
}

/// What a stream consists of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Item {
    /// As a lane's frame has them behind its header.
    Messages(Bytes),
    Changes(Vec<Change>),
    Page(Page),
    Retained {
        messages: Bytes,
        is_last: bool,
    },
    /// Of what the speaker has retained.
    Sums(Turn, Sums),
}

/// The bytes are no message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("it says what makes no sense")]
pub(super) struct Malformed;

impl Message {
    pub(super) fn encode(&self) -> Bytes {
        let mut out = Vec::new();
        match self {
            Self::Hello(hello) => {
                out.put_u8(HELLO);
                out.put_u16(PROTOCOL);
                put(&mut out, hello);
            }
            Self::Foreign(protocol) => {
                out.put_u8(HELLO);
                out.put_u16(*protocol);
            }
            Self::Refusal(refusal) => {
                out.put_u8(REFUSAL);
                put(&mut out, refusal);
            }
            Self::Resume(resume) => {
                out.put_u8(RESUME);
                put(&mut out, resume);
            }
            Self::Taken(up_to) => {
                out.put_u8(TAKEN);
                out.put_u64(*up_to);
            }
            Self::Safe(safe) => {
                out.put_u8(SAFE);
                put(&mut out, safe);
            }
            Self::Item(number, item) => return numbered(*number, &item.encode()),
            Self::Members(members) => {
                out.put_u8(MEMBERS);
                put(&mut out, members);
            }
            Self::Farewell(parting) => {
                out.put_u8(FAREWELL);
                out.put_u8(u8::from(*parting == Parting::Leaves));
            }
            Self::Aside(number, Aside::Question(question)) => {
                out.put_u8(QUESTION);
                out.put_u64(*number);
                put(&mut out, question);
            }
            Self::Aside(number, Aside::Answer(answer)) => {
                out.reserve(1 + 8 + answer.len());
                out.put_u8(ANSWER);
                out.put_u64(*number);
                out.put_slice(answer);
            }
            Self::Tally(time, tally) => {
                out.put_u8(TALLY);
                out.put_u64(*time);
                put(&mut out, tally);
            }
        }
        out.into()
    }

    /// # Errors
    /// When the bytes are not exactly one message.
    pub(super) fn decode(mut bytes: Bytes) -> Result<Self, Malformed> {
        Ok(match bytes.try_get_u8().map_err(|_short| Malformed)? {
            HELLO => match bytes.try_get_u16().map_err(|_short| Malformed)? {
                PROTOCOL => Self::Hello(take(&bytes)?),
                foreign => Self::Foreign(foreign),
            },
            REFUSAL => Self::Refusal(take(&bytes)?),
            RESUME => Self::Resume(take(&bytes)?),
            TAKEN => {
                let up_to = bytes.try_get_u64().map_err(|_short| Malformed)?;
                bytes
                    .is_empty()
                    .then_some(Self::Taken(up_to))
                    .ok_or(Malformed)?
            }
            SAFE => Self::Safe(take(&bytes)?),
            ITEM => {
                let number = bytes.try_get_u64().map_err(|_short| Malformed)?;
                Self::Item(number, Item::decode(bytes)?)
            }
            MEMBERS => Self::Members(take(&bytes)?),
            FAREWELL => match &bytes[..] {
                [0] => Self::Farewell(Parting::Stops),
                [1] => Self::Farewell(Parting::Leaves),
                _ => return Err(Malformed),
            },
            QUESTION => {
                let number = bytes.try_get_u64().map_err(|_short| Malformed)?;
                let question: Question = take(&bytes)?;
                Self::Aside(number, Aside::Question(question))
            }
            ANSWER => {
                let number = bytes.try_get_u64().map_err(|_short| Malformed)?;
                Self::Aside(number, Aside::Answer(bytes))
            }
            TALLY => {
                let time = bytes.try_get_u64().map_err(|_short| Malformed)?;
                Self::Tally(time, take(&bytes)?)
            }
            _ => return Err(Malformed),
        })
    }
}

/// An item's message, of the item's bytes.
pub(super) fn numbered(number: u64, item: &[u8]) -> Bytes {
    let mut out = Vec::with_capacity(1 + 8 + item.len());
    out.put_u8(ITEM);
    out.put_u64(number);
    out.put_slice(item);
    out.into()
}

impl Item {
    pub(super) fn encode(&self) -> Bytes {
        let mut out = Vec::new();
        match self {
            Self::Messages(messages) => {
                out.reserve(1 + messages.len());
                out.put_u8(MESSAGES);
                out.put_slice(messages);
            }
            Self::Changes(changes) => {
                out.put_u8(CHANGES);
                put(&mut out, changes);
            }
            Self::Page(page) => {
                out.put_u8(PAGE);
                put(&mut out, page);
            }
            Self::Retained { messages, is_last } => {
                out.reserve(2 + messages.len());
                out.put_u8(RETAINED);
                out.put_u8(u8::from(*is_last));
                out.put_slice(messages);
            }
            Self::Sums(turn, sums) => {
                out.reserve(2 + 8 * BUCKETS);
                out.put_u8(SUMS);
                out.put_u8(u8::from(*turn == Turn::Answer));
                sums.words().iter().for_each(|sum| out.put_u64(*sum));
            }
        }
        out.into()
    }

    fn decode(mut bytes: Bytes) -> Result<Self, Malformed> {
        Ok(match bytes.try_get_u8().map_err(|_short| Malformed)? {
            MESSAGES => Self::Messages(bytes),
            CHANGES => Self::Changes(take(&bytes)?),
            PAGE => Self::Page(take(&bytes)?),
            RETAINED => {
                let is_last = bytes.try_get_u8().map_err(|_short| Malformed)? != 0;
                Self::Retained {
                    messages: bytes,
                    is_last,
                }
            }
            SUMS => {
                let turn = match bytes.try_get_u8().map_err(|_short| Malformed)? {
                    0 => Turn::Question,
                    1 => Turn::Answer,
                    _ => return Err(Malformed),
                };
                if bytes.len() != 8 * BUCKETS {
                    return Err(Malformed);
                }
                let words = std::array::from_fn(|_bucket| bytes.get_u64());
                Self::Sums(turn, Sums::from_words(words))
            }
            _ => return Err(Malformed),
        })
    }
}

fn put(out: &mut Vec<u8>, value: &impl Serialize) {
    // Postcard fails on sequences of unknown length alone; there are none.
    if let Ok(bytes) = postcard::to_stdvec(value) {
        out.put_slice(&bytes);
    }
}

fn take<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Malformed> {
    let (value, rest) = postcard::take_from_bytes(bytes).map_err(|_error| Malformed)?;
    rest.is_empty().then_some(value).ok_or(Malformed)
}

#[cfg(test)]
mod tests;
