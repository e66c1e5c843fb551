//! What keepalived 2.2.7 has sent, byte for byte, and each check of RFC 9568, 7.1.

use std::net::IpAddr;

use proptest::prelude::*;

use super::{decode, encode};
use crate::core::vrrp::advert::{
    Addresses, Advert, Dialect, Envelope, Family, HOPS, Interval, Password, Priority, Version, Vrid,
};
use crate::core::vrrp::refusal::Refusal;

fn bytes(hex: &str) -> Vec<u8> {
    let byte = |at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap();
    (0..hex.len()).step_by(2).map(byte).collect()
}

fn from(source: &str) -> Envelope {
    let source: IpAddr = source.parse().unwrap();
    Envelope {
        source,
        destination: Family::of(&source).group(),
        hops: HOPS,
    }
}

const V4: &str = "10.77.0.1";
const V6: &str = "fe80::744b:b2ff:feed:4ad7";

fn advert(version: Version, vrid: u8, centiseconds: u16, addresses: &[&str]) -> Advert {
    let addresses: Vec<IpAddr> = addresses.iter().map(|text| text.parse().unwrap()).collect();
    Advert {
        version,
        vrid: Vrid::new(vrid).unwrap(),
        priority: Priority(150),
        interval: Interval::centiseconds(centiseconds).unwrap(),
        password: None,
        addresses: Addresses::new(addresses).unwrap(),
    }
}

fn with_password(password: &str, advert: Advert) -> Advert {
    Advert {
        password: Password::new(password),
        ..advert
    }
}

/// From the wire: the source, the message, and what it says.
fn of_keepalived() -> Vec<(Envelope, Vec<u8>, Advert)> {
    use Version::{V2, V3};
    let released = |advert| Advert {
        priority: Priority::RELEASE,
        ..advert
    };
    let two = advert(V2, 51, 100, &["10.77.0.100", "10.77.0.101"]);
    let two = with_password("secret12", two);
    let slow = with_password("abc", advert(V2, 55, 200, &["10.77.0.105"]));
    let open = advert(V2, 52, 100, &["10.77.0.102"]);
    let v3 = advert(V3, 53, 10, &["10.77.0.103"]);
    let unicast = advert(V3, 56, 10, &["10.77.0.106"]);
    let v6 = advert(V3, 54, 10, &["fe80::5:54", "fd77::104"]);
    let to_peer = Envelope {
        destination: "10.77.0.2".parse().unwrap(),
        ..from(V4)
    };
    let v6_addresses = "fe800000000000000000000000050054fd770000000000000000000000000104";
    let (long, longer) = (
        format!("31369602000acc28{v6_addresses}"),
        format!("31360002000a6229{v6_addresses}"),
    );
    [
        (
            from(V4),
            "213396020101c4e70a4d00640a4d00657365637265743132",
            two.clone(),
        ),
        (
            from(V4),
            "2133000201015ae80a4d00640a4d00657365637265743132",
            released(two),
        ),
        (from(V4), "21379601010278ac0a4d00696162630000000000", slow),
        (from(V4), "2134960100013e160a4d00660000000000000000", open),
        (from(V4), "31359601000a432e0a4d0067", v3.clone()),
        (from(V4), "31350001000ad92e0a4d0067", released(v3)),
        (to_peer, "31389601000a18ec0a4d006a", unicast),
        (from(V6), &long, v6.clone()),
        (from(V6), &longer, released(v6)),
    ]
    .map(|(envelope, hex, advert)| (envelope, bytes(hex), advert))
    .into()
}

#[test]
fn what_keepalived_sends_is_understood() {
    for (envelope, message, advert) in of_keepalived() {
        assert_eq!(decode(&message, &envelope), Ok(advert));
    }
}

/// RFC 9568, 7.2: the fields and the checksum are filled in.
#[test]
fn what_is_sent_is_what_keepalived_sends() {
    for (envelope, message, advert) in of_keepalived() {
        let mut sent = vec![1, 2, 3];
        encode(&advert, &envelope, Dialect::PseudoHeader, &mut sent);
        assert_eq!(sent, message);
    }
}

fn encoded(advert: &Advert, envelope: &Envelope, dialect: Dialect) -> Vec<u8> {
    let mut message = Vec::new();
    encode(advert, envelope, dialect, &mut message);
    message
}

/// An advert of VRRPv3 over IPv4.
fn plain() -> (Envelope, Vec<u8>) {
    let advert = advert(Version::V3, 53, 10, &["10.77.0.103"]);
    let message = encoded(&advert, &from(V4), Dialect::Message);
    (from(V4), message)
}

/// The same message with a byte replaced, and a checksum that fits.
fn changed(message: &[u8], at: usize, byte: u8) -> Vec<u8> {
    let mut message = message.to_vec();
    message[at] = byte;
    with_sum(message)
}

fn with_sum(mut message: Vec<u8>) -> Vec<u8> {
    message[6..8].fill(0);
    let sum = lb_common::checksum::fold(lb_common::checksum::add(0, &message));
    message[6..8].copy_from_slice(&(!sum).to_be_bytes());
    message
}

/// RFC 9568, 5.1.1.3, 5.1.2.3, 7.1.
#[test]
fn hops_of_255_are_asked_for() {
    for (envelope, message, _) in of_keepalived() {
        assert!(decode(&message, &envelope).is_ok());
        for hops in [0, 1, 254] {
            let routed = Envelope { hops, ..envelope };
            assert_eq!(decode(&message, &routed), Err(Refusal::Hops));
        }
    }
}

/// RFC 9568, 7.1; RFC 3768, 7.1.
#[test]
fn versions_other_than_two_and_three_are_refused() {
    let (envelope, message) = plain();
    assert!(decode(&message, &envelope).is_ok());
    for version in [0, 1, 4, 15] {
        let message = changed(&message, 0, version << 4 | 1);
        assert_eq!(decode(&message, &envelope), Err(Refusal::Version));
    }
}

/// RFC 3768 knows IPv4 alone.
#[test]
fn version_two_is_refused_over_ipv6() {
    let (envelope, message, _) = of_keepalived().remove(0);
    assert!(decode(&message, &envelope).is_ok());
    assert_eq!(decode(&message, &from(V6)), Err(Refusal::Version));
}

/// RFC 9568, 5.2.2, 7.1.
#[test]
fn types_other_than_advertisement_are_refused() {
    let (envelope, message) = plain();
    assert!(decode(&message, &envelope).is_ok());
    for kind in [0, 2, 15] {
        let message = changed(&message, 0, 3 << 4 | kind);
        assert_eq!(decode(&message, &envelope), Err(Refusal::Type));
    }
}

/// RFC 9568, 5.2.5 and erratum 8299.
#[test]
fn adverts_without_addresses_are_refused() {
    let (envelope, message) = plain();
    assert!(decode(&message, &envelope).is_ok());
    let none = with_sum(changed(&message[..8], 3, 0));
    assert_eq!(decode(&none, &envelope), Err(Refusal::Count));
}

/// RFC 9568, 7.1; RFC 3768, 7.1.
#[test]
fn adverts_that_are_not_complete_are_refused() {
    for (envelope, message, _) in of_keepalived() {
        assert!(decode(&message, &envelope).is_ok());
        for length in 0..message.len() {
            let refused = decode(&message[..length], &envelope);
            assert_eq!(refused, Err(Refusal::Length));
        }
        let mut longer = message;
        longer.push(0);
        assert_eq!(decode(&longer, &envelope), Err(Refusal::Length));
    }
}

/// RFC 9568, 5.2.8, 7.1: every bit counts, of the pseudo-header too.
#[test]
fn checksums_are_verified() {
    for (envelope, message, advert) in of_keepalived() {
        for bit in 0..message.len() * 8 {
            let mut damaged = message.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert!(decode(&damaged, &envelope).is_err(), "bit {bit}");
        }
        let elsewhere = Envelope {
            destination: "10.77.0.9".parse().unwrap(),
            ..envelope
        };
        let expected = match advert.version {
            Version::V2 => Ok(advert),
            Version::V3 => Err(Refusal::Checksum),
        };
        assert_eq!(decode(&message, &elsewhere), expected);
    }
}

/// RFC 9568, 5.2.8: over IPv4 the message alone, and what keepalived makes of it.
#[test]
fn both_dialects_are_understood_over_ipv4() {
    let advert = advert(Version::V3, 53, 10, &["10.77.0.103"]);
    let (envelope, message) = plain();
    let sum = lb_common::checksum::fold(lb_common::checksum::add(0, &message));
    assert_eq!(sum, 0xffff, "the message alone");
    let other = encoded(&advert, &envelope, Dialect::PseudoHeader);
    assert_ne!(message, other);
    assert_eq!(decode(&message, &envelope), Ok(advert.clone()));
    assert_eq!(decode(&other, &envelope), Ok(advert));
}

/// RFC 9568, 5.2.8: over IPv6 the pseudo-header always counts.
#[test]
fn the_message_alone_is_no_checksum_over_ipv6() {
    let advert = advert(Version::V3, 54, 10, &["fe80::5:54"]);
    let message = encoded(&advert, &from(V6), Dialect::Message);
    assert_eq!(decode(&message, &from(V6)), Ok(advert));
    assert_eq!(
        decode(&with_sum(message), &from(V6)),
        Err(Refusal::Checksum)
    );
}

/// RFC 3768, 5.3.8: the message alone.
#[test]
fn a_pseudo_header_is_no_checksum_in_version_two() {
    let (envelope, mut message, advert) = of_keepalived().remove(0);
    assert_eq!(decode(&message, &envelope), Ok(advert));
    message[6..8].fill(0);
    let plain = lb_common::checksum::add(0, &message);
    let sum = lb_common::checksum::fold(super::pseudo_header(plain, &envelope, message.len()));
    message[6..8].copy_from_slice(&(!sum).to_be_bytes());
    assert_eq!(decode(&message, &envelope), Err(Refusal::Checksum));
}

/// RFC 9568, 5.2.6.
#[test]
fn what_is_reserved_is_sent_as_zero_and_ignored() {
    let (envelope, message) = plain();
    assert_eq!(message[4] >> 4, 0);
    let reserved = changed(&message, 4, 0xf0);
    assert_eq!(decode(&reserved, &envelope), decode(&message, &envelope));
}

/// RFC 9568, 5.2.7: 12 bits.
#[test]
fn the_longest_interval_is_sent_and_understood() {
    let advert = advert(Version::V3, 53, 4095, &["10.77.0.103"]);
    let message = encoded(&advert, &from(V4), Dialect::Message);
    assert_eq!(message[4..6], [0x0f, 0xff]);
    assert_eq!(decode(&message, &from(V4)), Ok(advert));
}

/// RFC 9568, 7.1 with erratum 8301.
#[test]
fn an_interval_of_zero_is_refused() {
    let (envelope, message) = plain();
    assert!(decode(&changed(&message, 5, 1), &envelope).is_ok());
    let message = changed(&message, 5, 0);
    assert_eq!(decode(&message, &envelope), Err(Refusal::NoInterval));
    let (envelope, message, _) = of_keepalived().remove(0);
    let message = changed(&message, 5, 0);
    assert_eq!(decode(&message, &envelope), Err(Refusal::NoInterval));
}

/// RFC 9568, 5.2.3: from 1 to 255.
#[test]
fn a_vrid_of_zero_is_refused() {
    let (envelope, message) = plain();
    assert!(decode(&changed(&message, 1, 255), &envelope).is_ok());
    let message = changed(&message, 1, 0);
    assert_eq!(decode(&message, &envelope), Err(Refusal::Vrid));
}

/// RFC 9568, 5.2.9, 7.1 with erratum 8300.
#[test]
fn over_ipv6_the_first_address_must_be_link_local() {
    for (addresses, is_right) in [
        (["fe80::1", "fd77::1"], true),
        (["fd77::1", "fe80::1"], false),
        (["2001:db8::1", "2001:db8::2"], false),
    ] {
        let advert = advert(Version::V3, 54, 10, &addresses);
        let message = encoded(&advert, &from(V6), Dialect::Message);
        let expected = if is_right {
            Ok(advert)
        } else {
            Err(Refusal::NoLinkLocal)
        };
        assert_eq!(decode(&message, &from(V6)), expected);
    }
}

/// RFC 9568, 5.2.9.
#[test]
fn addresses_are_of_one_family() {
    let mixed: [IpAddr; 2] = ["10.77.0.103".parse().unwrap(), "fe80::1".parse().unwrap()];
    assert_eq!(Addresses::new(mixed), None);
    assert_eq!(Addresses::new([]), None);
    assert_eq!(Addresses::new(vec![mixed[0]; 256]), None);
    assert_eq!(Addresses::new(vec![mixed[0]; 255]).unwrap().count(), 255);
}

/// RFC 2338, 5.3.6, 5.3.10; RFC 3768, 5.3.10.
#[test]
fn kinds_of_authentication_but_none_and_password_are_refused() {
    let (envelope, message, advert) = of_keepalived().remove(0);
    let none = decode(&changed(&message, 4, 0), &envelope);
    assert_eq!(
        none,
        Ok(Advert {
            password: None,
            ..advert
        }),
        "the data is ignored"
    );
    for kind in [2, 254, 255] {
        let message = changed(&message, 4, kind);
        assert_eq!(decode(&message, &envelope), Err(Refusal::AuthType));
    }
}

#[test]
fn passwords_are_one_to_eight_bytes_and_are_not_shown() {
    assert_eq!(Password::new("abc"), Some(Password(*b"abc\0\0\0\0\0")));
    assert_eq!(Password::new("12345678"), Some(Password(*b"12345678")));
    assert_eq!(Password::new("123456789"), None);
    assert_eq!(Password::new(""), None);
    let shown = format!("{:?}", Password::new("hunter2"));
    assert!(!shown.contains("104") && !shown.contains("hunter"));
}

/// RFC 9568, 7.3.
#[test]
fn virtual_routers_have_a_mac_address_for_each_family() {
    let vrid = Vrid::new(0x2a).unwrap();
    assert_eq!(vrid.mac(Family::V4), [0, 0, 0x5e, 0, 1, 0x2a]);
    assert_eq!(vrid.mac(Family::V6), [0, 0, 0x5e, 0, 2, 0x2a]);
    let link_local: std::net::Ipv6Addr = "fe80::200:5eff:fe00:22a".parse().unwrap();
    assert_eq!(vrid.link_local(), link_local);
}

#[test]
fn intervals_are_whole_centiseconds() {
    use std::time::Duration;
    let of = |millis| Interval::from_duration(Duration::from_millis(millis)).map(Interval::get);
    assert_eq!(of(10), Some(1));
    assert_eq!(of(1_000), Some(100));
    assert_eq!(of(655_350), Some(65_535));
    for wrong in [0, 5, 15, 655_360] {
        assert_eq!(of(wrong), None, "{wrong}");
    }
    assert_eq!(
        Interval::from_duration(Duration::from_nanos(10_000_001)),
        None
    );
    let duration = Interval::centiseconds(7).unwrap().duration();
    assert_eq!(duration, Duration::from_millis(70));
}

prop_compose! {
    fn any_advert()(
        is_v3: bool,
        is_v6: bool,
        vrid in 1..=255_u8,
        priority: u8,
        interval in 1..=4095_u16,
        seconds in 1..=255_u16,
        password: Option<[u8; 8]>,
        addresses in prop::collection::vec(any::<u32>(), 1..=255),
    ) -> Advert {
        let v6 = |low: &u32| IpAddr::from((0xfe80_u128 << 112 | u128::from(*low)).to_be_bytes());
        let v4 = |word: &u32| IpAddr::from(word.to_be_bytes());
        let addresses: Vec<IpAddr> = if is_v3 && is_v6 {
            addresses.iter().map(v6).collect()
        } else {
            addresses.iter().map(v4).collect()
        };
        let interval = if is_v3 { interval } else { seconds * 100 };
        Advert {
            version: if is_v3 { Version::V3 } else { Version::V2 },
            vrid: Vrid::new(vrid).unwrap(),
            priority: Priority(priority),
            interval: Interval::centiseconds(interval).unwrap(),
            password: password.filter(|_| !is_v3).map(Password),
            addresses: Addresses::new(addresses).unwrap(),
        }
    }
}

proptest! {
    #[test]
    fn what_is_encoded_is_decoded_as_it_was(advert in any_advert(), is_plain: bool) {
        let source = match advert.addresses.family() {
            Family::V4 => V4,
            Family::V6 => V6,
        };
        let dialect = if is_plain { Dialect::Message } else { Dialect::PseudoHeader };
        let message = encoded(&advert, &from(source), dialect);
        prop_assert_eq!(decode(&message, &from(source)), Ok(advert));
    }
}
