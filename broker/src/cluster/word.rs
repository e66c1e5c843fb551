//! What shards of different nodes say to each other, as bytes.
//!
//! Words travel on the lanes and in the streams of the pairs, between the messages: what is said of a
//! session is in order with what the session was sent, and is repeated and confirmed as messages are.
//! The sender does not know how many shards the other node has, so a word says whom it is for: the
//! shard of a client id, a shard by its number, or all.

use serde::{Deserialize, Serialize};

use super::claims::{Answer, Stamp, Terms};

/// What the shards of two nodes say to each other. `time` is that of the claim that it is about.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Word<'a> {
    /// A client has connected.
    Claim {
        client_id: &'a str,
        stamp: Stamp,
        terms: Terms,
    },
    Answer {
        client_id: &'a str,
        time: u64,
        answer: Answer,
    },
    /// A part of a session that goes to who claims it.
    Piece {
        client_id: &'a str,
        time: u64,
        /// Steps: see `replica::wire`.
        piece: &'a [u8],
        /// Retained messages that the client has not had.
        greetings: Vec<(Box<str>, Option<Box<str>>)>,
        is_last: bool,
    },
    /// The session is there, and kept there: where it was it can be forgotten.
    Installed { client_id: &'a str, time: u64 },
    /// What has come of the session cannot be read: it stays where it is.
    Unreadable { client_id: &'a str, time: u64 },
    /// A message for the session, from where it was.
    Forward {
        client_id: &'a str,
        time: u64,
        grant: Granted,
        /// As in a frame.
        message: &'a [u8],
    },
    /// All nodes know of the session's filters at its new place.
    Told { client_id: &'a str, time: u64 },
    /// Nothing more is forwarded.
    Over { client_id: &'a str, time: u64 },
    /// A shard wants to hear from all shards, behind all that they have sent so far.
    Barrier { shard: u16, number: u64 },
    /// One of `of` shards has sent everything before the barrier.
    Mark { shard: u16, number: u64, of: u16 },
}

/// What a session gets a message as.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Granted {
    pub(crate) qos: u8,
    pub(crate) retain: bool,
    pub(crate) subscription_ids: Vec<u32>,
    /// The tag of the group that it is for, if it is for one.
    pub(crate) group: Option<u64>,
}

/// Which shards of the node that hears it a word is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Recipient<'a> {
    /// That of the client.
    Client(&'a str),
    Shard(u16),
    All,
}

impl<'a> Word<'a> {
    pub(crate) fn encode(&self) -> Vec<u8> {
        // Postcard fails on sequences of unknown length alone; there are none.
        postcard::to_stdvec(self).unwrap_or_default()
    }

    /// `None` when the bytes are no word.
    pub(crate) fn decode(bytes: &'a [u8]) -> Option<Self> {
        let (word, rest) = postcard::take_from_bytes(bytes).ok()?;
        rest.is_empty().then_some(word)
    }

    pub(crate) fn recipient(&self) -> Recipient<'_> {
        match self {
            Self::Claim { client_id, .. }
            | Self::Answer { client_id, .. }
            | Self::Piece { client_id, .. }
            | Self::Installed { client_id, .. }
            | Self::Unreadable { client_id, .. }
            | Self::Forward { client_id, .. }
            | Self::Told { client_id, .. }
            | Self::Over { client_id, .. } => Recipient::Client(client_id),
            Self::Mark { shard, .. } => Recipient::Shard(*shard),
            Self::Barrier { .. } => Recipient::All,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*};

    use super::*;

    #[test]
    fn words_are_understood() {
        let stamp = Stamp {
            time: 7,
            node: "one".into(),
        };
        let terms = Terms {
            user: Some("u".into()),
            clean_start: true,
            is_entitled: true,
            has_session: false,
            is_bereft: true,
        };
        let client_id = "c";
        let words = [
            Word::Claim {
                client_id,
                stamp: stamp.clone(),
                terms,
            },
            Word::Answer {
                client_id,
                time: 7,
                answer: Answer::Newer(stamp),
            },
            Word::Piece {
                client_id,
                time: 7,
                piece: b"piece",
                greetings: vec![("#".into(), None)],
                is_last: true,
            },
            Word::Forward {
                client_id,
                time: 7,
                grant: Granted {
                    qos: 1,
                    retain: false,
                    subscription_ids: vec![300],
                    group: Some(u64::MAX),
                },
                message: b"message",
            },
            Word::Mark {
                shard: 1,
                number: 2,
                of: 3,
            },
        ];
        for word in words {
            let bytes = word.encode();
            assert_eq!(Word::decode(&bytes), Some(word));
            assert!((0..bytes.len()).all(|length| Word::decode(&bytes[..length]).is_none()));
        }
    }

    proptest! {
        #[test]
        fn no_bytes_are_a_reason_to_panic(bytes in vec(any::<u8>(), 0..100)) {
            let _ = Word::decode(&bytes);
        }
    }
}
