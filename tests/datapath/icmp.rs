//! ICMP errors about flows: to the backend that sent what they quote, or to the client.

use std::net::IpAddr;

use anyhow::{Context, Result, ensure};
use lb_common::{
    abi::NextHop,
    parse::{TCP_ACK, TCP_SYN},
    verdict::Verdict,
};
use tests::{
    icmp::Error,
    packet::{FRAGMENT, HOP_BY_HOP, Packet, Transport},
    prog_run::LOOPBACK,
    world::World,
};

use super::case::{family_of, same};
use super::conversation::Flow;
use super::services::{
    BEHIND, BEHIND_NAT, DSR_MAGLEV, DSR_ROUND_ROBIN, EMPTY, EMPTY_NAT, FAMILIES, Family,
    NAT_MAGLEV, NAT_ROUND_ROBIN, NO_NEXT_HOP, world,
};

const SYN: Transport = Transport::Tcp(TCP_SYN);
const ACK: Transport = Transport::Tcp(TCP_ACK);
const TRANSPORTS: [Transport; 2] = [ACK, Transport::Udp];

fn router(family: Family) -> IpAddr {
    match family {
        Family::V4 => IpAddr::from([192, 0, 2, 77]),
        Family::V6 => IpAddr::from([0x2001, 0xdb8, 0, 0, 0, 0, 0, 0x77]),
    }
}

/// Types and codes of all errors about flows.
pub(super) fn kinds(family: Family) -> &'static [(u8, u8)] {
    match family {
        Family::V4 => &[
            (3, 0),
            (3, 1),
            (3, 3),
            (3, 4),
            (3, 13),
            (11, 0),
            (11, 1),
            (12, 0),
        ],
        Family::V6 => &[(1, 0), (1, 4), (2, 0), (3, 0), (3, 1), (4, 0), (4, 1)],
    }
}

/// An error about a packet, of which `length` bytes are quoted, from a router to its sender.
pub(super) fn about(packet: &Packet, (kind, code): (u8, u8), length: usize) -> Packet {
    let mut quote = packet.build().split_off(packet.network_offset());
    quote.truncate(length);
    let error = Error {
        kind,
        code,
        rest: 1400,
        quote,
    };
    error.packet(router(family_of(packet)), packet.source)
}

/// What the VIP sends to the client, as a router sees it that has counted its hops down.
pub(super) fn sent_back(packet: &Packet) -> Packet {
    let ends = (
        (packet.destination, packet.destination_port),
        (packet.source, packet.source_port),
    );
    packet.between(ends.0, ends.1).with(|packet| packet.ttl = 1)
}

/// Bytes of the headers up to the ports and four more.
pub(super) fn least(packet: &Packet) -> usize {
    packet.transport_offset() - packet.network_offset() + 8
}

#[test]
fn an_error_goes_to_the_backend_of_its_flow_as_it_is() -> Result<()> {
    let world = world()?;
    for family in FAMILIES {
        for transport in TRANSPORTS {
            for (service, verdict) in [
                (DSR_MAGLEV, Verdict::TxIcmp),
                (BEHIND, Verdict::RedirectIcmp),
            ] {
                for kind in kinds(family) {
                    let packet = family.packet(transport, service);
                    let answer = sent_back(&packet);
                    for length in [least(&answer), 1280] {
                        let error = about(&answer, *kind, length);
                        let out = world.send(&error)?;
                        ensure!(out.verdict == verdict, "{kind:?} {:?}", out.verdict);
                        let hop = world.next_hop(world.owner(&packet)?)?;
                        same(&out.answer.frame, &error.forwarded(hop).build())?;
                    }
                }
            }
        }
    }
    Ok(())
}

#[test]
fn an_error_about_a_recorded_flow_goes_to_its_backend() -> Result<()> {
    let world = world()?;
    for family in FAMILIES {
        for first in [SYN, Transport::Udp] {
            for _turn in 0..2 {
                let packet = family.packet(first, DSR_ROUND_ROBIN);
                let begun = world.send(&packet)?;
                let error = about(&sent_back(&packet), kinds(family)[0], 1280);
                let out = world.send(&error)?;
                ensure!(out.verdict == Verdict::TxIcmp, "{:?}", out.verdict);
                ensure!(out.answer.frame[..6] == begun.answer.frame[..6]);
            }
        }
    }
    Ok(())
}

/// The least that must be quoted, up to a TCP checksum, and all.
fn lengths(packet: &Packet) -> [usize; 5] {
    let least = least(packet);
    [least, least + 8, least + 10, least + 12, 1280]
}

#[test]
fn an_error_about_a_translated_flow_reaches_the_backend_as_if_about_its_own_packet() -> Result<()> {
    let world = world()?;
    for family in FAMILIES {
        for (first, answer) in [
            (SYN, ACK),
            (Transport::Udp, Transport::Udp),
            (Transport::UdpUnsummed, Transport::UdpUnsummed),
        ] {
            if family == Family::V6 && first == Transport::UdpUnsummed {
                continue;
            }
            for service in [NAT_MAGLEV, NAT_ROUND_ROBIN, BEHIND_NAT] {
                let flow = Flow::begin(&world, &family.packet(first, service))?;
                for kind in kinds(family) {
                    let reply = flow.reply(&world, answer)?.with(|packet| packet.ttl = 7);
                    let to_client = flow.inward(&reply);
                    for length in lengths(&to_client) {
                        error_to_backend(&world, &flow, &reply, *kind, length)
                            .with_context(|| format!("{first:?} {service} {kind:?} {length}"))?;
                    }
                }
            }
        }
    }
    Ok(())
}

fn error_to_backend(
    world: &World,
    flow: &Flow,
    reply: &Packet,
    kind: (u8, u8),
    length: usize,
) -> Result<()> {
    let error = about(&flow.inward(reply), kind, length);
    let out = world.send(&error)?;
    let hop = world.next_hop(flow.backend)?;
    let right = if hop.interface == LOOPBACK {
        Verdict::TxIcmp
    } else {
        Verdict::RedirectIcmp
    };
    ensure!(out.verdict == right, "{:?}", out.verdict);
    // As the backend sent it, but for the hop that it has gone since.
    let as_sent = reply.clone().with(|packet| packet.ttl -= 1);
    let expected = about(&as_sent, kind, length).between((reply.destination, 0), (reply.source, 0));
    same(
        &out.answer.frame,
        &resummed(&expected.forwarded(hop)).build(),
    )
}

/// The same with the checksum of ICMPv6, which covers the addresses, for those that it has.
fn resummed(packet: &Packet) -> Packet {
    let bytes = &packet.payload;
    let error = Error {
        kind: bytes[0],
        code: bytes[1],
        rest: u32::from_be_bytes([bytes[4], bytes[5], bytes[6], bytes[7]]),
        quote: bytes[8..].to_vec(),
    };
    let payload = error.packet(packet.source, packet.destination).payload;
    packet.clone().with(|packet| packet.payload = payload)
}

#[test]
fn an_error_from_behind_reaches_the_client_as_if_about_its_own_packet() -> Result<()> {
    let world = world()?;
    for family in FAMILIES {
        for first in [SYN, Transport::Udp] {
            for service in [NAT_MAGLEV, BEHIND_NAT] {
                let flow = Flow::begin(&world, &family.packet(first, service))?;
                for kind in kinds(family) {
                    let (own, backend) = (family.own(), world.address(flow.backend)?);
                    let sent = flow.first.between((own, flow.port), backend);
                    for length in lengths(&sent) {
                        let error = about(&sent, *kind, length);
                        let out = world.send(&error)?;
                        ensure!(out.verdict == Verdict::TxIcmpReply, "{:?}", out.verdict);
                        let first = &flow.first;
                        let way_back = NextHop {
                            interface: LOOPBACK,
                            mac: first.source_mac,
                            source_mac: first.destination_mac,
                        };
                        let expected = about(first, *kind, length)
                            .between((first.destination, 0), (first.source, 0));
                        let expected = resummed(&expected.forwarded(way_back)).build();
                        same(&out.answer.frame, &expected)
                            .with_context(|| format!("{first:?} {kind:?} {length}"))?;
                    }
                }
            }
        }
    }
    Ok(())
}

#[test]
fn quotes_with_options_and_extension_headers_are_translated_too() -> Result<()> {
    let world = world()?;
    for family in FAMILIES {
        let flow = Flow::begin(&world, &family.packet(SYN, NAT_MAGLEV))?;
        let reply = flow.reply(&world, ACK)?.with(|packet| {
            packet.ttl = 7;
            match family {
                Family::V4 => packet.options = vec![1; 12],
                Family::V6 => packet.extensions = vec![(HOP_BY_HOP, vec![0; 8])],
            }
        });
        for length in lengths(&reply) {
            error_to_backend(&world, &flow, &reply, kinds(family)[0], length)?;
        }
    }
    Ok(())
}

fn expect(world: &World, what: &str, packet: &Packet, verdict: Verdict) -> Result<()> {
    let out = world.send(packet)?;
    ensure!(out.verdict == verdict, "{what}: {:?}", out.verdict);
    if verdict == Verdict::PassNotOurs {
        same(&out.answer.frame, &packet.build())?;
    }
    Ok(())
}

/// Nothing about a VIP's flows is for the host's own connections.
#[test]
fn errors_about_flows_that_are_not_known_are_dropped() -> Result<()> {
    let world = world()?;
    for family in FAMILIES {
        let kind = kinds(family)[0];
        let answer = |service| sent_back(&family.packet(ACK, service));
        let unknown = about(&answer(NAT_MAGLEV), kind, 1280);
        expect(&world, "nat", &unknown, Verdict::DropIcmpUnknownFlow)?;
        for length in [0, 8, 20, least(&answer(DSR_MAGLEV)) - 1] {
            let cut = about(&answer(DSR_MAGLEV), kind, length);
            expect(&world, "cut", &cut, Verdict::DropIcmpUnknownFlow)?;
        }
        let later = answer(DSR_MAGLEV).with(|packet| match family {
            Family::V4 => packet.fragment = 7,
            Family::V6 => packet.extensions = vec![(FRAGMENT, vec![0, 0, 0, 56, 0, 0, 0, 1])],
        });
        let later = about(&later, kind, 1280);
        expect(&world, "later", &later, Verdict::DropIcmpUnknownFlow)?;
        let of_others = answer(DSR_MAGLEV).with(|packet| packet.source = family.own());
        let of_others = about(&of_others, kind, 1280).with(|packet| {
            packet.destination = family.vip();
        });
        expect(&world, "others'", &of_others, Verdict::DropIcmpUnknownFlow)?;
        let nobody = about(&answer(EMPTY), kind, 1280);
        expect(&world, "empty", &nobody, Verdict::DropNoBackend)?;
        let nobody = about(&answer(EMPTY_NAT), kind, 1280);
        expect(&world, "empty nat", &nobody, Verdict::DropIcmpUnknownFlow)?;
        let nowhere = about(&answer(NO_NEXT_HOP), kind, 1280);
        expect(&world, "no next hop", &nowhere, Verdict::DropNoNextHop)?;
        // Errors about errors would have no end (RFC 1122, 3.2.2).
        let old = about(&answer(DSR_MAGLEV), kind, 1280).with(|packet| packet.ttl = 1);
        expect(&world, "old", &old, Verdict::DropTtlExpired)?;
    }
    Ok(())
}

#[test]
fn other_icmp_is_the_hosts() -> Result<()> {
    let world = world()?;
    for family in FAMILIES {
        let others: &[(u8, u8)] = match family {
            Family::V4 => &[(8, 0), (0, 0), (4, 0), (5, 1), (13, 0)],
            Family::V6 => &[(128, 0), (129, 0), (135, 0), (136, 0), (0, 0), (5, 0)],
        };
        let answer = sent_back(&family.packet(ACK, DSR_MAGLEV));
        for kind in others {
            let packet = about(&answer, *kind, 1280);
            expect(&world, &format!("{kind:?}"), &packet, Verdict::PassNotOurs)?;
        }
        let kind = kinds(family)[0];
        // The host's own connections, one of them with a port that translation could have.
        for port in [45_000, 25_000] {
            let own = answer.between((family.own(), port), (router(family), 443));
            let about_own = about(&own, kind, 1280);
            expect(&world, "own", &about_own, Verdict::PassNotOurs)?;
        }
        let of_no_service = answer.clone().with(|packet| packet.source_port = 9999);
        let of_no_service = about(&of_no_service, kind, 1280);
        expect(&world, "no service", &of_no_service, Verdict::PassNotOurs)?;
        let of_echo = answer.with(|packet| packet.transport = Transport::Other(1));
        let of_echo = about(&of_echo, kind, 1280);
        expect(&world, "echo", &of_echo, Verdict::PassNotOurs)?;
    }
    Ok(())
}
