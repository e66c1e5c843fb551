//! ICMP and ICMPv6 as far as a balancer needs them: errors about packets (RFC 792, RFC 4443).

use crate::{abi::Ip, parse::Family};

/// IP protocol number of ICMP.
pub const PROTOCOL_V4: u8 = 1;
/// IP protocol number of ICMPv6.
pub const PROTOCOL_V6: u8 = 58;

/// Destination unreachable.
pub const V4_UNREACHABLE: u8 = 3;
/// The code of [`V4_UNREACHABLE`] that says: fragmentation needed and not allowed.
pub const V4_TOO_BIG: u8 = 4;
/// Time exceeded.
pub const V4_TIME_EXCEEDED: u8 = 11;
/// Parameter problem.
pub const V4_PARAMETER_PROBLEM: u8 = 12;
/// Destination unreachable.
pub const V6_UNREACHABLE: u8 = 1;
/// Packet too big.
pub const V6_TOO_BIG: u8 = 2;
/// Time exceeded.
pub const V6_TIME_EXCEEDED: u8 = 3;
/// Parameter problem.
pub const V6_PARAMETER_PROBLEM: u8 = 4;

/// The TTL or hop limit of what the balancer itself sends.
pub const ANSWER_TTL: u8 = 64;

/// The IP protocol number of a family's ICMP.
#[inline(always)]
#[must_use]
pub const fn protocol(family: Family) -> u8 {
    match family {
        Family::V4 => PROTOCOL_V4,
        Family::V6 => PROTOCOL_V6,
    }
}

/// Whether a type is that of an error about a packet's way to its end. Redirects and source quenches
/// are not: those are for hosts on the link, or for nobody (RFC 6633).
#[inline(always)]
#[must_use]
pub const fn is_error(family: Family, kind: u8) -> bool {
    match family {
        Family::V4 => {
            (kind == V4_UNREACHABLE) | (kind == V4_TIME_EXCEEDED) | (kind == V4_PARAMETER_PROBLEM)
        }
        Family::V6 => kind >= V6_UNREACHABLE && kind <= V6_PARAMETER_PROBLEM,
    }
}

/// Whether a packet from this source may be answered with an error: it must name one host (RFC
/// 1122, 3.2.2; RFC 4443, 2.4).
#[inline(always)]
#[must_use]
pub const fn may_be_answered(source: &Ip) -> bool {
    if source.is_v4() {
        let [first, _, _, _] = source.v4_octets();
        // This network, loopback, and all from multicast on.
        first != 0 && first != 127 && first < 224
    } else {
        let [a, b, c, _] = source.words();
        // ::/96 with the unspecified address and loopback, and multicast.
        a | b | c != 0 && a.to_ne_bytes()[0] != 0xff
    }
}

#[cfg(test)]
mod tests {
    use core::net::IpAddr;

    use super::may_be_answered;
    use crate::abi::Ip;

    #[test]
    fn only_packets_from_one_host_are_answered() {
        let answered = |text: &str| {
            let address: IpAddr = text.parse().unwrap();
            may_be_answered(&Ip::from(address))
        };
        for host in [
            "10.0.0.1",
            "223.255.255.255",
            "fd00::1",
            "fe80::1",
            "2001:db8::1",
        ] {
            assert!(answered(host), "{host}");
        }
        for none in [
            "0.0.0.0",
            "0.1.2.3",
            "127.0.0.1",
            "224.0.0.1",
            "239.1.2.3",
            "255.255.255.255",
            "::",
            "::1",
            "ff02::1",
        ] {
            assert!(!answered(none), "{none}");
        }
    }
}
