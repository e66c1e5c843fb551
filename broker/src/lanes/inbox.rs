//! A shard's receiving half: the order of frames is checked here.

use std::sync::Arc;

use super::{
    Lanes,
    frame::{self, Header},
};
use crate::routes::ShardId;

/// Frames from all other shards.
pub struct Inbox {
    me: ShardId,
    lanes: Arc<Lanes>,
    /// The next sequence number, by sender.
    expected: Vec<u64>,
    /// The frame whose messages are being delivered, and its length.
    open: Option<(Header, usize)>,
}

/// What a frame's header means for its reader.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arrival {
    /// The frame is the next one.
    New { messages: u32 },
    /// Frames before this one never came. Their sender still holds them, and this one: they are
    /// repeated to a reader that joins the next Router.
    Gap { missing: u64 },
    /// A repeat of a frame that was already read, or no frame at all.
    Ignored,
}

impl Inbox {
    pub fn new(me: ShardId, shards: u16, lanes: Arc<Lanes>) -> Self {
        Self {
            me,
            lanes,
            expected: vec![1; usize::from(shards)],
            open: None,
        }
    }

    /// Reads a frame's header. When the frame is the next one, [`Self::finish_frame`] is to follow.
    pub fn handle_frame(&mut self, bytes: &mut &[u8]) -> Arrival {
        let length = bytes.len();
        let Some(header) = frame::read_header(bytes) else {
            return Arrival::Ignored;
        };
        let Some(expected) = self.expected.get_mut(usize::from(header.from.0)) else {
            return Arrival::Ignored;
        };
        if header.sequence < *expected {
            return Arrival::Ignored;
        }
        if header.sequence > *expected {
            return Arrival::Gap {
                missing: header.sequence - *expected,
            };
        }
        *expected = header.sequence + 1;
        self.open = Some((header, length));
        Arrival::New {
            messages: header.count,
        }
    }

    /// Notes that the frame's messages are delivered, or handed on: not before that may its sender
    /// count them as no longer under way. Returns the sender and the frame's number.
    pub fn finish_frame(&mut self) -> Option<(ShardId, u64)> {
        let (header, length) = self.open.take()?;
        self.lanes
            .consume(self.me, header.from, header.sequence, length);
        Some((header.from, header.sequence))
    }
}
