//! Frames that are not for a service: to the host, untouched.

use std::net::IpAddr;

use anyhow::Result;
use lb_common::{
    parse::{TCP_ACK, TCP_SYN},
    verdict::Verdict,
};
use tests::packet::{Packet, Transport};

use super::case::{Case, check};
use super::services::{DSR_MAGLEV, FAMILIES, Family, KINDS, NAT_PORTS, new_port, world};

const SYN: Transport = Transport::Tcp(TCP_SYN);

/// A port without a service.
const NOBODYS: u16 = 9999;

fn untouched(name: impl Into<String>, packet: &Packet) -> Case {
    Case::bytes(name, packet.build(), Verdict::PassNotOurs)
}

#[test]
fn another_port_or_address_is_not_ours() -> Result<()> {
    let mut cases = Vec::new();
    for family in FAMILIES {
        for transport in [SYN, Transport::Udp] {
            let name = |what: &str| format!("{what}: {family:?} {transport:?}");
            let to = |address: IpAddr, port: u16| {
                Packet::new(transport, (family.client(), new_port()), (address, port))
            };
            cases.extend([
                untouched(name("wrong port"), &to(family.vip(), NOBODYS)),
                untouched(name("port 0"), &to(family.vip(), 0)),
                untouched(name("own address"), &to(family.own(), DSR_MAGLEV)),
                untouched(
                    name("own address, port of NAT that no flow has"),
                    &to(family.own(), NAT_PORTS.0),
                ),
                untouched(name("from VIP"), &to(family.client(), DSR_MAGLEV)),
            ]);
        }
    }
    check(&*world()?, &cases)
}

#[test]
fn frames_for_another_host_are_not_ours() -> Result<()> {
    let mut cases = Vec::new();
    for family in FAMILIES {
        for service in KINDS {
            for transport in [SYN, Transport::Tcp(TCP_ACK), Transport::Udp] {
                let packet = family.packet(transport, service);
                for byte in 0..6 {
                    let other = packet.clone().with(|packet| {
                        // Not the bit that says that it is for a group.
                        packet.destination_mac[byte] ^= 2;
                    });
                    let name = format!("{family:?} {service} {transport:?} byte {byte}");
                    cases.push(untouched(name, &other));
                }
            }
        }
    }
    check(&*world()?, &cases)
}

#[test]
fn other_protocols_to_a_vip_are_not_ours() -> Result<()> {
    // ICMP, IGMP, IP in IP, DCCP, IPv6 in IP, GRE, ESP, AH, ICMPv6, no next header, OSPF, SCTP.
    let protocols = [1, 2, 4, 33, 41, 47, 50, 51, 58, 59, 89, 132, 255];
    let mut cases = Vec::new();
    for family in FAMILIES {
        for protocol in protocols {
            // What follows looks like the ports of a service.
            let packet = family
                .packet(Transport::Other(protocol), DSR_MAGLEV)
                .with(|packet| packet.payload = DSR_MAGLEV.to_be_bytes().repeat(20));
            cases.push(untouched(format!("{protocol}: {family:?}"), &packet));
        }
    }
    check(&*world()?, &cases)
}

#[test]
fn other_ethertypes_are_not_ours() -> Result<()> {
    let mut cases = Vec::new();
    // ARP, Wake-on-LAN, RARP, MPLS, PPPoE, EAPOL, LLDP, and an 802.3 length.
    for ethertype in [
        0x0806, 0x0842, 0x8035, 0x8847, 0x8864, 0x888e, 0x88cc, 46_u16,
    ] {
        for tags in 0..3 {
            let packet = Family::V4
                .packet(SYN, DSR_MAGLEV)
                .with(|packet| packet.tags = vec![[0x8100, 5]; tags]);
            let mut frame = packet.build();
            let at = packet.network_offset() - 2;
            frame[at..at + 2].copy_from_slice(&ethertype.to_be_bytes());
            let name = format!("{ethertype:#06x} behind {tags} tags");
            cases.push(Case::bytes(name, frame, Verdict::PassNotOurs));
        }
    }
    check(&*world()?, &cases)
}

#[test]
fn more_than_two_tags_are_not_looked_behind() -> Result<()> {
    let mut cases = Vec::new();
    for family in FAMILIES {
        for tags in [3, 4, 10] {
            let packet = family
                .packet(SYN, DSR_MAGLEV)
                .with(|packet| packet.tags = vec![[0x8100, 7]; tags]);
            cases.push(untouched(format!("{tags} tags: {family:?}"), &packet));
        }
    }
    check(&*world()?, &cases)
}

#[test]
fn a_tag_that_the_frame_ends_in_is_not_ours() -> Result<()> {
    let packet = Family::V4
        .packet(SYN, DSR_MAGLEV)
        .with(|packet| packet.tags = vec![[0x88a8, 7], [0x8100, 8]]);
    let frame = packet.build();
    let cut = |length: usize| {
        let name = format!("cut to {length} bytes");
        Case::bytes(name, frame[..length].to_vec(), Verdict::PassNotOurs)
    };
    let cases: Vec<Case> = (14..packet.network_offset()).map(cut).collect();
    check(&*world()?, &cases)
}

#[test]
fn an_ipv4_address_in_an_ipv6_header_does_not_pass_for_ipv4() -> Result<()> {
    let mapped = |family: Family| match (family.vip(), family.client()) {
        (IpAddr::V4(vip), IpAddr::V4(client)) => (vip.to_ipv6_mapped(), client.to_ipv6_mapped()),
        (IpAddr::V6(vip), IpAddr::V6(client)) => (vip, client),
        _ => unreachable!("both are of one family"),
    };
    let (vip_v4, client_v4) = mapped(Family::V4);
    let (vip_v6, client_v6) = mapped(Family::V6);
    let mut cases = Vec::new();
    for (name, from, to) in [
        ("mapped VIP", client_v6, vip_v4),
        ("mapped client", client_v4, vip_v6),
        ("both mapped", client_v4, vip_v4),
    ] {
        let from = (IpAddr::V6(from), new_port());
        let packet = Packet::new(SYN, from, (IpAddr::V6(to), DSR_MAGLEV));
        cases.push(Case::bytes(name, packet.build(), Verdict::PassMalformed));
    }
    check(&*world()?, &cases)
}
