//! The CONNECT packet: which version a client speaks, and what it asks for.

use std::{num::NonZeroU16, sync::Arc};

use bytes::{BufMut, BytesMut};
use rumqttd::protocol::{
    self, ConnectProperties, LastWill, LastWillProperties, Protocol, PublishProperties, v4::V4,
    v5::V5,
};

use super::{
    DecodeError, Frame,
    decode::from_rumqttd,
    encode::put_variable,
    packet::{Connect, Version, Will},
    properties::{Owner, check_properties, forwarded_properties},
    read_prefixed, read_variable,
};
use crate::{
    message::{Message, MessageId, Qos},
    secret::Secret,
    topic,
};

const CONNECT: u8 = 0x10;
const FLAG_RESERVED: u8 = 0x01;
const FLAG_WILL: u8 = 0x04;
const FLAG_USERNAME: u8 = 0x80;
const FLAG_PASSWORD: u8 = 0x40;

/// Tells the version of a CONNECT from its protocol name and level.
///
/// # Errors
/// [`DecodeError::Protocol`] when it is no CONNECT, [`DecodeError::UnsupportedVersion`] when it
/// names a version that this broker does not speak.
pub fn connect_version(packet: &[u8], frame: Frame) -> Result<Version, DecodeError> {
    if packet.first() != Some(&CONNECT) {
        return Err(DecodeError::Protocol);
    }
    let body = packet
        .get(frame.header..frame.total)
        .ok_or(DecodeError::Malformed)?;
    let (name, rest) = read_prefixed(body)?;
    let level = *rest.first().ok_or(DecodeError::Malformed)?;
    match (name, level) {
        (b"MQIsdp", 3) => Ok(Version::V31),
        (b"MQTT", 4) => Ok(Version::V311),
        (b"MQTT", 5) => Ok(Version::V5),
        (b"MQIsdp" | b"MQTT", _) => Err(DecodeError::UnsupportedVersion),
        _ => Err(DecodeError::Malformed),
    }
}

/// Decodes a whole CONNECT packet, which must be all of `packet`.
///
/// # Errors
/// When the packet is not legal for its version.
pub fn decode_connect(
    packet: &[u8],
    frame: Frame,
    version: Version,
) -> Result<Connect, DecodeError> {
    let body = packet
        .get(frame.header..frame.total)
        .ok_or(DecodeError::Malformed)?;
    check_flags(body, version)?;
    let (mut bytes, login) = for_rumqttd(body, version)?;
    let limit = bytes.len();
    let decoded = match version {
        Version::V31 | Version::V311 => V4.read_mut(&mut bytes, limit),
        Version::V5 => V5.read_mut(&mut bytes, limit),
    };
    let protocol::Packet::Connect(connect, properties, will, will_properties, _login) =
        decoded.map_err(from_rumqttd)?
    else {
        return Err(DecodeError::Protocol);
    };
    if connect.client_id.contains('\0') {
        return Err(DecodeError::Malformed);
    }
    assemble(
        version,
        connect,
        login,
        properties,
        will.map(|will| (will, will_properties)),
    )
}

fn assemble(
    version: Version,
    connect: protocol::Connect,
    login: Login,
    properties: Option<ConnectProperties>,
    will: Option<(LastWill, Option<LastWillProperties>)>,
) -> Result<Connect, DecodeError> {
    let protocol::Connect {
        keep_alive,
        client_id,
        clean_session,
    } = connect;
    let Login { username, password } = login;
    let mut asked = Connect {
        version,
        client_id,
        clean_start: clean_session,
        keep_alive,
        session_expiry: None,
        receive_maximum: None,
        maximum_packet: None,
        topic_aliases: 0,
        problem_information: true,
        will: will
            .map(|(will, properties)| decode_will(will, properties))
            .transpose()?,
        username,
        password,
        authentication_method: None,
    };
    if let Some(properties) = properties {
        asked.session_expiry = properties.session_expiry_interval;
        // Zero is a protocol error for both (MQTT 5, 3.1.2.11.3 and .4).
        asked.receive_maximum = properties
            .receive_maximum
            .map(|maximum| NonZeroU16::new(maximum).ok_or(DecodeError::Protocol))
            .transpose()?;
        if properties.max_packet_size == Some(0) {
            return Err(DecodeError::Protocol);
        }
        asked.maximum_packet = properties.max_packet_size;
        asked.topic_aliases = properties.topic_alias_max.unwrap_or(0);
        asked.problem_information = properties.request_problem_info != Some(0);
        // MQTT 5, 3.1.2.11.10.
        if properties.authentication_data.is_some() && properties.authentication_method.is_none() {
            return Err(DecodeError::Protocol);
        }
        asked.authentication_method = properties.authentication_method;
    }
    Ok(asked)
}

/// Refuses what rumqttd's codecs let pass in the connect flags.
fn check_flags(body: &[u8], version: Version) -> Result<(), DecodeError> {
    let (_name, rest) = read_prefixed(body)?;
    let flags = *rest.get(1).ok_or(DecodeError::Malformed)?;
    // Reserved in 3.1, where it says nothing about its value.
    if flags & FLAG_RESERVED != 0 && version != Version::V31 {
        return Err(DecodeError::Malformed);
    }
    // MQTT 3.1.1, 3.1.2.9: no password without a user name; MQTT 5 allows it.
    if flags & FLAG_PASSWORD != 0 && flags & FLAG_USERNAME == 0 && !version.is_v5() {
        return Err(DecodeError::Malformed);
    }
    Ok(())
}

/// What a client says of who it is.
#[derive(Default)]
struct Login {
    username: Option<String>,
    password: Option<Secret>,
}

/// Puts a CONNECT into the form that rumqttd's codecs read.
///
/// They know no 3.1, which differs from 3.1.1 in protocol name and level alone; and they take
/// passwords for text, which they need not be (MQTT 5, 3.1.3.6), so the password is cut off.
fn for_rumqttd(body: &[u8], version: Version) -> Result<(BytesMut, Login), DecodeError> {
    let (_name, rest) = read_prefixed(body)?;
    let ([_level, flags], rest) = rest
        .split_first_chunk::<2>()
        .ok_or(DecodeError::Malformed)?;
    let (rest, login) = split_password(*flags, rest, version)?;
    let level = if version.is_v5() { 5 } else { 4 };
    let mut bytes = BytesMut::with_capacity(rest.len() + 13);
    bytes.put_u8(CONNECT);
    put_variable(&mut bytes, 2 + "MQTT".len() + 2 + rest.len());
    bytes.put_slice(b"\x00\x04MQTT");
    bytes.put_slice(&[level, flags & !FLAG_PASSWORD]);
    bytes.put_slice(rest);
    Ok((bytes, login))
}

/// Walks over all fields behind the flags; returns them without the password, which is the last.
fn split_password(
    flags: u8,
    fields: &[u8],
    version: Version,
) -> Result<(&[u8], Login), DecodeError> {
    let (_keep_alive, mut rest) = fields.split_at_checked(2).ok_or(DecodeError::Malformed)?;
    if version.is_v5() {
        rest = skip_properties(rest, Owner::Connect)?;
    }
    (_, rest) = read_prefixed(rest)?;
    if flags & FLAG_WILL != 0 {
        if version.is_v5() {
            rest = skip_properties(rest, Owner::Will)?;
        }
        (_, rest) = read_prefixed(rest)?;
        (_, rest) = read_prefixed(rest)?;
    }
    let mut login = Login::default();
    if flags & FLAG_USERNAME != 0 {
        let (username, behind) = read_prefixed(rest)?;
        login.username = Some(read_username(username)?);
        rest = behind;
    }
    let kept = &fields[..fields.len() - rest.len()];
    if flags & FLAG_PASSWORD != 0 {
        let (password, behind) = read_prefixed(rest)?;
        login.password = Some(Secret::new(password));
        rest = behind;
    }
    if rest.is_empty() {
        Ok((kept, login))
    } else {
        Err(DecodeError::Malformed)
    }
}

fn read_username(bytes: &[u8]) -> Result<String, DecodeError> {
    match std::str::from_utf8(bytes) {
        Ok(name) if !name.contains('\0') => Ok(name.to_owned()),
        Ok(_) | Err(_) => Err(DecodeError::Malformed),
    }
}

fn skip_properties(bytes: &[u8], owner: Owner) -> Result<&[u8], DecodeError> {
    let (length, rest) = read_variable(bytes)?;
    let (block, rest) = rest
        .split_at_checked(length)
        .ok_or(DecodeError::Malformed)?;
    check_properties(block, owner)?;
    Ok(rest)
}

fn decode_will(
    will: LastWill,
    properties: Option<LastWillProperties>,
) -> Result<Will, DecodeError> {
    let LastWill {
        topic: name,
        message: payload,
        qos,
        retain,
    } = will;
    let name = std::str::from_utf8(&name).map_err(|_invalid| DecodeError::Malformed)?;
    if !topic::is_valid_name(name) {
        return Err(DecodeError::TopicName);
    }
    let mut delay = 0;
    let mut expiry = None;
    let mut forwarded = Box::default();
    if let Some(properties) = properties {
        delay = properties.delay_interval.unwrap_or(0);
        expiry = properties.message_expiry_interval;
        forwarded = forwarded_properties(PublishProperties {
            payload_format_indicator: properties.payload_format_indicator,
            response_topic: properties.response_topic,
            correlation_data: properties.correlation_data,
            user_properties: properties.user_properties,
            content_type: properties.content_type,
            ..PublishProperties::default()
        })?;
    }
    let message = Message {
        topic: name.into(),
        payload: payload[..].into(),
        properties: forwarded,
        qos: Qos::from_bits(qos as u8).ok_or(DecodeError::Malformed)?,
        retain,
        expires: None,
        id: MessageId::NONE,
    };
    Ok(Will {
        message: Arc::new(message),
        expiry,
        delay,
    })
}
