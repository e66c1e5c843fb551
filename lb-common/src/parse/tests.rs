use proptest::prelude::*;

use super::{Family, Fragmentation, Network, Reject, Transport, ethernet};
use crate::{
    abi::{Ip, PROTOCOL_TCP, PROTOCOL_UDP},
    cursor::{Cursor, SliceCursor},
};

const CLIENT: [u8; 4] = [172, 16, 40, 100];
const VIP: [u8; 4] = [172, 16, 40, 24];

fn tcp(source: u16, destination: u16, flags: u8) -> Vec<u8> {
    let mut header = vec![0; 20];
    header[0..2].copy_from_slice(&source.to_be_bytes());
    header[2..4].copy_from_slice(&destination.to_be_bytes());
    header[12] = 5 << 4;
    header[13] = flags;
    header
}

fn ethernet_header(tags: &[u16], ethertype: u16) -> Vec<u8> {
    let mut frame = vec![2; 12];
    for tag in tags {
        frame.extend(tag.to_be_bytes());
        frame.extend([0, 7]);
    }
    frame.extend(ethertype.to_be_bytes());
    frame
}

fn v4(options: usize, fragment: u16, protocol: u8, payload: &[u8]) -> Vec<u8> {
    let header = 20 + options;
    let mut packet = vec![0x40 | (header / 4) as u8, 0];
    packet.extend(((header + payload.len()) as u16).to_be_bytes());
    packet.extend([0, 1]);
    packet.extend(fragment.to_be_bytes());
    packet.extend([64, protocol, 0, 0]);
    packet.extend(CLIENT);
    packet.extend(VIP);
    packet.resize(header, 1);
    packet.extend(payload);
    packet
}

fn v6(next: u8, payload: &[u8]) -> Vec<u8> {
    let mut packet = vec![0x60, 0, 0, 0];
    packet.extend((payload.len() as u16).to_be_bytes());
    packet.extend([next, 64]);
    packet.extend([0xfd; 16]);
    packet.extend([0xfe; 16]);
    packet.extend(payload);
    packet
}

fn frame(family: u16, packet: &[u8]) -> Vec<u8> {
    [ethernet_header(&[], family), packet.to_vec()].concat()
}

fn parse(frame: &[u8]) -> Option<Result<(Network, Transport), Reject>> {
    let mut cursor = SliceCursor::new(frame);
    let family = ethernet(&mut cursor)?;
    Some(
        Network::parse(&mut cursor, family)
            .and_then(|network| Ok((network, Transport::parse(&mut cursor, &network, family)?))),
    )
}

fn good(frame: &[u8]) -> (Network, Transport) {
    parse(frame).expect("it is IP").expect("it is well formed")
}

#[test]
fn a_plain_syn_gives_its_flow() {
    let (network, transport) = good(&frame(0x0800, &v4(0, 0, 6, &tcp(40_000, 1883, 2))));
    assert_eq!(
        (network.offset, transport.offset, network.ttl),
        (14, 34, 64)
    );
    let flow = transport.flow(&network);
    assert_eq!(
        (flow.source(), flow.destination()),
        (Ip::from_v4(CLIENT), Ip::from_v4(VIP))
    );
    assert_eq!(
        (flow.source_port(), flow.destination_port()),
        (40_000, 1883)
    );
    assert_eq!((flow.protocol(), transport.tcp_flags), (PROTOCOL_TCP, 2));
}

#[test]
fn vlan_tags_and_options_move_the_headers() {
    let packet = v4(8, 0, 6, &tcp(1, 2, 0));
    for tags in [&[0x8100][..], &[0x88a8, 0x8100], &[0x9100, 0x8100]] {
        let frame = [ethernet_header(tags, 0x0800), packet.clone()].concat();
        let (network, transport) = good(&frame);
        assert_eq!(network.offset, 14 + 4 * tags.len());
        assert_eq!(transport.offset, network.offset + 28);
    }
    let three = [ethernet_header(&[0x8100; 3], 0x0800), packet].concat();
    assert_eq!(parse(&three), None);
}

#[test]
fn ipv6_extension_headers_are_followed() {
    let payload = [
        vec![60, 0, 1, 4, 0, 0, 0, 0],
        vec![43, 1, 1, 12, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
        vec![44, 0, 0, 0, 0, 0, 0, 0],
        vec![6, 0, 0, 0, 0, 0, 0, 9],
        tcp(5, 1883, 0x10),
    ]
    .concat();
    let (network, transport) = good(&frame(0x86dd, &v6(0, &payload)));
    assert_eq!(
        (transport.offset, transport.destination_port),
        (network.offset + 80, 1883)
    );
    assert_eq!(transport.fragmentation, Fragmentation::None);
}

#[test]
fn extension_headers_may_not_go_on_for_ever() {
    let chain = |count: usize| {
        let mut payload = Vec::new();
        for header in 1..=count {
            let next = if header == count { 6 } else { 60 };
            payload.extend([next, 0, 1, 4, 0, 0, 0, 0]);
        }
        payload.extend(tcp(1, 2, 0));
        frame(0x86dd, &v6(60, &payload))
    };
    assert!(parse(&chain(8)).unwrap().is_ok());
    assert_eq!(parse(&chain(9)), Some(Err(Reject::BadTransport)));
}

#[test]
fn a_routing_header_with_segments_left_is_not_for_the_destination() {
    let payload = [vec![6, 0, 0, 1, 0, 0, 0, 0], tcp(1, 2, 0)].concat();
    assert_eq!(
        parse(&frame(0x86dd, &v6(43, &payload))),
        Some(Err(Reject::BadTransport))
    );
}

#[test]
fn fragments_are_told_apart() {
    let segment = tcp(1, 1883, 0);
    let (_, first) = good(&frame(0x0800, &v4(0, 0x2000, 6, &segment)));
    assert_eq!(
        (first.fragmentation, first.destination_port),
        (Fragmentation::First, 1883)
    );
    let (_, later) = good(&frame(0x0800, &v4(0, 0x2001, 6, &[1, 2, 3])));
    assert_eq!(
        (later.fragmentation, later.destination_port),
        (Fragmentation::Later, 0)
    );
    let (_, later) = good(&frame(0x86dd, &v6(44, &[6, 0, 0, 9, 0, 0, 0, 0, 1])));
    assert_eq!(later.fragmentation, Fragmentation::Later);
    let (_, unfragmented) = good(&frame(0x0800, &v4(0, 0x4000, 6, &segment)));
    assert_eq!(unfragmented.fragmentation, Fragmentation::None);
}

#[test]
fn wrong_lengths_in_the_network_header_are_refused() {
    let good = v4(0, 0, 6, &tcp(1, 2, 0));
    let broken = |at: usize, value: u8| {
        let mut packet = good.clone();
        packet[at] = value;
        parse(&frame(0x0800, &packet))
    };
    for (at, value) in [(0, 0x44), (0, 0x4f), (0, 0x65), (3, 19), (3, 41), (2, 255)] {
        assert_eq!(
            broken(at, value),
            Some(Err(Reject::BadNetwork)),
            "byte {at} = {value:#x}"
        );
    }
    let mut packet = v6(6, &tcp(1, 2, 0));
    packet[5] = 21;
    assert_eq!(
        parse(&frame(0x86dd, &packet)),
        Some(Err(Reject::BadNetwork))
    );
}

#[test]
fn a_mapped_ipv4_address_in_an_ipv6_header_is_refused() {
    let mut packet = v6(6, &tcp(1, 1883, 2));
    packet[24..40].copy_from_slice(&Ip::from_v4(VIP).octets());
    assert_eq!(
        parse(&frame(0x86dd, &packet)),
        Some(Err(Reject::BadNetwork))
    );
}

#[test]
fn ethernet_padding_does_not_pass_for_ports() {
    let mut short = frame(0x0800, &v4(0, 0, 6, &[0; 4]));
    short.resize(60, 0xff);
    assert_eq!(parse(&short), Some(Err(Reject::BadTransport)));
}

#[test]
fn wrong_lengths_in_the_transport_header_are_refused() {
    let mut segment = tcp(1, 2, 0);
    for words in [0, 4, 6, 15] {
        segment[12] = words << 4;
        let parsed = parse(&frame(0x0800, &v4(0, 0, 6, &segment)));
        assert_eq!(
            parsed,
            Some(Err(Reject::BadTransport)),
            "data offset {words}"
        );
    }
    for length in [0, 7, 9] {
        let datagram = [0, 1, 0, 2, 0, length, 0, 0];
        let parsed = parse(&frame(0x0800, &v4(0, 0, 17, &datagram)));
        assert_eq!(
            parsed,
            Some(Err(Reject::BadTransport)),
            "UDP length {length}"
        );
    }
    let (_, udp) = good(&frame(0x0800, &v4(0, 0, 17, &[0, 1, 0, 2, 0, 8, 0, 0])));
    assert_eq!((udp.protocol, udp.destination_port), (PROTOCOL_UDP, 2));
}

#[test]
fn icmp_is_told_from_other_protocols() {
    let v4 = |fragment| parse(&frame(0x0800, &v4(0, fragment, 1, &[3; 8])));
    assert_eq!(v4(0), Some(Err(Reject::Icmp)));
    assert_eq!(v4(0x2000), Some(Err(Reject::OtherProtocol)));
    assert_eq!(v4(1), Some(Err(Reject::OtherProtocol)));
    let v6 = parse(&frame(0x86dd, &v6(58, &[1; 8])));
    assert_eq!(v6, Some(Err(Reject::Icmp)));
}

#[test]
fn other_protocols_are_not_ours() {
    assert_eq!(parse(&frame(0x0806, &[0; 28])), None);
    assert_eq!(
        parse(&frame(0x0800, &v4(0, 0, 58, &[8; 8]))),
        Some(Err(Reject::OtherProtocol))
    );
    assert_eq!(
        parse(&frame(0x86dd, &v6(1, &[128; 8]))),
        Some(Err(Reject::OtherProtocol))
    );
    assert_eq!(
        parse(&frame(0x86dd, &v6(59, &[]))),
        Some(Err(Reject::OtherProtocol))
    );
}

#[test]
fn every_cut_of_a_good_frame_is_refused() {
    let chain = [vec![6, 0, 1, 4, 0, 0, 0, 0], tcp(1, 2, 0)].concat();
    for whole in [
        frame(0x0800, &v4(12, 0, 6, &tcp(1, 2, 0))),
        frame(0x86dd, &v6(60, &chain)),
    ] {
        for length in 0..whole.len() {
            let parsed = parse(&whole[..length]);
            assert!(
                matches!(parsed, None | Some(Err(Reject::BadNetwork))),
                "{length} bytes"
            );
        }
        assert!(parse(&whole).unwrap().is_ok());
    }
}

/// What must hold of any bytes: no panic, and offsets that lie inside the frame, in order.
fn check(frame: &[u8]) -> Result<(), TestCaseError> {
    let mut cursor = SliceCursor::new(frame);
    let Some(family) = ethernet(&mut cursor) else {
        return Ok(());
    };
    prop_assert!(cursor.offset() >= 14 && cursor.offset() <= 22);
    let Ok(network) = Network::parse(&mut cursor, family) else {
        return Ok(());
    };
    prop_assert_eq!(network.destination.is_v4(), matches!(family, Family::V4));
    let Ok(transport) = Transport::parse(&mut cursor, &network, family) else {
        return Ok(());
    };
    prop_assert!(transport.offset >= network.offset + 20);
    if transport.fragmentation != Fragmentation::Later {
        let header = if transport.protocol == PROTOCOL_TCP {
            20
        } else {
            8
        };
        prop_assert!(transport.offset + header <= frame.len());
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4096))]

    #[test]
    fn arbitrary_bytes_never_panic(frame in proptest::collection::vec(any::<u8>(), 0..200)) {
        check(&frame)?;
    }

    #[test]
    fn damaged_frames_never_panic(
        options in 0_usize..=10,
        six in any::<bool>(),
        tags in 0_usize..3,
        damage in proptest::collection::vec((any::<proptest::sample::Index>(), any::<u8>()), 0..6),
        cut in any::<proptest::sample::Index>(),
    ) {
        let ethertype = if six { 0x86dd } else { 0x0800 };
        let chain = [vec![44, 0, 1, 4, 0, 0, 0, 0], vec![6, 0, 0, 0, 0, 0, 0, 0], tcp(1, 2, 0)].concat();
        let packet = if six { v6(0, &chain) } else { v4(options * 4, 0, 6, &tcp(1, 2, 0)) };
        let mut frame = [ethernet_header(&[0x8100, 0x8100][..tags], ethertype), packet].concat();
        for (at, byte) in damage {
            let at = at.index(frame.len());
            frame[at] = byte;
        }
        frame.truncate(cut.index(frame.len()) + 1);
        check(&frame)?;
    }
}
