//! Who may send: a prefix of addresses.

use std::{fmt, net::IpAddr, str::FromStr};

use lb_common::abi::Ip;

/// Addresses that begin alike.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Prefix {
    address: IpAddr,
    length: u8,
}

/// Why a text is no prefix.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WrongPrefix {
    #[error("give a prefix, such as 10.9.0.0/24 or fd00:9::/64")]
    Unreadable,
    #[error("{0} is IPv4 in IPv6 form; write {1}")]
    Mapped(IpAddr, IpAddr),
    #[error("there are bits behind the prefix; write {0}")]
    BitsBehind(Prefix),
}

impl Prefix {
    /// Its first address.
    #[must_use]
    pub const fn address(&self) -> IpAddr {
        self.address
    }

    /// Whether the address lies within. IPv4 in IPv6 form is taken for IPv4.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        let same_family = address.is_ipv4() == self.address.is_ipv4();
        same_family && Self { address, ..*self }.without_rest() == *self
    }

    /// Bits of the IPv6 form that count.
    pub(crate) const fn bits(self) -> u32 {
        match self.address {
            IpAddr::V4(_) => 96 + self.length as u32,
            IpAddr::V6(_) => self.length as u32,
        }
    }

    fn without_rest(self) -> Self {
        let keep = u128::MAX.checked_shl(128 - self.bits()).unwrap_or(0);
        let address = u128::from_be_bytes(Ip::from(self.address).octets()) & keep;
        let octets = address.to_be_bytes();
        let address = match self.address {
            IpAddr::V4(_) => {
                let [.., a, b, c, d] = octets;
                IpAddr::from([a, b, c, d])
            }
            IpAddr::V6(_) => IpAddr::from(octets),
        };
        Self { address, ..self }
    }
}

impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.length)
    }
}

impl FromStr for Prefix {
    type Err = WrongPrefix;

    /// Reads `address/length`, or an address that stands for itself alone.
    fn from_str(text: &str) -> Result<Self, WrongPrefix> {
        let (address, length) = match text.split_once('/') {
            Some((address, length)) => (address, Some(length)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().map_err(|_| WrongPrefix::Unreadable)?;
        if let IpAddr::V6(v6) = address
            && let Some(v4) = v6.to_ipv4_mapped()
        {
            return Err(WrongPrefix::Mapped(address, v4.into()));
        }
        let whole = if address.is_ipv4() { 32 } else { 128 };
        let length = match length {
            Some(length) => length.parse().map_err(|_| WrongPrefix::Unreadable)?,
            None => whole,
        };
        if length > whole {
            return Err(WrongPrefix::Unreadable);
        }
        let prefix = Self { address, length };
        let clean = prefix.without_rest();
        if clean == prefix {
            Ok(prefix)
        } else {
            Err(WrongPrefix::BitsBehind(clean))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Prefix, WrongPrefix};

    #[test]
    fn prefixes_of_both_families_are_read() {
        for (text, bits) in [
            ("10.9.0.0/24", 120),
            ("0.0.0.0/0", 96),
            ("fd00:9::/64", 64),
            ("::/0", 0),
        ] {
            let prefix: Prefix = text.parse().unwrap();
            assert_eq!((prefix.to_string().as_str(), prefix.bits()), (text, bits));
        }
        assert_eq!("10.9.0.1".parse::<Prefix>().unwrap().bits(), 128);
    }

    #[test]
    fn addresses_of_the_same_family_lie_within() {
        let contains = |prefix: &str, address: &str| {
            let prefix: Prefix = prefix.parse().unwrap();
            prefix.contains(address.parse().unwrap())
        };
        assert!(contains("10.9.0.0/24", "10.9.0.255"));
        assert!(contains("10.9.0.0/24", "::ffff:10.9.0.1"));
        assert!(!contains("10.9.0.0/24", "10.9.1.0"));
        assert!(contains("fd00:9::/64", "fd00:9::1"));
        assert!(!contains("fd00:9::/64", "fd00:9:0:1::1"));
        assert!(contains("0.0.0.0/0", "192.0.2.1") && !contains("0.0.0.0/0", "fd00::1"));
        assert!(contains("::/0", "fd00::1") && !contains("::/0", "192.0.2.1"));
    }

    #[test]
    fn a_mistake_is_told_with_its_remedy() {
        let clean = "10.9.0.0/24".parse().unwrap();
        let wrong = |text: &str| text.parse::<Prefix>().unwrap_err();
        assert_eq!(wrong("10.9.0.7/24"), WrongPrefix::BitsBehind(clean));
        assert!(
            wrong("::ffff:10.9.0.0/120")
                .to_string()
                .ends_with("write 10.9.0.0")
        );
        for text in ["", "10.9.0.0/33", "10.9.0.0/", "eth0"] {
            assert_eq!(wrong(text), WrongPrefix::Unreadable);
        }
    }
}
