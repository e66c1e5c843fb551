mod damaged;
mod publish;
mod rules;

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::BytesMut;
use proptest::{collection::vec, prelude::*};

use super::{packet::*, *};
use crate::message::{Message, MessageId, Qos};

const LIMIT: usize = 1024 * 1024;

fn parse(bytes: &[u8], version: Version) -> Result<ClientPacket, DecodeError> {
    let frame = frame(bytes, LIMIT)?.expect("a whole packet");
    decode(bytes, frame, version, Instant::now())
}

fn parse_connect(bytes: &[u8]) -> Result<Connect, DecodeError> {
    let frame = frame(bytes, LIMIT)?.expect("a whole packet");
    let version = connect_version(bytes, frame)?;
    decode_connect(bytes, frame, version)
}

fn connect(name: &str, level: u8, flags: u8, rest: &[u8]) -> Vec<u8> {
    let mut body = vec![0, name.len() as u8];
    body.extend(name.as_bytes());
    body.extend([level, flags, 0, 60]);
    body.extend(rest);
    let mut packet = vec![0x10, body.len() as u8];
    packet.extend(body);
    packet
}

const V3: [Version; 2] = [Version::V31, Version::V311];
const ALL: [Version; 3] = [Version::V31, Version::V311, Version::V5];

#[test]
fn version_is_told_from_name_and_level() {
    let parsed = parse_connect(&connect("MQIsdp", 3, 2, b"\0\x02c1")).unwrap();
    assert_eq!(
        (parsed.version, parsed.client_id.as_str()),
        (Version::V31, "c1")
    );
    let parsed = parse_connect(&connect("MQTT", 4, 2, b"\0\x02c1")).unwrap();
    assert_eq!((parsed.version, parsed.keep_alive), (Version::V311, 60));
    let parsed = parse_connect(&connect("MQTT", 5, 2, b"\0\0\x02c1")).unwrap();
    assert_eq!((parsed.version, parsed.clean_start), (Version::V5, true));
    use DecodeError::{Malformed, UnsupportedVersion};
    assert_eq!(
        parse_connect(&connect("MQTT", 6, 2, b"\0\0")),
        Err(UnsupportedVersion)
    );
    assert_eq!(
        parse_connect(&connect("MQTT", 3, 2, b"\0\0")),
        Err(UnsupportedVersion)
    );
    assert_eq!(
        parse_connect(&connect("AMQP", 4, 2, b"\0\0")),
        Err(Malformed)
    );
}

#[test]
fn first_packet_must_be_connect() {
    let ping = [0xC0, 0];
    let frame = frame(&ping, LIMIT).unwrap().unwrap();
    assert_eq!(connect_version(&ping, frame), Err(DecodeError::Protocol));
}

#[test]
fn v31_connect_with_will_and_login_is_read_whole() {
    let packet = connect(
        "MQIsdp",
        3,
        0b1110_1110,
        b"\0\x01c\0\x01t\0\x01m\0\x01u\0\x01p",
    );
    let will = parse_connect(&packet).unwrap().will.unwrap();
    assert_eq!(
        (&*will.message.topic, &*will.message.payload),
        ("t", &b"m"[..])
    );
    assert_eq!(
        (will.message.qos, will.message.retain),
        (Qos::AtLeastOnce, true)
    );
}

#[test]
fn password_may_be_any_bytes() {
    let login = b"\0\x01c\0\x01u\0\x03\xff\0\xfe";
    assert!(parse_connect(&connect("MQIsdp", 3, 0b1100_0010, login)).is_ok());
    assert!(parse_connect(&connect("MQTT", 4, 0b1100_0010, login)).is_ok());
    let login = b"\0\0\x01c\0\x02\xff\xfe";
    let parsed = parse_connect(&connect("MQTT", 5, 0b0100_0010, login)).unwrap();
    assert_eq!((&*parsed.client_id, parsed.username), ("c", None));
    assert_eq!(parsed.password.unwrap().expose(), b"\xff\xfe");
}

#[test]
fn v5_connect_properties_are_read() {
    let properties = b"\x0f\x11\0\0\0\x0a\x21\0\x05\x27\0\0\x10\0\x22\0\x07";
    let mut rest = properties.to_vec();
    rest[0] = (properties.len() - 1) as u8;
    rest.extend(b"\0\x01c");
    let parsed = parse_connect(&connect("MQTT", 5, 2, &rest)).unwrap();
    assert_eq!(parsed.session_expiry, Some(10));
    assert_eq!(parsed.receive_maximum.map(u16::from), Some(5));
    assert_eq!(parsed.maximum_packet, Some(4096));
    assert_eq!(parsed.topic_aliases, 7);
}

#[test]
fn wills_expiry_counts_from_its_publication() {
    // Expiry 10 s, delay 5 s.
    let properties = b"\x0a\x02\0\0\0\x0a\x18\0\0\0\x05";
    let rest = [b"\0\0\x01c", &properties[..], b"\0\x01t\0\x01m"].concat();
    let parsed = parse_connect(&connect("MQTT", 5, 0b0110, &rest)).unwrap();
    let will = parsed.will.unwrap();
    assert_eq!((will.expiry, will.delay), (Some(10), 5));
    let now = Instant::now() + Duration::from_hours(1);
    let expires = will.publication(now).expires;
    assert_eq!(expires, Some(now + Duration::from_secs(10)));
}

#[test]
fn illegal_connects_are_refused() {
    let reserved_flag = connect("MQTT", 4, 0b11, b"\0\x01c");
    let password_alone = connect("MQTT", 4, 0b0100_0010, b"\0\x01c\0\x01p");
    let will_qos_3 = connect("MQTT", 4, 0b0001_1110, b"\0\x01c\0\x01t\0\x01m");
    let will_flags_without_will = connect("MQTT", 4, 0b0010_0010, b"\0\x01c");
    let cut = connect("MQTT", 4, 2, b"\0\x09c");
    let bad_utf8 = connect("MQTT", 4, 2, b"\0\x01\xff");
    let nul = connect("MQTT", 4, 2, b"\0\x01\0");
    let trailing = connect("MQTT", 4, 2, b"\0\x01c\0");
    let receive_maximum_0 = connect("MQTT", 5, 2, b"\x03\x21\0\0\0\x01c");
    for packet in [
        reserved_flag,
        password_alone,
        will_qos_3,
        will_flags_without_will,
        cut,
        bad_utf8,
        nul,
        trailing,
        receive_maximum_0,
    ] {
        assert!(parse_connect(&packet).is_err(), "{packet:?}");
    }
    let wildcard_will = connect("MQTT", 4, 0b0110, b"\0\x01c\0\x01#\0\x01m");
    assert_eq!(parse_connect(&wildcard_will), Err(DecodeError::TopicName));
}

#[test]
fn frame_is_found_once_it_is_whole() {
    assert_eq!(frame(&[], 10), Ok(None));
    assert_eq!(frame(&[0x30], 10), Ok(None));
    assert_eq!(frame(&[0x30, 3, 0, 1], 10), Ok(None));
    assert_eq!(
        frame(&[0x30, 3, 0, 1, b'a', 9], 10),
        Ok(Some(Frame {
            header: 2,
            total: 5
        }))
    );
    // Refused from the header alone.
    assert_eq!(frame(&[0x30, 9], 10), Err(DecodeError::TooLarge));
    assert_eq!(
        frame(&[0x30, 0xff, 0xff, 0xff, 0xff], 10),
        Err(DecodeError::Malformed)
    );
}

#[test]
fn acknowledgements_are_read_with_and_without_reason() {
    let expected = Ack {
        kind: AckKind::PubRec,
        id: PacketId::new(258).unwrap(),
        reason: 0,
    };
    for version in ALL {
        assert_eq!(
            parse(b"\x50\x02\x01\x02", version),
            Ok(ClientPacket::Ack(expected))
        );
    }
    let failed = Ack {
        reason: 0x80,
        ..expected
    };
    assert_eq!(
        parse(b"\x50\x03\x01\x02\x80", Version::V5),
        Ok(ClientPacket::Ack(failed))
    );
    assert_eq!(
        parse(b"\x50\x04\x01\x02\x80\0", Version::V5),
        Ok(ClientPacket::Ack(failed))
    );
    assert!(parse(b"\x50\x04\x01\x02\x80\x01", Version::V5).is_err());
    assert!(parse(b"\x50\x03\x01\x02\x80", Version::V311).is_err());
    assert!(
        parse(b"\x60\x02\x01\x02", Version::V311).is_err(),
        "PUBREL without its flags"
    );
}

#[test]
fn disconnect_is_read_in_every_legal_length() {
    let plain = |reason| {
        Ok(ClientPacket::Disconnect {
            reason,
            session_expiry: None,
        })
    };
    for version in ALL {
        assert_eq!(parse(b"\xe0\0", version), plain(0));
    }
    assert_eq!(parse(b"\xe0\x01\x04", Version::V5), plain(4));
    assert_eq!(parse(b"\xe0\x02\x04\0", Version::V5), plain(4));
    let with_expiry = ClientPacket::Disconnect {
        reason: 0,
        session_expiry: Some(9),
    };
    assert_eq!(
        parse(b"\xe0\x07\0\x05\x11\0\0\0\x09", Version::V5),
        Ok(with_expiry)
    );
    assert!(parse(b"\xe0\x01\0", Version::V311).is_err());
}

#[test]
fn packets_that_only_servers_send_are_refused() {
    for first in [0x20, 0x90, 0xb0, 0xd0, 0xf0, 0x00, 0x10] {
        for version in ALL {
            assert!(parse(&[first, 3, 0, 1, 0], version).is_err(), "{first:#x}");
        }
    }
}

#[test]
fn connack_has_each_versions_form() {
    let refusal = |version| {
        let mut out = BytesMut::new();
        encode_connack(
            ConnAck::refusal(ConnectCode::ClientIdInvalid),
            Words::None,
            version,
            &mut out,
        );
        out.to_vec()
    };
    assert_eq!(refusal(Version::V311), [0x20, 2, 0, 2]);
    assert_eq!(refusal(Version::V5), [0x20, 3, 0, 0x85, 0]);
    let present = ConnAck {
        session_present: true,
        ..ConnAck::refusal(ConnectCode::Accepted)
    };
    let mut out = BytesMut::new();
    encode_connack(present.clone(), Words::None, Version::V31, &mut out);
    encode_connack(present, Words::None, Version::V311, &mut out);
    assert_eq!(out[..], [0x20, 2, 0, 0, 0x20, 2, 1, 0]);
}

#[test]
fn every_refusal_has_a_code_in_every_version() {
    use ConnectCode::*;
    for code in [
        UnsupportedVersion,
        ClientIdInvalid,
        BadCredentials,
        NotAuthorized,
        ServerUnavailable,
        QuotaExceeded,
        MalformedPacket,
        ProtocolError,
        BadAuthenticationMethod,
        TopicNameInvalid,
        PacketTooLarge,
        RateExceeded,
        ServerBusy,
        UseAnotherServer,
        ServerMoved,
    ] {
        for version in ALL {
            let mut out = BytesMut::new();
            encode_connack(ConnAck::refusal(code), Words::None, version, &mut out);
            assert_ne!(out[3], 0, "{code:?}");
        }
    }
}

#[test]
fn answers_have_each_versions_form() {
    let id = PacketId::new(1).unwrap();
    let mut out = BytesMut::new();
    encode_suback(id, &[0, 0x80], Words::None, Version::V311, &mut out);
    encode_suback(id, &[0], Words::None, Version::V5, &mut out);
    encode_unsuback(id, &[0x11], Words::None, Version::V311, &mut out);
    encode_unsuback(id, &[0x11], Words::None, Version::V5, &mut out);
    encode_disconnect(0x8e, Words::None, Version::V311, &mut out);
    encode_disconnect(0x8e, Words::None, Version::V5, &mut out);
    encode_ack(
        Ack {
            kind: AckKind::PubAck,
            id,
            reason: 0x10,
        },
        Words::None,
        Version::V5,
        &mut out,
    );
    encode_ack(
        Ack {
            kind: AckKind::PubAck,
            id,
            reason: 0x10,
        },
        Words::None,
        Version::V311,
        &mut out,
    );
    let expected: [&[u8]; 7] = [
        &[0x90, 4, 0, 1, 0, 0x80],
        &[0x90, 4, 0, 1, 0, 0],
        &[0xb0, 2, 0, 1],
        &[0xb0, 4, 0, 1, 0, 0x11],
        &[0xe0, 1, 0x8e],
        &[0x40, 3, 0, 1, 0x10],
        &[0x40, 2, 0, 1],
    ];
    assert_eq!(out[..], expected.concat());
}

fn any_message() -> impl Strategy<Value = Message> {
    (
        "[^\0+#]{1,40}",
        vec(any::<u8>(), 0..200),
        0..3_u8,
        any::<bool>(),
    )
        .prop_filter("legal topic", |(topic, ..)| {
            crate::topic::is_valid_name(topic)
        })
        .prop_map(|(topic, payload, qos, retain)| Message {
            topic: topic.into(),
            payload: payload.into(),
            properties: Box::default(),
            qos: Qos::from_bits(qos).unwrap(),
            retain,
            expires: None,
            id: MessageId::NONE,
        })
}

proptest! {
    #[test]
    fn arbitrary_bytes_never_panic(bytes in vec(any::<u8>(), 0..100)) {
        if let Ok(Some(found)) = frame(&bytes, 90) {
            for version in ALL {
                let _ = decode(&bytes, found, version, Instant::now());
                let _ = decode_connect(&bytes, found, version);
            }
            let _ = connect_version(&bytes, found);
        }
    }

    /// As above, but with a header that leads further into the decoders.
    #[test]
    fn arbitrary_bodies_never_panic(first in any::<u8>(), body in vec(any::<u8>(), 0..120)) {
        let mut bytes = vec![first, body.len() as u8];
        bytes.extend(&body);
        let found = frame(&bytes, LIMIT).unwrap().unwrap();
        for version in ALL {
            let _ = decode(&bytes, found, version, Instant::now());
        }
        for (name, level) in [("MQIsdp", 3), ("MQTT", 4), ("MQTT", 5)] {
            let packet = connect(name, level, first, &body[..body.len().min(100)]);
            let _ = parse_connect(&packet);
        }
    }

    #[test]
    fn what_is_sent_is_read_back(message in any_message(), id in 1..=u16::MAX, dup in any::<bool>()) {
        let id = (message.qos > Qos::AtMostOnce).then(|| PacketId::new(id).unwrap());
        let now = Instant::now();
        for version in ALL {
            let delivery = Delivery {
                message: Arc::new(message.clone()),
                qos: message.qos,
                retain: message.retain,
                dup: dup && id.is_some(),
                id,
                subscription_ids: Vec::new(),
            };
            let mut out = BytesMut::new();
            encode_delivery(&delivery, Naming::Name, version, now, &mut out);
            prop_assert_eq!(out.len(), delivery_len(&delivery, Naming::Name, version));
            let read = parse(&out, version).unwrap();
            prop_assert_eq!(read, ClientPacket::Publish { id, alias: None, message: message.clone() });
        }
    }
}
