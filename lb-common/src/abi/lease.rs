//! For how long a virtual router has an address, whatever becomes of its daemon, and where.

use super::Ip;

/// What the daemon says of a virtual router's address, with each advert that it sends: until when no
/// peer can have taken it over. When that is past neighbours are not told any more that it is here.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Lease {
    /// In nanoseconds of the kernel's monotonic clock; 0 if the router is not Active.
    pub until: u64,
    /// The number of the router that goes on as Active if its daemon is killed and is back before that; 0
    /// if none does.
    pub vrid: u32,
    /// The number of the router whose virtual MAC address neighbours are told, 0 if it is the interface's
    /// own.
    mac: u32,
}

const _: () = assert!(size_of::<Lease>() == 16);

impl Lease {
    /// Addresses of virtual routers that there is room for.
    pub const LIMIT: u32 = 1_024;

    /// Until then, to be taken over by router `vrid`.
    #[must_use]
    pub const fn new(until: u64, vrid: u8) -> Self {
        Self {
            until,
            vrid: vrid as u32,
            mac: 0,
        }
    }

    /// The same for who has the virtual MAC address of router `number`, if it is not 0.
    #[must_use]
    pub const fn at(self, number: u8) -> Self {
        Self {
            mac: number as u32,
            ..self
        }
    }

    /// The number in the virtual MAC address, 0 if there is none.
    #[inline(always)]
    #[must_use]
    pub const fn mac(&self) -> u8 {
        self.mac as u8
    }
}

/// The MAC address of a virtual router (RFC 9568, 7.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct VirtualMac([u8; 6]);

impl VirtualMac {
    /// How keys begin, in the order of memory.
    const GROUP: u32 = u32::from_ne_bytes([0xff, 2, 0, 0]);

    /// That of a router of IPv4 addresses.
    #[inline(always)]
    #[must_use]
    pub const fn v4(number: u8) -> Self {
        Self([0, 0, 0x5e, 0, 1, number])
    }

    /// That of a router of IPv6 addresses.
    #[inline(always)]
    #[must_use]
    pub const fn v6(number: u8) -> Self {
        Self([0, 0, 0x5e, 0, 2, number])
    }

    /// A MAC address, if it is one of these.
    #[inline(always)]
    #[must_use]
    pub const fn read(mac: &[u8; 6]) -> Option<Self> {
        match mac {
            [0, 0, 0x5e, 0, 1 | 2, _] => Some(Self(*mac)),
            _ => None,
        }
    }

    #[inline(always)]
    #[must_use]
    pub const fn octets(&self) -> [u8; 6] {
        self.0
    }

    /// Under what [`LEASES`](super::LEASES) says whether frames to it are for this host: as long as the
    /// lease there is not 0. A group, as no VIP is one.
    #[inline(always)]
    #[must_use]
    pub const fn key(&self) -> Ip {
        let [.., c, d, e, f] = self.0;
        let last = u32::from_ne_bytes([c, d, e, f]);
        Ip::from_words([Self::GROUP, 0, 0, last])
    }

    /// The one with that key, if it is one's.
    #[must_use]
    pub const fn of_key(key: Ip) -> Option<Self> {
        let [Self::GROUP, 0, 0, last] = key.words() else {
            return None;
        };
        let [c, d, e, f] = last.to_ne_bytes();
        Self::read(&[0, 0, c, d, e, f])
    }
}

impl core::fmt::Display for VirtualMac {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        let [a, b, c, d, e, last] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{last:02x}")
    }
}

#[cfg(test)]
mod tests {
    use core::net::IpAddr;

    use super::VirtualMac;

    #[test]
    fn virtual_macs_are_known_and_have_a_key_each() {
        let (v4, v6) = (VirtualMac::v4(51), VirtualMac::v6(51));
        assert_eq!(v4.octets(), [0, 0, 0x5e, 0, 1, 51]);
        assert_eq!(VirtualMac::read(&v6.octets()), Some(v6));
        assert_eq!(VirtualMac::read(&[0, 0, 0x5e, 0, 3, 51]), None);
        assert_eq!(VirtualMac::read(&[2, 0, 0x5e, 0, 1, 51]), None);
        assert_ne!(v4.key(), v6.key());
        assert_ne!(v4.key(), VirtualMac::v4(52).key());
        assert!(IpAddr::from(v4.key()).is_multicast());
        for mac in [v4, v6] {
            assert_eq!(VirtualMac::of_key(mac.key()), Some(mac));
        }
        for other in [
            "ff02::5e00:333",
            "ff02::1",
            "fd00:40::5e00:133",
            "172.16.40.24",
        ] {
            let other: IpAddr = other.parse().unwrap();
            assert_eq!(VirtualMac::of_key(other.into()), None);
        }
    }
}
