//! Client to server: every function appends one packet to the outgoing bytes.

use super::{Qos, Version};

/// What CONNECT says.
#[derive(Clone, Debug)]
pub(crate) struct Connect<'a> {
    pub(crate) version: Version,
    pub(crate) client_id: &'a str,
    pub(crate) clean: bool,
    pub(crate) keep_alive: u16,
    pub(crate) username: Option<&'a str>,
    pub(crate) password: Option<&'a str>,
    /// MQTT 5 only: seconds the server keeps the session after the connection.
    pub(crate) session_expiry: u32,
}

/// A PUBLISH without its payload.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PublishHead<'a> {
    pub(crate) version: Version,
    pub(crate) topic: &'a [u8],
    pub(crate) qos: Qos,
    pub(crate) retain: bool,
    pub(crate) dup: bool,
    /// Written for QoS 1 and 2 only.
    pub(crate) packet_id: u16,
}

/// The four packets that consist of a packet id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum AckKind {
    Ack,
    Rec,
    Rel,
    Comp,
}

const PROPERTY_SESSION_EXPIRY: u8 = 0x11;

/// Appends CONNECT.
pub(crate) fn connect(out: &mut Vec<u8>, packet: &Connect<'_>) {
    let mut body = Vec::with_capacity(64 + packet.client_id.len());
    let (name, level): (&str, u8) = match packet.version {
        Version::V31 => ("MQIsdp", 3),
        Version::V311 => ("MQTT", 4),
        Version::V5 => ("MQTT", 5),
    };
    string(&mut body, name.as_bytes());
    let flags = u8::from(packet.username.is_some()) << 7
        | u8::from(packet.password.is_some()) << 6
        | u8::from(packet.clean) << 1;
    body.extend([level, flags]);
    body.extend(packet.keep_alive.to_be_bytes());
    if packet.version == Version::V5 {
        if packet.session_expiry == 0 {
            body.push(0);
        } else {
            body.extend([5, PROPERTY_SESSION_EXPIRY]);
            body.extend(packet.session_expiry.to_be_bytes());
        }
    }
    string(&mut body, packet.client_id.as_bytes());
    for text in [packet.username, packet.password].into_iter().flatten() {
        string(&mut body, text.as_bytes());
    }
    header(out, 0x10, body.len());
    out.extend(body);
}

/// Appends SUBSCRIBE for all `filters` at the same QoS.
pub(crate) fn subscribe(
    out: &mut Vec<u8>,
    version: Version,
    packet_id: u16,
    filters: &[String],
    qos: Qos,
) {
    let mut body = Vec::new();
    body.extend(packet_id.to_be_bytes());
    if version == Version::V5 {
        body.push(0);
    }
    for filter in filters {
        string(&mut body, filter.as_bytes());
        body.push(qos as u8);
    }
    header(out, 0x82, body.len());
    out.extend(body);
}

/// Appends PUBLISH up to its payload, of which the caller appends exactly `payload_len` bytes.
pub(crate) fn publish(out: &mut Vec<u8>, head: &PublishHead<'_>, payload_len: usize) {
    let first = 0x30 | u8::from(head.dup) << 3 | (head.qos as u8) << 1 | u8::from(head.retain);
    header(out, first, body_len(head, payload_len));
    string(out, head.topic);
    if head.qos != Qos::Zero {
        out.extend_from_slice(&head.packet_id.to_be_bytes());
    }
    if head.version == Version::V5 {
        out.push(0);
    }
}

/// The length of the whole PUBLISH packet.
pub(crate) fn publish_len(head: &PublishHead<'_>, payload_len: usize) -> usize {
    let body = body_len(head, payload_len);
    let length_bytes = match body {
        0..0x80 => 1,
        0x80..0x4000 => 2,
        0x4000..0x20_0000 => 3,
        _ => 4,
    };
    1 + length_bytes + body
}

fn body_len(head: &PublishHead<'_>, payload_len: usize) -> usize {
    let packet_id = if head.qos == Qos::Zero { 0 } else { 2 };
    let properties = usize::from(head.version == Version::V5);
    2 + head.topic.len() + packet_id + properties + payload_len
}

/// Appends PUBACK, PUBREC, PUBREL or PUBCOMP; without a reason code, which means success.
pub(crate) fn ack(out: &mut Vec<u8>, kind: AckKind, packet_id: u16) {
    let first = match kind {
        AckKind::Ack => 0x40,
        AckKind::Rec => 0x50,
        AckKind::Rel => 0x62,
        AckKind::Comp => 0x70,
    };
    out.extend_from_slice(&[first, 2]);
    out.extend_from_slice(&packet_id.to_be_bytes());
}

/// Appends PINGREQ.
pub(crate) fn ping(out: &mut Vec<u8>) {
    out.extend_from_slice(&[0xc0, 0]);
}

/// Appends DISCONNECT: a normal end.
pub(crate) fn disconnect(out: &mut Vec<u8>) {
    out.extend_from_slice(&[0xe0, 0]);
}

fn header(out: &mut Vec<u8>, first: u8, mut remaining: usize) {
    out.push(first);
    while remaining >= 0x80 {
        out.push((remaining & 0x7f) as u8 | 0x80);
        remaining >>= 7;
    }
    out.push(remaining as u8);
}

/// The plan has checked that no text is longer than 65,535 bytes.
fn string(out: &mut Vec<u8>, text: &[u8]) {
    out.extend_from_slice(&(text.len() as u16).to_be_bytes());
    out.extend_from_slice(text);
}
