//! MQTT 5 property blocks, read and written through rumqttd's codecs.
//!
//! rumqttd reads properties only as part of a packet, and lets the last of them run on into what
//! follows. Each block is therefore put into a packet of its own that ends with it.

use std::time::{Duration, Instant};

use bytes::{BufMut, Bytes, BytesMut};
use rumqttd::protocol::{
    DisconnectProperties, Packet, Protocol, Publish, PublishProperties, v5::V5,
};

use super::{
    DecodeError, decode::from_rumqttd, encode::put_variable, packet::TopicAlias, read_prefixed,
    read_variable,
};
use crate::topic;

/// What a PUBLISH's properties mean to the broker.
#[derive(Default)]
pub(super) struct PublishParts {
    pub(super) forwarded: Box<[u8]>,
    pub(super) expires: Option<Instant>,
    pub(super) alias: Option<TopicAlias>,
}

/// Parses the property block at the start of `bytes`; what follows it is the payload.
pub(super) fn decode_publish_properties(
    bytes: &[u8],
    now: Instant,
) -> Result<(PublishParts, &[u8]), DecodeError> {
    let (length, rest) = read_variable(bytes)?;
    if length == 0 {
        return Ok((PublishParts::default(), rest));
    }
    let (block, payload) = rest
        .split_at_checked(length)
        .ok_or(DecodeError::Malformed)?;
    check_properties(block, Owner::Publish)?;
    let mut packet = BytesMut::with_capacity(block.len() + 16);
    packet.put_u8(0x30);
    let length_bytes = bytes.len() - rest.len();
    put_variable(&mut packet, 2 + length_bytes + block.len());
    packet.put_u16(0);
    packet.put_slice(&bytes[..length_bytes]);
    packet.put_slice(block);
    let limit = packet.len();
    let Packet::Publish(_empty, properties) =
        V5.read_mut(&mut packet, limit).map_err(from_rumqttd)?
    else {
        return Err(DecodeError::Malformed);
    };
    let properties = properties.unwrap_or_default();
    let alias = properties
        .topic_alias
        .map(|alias| TopicAlias::new(alias).ok_or(DecodeError::TopicAlias))
        .transpose()?;
    // Only a server sends these (MQTT 5, 3.3.4-6).
    if !properties.subscription_identifiers.is_empty() {
        return Err(DecodeError::Protocol);
    }
    let has_illegal_response = properties
        .response_topic
        .as_deref()
        .is_some_and(|response| !topic::is_valid_name(response));
    if has_illegal_response {
        return Err(DecodeError::Protocol);
    }
    let expires = properties
        .message_expiry_interval
        .map(|seconds| now + Duration::from_secs(u64::from(seconds)));
    let parts = PublishParts {
        forwarded: forwarded_properties(properties)?,
        expires,
        alias,
    };
    Ok((parts, payload))
}

/// Encodes the properties that every subscriber gets as the publisher gave them.
pub(super) fn forwarded_properties(
    properties: PublishProperties,
) -> Result<Box<[u8]>, DecodeError> {
    let properties = PublishProperties {
        message_expiry_interval: None,
        topic_alias: None,
        subscription_identifiers: Vec::new(),
        ..properties
    };
    if properties == PublishProperties::default() {
        return Ok(Box::default());
    }
    let empty = Publish::new(Bytes::new(), Bytes::new(), false);
    let mut encoded = BytesMut::new();
    V5.write(Packet::Publish(empty, Some(properties)), &mut encoded)
        .map_err(from_rumqttd)?;
    let (_length, body) = read_variable(&encoded[1..])?;
    let (_topic, rest) = read_prefixed(body)?;
    let (_length, block) = read_variable(rest)?;
    Ok(block.into())
}

const SUBSCRIPTION_IDENTIFIER: u8 = 0x0b;
const USER_PROPERTY: u8 = 0x26;

/// Whose properties a block has; a client's packets and its will.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Owner {
    Connect,
    Will,
    Publish,
    Ack,
    Subscribe,
    Unsubscribe,
    Disconnect,
}

impl Owner {
    /// What it may have (MQTT 5, table 2-4), beside user properties.
    fn may_have(self, id: u8) -> bool {
        let allowed: &[u8] = match self {
            Self::Connect => &[0x11, 0x15, 0x16, 0x17, 0x19, 0x21, 0x22, 0x27],
            Self::Will => &[0x01, 0x02, 0x03, 0x08, 0x09, 0x18],
            Self::Publish => &[0x01, 0x02, 0x03, 0x08, 0x09, SUBSCRIPTION_IDENTIFIER, 0x23],
            Self::Ack => &[0x1f],
            Self::Subscribe => &[SUBSCRIPTION_IDENTIFIER],
            Self::Unsubscribe => &[],
            Self::Disconnect => &[0x11, 0x1f],
        };
        id == USER_PROPERTY || allowed.contains(&id)
    }
}

/// Checks that a block ends with its last property, that each is one which its owner may have, and
/// that none but user properties is there twice (MQTT 5, 2.2.2.2).
pub(super) fn check_properties(block: &[u8], owner: Owner) -> Result<(), DecodeError> {
    let mut seen = 0_u64;
    let mut rest = block;
    while let Some((id, behind)) = rest.split_first() {
        if !owner.may_have(*id) {
            return Err(DecodeError::Malformed);
        }
        rest = skip_value(*id, behind)?;
        // All identifiers that anyone may have are below 64.
        let bit = 1_u64.wrapping_shl(u32::from(*id));
        if seen & bit != 0 && *id != USER_PROPERTY {
            return Err(DecodeError::Protocol);
        }
        seen |= bit;
    }
    Ok(())
}

/// Splits a property's value off, which is as long as its kind says (MQTT 5, 2.2.2.2).
fn skip_value(id: u8, bytes: &[u8]) -> Result<&[u8], DecodeError> {
    let fixed = |length| bytes.get(length..).ok_or(DecodeError::Malformed);
    match id {
        // Payload format, request problem and request response information: no or yes.
        0x01 | 0x17 | 0x19 => match bytes.split_first() {
            Some((0 | 1, rest)) => Ok(rest),
            Some(_other) => Err(DecodeError::Protocol),
            None => Err(DecodeError::Malformed),
        },
        0x21..=0x23 => fixed(2),
        0x02 | 0x11 | 0x18 | 0x27 => fixed(4),
        SUBSCRIPTION_IDENTIFIER => Ok(read_variable(bytes)?.1),
        // Binary.
        0x09 | 0x16 => Ok(read_prefixed(bytes)?.1),
        0x03 | 0x08 | 0x15 | 0x1f => skip_string(bytes),
        USER_PROPERTY => skip_string(skip_string(bytes)?),
        _ => Err(DecodeError::Malformed),
    }
}

/// Splits a string off, which holds anything but NUL (MQTT 5, 1.5.4).
fn skip_string(bytes: &[u8]) -> Result<&[u8], DecodeError> {
    let (string, rest) = read_prefixed(bytes)?;
    match std::str::from_utf8(string) {
        Ok(text) if !text.contains('\0') => Ok(rest),
        Ok(_) | Err(_) => Err(DecodeError::Malformed),
    }
}

/// Checks a block that is the end of its packet.
pub(super) fn check_property_length(bytes: &[u8], owner: Owner) -> Result<(), DecodeError> {
    if bytes.is_empty() {
        return Ok(());
    }
    let (length, block) = read_variable(bytes)?;
    if length != block.len() {
        return Err(DecodeError::Malformed);
    }
    check_properties(block, owner)
}

/// Reads the block of a DISCONNECT whatever its reason code; rumqttd refuses some legal ones.
pub(super) fn disconnect_properties(
    block: &[u8],
) -> Result<Option<DisconnectProperties>, DecodeError> {
    let mut packet = BytesMut::with_capacity(block.len() + 6);
    packet.put_u8(0xE0);
    put_variable(&mut packet, 1 + block.len());
    packet.put_u8(0);
    packet.put_slice(block);
    let limit = packet.len();
    match V5.read_mut(&mut packet, limit).map_err(from_rumqttd)? {
        Packet::Disconnect(_reason, properties) => Ok(properties),
        Packet::Connect(..)
        | Packet::ConnAck(..)
        | Packet::Publish(..)
        | Packet::PubAck(..)
        | Packet::PingReq(..)
        | Packet::PingResp(..)
        | Packet::Subscribe(..)
        | Packet::SubAck(..)
        | Packet::PubRec(..)
        | Packet::PubRel(..)
        | Packet::PubComp(..)
        | Packet::Unsubscribe(..)
        | Packet::UnsubAck(..) => Err(DecodeError::Malformed),
    }
}
