//! Packets that get no further are answered to their sender.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use lb_common::{
    icmp,
    parse::{TCP_ACK, TCP_SYN},
    verdict::Verdict,
};
use tests::{
    icmp::Error,
    packet::{DESTINATION_OPTIONS, Packet, Transport},
    world::World,
};

use super::case::{family_of, same};
use super::conversation::Flow;
use super::services::{DSR_MAGLEV, FAMILIES, Family, KINDS, NAT_MAGLEV, small_world, world};

const SYN: Transport = Transport::Tcp(TCP_SYN);
const ACK: Transport = Transport::Tcp(TCP_ACK);

/// What a packet with no hop left must be answered with.
pub(crate) fn time_exceeded(packet: &Packet) -> Vec<u8> {
    let (kind, most) = match family_of(packet) {
        Family::V4 => (icmp::V4_TIME_EXCEEDED, 576 - 28),
        Family::V6 => (icmp::V6_TIME_EXCEEDED, 1280 - 48),
    };
    answer(packet, kind, most)
}

fn answer(packet: &Packet, kind: u8, most: usize) -> Vec<u8> {
    let bare = packet.clone().with(|packet| packet.padding.clear());
    let mut quote = bare.build().split_off(packet.network_offset());
    quote.truncate(most);
    let error = Error {
        kind,
        code: 0,
        rest: 0,
        quote,
    };
    let answer = error.packet(packet.destination, packet.source);
    answer
        .with(|answer| {
            answer.source_mac = packet.destination_mac;
            answer.destination_mac = packet.source_mac;
            answer.tags.clone_from(&packet.tags);
            answer.identification = 0;
            answer.fragment = 0x4000;
            answer.flow_label = 0;
            answer.service_type = match family_of(packet) {
                Family::V4 => packet.service_type & 0x1e | 0xc0,
                Family::V6 => 0,
            };
        })
        .build()
}

/// Sends the packet until it is one that the rate of answers allows for.
fn check(world: &World, name: &str, packet: &Packet) -> Result<()> {
    let deadline = Instant::now() + Duration::from_secs(10);
    let mut out = world.send(packet)?;
    while out.verdict == Verdict::DropTtlExpired && Instant::now() < deadline {
        out = world.send(packet)?;
    }
    ensure!(
        out.verdict == Verdict::TxTimeExceeded,
        "{name}: {:?}",
        out.verdict
    );
    same(&out.answer.frame, &time_exceeded(packet)).context(name.to_owned())
}

#[test]
fn a_packet_at_the_end_of_its_life_is_answered() -> Result<()> {
    let world = world()?;
    for family in FAMILIES {
        for service in KINDS {
            for transport in [SYN, ACK, Transport::Udp] {
                for ttl in [0, 1] {
                    let packet = family.packet(transport, service);
                    let packet = packet.with(|packet| packet.ttl = ttl);
                    let name = format!("TTL {ttl}: {family:?} {transport:?} to {service}");
                    check(&world, &name, &packet)?;
                }
            }
        }
    }
    Ok(())
}

/// Every length around the words and chunks that the sum is made of, and beyond what is quoted.
#[test]
fn as_much_is_quoted_as_fits_and_its_sum_is_right() -> Result<()> {
    let world = world()?;
    for family in FAMILIES {
        for length in (0..=70).chain(480..=560).chain(1180..=1250).chain([1400]) {
            let packet = family.packet(ACK, DSR_MAGLEV).with(|packet| {
                packet.ttl = 1;
                packet.payload = (0..length).map(|at| (at * 7 + 3) as u8).collect();
            });
            check(&world, &format!("{length} bytes, {family:?}"), &packet)?;
        }
    }
    Ok(())
}

#[test]
fn tags_options_and_padding_are_dealt_with() -> Result<()> {
    let world = world()?;
    for family in FAMILIES {
        for tags in [
            vec![],
            vec![[0x8100, 0x2003]],
            vec![[0x88a8, 3], [0x8100, 4]],
        ] {
            for service_type in [0, 0x03, 0xb8, 0xff] {
                let packet = family.packet(ACK, DSR_MAGLEV).with(|packet| {
                    packet.ttl = 1;
                    packet.tags.clone_from(&tags);
                    packet.service_type = service_type;
                    packet.tcp_options = vec![1; 12];
                    packet.padding = vec![0xab; 9];
                    match family {
                        Family::V4 => packet.options = vec![1; 8],
                        Family::V6 => packet.extensions = vec![(DESTINATION_OPTIONS, vec![0; 8])],
                    }
                });
                let name = format!("{family:?} {tags:x?} {service_type:#x}");
                check(&world, &name, &packet)?;
            }
        }
    }
    Ok(())
}

/// RFC 1122, 3.2.2 and RFC 4443, 2.4: an answer to those would go to many, or to nobody.
#[test]
fn what_is_not_from_one_host_to_one_host_is_not_answered() -> Result<()> {
    let world = world()?;
    let sources = [
        "224.0.0.1",
        "255.255.255.255",
        "127.0.0.1",
        "0.0.0.0",
        "ff02::1",
        "::",
        "::1",
    ];
    for source in sources {
        let source: std::net::IpAddr = source.parse()?;
        let family = if source.is_ipv4() {
            Family::V4
        } else {
            Family::V6
        };
        let packet = family.packet(ACK, DSR_MAGLEV).with(|packet| {
            packet.ttl = 1;
            packet.source = source;
        });
        let verdict = world.send(&packet)?.verdict;
        ensure!(verdict == Verdict::DropTtlExpired, "{source}: {verdict:?}");
    }
    for family in FAMILIES {
        let packet = family.packet(ACK, DSR_MAGLEV).with(|packet| {
            packet.ttl = 1;
            packet.destination_mac = [0xff; 6];
        });
        ensure!(world.send(&packet)?.verdict == Verdict::DropTtlExpired);
    }
    Ok(())
}

/// Forged packets must not make the balancer send without end.
#[test]
fn answers_have_a_rate() -> Result<()> {
    let world = small_world(DSR_MAGLEV)?;
    let packet = Family::V4
        .packet(ACK, DSR_MAGLEV)
        .with(|packet| packet.ttl = 1);
    for _packet in 0..100_000 {
        let verdict = world.send(&packet)?.verdict;
        if verdict == Verdict::DropTtlExpired {
            return Ok(());
        }
        ensure!(verdict == Verdict::TxTimeExceeded, "{verdict:?}");
    }
    bail!("100,000 answers without a pause")
}

#[test]
fn a_reply_at_the_end_of_its_life_is_answered_to_the_backend() -> Result<()> {
    let world = small_world(NAT_MAGLEV)?;
    let flow = Flow::begin(&world, &Family::V4.packet(SYN, NAT_MAGLEV))?;
    let reply = flow.reply(&world, ACK)?.with(|packet| packet.ttl = 1);
    check(&world, "reply", &reply)
}

#[test]
fn an_answered_packet_counts_as_dropped_by_its_service() -> Result<()> {
    let world = small_world(DSR_MAGLEV)?;
    let packet = Family::V4
        .packet(ACK, DSR_MAGLEV)
        .with(|packet| packet.ttl = 1);
    let id = world
        .service(packet.destination, DSR_MAGLEV, packet.protocol())?
        .id;
    check(&world, "packet", &packet)?;
    ensure!(world.datapath().service_traffic(id)?.dropped == 1);
    Ok(())
}
