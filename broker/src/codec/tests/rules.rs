//! Rules that hold for all packets: strings, integers, flags, and who may have which property.

use super::*;

/// A QoS 0 PUBLISH of MQTT 5 with these properties.
fn publish(properties: &[u8]) -> Vec<u8> {
    let mut packet = vec![0x30, (4 + properties.len()) as u8, 0, 1, b't'];
    packet.push(properties.len() as u8);
    packet.extend(properties);
    packet
}

#[test]
fn strings_are_well_formed_and_hold_no_nul() {
    use DecodeError::Malformed;
    for version in ALL {
        for topic in [&b"\xff"[..], b"\xed\xa0\x80", b"\xc0\x80"] {
            let mut bytes = vec![0x30, (3 + topic.len()) as u8, 0, topic.len() as u8];
            bytes.extend(topic);
            bytes.push(0);
            assert_eq!(parse(&bytes, version), Err(Malformed), "{topic:?}");
        }
        let nul = parse(b"\x30\x05\0\x02a\0\0", version);
        assert_eq!(nul, Err(DecodeError::TopicName));
    }
    for property in [
        &b"\x03\0\x01\xff"[..],
        b"\x03\0\x01\0",
        b"\x08\0\x03\xed\xa0\x80",
        b"\x26\0\x01\0\0\x01v",
        b"\x26\0\x01k\0\x01\0",
        b"\x26\0\x01k\0\x01\xff",
    ] {
        let parsed = parse(&publish(property), Version::V5);
        assert_eq!(parsed, Err(Malformed), "{property:?}");
    }
    assert!(parse(&publish(b"\x26\0\x01k\0\0"), Version::V5).is_ok());
    // Correlation data are no string.
    assert!(parse(&publish(b"\x09\0\x02\xff\0"), Version::V5).is_ok());
    assert_eq!(
        parse(b"\x82\x06\0\x01\0\x01\xff\0", Version::V311),
        Err(Malformed)
    );
    assert_eq!(
        parse(b"\xa2\x05\0\x01\0\x01\xff", Version::V311),
        Err(Malformed)
    );
    let will = connect("MQTT", 4, 0b0110, b"\0\x01c\0\x01\xff\0\x01m");
    assert_eq!(parse_connect(&will), Err(Malformed));
    for login in [b"\0\x01c\0\x01\xff", b"\0\x01\xff\0\x01u"] {
        let packet = connect("MQTT", 4, 0b1000_0010, login);
        assert_eq!(parse_connect(&packet), Err(Malformed));
    }
}

#[test]
fn byte_order_mark_is_a_character_like_others() {
    for version in ALL {
        let packet = parse(b"\x30\x07\0\x04\xef\xbb\xbfa\0", version).unwrap();
        let ClientPacket::Publish { message, .. } = packet else {
            panic!("{packet:?}")
        };
        assert_eq!(&*message.topic, "\u{feff}a");
    }
}

#[test]
fn lengths_of_properties_take_no_more_bytes_than_they_need() {
    assert!(parse(b"\x30\x04\0\x01t\0", Version::V5).is_ok());
    for bytes in [&b"\x30\x05\0\x01t\x80\0"[..], b"\x30\x06\0\x01t\x80\x80\0"] {
        assert_eq!(parse(bytes, Version::V5), Err(DecodeError::Malformed));
    }
    let endless = parse(b"\x30\x08\0\x01t\x80\x80\x80\x80\x01", Version::V5);
    assert_eq!(endless, Err(DecodeError::Malformed));
}

#[test]
fn fixed_flags_are_what_they_must_be() {
    let bodies: [(u8, u8, &[u8]); 9] = [
        (4, 0, b"\0\x01"),
        (5, 0, b"\0\x01"),
        (6, 2, b"\0\x01"),
        (7, 0, b"\0\x01"),
        (8, 2, b"\0\x01\0\x01t\0"),
        (10, 2, b"\0\x01\0\x01t"),
        (12, 0, b""),
        (14, 0, b""),
        (15, 0, b""),
    ];
    for (kind, legal, body) in bodies {
        for flags in (0..16).filter(|flags| *flags != legal) {
            let mut packet = vec![kind << 4 | flags, body.len() as u8];
            packet.extend(body);
            for version in ALL {
                let parsed = parse(&packet, version);
                assert_eq!(parsed, Err(DecodeError::Malformed), "{kind} {flags:#x}");
            }
        }
    }
    let mut connect = connect("MQTT", 4, 2, b"\0\x01c");
    connect[0] = 0x11;
    assert!(parse_connect(&connect).is_err());
}

#[test]
fn packets_have_only_properties_of_their_own() {
    use DecodeError::Malformed;
    // Session expiry, receive maximum, reason string, server reference, unknown.
    for property in [
        &b"\x11\0\0\0\x01"[..],
        b"\x21\0\x01",
        b"\x1f\0\x01x",
        b"\x1c\0\x01x",
        b"\x30\x01",
        b"\x00\x01",
        b"\xff\x01",
    ] {
        assert_eq!(parse(&publish(property), Version::V5), Err(Malformed));
    }
    let with = |first: u8, head: &[u8], property: &[u8], tail: &[u8]| {
        let length = head.len() + 1 + property.len() + tail.len();
        let mut packet = vec![first, length as u8];
        packet.extend(head);
        packet.push(property.len() as u8);
        packet.extend(property);
        packet.extend(tail);
        parse(&packet, Version::V5)
    };
    let content_type = b"\x03\0\x01x";
    assert_eq!(with(0x40, b"\0\x01\0", content_type, b""), Err(Malformed));
    assert_eq!(
        with(0x82, b"\0\x01", content_type, b"\0\x01t\0"),
        Err(Malformed)
    );
    assert_eq!(
        with(0xa2, b"\0\x01", b"\x0b\x01", b"\0\x01t"),
        Err(Malformed)
    );
    assert_eq!(with(0xe0, b"\0", content_type, b""), Err(Malformed));
    assert_eq!(with(0xe0, b"\0", b"\x1c\0\x01x", b""), Err(Malformed));
    let user = b"\x26\0\x01k\0\x01v\x26\0\x01k\0\x01v";
    for (first, head, tail) in [
        (0x40, &b"\0\x01\0"[..], &b""[..]),
        (0x82, b"\0\x01", b"\0\x01t\0"),
        (0xa2, b"\0\x01", b"\0\x01t"),
        (0xe0, b"\0", b""),
    ] {
        assert!(with(first, head, user, tail).is_ok(), "{first:#x}");
    }
    assert!(with(0x40, b"\0\x01\0", b"\x1f\0\x01x", b"").is_ok());
    let will_delay_in_connect = b"\x05\x18\0\0\0\x01\0\x01c";
    assert!(parse_connect(&connect("MQTT", 5, 2, will_delay_in_connect)).is_err());
}

#[test]
fn yes_or_no_is_nothing_else() {
    assert!(parse(&publish(b"\x01\x01"), Version::V5).is_ok());
    let parsed = parse(&publish(b"\x01\x02"), Version::V5);
    assert_eq!(parsed, Err(DecodeError::Protocol));
    for id in [0x17, 0x19] {
        for (value, is_legal) in [(0, true), (1, true), (2, false)] {
            let rest = [2, id, value, 0, 1, b'c'];
            let parsed = parse_connect(&connect("MQTT", 5, 2, &rest));
            assert_eq!(parsed.is_ok(), is_legal, "{id:#x} {value}");
        }
    }
}

#[test]
fn response_topic_is_a_topic_name() {
    assert!(parse(&publish(b"\x08\0\x03r/t"), Version::V5).is_ok());
    for response in [&b"\x08\0\x03r/#"[..], b"\x08\0\x01+", b"\x08\0\0"] {
        let parsed = parse(&publish(response), Version::V5);
        assert_eq!(parsed, Err(DecodeError::Protocol));
    }
}

#[test]
fn authentication_data_need_a_method() {
    let alone = connect("MQTT", 5, 2, b"\x04\x16\0\x01x\0\x01c");
    assert_eq!(parse_connect(&alone), Err(DecodeError::Protocol));
    let both = connect("MQTT", 5, 2, b"\x08\x15\0\x01m\x16\0\x01x\0\x01c");
    let parsed = parse_connect(&both).unwrap();
    assert_eq!(parsed.authentication_method.as_deref(), Some("m"));
}

#[test]
fn subscribe_and_unsubscribe_need_a_filter_and_an_identifier() {
    for version in V3 {
        for bytes in [&b"\x82\x02\0\x01"[..], b"\xa2\x02\0\x01"] {
            assert!(parse(bytes, version).is_err());
        }
        assert!(parse(b"\x82\x06\0\0\0\x01t\0", version).is_err());
        assert!(parse(b"\xa2\x05\0\0\0\x01t", version).is_err());
    }
    for bytes in [&b"\x82\x03\0\x01\0"[..], b"\xa2\x03\0\x01\0"] {
        assert!(parse(bytes, Version::V5).is_err());
    }
    // A subscription identifier is not zero either.
    assert!(parse(b"\x82\x09\0\x01\x02\x0b\0\0\x01t\0", Version::V5).is_err());
}

#[test]
fn disconnect_says_why_in_words() {
    let mut out = BytesMut::new();
    encode_disconnect(0x8b, Words::Within(23), Version::V5, &mut out);
    let mut expected = b"\xe0\x14\x8b\x12\x1f\0\x0f".to_vec();
    expected.extend(b"the broker stops");
    expected[1] = (expected.len() - 2) as u8;
    expected[3] = (expected.len() - 4) as u8;
    expected[6] = b"the broker stops".len() as u8;
    assert_eq!(out[..], expected);
    out.clear();
    encode_disconnect(0x8b, Words::Within(22), Version::V5, &mut out);
    assert_eq!(out[..], [0xe0, 1, 0x8b]);
    out.clear();
    encode_disconnect(0x8b, Words::Within(23), Version::V311, &mut out);
    assert!(out.is_empty());
}

#[test]
fn servers_to_go_to_are_told_before_words_and_neither_makes_a_packet_too_long() {
    let encode = |longest| {
        let mut out = BytesMut::new();
        let words = Words::Within(longest);
        encode_referral(0x9c, Some("b:1 c:1"), words, Version::V5, &mut out);
        out.to_vec()
    };
    let whole = encode(usize::MAX);
    let servers = b"\x1c\0\x07b:1 c:1";
    assert_eq!(whole[..3], [0xe0, whole.len() as u8 - 2, 0x9c]);
    assert_eq!((&whole[4..14], whole[14]), (&servers[..], 0x1f));
    assert_eq!(encode(whole.len()), whole);
    let short = [&b"\xe0\x0c\x9c\x0a"[..], servers].concat();
    assert_eq!(encode(whole.len() - 1), short);
    assert_eq!(encode(short.len()), short);
    assert_eq!(encode(short.len() - 1), [0xe0, 1, 0x9c]);
    // Two bytes tell the length.
    let long = "x".repeat(300);
    let mut out = BytesMut::new();
    let words = Words::Within(320);
    encode_referral(0x9d, Some(&long), words, Version::V5, &mut out);
    assert_eq!(
        out[..9],
        [0xe0, 0xb2, 0x02, 0x9d, 0xaf, 0x02, 0x1c, 0x01, 0x2c]
    );
    assert_eq!(out.len(), 309);
}

#[test]
fn refusal_tells_where_to_go_if_that_fits() {
    let refusal = ConnAck {
        servers: Some("b:1".into()),
        ..ConnAck::refusal(ConnectCode::UseAnotherServer)
    };
    let [whole, short, bare] =
        spoken(|words, out| encode_connack(refusal.clone(), words, Version::V5, out));
    assert!(whole.windows(6).any(|bytes| bytes == b"\x1c\0\x03b:1"));
    assert_eq!(short, b"\x20\x09\0\x9c\x06\x1c\0\x03b:1");
    assert_eq!(bare, b"\x20\x03\0\x9c\0");
    let mut out = BytesMut::new();
    encode_connack(refusal, Words::None, Version::V311, &mut out);
    assert_eq!(out[..], [0x20, 2, 0, 3]);
}

/// What a packet is with a reason in words, with room for all but one byte of it, and without.
fn spoken(encode: impl Fn(Words, &mut BytesMut)) -> [Vec<u8>; 3] {
    let with = |words| {
        let mut out = BytesMut::new();
        encode(words, &mut out);
        out.to_vec()
    };
    let whole = with(Words::Within(usize::MAX));
    assert_eq!(with(Words::Within(whole.len())), whole);
    let short = with(Words::Within(whole.len() - 1));
    [whole, short, with(Words::None)]
}

#[test]
fn failures_are_said_in_words_where_these_fit() {
    let id = PacketId::new(7).unwrap();
    let (kind, reason) = (AckKind::PubRec, 0x97);
    let ack = Ack { kind, id, reason };
    let [whole, short, bare] = spoken(|words, out| encode_ack(ack, words, Version::V5, out));
    let room = b"more than the broker has room for";
    let expected = [&b"\x50\x28\0\x07\x97\x24\x1f\0\x21"[..], room].concat();
    assert_eq!((whole, &short), (expected, &bare));
    assert_eq!(bare, b"\x50\x03\0\x07\x97");

    let codes = [1, 0x8f, 0x97];
    let [whole, short, bare] =
        spoken(|words, out| encode_suback(id, &codes, words, Version::V5, out));
    let filter = b"topic filter not valid";
    let expected = [
        &b"\x90\x1f\0\x07\x19\x1f\0\x16"[..],
        filter,
        &b"\x01\x8f\x97"[..],
    ];
    assert_eq!((whole, &short), (expected.concat(), &bare));
    assert_eq!(bare, b"\x90\x06\0\x07\0\x01\x8f\x97");

    let refusal = ConnAck::refusal(ConnectCode::ServerBusy);
    let [whole, short, bare] =
        spoken(|words, out| encode_connack(refusal.clone(), words, Version::V5, out));
    let busy = b"the broker is busy: try again later";
    let expected = [&b"\x20\x29\0\x89\x26\x1f\0\x23"[..], busy].concat();
    assert_eq!((whole, &short), (expected, &bare));
    assert_eq!(bare, b"\x20\x03\0\x89\0");
}

#[test]
fn success_and_older_versions_have_no_words() {
    let id = PacketId::new(7).unwrap();
    let words = Words::Within(usize::MAX);
    let mut out = BytesMut::new();
    let ack = |reason| Ack {
        kind: AckKind::PubAck,
        id,
        reason,
    };
    encode_ack(ack(0x10), words, Version::V5, &mut out);
    encode_ack(ack(0x87), words, Version::V311, &mut out);
    encode_suback(id, &[0, 2], words, Version::V5, &mut out);
    encode_suback(id, &[0x80], words, Version::V311, &mut out);
    encode_unsuback(id, &[0x11], words, Version::V5, &mut out);
    let refusal = ConnAck::refusal(ConnectCode::ServerBusy);
    encode_connack(refusal, words, Version::V311, &mut out);
    let expected: [&[u8]; 6] = [
        b"\x40\x03\0\x07\x10",
        b"\x40\x02\0\x07",
        b"\x90\x05\0\x07\0\0\x02",
        b"\x90\x03\0\x07\x80",
        b"\xb0\x04\0\x07\0\x11",
        b"\x20\x02\0\x03",
    ];
    assert_eq!(out[..], expected.concat());
}

#[test]
fn words_are_short() {
    // Their properties' length has one byte.
    assert!((0..=u8::MAX).all(|code| reason::text(code).len() <= 100));
    let codes = [ConnectCode::ServerUnavailable, ConnectCode::RateExceeded];
    assert!(codes.iter().all(|code| code.text().len() <= 100));
}
