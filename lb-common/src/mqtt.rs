//! What a TCP segment says about an MQTT session: the type of its packet, and what a CONNECT asks for.
//!
//! Only the front of a packet is read, up to the keep-alive of a CONNECT: 17 bytes at most, so the
//! kernel half can afford it. A segment that starts inside a packet may be taken for another type; a
//! CONNECT spells the name of its protocol, so hardly anything else passes for one. Generic over
//! [`Cursor`]: the kernel, the tests and the fuzz target run the same code.

use crate::cursor::Cursor;

/// The first byte of a CONNECT: its type, and flags that are all zero (MQTT 5.0, section 3.1.1).
pub const CONNECT: u8 = 0x10;

/// Names of the packet types, by the upper four bits of the first byte (MQTT 5.0, section 2.1.2).
///
/// Type 0 is forbidden; a client that sends it, or what only servers send, is broken, or the segment
/// starts inside a packet.
pub const TYPES: [&str; 16] = [
    "reserved",
    "connect",
    "connack",
    "publish",
    "puback",
    "pubrec",
    "pubrel",
    "pubcomp",
    "subscribe",
    "suback",
    "unsubscribe",
    "unsuback",
    "pingreq",
    "pingresp",
    "disconnect",
    "auth",
];

/// The type of the packet that starts with a byte: an index into [`TYPES`].
#[inline(always)]
#[must_use]
pub const fn packet_type(first: u8) -> usize {
    (first >> 4) as usize
}

/// Version of MQTT, by the level that a CONNECT names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Version {
    /// Level 3, which calls itself `MQIsdp`.
    V31,
    /// Level 4.
    V311,
    /// Level 5.
    V5,
}

/// What the front of a CONNECT says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Connect {
    pub version: Version,
    /// Seconds within which the client sends something; 0: it need not.
    pub keep_alive: u16,
}

impl Connect {
    /// Reads the front of a CONNECT, from its first byte on; `None` if it is none, or the segment
    /// ends before the keep-alive.
    ///
    /// ```text
    /// 10 | remaining length, 1 to 4 | 00 04 M Q T T | level | flags | keep-alive, 2
    /// 10 | remaining length, 1 to 4 | 00 06 M Q I s d p | level | flags | keep-alive, 2
    /// ```
    #[inline(always)]
    #[must_use]
    pub fn parse<C: Cursor + Clone>(cursor: &mut C) -> Option<Self> {
        // Even with a length of one byte, five are there.
        let [first, length @ ..] = cursor.clone().take::<5>()?;
        if first != CONNECT {
            return None;
        }
        cursor.skip(1 + length_bytes(length)?)?;
        let [a, b, c, d, e, f, level, flags] = cursor.take()?;
        match [a, b, c, d, e, f] {
            [0, 4, b'M', b'Q', b'T', b'T'] => {
                let version = match level {
                    4 => Version::V311,
                    5 => Version::V5,
                    _ => return None,
                };
                let keep_alive = u16::from_be_bytes(cursor.take()?);
                Some(Self {
                    version,
                    keep_alive,
                })
            }
            [0, 6, b'M', b'Q', b'I', b's'] if [level, flags] == *b"dp" => {
                let [level, _flags, high, low] = cursor.take()?;
                (level == 3).then_some(Self {
                    version: Version::V31,
                    keep_alive: u16::from_be_bytes([high, low]),
                })
            }
            _ => None,
        }
    }
}

/// How many bytes a variable byte integer takes: the last one lacks the top bit (MQTT 5.0, section
/// 1.5.5). `None` if that is none of four.
#[inline(always)]
const fn length_bytes([a, b, c, d]: [u8; 4]) -> Option<usize> {
    // One comparison for all four, as the kernel's verifier follows each branch.
    let ends = !u32::from_le_bytes([a, b, c, d]) & 0x8080_8080;
    if ends == 0 {
        return None;
    }
    Some(ends.trailing_zeros() as usize / 8 + 1)
}

#[cfg(test)]
mod tests;
