//! Who may connect, and how often.

use super::{Ip, ServiceId};

/// Clients by prefix, within one service: the key of a longest-prefix-match trie.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(C)]
pub struct AccessKey {
    service: [u8; 4],
    address: Ip,
}

impl AccessKey {
    /// Bits that stand before an address, and always count.
    pub const SERVICE_BITS: u32 = 32;
    /// Bits of a key that names one client.
    pub const BITS: u32 = Self::SERVICE_BITS + 128;

    /// A client, or a prefix with zeros behind its last bit.
    #[inline(always)]
    #[must_use]
    pub const fn new(service: ServiceId, address: Ip) -> Self {
        Self {
            service: (service.0 as u32).to_be_bytes(),
            address,
        }
    }

    /// How many bits of a key count for a prefix of an address; IPv4's start behind 96 bits that are
    /// the same for all.
    #[must_use]
    pub const fn prefix_bits(is_v4: bool, length: u8) -> u32 {
        Self::SERVICE_BITS + length as u32 + if is_v4 { 96 } else { 0 }
    }
}

/// What is done with clients of a prefix.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u32)]
pub enum Access {
    /// Their packets are dropped.
    Deny = 0,
    /// They may connect.
    Allow = 1,
}

/// How many connections may start: two token buckets. A rate of 0 sets no limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Rates {
    /// New connections a second that the service takes.
    pub service_rate: u32,
    /// How many of them may come at once.
    pub service_burst: u32,
    /// New connections a second that one source may start: an IPv4 address or an IPv6 /64.
    pub source_rate: u32,
    /// How many of them may come at once.
    pub source_burst: u32,
}

/// One token bucket.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Bucket {
    /// When it was last filled: `CLOCK_MONOTONIC` in nanoseconds.
    pub filled: u64,
    /// What is in it, in thousandths of a connection.
    pub tokens: u64,
}

/// A source of connections within one service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(C)]
pub struct SourceKey {
    /// The client's address, or the first half of it for IPv6.
    pub address: Ip,
    /// A [`ServiceId`].
    pub service: u32,
}
