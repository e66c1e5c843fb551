//! The bytes of what is stored.
//!
//! ```text
//! session       flags u8 | client str | [user str] | [grants] | [connected u64 | begun u64]
//!               | expiry ms u64 | [ends u64] | [will due u64] | [delay u32 | [expiry u32] | message]
//! flags         bit 0 id assigned, 1 user, 2 ends, 3 will due, 4 will, 5 will expires, 6 grants,
//!               7 since when it is as it is, by the cluster's clock
//! grants        filters to publish to, then to subscribe to: count u16 | filter str ...
//! subscription  flags u8 | [id u32]            bits 0-1 QoS, 2 no local, 3 as published, 4 id
//! message       flags u8 | [expires u64] | [run u64 | number u64] | topic str
//!               | properties u32 ... | payload, to the end
//! flags         bits 0-1 QoS, 2 retain, 3 expires, 4 with an id
//! entry         progress u8 | packet id u16 | body u64 | flags u8 | ids u16 | id u32 ...
//!               | [group str | filter str]     bits 0-1 QoS, 2 retain, 3 shared
//! received      0 while not all shards may have it, 2 if these are others by now, then 1
//! retained      since u64 | [at u64] | [message]    bit 63 of since: at, by the cluster's clock, and
//!                                                    no message if it was deleted then; since
//!                                                    is 1 then if that was meant
//! str           length u16 | UTF-8
//! ```
//!
//! Times are milliseconds since 1970. [`FORMAT`] numbers all of this.

use std::{sync::Arc, time::Duration};

use bytes::{Buf, BufMut};

use super::clock::{Clock, millis};
use crate::{
    access::Grants,
    codec::packet::{PacketId, Will},
    message::{Message, MessageId, Qos},
    retained::{Cause, Deletion},
    session::{
        Grant, Subscription,
        journal::{Profile, Progress, Since, Spread, State},
    },
};

/// What this version writes. The first had no grants, times and ids of messages, the second no times of
/// what is retained; both are read too.
pub(super) const FORMAT: u32 = 3;

const ASSIGNED: u8 = 1;
const USER: u8 = 1 << 1;
const ENDS: u8 = 1 << 2;
const WILL_DUE: u8 = 1 << 3;
const WILL: u8 = 1 << 4;
const WILL_EXPIRES: u8 = 1 << 5;
const GRANTS: u8 = 1 << 6;
const SINCE: u8 = 1 << 7;

const QOS: u8 = 0b11;
const NO_LOCAL: u8 = 1 << 2;
const AS_PUBLISHED: u8 = 1 << 3;
const WITH_ID: u8 = 1 << 4;

const RETAIN: u8 = 1 << 2;
const EXPIRES: u8 = 1 << 3;
const WITH_MESSAGE_ID: u8 = 1 << 4;
const SHARED: u8 = 1 << 3;

/// Where a message's bytes are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct BodyId(pub(super) u64);

/// A group and its filter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Share {
    pub(super) group: Box<str>,
    pub(super) filter: Box<str>,
}

/// One message of one session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) progress: Progress,
    /// Not there if the client has it.
    pub(super) content: Option<Content>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Content {
    pub(super) body: BodyId,
    /// Without its group, whose number is another in each process.
    pub(super) grant: Grant,
    pub(super) share: Option<Share>,
}

pub(crate) fn put_str(text: &str, out: &mut Vec<u8>) {
    // All strings come from packets, where their length has 16 bits, or are no longer than those.
    out.put_u16(u16::try_from(text.len()).unwrap_or(u16::MAX));
    out.put_slice(text.as_bytes());
}

pub(crate) fn get_str<'a>(bytes: &mut &'a [u8]) -> Option<&'a str> {
    let length = usize::from(bytes.try_get_u16().ok()?);
    let (text, rest) = bytes.split_at_checked(length)?;
    *bytes = rest;
    std::str::from_utf8(text).ok()
}

fn get_strs<'a>(bytes: &mut &'a [u8]) -> Option<Vec<&'a str>> {
    let count = bytes.try_get_u16().ok()?;
    (0..count).map(|_number| get_str(bytes)).collect()
}

fn flag(is_set: bool, bit: u8) -> u8 {
    if is_set { bit } else { 0 }
}

pub(crate) fn encode_state(state: &State, clock: Clock) -> Vec<u8> {
    let State {
        profile,
        expiry,
        ends,
        will,
        will_due,
    } = state;
    let Profile {
        client_id,
        user,
        is_assigned,
        grants,
        since,
    } = &**profile;
    let Since { connected, begun } = *since;
    let has_since = *since != Since::default();
    let will_expiry = will.as_ref().and_then(|will| will.expiry);
    let flags = flag(*is_assigned, ASSIGNED)
        | flag(user.is_some(), USER)
        | flag(ends.is_some(), ENDS)
        | flag(will_due.is_some(), WILL_DUE)
        | flag(will.is_some(), WILL)
        | flag(will_expiry.is_some(), WILL_EXPIRES)
        | flag(grants.is_some(), GRANTS)
        | flag(has_since, SINCE);
    let mut out = vec![flags];
    put_str(client_id, &mut out);
    if let Some(user) = user {
        put_str(user, &mut out);
    }
    for filters in grants.iter().flat_map(|grants| grants.filters()) {
        // There are a few, and no login has more.
        out.put_u16(u16::try_from(filters.len()).unwrap_or(u16::MAX));
        filters.iter().for_each(|filter| put_str(filter, &mut out));
    }
    if has_since {
        out.put_u64(connected);
        out.put_u64(begun);
    }
    out.put_u64(millis(*expiry));
    for due in [ends, will_due].into_iter().flatten() {
        out.put_u64(clock.to_wall(*due));
    }
    if let Some(will) = will {
        out.put_u32(will.delay);
        if let Some(seconds) = will_expiry {
            out.put_u32(seconds);
        }
        put_message(&will.message, clock, &mut out);
    }
    out
}

pub(crate) fn decode_state(mut bytes: &[u8], clock: Clock) -> Option<State> {
    let flags = bytes.try_get_u8().ok()?;
    let has = |bit| flags & bit != 0;
    let client_id = get_str(&mut bytes)?.into();
    let user = if has(USER) {
        Some(get_str(&mut bytes)?.into())
    } else {
        None
    };
    let grants = if has(GRANTS) {
        let (publish, subscribe) = (get_strs(&mut bytes)?, get_strs(&mut bytes)?);
        Some(Arc::new(Grants::of_filters(&publish, &subscribe)?))
    } else {
        None
    };
    let since = if has(SINCE) {
        Since {
            connected: bytes.try_get_u64().ok()?,
            begun: bytes.try_get_u64().ok()?,
        }
    } else {
        Since::default()
    };
    let profile = Profile {
        client_id,
        user,
        is_assigned: has(ASSIGNED),
        grants,
        since,
    };
    let expiry = Duration::from_millis(bytes.try_get_u64().ok()?);
    let mut due = |bit| {
        if has(bit) {
            let wall = bytes.try_get_u64().ok()?;
            Some(Some(clock.to_instant(wall)))
        } else {
            Some(None)
        }
    };
    let (ends, will_due) = (due(ENDS)?, due(WILL_DUE)?);
    let will = if has(WILL) {
        let delay = bytes.try_get_u32().ok()?;
        let expiry = if has(WILL_EXPIRES) {
            Some(bytes.try_get_u32().ok()?)
        } else {
            None
        };
        let message = Arc::new(decode_message(bytes, clock)?);
        Some(Will {
            message,
            expiry,
            delay,
        })
    } else {
        None
    };
    Some(State {
        profile: Arc::new(profile),
        expiry,
        ends,
        will,
        will_due,
    })
}

pub(crate) fn encode_subscription(subscription: &Subscription) -> Vec<u8> {
    let Subscription {
        qos,
        no_local,
        retain_as_published,
        id,
    } = subscription;
    let flags = *qos as u8
        | flag(*no_local, NO_LOCAL)
        | flag(*retain_as_published, AS_PUBLISHED)
        | flag(id.is_some(), WITH_ID);
    let mut out = vec![flags];
    if let Some(id) = id {
        out.put_u32(*id);
    }
    out
}

pub(crate) fn decode_subscription(mut bytes: &[u8]) -> Option<Subscription> {
    let flags = bytes.try_get_u8().ok()?;
    let id = if flags & WITH_ID != 0 {
        Some(bytes.try_get_u32().ok()?)
    } else {
        None
    };
    Some(Subscription {
        qos: Qos::from_bits(flags & QOS)?,
        no_local: flags & NO_LOCAL != 0,
        retain_as_published: flags & AS_PUBLISHED != 0,
        id,
    })
}

pub(crate) fn encode_message(message: &Message, clock: Clock) -> Vec<u8> {
    let mut out = Vec::with_capacity(message.topic.len() + message.payload.len() + 32);
    put_message(message, clock, &mut out);
    out
}

fn put_message(message: &Message, clock: Clock, out: &mut Vec<u8>) {
    let Message {
        topic,
        payload,
        properties,
        qos,
        retain,
        expires,
        id,
    } = message;
    let flags = *qos as u8
        | flag(*retain, RETAIN)
        | flag(expires.is_some(), EXPIRES)
        | flag(!id.is_none(), WITH_MESSAGE_ID);
    out.put_u8(flags);
    if let Some(expires) = expires {
        out.put_u64(clock.to_wall(*expires));
    }
    if !id.is_none() {
        out.put_u64(id.run);
        out.put_u64(id.number);
    }
    put_str(topic, out);
    // The length of a packet has 28 bits.
    out.put_u32(u32::try_from(properties.len()).unwrap_or(u32::MAX));
    out.put_slice(properties);
    out.put_slice(payload);
}

pub(crate) fn decode_message(mut bytes: &[u8], clock: Clock) -> Option<Message> {
    let flags = bytes.try_get_u8().ok()?;
    let expires = if flags & EXPIRES != 0 {
        Some(clock.to_instant(bytes.try_get_u64().ok()?))
    } else {
        None
    };
    let id = if flags & WITH_MESSAGE_ID != 0 {
        MessageId {
            run: bytes.try_get_u64().ok()?,
            number: bytes.try_get_u64().ok()?,
        }
    } else {
        MessageId::NONE
    };
    let topic = get_str(&mut bytes)?.into();
    let properties = usize::try_from(bytes.try_get_u32().ok()?).ok()?;
    let (properties, payload) = bytes.split_at_checked(properties)?;
    Some(Message {
        topic,
        payload: payload.into(),
        properties: properties.into(),
        qos: Qos::from_bits(flags & QOS)?,
        retain: flags & RETAIN != 0,
        expires,
        id,
    })
}

pub(super) fn encode_entry(entry: &Entry) -> Vec<u8> {
    let Entry { progress, content } = entry;
    let (progress, id) = match progress {
        Progress::Waiting => (0, 0),
        Progress::Published(id) => (1, id.get()),
        Progress::Released(id) => (2, id.get()),
    };
    let mut out = Vec::with_capacity(24);
    out.put_u8(progress);
    out.put_u16(id);
    let Some(Content { body, grant, share }) = content else {
        return out;
    };
    let Grant {
        qos,
        retain,
        subscription_ids,
        share: _,
    } = grant;
    out.put_u64(body.0);
    out.put_u8(*qos as u8 | flag(*retain, RETAIN) | flag(share.is_some(), SHARED));
    // A session has fewer subscriptions than that with filters of one topic.
    let ids = u16::try_from(subscription_ids.len()).unwrap_or(u16::MAX);
    out.put_u16(ids);
    for id in subscription_ids.iter().take(usize::from(ids)) {
        out.put_u32(*id);
    }
    if let Some(Share { group, filter }) = share {
        put_str(group, &mut out);
        put_str(filter, &mut out);
    }
    out
}

pub(super) fn decode_entry(mut bytes: &[u8]) -> Option<Entry> {
    let progress = bytes.try_get_u8().ok()?;
    let id = PacketId::new(bytes.try_get_u16().ok()?);
    let progress = match progress {
        0 => Progress::Waiting,
        1 => Progress::Published(id?),
        2 => Progress::Released(id?),
        _ => return None,
    };
    if bytes.is_empty() {
        let content = None;
        let has_content = !matches!(progress, Progress::Released(_));
        return (!has_content).then_some(Entry { progress, content });
    }
    let body = BodyId(bytes.try_get_u64().ok()?);
    let flags = bytes.try_get_u8().ok()?;
    let ids = bytes.try_get_u16().ok()?;
    let mut subscription_ids = Vec::new();
    for _ in 0..ids {
        subscription_ids.push(bytes.try_get_u32().ok()?);
    }
    let share = if flags & SHARED != 0 {
        let group = get_str(&mut bytes)?.into();
        let filter = get_str(&mut bytes)?.into();
        Some(Share { group, filter })
    } else {
        None
    };
    let grant = Grant {
        qos: Qos::from_bits(flags & QOS)?,
        retain: flags & RETAIN != 0,
        subscription_ids,
        share: None,
    };
    let content = Some(Content { body, grant, share });
    Some(Entry { progress, content })
}

pub(crate) fn encode_spread(spread: Spread) -> Vec<u8> {
    vec![match spread {
        Spread::Begun => 0,
        Spread::Done => 1,
        Spread::Unplaced => 2,
    }]
}

pub(crate) fn decode_spread(bytes: &[u8]) -> Option<Spread> {
    match bytes {
        [0] => Some(Spread::Begun),
        [1] => Some(Spread::Done),
        [2] => Some(Spread::Unplaced),
        _ => None,
    }
}

/// With [`Retained::at`].
const DATED: u64 = 1 << 63;

/// In place of a time, of what was deleted on purpose.
const MEANT: u64 = 1;

/// What is stored of a topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Retained {
    /// Since when it is so.
    pub(super) since: u64,
    /// The same by the cluster's clock; 0 without one.
    pub(super) at: u64,
    /// `None` when it was deleted, and older ones do not count.
    pub(super) message: Option<Message>,
}

impl Retained {
    /// Of a row without a message.
    pub(super) fn deletion(&self) -> Deletion {
        let cause = if self.since == MEANT {
            Cause::Meant
        } else {
            Cause::Passing
        };
        Deletion { at: self.at, cause }
    }
}

pub(super) fn encode_retained(message: &Message, since: u64, at: u64, clock: Clock) -> Vec<u8> {
    let mut out = Vec::with_capacity(message.topic.len() + message.payload.len() + 48);
    if at == 0 {
        out.put_u64(since & !DATED);
    } else {
        out.put_u64(since | DATED);
        out.put_u64(at);
    }
    put_message(message, clock, &mut out);
    out
}

pub(super) fn encode_deleted(deletion: Deletion) -> Vec<u8> {
    let Deletion { at, cause } = deletion;
    let meant = match cause {
        Cause::Meant => MEANT,
        Cause::Passing => 0,
    };
    [(DATED | meant).to_be_bytes(), at.to_be_bytes()].concat()
}

pub(super) fn decode_retained(mut bytes: &[u8], clock: Clock) -> Option<Retained> {
    let since = bytes.try_get_u64().ok()?;
    let is_dated = since & DATED != 0;
    let at = if is_dated {
        bytes.try_get_u64().ok()?
    } else {
        0
    };
    let message = if is_dated && bytes.is_empty() {
        None
    } else {
        Some(decode_message(bytes, clock)?)
    };
    Some(Retained {
        since: since & !DATED,
        at,
        message,
    })
}

#[cfg(test)]
mod tests;
