//! New flows as the program reports them to a daemon with a peer.

use std::net::IpAddr;

use anyhow::{Context, Result, ensure};
use lb_common::{
    abi::{Balance, FlowEvent, FlowKey},
    parse::{TCP_ACK, TCP_FIN, TCP_RST, TCP_SYN},
    verdict::Verdict,
};
use lb_user::{
    core::slots::State,
    io::datapath::{FlowEvents, monotonic},
};
use tests::{
    packet::{Packet, Transport},
    world::World,
};

use super::services::{
    DSR_MAGLEV, DSR_ROUND_ROBIN, FAMILIES, Family, NAT_MAGLEV, NAT_ROUND_ROBIN, desired_of,
    desired_small,
};
use super::tunnel;

const SYN: Transport = Transport::Tcp(TCP_SYN);
const ACK: Transport = Transport::Tcp(TCP_ACK);

/// The kernel makes a page of it.
const SMALL: u32 = 1;

/// As much room as the daemon makes.
const RING: u32 = 1 << 20;

fn reporting(ports: &[u16]) -> Result<(World, FlowEvents)> {
    let mut world = World::reporting(desired_of(ports), RING)?;
    let events = take(&mut world)?;
    Ok((world, events))
}

fn take(world: &mut World) -> Result<FlowEvents> {
    let events = world.datapath_mut().take_events();
    events.context("the events were taken")
}

fn with_data(packet: &Packet) -> Packet {
    packet.clone().with(|packet| {
        if packet.transport == SYN {
            packet.transport = ACK;
        }
        packet.payload = b"data".to_vec();
    })
}

fn forward(world: &World, packet: &Packet) -> Result<()> {
    let verdict = world.send(packet)?.verdict;
    let is_forwarded = matches!(verdict, Verdict::TxDsr | Verdict::TxNat | Verdict::TxTunnel);
    ensure!(is_forwarded, "{verdict:?}");
    Ok(())
}

/// What has been reported: of these flows once each, and of no other.
fn expect(events: &mut FlowEvents, flows: &[FlowKey]) -> Result<Vec<FlowEvent>> {
    let found: Vec<FlowEvent> = std::iter::from_fn(|| events.pop()).collect();
    let keys: Vec<FlowKey> = found.iter().map(|event| event.key).collect();
    ensure!(keys == flows, "{keys:?} and not {flows:?}");
    for event in &found {
        ensure!(events.record(&event.key)?.is_some(), "{event:?}");
    }
    Ok(found)
}

#[test]
fn a_flow_is_reported_when_its_client_has_sent_data() -> Result<()> {
    let (mut world, mut events) = reporting(&[DSR_ROUND_ROBIN, NAT_ROUND_ROBIN, NAT_MAGLEV])?;
    for balance in [None, Some(Balance::LeastConn)] {
        world.change(|desired| {
            for service in &mut desired.services {
                service.balance = balance.unwrap_or(service.balance);
            }
        })?;
        for family in FAMILIES {
            for service in [DSR_ROUND_ROBIN, NAT_ROUND_ROBIN, NAT_MAGLEV] {
                for first in [SYN, Transport::Udp] {
                    let before = monotonic();
                    let first = family.packet(first, service);
                    forward(&world, &first)?;
                    // Half open, and so it stays with a SYN that comes again.
                    forward(&world, &first.clone())?;
                    if first.transport == SYN {
                        expect(&mut events, &[])?;
                        let ack = first.clone().with(|packet| {
                            packet.transport = ACK;
                            packet.payload.clear();
                        });
                        forward(&world, &ack)?;
                        expect(&mut events, &[])?;
                        forward(&world, &with_data(&first))?;
                    }
                    let event = expect(&mut events, &[first.flow()])?[0];
                    ensure!((before..=monotonic()).contains(&event.at), "{event:?}");
                    let is_nat = service != DSR_ROUND_ROBIN;
                    let client = if is_nat { first.source_mac } else { [0; 6] };
                    ensure!(event.client == client, "{event:?}");
                    // What goes on is no news.
                    forward(&world, &with_data(&first))?;
                    expect(&mut events, &[])?;
                }
            }
        }
    }
    Ok(())
}

#[test]
fn a_flow_through_a_tunnel_is_reported() -> Result<()> {
    let mut desired = tunnel::desired();
    for service in &mut desired.services {
        service.balance = Balance::RoundRobin;
    }
    let (vip, port) = (
        desired.services[0].key.vip(),
        desired.services[0].key.port(),
    );
    let mut world = World::reporting(desired, RING)?;
    let mut events = take(&mut world)?;
    let family = FAMILIES
        .into_iter()
        .find(|it| it.vip() == IpAddr::from(vip));
    let syn = family.context("nobody's VIP")?.packet(SYN, port);
    forward(&world, &syn)?;
    expect(&mut events, &[])?;
    forward(&world, &with_data(&syn))?;
    expect(&mut events, &[syn.flow()])?;
    Ok(())
}

/// In a slot at risk, flows that are met in their middle are recorded; in a safe one no flow is.
#[test]
fn a_flow_that_is_learned_is_reported() -> Result<()> {
    let (mut world, mut events) = reporting(&[DSR_MAGLEV])?;
    let data = with_data(&Family::V4.packet(SYN, DSR_MAGLEV));
    forward(&world, &data)?;
    expect(&mut events, &[])?;
    let backends: Vec<_> = world
        .image()
        .backends
        .iter()
        .map(|(id, it)| (*id, it.service))
        .collect();
    world.hold(|service| {
        let mut ids = backends
            .iter()
            .filter(|(_, of)| *of == service.id)
            .map(|(id, _)| *id);
        let (owner, previous) = (ids.next().unwrap(), ids.next().unwrap());
        let until = lb_common::abi::Tick(u32::MAX);
        (owner, State::AtRisk { previous, until })
    })?;
    let rst = data
        .clone()
        .with(|packet| packet.transport = Transport::Tcp(TCP_RST));
    forward(&world, &rst)?;
    expect(&mut events, &[])?;
    forward(&world, &data)?;
    expect(&mut events, &[data.flow()])?;
    forward(&world, &data)?;
    expect(&mut events, &[])?;
    Ok(())
}

/// A client may use its port again, at once and for another session.
#[test]
fn a_flow_that_is_over_and_begins_anew_is_reported_again() -> Result<()> {
    let (world, mut events) = reporting(&[NAT_ROUND_ROBIN])?;
    let syn = Family::V4.packet(SYN, NAT_ROUND_ROBIN);
    let flow = super::conversation::Flow::begin(&world, &syn)?;
    flow.send(&world, &flow.next(ACK))?;
    expect(&mut events, &[syn.flow()])?;
    flow.answer(&world, Transport::Tcp(TCP_FIN | TCP_ACK))?;
    let again = super::conversation::Flow::begin(&world, &syn)?;
    expect(&mut events, &[])?;
    again.send(&world, &again.next(ACK))?;
    expect(&mut events, &[syn.flow()])?;
    Ok(())
}

#[test]
fn without_a_peer_nothing_is_reported() -> Result<()> {
    let mut world = World::new(desired_of(&[DSR_ROUND_ROBIN, NAT_ROUND_ROBIN]))?;
    let mut events = take(&mut world)?;
    for service in [DSR_ROUND_ROBIN, NAT_ROUND_ROBIN] {
        let syn = Family::V4.packet(SYN, service);
        forward(&world, &syn)?;
        forward(&world, &with_data(&syn))?;
    }
    expect(&mut events, &[])?;
    ensure!(events.lost()? == 0);
    Ok(())
}

#[test]
fn what_a_full_ring_has_no_room_for_is_counted_and_goes_on() -> Result<()> {
    const FLOWS: usize = 2_000;
    for service in [DSR_ROUND_ROBIN, NAT_ROUND_ROBIN] {
        let mut world = World::reporting(desired_small(service), SMALL)?;
        let mut events = take(&mut world)?;
        for _ in 0..FLOWS {
            let syn = Family::V4.packet(SYN, service);
            forward(&world, &syn)?;
            forward(&world, &with_data(&syn))?;
        }
        let found = std::iter::from_fn(|| events.pop()).count();
        ensure!(found > 0 && found < FLOWS, "{found}");
        ensure!(events.lost()? == (FLOWS - found) as u64);
        // There is room again.
        let syn = Family::V4.packet(SYN, service);
        forward(&world, &syn)?;
        forward(&world, &with_data(&syn))?;
        expect(&mut events, &[syn.flow()])?;
    }
    Ok(())
}
