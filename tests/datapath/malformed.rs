//! Frames whose headers contradict themselves or each other.
//!
//! A bad network header names nobody: the host gets it and drops it. Behind a good one that names a
//! VIP, nothing bad may reach the host's own TCP.

use std::net::IpAddr;

use anyhow::Result;
use lb_common::{parse::TCP_SYN, verdict::Verdict};
use tests::packet::{
    DESTINATION_OPTIONS, Extension, FRAGMENT, HOP_BY_HOP, Packet, ROUTING, Transport,
};
use tests::prog_run::SHORTEST;

use super::case::{Case, check};
use super::services::{DSR_MAGLEV, FAMILIES, Family, KINDS, NAT_MAGLEV, new_port, world};

const SYN: Transport = Transport::Tcp(TCP_SYN);

/// A frame with some of its bytes changed, counted from the network header.
fn bent(
    name: impl Into<String>,
    packet: &Packet,
    verdict: Verdict,
    bend: impl FnOnce(&mut [u8]),
) -> Case {
    let mut frame = packet.build();
    bend(&mut frame[packet.network_offset()..]);
    Case::bytes(name, frame, verdict)
}

fn plain(family: Family) -> Packet {
    family.packet(SYN, DSR_MAGLEV)
}

#[test]
fn every_cut_of_a_good_packet_is_left_to_the_host() -> Result<()> {
    let mut cases = Vec::new();
    for family in FAMILIES {
        for transport in [SYN, Transport::Udp] {
            for service in KINDS {
                let packet = family.packet(transport, service);
                let frame = packet.build();
                for length in SHORTEST..frame.len() {
                    let name = format!("{length} bytes: {family:?} {transport:?} {service}");
                    let cut = frame[..length].to_vec();
                    cases.push(Case::bytes(name, cut, Verdict::PassMalformed));
                }
            }
        }
    }
    check(&*world()?, &cases)
}

/// The packet's own length is right, so it is the VIP's, and its transport header is cut.
#[test]
fn a_transport_header_that_ends_early_is_dropped() -> Result<()> {
    let mut cases = Vec::new();
    for family in FAMILIES {
        for (protocol, header) in [(6, 20), (17, 8)] {
            for length in 0..header {
                let packet = family.packet(Transport::Other(protocol), DSR_MAGLEV);
                let packet = packet.with(|packet| {
                    packet.payload = vec![0x55; length];
                    // Padding that reads like ports must not make up for what is missing.
                    packet.padding = DSR_MAGLEV.to_be_bytes().repeat(23);
                });
                let name = format!("{length} bytes of {protocol}: {family:?}");
                let frame = packet.build();
                cases.push(Case::bytes(name, frame, Verdict::DropMalformed));
            }
        }
    }
    check(&*world()?, &cases)
}

#[test]
fn padding_does_not_pass_for_ports() -> Result<()> {
    let mut cases = Vec::new();
    for family in FAMILIES {
        for transport in [SYN, Transport::Udp] {
            for service in KINDS {
                let whole = family.packet(transport, service);
                let header = whole.build()[whole.transport_offset()..].to_vec();
                for (to, verdict) in [
                    (family.vip(), Verdict::DropMalformed),
                    (family.own(), Verdict::PassMalformed),
                ] {
                    let empty = Transport::Other(whole.protocol());
                    let client = (family.client(), new_port());
                    let packet = Packet::new(empty, client, (to, 0)).with(|packet| {
                        packet.payload.clear();
                        packet.padding = header.clone();
                    });
                    let name = format!("to {to}: {transport:?} {service}");
                    cases.push(Case::bytes(name, packet.build(), verdict));
                }
            }
        }
    }
    check(&*world()?, &cases)
}

#[test]
fn bad_ipv4_headers_are_left_to_the_host() -> Result<()> {
    let packet = plain(Family::V4);
    let mut cases = Vec::new();
    let mut add = |name: String, bend: &dyn Fn(&mut [u8])| {
        cases.push(bent(name, &packet, Verdict::PassMalformed, bend));
    };
    for version in [0_u8, 3, 5, 6, 15] {
        add(format!("version {version}"), &|ip| {
            ip[0] = (version << 4) | 5
        });
    }
    for words in 0..5 {
        add(format!("header of {words} words"), &|ip| {
            ip[0] = 0x40 | words
        });
    }
    for total in [0_u16, 1, 19, 48, 1500, 0xffff] {
        add(format!("total length {total}"), &|ip| {
            ip[2..4].copy_from_slice(&total.to_be_bytes());
        });
    }
    add("header longer than the packet".to_owned(), &|ip| {
        ip[0] = 0x4f;
        ip[2..4].copy_from_slice(&40_u16.to_be_bytes());
    });
    check(&*world()?, &cases)
}

#[test]
fn bad_ipv6_headers_are_left_to_the_host() -> Result<()> {
    let packet = plain(Family::V6);
    let mut cases = Vec::new();
    for version in [0_u8, 4, 5, 7, 15] {
        let name = format!("version {version}");
        cases.push(bent(name, &packet, Verdict::PassMalformed, |ip| {
            ip[0] = version << 4;
        }));
    }
    for payload in [28_u16, 1500, 0xffff] {
        let name = format!("payload length {payload}");
        cases.push(bent(name, &packet, Verdict::PassMalformed, |ip| {
            ip[4..6].copy_from_slice(&payload.to_be_bytes());
        }));
    }
    // A jumbogram's real length stands in an option (RFC 2675), which nobody sends.
    cases.push(bent(
        "payload length 0",
        &packet,
        Verdict::DropMalformed,
        |ip| {
            ip[4..6].fill(0);
        },
    ));
    check(&*world()?, &cases)
}

#[test]
fn a_network_header_under_the_wrong_ethertype_is_left_to_the_host() -> Result<()> {
    let mut cases = Vec::new();
    for (family, ethertype) in [(Family::V4, [0x86, 0xdd]), (Family::V6, [0x08, 0x00])] {
        let packet = plain(family).with(|packet| packet.tags = vec![[0x8100, 9]]);
        let mut frame = packet.build();
        frame[16..18].copy_from_slice(&ethertype);
        cases.push(Case::bytes(
            format!("{family:?}"),
            frame,
            Verdict::PassMalformed,
        ));
    }
    check(&*world()?, &cases)
}

#[test]
fn bad_data_offsets_and_udp_lengths_are_dropped() -> Result<()> {
    let mut cases = Vec::new();
    for family in FAMILIES {
        for service in [DSR_MAGLEV, NAT_MAGLEV] {
            let tcp = family.packet(SYN, service);
            let at = tcp.transport_offset() - tcp.network_offset();
            // The segment has 27 bytes.
            for words in [0, 1, 4, 7, 15] {
                let name = format!("data offset {words}: {family:?} {service}");
                cases.push(bent(name, &tcp, Verdict::DropMalformed, |ip| {
                    ip[at + 12] = words << 4;
                }));
            }
            let udp = family.packet(Transport::Udp, service);
            // The datagram has 15 bytes.
            for length in [0_u16, 1, 7, 16, 0xffff] {
                let name = format!("UDP length {length}: {family:?} {service}");
                cases.push(bent(name, &udp, Verdict::DropMalformed, |ip| {
                    ip[at + 4..at + 6].copy_from_slice(&length.to_be_bytes());
                }));
            }
        }
    }
    check(&*world()?, &cases)
}

#[test]
fn bad_extension_headers_are_dropped_if_they_name_a_vip() -> Result<()> {
    let options = |length: u8| {
        let mut header = vec![0; 8];
        header[1] = length;
        header
    };
    let routing = |segments_left: u8| vec![0, 0, 0, segments_left, 0, 0, 0, 0];
    let chains: [(&str, Vec<Extension>); 10] = [
        ("nine headers", vec![(DESTINATION_OPTIONS, options(0)); 9]),
        ("thirty headers", vec![(HOP_BY_HOP, options(0)); 30]),
        (
            "options past the end",
            vec![(DESTINATION_OPTIONS, options(5))],
        ),
        ("options far past the end", vec![(HOP_BY_HOP, options(255))]),
        (
            "routing past the end",
            vec![(ROUTING, vec![0, 9, 0, 0, 0, 0, 0, 0])],
        ),
        ("one segment left", vec![(ROUTING, routing(1))]),
        ("255 segments left", vec![(ROUTING, routing(255))]),
        (
            "segments left of type 4",
            vec![(ROUTING, vec![0, 0, 4, 2, 0, 0, 0, 0])],
        ),
        (
            "a bad header behind good ones",
            vec![
                (HOP_BY_HOP, options(0)),
                (FRAGMENT, vec![0; 8]),
                (ROUTING, routing(2)),
            ],
        ),
        (
            "headers up to the end",
            vec![(DESTINATION_OPTIONS, options(3))],
        ),
    ];
    let elsewhere: IpAddr = Family::V6.own();
    let mut cases = Vec::new();
    for (name, chain) in chains {
        for (to, verdict) in [
            (Family::V6.vip(), Verdict::DropMalformed),
            (elsewhere, Verdict::PassMalformed),
        ] {
            let client = (Family::V6.client(), new_port());
            let packet = Packet::new(SYN, client, (to, DSR_MAGLEV)).with(|packet| {
                packet.extensions = chain.clone();
                // Only the packet's end stops a header that runs over it.
                packet.padding = vec![0; 100];
            });
            cases.push(Case::bytes(
                format!("{name}, to {to}"),
                packet.build(),
                verdict,
            ));
        }
    }
    check(&*world()?, &cases)
}

#[test]
fn an_extension_header_that_the_packet_ends_in_is_dropped() -> Result<()> {
    let mut cases = Vec::new();
    for kind in [HOP_BY_HOP, DESTINATION_OPTIONS, ROUTING, FRAGMENT] {
        for length in 0..8 {
            let packet = Family::V6.packet(Transport::Other(kind), 0).with(|packet| {
                packet.payload = vec![0; length];
                packet.padding = vec![0; 50];
            });
            let name = format!("{length} bytes of {kind}");
            cases.push(Case::bytes(name, packet.build(), Verdict::DropMalformed));
        }
    }
    check(&*world()?, &cases)
}

#[test]
fn bad_transport_headers_to_others_are_left_to_the_host() -> Result<()> {
    let mut cases = Vec::new();
    for family in FAMILIES {
        let client = (family.client(), new_port());
        let packet = Packet::new(SYN, client, (family.own(), 22));
        let at = packet.transport_offset() - packet.network_offset();
        let name = format!("{family:?}");
        cases.push(bent(name, &packet, Verdict::PassMalformed, |ip| {
            ip[at + 12] = 0
        }));
    }
    check(&*world()?, &cases)
}
