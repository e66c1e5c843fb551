//! What is counted for services and backends, to the packet and the byte.

use anyhow::Result;
use lb_common::{
    abi::{BackendId, Traffic},
    parse::{TCP_ACK, TCP_FIN, TCP_RST, TCP_SYN},
    verdict::Verdict,
};
use tests::{
    packet::{Packet, Transport},
    world::World,
};

use super::services::{
    DSR_MAGLEV, DSR_ROUND_ROBIN, EMPTY, Family, NAT_MAGLEV, NAT_ROUND_ROBIN, VIP_V4, VIP_V6, world,
};

const SYN: Transport = Transport::Tcp(TCP_SYN);
const ACK: Transport = Transport::Tcp(TCP_ACK);

/// What the counters of a service and of its two backends grew by.
#[derive(Debug, Default, PartialEq, Eq)]
struct Counted {
    forwarded: Traffic,
    dropped: u64,
}

fn read(world: &World, packet: &Packet) -> Result<Counted> {
    let (vip, port) = (packet.destination, packet.destination_port);
    let service = world.service(vip, port, packet.protocol())?.id;
    let mut forwarded = Traffic::default();
    for id in world.backends_of(service) {
        let traffic = world.traffic(id)?;
        forwarded.packets += traffic.packets;
        forwarded.bytes += traffic.bytes;
        forwarded.new_connections += traffic.new_connections;
        forwarded.dropped += traffic.dropped;
        forwarded.reply_packets += traffic.reply_packets;
        forwarded.reply_bytes += traffic.reply_bytes;
        forwarded.untracked += traffic.untracked;
        forwarded.closed += traffic.closed;
        forwarded.resets += traffic.resets;
    }
    let dropped = world.datapath().service_traffic(service)?.dropped;
    Ok(Counted { forwarded, dropped })
}

/// What sending these frames counts for the service that `to` names.
fn counted(world: &World, to: &Packet, frames: &[Vec<u8>]) -> Result<Counted> {
    let before = read(world, to)?;
    for frame in frames {
        world.run(frame)?;
    }
    let after = read(world, to)?;
    Ok(Counted {
        forwarded: after.forwarded.combine(before.forwarded, u64::wrapping_sub),
        dropped: after.dropped - before.dropped,
    })
}

fn forwarded(packets: u64, bytes: usize, new_connections: u64) -> Counted {
    Counted {
        forwarded: Traffic {
            packets,
            bytes: bytes as u64,
            new_connections,
            ..Traffic::default()
        },
        dropped: 0,
    }
}

fn dropped(dropped: u64) -> Counted {
    Counted {
        dropped,
        ..Counted::default()
    }
}

#[test]
fn a_stateless_service_counts_each_syn_as_a_connection() -> Result<()> {
    let world = world()?;
    let syn = Family::V4.packet(SYN, DSR_MAGLEV);
    let ack = syn.clone().with(|packet| {
        packet.transport = ACK;
        packet.padding = vec![0; 9];
    });
    let frames = [syn.build(), ack.build(), ack.build()];
    let bytes = frames.iter().map(Vec::len).sum();
    assert_eq!(counted(&world, &syn, &frames)?, forwarded(3, bytes, 1));
    Ok(())
}

#[test]
fn a_tracked_service_counts_a_connection_once() -> Result<()> {
    let world = world()?;
    for service in [DSR_ROUND_ROBIN, NAT_ROUND_ROBIN, NAT_MAGLEV] {
        for first in [SYN, Transport::Udp] {
            let first = Family::V6.packet(first, service);
            let later = first.clone().with(|packet| {
                if packet.transport == SYN {
                    packet.transport = ACK;
                }
            });
            // A SYN that is sent again starts nothing.
            let frames = [first.build(), first.build(), later.build(), later.build()];
            let bytes = frames.iter().map(Vec::len).sum();
            assert_eq!(counted(&world, &first, &frames)?, forwarded(4, bytes, 1));
        }
    }
    Ok(())
}

#[test]
fn a_flow_in_its_middle_is_no_new_connection() -> Result<()> {
    let world = world()?;
    for service in [DSR_MAGLEV, DSR_ROUND_ROBIN, NAT_MAGLEV, NAT_ROUND_ROBIN] {
        let ack = Family::V4.packet(ACK, service);
        let frame = ack.build();
        let bytes = 2 * frame.len();
        let frames = [frame.clone(), frame];
        assert_eq!(counted(&world, &ack, &frames)?, forwarded(2, bytes, 0));
    }
    Ok(())
}

/// What FINs and RSTs of one flow add to `closed` and `resets`.
fn ended(world: &World, service: u16, flags: &[u8]) -> Result<[u64; 2]> {
    let syn = Family::V4.packet(SYN, service);
    let flow = [SYN, ACK].into_iter();
    let ends = flags.iter().map(|flags| Transport::Tcp(*flags));
    let frames: Vec<Vec<u8>> = flow
        .chain(ends)
        .map(|transport| syn.clone().with(|packet| packet.transport = transport))
        .map(|packet| packet.build())
        .collect();
    let Counted { forwarded, .. } = counted(world, &syn, &frames)?;
    assert_eq!(forwarded.packets, frames.len() as u64);
    Ok([forwarded.closed, forwarded.resets])
}

#[test]
fn a_recorded_flow_closes_once() -> Result<()> {
    const FIN: u8 = TCP_FIN | TCP_ACK;
    let world = world()?;
    for service in [DSR_ROUND_ROBIN, NAT_ROUND_ROBIN, NAT_MAGLEV] {
        assert_eq!(ended(&world, service, &[])?, [0, 0]);
        assert_eq!(ended(&world, service, &[FIN, TCP_ACK, FIN])?, [1, 0]);
        assert_eq!(ended(&world, service, &[TCP_RST])?, [1, 1]);
        assert_eq!(ended(&world, service, &[FIN, TCP_RST, TCP_RST])?, [1, 1]);
    }
    Ok(())
}

#[test]
fn a_backends_end_of_a_flow_is_seen_in_nat() -> Result<()> {
    let world = world()?;
    for (flags, expected) in [(TCP_FIN, [1, 0]), (TCP_RST, [1, 1])] {
        let syn = Family::V4.packet(SYN, NAT_MAGLEV);
        let out = world.send(&syn)?;
        let ack = syn.clone().with(|packet| packet.transport = ACK);
        world.send(&ack)?;
        let backend = world.owner(&syn)?;
        let port = super::case::nat_port(&syn, &out.answer.frame)?;
        let sent = super::case::translated(&world, &syn, backend, port)?;
        let reply = sent.reply(world.next_hop(backend)?);
        let reply = reply.with(|packet| packet.transport = Transport::Tcp(flags | TCP_ACK));
        let frames = [
            reply.build(),
            ack.with(|p| p.transport = Transport::Tcp(TCP_FIN)).build(),
        ];
        let Counted { forwarded, .. } = counted(&world, &syn, &frames)?;
        assert_eq!(forwarded.resets, expected[1]);
        assert!(forwarded.closed >= expected[0]);
    }
    Ok(())
}

#[test]
fn without_a_record_each_fin_and_rst_counts() -> Result<()> {
    const FIN: u8 = TCP_FIN | TCP_ACK;
    let world = world()?;
    assert_eq!(ended(&world, DSR_MAGLEV, &[FIN])?, [1, 0]);
    assert_eq!(ended(&world, DSR_MAGLEV, &[TCP_RST])?, [1, 1]);
    assert_eq!(ended(&world, DSR_MAGLEV, &[FIN, TCP_RST])?, [2, 1]);
    Ok(())
}

#[test]
fn what_is_dropped_counts_for_the_service_and_for_no_backend() -> Result<()> {
    let world = world()?;
    for service in [DSR_MAGLEV, DSR_ROUND_ROBIN, NAT_MAGLEV, NAT_ROUND_ROBIN] {
        let old = Family::V4
            .packet(SYN, service)
            .with(|packet| packet.ttl = 1);
        assert_eq!(counted(&world, &old, &[old.build()])?, dropped(1));
    }
    let syn = Family::V6.packet(SYN, EMPTY);
    assert_eq!(counted(&world, &syn, &[syn.build()])?, dropped(1));
    Ok(())
}

#[test]
fn what_is_not_a_services_counts_for_none() -> Result<()> {
    let world = world()?;
    let syn = Family::V4.packet(SYN, DSR_MAGLEV);
    let elsewhere = syn.clone().with(|packet| packet.destination_port = 9999);
    let mut short = syn.build();
    short.truncate(40);
    let frames = [elsewhere.build(), short];
    assert_eq!(counted(&world, &syn, &frames)?, Counted::default());
    Ok(())
}

#[test]
fn replies_count_for_the_backend_that_sent_them() -> Result<()> {
    let world = world()?;
    for vip in [VIP_V4, VIP_V6] {
        let family = if vip.is_ipv4() {
            Family::V4
        } else {
            Family::V6
        };
        let syn = family.packet(SYN, NAT_MAGLEV);
        let out = world.send(&syn)?;
        assert_eq!(out.verdict, Verdict::TxNat);
        let port = super::case::nat_port(&syn, &out.answer.frame)?;
        let backend = world.owner(&syn)?;
        let sent = super::case::translated(&world, &syn, backend, port)?;
        let reply = sent.reply(world.next_hop(backend)?);
        let before = world.traffic(backend)?;
        let frame = reply.with(|packet| packet.transport = ACK).build();
        for _reply in 0..3 {
            assert_eq!(world.run(&frame)?.verdict, Verdict::TxNatReply);
        }
        let after = world.traffic(backend)?;
        let expected = Traffic {
            reply_packets: before.reply_packets + 3,
            reply_bytes: before.reply_bytes + 3 * frame.len() as u64,
            ..before
        };
        assert_eq!(after, expected);
    }
    Ok(())
}

#[test]
fn each_backend_is_counted_for_itself() -> Result<()> {
    let world = world()?;
    let service = world.service(VIP_V4, DSR_MAGLEV, 6)?.id;
    let count = |id: BackendId| world.traffic(id).map(|traffic| traffic.packets);
    for _packet in 0..50 {
        let syn = Family::V4.packet(SYN, DSR_MAGLEV);
        let owner = world.owner(&syn)?;
        for id in world.backends_of(service) {
            let before = count(id)?;
            world.send(&syn)?;
            assert_eq!(count(id)? - before, u64::from(id == owner));
        }
    }
    Ok(())
}
