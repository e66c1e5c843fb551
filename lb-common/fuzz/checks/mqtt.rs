//! Any bytes are a segment: reading must not panic, and must agree with a plain decoder.

use lb_common::{
    cursor::{Cursor, SliceCursor},
    mqtt::{CONNECT, Connect, TYPES, Version, packet_type},
};

/// Reads a segment; whether it is a CONNECT.
pub(crate) fn check(segment: &[u8]) -> bool {
    if let Some(first) = segment.first() {
        assert!(packet_type(*first) < TYPES.len());
    }
    let mut cursor = SliceCursor::new(segment);
    let found = Connect::parse(&mut cursor);
    assert!(found.is_none() || (12..=17).contains(&cursor.offset()));
    let expected = plain(segment);
    assert_eq!(
        found.map(|connect| (connect.version, connect.keep_alive)),
        expected
    );
    found.is_some()
}

/// The same by slices.
fn plain(segment: &[u8]) -> Option<(Version, u16)> {
    let rest = segment.strip_prefix(&[CONNECT])?;
    let length = rest.iter().take(4).position(|byte| byte & 0x80 == 0)?;
    let rest = &rest[length + 1..];
    let names = [
        (Version::V31, &b"\x00\x06MQIsdp\x03"[..]),
        (Version::V311, &b"\x00\x04MQTT\x04"[..]),
        (Version::V5, &b"\x00\x04MQTT\x05"[..]),
    ];
    let (version, rest) = names
        .into_iter()
        .find_map(|(version, name)| Some((version, rest.strip_prefix(name)?)))?;
    let [_flags, high, low, ..] = rest else {
        return None;
    };
    Some((version, u16::from_be_bytes([*high, *low])))
}
