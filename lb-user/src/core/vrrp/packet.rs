//! Adverts as bytes: VRRPv3, and VRRPv2 with RFC 2338's simple password.
//!
//! ```text
//! VRRPv3 (RFC 9568, 5.2)
//!  0                   1                   2                   3
//!  0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
//! +-------+-------+---------------+---------------+---------------+
//! |Version| Type  |     VRID      |   Priority    |     Count     |
//! +-------+-------+---------------+---------------+---------------+
//! |Reserve| Max Advertise Interval|           Checksum            |
//! +-------+-----------------------+-------------------------------+
//! |                  IPv4 or IPv6 addresses ...                   |
//! +---------------------------------------------------------------+
//!
//! VRRPv2 (RFC 3768, 5.1)
//! +-------+-------+---------------+---------------+---------------+
//! |Version| Type  |     VRID      |   Priority    |     Count     |
//! +-------+-------+---------------+---------------+---------------+
//! |   Auth Type   |   Interval    |           Checksum            |
//! +---------------+---------------+-------------------------------+
//! |                      IPv4 addresses ...                       |
//! +---------------------------------------------------------------+
//! |               authentication data, eight bytes                |
//! +---------------------------------------------------------------+
//! ```
//! The checksum of VRRPv2 covers the whole message with the authentication data, as keepalived
//! 2.2.7 has it on the wire. What depends on the configuration is not looked at here.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use lb_common::checksum;

use super::advert::{
    Addresses, Advert, Dialect, Envelope, Family, HOPS, Interval, PROTOCOL, Password, Priority,
    Version, Vrid,
};
use super::refusal::Refusal;

/// The only type of packet (RFC 9568, 5.2.2).
const ADVERTISEMENT: u8 = 1;
/// Bytes before the addresses.
const FIXED: usize = 8;
/// Where the checksum is.
const CHECKSUM: std::ops::Range<usize> = 6..8;
/// Bytes of VRRPv2 behind the addresses (RFC 3768, 5.3.10).
const AUTHENTICATION: usize = 8;
/// No authentication (RFC 3768, 5.3.6).
const AUTH_NONE: u8 = 0;
/// A password in the clear (RFC 2338, 5.3.6).
const AUTH_PASSWORD: u8 = 1;

/// Understands a message; total on any bytes.
///
/// # Errors
/// The first check of RFC 9568, 7.1 that it fails.
pub fn decode(message: &[u8], envelope: &Envelope) -> Result<Advert, Refusal> {
    // RFC 9568, 5.1.1.3, 5.1.2.3, 7.1.
    if envelope.hops != HOPS {
        return Err(Refusal::Hops);
    }
    let (fixed, rest) = message
        .split_first_chunk::<FIXED>()
        .ok_or(Refusal::Length)?;
    let [kind, vrid, priority, count, high, low, _, _] = *fixed;
    let family = Family::of(&envelope.source);
    // RFC 9568, 7.1; RFC 3768 knows IPv4 alone.
    let version = match (kind >> 4, family) {
        (3, _) => Version::V3,
        (2, Family::V4) => Version::V2,
        _ => return Err(Refusal::Version),
    };
    // RFC 9568, 5.2.2, 7.1.
    if kind & 0xf != ADVERTISEMENT {
        return Err(Refusal::Type);
    }
    // RFC 9568, 5.2.5.
    if count == 0 {
        return Err(Refusal::Count);
    }
    let (addresses, authentication) = split(rest, count, family, version)?;
    // RFC 9568, 5.2.8, 7.1.
    if !is_sum_right(message, envelope, version) {
        return Err(Refusal::Checksum);
    }
    let vrid = Vrid::new(vrid).ok_or(Refusal::Vrid)?;
    let (interval, password) = match version {
        // RFC 9568, 5.2.6: what is reserved is ignored.
        Version::V3 => (u16::from_be_bytes([high & 0xf, low]), None),
        Version::V2 => (
            u16::from(low) * Interval::SECOND,
            password(high, authentication)?,
        ),
    };
    // RFC 9568, 7.1 with erratum 8301.
    let interval = Interval::centiseconds(interval).ok_or(Refusal::NoInterval)?;
    let addresses = read_addresses(addresses, family).ok_or(Refusal::Count)?;
    // RFC 9568, 5.2.9, 7.1 with erratum 8300.
    if !addresses.is_first_fit() {
        return Err(Refusal::NoLinkLocal);
    }
    Ok(Advert {
        version,
        vrid,
        priority: Priority(priority),
        interval,
        password,
        addresses,
    })
}

/// The addresses and the eight bytes of authentication, zeros where there are none.
///
/// RFC 9568, 7.1 asks for a complete packet. In a longer one the count is wrong.
fn split(
    rest: &[u8],
    count: u8,
    family: Family,
    version: Version,
) -> Result<(&[u8], [u8; AUTHENTICATION]), Refusal> {
    let size = match family {
        Family::V4 => 4,
        Family::V6 => 16,
    };
    let (addresses, authentication) = rest
        .split_at_checked(usize::from(count) * size)
        .ok_or(Refusal::Length)?;
    match version {
        Version::V3 if authentication.is_empty() => Ok((addresses, [0; AUTHENTICATION])),
        Version::V3 => Err(Refusal::Length),
        Version::V2 => {
            let authentication = authentication.try_into().map_err(|_| Refusal::Length)?;
            Ok((addresses, authentication))
        }
    }
}

fn is_sum_right(message: &[u8], envelope: &Envelope, version: Version) -> bool {
    let plain = checksum::add(0, message);
    let pseudo = |plain| pseudo_header(plain, envelope, message.len());
    // The sum of a right message and its checksum is all ones.
    let is_right = |sum| checksum::fold(sum) == u16::MAX;
    match (version, Family::of(&envelope.source)) {
        (Version::V2, _) => is_right(plain),
        (Version::V3, Family::V6) => is_right(pseudo(plain)),
        (Version::V3, Family::V4) => is_right(plain) || is_right(pseudo(plain)),
    }
}

/// Adds the pseudo-header: RFC 8200, 8.1, or the one of IPv4 as TCP has it.
///
/// The words of both have the same sum: addresses, length and protocol.
fn pseudo_header(sum: u64, envelope: &Envelope, length: usize) -> u64 {
    let sum = add_address(sum, &envelope.source);
    let sum = add_address(sum, &envelope.destination);
    sum + length as u64 + u64::from(PROTOCOL)
}

fn add_address(sum: u64, address: &IpAddr) -> u64 {
    match address {
        IpAddr::V4(v4) => checksum::add(sum, &v4.octets()),
        IpAddr::V6(v6) => checksum::add(sum, &v6.octets()),
    }
}

/// RFC 3768, 5.3.10: without authentication the data is ignored.
fn password(kind: u8, data: [u8; AUTHENTICATION]) -> Result<Option<Password>, Refusal> {
    match kind {
        AUTH_NONE => Ok(None),
        AUTH_PASSWORD => Ok(Some(Password(data))),
        _ => Err(Refusal::AuthType),
    }
}

fn read_addresses(bytes: &[u8], family: Family) -> Option<Addresses> {
    let addresses: Vec<IpAddr> = match family {
        Family::V4 => {
            let (addresses, _) = bytes.as_chunks::<4>();
            addresses
                .iter()
                .map(|v4| Ipv4Addr::from(*v4).into())
                .collect()
        }
        Family::V6 => {
            let (addresses, _) = bytes.as_chunks::<16>();
            addresses
                .iter()
                .map(|v6| Ipv6Addr::from(*v6).into())
                .collect()
        }
    };
    Addresses::new(addresses)
}

/// Writes an advert in place of what is in `message` (RFC 9568, 7.2).
///
/// The dialect concerns VRRPv3 over IPv4 alone. What a field of the version cannot hold is cut: an
/// interval over 12 bits, or one that is not a whole number of seconds in VRRPv2.
pub fn encode(advert: &Advert, envelope: &Envelope, dialect: Dialect, message: &mut Vec<u8>) {
    let Advert {
        version,
        vrid,
        priority,
        interval,
        password,
        addresses,
    } = advert;
    let (number, [high, low]) = match version {
        // RFC 9568, 5.2.6: what is reserved is zero.
        Version::V3 => (3, interval.get().min(Interval::LONGEST_V3).to_be_bytes()),
        Version::V2 => {
            let kind = password.map_or(AUTH_NONE, |_| AUTH_PASSWORD);
            let seconds = interval.get() / Interval::SECOND;
            (2, [kind, u8::try_from(seconds).unwrap_or(u8::MAX)])
        }
    };
    let kind = number << 4 | ADVERTISEMENT;
    let count = addresses.count();
    message.clear();
    // RFC 9568, 5.2.8: the checksum counts as zero.
    message.extend([kind, vrid.get(), priority.0, count, high, low, 0, 0]);
    for address in addresses.iter() {
        match address {
            IpAddr::V4(v4) => message.extend(v4.octets()),
            IpAddr::V6(v6) => message.extend(v6.octets()),
        }
    }
    if *version == Version::V2 {
        message.extend(password.map_or([0; AUTHENTICATION], |password| password.0));
    }
    let plain = checksum::add(0, message);
    let sum = match (version, addresses.family(), dialect) {
        (Version::V2, _, _) | (Version::V3, Family::V4, Dialect::Message) => plain,
        (Version::V3, Family::V6, _) | (Version::V3, Family::V4, Dialect::PseudoHeader) => {
            pseudo_header(plain, envelope, message.len())
        }
    };
    message[CHECKSUM].copy_from_slice(&(!checksum::fold(sum)).to_be_bytes());
}

#[cfg(test)]
mod tests;
