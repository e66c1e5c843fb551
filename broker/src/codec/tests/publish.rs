//! PUBLISH packets, in and out.

use super::*;

#[test]
fn publish_is_read_in_each_version() {
    for version in V3 {
        let packet = parse(b"\x3b\x07\0\x02\xc3\xa4\0\x07!", version).unwrap();
        let ClientPacket::Publish { id, message, .. } = packet else {
            panic!("{packet:?}")
        };
        assert_eq!((&*message.topic, &*message.payload), ("ä", &b"!"[..]));
        assert_eq!(
            (id.map(u16::from), message.qos, message.retain),
            (Some(7), Qos::AtLeastOnce, true)
        );
    }
    let packet = parse(b"\x30\x05\0\x01t\0!", Version::V5).unwrap();
    let ClientPacket::Publish {
        id: None, message, ..
    } = packet
    else {
        panic!("{packet:?}")
    };
    assert_eq!(&*message.payload, b"!");
}

#[test]
fn v5_properties_travel_and_the_expiry_counts_down() {
    // Expiry 10 s, content type "x", user property k=v.
    let packet = b"\x30\x15\0\x01t\x10\x02\0\0\0\x0a\x03\0\x01x\x26\0\x01k\0\x01v!";
    let now = Instant::now();
    let frame = frame(packet, LIMIT).unwrap().unwrap();
    let packet = decode(packet, frame, Version::V5, now).unwrap();
    let ClientPacket::Publish { message, .. } = packet else {
        panic!("{packet:?}")
    };
    assert_eq!(message.expires, Some(now + Duration::from_secs(10)));
    let delivery = Delivery {
        message: Arc::new(message),
        qos: Qos::AtMostOnce,
        retain: false,
        dup: false,
        id: None,
        subscription_ids: vec![200],
    };
    let later = now + Duration::from_secs(4);
    let mut out = BytesMut::new();
    encode_delivery(&delivery, Naming::Name, Version::V5, later, &mut out);
    assert_eq!(
        out.len(),
        delivery_len(&delivery, Naming::Name, Version::V5)
    );
    // Properties are re-encoded in rumqttd's order: user property before content type.
    let expected = b"\x30\x18\0\x01t\x13\x02\0\0\0\x06\x0b\xc8\x01\x26\0\x01k\0\x01v\x03\0\x01x!";
    assert_eq!(out[..], expected[..]);
    out.clear();
    encode_delivery(&delivery, Naming::Name, Version::V311, later, &mut out);
    assert_eq!(out[..], b"\x30\x04\0\x01t!"[..]);
}

#[test]
fn illegal_publishes_are_refused() {
    use DecodeError::{Malformed, Protocol, TopicAlias, TopicName};
    for version in ALL {
        assert_eq!(
            parse(b"\x36\x05\0\x01t\0\x01", version),
            Err(Malformed),
            "QoS 3"
        );
        assert_eq!(
            parse(b"\x30\x03\0\x05t", version),
            Err(Malformed),
            "cut topic"
        );
        assert_eq!(
            parse(b"\x32\x05\0\x01t\0\0", version),
            Err(Protocol),
            "packet id 0"
        );
        assert_eq!(
            parse(b"\x30\x03\0\x01\xff", version),
            Err(Malformed),
            "not UTF-8"
        );
    }
    assert_eq!(parse(b"\x30\x03\0\x01#", Version::V311), Err(TopicName));
    assert_eq!(parse(b"\x30\x02\0\0", Version::V311), Err(TopicName));
    assert_eq!(
        parse(b"\x38\x03\0\x01t", Version::V311),
        Err(Malformed),
        "DUP at QoS 0"
    );
    assert_eq!(
        parse(b"\x30\x07\0\x01t\x03\x23\0\0", Version::V5),
        Err(TopicAlias),
        "alias 0"
    );
    assert_eq!(
        parse(b"\x30\x03\0\0\0", Version::V5),
        Err(Protocol),
        "neither topic nor alias"
    );
    assert_eq!(
        parse(b"\x30\x06\0\x01t\x02\x0b\x01", Version::V5),
        Err(Protocol)
    );
    assert_eq!(
        parse(b"\x30\x04\0\x01t\x09", Version::V5),
        Err(Malformed),
        "cut properties"
    );
    // The last property may not run on into the payload.
    assert_eq!(
        parse(b"\x30\x09\0\x01t\x01\x02\0\0\0\x05", Version::V5),
        Err(Malformed)
    );
}

#[test]
fn topic_alias_is_read_with_and_without_its_topic() {
    for (bytes, name) in [
        (&b"\x30\x08\0\x01t\x03\x23\0\x09!"[..], "t"),
        (b"\x30\x07\0\0\x03\x23\0\x09!", ""),
    ] {
        let packet = parse(bytes, Version::V5).unwrap();
        let ClientPacket::Publish { alias, message, .. } = packet else {
            panic!("{packet:?}")
        };
        assert_eq!(alias, TopicAlias::new(9));
        assert_eq!((&*message.topic, &*message.payload), (name, &b"!"[..]));
        assert!(message.properties.is_empty());
    }
}

#[test]
fn each_naming_has_its_form() {
    let delivery = Delivery {
        message: Arc::new(Message {
            topic: "topic".into(),
            payload: b"!"[..].into(),
            properties: Box::default(),
            qos: Qos::AtMostOnce,
            retain: false,
            expires: None,
            id: MessageId::NONE,
        }),
        qos: Qos::AtMostOnce,
        retain: false,
        dup: false,
        id: None,
        subscription_ids: Vec::new(),
    };
    let alias = TopicAlias::new(258).unwrap();
    let forms: [(Naming, &[u8]); 3] = [
        (Naming::Name, b"\x30\x09\0\x05topic\0!"),
        (
            Naming::NameAndAlias(alias),
            b"\x30\x0c\0\x05topic\x03\x23\x01\x02!",
        ),
        (Naming::Alias(alias), b"\x30\x07\0\0\x03\x23\x01\x02!"),
    ];
    for (naming, expected) in forms {
        let mut out = BytesMut::new();
        encode_delivery(&delivery, naming, Version::V5, Instant::now(), &mut out);
        assert_eq!(out[..], *expected, "{naming:?}");
        assert_eq!(out.len(), delivery_len(&delivery, naming, Version::V5));
    }
}
