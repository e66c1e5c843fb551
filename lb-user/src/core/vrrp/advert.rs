//! What an advert says, and the values it is made of.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::num::{NonZeroU8, NonZeroU16};
use std::sync::Arc;
use std::time::Duration;

/// The protocol number of VRRP (RFC 9568, 5.1.1.4, 5.1.2.4).
pub const PROTOCOL: u8 = 112;
/// TTL or Hop Limit of every advert (RFC 9568, 5.1.1.3, 5.1.2.3): what crossed a router has less.
pub const HOPS: u8 = 255;
/// Where adverts go over IPv4 (RFC 9568, 5.1.1.2).
pub const GROUP_V4: Ipv4Addr = Ipv4Addr::new(224, 0, 0, 18);
/// Where adverts go over IPv6 (RFC 9568, 5.1.2.2).
pub const GROUP_V6: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 0x12);

/// The version of the protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Version {
    /// RFC 3768, for IPv4 alone.
    V2,
    /// RFC 9568.
    V3,
}

/// What the checksum of VRRPv3 over IPv4 covers. Both are accepted; this says what is sent.
///
/// Over IPv6 it always covers the pseudo-header too, in VRRPv2 it never does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dialect {
    /// The message alone, as RFC 9568 says (5.2.8).
    Message,
    /// The message behind a pseudo-header, as RFC 5798 was read by keepalived and others.
    PseudoHeader,
}

/// The number of a virtual router, from 1 to 255 (RFC 9568, 5.2.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Vrid(NonZeroU8);

impl Vrid {
    /// `None` for 0.
    #[must_use]
    pub fn new(vrid: u8) -> Option<Self> {
        NonZeroU8::new(vrid).map(Self)
    }

    /// The number.
    #[must_use]
    pub const fn get(self) -> u8 {
        self.0.get()
    }

    /// The Virtual Router MAC address of a family (RFC 9568, 7.3).
    #[must_use]
    pub const fn mac(self, family: Family) -> [u8; 6] {
        let family = match family {
            Family::V4 => 1,
            Family::V6 => 2,
        };
        [0, 0, 0x5e, 0, family, self.get()]
    }

    /// The link-local address with the interface identifier of the Virtual Router MAC address
    /// (RFC 4291, appendix A): what to advertise first over IPv6 where none is configured.
    #[must_use]
    pub const fn link_local(self) -> Ipv6Addr {
        let last = 0x0200 | self.get() as u16;
        Ipv6Addr::new(0xfe80, 0, 0, 0, 0x0200, 0x5eff, 0xfe00, last)
    }
}

impl From<NonZeroU8> for Vrid {
    fn from(vrid: NonZeroU8) -> Self {
        Self(vrid)
    }
}

impl fmt::Display for Vrid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Who should be Active: the highest (RFC 9568, 5.2.4).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Priority(pub u8);

impl Priority {
    /// The Active gives up its role.
    pub const RELEASE: Self = Self(0);
    /// The sender has the addresses of the virtual router as its own.
    pub const OWNER: Self = Self(255);
}

impl fmt::Display for Priority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The time between two adverts, in centiseconds; never zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Interval(NonZeroU16);

impl Interval {
    /// The longest of VRRPv3: a field of 12 bits (RFC 9568, 5.2.7).
    pub const LONGEST_V3: u16 = 0xfff;
    /// Centiseconds in a second, the unit of VRRPv2 (RFC 3768, 5.3.7).
    pub const SECOND: u16 = 100;

    /// `None` for 0.
    #[must_use]
    pub fn centiseconds(interval: u16) -> Option<Self> {
        NonZeroU16::new(interval).map(Self)
    }

    /// `None` unless it is a whole number of centiseconds that fits.
    #[must_use]
    pub fn from_duration(interval: Duration) -> Option<Self> {
        const NANOS: u128 = 10_000_000;
        let nanos = interval.as_nanos();
        let whole = nanos.is_multiple_of(NANOS).then_some(nanos / NANOS)?;
        Self::centiseconds(u16::try_from(whole).ok()?)
    }

    /// The number of centiseconds.
    #[must_use]
    pub const fn get(self) -> u16 {
        self.0.get()
    }

    /// The same as a duration.
    #[must_use]
    pub fn duration(self) -> Duration {
        Duration::from_millis(u64::from(self.get()) * 10)
    }
}

/// A password of VRRPv2, eight bytes with zeros behind (RFC 2338, 5.3.6). It travels in the clear.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Password(pub [u8; 8]);

impl Password {
    /// `None` if it is empty or longer than eight bytes.
    #[must_use]
    pub fn new(text: &str) -> Option<Self> {
        let mut bytes = [0; 8];
        let text = text.as_bytes();
        bytes.get_mut(..text.len())?.copy_from_slice(text);
        (!text.is_empty()).then_some(Self(bytes))
    }
}

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Password(..)")
    }
}

/// IPv4 or IPv6.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Family {
    V4,
    V6,
}

impl Family {
    /// The family of an address.
    #[must_use]
    pub const fn of(address: &IpAddr) -> Self {
        match address {
            IpAddr::V4(_) => Self::V4,
            IpAddr::V6(_) => Self::V6,
        }
    }

    /// Where adverts go.
    #[must_use]
    pub const fn group(self) -> IpAddr {
        match self {
            Self::V4 => IpAddr::V4(GROUP_V4),
            Self::V6 => IpAddr::V6(GROUP_V6),
        }
    }
}

/// The addresses of a virtual router: from 1 to 255, all of one family (RFC 9568, 5.2.5, 5.2.9).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Addresses(Arc<[IpAddr]>);

impl Addresses {
    /// `None` if they are none, too many, or of both families.
    #[must_use]
    pub fn new(addresses: impl Into<Arc<[IpAddr]>>) -> Option<Self> {
        let addresses = addresses.into();
        let family = Family::of(addresses.first()?);
        let fits = addresses.len() <= usize::from(u8::MAX);
        let is_one = addresses.iter().all(|other| Family::of(other) == family);
        (fits && is_one).then_some(Self(addresses))
    }

    /// Of which family they are.
    #[must_use]
    pub fn family(&self) -> Family {
        Family::of(&self.first())
    }

    /// How many they are.
    #[must_use]
    pub fn count(&self) -> u8 {
        u8::try_from(self.0.len()).expect("`new` lets no more through")
    }

    /// The first of them.
    #[must_use]
    pub fn first(&self) -> IpAddr {
        *self.0.first().expect("`new` lets no less through")
    }

    /// Whether they begin as those of IPv6 must (RFC 9568, 5.2.9).
    #[must_use]
    pub fn is_first_fit(&self) -> bool {
        match self.first() {
            IpAddr::V4(_) => true,
            IpAddr::V6(first) => first.is_unicast_link_local(),
        }
    }

    /// Whether these are the same in any order.
    #[must_use]
    pub fn is_same_set(&self, other: &Self) -> bool {
        let is_within =
            |these: &Self, those: &Self| these.0.iter().all(|one| those.0.contains(one));
        self == other || (is_within(self, other) && is_within(other, self))
    }
}

impl std::ops::Deref for Addresses {
    type Target = [IpAddr];

    fn deref(&self) -> &[IpAddr] {
        &self.0
    }
}

/// An advert.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Advert {
    pub version: Version,
    pub vrid: Vrid,
    pub priority: Priority,
    /// VRRPv3: the Max Advertise Interval. VRRPv2: its Advertisement Interval, in centiseconds.
    pub interval: Interval,
    /// VRRPv2: the simple password, if it has one.
    pub password: Option<Password>,
    pub addresses: Addresses,
}

/// What the IP header around an advert says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Envelope {
    pub source: IpAddr,
    pub destination: IpAddr,
    /// TTL or Hop Limit.
    pub hops: u8,
}
