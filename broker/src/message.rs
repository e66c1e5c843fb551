//! An application message: what a PUBLISH carries, detached from any connection or version.

use std::time::Instant;

/// Delivery guarantee; the order is that of strength.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Qos {
    #[default]
    AtMostOnce = 0,
    AtLeastOnce = 1,
    ExactlyOnce = 2,
}

impl Qos {
    pub fn from_bits(bits: u8) -> Option<Self> {
        match bits {
            0 => Some(Self::AtMostOnce),
            1 => Some(Self::AtLeastOnce),
            2 => Some(Self::ExactlyOnce),
            _ => None,
        }
    }
}

/// Tells copies of one message apart from other messages, which may be the same in all else.
///
/// Given where a message is published, if it may reach a subscriber by two ways: on the nodes of a
/// cluster, and at QoS 1 or 2.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MessageId {
    /// Of the process that it was published in.
    pub run: u64,
    pub number: u64,
}

impl MessageId {
    /// What a message has that comes by one way alone.
    pub const NONE: Self = Self { run: 0, number: 0 };

    pub fn is_none(self) -> bool {
        self == Self::NONE
    }
}

/// One published message.
///
/// Topic and payload are copies of exactly their size: a slice of the read buffer would keep the
/// whole buffer alive for as long as the message is queued or retained.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    pub topic: Box<str>,
    pub payload: Box<[u8]>,
    /// The MQTT 5 properties that subscribers get as they are, encoded; the expiry is not among
    /// them because it shrinks while the message waits.
    pub properties: Box<[u8]>,
    pub qos: Qos,
    pub retain: bool,
    pub expires: Option<Instant>,
    pub id: MessageId,
}

impl Message {
    /// Bytes that it holds.
    pub fn size(&self) -> usize {
        self.topic.len() + self.payload.len() + self.properties.len()
    }

    pub fn is_expired(&self, now: Instant) -> bool {
        self.expires.is_some_and(|expires| expires <= now)
    }
}
