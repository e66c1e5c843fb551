//! Bytes to packets and back, for MQTT 3.1, 3.1.1 and 5.
//!
//! Framing, PUBLISH headers and acknowledgements are decoded here; CONNECT, SUBSCRIBE, UNSUBSCRIBE,
//! DISCONNECT and every MQTT 5 property go through rumqttd's codecs. Those trust what they are
//! given in places, so [`decode()`] checks the fixed header first and hands them one whole frame:
//! they panic on packet types that only a server sends, and report a frame that ends too soon as
//! one that is not complete yet.

mod connect;
mod decode;
mod encode;
mod filters;
pub mod packet;
mod properties;

use thiserror::Error;

pub use connect::{connect_version, decode_connect};
pub use decode::decode;
pub use encode::{delivery_len, encode_suback, encode_unsuback};
pub use encode::{
    encode_ack, encode_connack, encode_delivery, encode_disconnect, encode_pingresp,
    encode_referral,
};

use packet::{ConnectCode, reason};

/// Why bytes from a client are refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum DecodeError {
    #[error("malformed packet")]
    Malformed,
    #[error("packet not allowed here")]
    Protocol,
    #[error("packet longer than the limit")]
    TooLarge,
    #[error("protocol version not supported")]
    UnsupportedVersion,
    #[error("topic name not valid")]
    TopicName,
    #[error("topic alias not valid")]
    TopicAlias,
}

impl DecodeError {
    /// The reason code of the MQTT 5 DISCONNECT that answers this error.
    pub fn reason(self) -> u8 {
        match self {
            Self::Malformed => reason::MALFORMED_PACKET,
            Self::Protocol | Self::UnsupportedVersion => reason::PROTOCOL_ERROR,
            Self::TooLarge => reason::PACKET_TOO_LARGE,
            Self::TopicName => reason::TOPIC_NAME_INVALID,
            Self::TopicAlias => reason::TOPIC_ALIAS_INVALID,
        }
    }

    /// The code of the CONNACK that answers this error in a CONNECT.
    pub fn connect_code(self) -> ConnectCode {
        match self {
            Self::Malformed => ConnectCode::MalformedPacket,
            Self::Protocol | Self::TopicAlias => ConnectCode::ProtocolError,
            Self::TooLarge => ConnectCode::PacketTooLarge,
            Self::UnsupportedVersion => ConnectCode::UnsupportedVersion,
            Self::TopicName => ConnectCode::TopicNameInvalid,
        }
    }
}

/// Where the first packet of a buffer ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frame {
    /// Fixed header's length.
    pub header: usize,
    /// The whole packet's length.
    pub total: usize,
}

/// Finds the first packet in `buffer`; `None` while its end has not arrived.
///
/// # Errors
/// When the length is malformed or above `limit`, before the packet has to be buffered.
pub fn frame(buffer: &[u8], limit: usize) -> Result<Option<Frame>, DecodeError> {
    let mut length = 0_usize;
    for index in 0..4 {
        let Some(byte) = buffer.get(1 + index) else {
            return Ok(None);
        };
        length |= usize::from(byte & 0x7f) << (7 * index);
        if byte & 0x80 != 0 {
            continue;
        }
        let header = index + 2;
        if header + length > limit {
            return Err(DecodeError::TooLarge);
        }
        let total = header + length;
        return Ok((buffer.len() >= total).then_some(Frame { header, total }));
    }
    Err(DecodeError::Malformed)
}

/// Whether bytes from a client begin with a PUBLISH.
pub fn is_publish(bytes: &[u8]) -> bool {
    bytes.first().is_some_and(|first| first >> 4 == 3)
}

/// Whether bytes from a client begin with a PUBLISH that is to be answered.
pub fn is_publish_to_answer(bytes: &[u8]) -> bool {
    is_publish(bytes) && bytes.first().is_some_and(|first| first & 0b0110 != 0)
}

/// Reads MQTT's variable byte integer; the rest of the slice follows it.
fn read_variable(bytes: &[u8]) -> Result<(usize, &[u8]), DecodeError> {
    let mut value = 0_usize;
    for index in 0..4 {
        let byte = bytes.get(index).ok_or(DecodeError::Malformed)?;
        value |= usize::from(byte & 0x7f) << (7 * index);
        if byte & 0x80 == 0 {
            // No more bytes than the value takes (MQTT 5, 1.5.5-1).
            let is_minimal = *byte != 0 || index == 0;
            let rest = bytes.get(index + 1..).filter(|_rest| is_minimal);
            return rest.map(|rest| (value, rest)).ok_or(DecodeError::Malformed);
        }
    }
    Err(DecodeError::Malformed)
}

/// Reads a string or binary value with its 16-bit length.
fn read_prefixed(bytes: &[u8]) -> Result<(&[u8], &[u8]), DecodeError> {
    let (length, rest) = bytes
        .split_first_chunk::<2>()
        .ok_or(DecodeError::Malformed)?;
    rest.split_at_checked(usize::from(u16::from_be_bytes(*length)))
        .ok_or(DecodeError::Malformed)
}

#[cfg(test)]
mod tests;
