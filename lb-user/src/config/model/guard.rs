//! Who may connect to a service, and how often.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use lb_common::abi::{Access, Ip, Rates};

use super::defaults;

/// What a service asks of its clients.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Guard {
    pub(super) access: Arc<AccessList>,
    pub(super) rates: Rates,
    pub(super) challenge: Challenge,
    pub(super) challenge_above: u32,
}

impl Guard {
    /// Which clients may connect.
    #[must_use]
    pub const fn access(&self) -> &Arc<AccessList> {
        &self.access
    }

    /// How many connections may start.
    #[must_use]
    pub const fn rates(&self) -> Rates {
        self.rates
    }

    /// When clients must show that they are where they say.
    #[must_use]
    pub const fn challenge(&self) -> Challenge {
        self.challenge
    }

    /// How many SYNs a second are an attack.
    #[must_use]
    pub const fn challenge_above(&self) -> u32 {
        self.challenge_above
    }
}

impl Default for Guard {
    fn default() -> Self {
        Self {
            access: Arc::default(),
            rates: Rates::default(),
            challenge: Challenge::Auto,
            challenge_above: defaults::CHALLENGE_ABOVE,
        }
    }
}

/// When clients must show that they are where they say, before a backend gets their SYN.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Challenge {
    /// While there are too many SYNs.
    Auto,
    Always,
    Never,
}

impl fmt::Display for Challenge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Auto => "auto",
            Self::Always => "always",
            Self::Never => "off",
        })
    }
}

/// Clients by prefix, of the family of the service's VIP. The longest prefix that a client is in
/// decides; who is in none may connect, unless the list says otherwise.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AccessList {
    entries: BTreeMap<Prefix, Access>,
    denies_by_default: bool,
}

impl AccessList {
    /// A list of entries.
    #[must_use]
    pub const fn new(entries: BTreeMap<Prefix, Access>, denies_by_default: bool) -> Self {
        Self {
            entries,
            denies_by_default,
        }
    }

    /// What is said of each prefix.
    #[must_use]
    pub const fn entries(&self) -> &BTreeMap<Prefix, Access> {
        &self.entries
    }

    /// Whether clients that are in no prefix are denied.
    #[must_use]
    pub const fn denies_by_default(&self) -> bool {
        self.denies_by_default
    }

    /// The longest prefix that a client is in, with what is said of it.
    #[must_use]
    pub fn longest(&self, client: IpAddr) -> Option<(Prefix, Access)> {
        (0..=128).rev().find_map(|length| {
            let around = Prefix::around(client, length)?;
            Some((around, *self.entries.get(&around)?))
        })
    }

    /// Whether a client may connect.
    #[must_use]
    pub fn allows(&self, client: IpAddr) -> bool {
        self.longest(client)
            .map_or(!self.denies_by_default, |(_, access)| {
                access == Access::Allow
            })
    }
}

/// Addresses of one family that begin with the same bits.
///
/// Ordered by length, then by address: steps that change a list go by length.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Prefix {
    length: u8,
    address: Ip,
}

impl Prefix {
    /// The prefix of `length` bits of `address`; `None` if there are not so many, or if others than
    /// these are set.
    #[must_use]
    pub fn new(address: IpAddr, length: u8) -> Option<Self> {
        let cut = Self::around(address, length)?;
        (IpAddr::from(cut.address) == address).then_some(cut)
    }

    /// The prefix of `length` bits that `address` is in.
    #[must_use]
    pub fn around(address: IpAddr, length: u8) -> Option<Self> {
        let address = match address {
            IpAddr::V4(v4) => {
                let rest = 32_u32.checked_sub(length.into())?;
                let mask = u32::MAX.checked_shl(rest).unwrap_or(0);
                IpAddr::from((u32::from(v4) & mask).to_be_bytes())
            }
            // Would pass for IPv4 in the tables.
            IpAddr::V6(v6) if v6.to_ipv4_mapped().is_some() => return None,
            IpAddr::V6(v6) => {
                let rest = 128_u32.checked_sub(length.into())?;
                let mask = u128::MAX.checked_shl(rest).unwrap_or(0);
                IpAddr::from((u128::from(v6) & mask).to_be_bytes())
            }
        };
        Some(Self {
            length,
            address: Ip::from(address),
        })
    }

    /// Its first address.
    #[must_use]
    pub const fn address(&self) -> Ip {
        self.address
    }

    /// How many bits its addresses have in common.
    #[must_use]
    pub const fn length(&self) -> u8 {
        self.length
    }

    /// Whether its addresses are IPv4's.
    #[must_use]
    pub const fn is_v4(&self) -> bool {
        self.address.is_v4()
    }
}

impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", IpAddr::from(self.address), self.length)
    }
}
