//! What is said of copies on lanes and in the streams of the pairs, as bytes.
//!
//! ```text
//! word     kind u8 | body
//!   steps    life u64 | piece to the node where the copies are, and there to their shards
//!   lost     fate u8          to a node's own shards: the peer whose lane it comes by is gone
//!   orphans  end u16 | messages   to a node's own shards: what the peer of that lane, which is gone, did
//!                             not take, as in a frame
//!   strays   node u64 | messages  to all other nodes: what that node, which is gone, did not take
//!   buried   node u64         to all other nodes: its sessions go on here, if there were copies
//!   regroup  messages         to one of a node's own shards: what was for groups of a peer that is gone
//!   told     life u64 | shard u16 | of u16   to all shards of a node with copies: that shard of the owner
//!                             has made all of its sessions' copies anew
//! ```

use std::time::Instant;

use bytes::{Buf, BufMut, Bytes};

use crate::{
    lanes::frame::{self, Content},
    message::Qos,
    routes::ShardId,
};

/// What begins with less is said of something else.
pub const FIRST: u8 = 0x80;
const STEPS: u8 = FIRST;
const LOST: u8 = FIRST + 1;
const ORPHANS: u8 = FIRST + 2;
const STRAYS: u8 = FIRST + 3;
const BURIED: u8 = FIRST + 4;
const REGROUP: u8 = FIRST + 5;
const TOLD: u8 = FIRST + 6;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Word<'a> {
    Steps {
        /// That of their place which they are for.
        life: u64,
        piece: &'a [u8],
    },
    Lost(Fate),
    Orphans {
        of: ShardId,
        messages: &'a [u8],
    },
    /// A node goes by the hash of its name.
    Strays {
        node: u64,
        messages: &'a [u8],
    },
    Buried(u64),
    Regroup(&'a [u8]),
    /// Whatever of a shard's sessions was not told of in this life has ended, or has its copy elsewhere.
    Told {
        life: u64,
        shard: u16,
        of: u16,
    },
}

/// What becomes of the copies of a peer's sessions that is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// They are sessions from then on.
    Promoted,
    /// The peer goes on without this node.
    Dropped,
    /// The peer is there, and makes them anew.
    Renewed,
    /// The peer goes on without this node, and makes them anew when it is back: it had to do without, as
    /// this one took nothing.
    Apart,
}

/// Whether a word is said of copies.
pub fn is_such(word: &[u8]) -> bool {
    word.first().is_some_and(|kind| *kind >= FIRST)
}

impl<'a> Word<'a> {
    pub fn encode(self) -> Bytes {
        let mut out = Vec::new();
        match self {
            Self::Steps { life, piece } => {
                out.reserve(9 + piece.len());
                out.put_u8(STEPS);
                out.put_u64(life);
                out.put_slice(piece);
            }
            Self::Lost(fate) => {
                out.put_u8(LOST);
                out.put_u8(match fate {
                    Fate::Dropped => 0,
                    Fate::Promoted => 1,
                    Fate::Renewed => 2,
                    Fate::Apart => 3,
                });
            }
            Self::Orphans { of, messages } => {
                out.reserve(3 + messages.len());
                out.put_u8(ORPHANS);
                out.put_u16(of.0);
                out.put_slice(messages);
            }
            Self::Strays { node, messages } => {
                out.reserve(9 + messages.len());
                out.put_u8(STRAYS);
                out.put_u64(node);
                out.put_slice(messages);
            }
            Self::Buried(node) => {
                out.put_u8(BURIED);
                out.put_u64(node);
            }
            Self::Regroup(messages) => {
                out.reserve(1 + messages.len());
                out.put_u8(REGROUP);
                out.put_slice(messages);
            }
            Self::Told { life, shard, of } => {
                out.put_u8(TOLD);
                out.put_u64(life);
                out.put_u16(shard);
                out.put_u16(of);
            }
        }
        out.into()
    }

    /// `None` when the bytes are no such word.
    pub fn decode(bytes: &'a [u8]) -> Option<Self> {
        let (kind, body) = bytes.split_first()?;
        match (*kind, body) {
            (STEPS, mut piece) => {
                let life = piece.try_get_u64().ok()?;
                Some(Self::Steps { life, piece })
            }
            (LOST, [0]) => Some(Self::Lost(Fate::Dropped)),
            (LOST, [1]) => Some(Self::Lost(Fate::Promoted)),
            (LOST, [2]) => Some(Self::Lost(Fate::Renewed)),
            (LOST, [3]) => Some(Self::Lost(Fate::Apart)),
            (ORPHANS, mut messages) => {
                let of = ShardId(messages.try_get_u16().ok()?);
                Some(Self::Orphans { of, messages })
            }
            (STRAYS, mut messages) => {
                let node = messages.try_get_u64().ok()?;
                Some(Self::Strays { node, messages })
            }
            (BURIED, mut node) if node.len() == 8 => Some(Self::Buried(node.get_u64())),
            (REGROUP, messages) => Some(Self::Regroup(messages)),
            (TOLD, mut body) if body.len() == 12 => Some(Self::Told {
                life: body.get_u64(),
                shard: body.get_u16(),
                of: body.get_u16(),
            }),
            _ => None,
        }
    }
}

/// What is behind a frame's header, without what is told for other lives of its place than this one.
pub fn without_stale(messages: Bytes, life: u64, now: Instant) -> Bytes {
    let mut rest = &messages[..];
    let mut kept = Vec::with_capacity(rest.len());
    loop {
        let before = rest;
        let Some(content) = frame::read_content(&mut rest, now) else {
            // What makes no sense here is for the peer to judge.
            kept.extend_from_slice(before);
            break;
        };
        let word = match content {
            Content::Word { bytes, .. } => Word::decode(bytes),
            Content::Message(_) => None,
        };
        let is_stale = matches!(
            word,
            Some(Word::Steps { life: meant, .. } | Word::Told { life: meant, .. }) if meant != life
        );
        if !is_stale {
            kept.extend_from_slice(&before[..before.len() - rest.len()]);
        }
    }
    if kept.len() == messages.len() {
        messages
    } else {
        kept.into()
    }
}

/// What is behind a frame's header and is for a lost node's sessions, wherever they go on: what has to
/// be acknowledged. What shards say to each other was for that node alone, and what was for its groups
/// waits for other members.
pub fn of_heirs(messages: &Bytes, now: Instant) -> Bytes {
    let mut rest = &messages[..];
    let mut kept = Vec::new();
    loop {
        let before = rest;
        let Some(content) = frame::read_content(&mut rest, now) else {
            break;
        };
        if let Content::Message(item) = content
            && item.message.qos > Qos::AtMostOnce
            && item.seats.is_empty()
        {
            kept.extend_from_slice(&before[..before.len() - rest.len()]);
        }
    }
    if kept.len() == messages.len() {
        messages.clone()
    } else {
        kept.into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        lanes::frame::Writer,
        shares::{Seat, ShareId},
        testing,
    };

    #[test]
    fn steps_for_an_earlier_life_are_left_out() {
        let now = Instant::now();
        let frame = |lives: &[u64]| {
            let mut writer = Writer::new(ShardId(0), 1);
            for life in lives {
                writer.push_word(b"\x01of another kind", true);
                let piece = b"piece";
                writer.push_word(&Word::Steps { life: *life, piece }.encode(), true);
                let (shard, of) = (0, 1);
                let told = Word::Told {
                    life: *life,
                    shard,
                    of,
                };
                writer.push_word(&told.encode(), false);
            }
            writer.finish().slice(frame::HEADER..)
        };
        let kept = without_stale(frame(&[3, 2, 3]), 3, now);
        let mut rest = &kept[..];
        let mut words = 0;
        while let Some(Content::Word { bytes, .. }) = frame::read_content(&mut rest, now) {
            let of_life = match Word::decode(bytes) {
                Some(Word::Steps { life, .. } | Word::Told { life, .. }) => Some(life),
                Some(
                    Word::Lost(_)
                    | Word::Orphans { .. }
                    | Word::Strays { .. }
                    | Word::Buried(_)
                    | Word::Regroup(_),
                )
                | None => None,
            };
            assert!(of_life.is_none_or(|life| life == 3));
            words += 1;
        }
        assert_eq!(words, 7);
        assert_eq!(without_stale(frame(&[3, 3]), 3, now), frame(&[3, 3]));
        let nonsense = Bytes::from_static(b"nonsense");
        assert_eq!(without_stale(nonsense.clone(), 3, now), nonsense);
    }

    #[test]
    fn messages_that_are_to_be_acknowledged_are_for_those_who_have_a_lost_nodes_sessions() {
        let now = Instant::now();
        let frame = |has_words: bool, all: &[Qos]| {
            let mut writer = Writer::new(ShardId(0), 1);
            for qos in all {
                if has_words {
                    let piece = b"piece";
                    writer.push_word(&Word::Steps { life: 1, piece }.encode(), true);
                }
                writer.push(&testing::message([], *qos), &[], now);
            }
            writer.finish().slice(frame::HEADER..)
        };
        let all = [Qos::AtLeastOnce, Qos::AtMostOnce, Qos::ExactlyOnce];
        let heirs = [Qos::AtLeastOnce, Qos::ExactlyOnce];
        assert_eq!(of_heirs(&frame(true, &all), now), frame(false, &heirs));
        assert_eq!(of_heirs(&frame(false, &heirs), now), frame(false, &heirs));
        assert!(of_heirs(&frame(true, &[Qos::AtMostOnce]), now).is_empty());
        let seat = Seat {
            share: ShareId(1),
            session: Seat::NOBODY,
            hops: 1,
        };
        let mut writer = Writer::new(ShardId(0), 1);
        for seats in [&[][..], &[seat]] {
            writer.push(&testing::message([], Qos::AtLeastOnce), seats, now);
        }
        let messages = writer.finish().slice(frame::HEADER..);
        assert_eq!(of_heirs(&messages, now), frame(false, &heirs[..1]));
    }

    #[test]
    fn words_are_understood() {
        for word in [
            Word::Steps {
                life: 7,
                piece: b"piece",
            },
            Word::Lost(Fate::Promoted),
            Word::Lost(Fate::Dropped),
            Word::Lost(Fate::Renewed),
            Word::Lost(Fate::Apart),
            Word::Orphans {
                of: ShardId(7),
                messages: b"messages",
            },
            Word::Strays {
                node: 7,
                messages: b"messages",
            },
            Word::Buried(7),
            Word::Told {
                life: 7,
                shard: 1,
                of: 2,
            },
        ] {
            assert_eq!(Word::decode(&word.encode()), Some(word));
        }
        for nonsense in [&b""[..], &[LOST], &[LOST, 4], &[TOLD, 1], &[0], &[0xff]] {
            assert_eq!(Word::decode(nonsense), None);
        }
    }
}
