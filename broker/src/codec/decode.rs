//! Packets that a client sends after its CONNECT.

use std::time::Instant;

use bytes::BytesMut;
use rumqttd::protocol::{self, Packet, Protocol, RetainForwardRule, v4::V4, v5::V5};

use super::{
    DecodeError, Frame,
    filters::{self, Kind},
    packet::{
        Ack, AckKind, ClientPacket, PacketId, RetainHandling, Subscribe, SubscribeFilter, Version,
    },
    properties::{
        Owner, PublishParts, check_property_length, decode_publish_properties,
        disconnect_properties,
    },
    read_prefixed,
};
use crate::{
    message::{Message, MessageId, Qos},
    topic,
};

/// Decodes the packet that `frame` found at the start of `packet`.
///
/// # Errors
/// When the packet is not legal for the version; the connection must then be closed.
pub fn decode(
    packet: &[u8],
    frame: Frame,
    version: Version,
    now: Instant,
) -> Result<ClientPacket, DecodeError> {
    let packet = packet.get(..frame.total).ok_or(DecodeError::Malformed)?;
    let first = *packet.first().ok_or(DecodeError::Malformed)?;
    let body = &packet[frame.header..];
    // The low four bits are fixed for all packets but PUBLISH (MQTT 5, 2.1.3).
    match (first >> 4, first & 0x0f) {
        (3, flags) => decode_publish(body, flags, version, now),
        (4, 0) => decode_ack(AckKind::PubAck, body, version),
        (5, 0) => decode_ack(AckKind::PubRec, body, version),
        (6, 2) => decode_ack(AckKind::PubRel, body, version),
        (7, 0) => decode_ack(AckKind::PubComp, body, version),
        (8, 2) => decode_filters(packet, body, Kind::Subscribe, version),
        (10, 2) => decode_filters(packet, body, Kind::Unsubscribe, version),
        (12, 0) if body.is_empty() => Ok(ClientPacket::PingReq),
        (14, 0) => decode_disconnect(body, version),
        // A second CONNECT, AUTH without a method, and what only servers send.
        (1 | 2 | 9 | 11 | 13, _) | (15, 0) => Err(DecodeError::Protocol),
        _ => Err(DecodeError::Malformed),
    }
}

fn decode_publish(
    body: &[u8],
    flags: u8,
    version: Version,
    now: Instant,
) -> Result<ClientPacket, DecodeError> {
    let qos = Qos::from_bits((flags >> 1) & 0b11).ok_or(DecodeError::Malformed)?;
    let dup = flags & 0b1000 != 0;
    // MQTT 3.1.1, 3.3.1-2; 3.1 leaves it open.
    if dup && qos == Qos::AtMostOnce && version != Version::V31 {
        return Err(DecodeError::Malformed);
    }
    let (name, rest) = read_prefixed(body)?;
    let name = std::str::from_utf8(name).map_err(|_invalid| DecodeError::Malformed)?;
    let (id, rest) = match qos {
        Qos::AtMostOnce => (None, rest),
        Qos::AtLeastOnce | Qos::ExactlyOnce => {
            let (id, rest) = read_packet_id(rest)?;
            (Some(id), rest)
        }
    };
    let (properties, payload) = match version {
        Version::V31 | Version::V311 => (PublishParts::default(), rest),
        Version::V5 => decode_publish_properties(rest, now)?,
    };
    match properties.alias {
        // The alias tells the topic.
        Some(_alias) if name.is_empty() => {}
        // MQTT 5, 3.3.2.1.
        None if name.is_empty() && version.is_v5() => return Err(DecodeError::Protocol),
        _ if topic::is_valid_name(name) => {}
        _ => return Err(DecodeError::TopicName),
    }
    let message = Message {
        topic: name.into(),
        payload: payload.into(),
        properties: properties.forwarded,
        qos,
        retain: flags & 1 != 0,
        expires: properties.expires,
        id: MessageId::NONE,
    };
    Ok(ClientPacket::Publish {
        id,
        alias: properties.alias,
        message,
    })
}

fn decode_ack(kind: AckKind, body: &[u8], version: Version) -> Result<ClientPacket, DecodeError> {
    let (id, rest) = read_packet_id(body)?;
    let reason = match (version, rest) {
        (_, []) => 0,
        (Version::V31 | Version::V311, _) => return Err(DecodeError::Malformed),
        // Reason string and user properties are diagnostics; their length must still fit.
        (Version::V5, [reason, properties @ ..]) => {
            check_property_length(properties, Owner::Ack)?;
            *reason
        }
    };
    Ok(ClientPacket::Ack(Ack { kind, id, reason }))
}

fn decode_filters(
    packet: &[u8],
    body: &[u8],
    kind: Kind,
    version: Version,
) -> Result<ClientPacket, DecodeError> {
    filters::check(body, kind, version)?;
    let mut bytes = BytesMut::from(packet);
    let limit = bytes.len();
    let decoded = match version {
        Version::V31 | Version::V311 => V4.read_mut(&mut bytes, limit),
        Version::V5 => V5.read_mut(&mut bytes, limit),
    };
    match decoded.map_err(from_rumqttd)? {
        Packet::Subscribe(subscribe, properties) => {
            let subscription_id = properties
                .and_then(|properties| properties.id)
                .map(|id| u32::try_from(id).map_err(|_wide| DecodeError::Protocol))
                .transpose()?;
            // Zero is not a subscription identifier (MQTT 5, 3.8.2.1.2).
            if subscription_id == Some(0) {
                return Err(DecodeError::Protocol);
            }
            let id = PacketId::new(subscribe.pkid).ok_or(DecodeError::Protocol)?;
            let filters = subscribe
                .filters
                .into_iter()
                .map(subscribe_filter)
                .collect::<Result<_, _>>()?;
            Ok(ClientPacket::Subscribe(Subscribe {
                id,
                subscription_id,
                filters,
            }))
        }
        Packet::Unsubscribe(unsubscribe, _properties) => {
            let id = PacketId::new(unsubscribe.pkid).ok_or(DecodeError::Protocol)?;
            if unsubscribe.filters.is_empty() {
                return Err(DecodeError::Protocol);
            }
            Ok(ClientPacket::Unsubscribe {
                id,
                filters: unsubscribe.filters,
            })
        }
        Packet::Connect(..)
        | Packet::ConnAck(..)
        | Packet::Publish(..)
        | Packet::PubAck(..)
        | Packet::PingReq(..)
        | Packet::PingResp(..)
        | Packet::SubAck(..)
        | Packet::PubRec(..)
        | Packet::PubRel(..)
        | Packet::PubComp(..)
        | Packet::UnsubAck(..)
        | Packet::Disconnect(..) => Err(DecodeError::Malformed),
    }
}

fn subscribe_filter(filter: protocol::Filter) -> Result<SubscribeFilter, DecodeError> {
    let protocol::Filter {
        path,
        qos,
        nolocal,
        preserve_retain,
        retain_forward_rule,
    } = filter;
    Ok(SubscribeFilter {
        filter: path,
        qos: Qos::from_bits(qos as u8).ok_or(DecodeError::Malformed)?,
        no_local: nolocal,
        retain_as_published: preserve_retain,
        retain_handling: match retain_forward_rule {
            RetainForwardRule::OnEverySubscribe => RetainHandling::Always,
            RetainForwardRule::OnNewSubscribe => RetainHandling::IfNew,
            RetainForwardRule::Never => RetainHandling::Never,
        },
    })
}

fn decode_disconnect(body: &[u8], version: Version) -> Result<ClientPacket, DecodeError> {
    match (version, body) {
        (_, []) => Ok(ClientPacket::Disconnect {
            reason: 0,
            session_expiry: None,
        }),
        (Version::V31 | Version::V311, _) => Err(DecodeError::Malformed),
        // rumqttd takes a missing property length for a packet that is not complete.
        (Version::V5, [reason]) => Ok(ClientPacket::Disconnect {
            reason: *reason,
            session_expiry: None,
        }),
        (Version::V5, [reason, properties @ ..]) => {
            check_property_length(properties, Owner::Disconnect)?;
            let session_expiry = disconnect_properties(properties)?
                .and_then(|properties| properties.session_expiry_interval);
            Ok(ClientPacket::Disconnect {
                reason: *reason,
                session_expiry,
            })
        }
    }
}

fn read_packet_id(bytes: &[u8]) -> Result<(PacketId, &[u8]), DecodeError> {
    let (id, rest) = bytes
        .split_first_chunk::<2>()
        .ok_or(DecodeError::Malformed)?;
    let id = PacketId::new(u16::from_be_bytes(*id)).ok_or(DecodeError::Protocol)?;
    Ok((id, rest))
}

/// The frame was whole, so every complaint of rumqttd's is about its content.
pub(super) fn from_rumqttd(error: protocol::Error) -> DecodeError {
    match error {
        protocol::Error::PacketIdZero
        | protocol::Error::EmptySubscription
        | protocol::Error::SubscriptionIdZero
        | protocol::Error::InvalidPropertyType(_) => DecodeError::Protocol,
        protocol::Error::InvalidProtocolLevel(_) => DecodeError::UnsupportedVersion,
        protocol::Error::InvalidConnectReturnCode(_)
        | protocol::Error::InvalidReason(_)
        | protocol::Error::InvalidRemainingLength(_)
        | protocol::Error::InvalidProtocol
        | protocol::Error::IncorrectPacketFormat
        | protocol::Error::InvalidPacketType(_)
        | protocol::Error::InvalidRetainForwardRule(_)
        | protocol::Error::InvalidQoS(_)
        | protocol::Error::InvalidSubscribeReasonCode(_)
        | protocol::Error::PayloadSizeIncorrect
        | protocol::Error::PayloadTooLong
        | protocol::Error::PayloadSizeLimitExceeded(_)
        | protocol::Error::PayloadRequired
        | protocol::Error::PayloadNotUtf8(_)
        | protocol::Error::TopicNotUtf8
        | protocol::Error::BoundaryCrossed(_)
        | protocol::Error::MalformedPacket
        | protocol::Error::MalformedRemainingLength
        | protocol::Error::InsufficientBytes(_) => DecodeError::Malformed,
    }
}
