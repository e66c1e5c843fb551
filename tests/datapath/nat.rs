//! Whole conversations through translation, in both directions.

use anyhow::{Context, Result, ensure};
use lb_common::{
    parse::{TCP_ACK, TCP_FIN, TCP_SYN},
    verdict::Verdict,
};
use tests::packet::{Packet, Transport};

use super::case::same;
use super::conversation::Flow;
use super::services::{
    BEHIND_NAT, FAMILIES, Family, NAT_MAGLEV, NAT_PORTS, NAT_ROUND_ROBIN, small_world, world,
};

const SYN: Transport = Transport::Tcp(TCP_SYN);
const ACK: Transport = Transport::Tcp(TCP_ACK);
const FIN: Transport = Transport::Tcp(TCP_FIN | TCP_ACK);
const SYN_ACK: Transport = Transport::Tcp(TCP_SYN | TCP_ACK);
const SERVICES: [u16; 3] = [NAT_MAGLEV, NAT_ROUND_ROBIN, BEHIND_NAT];

#[test]
fn a_connection_lives_from_syn_to_fin() -> Result<()> {
    let world = world()?;
    for family in FAMILIES {
        for service in SERVICES {
            let flow = Flow::begin(&world, &family.packet(SYN, service))?;
            flow.answer(&world, SYN_ACK)?;
            flow.send(&world, &flow.next(ACK))?;
            flow.answer(&world, ACK)?;
            flow.send(&world, &flow.next(FIN))?;
            flow.answer(&world, FIN)?;
            flow.send(&world, &flow.next(ACK))?;
        }
    }
    Ok(())
}

#[test]
fn a_retransmitted_syn_keeps_backend_and_port() -> Result<()> {
    let world = world()?;
    for family in FAMILIES {
        for service in SERVICES {
            let syn = family.packet(SYN, service);
            let flow = Flow::begin(&world, &syn)?;
            flow.send(&world, &syn)?;
            flow.send(&world, &syn)?;
        }
    }
    Ok(())
}

#[test]
fn datagrams_go_both_ways() -> Result<()> {
    let world = world()?;
    for family in FAMILIES {
        for service in SERVICES {
            let flow = Flow::begin(&world, &family.packet(Transport::Udp, service))?;
            flow.answer(&world, Transport::Udp)?;
            flow.send(&world, &flow.next(Transport::Udp))?;
            flow.answer(&world, Transport::Udp)?;
        }
    }
    Ok(())
}

/// The client's router failed over: its packets come from another MAC address.
#[test]
fn replies_follow_the_client_to_another_mac_address() -> Result<()> {
    let world = world()?;
    for family in FAMILIES {
        for (first, later) in [(SYN, SYN), (SYN, ACK), (Transport::Udp, Transport::Udp)] {
            let flow = Flow::begin(&world, &family.packet(first, NAT_MAGLEV))?;
            flow.send(&world, &flow.next(later))?;
            let moved = flow.next(later).with(|packet| {
                packet.source_mac = [0x02, 0xcc, 1, 2, 3, 4];
            });
            flow.send(&world, &moved)?;
            let flow = Flow {
                first: moved,
                ..flow
            };
            flow.answer(&world, answer_to(later))?;
        }
    }
    Ok(())
}

fn answer_to(transport: Transport) -> Transport {
    if transport == Transport::Udp {
        Transport::Udp
    } else {
        ACK
    }
}

#[test]
fn a_udp_checksum_that_comes_out_as_zero_is_sent_as_all_ones() -> Result<()> {
    let world = world()?;
    for family in FAMILIES {
        let flow = Flow::begin(&world, &family.packet(Transport::Udp, NAT_MAGLEV))?;
        let with_payload = |word: u16| {
            flow.next(Transport::Udp)
                .with(|packet| packet.payload = word.to_be_bytes().to_vec())
        };
        let summed_to = |packet: &Packet| -> Result<[u8; 2]> {
            let frame = flow.outward(&world, packet)?;
            let at = packet.transport_offset() + 6;
            let sum = frame.get(at..).and_then(|rest| rest.first_chunk());
            sum.copied().context("no checksum")
        };
        // Of all words of payload there is one that makes the sum zero.
        let mut found = 0;
        for word in 0..=u16::MAX {
            let packet = with_payload(word);
            if summed_to(&packet)? == [0xff, 0xff] {
                flow.send(&world, &packet)?;
                found += 1;
            }
        }
        ensure!(found > 0, "no payload made the sum zero");
    }
    Ok(())
}

#[test]
fn datagrams_without_a_checksum_keep_none_on_the_way_back() -> Result<()> {
    let world = world()?;
    let flow = Flow::begin(
        &world,
        &Family::V4.packet(Transport::UdpUnsummed, NAT_MAGLEV),
    )?;
    flow.answer(&world, Transport::UdpUnsummed)?;
    flow.answer(&world, Transport::Udp)
}

#[test]
fn replies_in_other_dress_are_translated_too() -> Result<()> {
    let world = world()?;
    for family in FAMILIES {
        let flow = Flow::begin(&world, &family.packet(SYN, NAT_MAGLEV))?;
        let reply = flow.reply(&world, SYN_ACK)?.with(|packet| {
            packet.tags = vec![[0x8100, 3], [0x8100, 4]];
            packet.options = if family == Family::V4 {
                vec![1; 8]
            } else {
                Vec::new()
            };
            if family == Family::V6 {
                packet.extensions = vec![(60, vec![0; 8])];
            }
            packet.tcp_options = vec![1; 12];
            packet.padding = vec![0xab; 5];
        });
        let out = world.send(&reply)?;
        same(&out.answer.frame, &flow.inward(&reply).build())?;
    }
    Ok(())
}

#[test]
fn only_the_backend_itself_can_answer() -> Result<()> {
    // Of its own, so that no other flow has one of the ports below.
    let world = small_world(NAT_MAGLEV)?;
    let flow = Flow::begin(&world, &Family::V4.packet(SYN, NAT_MAGLEV))?;
    let reply = flow.reply(&world, SYN_ACK)?;
    let client = Family::V4.client();
    let strangers = [
        reply.clone().with(|packet| packet.source_port += 1),
        reply.clone().with(|packet| packet.source = client),
        reply.clone().with(|packet| packet.destination = client),
        reply.clone().with(|packet| packet.destination_port ^= 0x10),
        reply
            .clone()
            .with(|packet| packet.transport = Transport::Udp),
        reply.with(|packet| packet.destination_port = NAT_PORTS.1 + 1),
    ];
    for stranger in strangers {
        let out = world.send(&stranger)?;
        ensure!(out.verdict == Verdict::PassNotOurs, "{:?}", out.verdict);
        same(&out.answer.frame, &stranger.build())?;
    }
    flow.answer(&world, SYN_ACK)
}
