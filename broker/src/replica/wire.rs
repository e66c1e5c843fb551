//! Steps as bytes.
//!
//! ```text
//! piece     record*
//! record    kind u8 | body
//!   whose        session u64 | client u64       of the records that follow
//!   state        length u32 | state             as the store has it, as are all without a name here
//!   subscribed   filter str | length u8 | subscription
//!   unsubscribed filter str
//!   taken        seq u64 | progress | flags u8 | [content]
//!   published, released   seq u64 | packet id u16
//!   done         seq u64
//!   received     packet id u16 | spread u8
//!   completed    packet id u16
//!   had          node u64 | run u64 | number u64
//!   replacing    node u64
//!   ended, whole, complete
//! progress  u8 | packet id u16                  0 waiting, 1 published, 2 released
//! flags     bits 0-1 QoS, 2 retain, 3 shared, 4 with content
//! content   message | ids u16 | id u32 ... | [group str | filter str]
//! message   number u32 | [length u32 | message] how many different ones came before in the piece:
//!                                               the first time with its bytes
//! ```
//! A message that is for many sessions is in a piece once. Times are what is left or has passed at the
//! sender, for clocks of nodes differ.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
    time::Instant,
};

use bytes::{Buf, BufMut, Bytes};
use thiserror::Error;
use tracing::warn;

use super::Step;
use crate::{
    codec::packet::PacketId,
    message::{Message, MessageId, Qos},
    routes::ShardId,
    session::{
        Grant, RestoredMessage,
        journal::{Progress, Seq, SessionId},
    },
    store::{Clock, record},
};

const WHOSE: u8 = 0;
const STATE: u8 = 1;
const SUBSCRIBED: u8 = 2;
const UNSUBSCRIBED: u8 = 3;
const TAKEN: u8 = 4;
const PUBLISHED: u8 = 5;
const RELEASED: u8 = 6;
const DONE: u8 = 7;
const RECEIVED: u8 = 8;
const COMPLETED: u8 = 9;
const ENDED: u8 = 10;
const WHOLE: u8 = 11;
const REPLACING: u8 = 12;
const COMPLETE: u8 = 13;
const HAD: u8 = 14;

const RETAIN: u8 = 1 << 2;
const SHARED: u8 = 1 << 3;
const CONTENT: u8 = 1 << 4;

/// The bytes are no steps.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("what is told of a session makes no sense")]
pub struct Malformed;

/// Whose a step is, where steps of several sessions are in one piece.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Whose {
    /// The hash of its client id, by which nodes find its shard.
    pub client: u64,
    /// The session's number at its owner.
    pub session: SessionId,
}

impl Whose {
    /// Before all of a client's.
    pub fn first(client: u64) -> Self {
        let session = SessionId(0);
        Self { client, session }
    }

    /// Behind all of a client's.
    pub fn last(client: u64) -> Self {
        let session = SessionId(u64::MAX);
        Self { client, session }
    }
}

/// A piece under construction.
#[derive(Debug)]
pub struct Writer {
    bytes: Vec<u8>,
    whose: Option<Whose>,
    clock: Clock,
    /// Those that are in it, by their addresses: they must not be others' meanwhile.
    places: HashMap<usize, (u32, Arc<Message>)>,
}

impl Writer {
    pub fn new(now: Instant) -> Self {
        Self {
            bytes: Vec::new(),
            whose: None,
            clock: Clock::relative(now),
            places: HashMap::new(),
        }
    }

    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// The piece; another one begins.
    pub fn take(&mut self) -> Bytes {
        self.whose = None;
        self.places.clear();
        std::mem::take(&mut self.bytes).into()
    }

    /// Adds a step of one of several sessions.
    pub fn push_of(&mut self, whose: Whose, step: &Step) {
        if self.whose != Some(whose) {
            self.whose = Some(whose);
            self.bytes.put_u8(WHOSE);
            self.bytes.put_u64(whose.session.0);
            self.bytes.put_u64(whose.client);
        }
        self.push(step);
    }

    pub fn push(&mut self, step: &Step) {
        let bytes = &mut self.bytes;
        match step {
            Step::State(state) => {
                bytes.put_u8(STATE);
                put_block(&record::encode_state(state, self.clock), bytes);
            }
            Step::Subscribed(filter, subscription) => {
                bytes.put_u8(SUBSCRIBED);
                record::put_str(filter, bytes);
                let subscription = record::encode_subscription(subscription);
                bytes.put_u8(u8::try_from(subscription.len()).unwrap_or(u8::MAX));
                bytes.put_slice(&subscription);
            }
            Step::Unsubscribed(filter) => {
                bytes.put_u8(UNSUBSCRIBED);
                record::put_str(filter, bytes);
            }
            Step::Taken(message) => self.put_taken(message),
            Step::Published(seq, id) => {
                bytes.put_u8(PUBLISHED);
                bytes.put_u64(seq.0);
                bytes.put_u16(id.get());
            }
            Step::Released(seq, id) => {
                bytes.put_u8(RELEASED);
                bytes.put_u64(seq.0);
                bytes.put_u16(id.get());
            }
            Step::Done(seq) => {
                bytes.put_u8(DONE);
                bytes.put_u64(seq.0);
            }
            Step::Received(id, spread) => {
                bytes.put_u8(RECEIVED);
                bytes.put_u16(id.get());
                bytes.put_slice(&record::encode_spread(*spread));
            }
            Step::Completed(id) => {
                bytes.put_u8(COMPLETED);
                bytes.put_u16(id.get());
            }
            Step::Had(node, MessageId { run, number }) => {
                bytes.put_u8(HAD);
                bytes.put_u64(*node);
                bytes.put_u64(*run);
                bytes.put_u64(*number);
            }
            Step::Ended => bytes.put_u8(ENDED),
            Step::Whole => bytes.put_u8(WHOLE),
            Step::Replacing(node) => {
                bytes.put_u8(REPLACING);
                bytes.put_u64(*node);
            }
            Step::Complete => bytes.put_u8(COMPLETE),
        }
    }

    fn put_taken(&mut self, message: &RestoredMessage) {
        let RestoredMessage {
            seq,
            progress,
            content,
            group,
        } = message;
        let (progress, id) = match progress {
            Progress::Waiting => (0, 0),
            Progress::Published(id) => (1, id.get()),
            Progress::Released(id) => (2, id.get()),
        };
        self.bytes.put_u8(TAKEN);
        self.bytes.put_u64(seq.0);
        self.bytes.put_u8(progress);
        self.bytes.put_u16(id);
        let Some((message, grant)) = content else {
            self.bytes.put_u8(0);
            return;
        };
        let Grant {
            qos,
            retain,
            subscription_ids,
            share: _,
        } = grant;
        let retain = if *retain { RETAIN } else { 0 };
        let shared = group.as_ref().map_or(0, |_group| SHARED);
        self.bytes.put_u8(*qos as u8 | retain | shared | CONTENT);
        self.put_message(message);
        // A session has fewer subscriptions than that with filters of one topic.
        let ids = u16::try_from(subscription_ids.len()).unwrap_or(u16::MAX);
        self.bytes.put_u16(ids);
        for id in subscription_ids.iter().take(usize::from(ids)) {
            self.bytes.put_u32(*id);
        }
        if let Some((group, filter)) = group {
            record::put_str(group, &mut self.bytes);
            record::put_str(filter, &mut self.bytes);
        }
    }

    fn put_message(&mut self, message: &Arc<Message>) {
        let address = Arc::as_ptr(message).addr();
        if let Some((number, _message)) = self.places.get(&address) {
            self.bytes.put_u32(*number);
            return;
        }
        let number = u32::try_from(self.places.len()).unwrap_or(u32::MAX);
        self.places.insert(address, (number, Arc::clone(message)));
        self.bytes.put_u32(number);
        let message = record::encode_message(message, self.clock);
        put_block(&message, &mut self.bytes);
    }
}

/// A piece that says what a client may have had: messages, and the nodes that may bring them.
pub fn piece_of_had(had: &[(MessageId, u64)], now: Instant) -> Bytes {
    let mut writer = Writer::new(now);
    for (id, node) in had {
        writer.push(&Step::Had(*node, *id));
    }
    writer.take()
}

fn put_block(block: &[u8], out: &mut Vec<u8>) {
    // The length of a packet has 28 bits.
    out.put_u32(u32::try_from(block.len()).unwrap_or(u32::MAX));
    out.put_slice(block);
}

/// Takes a piece apart: ends with the piece, or with the first error.
#[derive(Debug)]
pub struct Reader<'a> {
    rest: &'a [u8],
    whose: Option<Whose>,
    clock: Clock,
    messages: Vec<Arc<Message>>,
}

impl<'a> Reader<'a> {
    pub fn new(piece: &'a [u8], now: Instant) -> Self {
        Self {
            rest: piece,
            whose: None,
            clock: Clock::relative(now),
            messages: Vec::new(),
        }
    }

    fn read(&mut self) -> Option<Step> {
        let rest = &mut self.rest;
        let mut kind = rest.try_get_u8().ok()?;
        while kind == WHOSE {
            let session = SessionId(rest.try_get_u64().ok()?);
            let client = rest.try_get_u64().ok()?;
            self.whose = Some(Whose { session, client });
            kind = rest.try_get_u8().ok()?;
        }
        let seq = |rest: &mut &[u8]| rest.try_get_u64().ok().map(Seq);
        let id = |rest: &mut &[u8]| PacketId::new(rest.try_get_u16().ok()?);
        Some(match kind {
            STATE => Step::State(record::decode_state(get_block(rest)?, self.clock)?),
            SUBSCRIBED => {
                let filter = record::get_str(rest)?.into();
                let length = usize::from(rest.try_get_u8().ok()?);
                let subscription = record::decode_subscription(get_slice(rest, length)?)?;
                Step::Subscribed(filter, subscription)
            }
            UNSUBSCRIBED => Step::Unsubscribed(record::get_str(rest)?.into()),
            TAKEN => Step::Taken(self.read_taken()?),
            PUBLISHED => Step::Published(seq(rest)?, id(rest)?),
            RELEASED => Step::Released(seq(rest)?, id(rest)?),
            DONE => Step::Done(seq(rest)?),
            RECEIVED => Step::Received(id(rest)?, record::decode_spread(get_slice(rest, 1)?)?),
            COMPLETED => Step::Completed(id(rest)?),
            HAD => {
                let node = rest.try_get_u64().ok()?;
                let run = rest.try_get_u64().ok()?;
                let number = rest.try_get_u64().ok()?;
                Step::Had(node, MessageId { run, number })
            }
            ENDED => Step::Ended,
            WHOLE => Step::Whole,
            REPLACING => Step::Replacing(rest.try_get_u64().ok()?),
            COMPLETE => Step::Complete,
            _ => return None,
        })
    }

    fn read_taken(&mut self) -> Option<RestoredMessage> {
        let seq = Seq(self.rest.try_get_u64().ok()?);
        let progress = self.rest.try_get_u8().ok()?;
        let id = PacketId::new(self.rest.try_get_u16().ok()?);
        let progress = match progress {
            0 => Progress::Waiting,
            1 => Progress::Published(id?),
            2 => Progress::Released(id?),
            _ => return None,
        };
        let flags = self.rest.try_get_u8().ok()?;
        let (mut content, mut group) = (None, None);
        if flags & CONTENT != 0 {
            let message = self.read_message()?;
            let ids = self.rest.try_get_u16().ok()?;
            let ids = get_slice(&mut self.rest, 4 * usize::from(ids))?;
            let grant = Grant {
                qos: Qos::from_bits(flags & 0b11)?,
                retain: flags & RETAIN != 0,
                subscription_ids: ids.chunks_exact(4).map(|mut id| id.get_u32()).collect(),
                share: None,
            };
            content = Some((message, grant));
            if flags & SHARED != 0 {
                let name = record::get_str(&mut self.rest)?.into();
                let filter = record::get_str(&mut self.rest)?.into();
                group = Some((name, filter));
            }
        }
        Some(RestoredMessage {
            seq,
            progress,
            content,
            group,
        })
    }

    fn read_message(&mut self) -> Option<Arc<Message>> {
        let number = usize::try_from(self.rest.try_get_u32().ok()?).ok()?;
        if number == self.messages.len() {
            let message = get_block(&mut self.rest)?;
            let message = record::decode_message(message, self.clock)?;
            self.messages.push(Arc::new(message));
        }
        self.messages.get(number).map(Arc::clone)
    }
}

impl Iterator for Reader<'_> {
    /// The step, and whose it is, if that was said.
    type Item = Result<(Option<Whose>, Step), Malformed>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let step = self.read().filter(Step::is_legal);
        if step.is_none() {
            self.rest = &[];
        }
        Some(step.map(|step| (self.whose, step)).ok_or(Malformed))
    }
}

/// Takes a piece apart by the shards of its clients, up to where it makes no sense.
pub fn split(
    piece: &[u8],
    now: Instant,
    shard_of: impl Fn(u64) -> ShardId,
) -> BTreeMap<ShardId, Bytes> {
    let mut writers = BTreeMap::new();
    let is_whole = |result: Result<_, Malformed>| {
        let tell = |error: &Malformed| warn!(%error, "a copy is not whole");
        result.inspect_err(tell).ok()
    };
    for (whose, step) in Reader::new(piece, now).map_while(is_whole) {
        if let Some(whose) = whose {
            let writer = writers.entry(shard_of(whose.client));
            let writer = writer.or_insert_with(|| Writer::new(now));
            writer.push_of(whose, &step);
        }
    }
    let pieces = writers.into_iter();
    pieces
        .map(|(shard, mut writer)| (shard, writer.take()))
        .collect()
}

fn get_block<'a>(bytes: &mut &'a [u8]) -> Option<&'a [u8]> {
    let length = usize::try_from(bytes.try_get_u32().ok()?).ok()?;
    get_slice(bytes, length)
}

fn get_slice<'a>(bytes: &mut &'a [u8], length: usize) -> Option<&'a [u8]> {
    let (slice, rest) = bytes.split_at_checked(length)?;
    *bytes = rest;
    Some(slice)
}

#[cfg(test)]
mod tests;
