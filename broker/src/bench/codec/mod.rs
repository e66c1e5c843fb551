//! The client's half of MQTT 3.1, 3.1.1 and 5: just what a load generator says and hears.
//!
//! Packets are written straight into a connection's outgoing bytes and read in place from its
//! incoming bytes; nothing is copied or allocated per message.

mod decode;
mod encode;
#[cfg(test)]
mod tests;

pub(super) use decode::{Ack, ConnAck, Malformed, Packet, Publish, decode, split};
pub(super) use encode::{
    AckKind, Connect, PublishHead, ack, connect, disconnect, ping, publish, publish_len, subscribe,
};

/// The protocol version a client speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum Version {
    #[value(name = "3.1", alias = "3")]
    V31,
    #[value(name = "3.1.1", alias = "4")]
    V311,
    #[value(name = "5", alias = "5.0")]
    V5,
}

/// The quality of service of a PUBLISH or a subscription.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Qos {
    Zero,
    One,
    Two,
}

impl Qos {
    pub(super) const fn from_bits(bits: u8) -> Option<Self> {
        match bits {
            0 => Some(Self::Zero),
            1 => Some(Self::One),
            2 => Some(Self::Two),
            _ => None,
        }
    }
}
