//! What we write, rumqttd's codecs must read, and the other way round.

use bytes::{Bytes, BytesMut};
use proptest::prelude::*;
use rumqttd::protocol::{
    self as theirs, ConnAckProperties, ConnectReturnCode, Protocol, QoS, v4::V4, v5::V5,
};

use super::*;

const MAX: usize = 10_000_000;

/// Reads one packet as the server would.
fn server_reads(version: Version, bytes: &[u8]) -> theirs::Packet {
    let mut stream = BytesMut::from(bytes);
    let packet = match version {
        Version::V31 | Version::V311 => V4.read_mut(&mut stream, MAX),
        Version::V5 => V5.read_mut(&mut stream, MAX),
    };
    assert!(stream.is_empty());
    packet.unwrap()
}

/// Writes one packet as the server would.
fn server_writes(version: Version, packet: theirs::Packet) -> BytesMut {
    let mut stream = BytesMut::new();
    match version {
        Version::V31 | Version::V311 => V4.write(packet, &mut stream),
        Version::V5 => V5.write(packet, &mut stream),
    }
    .unwrap();
    stream
}

fn read(version: Version, bytes: &[u8]) -> Packet<'_> {
    let (frame, rest) = split(bytes).unwrap().unwrap();
    assert!(rest.is_empty());
    decode(frame, version).unwrap()
}

fn versions() -> impl Strategy<Value = Version> {
    prop_oneof![Just(Version::V311), Just(Version::V5)]
}

fn services() -> impl Strategy<Value = Qos> {
    prop_oneof![Just(Qos::Zero), Just(Qos::One), Just(Qos::Two)]
}

proptest! {
    #[test]
    fn connect_is_read_as_it_was_meant(
        version in versions(),
        client_id in "[a-z0-9-]{1,64}",
        clean: bool,
        keep_alive in 1u16..,
        username in proptest::option::of("[a-zé]{1,20}"),
        session_expiry: u32,
    ) {
        let mut out = Vec::new();
        connect(&mut out, &Connect {
            version,
            client_id: &client_id,
            clean,
            keep_alive,
            username: username.as_deref(),
            password: username.as_deref(),
            session_expiry,
        });
        let theirs::Packet::Connect(packet, properties, will, _, login) =
            server_reads(version, &out) else { panic!("not CONNECT") };
        prop_assert_eq!(packet.client_id, client_id);
        prop_assert_eq!(packet.clean_session, clean);
        prop_assert_eq!(packet.keep_alive, keep_alive);
        prop_assert!(will.is_none());
        prop_assert_eq!(login.map(|login| (login.username, login.password)),
            username.clone().zip(username));
        if version == Version::V5 {
            let expiry = properties.and_then(|properties| properties.session_expiry_interval);
            prop_assert_eq!(expiry.unwrap_or(0), session_expiry);
        }
    }

    #[test]
    fn publish_is_read_as_it_was_meant(
        version in versions(),
        qos in services(),
        retain: bool,
        topic in "[a-zé/]{1,200}",
        packet_id in 1u16..,
        len in 0usize..40_000,
        filler: u8,
    ) {
        let payload = vec![filler; len];
        let head = PublishHead {
            version, topic: topic.as_bytes(), qos, retain, dup: false, packet_id,
        };
        let mut out = Vec::new();
        publish(&mut out, &head, payload.len());
        out.extend_from_slice(&payload);
        prop_assert_eq!(out.len(), publish_len(&head, payload.len()));
        let theirs::Packet::Publish(packet, _) = server_reads(version, &out) else {
            panic!("not PUBLISH")
        };
        prop_assert_eq!(&packet.topic[..], topic.as_bytes());
        prop_assert_eq!(&packet.payload[..], &payload[..]);
        prop_assert_eq!(packet.retain, retain);
        // What their type hides, our own reader shows.
        let Packet::Publish(packet) = read(version, &out) else { panic!("not PUBLISH") };
        prop_assert_eq!((packet.qos, packet.retain, packet.dup), (qos, retain, false));
        let expected_id = if qos == Qos::Zero { 0 } else { packet_id };
        prop_assert_eq!(packet.packet_id, expected_id);
        prop_assert_eq!(packet.payload, &payload[..]);
    }

    #[test]
    fn arbitrary_bytes_never_panic(bytes: Vec<u8>, version in versions()) {
        let mut rest = &bytes[..];
        while let Ok(Ok((frame, tail))) = split(rest) {
            // Only that it returns is asked for.
            let _ = decode(frame, version);
            rest = tail;
        }
    }

    #[test]
    fn a_packet_is_split_off_only_when_it_is_whole(len in 0usize..70_000, cut: prop::sample::Index) {
        let head = PublishHead {
            version: Version::V311, topic: b"t", qos: Qos::Zero, retain: false, dup: false,
            packet_id: 0,
        };
        let mut out = Vec::new();
        publish(&mut out, &head, len);
        out.resize(out.len() + len, 7);
        let part = cut.index(out.len());
        let Ok(Err(needed)) = split(&out[..part]) else { panic!("split off a part") };
        prop_assert!(part < needed && needed <= out.len());
        out.push(0xd0);
        let (_, rest) = split(&out).unwrap().unwrap();
        prop_assert_eq!(rest, &[0xd0]);
    }
}

#[test]
fn subscribe_is_read_as_it_was_meant() {
    for version in [Version::V311, Version::V5] {
        let mut out = Vec::new();
        subscribe(
            &mut out,
            version,
            9,
            &["a/+".into(), "b/#".into()],
            Qos::Two,
        );
        let theirs::Packet::Subscribe(packet, _) = server_reads(version, &out) else {
            panic!("not SUBSCRIBE")
        };
        assert_eq!(packet.pkid, 9);
        let filters: Vec<_> = packet
            .filters
            .iter()
            .map(|f| (f.path.as_str(), f.qos))
            .collect();
        assert_eq!(
            filters,
            [("a/+", QoS::ExactlyOnce), ("b/#", QoS::ExactlyOnce)]
        );
    }
}

#[test]
fn short_packets_are_read_as_they_were_meant() {
    for version in [Version::V311, Version::V5] {
        let mut out = Vec::new();
        ping(&mut out);
        assert!(matches!(
            server_reads(version, &out),
            theirs::Packet::PingReq(_)
        ));
        out.clear();
        disconnect(&mut out);
        assert!(matches!(
            server_reads(version, &out),
            theirs::Packet::Disconnect(..)
        ));
        for kind in [AckKind::Ack, AckKind::Rec, AckKind::Rel, AckKind::Comp] {
            out.clear();
            ack(&mut out, kind, 513);
            let id = match (kind, server_reads(version, &out)) {
                (AckKind::Ack, theirs::Packet::PubAck(packet, _)) => packet.pkid,
                (AckKind::Rec, theirs::Packet::PubRec(packet, _)) => packet.pkid,
                (AckKind::Rel, theirs::Packet::PubRel(packet, _)) => packet.pkid,
                (AckKind::Comp, theirs::Packet::PubComp(packet, _)) => packet.pkid,
                (kind, packet) => panic!("{kind:?} was read as {packet:?}"),
            };
            assert_eq!(id, 513);
        }
    }
}

#[test]
fn a_connack_with_every_property_is_understood() {
    let properties = ConnAckProperties {
        session_expiry_interval: Some(1),
        receive_max: Some(33),
        max_qos: Some(1),
        retain_available: Some(1),
        max_packet_size: Some(1000),
        assigned_client_identifier: Some("id".into()),
        topic_alias_max: Some(4),
        reason_string: Some("because".into()),
        user_properties: vec![("name".into(), "value".into())],
        wildcard_subscription_available: Some(1),
        subscription_identifiers_available: Some(1),
        shared_subscription_available: Some(1),
        server_keep_alive: Some(77),
        response_information: Some("info".into()),
        server_reference: Some("other".into()),
        authentication_method: Some("method".into()),
        authentication_data: Some(Bytes::from_static(b"data")),
    };
    let packet = theirs::ConnAck {
        session_present: true,
        code: ConnectReturnCode::Success,
    };
    let bytes = server_writes(
        Version::V5,
        theirs::Packet::ConnAck(packet, Some(properties)),
    );
    let expected = ConnAck {
        session_present: true,
        code: 0,
        receive_maximum: Some(33),
        server_keep_alive: Some(77),
    };
    assert_eq!(read(Version::V5, &bytes), Packet::ConnAck(expected));
}

#[test]
fn a_refusal_in_the_old_format_is_understood_by_a_new_client() {
    let Packet::ConnAck(packet) = read(Version::V5, &[0x20, 2, 0, 1]) else {
        panic!("not CONNACK")
    };
    assert_eq!(packet.code, 1);
}

#[test]
fn reasons_of_acknowledgements_are_read() {
    let with_reason = [0x40, 4, 0, 7, 0x97, 0];
    let expected = Ack {
        packet_id: 7,
        reason: 0x97,
    };
    assert_eq!(read(Version::V5, &with_reason), Packet::PubAck(expected));
    let without = [0x50, 2, 0, 7];
    assert_eq!(
        read(Version::V5, &without),
        Packet::PubRec(Ack {
            packet_id: 7,
            reason: 0
        })
    );
    assert_eq!(
        read(Version::V5, &[0xe0, 1, 0x8b]),
        Packet::Disconnect { reason: 0x8b }
    );
}

#[test]
fn a_length_of_five_bytes_is_malformed() {
    assert_eq!(split(&[0x30, 0xff, 0xff, 0xff, 0xff, 1]), Err(Malformed));
}
