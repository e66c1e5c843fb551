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

    /// The service that it is said for.
    #[must_use]
    pub const fn service(&self) -> ServiceId {
        ServiceId(u32::from_be_bytes(self.service) as u16)
    }

    /// The client's address, or the first of the prefix.
    #[must_use]
    pub const fn address(&self) -> Ip {
        self.address
    }

    /// The length of the prefix of an address whose key has so many bits that count.
    #[must_use]
    pub const fn length_of(is_v4: bool, bits: u32) -> u8 {
        let before = Self::prefix_bits(is_v4, 0);
        bits.saturating_sub(before) as u8
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

/// How many connections may start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Rates {
    /// All that the service takes.
    pub service: Rate,
    /// What one source may start: an IPv4 address or an IPv6 /64.
    pub source: Rate,
}

/// A token bucket's size and how fast it fills, in the form of the generic cell rate algorithm
/// (ITU-T I.371, annex A): one time stamp takes the place of a fill and the time of it, so a bucket
/// can be changed by one atomic operation, and refusals write nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Rate {
    /// Nanoseconds that one connection pays for; 0: there is no limit.
    interval: u64,
    /// How far ahead of the clock a bucket may be when another one comes, in nanoseconds.
    tolerance: u64,
}

impl Rate {
    /// No limit.
    pub const NONE: Self = Self {
        interval: 0,
        tolerance: 0,
    };
    const SECOND: u64 = 1_000_000_000;

    /// `per_second` connections, of which `burst` may come at once; either counts as 1 at least.
    #[must_use]
    pub const fn new(per_second: u32, burst: u32) -> Self {
        let interval = Self::SECOND
            / if per_second == 0 {
                1
            } else {
                per_second as u64
            };
        let more = burst.saturating_sub(1) as u64;
        Self {
            interval,
            tolerance: interval * more,
        }
    }

    /// Whether there is a limit.
    #[inline(always)]
    #[must_use]
    pub const fn is_some(self) -> bool {
        self.interval != 0
    }

    /// Takes one from a bucket: its next state, or `None` if it is empty.
    #[inline(always)]
    #[must_use]
    pub const fn take(self, bucket: u64, now: u64) -> Option<u64> {
        let full = if bucket > now { bucket } else { now };
        if full - now > self.tolerance {
            return None;
        }
        Some(full + self.interval)
    }
}

/// One token bucket: the time in nanoseconds of `CLOCK_MONOTONIC` at which it is full again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Bucket(pub u64);

/// A source of connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(C)]
pub struct SourceKey {
    address: Ip,
    service: u32,
}

impl SourceKey {
    /// The source that a client belongs to, within one service: an IPv4 address, or an IPv6 /64, as
    /// any host can have all addresses of its /64 (RFC 4862).
    #[inline(always)]
    #[must_use]
    pub const fn new(client: Ip, service: ServiceId) -> Self {
        let address = if client.is_v4() {
            client
        } else {
            let [first, second, _, _] = client.words();
            Ip::from_words([first, second, 0, 0])
        };
        Self {
            address,
            service: service.0 as u32,
        }
    }
}

/// What came to the guard of one service on one CPU, and what it did, in packets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct GuardCounts {
    /// Dropped because the access list denies the client.
    pub denied: u64,
    /// Dropped because the service had its rate of new connections.
    pub service_limited: u64,
    /// Dropped because the source had its rate of new connections.
    pub source_limited: u64,
    /// SYNs answered with a challenge.
    pub challenged: u64,
    /// Good answers to challenges.
    pub answered: u64,
    /// SYNs, whatever became of them, whether or not the service has a guard.
    pub syns: u64,
}

impl GuardCounts {
    /// Both, counter by counter.
    #[must_use]
    pub fn combine(self, other: Self, with: impl Fn(u64, u64) -> u64) -> Self {
        let Self {
            denied,
            service_limited,
            source_limited,
            challenged,
            answered,
            syns,
        } = self;
        Self {
            denied: with(denied, other.denied),
            service_limited: with(service_limited, other.service_limited),
            source_limited: with(source_limited, other.source_limited),
            challenged: with(challenged, other.challenged),
            answered: with(answered, other.answered),
            syns: with(syns, other.syns),
        }
    }
}

#[cfg(test)]
mod tests;
