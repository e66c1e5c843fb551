use std::time::Instant;

use super::*;
use crate::{
    codec::{
        decode, frame,
        packet::{ClientPacket, RetainHandling},
    },
    message::Qos,
};

fn parse(bytes: &[u8], version: Version) -> Result<ClientPacket, DecodeError> {
    let frame = frame(bytes, 1024)?.expect("a whole packet");
    decode(bytes, frame, version, Instant::now())
}

#[test]
fn subscribe_options_are_read() {
    let packet = parse(b"\x82\x09\0\x01\x02\x0b\x07\0\x01a\x2e", Version::V5).unwrap();
    let ClientPacket::Subscribe(subscribe) = packet else {
        panic!("{packet:?}")
    };
    assert_eq!(subscribe.subscription_id, Some(7));
    let filter = &subscribe.filters[0];
    assert_eq!((filter.qos, filter.no_local), (Qos::ExactlyOnce, true));
    assert_eq!(filter.retain_handling, RetainHandling::Never);
    assert!(filter.retain_as_published);
    assert!(
        parse(b"\x82\x02\0\x01", Version::V311).is_err(),
        "no filter"
    );
    assert!(
        parse(b"\x82\x06\0\0\0\x01a\0", Version::V311).is_err(),
        "packet id 0"
    );
    assert!(
        parse(b"\x80\x06\0\x01\0\x01a\0", Version::V311).is_err(),
        "wrong flags"
    );
    assert!(
        parse(b"\xa2\x02\0\x01", Version::V311).is_err(),
        "nothing to unsubscribe"
    );
}

#[test]
fn reserved_options_are_refused() {
    use DecodeError::{Malformed, Protocol};
    let subscribe = |options, version: Version| {
        let mut packet = vec![0x82, 6, 0, 1, 0, 1, b'a', options];
        if version.is_v5() {
            packet.insert(4, 0);
            packet[1] = 7;
        }
        parse(&packet, version).map(|_packet| ())
    };
    for bit in 2..8 {
        assert_eq!(subscribe(1 << bit, Version::V311), Err(Malformed));
        assert_eq!(subscribe(1 << bit, Version::V31), Ok(()));
        let expected = if bit < 6 { Ok(()) } else { Err(Malformed) };
        assert_eq!(subscribe(1 << bit, Version::V5), expected);
    }
    assert_eq!(subscribe(0x30, Version::V5), Err(Protocol));
    assert!(subscribe(3, Version::V311).is_err());
}

#[test]
fn properties_end_within_their_length_and_are_there_once() {
    use DecodeError::{Malformed, Protocol};
    let parse = |bytes| parse(bytes, Version::V5).map(|_packet| ());
    // The identifier's value is the filter's length.
    assert_eq!(parse(b"\x82\x08\0\x01\x01\x0b\0\x01a\0"), Err(Malformed));
    assert_eq!(
        parse(b"\x82\x0b\0\x01\x04\x0b\x01\x0b\x02\0\x01a\0"),
        Err(Protocol)
    );
    assert_eq!(parse(b"\xa2\x08\0\x01\x01\x26\0\x01a\0"), Err(Malformed));
    let twice = b"\x82\x15\0\x01\x0e\x26\0\x01k\0\x01v\x26\0\x01k\0\x01v\0\x01a\0";
    assert_eq!(parse(twice), Ok(()));
    // Also in other packets: a PUBLISH that expires twice, a DISCONNECT likewise.
    let publish = b"\x30\x0e\0\x01t\x0a\x02\0\0\0\x01\x02\0\0\0\x01";
    assert_eq!(parse(publish), Err(Protocol));
    let disconnect = b"\xe0\x0c\0\x0a\x11\0\0\0\x09\x11\0\0\0\x09";
    assert_eq!(parse(disconnect), Err(Protocol));
}
