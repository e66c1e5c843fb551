//! Round robin: flows by turns, and a memory of whose turn it was.

use std::{collections::BTreeMap, time::Duration};

use anyhow::{Context, Result, ensure};
use lb_common::{
    abi::{BackendId, FLOWS, Flow, FlowState},
    parse::{TCP_ACK, TCP_FIN, TCP_RST, TCP_SYN},
    verdict::Verdict,
};
use lb_user::io::datapath::Limits;
use tests::{
    packet::{Packet, Transport},
    world::World,
};
use xtask::lab::wait_until;

use super::entries;
use super::services::{
    DSR_ROUND_ROBIN, FAMILIES, Family, NAT_ROUND_ROBIN, desired_small, small_world, world,
};

const SYN: Transport = Transport::Tcp(TCP_SYN);
const ACK: Transport = Transport::Tcp(TCP_ACK);
const FIN: Transport = Transport::Tcp(TCP_FIN | TCP_ACK);
const RST: Transport = Transport::Tcp(TCP_RST);

/// Longer than any flow of these tests is silent.
const HOUR: Duration = Duration::from_secs(3600);

/// Sends a packet and says which backend got it.
fn send(world: &World, packet: &Packet) -> Result<BackendId> {
    let out = world.send(packet)?;
    ensure!(
        matches!(out.verdict, Verdict::TxDsr | Verdict::TxNat),
        "{:?}",
        out.verdict
    );
    let backend = world.backend_by_mac(&out.answer.frame[..6]);
    backend.context("sent to nobody's MAC address")
}

fn next(packet: &Packet, transport: Transport) -> Packet {
    packet.clone().with(|packet| packet.transport = transport)
}

#[test]
fn new_flows_take_turns() -> Result<()> {
    let world = world()?;
    for family in FAMILIES {
        for service in [DSR_ROUND_ROBIN, NAT_ROUND_ROBIN] {
            for transport in [SYN, Transport::Udp] {
                let flow = || send(&world, &family.packet(transport, service));
                let (first, second) = (flow()?, flow()?);
                ensure!(first != second, "one backend has two turns in a row");
                for _turn in 0..20 {
                    ensure!((flow()?, flow()?) == (first, second));
                }
            }
        }
    }
    Ok(())
}

#[test]
fn a_flow_stays_where_it_began() -> Result<()> {
    let world = world()?;
    for family in FAMILIES {
        for service in [DSR_ROUND_ROBIN, NAT_ROUND_ROBIN] {
            // Of both backends, whatever the hash says.
            for _flow in 0..8 {
                let syn = family.packet(SYN, service);
                let backend = send(&world, &syn)?;
                for transport in [SYN, SYN, ACK, ACK, SYN, FIN, ACK, RST, ACK] {
                    ensure!(
                        send(&world, &next(&syn, transport))? == backend,
                        "{transport:?} went elsewhere: {family:?} {service}"
                    );
                }
            }
        }
    }
    Ok(())
}

#[test]
fn a_retransmitted_syn_takes_nobodys_turn() -> Result<()> {
    let world = world()?;
    let syn = Family::V4.packet(SYN, DSR_ROUND_ROBIN);
    let first = send(&world, &syn)?;
    send(&world, &syn)?;
    ensure!(send(&world, &Family::V4.packet(SYN, DSR_ROUND_ROBIN))? != first);
    Ok(())
}

/// The FIN or RST may be forged, and the SYN too.
#[test]
fn a_closed_flow_that_starts_again_keeps_its_backend() -> Result<()> {
    let world = world()?;
    for service in [DSR_ROUND_ROBIN, NAT_ROUND_ROBIN] {
        for last in [FIN, RST, ACK] {
            let syn = Family::V4.packet(SYN, service);
            let backend = send(&world, &syn)?;
            send(&world, &next(&syn, ACK))?;
            send(&world, &next(&syn, last))?;
            let before = world.traffic(backend)?.new_connections;
            ensure!(send(&world, &syn)? == backend, "after {last:?}");
            let counted = world.traffic(backend)?.new_connections - before;
            ensure!(counted == u64::from(last != ACK), "after {last:?}");
            ensure!(send(&world, &next(&syn, ACK))? == backend);
            // It took nobody's turn.
            let other = send(&world, &Family::V4.packet(SYN, service))?;
            ensure!(other != backend, "after {last:?}");
        }
    }
    Ok(())
}

/// Once nothing has come for so long that the FIN or RST is no forged one.
#[test]
fn a_closed_flow_of_a_backend_that_takes_no_new_ones_starts_elsewhere() -> Result<()> {
    for service in [DSR_ROUND_ROBIN, NAT_ROUND_ROBIN] {
        for (last, starts) in [(FIN, true), (RST, true), (ACK, false)] {
            let mut world = small_world(service)?;
            let syn = Family::V4.packet(SYN, service);
            let backend = send(&world, &syn)?;
            send(&world, &next(&syn, ACK))?;
            send(&world, &next(&syn, last))?;
            world.change(|desired| {
                desired.services[0].backends[usize::from(backend.0)].weight = 0;
            })?;
            ensure!(send(&world, &syn)? == backend, "soon after {last:?}");
            age(&syn)?;
            let again = send(&world, &syn)?;
            ensure!((again != backend) == starts, "after {last:?}");
            ensure!(send(&world, &next(&syn, ACK))? == again);
        }
    }
    Ok(())
}

#[test]
fn nobody_is_taken_back_to_a_backend_that_has_no_session_left() -> Result<()> {
    for service in [DSR_ROUND_ROBIN, NAT_ROUND_ROBIN] {
        let mut world = small_world(service)?;
        let open = |world: &World| -> Result<(Packet, BackendId)> {
            let syn = Family::V4.packet(SYN, service);
            let backend = send(world, &syn)?;
            send(world, &next(&syn, ACK))?;
            Ok((syn, backend))
        };
        let (closing, backend) = open(&world)?;
        send(&world, &next(&closing, FIN))?;
        let mut live = open(&world)?;
        while live.1 != backend {
            live = open(&world)?;
        }
        world.change(|desired| {
            desired.services[0].backends[usize::from(backend.0)].weight = 0;
        })?;
        let settle = |world: &mut World| {
            let findings = world.walk(HOUR)?.findings;
            world.settle(&findings)
        };
        wait_until(
            Duration::from_secs(10),
            "the end of learning windows",
            || {
                settle(&mut world).ok()?;
                let mut services = world.image().services.values();
                services.all(|it| it.table.holds.is_empty()).then_some(())
            },
        )?;
        settle(&mut world)?;
        ensure!(send(&world, &closing)? == backend, "a session is left");
        send(&world, &next(&live.0, FIN))?;
        settle(&mut world)?;
        ensure!(send(&world, &closing)? != backend, "nobody is left");
        // It may have been forged: what goes on goes on.
        ensure!(send(&world, &next(&live.0, ACK))? == backend);
        world.change(|desired| {
            desired.services[0].backends[usize::from(backend.0)].weight = 1;
        })?;
        ensure!(send(&world, &live.0)? == backend, "it takes new flows");
    }
    Ok(())
}

#[test]
fn a_closed_flow_of_a_full_backend_starts_elsewhere() -> Result<()> {
    for service in [DSR_ROUND_ROBIN, NAT_ROUND_ROBIN] {
        let mut world = small_world(service)?;
        world.change(|desired| {
            for backend in &mut desired.services[0].backends {
                backend.limit = 1;
            }
        })?;
        let syn = Family::V4.packet(SYN, service);
        let backend = send(&world, &syn)?;
        send(&world, &next(&syn, ACK))?;
        send(&world, &next(&syn, FIN))?;
        // One for the other backend, and one for the place that is free again.
        for expected in [false, true] {
            let taken = send(&world, &Family::V4.packet(SYN, service))?;
            ensure!((taken == backend) == expected);
        }
        ensure!(send(&world, &syn)? == backend);
        age(&syn)?;
        let late = world.send(&syn)?.verdict;
        ensure!(late == Verdict::DropBackendsFull, "{late:?}");
    }
    Ok(())
}

/// Makes a flow silent for longer than its end is in doubt.
fn age(packet: &Packet) -> Result<()> {
    entries::change(FLOWS, &packet.flow(), |flow: &mut Flow| {
        flow.seen = entries::earlier(flow.seen, FlowState::DOUBTFUL + 1)?;
        Ok(())
    })
}

/// All nodes and all restarts agree on the slot's owner.
#[test]
fn a_flow_that_nobody_knows_goes_to_its_slots_owner_and_stays() -> Result<()> {
    let world = world()?;
    for family in FAMILIES {
        for service in [DSR_ROUND_ROBIN, NAT_ROUND_ROBIN] {
            for _flow in 0..10 {
                let ack = family.packet(ACK, service);
                let owner = world.owner(&ack)?;
                for _packet in 0..3 {
                    ensure!(send(&world, &ack)? == owner);
                }
            }
        }
    }
    Ok(())
}

#[test]
fn weights_are_honoured_by_turns() -> Result<()> {
    let mut world = small_world(DSR_ROUND_ROBIN)?;
    world.change(|desired| desired.services[0].backends[0].weight = 3)?;
    let mut turns: BTreeMap<BackendId, u32> = BTreeMap::new();
    for _flow in 0..400 {
        let backend = send(&world, &Family::V4.packet(SYN, DSR_ROUND_ROBIN))?;
        *turns.entry(backend).or_default() += 1;
    }
    ensure!(
        turns.values().copied().collect::<Vec<_>>() == [300, 100],
        "{turns:?}"
    );
    Ok(())
}

#[test]
fn a_flow_is_half_open_until_it_sends_data() -> Result<()> {
    for service in [DSR_ROUND_ROBIN, NAT_ROUND_ROBIN] {
        let mut world = small_world(service)?;
        let syn = Family::V4.packet(SYN, service);
        let bare = |transport| next(&syn, transport).with(|packet| packet.payload.clear());
        let backend = send(&world, &syn)?;
        for packet in [SYN, ACK, ACK, SYN].map(bare) {
            ensure!(send(&world, &packet)? == backend);
            let counts = world.sweep(HOUR)?;
            ensure!((counts.half_open, counts.tracked) == (1, 0), "{counts:?}");
        }
        send(&world, &next(&syn, ACK))?;
        let counts = world.sweep(HOUR)?;
        ensure!((counts.half_open, counts.tracked) == (0, 1), "{counts:?}");
    }
    Ok(())
}

/// The clock of flows ticks about once a second, so the sweep is repeated until it has.
#[test]
fn a_silent_flow_is_swept_and_its_port_with_it() -> Result<()> {
    let mut world = small_world(NAT_ROUND_ROBIN)?;
    world.change(|desired| {
        desired.nat_pool = super::services::nat_pool((25_000, 25_000));
        desired.services[0].backends.truncate(1);
    })?;
    let syn = Family::V4.packet(SYN, NAT_ROUND_ROBIN);
    send(&world, &syn)?;
    send(&world, &next(&syn, ACK))?;
    let other = Family::V4.packet(SYN, NAT_ROUND_ROBIN);
    ensure!(world.send(&other)?.verdict == Verdict::DropNatPortsExhausted);
    ensure!(world.sweep(HOUR)?.removed == 0);
    wait_until(Duration::from_secs(30), "the flow being swept", || {
        let counts = world.sweep(Duration::ZERO).ok()?;
        (counts.removed == 1).then_some(())
    })?;
    let counts = world.sweep(HOUR)?;
    ensure!((counts.half_open, counts.tracked) == (0, 0), "{counts:?}");
    send(&world, &other)?;
    Ok(())
}

#[test]
fn a_flow_for_which_there_is_no_room_is_forwarded_and_counted() -> Result<()> {
    for service in [DSR_ROUND_ROBIN, NAT_ROUND_ROBIN] {
        let limits = Limits {
            services: 1,
            backends: 2,
            flows: 1,
            half_open: 65_536,
            access_entries: 1,
            fragments: 1,
            sources: 1_024,
        };
        let mut world = World::with_limits(desired_small(service), limits)?;
        let flows: Vec<Packet> = std::iter::repeat_with(|| Family::V4.packet(SYN, service))
            .take(64)
            .collect();
        let before: Vec<BackendId> = flows
            .iter()
            .map(|syn| send(&world, syn))
            .collect::<Result<_>>()?;
        for _packet in 0..2 {
            for (syn, &backend) in flows.iter().zip(&before) {
                ensure!(send(&world, &next(syn, ACK))? == backend);
            }
        }
        let counts = world.sweep(HOUR)?;
        ensure!(counts.tracked + counts.half_open == 64, "{counts:?}");
        ensure!(counts.half_open > 0, "{counts:?}");
        let untracked = |world: &World| -> Result<u64> {
            let (first, second) = (world.traffic(BackendId(0))?, world.traffic(BackendId(1))?);
            Ok(first.untracked + second.untracked)
        };
        ensure!(untracked(&world)? == 2 * counts.half_open);
        // From now on new flows of TCP keep to their slots, unless they need a record.
        let late = Family::V4.packet(SYN, service);
        let backend = send(&world, &late)?;
        ensure!(backend == world.owner(&late)?);
        ensure!(send(&world, &next(&late, ACK))? == backend);
        let is_recorded = world.sweep(HOUR)?.half_open > counts.half_open;
        ensure!(is_recorded == (service == NAT_ROUND_ROBIN));
        ensure!(untracked(&world)? > 2 * counts.half_open);
    }
    Ok(())
}

#[test]
fn flows_of_a_backend_that_went_are_selected_anew() -> Result<()> {
    let mut world = small_world(DSR_ROUND_ROBIN)?;
    let flows: Vec<Packet> = std::iter::repeat_with(|| Family::V4.packet(SYN, DSR_ROUND_ROBIN))
        .take(4)
        .collect();
    let mut before = Vec::new();
    for syn in &flows {
        before.push(send(&world, syn)?);
        send(&world, &next(syn, ACK))?;
    }
    let gone = BackendId(0);
    world.change(|desired| desired.services[0].backends = vec![desired.services[0].backends[1]])?;
    for (syn, before) in flows.iter().zip(before) {
        let ack = next(syn, ACK);
        let stays = if before == gone {
            world.owner(&ack)?
        } else {
            before
        };
        ensure!(send(&world, &ack)? == stays);
    }
    Ok(())
}

/// The id of a backend that went is given out again; flows recorded for it must not follow.
#[test]
fn an_id_in_new_hands_does_not_inherit_flows() -> Result<()> {
    let mut world = small_world(DSR_ROUND_ROBIN)?;
    let syn = Family::V4.packet(SYN, DSR_ROUND_ROBIN);
    let mut old = None;
    world.change(|desired| {
        old = desired.services[0].backends.pop();
    })?;
    send(&world, &syn)?;
    send(&world, &next(&syn, ACK))?;
    let old = old.context("there were two backends")?;
    let id = send(&world, &next(&syn, ACK))?;
    // The first goes, the second comes and is given its id.
    world.change(|desired| desired.services[0].backends.clear())?;
    ensure!(world.send(&next(&syn, ACK))?.verdict == Verdict::DropNoBackend);
    world.change(|desired| desired.services[0].backends.push(old))?;
    // A SYN of a flow that is found starts nothing; this one does.
    let before = world.traffic(id)?.new_connections;
    ensure!(send(&world, &syn)? == id, "the id was not given out again");
    ensure!(world.traffic(id)?.new_connections == before + 1);
    Ok(())
}

#[test]
fn a_flood_of_syns_evicts_no_flow_that_has_sent_data() -> Result<()> {
    for service in [DSR_ROUND_ROBIN, NAT_ROUND_ROBIN] {
        let limits = Limits {
            services: 1,
            backends: 2,
            flows: 1_000,
            half_open: 512,
            access_entries: 1,
            fragments: 1,
            sources: 1_024,
        };
        let world = World::with_limits(desired_small(service), limits)?;
        let mut flows = Vec::new();
        for _flow in 0..50 {
            let syn = Family::V4.packet(SYN, service);
            let backend = send(&world, &syn)?;
            send(&world, &next(&syn, ACK))?;
            flows.push((syn, backend));
        }
        for _syn in 0..3_000 {
            send(&world, &Family::V4.packet(SYN, service))?;
        }
        for (syn, backend) in flows {
            ensure!(send(&world, &next(&syn, ACK))? == backend);
        }
    }
    Ok(())
}
