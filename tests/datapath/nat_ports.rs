//! The balancer's ports: given out once, kept as long as the flow, freed after it.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use lb_common::{
    abi::{BackendId, FlowState, NatPool},
    parse::{TCP_ACK, TCP_FIN, TCP_RST, TCP_SYN},
    verdict::Verdict,
};
use lb_user::io::datapath::Limits;
use tests::{
    packet::{Packet, Transport},
    world::World,
};

use super::conversation::Flow;
use super::services::{
    BEHIND_NAT, FAMILIES, Family, NAT_MAGLEV, NAT_PORTS, NAT_ROUND_ROBIN, desired_small, nat_pool,
    small_world, world,
};

const SYN: Transport = Transport::Tcp(TCP_SYN);
const ACK: Transport = Transport::Tcp(TCP_ACK);
const FIN: Transport = Transport::Tcp(TCP_FIN | TCP_ACK);
const SYN_ACK: Transport = Transport::Tcp(TCP_SYN | TCP_ACK);
const SERVICES: [u16; 3] = [NAT_MAGLEV, NAT_ROUND_ROBIN, BEHIND_NAT];

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

/// Nobody's data passes through a port that another flow's passes through.
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

/// Or a flood of SYNs would use up the ports for a minute, and keep everybody out.
#[test]
fn a_syn_drives_away_those_that_have_sent_no_more() -> Result<()> {
    const PORTS: u16 = 8;
    let mut world = small_world(NAT_MAGLEV)?;
    world.change(|desired| {
        desired.nat_pool = nat_pool((25_000, 25_000 + PORTS - 1));
        desired.services[0].backends.truncate(1);
    })?;
    let syn = || Family::V4.packet(SYN, NAT_MAGLEV);
    // The program tries ports at random, and may drive one away while another is free.
    let mut flows = BTreeMap::new();
    for _flow in 0..1000 {
        let flow = Flow::begin(&world, &syn())?;
        flows.insert(flow.port, flow);
        if flows.len() == usize::from(PORTS) {
            break;
        }
    }
    ensure!(flows.len() == usize::from(PORTS), "{:?}", flows.keys());

    let late = Flow::begin(&world, &syn())?;
    let driven = flows.remove(&late.port).context("a port of nobody's")?;
    late.answer(&world, SYN_ACK)?;
    late.send(&world, &late.next(ACK))?;
    // Its port is its own now, whoever comes.
    for _flow in 0..200 {
        let flow = Flow::begin(&world, &syn())?;
        ensure!(flow.port != late.port);
    }
    late.send(&world, &late.next(ACK))?;
    late.answer(&world, ACK)?;
    let again = Flow::begin(&world, &driven.first)?;
    ensure!(again.port != late.port, "it is back at the port it lost");
    again.answer(&world, SYN_ACK)?;
    again.send(&world, &again.next(ACK))
}

/// None is a session's: who is met in its middle is unknown to the backend.
#[test]
fn nor_do_flows_that_nobody_began_keep_their_ports() -> Result<()> {
    for lies in [&[ACK, ACK] as &[_], &[SYN, Transport::Tcp(TCP_RST)], &[ACK]] {
        let mut world = small_world(NAT_MAGLEV)?;
        world.change(|desired| {
            desired.nat_pool = nat_pool((25_000, 25_000));
            desired.services[0].backends.truncate(1);
        })?;
        let forged = Family::V4.packet(SYN, NAT_MAGLEV);
        for lie in lies {
            world.send(&forged.clone().with(|packet| packet.transport = *lie))?;
        }
        let counts = world.walk(Duration::MAX)?.counts;
        ensure!((counts.half_open, counts.tracked) == (1, 0), "{counts:?}");
        let flow = Flow::begin(&world, &Family::V4.packet(SYN, NAT_MAGLEV))?;
        flow.answer(&world, SYN_ACK)?;
        flow.send(&world, &flow.next(ACK))?;
    }
    Ok(())
}

/// The client's data was under way, or somebody else forged the backend's end.
#[test]
fn data_makes_a_flow_live_again_that_its_backend_seems_to_have_ended() -> Result<()> {
    for end in [FIN, Transport::Tcp(TCP_RST)] {
        let world = small_world(NAT_MAGLEV)?;
        let flow = Flow::begin(&world, &Family::V4.packet(SYN, NAT_MAGLEV))?;
        flow.send(&world, &flow.next(ACK))?;
        flow.answer(&world, end)?;
        flow.send(&world, &flow.next(ACK))?;
        let found = world.datapath().flow(&flow.first.flow())?;
        let state = found.context("no record")?.flow.state;
        ensure!(state == FlowState::Established as u8);
        flow.answer(&world, ACK)?;
    }
    Ok(())
}

/// They may have been given the port because there is no room where they should be.
#[test]
fn a_syn_drives_nobody_away_that_has_sent_more() -> Result<()> {
    let mut world = small_world(NAT_MAGLEV)?;
    world.change(|desired| {
        desired.nat_pool = nat_pool((25_000, 25_000));
        desired.services[0].backends.truncate(1);
    })?;
    let flow = Flow::begin(&world, &Family::V4.packet(SYN, NAT_MAGLEV))?;
    let bare = flow.next(ACK).with(|packet| packet.payload.clear());
    flow.send(&world, &bare)?;
    for _flow in 0..8 {
        let late = world.send(&Family::V4.packet(SYN, NAT_MAGLEV))?.verdict;
        ensure!(late == Verdict::DropNatPortsExhausted, "{late:?}");
    }
    flow.send(&world, &flow.next(ACK))
}

/// A backend that refuses connections must not use up the ports towards it.
#[test]
fn a_refused_connection_frees_its_port_at_once() -> Result<()> {
    let mut world = small_world(NAT_MAGLEV)?;
    world.change(|desired| {
        desired.nat_pool = nat_pool((25_000, 25_000));
        desired.services[0].backends.truncate(1);
    })?;
    for _attempt in 0..3 {
        let flow = Flow::begin(&world, &Family::V4.packet(SYN, NAT_MAGLEV))?;
        flow.answer(&world, Transport::Tcp(TCP_RST | TCP_ACK))?;
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
        ensure!(out.verdict == Verdict::DropNatNoSource, "{:?}", out.verdict);
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
    old.answer(&world, FIN)?;
    let new = Flow::begin(&world, &syn)?;
    ensure!(new.port != old.port);
    new.send(&world, &new.next(ACK))?;
    let late = Family::V4.packet(SYN, NAT_MAGLEV);
    ensure!(world.send(&late)?.verdict == Verdict::DropNatPortsExhausted);
    world.sweep(Duration::MAX)?;
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
        access_entries: 1,
        fragments: 1,
        sources: 1_024,
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

/// The RST of the backend that takes over tells the client to connect again at once.
#[test]
fn a_flow_whose_backend_went_is_answered_by_another() -> Result<()> {
    let mut world = small_world(NAT_ROUND_ROBIN)?;
    let flows = [0, 1].map(|_| Flow::begin(&world, &Family::V4.packet(SYN, NAT_ROUND_ROBIN)));
    for flow in flows {
        let flow = flow?;
        flow.send(&world, &flow.next(ACK))?;
        let mut all = Vec::new();
        world.change(|desired| {
            all.clone_from(&desired.services[0].backends);
            desired.services[0]
                .backends
                .remove(usize::from(flow.backend.0));
        })?;
        let moved = Flow::begin(&world, &flow.next(ACK))?;
        ensure!(moved.backend != flow.backend);
        moved.answer(&world, Transport::Tcp(TCP_RST))?;
        world.change(|desired| desired.services[0].backends = all)?;
    }
    Ok(())
}
