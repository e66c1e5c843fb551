//! Whole conversations through translation: both directions, from the SYN to the next one.

use std::{collections::BTreeSet, time::Duration};

use anyhow::{Context, Result, ensure};
use lb_common::{
    abi::{BackendId, NatPool, NextHop},
    parse::{TCP_ACK, TCP_FIN, TCP_RST, TCP_SYN},
    verdict::Verdict,
};
use lb_user::io::datapath::Limits;
use tests::{
    packet::{Packet, Transport},
    prog_run::LOOPBACK,
    world::World,
};

use super::case::{chosen_backend, family_of, nat_port, same, translated};
use super::services::{
    BEHIND_NAT, FAMILIES, Family, NAT_MAGLEV, NAT_PORTS, NAT_ROUND_ROBIN, desired_small, nat_pool,
    small_world, world,
};

const SYN: Transport = Transport::Tcp(TCP_SYN);
const ACK: Transport = Transport::Tcp(TCP_ACK);
const FIN: Transport = Transport::Tcp(TCP_FIN | TCP_ACK);
const SYN_ACK: Transport = Transport::Tcp(TCP_SYN | TCP_ACK);
const SERVICES: [u16; 3] = [NAT_MAGLEV, NAT_ROUND_ROBIN, BEHIND_NAT];

/// A flow that has begun.
struct Flow {
    first: Packet,
    backend: BackendId,
    port: u16,
}

impl Flow {
    /// Sends the first packet.
    fn begin(world: &World, first: &Packet) -> Result<Self> {
        let out = world.send(first)?;
        ensure!(
            matches!(out.verdict, Verdict::TxNat | Verdict::RedirectNat),
            "{:?}",
            out.verdict
        );
        let backend = chosen_backend(world, first, &out.answer.frame)?;
        let port = nat_port(first, &out.answer.frame)?;
        let flow = Self {
            first: first.clone(),
            backend,
            port,
        };
        same(&out.answer.frame, &flow.outward(world, first)?)?;
        Ok(flow)
    }

    /// Another packet from the client.
    fn next(&self, transport: Transport) -> Packet {
        self.first.clone().with(|packet| {
            packet.transport = transport;
            packet.payload = b"more".to_vec();
        })
    }

    /// What the backend must get for it.
    fn outward(&self, world: &World, packet: &Packet) -> Result<Vec<u8>> {
        Ok(translated(world, packet, self.backend, self.port)?.build())
    }

    /// Sends a packet of the client's, which must take the way of the first.
    fn send(&self, world: &World, packet: &Packet) -> Result<()> {
        let out = world.send(packet)?;
        same(&out.answer.frame, &self.outward(world, packet)?)
    }

    /// The backend's answer as it comes from the wire.
    fn reply(&self, world: &World, transport: Transport) -> Result<Packet> {
        let hop = world.next_hop(self.backend)?;
        let sent = translated(world, &self.first, self.backend, self.port)?;
        Ok(sent.reply(hop).with(|packet| packet.transport = transport))
    }

    /// What the client must get for it.
    fn inward(&self, reply: &Packet) -> Packet {
        let way_back = NextHop {
            interface: LOOPBACK,
            mac: self.first.source_mac,
            source_mac: self.first.destination_mac,
        };
        let (first, client) = (&self.first, self.first.source);
        reply.forwarded(way_back).between(
            (first.destination, first.destination_port),
            (client, first.source_port),
        )
    }

    /// Sends an answer, which must reach the client.
    fn answer(&self, world: &World, transport: Transport) -> Result<()> {
        let reply = self.reply(world, transport)?;
        let out = world.send(&reply)?;
        ensure!(out.verdict == Verdict::TxNatReply, "{:?}", out.verdict);
        same(&out.answer.frame, &self.inward(&reply).build())
    }
}

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

/// A client may come back from the same port while the old connection is still remembered.
#[test]
fn a_new_connection_from_the_same_port_is_one_flow_of_its_own() -> Result<()> {
    let world = world()?;
    for family in FAMILIES {
        for service in SERVICES {
            let syn = family.packet(SYN, service);
            let old = Flow::begin(&world, &syn)?;
            old.send(&world, &old.next(ACK))?;
            old.send(&world, &old.next(FIN))?;
            old.answer(&world, FIN)?;

            let new = Flow::begin(&world, &syn)?;
            new.answer(&world, SYN_ACK)?;
            new.send(&world, &new.next(ACK))?;
            new.answer(&world, ACK)?;
            new.send(&world, &new.next(ACK))?;
        }
    }
    Ok(())
}

#[test]
fn a_flow_that_a_backend_reset_can_start_again() -> Result<()> {
    let world = world()?;
    for family in FAMILIES {
        let syn = family.packet(SYN, NAT_ROUND_ROBIN);
        let old = Flow::begin(&world, &syn)?;
        old.send(&world, &old.next(ACK))?;
        old.answer(&world, Transport::Tcp(TCP_RST))?;
        let new = Flow::begin(&world, &syn)?;
        ensure!(new.backend != old.backend, "it was not this one's turn");
        new.send(&world, &new.next(ACK))?;
        new.answer(&world, ACK)?;
    }
    Ok(())
}

#[test]
fn flows_never_share_a_port_towards_a_backend() -> Result<()> {
    let world = world()?;
    let mut claims = BTreeSet::new();
    for _flow in 0..2_000 {
        let flow = Flow::begin(&world, &Family::V4.packet(SYN, NAT_MAGLEV))?;
        ensure!(claims.insert((flow.backend, flow.port)), "port used twice");
    }
    ensure!(
        claims
            .iter()
            .all(|(_, port)| (NAT_PORTS.0..=NAT_PORTS.1).contains(port))
    );
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
                packet.destination_mac = [0x02, 0xdd, 1, 2, 3, 4];
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

#[test]
fn replies_that_cannot_be_sent_on_are_dropped() -> Result<()> {
    let world = world()?;
    for family in FAMILIES {
        let flow = Flow::begin(&world, &family.packet(SYN, NAT_MAGLEV))?;
        let reply = flow.reply(&world, SYN_ACK)?;
        let old = reply.clone().with(|packet| packet.ttl = 1);
        ensure!(world.send(&old)?.verdict == Verdict::DropTtlExpired);
        let piece = reply.with(|packet| match family_of(packet) {
            Family::V4 => packet.fragment = 0x2000,
            Family::V6 => packet.extensions = vec![(44, vec![0, 0, 0, 1, 0, 0, 0, 1])],
        });
        ensure!(world.send(&piece)?.verdict == Verdict::DropFragment);
        flow.answer(&world, SYN_ACK)?;
    }
    Ok(())
}

#[test]
fn a_flow_that_finds_no_port_is_dropped() -> Result<()> {
    let mut world = small_world(NAT_MAGLEV)?;
    world.change(|desired| desired.nat_pool = nat_pool((25_000, 25_000)))?;
    let to = |owner: BackendId| -> Result<Packet> {
        let mut tries = std::iter::repeat_with(|| Family::V4.packet(SYN, NAT_MAGLEV)).take(1000);
        let found = tries.find(|packet| world.owner(packet).is_ok_and(|id| id == owner));
        found.context("no flow for this backend")
    };
    for backend in [BackendId(0), BackendId(1)] {
        let flow = Flow::begin(&world, &to(backend)?)?;
        ensure!(flow.port == 25_000);
        let late = world.send(&to(backend)?)?;
        ensure!(
            late.verdict == Verdict::DropNatPortsExhausted,
            "{:?}",
            late.verdict
        );
        flow.send(&world, &flow.next(ACK))?;
        let late = world.send(&to(backend)?)?;
        ensure!(
            late.verdict == Verdict::DropNatPortsExhausted,
            "{:?}",
            late.verdict
        );
    }
    Ok(())
}

#[test]
fn without_an_address_of_the_family_nothing_is_translated() -> Result<()> {
    let mut world = small_world(NAT_MAGLEV)?;
    for pool in [
        NatPool::EMPTY,
        NatPool::new(&[Family::V6.own().into()], 20_000, 29_999),
    ] {
        world.change(|desired| desired.nat_pool = pool)?;
        let out = world.send(&Family::V4.packet(SYN, NAT_MAGLEV))?;
        ensure!(
            out.verdict == Verdict::DropNatPortsExhausted,
            "{:?}",
            out.verdict
        );
    }
    Ok(())
}

/// The old flow's port is only freed by the sweep: nobody else looks at both tables.
#[test]
fn the_port_of_a_flow_that_began_anew_is_freed_by_the_sweep() -> Result<()> {
    let mut world = small_world(NAT_MAGLEV)?;
    world.change(|desired| {
        desired.nat_pool = nat_pool((25_000, 25_001));
        desired.services[0].backends.truncate(1);
    })?;
    let syn = Family::V4.packet(SYN, NAT_MAGLEV);
    let old = Flow::begin(&world, &syn)?;
    old.send(&world, &old.next(ACK))?;
    old.send(&world, &old.next(FIN))?;
    let new = Flow::begin(&world, &syn)?;
    ensure!(new.port != old.port);
    let late = Family::V4.packet(SYN, NAT_MAGLEV);
    ensure!(world.send(&late)?.verdict == Verdict::DropNatPortsExhausted);
    world.sweeper()?.round(Duration::MAX)?;
    ensure!(Flow::begin(&world, &late)?.port == old.port);
    new.send(&world, &new.next(ACK))
}

/// Half-open flows and their replies are evicted each by themselves.
#[test]
fn a_half_open_flow_whose_reply_was_evicted_begins_anew() -> Result<()> {
    let limits = Limits {
        services: 1,
        backends: 2,
        flows: 1_000,
        half_open: 512,
    };
    let world = World::with_limits(desired_small(NAT_MAGLEV), limits)?;
    let syns = || std::iter::repeat_with(|| Family::V4.packet(SYN, NAT_MAGLEV));
    let early: Vec<Packet> = syns().take(200).collect();
    for _round in 0..8 {
        // A SYN that is sent again keeps its flow in memory, and not the reply.
        for syn in early.iter().cloned().chain(syns().take(100)) {
            Flow::begin(&world, &syn)?;
        }
    }
    for syn in &early {
        let flow = Flow::begin(&world, syn)?;
        flow.answer(&world, SYN_ACK)?;
        flow.send(&world, &flow.next(ACK))?;
        flow.answer(&world, ACK)?;
    }
    Ok(())
}
