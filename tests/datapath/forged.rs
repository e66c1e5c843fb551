//! A flood of forged packets at slots at risk: the flow table fills, and nobody's session moves.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use lb_common::{
    abi::{BackendId, Tick},
    parse::{TCP_ACK, TCP_SYN},
    verdict::Verdict,
};
use lb_user::{
    core::{
        plan::{self, Moment},
        settle::{self, Learned},
        slots::State,
    },
    io::datapath::Limits,
};
use tests::{
    packet::{Packet, Transport},
    world::World,
};
use xtask::lab::wait_until;

use super::services::{DSR_MAGLEV, Family, desired_small};

const SYN: Transport = Transport::Tcp(TCP_SYN);
const ACK: Transport = Transport::Tcp(TCP_ACK);

const OWNER: BackendId = BackendId(1);
const PREVIOUS: BackendId = BackendId(0);

/// How long a record is kept that no packet comes for: so long that the sessions are heard of in
/// time, however slow the machine.
const SILENCE: Duration = Duration::from_secs(6);
const HOUR: Duration = Duration::from_secs(3600);

/// Flows that there is room for.
const ROOM: u32 = 256;
const SESSIONS: usize = 40;
const FORGED: usize = 1_000;

fn at_risk() -> Result<World> {
    let limits = Limits {
        services: 1,
        backends: 2,
        flows: ROOM,
        half_open: 4_096,
        access_entries: 1,
        fragments: 1,
        sources: 1_024,
    };
    let mut world = World::with_limits(desired_small(DSR_MAGLEV), limits)?;
    world.hold(|_| {
        let until = Tick(0);
        let previous = PREVIOUS;
        (OWNER, State::AtRisk { previous, until })
    })?;
    Ok(world)
}

/// Sends a packet and says which backend got it.
fn send(world: &World, packet: &Packet) -> Result<BackendId> {
    let out = world.send(packet)?;
    ensure!(out.verdict == Verdict::TxDsr, "{:?}", out.verdict);
    let backend = world.backend_by_mac(&out.answer.frame[..6]);
    backend.context("sent to nobody's MAC address")
}

fn ack(syn: &Packet) -> Packet {
    syn.clone().with(|packet| packet.transport = ACK)
}

/// New flows.
fn flows(transport: Transport, count: usize) -> Vec<Packet> {
    let flow = || Family::V4.packet(transport, DSR_MAGLEV);
    std::iter::repeat_with(flow).take(count).collect()
}

/// Sends a packet of each session, and looks that all are at their backend.
fn all_stay(world: &World, sessions: &[Packet], backend: BackendId) -> Result<()> {
    for session in sessions {
        let met = send(world, &ack(session))?;
        ensure!(met == backend, "a session of {backend:?} met {met:?}");
    }
    Ok(())
}

#[test]
fn no_session_moves_while_forged_packets_fill_the_table() -> Result<()> {
    let world = at_risk()?;
    let old = flows(ACK, SESSIONS);
    let silent = flows(ACK, SESSIONS);
    let new = flows(SYN, SESSIONS);
    let begun = flows(SYN, SESSIONS);
    all_stay(&world, &old, PREVIOUS)?;
    for syn in &new {
        ensure!(send(&world, syn)? == OWNER);
    }
    all_stay(&world, &new, OWNER)?;
    for syn in &begun {
        ensure!(send(&world, syn)? == OWNER);
    }

    for forged in flows(ACK, FORGED) {
        ensure!(send(&world, &forged)? == PREVIOUS);
    }
    let untracked = world.traffic(PREVIOUS)?.untracked;
    let rest = FORGED as u64 - u64::from(ROOM) + 2 * SESSIONS as u64;
    ensure!(untracked == rest, "{untracked} of {rest} were counted");
    // Recorded, not recorded, and recorded with no room to be moved where it is kept.
    all_stay(&world, &old, PREVIOUS)?;
    all_stay(&world, &silent, PREVIOUS)?;
    all_stay(&world, &new, OWNER)?;
    all_stay(&world, &begun, OWNER)?;
    // Those that start find no room either: they stay where all without a record are.
    let late = flows(SYN, SESSIONS);
    for syn in &late {
        ensure!(send(&world, syn)? == PREVIOUS);
    }
    all_stay(&world, &late, PREVIOUS)
}

#[test]
fn changes_wait_for_room_and_deaths_do_not() -> Result<()> {
    let mut world = at_risk()?;
    for forged in flows(ACK, FORGED) {
        send(&world, &forged)?;
    }
    let round = world.walk(HOUR)?;
    ensure!(
        round.counts.tracked == u64::from(ROOM),
        "{:?}",
        round.counts
    );
    ensure!(!round.findings.has_room);
    // The window is long over, but what was not recorded in it may be anybody's.
    let now = Tick(1_000_000);
    let learned = Learned {
        now,
        room_since: now,
    };
    let settled = settle::settle(world.image(), &round.findings, learned);
    ensure!(settled == *world.image(), "slots were taken for learned");

    let mut desired = desired_small(DSR_MAGLEV);
    let moment = Moment {
        now,
        has_room: false,
    };
    world.hold(|_| (OWNER, State::Mixed))?;
    desired.services[0].backends[1].weight = 3;
    let next = plan::next(world.image(), &desired, moment);
    let table = &next.services[&desired.services[0].key].table;
    ensure!(table.deferred);
    ensure!(table.slots.iter().all(|owner| *owner == OWNER));
    ensure!(table.holds.count().1 == 0);

    desired.services[0].backends.pop();
    let next = plan::next(world.image(), &desired, moment);
    let table = &next.services[&desired.services[0].key].table;
    ensure!(!table.deferred);
    ensure!(table.slots.iter().all(|owner| *owner == PREVIOUS));
    Ok(())
}

/// Records of sessions stay, as these are heard of.
#[test]
fn the_sweep_makes_room_again() -> Result<()> {
    let mut world = at_risk()?;
    let (old, new) = (flows(ACK, SESSIONS), flows(SYN, SESSIONS));
    for syn in &new {
        send(&world, syn)?;
    }
    for forged in flows(ACK, FORGED) {
        send(&world, &forged)?;
    }
    let mut last = None;
    let swept = wait_until(Duration::from_secs(60), "room", || {
        all_stay(&world, &new, OWNER).ok()?;
        last = world.walk(SILENCE).ok();
        let round = last.as_ref()?;
        let forged_are_gone = round.counts.tracked == SESSIONS as u64;
        (round.findings.has_room && forged_are_gone).then_some(())
    });
    swept.with_context(|| format!("{last:?}"))?;
    all_stay(&world, &new, OWNER)?;
    all_stay(&world, &old, PREVIOUS)?;
    for syn in flows(SYN, SESSIONS) {
        ensure!(send(&world, &syn)? == OWNER);
        all_stay(&world, &[syn], OWNER)?;
    }
    let round = world.walk(HOUR)?;
    ensure!(round.findings.has_room);
    ensure!(
        round.counts.tracked == 3 * SESSIONS as u64,
        "{:?}",
        round.counts
    );
    let now = Tick(1_000_000);
    let room_since = Tick(0);
    let learned = Learned { now, room_since };
    let settled = settle::settle(world.image(), &round.findings, learned);
    let service = settled.services.values().next();
    let (mixed, at_risk) = service.context("there is one")?.table.holds.count();
    ensure!(
        mixed > 0 && at_risk == 0,
        "{mixed} mixed, {at_risk} at risk"
    );
    Ok(())
}
