//! The messages of a stream, and their bytes.
//!
//! Bytes come from a channel that has authenticated the peer; what they say is checked all the same,
//! as a peer may be of another version or out of its mind.

use std::fmt;

use lb_common::abi::Tick;
use serde::{Deserialize, Serialize, de::DeserializeOwned};

/// The version of the protocol. Nodes of different versions do not understand each other.
pub const VERSION: u16 = 2;

/// The longest message: a table of all slots with every slot held takes less than half of it.
pub const LONGEST: usize = 2 << 20;

/// What a sender says first: who it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    pub version: u16,
    /// Tells the seeds of two nodes apart: with another seed, slots are others.
    pub seed: u64,
    /// Any number that another process does not have.
    pub node: u64,
}

/// What the receiver says to that.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Greeting {
    /// How far it came in which stream, if in any.
    Welcome(Option<Standing>),
    Refused(Refusal),
}

/// What a receiver has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Standing {
    /// The number of the stream.
    pub stream: u64,
    /// That of its last message that was taken in.
    pub applied: u64,
}

/// Why a receiver takes nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Refusal {
    /// It speaks another version, which this is.
    Version(u16),
    /// Its seed is another.
    Seed,
    /// It is the caller.
    Itself,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Version(version) => write!(
                f,
                "one node speaks version {version} of the protocol, the other does not: \
                 run the same release on both"
            ),
            Self::Seed => f.write_str("the nodes have different seeds: give both the same `seed`"),
            Self::Itself => f.write_str(
                "the peer's address leads back to this node: `[sync] peer` is the other node's \
                 `listen`",
            ),
        }
    }
}

impl Hello {
    /// Why a receiver that would say `own` should not take it. Whoever is on the way can lead a call
    /// back to the caller, which has the right key.
    #[must_use]
    pub fn refusal(&self, own: &Self) -> Option<Refusal> {
        if self.version != own.version {
            Some(Refusal::Version(own.version))
        } else if self.node == own.node {
            Some(Refusal::Itself)
        } else if self.seed != own.seed {
            Some(Refusal::Seed)
        } else {
            None
        }
    }
}

/// What a sender says then.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Message<K, V> {
    /// A snapshot begins, and with it a stream.
    Begin { stream: u64, number: u64 },
    /// What is new, in the order in which it has to be taken in.
    Items {
        number: u64,
        /// The sender's clock of flows when it was sent.
        now: u32,
        items: Vec<Item<K, V>>,
    },
    /// All that is there has been named since the begin.
    End { number: u64 },
    /// There is nothing new.
    Beat,
}

impl<K, V> Message<K, V> {
    /// The sender's clock of flows, where it matters.
    #[must_use]
    pub const fn now(&self) -> Option<Tick> {
        match self {
            Self::Items { now, .. } => Some(Tick(*now)),
            Self::Begin { .. } | Self::End { .. } | Self::Beat => None,
        }
    }
}

/// One thing that is new.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Item<K, V> {
    Put(K, V),
    Remove(K),
}

/// What a receiver says then.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Answer {
    /// Everything up to this number was taken in.
    Ack(u64),
    /// It is there.
    Beat,
}

/// Why bytes are no message.
#[derive(Debug, thiserror::Error)]
#[error("not a message: {0}")]
pub struct Malformed(#[from] postcard::Error);

/// The bytes of a message.
///
/// # Errors
/// If it has no bytes, which the types rule out.
pub fn encode<T: Serialize>(message: &T) -> Result<Vec<u8>, Malformed> {
    Ok(postcard::to_stdvec(message)?)
}

/// The message of these bytes, and of no more.
///
/// # Errors
/// If they are none.
pub fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Malformed> {
    let (message, rest) = postcard::take_from_bytes(bytes)?;
    if rest.is_empty() {
        Ok(message)
    } else {
        Err(Malformed(postcard::Error::SerdeDeCustom))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::{Hello, Message, Refusal, VERSION, decode, encode};

    type Wire = Message<u8, u32>;

    #[test]
    fn nodes_that_do_not_fit_together_say_why() {
        let hello = Hello {
            version: VERSION,
            seed: 5,
            node: 1,
        };
        let other = Hello { node: 2, ..hello };
        assert_eq!(hello.refusal(&other), None);
        assert_eq!(hello.refusal(&hello), Some(Refusal::Itself));
        let sown = Hello { seed: 6, ..other };
        assert_eq!(hello.refusal(&sown), Some(Refusal::Seed));
        let newer = Hello {
            version: VERSION + 1,
            ..other
        };
        let refusal = newer.refusal(&hello).unwrap();
        assert_eq!(refusal, Refusal::Version(VERSION));
        assert!(refusal.to_string().contains("same release"));
    }

    #[test]
    fn bytes_behind_a_message_are_an_error() {
        let mut bytes = encode(&Wire::Beat).unwrap();
        assert!(decode::<Wire>(&bytes).is_ok());
        bytes.push(0);
        assert!(decode::<Wire>(&bytes).is_err());
        // A length that no message has takes no memory.
        let claims_much = [1, 1, 1, 0xff, 0xff, 0xff, 0xff, 0x0f];
        assert!(decode::<Message<u8, HashMap<u8, u8>>>(&claims_much).is_err());
    }
}
