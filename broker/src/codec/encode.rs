//! Packets that the broker sends, appended to a connection's output buffer.

use std::time::Instant;

use bytes::{BufMut, BytesMut};
use rumqttd::protocol::{
    self, ConnAckProperties, ConnectReturnCode, Packet, Protocol, v4::V4, v5::V5,
};

use super::packet::{
    Ack, AckKind, ConnAck, ConnectCode, Delivery, Naming, PacketId, TopicAlias, Version, Words,
    reason,
};
use crate::message::Message;

const SUBSCRIPTION_IDENTIFIER: u8 = 11;
const MESSAGE_EXPIRY: u8 = 2;
const SERVER_REFERENCE: u8 = 0x1c;
const REASON_STRING: u8 = 0x1f;

/// What a property that is a text takes beside it: identifier and length.
const TEXT_BYTES: usize = 3;

const TOPIC_ALIAS: u8 = 0x23;

/// Appends a CONNACK; a refusal may say why in words.
pub fn encode_connack(connack: ConnAck, words: Words, version: Version, out: &mut BytesMut) {
    let ConnAck {
        session_present,
        code,
        session_expiry,
        receive_maximum,
        maximum_packet,
        topic_aliases,
        keep_alive,
        assigned_client_id,
        servers,
    } = connack;
    let accepted = code == ConnectCode::Accepted;
    // 3.1 has no session-present flag: that byte is reserved.
    let session_present = session_present && version != Version::V31;
    let packet = |code, properties| {
        Packet::ConnAck(
            protocol::ConnAck {
                session_present,
                code,
            },
            properties,
        )
    };
    let result = match version {
        Version::V31 | Version::V311 => V4.write(packet(v3_code(code), None), out),
        Version::V5 => {
            let properties = if accepted {
                Some(ConnAckProperties {
                    session_expiry_interval: session_expiry,
                    receive_max: receive_maximum,
                    max_packet_size: maximum_packet,
                    topic_alias_max: (topic_aliases > 0).then_some(topic_aliases),
                    server_keep_alive: keep_alive,
                    assigned_client_identifier: assigned_client_id,
                    ..ConnAckProperties::default()
                })
            } else {
                // Flags and code.
                let [servers, text] = words.both(servers.as_deref(), Some(code.text()), 2);
                (servers.is_some() || text.is_some()).then(|| ConnAckProperties {
                    server_reference: servers.map(str::to_owned),
                    reason_string: text.map(str::to_owned),
                    ..ConnAckProperties::default()
                })
            };
            V5.write(packet(v5_code(code), properties), out)
        }
    };
    // Only a packet above 256 MB fails, and this one is below 70 KB.
    debug_assert!(result.is_ok(), "a CONNACK always fits");
}

/// MQTT 3 knows five refusals; what has no number there is closed after "unavailable".
fn v3_code(code: ConnectCode) -> ConnectReturnCode {
    match code {
        ConnectCode::Accepted => ConnectReturnCode::Success,
        ConnectCode::UnsupportedVersion => ConnectReturnCode::RefusedProtocolVersion,
        ConnectCode::ClientIdInvalid => ConnectReturnCode::ClientIdentifierNotValid,
        ConnectCode::BadCredentials => ConnectReturnCode::BadUserNamePassword,
        ConnectCode::NotAuthorized => ConnectReturnCode::NotAuthorized,
        ConnectCode::ServerUnavailable
        | ConnectCode::QuotaExceeded
        | ConnectCode::MalformedPacket
        | ConnectCode::ProtocolError
        | ConnectCode::BadAuthenticationMethod
        | ConnectCode::TopicNameInvalid
        | ConnectCode::PacketTooLarge
        | ConnectCode::RateExceeded
        | ConnectCode::ServerBusy
        | ConnectCode::UseAnotherServer
        | ConnectCode::ServerMoved => ConnectReturnCode::ServiceUnavailable,
    }
}

fn v5_code(code: ConnectCode) -> ConnectReturnCode {
    match code {
        ConnectCode::Accepted => ConnectReturnCode::Success,
        ConnectCode::UnsupportedVersion => ConnectReturnCode::UnsupportedProtocolVersion,
        ConnectCode::ClientIdInvalid => ConnectReturnCode::ClientIdentifierNotValid,
        ConnectCode::BadCredentials => ConnectReturnCode::BadUserNamePassword,
        ConnectCode::NotAuthorized => ConnectReturnCode::NotAuthorized,
        ConnectCode::ServerUnavailable => ConnectReturnCode::ServerUnavailable,
        ConnectCode::QuotaExceeded => ConnectReturnCode::QuotaExceeded,
        ConnectCode::MalformedPacket => ConnectReturnCode::MalformedPacket,
        ConnectCode::ProtocolError => ConnectReturnCode::ProtocolError,
        ConnectCode::BadAuthenticationMethod => ConnectReturnCode::BadAuthenticationMethod,
        ConnectCode::TopicNameInvalid => ConnectReturnCode::TopicNameInvalid,
        ConnectCode::PacketTooLarge => ConnectReturnCode::PacketTooLarge,
        ConnectCode::RateExceeded => ConnectReturnCode::ConnectionRateExceeded,
        ConnectCode::ServerBusy => ConnectReturnCode::ServerBusy,
        ConnectCode::UseAnotherServer => ConnectReturnCode::UseAnotherServer,
        ConnectCode::ServerMoved => ConnectReturnCode::ServerMoved,
    }
}

/// The length that [`encode_delivery`] appends.
pub fn delivery_len(delivery: &Delivery, naming: Naming, version: Version) -> usize {
    let body = delivery_body_len(delivery, naming, version);
    1 + variable_len(body) + body
}

fn delivery_body_len(delivery: &Delivery, naming: Naming, version: Version) -> usize {
    let id = if delivery.id.is_some() { 2 } else { 0 };
    let properties = if version.is_v5() {
        let length = properties_len(delivery, naming);
        variable_len(length) + length
    } else {
        0
    };
    2 + naming.topic(delivery).len() + id + properties + delivery.message.payload.len()
}

fn properties_len(delivery: &Delivery, naming: Naming) -> usize {
    let expiry = if delivery.message.expires.is_some() {
        5
    } else {
        0
    };
    let alias = if naming.alias().is_some() { 3 } else { 0 };
    let ids: usize = delivery
        .subscription_ids
        .iter()
        .map(|id| 1 + variable_len(*id as usize))
        .sum();
    expiry + alias + ids + delivery.message.properties.len()
}

impl Naming {
    fn topic(self, delivery: &Delivery) -> &str {
        match self {
            Self::Name | Self::NameAndAlias(_) => &delivery.message.topic,
            Self::Alias(_) => "",
        }
    }

    fn alias(self) -> Option<TopicAlias> {
        match self {
            Self::Name => None,
            Self::NameAndAlias(alias) | Self::Alias(alias) => Some(alias),
        }
    }
}

/// Appends a PUBLISH. Only MQTT 5 has another naming than [`Naming::Name`].
pub fn encode_delivery(
    delivery: &Delivery,
    naming: Naming,
    version: Version,
    now: Instant,
    out: &mut BytesMut,
) {
    let body = delivery_body_len(delivery, naming, version);
    let Message {
        payload,
        properties,
        expires,
        ..
    } = &*delivery.message;
    out.reserve(5 + body);
    let flags =
        (u8::from(delivery.dup) << 3) | ((delivery.qos as u8) << 1) | u8::from(delivery.retain);
    out.put_u8(0x30 | flags);
    put_variable(out, body);
    put_prefixed(out, naming.topic(delivery).as_bytes());
    if let Some(id) = delivery.id {
        out.put_u16(id.get());
    }
    if version.is_v5() {
        put_variable(out, properties_len(delivery, naming));
        if let Some(expires) = expires {
            // What is left, rounded up: a message that still goes out is not expired.
            let left = expires.saturating_duration_since(now);
            let seconds = left.as_secs() + u64::from(left.subsec_nanos() > 0);
            out.put_u8(MESSAGE_EXPIRY);
            out.put_u32(u32::try_from(seconds).unwrap_or(u32::MAX));
        }
        if let Some(alias) = naming.alias() {
            out.put_u8(TOPIC_ALIAS);
            out.put_u16(alias.get());
        }
        for id in &delivery.subscription_ids {
            out.put_u8(SUBSCRIPTION_IDENTIFIER);
            put_variable(out, *id as usize);
        }
        out.put_slice(properties);
    }
    out.put_slice(payload);
}

impl Words {
    /// What a reason code is called, if it is a failure and the packet may say so; `fields` is the
    /// length of what its body has beside properties.
    fn of(self, code: u8, fields: usize) -> Option<&'static str> {
        let text = (code >= reason::FAILURE).then(|| reason::text(code))?;
        self.fitting(text, fields)
    }

    fn fitting(self, text: &'static str, fields: usize) -> Option<&'static str> {
        self.admits(fields + properties_with(Some(text)))
            .then_some(text)
    }

    /// Whether a packet with a body of this length may be sent for the words in it.
    fn admits(self, body: usize) -> bool {
        match self {
            Self::None => false,
            Self::Within(longest) => 1 + variable_len(body) + body <= longest,
        }
    }

    /// Where to go and why, as far as there is room; the first is worth more.
    fn both<'a>(
        self,
        servers: Option<&'a str>,
        reason: Option<&'a str>,
        fields: usize,
    ) -> [Option<&'a str>; 2] {
        let mut properties = 0;
        [servers, reason].map(|text| {
            let longer = properties + TEXT_BYTES + text?.len();
            let is_admitted = self.admits(fields + variable_len(longer) + longer);
            properties = if is_admitted { longer } else { properties };
            text.filter(|_text| is_admitted)
        })
    }
}

/// The length of a block of properties that has a reason in words, or nothing.
fn properties_with(text: Option<&str>) -> usize {
    // Texts are short, so the block's own length takes one byte.
    1 + text.map_or(0, |text| TEXT_BYTES + text.len())
}

/// Appends a block of properties that has a reason in words, or nothing.
fn put_properties_with(out: &mut BytesMut, text: Option<&str>) {
    put_variable(out, properties_with(text) - 1);
    if let Some(text) = text {
        out.put_u8(REASON_STRING);
        put_prefixed(out, text.as_bytes());
    }
}

/// Appends a PUBACK, PUBREC, PUBREL or PUBCOMP; a failure may say why in words.
pub fn encode_ack(ack: Ack, words: Words, version: Version, out: &mut BytesMut) {
    let first = match ack.kind {
        AckKind::PubAck => 0x40,
        AckKind::PubRec => 0x50,
        AckKind::PubRel => 0x62,
        AckKind::PubComp => 0x70,
    };
    let [high, low] = ack.id.get().to_be_bytes();
    // The reason may be left out when it is success (MQTT 5, 3.4.2.1); MQTT 3 has none.
    if !version.is_v5() || ack.reason == reason::SUCCESS {
        out.put_slice(&[first, 2, high, low]);
        return;
    }
    match words.of(ack.reason, 3) {
        None => out.put_slice(&[first, 3, high, low, ack.reason]),
        Some(text) => {
            out.put_u8(first);
            put_variable(out, 3 + properties_with(Some(text)));
            out.put_slice(&[high, low, ack.reason]);
            put_properties_with(out, Some(text));
        }
    }
}

/// Appends a SUBACK with one code per filter; the first failure may be said in words.
pub fn encode_suback(
    id: PacketId,
    codes: &[u8],
    words: Words,
    version: Version,
    out: &mut BytesMut,
) {
    out.put_u8(0x90);
    put_codes(id, codes, words, version, out);
}

/// Appends an UNSUBACK, as [`encode_suback`] does; MQTT 3 has no codes in it.
pub fn encode_unsuback(
    id: PacketId,
    codes: &[u8],
    words: Words,
    version: Version,
    out: &mut BytesMut,
) {
    out.put_u8(0xB0);
    let codes = if version.is_v5() { codes } else { &[] };
    put_codes(id, codes, words, version, out);
}

fn put_codes(id: PacketId, codes: &[u8], words: Words, version: Version, out: &mut BytesMut) {
    let fields = 2 + codes.len();
    if version.is_v5() {
        let failure = codes.iter().find(|code| **code >= reason::FAILURE);
        let text = failure.and_then(|code| words.of(*code, fields));
        put_variable(out, fields + properties_with(text));
        out.put_u16(id.get());
        put_properties_with(out, text);
    } else {
        put_variable(out, fields);
        out.put_u16(id.get());
    }
    out.put_slice(codes);
}

pub fn encode_pingresp(out: &mut BytesMut) {
    out.put_slice(&[0xD0, 0]);
}

/// Appends a DISCONNECT; only MQTT 5 servers send one (MQTT 3.1.1, 3.14).
pub fn encode_disconnect(code: u8, words: Words, version: Version, out: &mut BytesMut) {
    encode_referral(code, None, words, version, out);
}

/// As [`encode_disconnect`], with the servers that the client should use.
pub fn encode_referral(
    code: u8,
    servers: Option<&str>,
    words: Words,
    version: Version,
    out: &mut BytesMut,
) {
    if !version.is_v5() {
        return;
    }
    let reason = (code >= reason::FAILURE).then(|| reason::text(code));
    let [servers, reason] = words.both(servers, reason, 1);
    let told = [(SERVER_REFERENCE, servers), (REASON_STRING, reason)];
    let told = told.map(|(identifier, text)| Some((identifier, text?)));
    let length: usize = told
        .iter()
        .flatten()
        .map(|(_identifier, text)| TEXT_BYTES + text.len())
        .sum();
    out.put_u8(0xE0);
    if length == 0 {
        out.put_slice(&[1, code]);
        return;
    }
    put_variable(out, 1 + variable_len(length) + length);
    out.put_u8(code);
    put_variable(out, length);
    for (identifier, text) in told.into_iter().flatten() {
        out.put_u8(identifier);
        put_prefixed(out, text.as_bytes());
    }
}

fn put_prefixed(out: &mut BytesMut, bytes: &[u8]) {
    // Topics come out of packets, where their length had 16 bits.
    out.put_u16(u16::try_from(bytes.len()).unwrap_or(u16::MAX));
    out.put_slice(bytes);
}

/// Appends MQTT's variable byte integer.
pub(super) fn put_variable(out: &mut BytesMut, mut value: usize) {
    loop {
        let low = (value & 0x7f) as u8;
        value >>= 7;
        if value == 0 {
            out.put_u8(low);
            return;
        }
        out.put_u8(low | 0x80);
    }
}

fn variable_len(value: usize) -> usize {
    match value {
        0..128 => 1,
        128..16_384 => 2,
        16_384..2_097_152 => 3,
        _ => 4,
    }
}
