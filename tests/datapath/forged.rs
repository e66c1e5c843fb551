//! Packets that somebody forges in a client's name: nobody's session moves, whatever they say.
//!
//! Whoever forges knows the ends of a flow, or tries all ports, and not its sequence numbers.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use lb_common::{
    abi::{BackendId, FlowState, Tick},
    parse::{TCP_ACK, TCP_FIN, TCP_RST, TCP_SYN},
    verdict::Verdict,
};
use lb_user::{
    core::{
        plan::{self, Moment},
        settle,
        slots::State,
    },
    io::datapath::Limits,
};
use tests::{
    packet::{Packet, Transport},
    world::World,
};
use xtask::lab::wait_until;

use super::services::{
    DSR_MAGLEV, DSR_ROUND_ROBIN, Family, NAT_MAGLEV, NAT_ROUND_ROBIN, desired_small, small_world,
};

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
    let full = Moment {
        now,
        has_room: false,
    };
    let settled = settle::settle(world.image(), &round.findings, full);
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
    let late = Moment::at(Tick(1_000_000));
    let settled = settle::settle(world.image(), &round.findings, late);
    let service = settled.services.values().next();
    let (mixed, at_risk) = service.context("there is one")?.table.holds.count();
    ensure!(
        mixed > 0 && at_risk == 0,
        "{mixed} mixed, {at_risk} at risk"
    );
    Ok(())
}

/// As at [`SESSIONS`]: its numbers have nothing to do with a session's.
fn forged(session: &Packet, transport: Transport) -> Packet {
    session.clone().with(|packet| {
        packet.transport = transport;
        packet.sequence = session.sequence.wrapping_add(0x7000_0000);
        packet.payload.clear();
    })
}

/// A session with numbers of its own, from its first data on.
fn begin(world: &World, service: u16, number: u32) -> Result<(Packet, Vec<u8>)> {
    let syn = Family::V4.packet(SYN, service).with(|packet| {
        packet.sequence = number;
        packet.payload.clear();
    });
    world.send(&syn)?;
    let data = Family::V4.packet(ACK, service).with(|packet| {
        packet.source_port = syn.source_port;
        packet.sequence = number.wrapping_add(1);
    });
    let out = world.send(&data)?.answer.frame;
    Ok((data, out))
}

/// What comes next in a session.
fn next(data: &Packet) -> Packet {
    data.clone().with(|packet| {
        packet.sequence = packet.sequence.wrapping_add(packet.payload.len() as u32);
    })
}

/// Where a frame goes and what it looks like there, but for what each packet has of its own.
fn way(frame: &[u8]) -> (&[u8], &[u8]) {
    (&frame[..12], &frame[26..38])
}

#[test]
fn no_forged_end_and_beginning_moves_a_session() -> Result<()> {
    let ends = [
        Transport::Tcp(TCP_FIN | TCP_ACK),
        Transport::Tcp(TCP_RST),
        Transport::Tcp(TCP_RST | TCP_ACK),
    ];
    for service in [DSR_ROUND_ROBIN, NAT_ROUND_ROBIN, NAT_MAGLEV] {
        let world = small_world(service)?;
        for number in (0..16_u32).map(|number| number.wrapping_mul(0x1234_5677)) {
            for end in ends {
                let (data, first) = begin(&world, service, number)?;
                for lie in [end, SYN, end, SYN, ACK, SYN] {
                    world.send(&forged(&data, lie))?;
                }
                let more = next(&data);
                let out = world.send(&more)?.answer.frame;
                ensure!(way(&out) == way(&first), "{service}: moved by {end:?}");
                let found = world.datapath().flow(&data.flow())?.context("no record")?;
                ensure!(
                    found.flow.state == FlowState::Established as u8,
                    "{service}: state {} after data behind {end:?}",
                    found.flow.state
                );
            }
        }
    }
    Ok(())
}

/// A drain is announced, at times.
#[test]
fn nor_does_it_while_the_sessions_backend_drains() -> Result<()> {
    for service in [DSR_ROUND_ROBIN, NAT_ROUND_ROBIN] {
        let mut world = small_world(service)?;
        let mut sessions = Vec::new();
        for number in 1..=16 {
            sessions.push(begin(&world, service, number << 20)?);
        }
        world.change(|desired| desired.services[0].backends[0].weight = 0)?;
        for (data, first) in &sessions {
            for lie in [Transport::Tcp(TCP_FIN | TCP_ACK), SYN, SYN] {
                world.send(&forged(data, lie))?;
            }
            let out = world.send(&next(data))?.answer.frame;
            ensure!(way(&out) == way(first), "{service}: moved");
        }
    }
    Ok(())
}

/// A flow whose client sends no data.
#[test]
fn a_connection_that_only_receives_lives_after_one_that_ended() -> Result<()> {
    let world = small_world(DSR_ROUND_ROBIN)?;
    let (data, _) = begin(&world, DSR_ROUND_ROBIN, 100)?;
    let bare = |flags, number| {
        data.clone().with(|packet| {
            packet.transport = Transport::Tcp(flags);
            packet.sequence = number;
            packet.payload.clear();
        })
    };
    let state = || -> Result<u8> {
        let found = world.datapath().flow(&data.flow())?;
        Ok(found.context("no record")?.flow.state)
    };
    let end = next(&data).sequence;
    world.send(&bare(TCP_FIN | TCP_ACK, end))?;
    world.send(&bare(TCP_ACK, end + 1))?;
    ensure!(state()? == FlowState::Closing as u8);
    world.send(&bare(TCP_SYN, 9_000_000))?;
    world.send(&bare(TCP_ACK, 9_000_001))?;
    ensure!(state()? == FlowState::Established as u8);
    Ok(())
}

/// What a client answers a backend that still has its old connection (RFC 9293, 3.5.1).
#[test]
fn a_reset_of_an_older_connection_meets_the_backend_of_the_syn() -> Result<()> {
    let world = small_world(DSR_ROUND_ROBIN)?;
    for number in 0..16 {
        let syn = Family::V4.packet(SYN, DSR_ROUND_ROBIN).with(|packet| {
            packet.sequence = number;
            packet.payload.clear();
        });
        let backend = send(&world, &syn)?;
        ensure!(send(&world, &forged(&syn, Transport::Tcp(TCP_RST)))? == backend);
        // It has said nothing about the SYN's.
        let found = world.datapath().flow(&syn.flow())?.context("no record")?;
        ensure!(found.flow.state == FlowState::HalfOpen as u8);
        ensure!(send(&world, &syn)? == backend);
        ensure!(send(&world, &ack(&syn))? == backend);
    }
    Ok(())
}

/// It would keep a backend from being drained, and a port from being free.
#[test]
fn data_that_comes_late_does_not_revive_a_session_that_ended() -> Result<()> {
    for service in [DSR_ROUND_ROBIN, NAT_ROUND_ROBIN] {
        let world = small_world(service)?;
        for number in [1, 0x7fff_fff0, 0xffff_fff0] {
            let (data, _) = begin(&world, service, number)?;
            let last = next(&data);
            let fin = next(&last).with(|packet| {
                packet.transport = Transport::Tcp(TCP_FIN | TCP_ACK);
                packet.payload.clear();
            });
            for packet in [&fin, &last, &fin, &data] {
                world.send(packet)?;
            }
            let found = world.datapath().flow(&data.flow())?.context("no record")?;
            ensure!(found.flow.state == FlowState::Closing as u8, "{number}");
        }
    }
    Ok(())
}

/// A session that has not spoken since the slot changed hands has no record yet.
#[test]
fn no_forged_syn_moves_a_session_that_is_not_recorded() -> Result<()> {
    let world = at_risk()?;
    for number in (0..64_u32).map(|number| number.wrapping_mul(0x0abc_def1)) {
        let session = Family::V4
            .packet(ACK, DSR_MAGLEV)
            .with(|packet| packet.sequence = number);
        for lie in [SYN, SYN] {
            ensure!(send(&world, &forged(&session, lie))? == OWNER);
        }
        ensure!(send(&world, &session)? == PREVIOUS, "moved by a SYN");
        ensure!(send(&world, &next(&session))? == PREVIOUS);
        ensure!(send(&world, &forged(&session, SYN))? == PREVIOUS);
    }
    // Who does start there is believed, with data in the SYN too, and when its first data is lost.
    for (number, sent) in [(5, 0), (0xffff_ffff, 0), (9, 1_200), (0xffff_fff0, 60_000)] {
        let syn = Family::V4
            .packet(SYN, DSR_MAGLEV)
            .with(|packet| packet.sequence = number);
        ensure!(send(&world, &syn)? == OWNER);
        let first = ack(&syn).with(|p| p.sequence = number.wrapping_add(1 + sent));
        ensure!(send(&world, &first)? == OWNER);
    }
    Ok(())
}

/// Who forges a handshake has a place for a minute, and not for hours.
#[test]
fn a_forged_handshake_fills_no_table() -> Result<()> {
    for service in [DSR_ROUND_ROBIN, NAT_ROUND_ROBIN] {
        let mut world = small_world(service)?;
        world.change(|desired| desired.services[0].features.mqtt = true)?;
        for _flow in 0..100 {
            let syn = Family::V4.packet(SYN, service);
            let syn = syn.with(|packet| packet.payload.clear());
            world.send(&syn)?;
            world.send(&ack(&syn))?;
        }
        let counts = world.walk(HOUR)?.counts;
        ensure!((counts.tracked, counts.half_open) == (0, 100), "{counts:?}");
    }
    Ok(())
}
