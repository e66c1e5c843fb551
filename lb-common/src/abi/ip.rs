//! IP addresses of both families as one type.

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// An IP address as 16 bytes in network order; IPv4 as `::ffff:a.b.c.d` (RFC 4291, 2.5.5.2).
///
/// Kept as four words in memory order: bytes would each take a register or a stack slot in the
/// kernel half.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(C)]
pub struct Ip([u32; 4]);

impl Ip {
    /// The address in IPv6 form.
    #[inline(always)]
    #[must_use]
    pub const fn new(octets: [u8; 16]) -> Self {
        let [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p] = octets;
        Self([
            word([a, b, c, d]),
            word([e, f, g, h]),
            word([i, j, k, l]),
            word([m, n, o, p]),
        ])
    }

    /// The address of four words in memory order.
    #[inline(always)]
    #[must_use]
    pub const fn from_words(words: [u32; 4]) -> Self {
        Self(words)
    }

    /// The mapped form of an IPv4 address.
    #[inline(always)]
    #[must_use]
    pub const fn from_v4(v4: [u8; 4]) -> Self {
        Self([0, 0, word([0, 0, 0xff, 0xff]), word(v4)])
    }

    /// All 16 bytes.
    #[inline(always)]
    #[must_use]
    pub const fn octets(&self) -> [u8; 16] {
        let [first, second, third, fourth] = self.0;
        let ([a, b, c, d], [e, f, g, h]) = (first.to_ne_bytes(), second.to_ne_bytes());
        let ([i, j, k, l], [m, n, o, p]) = (third.to_ne_bytes(), fourth.to_ne_bytes());
        [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p]
    }

    /// The last four bytes: the IPv4 address, if it is one.
    #[inline(always)]
    #[must_use]
    pub const fn v4_octets(&self) -> [u8; 4] {
        self.0[3].to_ne_bytes()
    }

    /// Whether this is a mapped IPv4 address.
    #[inline(always)]
    #[must_use]
    pub const fn is_v4(&self) -> bool {
        self.0[0] | self.0[1] | (self.0[2] ^ word([0, 0, 0xff, 0xff])) == 0
    }

    /// Whether both are the same, found with a single branch, as by [`super::FlowKey::is`].
    #[inline(always)]
    #[must_use]
    pub const fn is(&self, other: &Self) -> bool {
        let ([a, b, c, d], [e, f, g, h]) = (self.0, other.0);
        (a ^ e) | (b ^ f) | (c ^ g) | (d ^ h) == 0
    }

    /// The address as four words in memory order.
    #[inline(always)]
    #[must_use]
    pub const fn words(&self) -> [u32; 4] {
        self.0
    }
}

const fn word(octets: [u8; 4]) -> u32 {
    u32::from_ne_bytes(octets)
}

impl From<IpAddr> for Ip {
    fn from(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(v4) => Self::from_v4(v4.octets()),
            IpAddr::V6(v6) => Self::new(v6.octets()),
        }
    }
}

impl From<Ip> for IpAddr {
    fn from(ip: Ip) -> Self {
        if ip.is_v4() {
            Self::V4(Ipv4Addr::from(ip.v4_octets()))
        } else {
            Self::V6(Ipv6Addr::from(ip.octets()))
        }
    }
}
