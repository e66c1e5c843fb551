//! When a translated connection's port is free again, and how many there can be at once.

use std::{
    collections::HashSet,
    net::{IpAddr, Ipv4Addr},
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use lb_common::{
    abi::{Ip, NatPool},
    parse::{TCP_ACK, TCP_FIN, TCP_SYN},
    verdict::{Action, Verdict},
};
use lb_user::io::datapath::Limits;
use tests::{
    packet::{Packet, Transport},
    prog_run::{self, LOOPBACK},
    world::World,
};

use super::conversation::Flow;
use super::services::{Family, NAT_MAGLEV, desired_small, nat_pool, small_world};

const SYN: Transport = Transport::Tcp(TCP_SYN);
const ACK: Transport = Transport::Tcp(TCP_ACK);
const FIN: Transport = Transport::Tcp(TCP_FIN | TCP_ACK);
const SYN_ACK: Transport = Transport::Tcp(TCP_SYN | TCP_ACK);

/// Where the client's bytes and the backend's have come to.
const CLIENT: u32 = u32::MAX - 1;
const BACKEND: u32 = 5_000;

/// One backend, and one port towards it.
fn narrow_world() -> Result<World> {
    let mut world = small_world(NAT_MAGLEV)?;
    world.change(|desired| {
        desired.nat_pool = nat_pool((25_000, 25_000));
        desired.services[0].backends.truncate(1);
    })?;
    Ok(world)
}

fn connected(world: &World) -> Result<Flow> {
    let flow = Flow::begin(world, &Family::V4.packet(SYN, NAT_MAGLEV))?;
    flow.answer(world, SYN_ACK)?;
    flow.send(world, &flow.next(ACK))?;
    Ok(flow)
}

/// A segment of the client's, with the numbers that it has and what it acknowledges.
fn client(world: &World, flow: &Flow, transport: Transport, numbers: (u32, u32)) -> Result<()> {
    flow.send(world, &numbered(flow.next(transport), numbers))
}

fn backend(world: &World, flow: &Flow, transport: Transport, numbers: (u32, u32)) -> Result<()> {
    let reply = numbered(flow.reply(world, transport)?, numbers);
    let out = world.send(&reply)?;
    ensure!(out.verdict == Verdict::TxNatReply, "{:?}", out.verdict);
    super::case::same(&out.answer.frame, &flow.inward(&reply).build())
}

/// With two bytes of data before a FIN.
fn numbered(packet: Packet, (sequence, acknowledged): (u32, u32)) -> Packet {
    packet.with(|packet| {
        packet.sequence = sequence;
        packet.acknowledged = acknowledged;
        packet.payload.clear();
        if packet.transport == FIN {
            packet.payload = vec![0xe0, 0];
        }
    })
}

/// Behind a FIN and two bytes.
const fn after(sequence: u32) -> u32 {
    sequence.wrapping_add(3)
}

fn has_free_port(world: &World) -> Result<bool> {
    let verdict = world.send(&Family::V4.packet(SYN, NAT_MAGLEV))?.verdict;
    ensure!(
        matches!(verdict, Verdict::TxNat | Verdict::DropNatPortsExhausted),
        "{verdict:?}"
    );
    Ok(verdict == Verdict::TxNat)
}

/// The backend has forgotten the connection then; the client remembers it.
#[test]
fn a_port_is_free_with_the_last_acknowledgement_if_the_client_closes_first() -> Result<()> {
    for is_sent_again in [false, true] {
        let world = narrow_world()?;
        let flow = connected(&world)?;
        client(&world, &flow, FIN, (CLIENT, BACKEND))?;
        backend(&world, &flow, ACK, (BACKEND - 2, after(CLIENT)))?;
        backend(&world, &flow, FIN, (BACKEND, after(CLIENT)))?;
        if is_sent_again {
            client(&world, &flow, FIN, (CLIENT, BACKEND))?;
            backend(&world, &flow, FIN, (BACKEND, after(CLIENT)))?;
        }
        // Sent before the backend's FIN came.
        client(&world, &flow, ACK, (after(CLIENT), BACKEND))?;
        ensure!(!has_free_port(&world)?);
        client(&world, &flow, ACK, (after(CLIENT), after(BACKEND)))?;
        ensure!(has_free_port(&world)?);
    }
    Ok(())
}

/// The backend remembers the connection for a minute, and would take a SYN from the same port for
/// an old one.
#[test]
fn a_port_is_kept_if_the_backend_closes_first() -> Result<()> {
    let mut world = narrow_world()?;
    let flow = connected(&world)?;
    backend(&world, &flow, FIN, (BACKEND, CLIENT))?;
    client(&world, &flow, FIN, (CLIENT, after(BACKEND)))?;
    backend(&world, &flow, ACK, (after(BACKEND), after(CLIENT)))?;
    ensure!(!has_free_port(&world)?);
    world.sweep(Duration::MAX)?;
    ensure!(!has_free_port(&world)?);
    Ok(())
}

#[test]
fn a_port_is_kept_if_both_close_at_once() -> Result<()> {
    let world = narrow_world()?;
    let flow = connected(&world)?;
    client(&world, &flow, FIN, (CLIENT, BACKEND))?;
    backend(&world, &flow, FIN, (BACKEND, CLIENT))?;
    client(&world, &flow, ACK, (after(CLIENT), after(BACKEND)))?;
    ensure!(!has_free_port(&world)?);
    Ok(())
}

#[test]
fn a_port_is_kept_while_one_side_still_sends() -> Result<()> {
    let world = narrow_world()?;
    let flow = connected(&world)?;
    client(&world, &flow, FIN, (CLIENT, BACKEND))?;
    backend(&world, &flow, ACK, (BACKEND, after(CLIENT)))?;
    client(&world, &flow, ACK, (after(CLIENT), after(BACKEND)))?;
    ensure!(!has_free_port(&world)?);
    backend(&world, &flow, ACK, (BACKEND + 2, after(CLIENT)))
}

/// More than the ports of one address.
#[test]
fn one_backend_has_a_hundred_and_fifty_thousand_connections() -> Result<()> {
    const CONNECTIONS: u32 = 150_000;
    const SOURCES: u8 = 6;
    let mut desired = desired_small(NAT_MAGLEV);
    desired.services[0].backends.truncate(1);
    let sources: Vec<Ip> = (1..=SOURCES)
        .map(|last| Ip::from_v4([172, 16, 41, last]))
        .collect();
    desired.nat_pool = NatPool::new(&sources, 1_024, 32_767);
    let limits = Limits {
        services: 1,
        backends: 1,
        flows: CONNECTIONS,
        half_open: 65_536,
        access_entries: 1,
        fragments: 1,
        sources: 1,
    };
    let mut world = World::with_limits(desired, limits)?;
    let mut taken = HashSet::new();
    let mut refused = 0;
    // One port of the client's, of which the cases together have not that many.
    let first = Family::V4.packet(SYN, NAT_MAGLEV);
    for number in 0..CONNECTIONS {
        let address = Ipv4Addr::from(0x0a80_0000 + number);
        let syn = first.clone().with(|packet| {
            packet.source = IpAddr::V4(address);
        });
        let mut ends = send(&world, &syn)?;
        // A client sends its SYN again.
        for _again in 0..3 {
            if ends.is_none() {
                refused += 1;
                ends = send(&world, &syn)?;
            }
        }
        let ends = ends.context("no port after four SYNs")?;
        ensure!(taken.insert(ends), "{ends:?} was given twice");
        let ack = syn.with(|packet| packet.transport = ACK);
        ensure!(send(&world, &ack)? == Some(ends), "the port has changed");
    }
    ensure!(
        refused < CONNECTIONS / 1_000,
        "{refused} SYNs found no port"
    );
    let counts = world.sweep(Duration::MAX)?;
    ensure!(counts.tracked == u64::from(CONNECTIONS), "{counts:?}");
    Ok(())
}

/// The source address and port that a packet leaves with.
fn send(world: &World, packet: &Packet) -> Result<Option<([u8; 4], [u8; 2])>> {
    let answer = prog_run::run(world.datapath().program_fd()?, &packet.build(), LOOPBACK)?;
    if answer.action == Action::Drop {
        return Ok(None);
    }
    let frame = &answer.frame;
    Ok(Some((frame[26..30].try_into()?, frame[34..36].try_into()?)))
}
