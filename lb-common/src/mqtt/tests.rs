//! Real packets, and arbitrary bytes.

use proptest::prelude::*;

use super::{CONNECT, Connect, TYPES, Version, length_bytes, packet_type};
use crate::cursor::{Cursor, SliceCursor};

/// mosquitto_sub -V mqttv311 -i client -k 60.
const V311: &[u8] = b"\x10\x12\x00\x04MQTT\x04\x02\x00\x3c\x00\x06client";
/// mosquitto_sub -V mqttv31 -i client -k 10.
const V31: &[u8] = b"\x10\x14\x00\x06MQIsdp\x03\x02\x00\x0a\x00\x06client";
/// mosquitto_sub -V mqttv5 -i client -k 300, with a receive maximum of 20.
const V5: &[u8] = b"\x10\x16\x00\x04MQTT\x05\x02\x01\x2c\x03\x21\x00\x14\x00\x06client";

fn parse(bytes: &[u8]) -> Option<Connect> {
    Connect::parse(&mut SliceCursor::new(bytes))
}

fn connect(version: Version, keep_alive: u16) -> Option<Connect> {
    Some(Connect {
        version,
        keep_alive,
    })
}

#[test]
fn every_version_says_its_keep_alive() {
    assert_eq!(parse(V311), connect(Version::V311, 60));
    assert_eq!(parse(V31), connect(Version::V31, 10));
    assert_eq!(parse(V5), connect(Version::V5, 300));
}

#[test]
fn the_segment_may_end_right_behind_the_keep_alive() {
    assert_eq!(parse(&V311[..12]), connect(Version::V311, 60));
    assert_eq!(parse(&V31[..14]), connect(Version::V31, 10));
    for whole in [V311, V31, V5] {
        let end = if whole == V31 { 14 } else { 12 };
        for length in 0..end {
            assert_eq!(parse(&whole[..length]), None, "{length} bytes");
        }
    }
}

#[test]
fn other_packets_and_other_protocols_are_no_connect() {
    let publish = b"\x30\x0f\x00\x05topicpayload..";
    let subscribe = b"\x82\x0a\x00\x01\x00\x05topic\x00";
    let tls_hello = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03abcdef";
    let http = b"GET /mqtt HTTP/1.1\r\nHost: broker\r\n";
    let ping = b"\xc0\x00";
    for other in [&publish[..], subscribe, tls_hello, http, ping, b""] {
        assert_eq!(parse(other), None);
    }
    let mut flags = V311.to_vec();
    flags[0] |= 1;
    assert_eq!(parse(&flags), None, "its flags are reserved");
    let mut level = V311.to_vec();
    level[8] = 6;
    assert_eq!(parse(&level), None, "nobody knows that level");
}

#[test]
fn every_type_has_its_name() {
    let names: Vec<&str> = [CONNECT, 0x3b, 0x82, 0xc0, 0xe0]
        .map(|first| TYPES[packet_type(first)])
        .to_vec();
    assert_eq!(
        names,
        ["connect", "publish", "subscribe", "pingreq", "disconnect"]
    );
}

/// As MQTT 5.0, section 1.5.5 does it.
fn encoded(mut length: u32) -> Vec<u8> {
    let mut bytes = Vec::new();
    loop {
        let byte = (length % 128) as u8;
        length /= 128;
        if length == 0 {
            bytes.push(byte);
            return bytes;
        }
        bytes.push(byte | 0x80);
    }
}

#[test]
fn a_length_that_does_not_end_is_none() {
    assert_eq!(length_bytes([0xff; 4]), None);
    assert_eq!(length_bytes([0xff, 0xff, 0xff, 0x7f]), Some(4));
    assert_eq!(length_bytes([0, 0xff, 0, 0]), Some(1));
}

fn version() -> impl Strategy<Value = (Version, &'static [u8])> {
    prop_oneof![
        Just((Version::V31, &b"\x00\x06MQIsdp\x03"[..])),
        Just((Version::V311, &b"\x00\x04MQTT\x04"[..])),
        Just((Version::V5, &b"\x00\x04MQTT\x05"[..])),
    ]
}

proptest! {
    #[test]
    fn what_was_written_is_read(
        (version, name) in version(),
        keep_alive: u16,
        flags: u8,
        length in 0_u32..268_435_456,
        rest in proptest::collection::vec(any::<u8>(), 0..20),
    ) {
        let packet = [
            &[CONNECT],
            &encoded(length)[..],
            name,
            &[flags],
            &keep_alive.to_be_bytes(),
            &rest,
        ].concat();
        prop_assert_eq!(parse(&packet), connect(version, keep_alive));
    }

    #[test]
    fn any_bytes_are_read_within_bounds(bytes in proptest::collection::vec(any::<u8>(), 0..40)) {
        let mut cursor = SliceCursor::new(&bytes);
        if Connect::parse(&mut cursor).is_some() {
            prop_assert_eq!(bytes[0], CONNECT);
            prop_assert!((12..=17).contains(&cursor.offset()));
        }
    }

    #[test]
    fn bytes_that_start_like_a_connect_are_read_within_bounds(
        mut bytes in proptest::collection::vec(any::<u8>(), 12..40),
        name in prop_oneof![Just(&b"\x00\x04MQTT"[..]), Just(&b"\x00\x06MQIsdp"[..])],
        length in 1_usize..5,
    ) {
        bytes[0] = CONNECT;
        let name_at = 1 + length;
        let end = bytes.len().min(name_at + name.len());
        bytes[name_at..end].copy_from_slice(&name[..end - name_at]);
        let mut cursor = SliceCursor::new(&bytes);
        if Connect::parse(&mut cursor).is_some() {
            prop_assert!(cursor.offset() <= 17);
        }
    }
}
