//! The bytes on a lane: a header and the messages of one batch.
//!
//! ```text
//! frame    src u16 | sequence u64 | count u32 | message*
//! message  flags u8 | topic u16 | properties u32 | payload u32 | [expires in ms u64]
//!          | [seats u32 | (share u64 | session u32 | hops u8)*] | [session u64 | packet id u16]
//!          | [run u64 | number u64] | [retained at u64] | topic | properties | payload
//! flags    bits 0-1 QoS, bit 2 retain, bit 3 expires, bit 4 for these seats alone,
//!          bit 5 of this origin, bit 6 maybe taken in an earlier life, bit 7 with an id
//! ```
//!
//! In a message's place may be a word of shards of different nodes to each other: its flags have both
//! bits of the QoS, and bit 2 when its sender is to hear that it was taken.
//!
//! ```text
//! word     flags u8 | length u32 | bytes
//! ```

use std::time::{Duration, Instant};

use bytes::{Buf, BufMut, Bytes, BytesMut};

use crate::{
    codec::packet::PacketId,
    message::{Message, MessageId, Qos},
    routes::ShardId,
    session::journal::{Origin, SessionId},
    shares::{HANDED_ON, Seat, ShareId},
};

pub const HEADER: usize = 2 + 8 + 4;
const COUNT_AT: usize = 2 + 8;
const RETAIN: u8 = 0b0100;
const EXPIRES: u8 = 0b1000;
const SEATS: u8 = 0b1_0000;
const ORIGIN: u8 = 0b10_0000;
const REPEAT: u8 = 0b100_0000;
const WITH_ID: u8 = 0b1000_0000;
const QOS: u8 = 0b11;
/// In place of a QoS.
const WORD: u8 = 0b11;
const AWAITED: u8 = 0b0100;
const SEAT_BYTES: usize = 8 + 4 + 1;

/// A frame under construction.
#[derive(Debug)]
pub struct Writer {
    bytes: BytesMut,
    count: u32,
}

/// What a frame's header says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    pub from: ShardId,
    pub sequence: u64,
    pub count: u32,
}

impl Writer {
    pub fn new(from: ShardId, sequence: u64) -> Self {
        let mut bytes = BytesMut::with_capacity(1024);
        bytes.put_u16(from.0);
        bytes.put_u64(sequence);
        bytes.put_u32(0);
        Self { bytes, count: 0 }
    }

    /// Adds a message for all subscribers or, where there are seats, for these members of groups.
    pub fn push(&mut self, message: &Message, seats: &[Seat], now: Instant) {
        self.push_marked(Mark::default(), message, seats, now);
    }

    /// As [`Writer::push`], with what its reader is to know of it besides.
    pub fn push_marked(&mut self, mark: Mark, message: &Message, seats: &[Seat], now: Instant) {
        let Message {
            topic,
            payload,
            properties,
            qos,
            retain,
            expires,
            id,
        } = message;
        let Mark {
            source,
            retained_at,
        } = mark;
        let mut flags = *qos as u8;
        if *retain {
            flags |= RETAIN;
        }
        if expires.is_some() {
            flags |= EXPIRES;
        }
        if !seats.is_empty() {
            flags |= SEATS;
        }
        if let Some(Source { is_repeat, .. }) = source {
            flags |= ORIGIN;
            if is_repeat {
                flags |= REPEAT;
            }
        }
        if !id.is_none() {
            flags |= WITH_ID;
        }
        let seat_bytes = seats.len() * SEAT_BYTES;
        self.bytes
            .reserve(57 + seat_bytes + topic.len() + properties.len() + payload.len());
        self.bytes.put_u8(flags);
        // Lengths come from packets, where they had 16 and 28 bits.
        self.bytes
            .put_u16(u16::try_from(topic.len()).unwrap_or(u16::MAX));
        self.bytes
            .put_u32(u32::try_from(properties.len()).unwrap_or(u32::MAX));
        self.bytes
            .put_u32(u32::try_from(payload.len()).unwrap_or(u32::MAX));
        if let Some(expires) = expires {
            let left = expires.saturating_duration_since(now).as_millis();
            self.bytes.put_u64(u64::try_from(left).unwrap_or(u64::MAX));
        }
        if !seats.is_empty() {
            // A message has fewer seats than the node has sessions and groups.
            self.bytes
                .put_u32(u32::try_from(seats.len()).unwrap_or(u32::MAX));
        }
        for Seat {
            share,
            session,
            hops,
        } in seats
        {
            self.bytes.put_u64(share.0);
            self.bytes.put_u32(*session);
            self.bytes.put_u8(*hops);
        }
        if let Some(Source { origin, .. }) = source {
            self.bytes.put_u64(origin.session.0);
            self.bytes.put_u16(origin.id.get());
        }
        if !id.is_none() {
            self.bytes.put_u64(id.run);
            self.bytes.put_u64(id.number);
        }
        if *retain {
            self.bytes.put_u64(retained_at);
        }
        self.bytes.put_slice(topic.as_bytes());
        self.bytes.put_slice(properties);
        self.bytes.put_slice(payload);
        self.count += 1;
    }

    /// Adds a word to a shard of another node.
    pub fn push_word(&mut self, word: &[u8], is_awaited: bool) {
        let flags = if is_awaited { WORD | AWAITED } else { WORD };
        self.bytes.put_u8(flags);
        self.bytes
            .put_u32(u32::try_from(word.len()).unwrap_or(u32::MAX));
        self.bytes.put_slice(word);
        self.count += 1;
    }

    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    pub fn finish(mut self) -> Bytes {
        self.bytes[COUNT_AT..HEADER].copy_from_slice(&self.count.to_be_bytes());
        self.bytes.freeze()
    }
}

/// Splits a frame's header off; `None` when the bytes are no frame.
pub fn read_header(frame: &mut &[u8]) -> Option<Header> {
    if frame.len() < HEADER {
        return None;
    }
    Some(Header {
        from: ShardId(frame.get_u16()),
        sequence: frame.get_u64(),
        count: frame.get_u32(),
    })
}

/// Where a message came from that must not be taken twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Source {
    pub origin: Origin,
    /// Its reader may have taken it in an earlier life.
    pub is_repeat: bool,
}

/// What a reader is to know of a message besides what it says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Mark {
    pub source: Option<Source>,
    /// When one that is retained was published, by the cluster's clock; 0 if that is not said.
    pub retained_at: u64,
}

/// What is in a frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Content<'a> {
    Message(Item),
    Word { bytes: &'a [u8], is_awaited: bool },
}

/// A message in a frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Item {
    pub message: Message,
    pub seats: Vec<Seat>,
    pub mark: Mark,
}

/// Splits the next message off, as [`read_item`].
pub fn read_message(frame: &mut &[u8], now: Instant) -> Option<(Message, Vec<Seat>)> {
    read_item(frame, now).map(|item| (item.message, item.seats))
}

/// Splits off what is next; `None` when the bytes end before it does.
pub fn read_content<'a>(frame: &mut &'a [u8], now: Instant) -> Option<Content<'a>> {
    let flags = *frame.first()?;
    if flags & QOS != WORD {
        return read_item(frame, now).map(Content::Message);
    }
    let is_awaited = flags & AWAITED != 0;
    let bytes = skip_word(frame)?;
    Some(Content::Word { bytes, is_awaited })
}

fn skip_word<'a>(frame: &mut &'a [u8]) -> Option<&'a [u8]> {
    frame.try_get_u8().ok()?;
    let length = usize::try_from(frame.try_get_u32().ok()?).ok()?;
    let (bytes, rest) = frame.split_at_checked(length)?;
    *frame = rest;
    Some(bytes)
}

/// Splits the next message off; `None` when the bytes end before it does.
pub fn read_item(frame: &mut &[u8], now: Instant) -> Option<Item> {
    let flags = frame.try_get_u8().ok()?;
    let topic = usize::from(frame.try_get_u16().ok()?);
    let properties = usize::try_from(frame.try_get_u32().ok()?).ok()?;
    let payload = usize::try_from(frame.try_get_u32().ok()?).ok()?;
    let expires = if flags & EXPIRES != 0 {
        Some(now + Duration::from_millis(frame.try_get_u64().ok()?))
    } else {
        None
    };
    let seats = if flags & SEATS != 0 {
        read_seats(frame)?
    } else {
        Vec::new()
    };
    let source = if flags & ORIGIN != 0 {
        let session = SessionId(frame.try_get_u64().ok()?);
        let id = PacketId::new(frame.try_get_u16().ok()?)?;
        Some(Source {
            origin: Origin { session, id },
            is_repeat: flags & REPEAT != 0,
        })
    } else {
        None
    };
    let id = if flags & WITH_ID != 0 {
        MessageId {
            run: frame.try_get_u64().ok()?,
            number: frame.try_get_u64().ok()?,
        }
    } else {
        MessageId::NONE
    };
    let retained_at = if flags & RETAIN != 0 {
        frame.try_get_u64().ok()?
    } else {
        0
    };
    let (topic, rest) = frame.split_at_checked(topic)?;
    let (properties, rest) = rest.split_at_checked(properties)?;
    let (payload, rest) = rest.split_at_checked(payload)?;
    *frame = rest;
    let message = Message {
        topic: std::str::from_utf8(topic).ok()?.into(),
        payload: payload.into(),
        properties: properties.into(),
        qos: Qos::from_bits(flags & QOS)?,
        retain: flags & RETAIN != 0,
        expires,
        id,
    };
    Some(Item {
        message,
        seats,
        mark: Mark {
            source,
            retained_at,
        },
    })
}

/// Whether anything behind a header is to be acknowledged.
pub fn is_awaited(mut messages: &[u8]) -> bool {
    while let Some(is_awaited) = skip_content(&mut messages) {
        if is_awaited {
            return true;
        }
    }
    false
}

/// How many messages there are behind a header.
pub fn count_messages(mut content: &[u8]) -> usize {
    let mut count = 0;
    while let Some(flags) = content.first().copied() {
        if skip_content(&mut content).is_none() {
            break;
        }
        count += usize::from(flags & QOS != WORD);
    }
    count
}

/// What comes first behind a header, if that is a word.
pub fn first_word(mut messages: &[u8]) -> Option<&[u8]> {
    let flags = messages.first()?;
    if flags & QOS == WORD {
        skip_word(&mut messages)
    } else {
        None
    }
}

/// Whether any of what is behind a header is a word.
pub fn has_words(mut messages: &[u8]) -> bool {
    while let Some(flags) = messages.first() {
        if flags & QOS == WORD {
            return true;
        }
        if skip_content(&mut messages).is_none() {
            break;
        }
    }
    false
}

/// Whether any of the messages behind a header is for members of groups, and is not to be lost.
pub fn has_seats(mut messages: &[u8]) -> bool {
    while let Some(flags) = messages.first() {
        if is_for_seats(*flags) {
            return true;
        }
        if skip_content(&mut messages).is_none() {
            break;
        }
    }
    false
}

/// What is behind a header, without those messages.
pub fn without_seats(messages: &Bytes) -> Bytes {
    if !has_seats(messages) {
        return messages.clone();
    }
    let mut others = BytesMut::new();
    let mut rest = &messages[..];
    while let Some(flags) = rest.first().copied() {
        let content = rest;
        if skip_content(&mut rest).is_none() {
            break;
        }
        let length = content.len().saturating_sub(rest.len());
        if !is_for_seats(flags) {
            others.put_slice(content.get(..length).unwrap_or_default());
        }
    }
    others.freeze()
}

fn is_for_seats(flags: u8) -> bool {
    flags & QOS != WORD && flags & QOS != Qos::AtMostOnce as u8 && flags & SEATS != 0
}

/// Whether any of the messages behind a header is for members of groups, and came from another node
/// before.
pub fn is_handed_on(mut messages: &[u8]) -> bool {
    while let Some(flags) = messages.first() {
        if flags & QOS != WORD && flags & SEATS != 0 {
            let seats = seats_of(messages).unwrap_or_default();
            if seats.iter().any(|seat| seat.hops > HANDED_ON) {
                return true;
            }
        }
        if skip_content(&mut messages).is_none() {
            break;
        }
    }
    false
}

/// The seats of the message that is next, which has some.
fn seats_of(message: &[u8]) -> Option<Vec<Seat>> {
    let expires = message.first()? & EXPIRES != 0;
    let seats = 1 + 2 + 4 + 4 + if expires { 8 } else { 0 };
    read_seats(&mut message.get(seats..)?)
}

/// Passes over what is next; the result is whether it is to be acknowledged.
fn skip_content(frame: &mut &[u8]) -> Option<bool> {
    let flags = *frame.first()?;
    if flags & QOS == WORD {
        skip_word(frame)?;
        return Some(flags & AWAITED != 0);
    }
    frame.try_get_u8().ok()?;
    let topic = usize::from(frame.try_get_u16().ok()?);
    let properties = usize::try_from(frame.try_get_u32().ok()?).ok()?;
    let payload = usize::try_from(frame.try_get_u32().ok()?).ok()?;
    if flags & EXPIRES != 0 {
        frame.try_get_u64().ok()?;
    }
    if flags & SEATS != 0 {
        read_seats(frame)?;
    }
    if flags & ORIGIN != 0 {
        frame.try_get_u64().ok()?;
        frame.try_get_u16().ok()?;
    }
    if flags & WITH_ID != 0 {
        frame.try_get_u64().ok()?;
        frame.try_get_u64().ok()?;
    }
    if flags & RETAIN != 0 {
        frame.try_get_u64().ok()?;
    }
    let length = topic.checked_add(properties)?.checked_add(payload)?;
    *frame = frame.get(length..)?;
    Some(flags & QOS != Qos::AtMostOnce as u8)
}

fn read_seats(frame: &mut &[u8]) -> Option<Vec<Seat>> {
    let count = usize::try_from(frame.try_get_u32().ok()?).ok()?;
    let (seats, rest) = frame.split_at_checked(count.checked_mul(SEAT_BYTES)?)?;
    *frame = rest;
    let seats = seats.chunks_exact(SEAT_BYTES).map(|mut seat| Seat {
        share: ShareId(seat.get_u64()),
        session: seat.get_u32(),
        hops: seat.get_u8(),
    });
    Some(seats.collect())
}
