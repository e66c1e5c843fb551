//! Server to client: packets read in place from a connection's incoming bytes.

use super::{Qos, Version};

/// One whole packet: its first byte and what follows the remaining length.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Frame<'a> {
    first: u8,
    body: &'a [u8],
}

/// What a server says to a client of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Packet<'a> {
    ConnAck(ConnAck),
    /// One code per filter; 0x80 and above are refusals.
    SubAck {
        packet_id: u16,
        codes: &'a [u8],
    },
    Publish(Publish<'a>),
    PubAck(Ack),
    PubRec(Ack),
    PubRel(Ack),
    PubComp(Ack),
    PingResp,
    /// MQTT 5: the server ends the connection, and why.
    Disconnect {
        reason: u8,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ConnAck {
    pub(crate) session_present: bool,
    pub(crate) code: u8,
    /// MQTT 5: how many PUBLISH packets may wait for their acknowledgement.
    pub(crate) receive_maximum: Option<u16>,
    /// MQTT 5: the keep-alive to use, whatever CONNECT said.
    pub(crate) server_keep_alive: Option<u16>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Publish<'a> {
    pub(crate) qos: Qos,
    pub(crate) retain: bool,
    pub(crate) dup: bool,
    pub(crate) topic: &'a [u8],
    /// 0 at QoS 0.
    pub(crate) packet_id: u16,
    pub(crate) payload: &'a [u8],
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ack {
    pub(crate) packet_id: u16,
    /// MQTT 5; 0 before. 0x80 and above are refusals.
    pub(crate) reason: u8,
}

/// The server sent what MQTT does not allow, or what only a client may send.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("malformed packet from the server")]
pub(crate) struct Malformed;

/// Takes one whole packet off the front of `bytes`.
///
/// When there is none yet, tells how many bytes the packet at the front needs in all, as far as
/// that can be known.
pub(crate) fn split(bytes: &[u8]) -> Result<Result<(Frame<'_>, &[u8]), usize>, Malformed> {
    let Some((&first, rest)) = bytes.split_first() else {
        return Ok(Err(2));
    };
    let mut remaining = 0;
    for at in 0..4 {
        let Some(&byte) = rest.get(at) else {
            return Ok(Err(at + 2));
        };
        remaining |= usize::from(byte & 0x7f) << (7 * at);
        if byte & 0x80 == 0 {
            let after = &rest[at + 1..];
            return Ok(match after.split_at_checked(remaining) {
                Some((body, tail)) => Ok((Frame { first, body }, tail)),
                None => Err(2 + at + remaining),
            });
        }
    }
    Err(Malformed)
}

/// Reads what a packet says.
pub(crate) fn decode(frame: Frame<'_>, version: Version) -> Result<Packet<'_>, Malformed> {
    let mut body = Body(frame.body);
    match frame.first {
        0x20 => connack(body, version).map(Packet::ConnAck),
        0x30..0x40 => publish(frame.first, body, version).map(Packet::Publish),
        0x40 => ack(body).map(Packet::PubAck),
        0x50 => ack(body).map(Packet::PubRec),
        0x62 => ack(body).map(Packet::PubRel),
        0x70 => ack(body).map(Packet::PubComp),
        0x90 => {
            let packet_id = body.u16()?;
            if version == Version::V5 {
                body.properties()?;
            }
            Ok(Packet::SubAck {
                packet_id,
                codes: body.0,
            })
        }
        0xd0 => Ok(Packet::PingResp),
        0xe0 => Ok(Packet::Disconnect {
            reason: body.0.first().copied().unwrap_or(0),
        }),
        _ => Err(Malformed),
    }
}

fn connack(mut body: Body<'_>, version: Version) -> Result<ConnAck, Malformed> {
    let flags = body.u8()?;
    let mut packet = ConnAck {
        session_present: flags & 1 == 1,
        code: body.u8()?,
        receive_maximum: None,
        server_keep_alive: None,
    };
    // A server that does not speak version 5 refuses in the format of 3.1.1.
    if version == Version::V5 && !body.0.is_empty() {
        let mut properties = body.properties()?;
        while !properties.0.is_empty() {
            match properties.u8()? {
                0x21 => packet.receive_maximum = Some(properties.u16()?),
                0x13 => packet.server_keep_alive = Some(properties.u16()?),
                other => properties.skip_value(other)?,
            }
        }
    }
    Ok(packet)
}

fn publish(first: u8, mut body: Body<'_>, version: Version) -> Result<Publish<'_>, Malformed> {
    let qos = Qos::from_bits(first >> 1 & 3).ok_or(Malformed)?;
    let topic = body.text()?;
    let packet_id = if qos == Qos::Zero { 0 } else { body.u16()? };
    if version == Version::V5 {
        body.properties()?;
    }
    Ok(Publish {
        qos,
        retain: first & 1 == 1,
        dup: first & 8 == 8,
        topic,
        packet_id,
        payload: body.0,
    })
}

fn ack(mut body: Body<'_>) -> Result<Ack, Malformed> {
    let packet_id = body.u16()?;
    Ok(Ack {
        packet_id,
        reason: body.0.first().copied().unwrap_or(0),
    })
}

/// Reads forward through a packet's body, never past its end.
struct Body<'a>(&'a [u8]);

impl<'a> Body<'a> {
    fn take(&mut self, len: usize) -> Result<&'a [u8], Malformed> {
        let (head, tail) = self.0.split_at_checked(len).ok_or(Malformed)?;
        self.0 = tail;
        Ok(head)
    }

    fn u8(&mut self) -> Result<u8, Malformed> {
        Ok(self.take(1)?[0])
    }

    fn u16(&mut self) -> Result<u16, Malformed> {
        let bytes = self.take(2)?;
        Ok(u16::from_be_bytes([bytes[0], bytes[1]]))
    }

    fn text(&mut self) -> Result<&'a [u8], Malformed> {
        let len = self.u16()?;
        self.take(usize::from(len))
    }

    fn variable(&mut self) -> Result<usize, Malformed> {
        let mut value = 0;
        for shift in [0, 7, 14, 21] {
            let byte = self.u8()?;
            value |= usize::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(Malformed)
    }

    fn properties(&mut self) -> Result<Body<'a>, Malformed> {
        let len = self.variable()?;
        self.take(len).map(Body)
    }

    /// Skips a CONNACK property's value (MQTT 5, table 2-4).
    fn skip_value(&mut self, property: u8) -> Result<(), Malformed> {
        match property {
            // Maximum QoS, retain, wildcard, subscription id and shared available.
            0x24 | 0x25 | 0x28 | 0x29 | 0x2a => self.take(1)?,
            // Topic alias maximum.
            0x22 => self.take(2)?,
            // Session expiry, maximum packet size.
            0x11 | 0x27 => self.take(4)?,
            // Assigned client id, response information, server reference, reason,
            // authentication method and data.
            0x12 | 0x1a | 0x1c | 0x1f | 0x15 | 0x16 => self.text()?,
            // User property: a name and a value.
            0x26 => {
                self.text()?;
                self.text()?
            }
            _ => return Err(Malformed),
        };
        Ok(())
    }
}
