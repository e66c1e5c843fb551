//! Fragments: never forwarded, never the host's if they are a VIP's.

use anyhow::Result;
use lb_common::{parse::TCP_ACK, verdict::Verdict};
use tests::packet::{DESTINATION_OPTIONS, FRAGMENT, HOP_BY_HOP, Packet, Transport};

use super::case::{Case, check};
use super::services::{DSR_MAGLEV, FAMILIES, Family, KINDS, new_port, world};

const ACK: Transport = Transport::Tcp(TCP_ACK);
const MORE: u16 = 0x2000;
const DONT: u16 = 0x4000;
const RESERVED: u16 = 0x8000;

/// A port without a service.
const NOBODYS: u16 = 9999;

/// As a fragment: offset in units of eight bytes, and whether more follow.
fn fragment(packet: Packet, offset: u16, more: bool) -> Packet {
    packet.with(|packet| {
        if packet.source.is_ipv4() {
            packet.fragment = offset | if more { MORE } else { 0 };
        } else {
            let [high, low] = ((offset << 3) | u16::from(more)).to_be_bytes();
            packet.extensions = vec![(FRAGMENT, vec![0, 0, high, low, 1, 2, 3, 4])];
        }
    })
}

/// First, middle, second to reach far out, last.
const PIECES: [(u16, bool); 4] = [(0, true), (1, true), (0x1fff, true), (185, false)];

#[test]
fn fragments_to_a_service_are_dropped() -> Result<()> {
    let mut cases = Vec::new();
    for family in FAMILIES {
        for transport in [ACK, Transport::Udp] {
            for service in KINDS {
                for (offset, more) in PIECES {
                    let packet = fragment(family.packet(transport, service), offset, more);
                    let name = format!("{offset} {more}: {family:?} {transport:?} {service}");
                    cases.push(Case::bytes(name, packet.build(), Verdict::DropFragment));
                }
            }
        }
    }
    check(&*world()?, &cases)
}

/// Where their ports would be is payload, which may read like any port.
#[test]
fn later_fragments_to_a_vip_are_dropped_whatever_they_hold() -> Result<()> {
    let mut cases = Vec::new();
    for family in FAMILIES {
        for transport in [ACK, Transport::Udp] {
            let packet = fragment(family.packet(transport, NOBODYS), 100, false);
            let name = format!("{family:?} {transport:?}");
            cases.push(Case::bytes(name, packet.build(), Verdict::DropFragment));
        }
        for length in [0, 1, 8] {
            let packet = family.packet(Transport::Other(6), 0);
            let packet = fragment(packet, 2, true).with(|packet| {
                packet.payload = vec![7; length];
            });
            let name = format!("{length} bytes: {family:?}");
            cases.push(Case::bytes(name, packet.build(), Verdict::DropFragment));
        }
    }
    check(&*world()?, &cases)
}

#[test]
fn fragments_for_others_are_not_ours() -> Result<()> {
    let mut cases = Vec::new();
    for family in FAMILIES {
        for transport in [ACK, Transport::Udp] {
            for (offset, more) in PIECES {
                let client = (family.client(), new_port());
                let packet = Packet::new(transport, client, (family.own(), DSR_MAGLEV));
                let packet = fragment(packet, offset, more);
                let name = format!("{offset} {more}: {family:?} {transport:?}");
                cases.push(Case::bytes(name, packet.build(), Verdict::PassNotOurs));
            }
            let first = fragment(family.packet(transport, NOBODYS), 0, true);
            let name = format!("first, to no service: {family:?} {transport:?}");
            cases.push(Case::bytes(name, first.build(), Verdict::PassNotOurs));
        }
        let icmp = fragment(family.packet(Transport::Other(1), 0), 3, false);
        let name = format!("of ICMP: {family:?}");
        cases.push(Case::bytes(name, icmp.build(), Verdict::PassNotOurs));
    }
    check(&*world()?, &cases)
}

/// Such a piece cannot be judged, and RFC 1858 tells what it would be for.
#[test]
fn a_first_fragment_without_the_whole_tcp_header_is_dropped() -> Result<()> {
    let mut cases = Vec::new();
    for family in FAMILIES {
        let whole = family.packet(ACK, DSR_MAGLEV);
        let header = whole.build()[whole.transport_offset()..].to_vec();
        for length in [0, 4, 8, 16] {
            let packet = family.packet(Transport::Other(6), 0);
            let packet = fragment(packet, 0, true).with(|packet| {
                packet.payload = header[..length].to_vec();
            });
            let name = format!("{length} bytes: {family:?}");
            cases.push(Case::bytes(name, packet.build(), Verdict::DropMalformed));
        }
    }
    check(&*world()?, &cases)
}

#[test]
fn a_first_fragment_of_udp_may_be_shorter_than_its_datagram() -> Result<()> {
    let mut cases = Vec::new();
    for family in FAMILIES {
        let packet = fragment(family.packet(Transport::Udp, DSR_MAGLEV), 0, true);
        let mut frame = packet.build();
        let at = packet.transport_offset() + 4;
        frame[at..at + 2].copy_from_slice(&4000_u16.to_be_bytes());
        cases.push(Case::bytes(
            format!("{family:?}"),
            frame,
            Verdict::DropFragment,
        ));
    }
    check(&*world()?, &cases)
}

#[test]
fn other_bits_of_the_fragment_field_do_not_make_a_fragment() -> Result<()> {
    let mut cases = Vec::new();
    for service in [DSR_MAGLEV] {
        for bits in [DONT, RESERVED, DONT | RESERVED] {
            let packet = Family::V4.packet(ACK, service);
            let packet = packet.with(|packet| packet.fragment = bits);
            let name = format!("{bits:#06x} to {service}");
            cases.push(Case::packet(name, &packet, Verdict::TxDsr));
        }
    }
    check(&*world()?, &cases)
}

#[test]
fn a_fragment_header_is_found_behind_other_headers() -> Result<()> {
    let first = |more| vec![0, 0, 0, more, 0, 0, 0, 1];
    let mut cases = Vec::new();
    for (name, chain) in [
        (
            "behind",
            vec![(HOP_BY_HOP, vec![0; 8]), (FRAGMENT, first(1))],
        ),
        (
            "before",
            vec![(FRAGMENT, first(1)), (DESTINATION_OPTIONS, vec![0; 8])],
        ),
        // Any that says so makes it a fragment.
        (
            "after an atomic one",
            vec![(FRAGMENT, first(0)), (FRAGMENT, first(1))],
        ),
    ] {
        let packet = Family::V6.packet(ACK, DSR_MAGLEV);
        let packet = packet.with(|packet| packet.extensions = chain);
        cases.push(Case::bytes(name, packet.build(), Verdict::DropFragment));
    }
    check(&*world()?, &cases)
}
