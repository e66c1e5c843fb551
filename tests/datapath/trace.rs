//! `tidegate trace` against the loaded program: the same verdict and the same backend.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use anyhow::{Context, Result, ensure};
use lb_common::{
    abi::{Access, Ip, Rate, Rates},
    parse::{TCP_ACK, TCP_SYN},
    verdict::{Action, Verdict},
};
use lb_user::{
    config::model::{AccessList, Prefix},
    core::trace::{self, Client, Goal, Scene, Segment},
};
use tests::{
    packet::{Packet, Transport},
    prog_run::LOOPBACK,
    world::World,
};

use super::scheduling;
use super::services::{
    BEHIND, BEHIND_NAT, BEHIND_ROUND_ROBIN, EMPTY, EMPTY_NAT, EMPTY_ROUND_ROBIN, FAMILIES, KINDS,
    NO_NEXT_HOP, NO_NEXT_HOP_NAT, NO_NEXT_HOP_ROUND_ROBIN, WEIGHTLESS, small_world, world,
};

const OTHERS: [u16; 10] = [
    EMPTY,
    EMPTY_NAT,
    EMPTY_ROUND_ROBIN,
    WEIGHTLESS,
    NO_NEXT_HOP,
    NO_NEXT_HOP_NAT,
    NO_NEXT_HOP_ROUND_ROBIN,
    BEHIND,
    BEHIND_NAT,
    BEHIND_ROUND_ROBIN,
];

/// Says what would become of a packet, sends it, and compares.
fn check(world: &World, packet: &Packet, segment: Segment) -> Result<()> {
    let service = packet.flow().service();
    let key = trace::key(Ip::from(packet.source), packet.source_port, &service);
    let record = world.datapath().flow(&key)?;
    let names = BTreeMap::new();
    let image = world.image().services.get(&service);
    let memory = image.map(|image| {
        let memory = world.datapath().guard_memory(key.source(), image.id);
        memory.map(|memory| (service, memory))
    });
    let guards = memory.into_iter().collect::<Result<_, _>>()?;
    let limited = world.image().backends.iter().filter(|(_, it)| it.limit > 0);
    let mut full = BTreeSet::new();
    for (&id, backend) in limited {
        if world.datapath().open_flows(id)? >= u64::from(backend.limit) {
            full.insert(id);
        }
    }
    let scene = Scene {
        image: world.image(),
        keys: world.datapath().hash_keys(),
        interface: LOOPBACK,
        names: &names,
        guards: &guards,
        full: &full,
    };
    let path = scene.follow(Client::Flow(key), record.as_ref(), segment);
    let out = world.send(packet)?;
    let context = || {
        format!(
            "{path:?}\nfor {packet:?}, record {record:?}, but {:?}",
            out.verdict
        )
    };
    ensure!(
        path.verdict.is_none_or(|verdict| verdict == out.verdict),
        "{}",
        context()
    );
    let got = match out.verdict.action() {
        Action::Transmit if out.verdict == Verdict::TxChallenge => None,
        Action::Transmit | Action::Redirect => world.backend_by_mac(&out.answer.frame[..6]),
        Action::Pass | Action::Drop => None,
    };
    let agrees = match (&path.goal, got) {
        (Goal::Backend(id), Some(got)) => *id == got,
        (Goal::AnyOf(ids), Some(got)) => ids.contains(&got),
        // Who would get it may not be reachable.
        (Goal::AnyOf(_), None) => out.verdict == Verdict::DropNoNextHop,
        (Goal::Nobody, None) => true,
        (Goal::Nobody, Some(_)) | (Goal::Backend(_), None) => false,
    };
    ensure!(agrees, "{got:?} got it: {}", context());
    Ok(())
}

fn transport(segment: Segment) -> Transport {
    Transport::Tcp(match segment {
        Segment::First => TCP_SYN,
        Segment::Later => TCP_ACK,
    })
}

#[test]
fn the_trace_of_any_flow_is_what_the_program_does() -> Result<()> {
    let world = world()?;
    for family in FAMILIES {
        for service in KINDS.into_iter().chain(OTHERS) {
            for turn in 0..24 {
                let starts = if turn % 3 == 0 {
                    Segment::Later
                } else {
                    Segment::First
                };
                let first = family.packet(transport(starts), service);
                check(&world, &first, starts)?;
                for segment in [Segment::Later, Segment::First, Segment::Later] {
                    let next = first.clone().with(|p| p.transport = transport(segment));
                    check(&world, &next, segment)?;
                }
                let datagram = family.packet(Transport::Udp, service);
                check(&world, &datagram, Segment::Later)?;
                check(&world, &datagram, Segment::Later)?;
            }
        }
    }
    Ok(())
}

#[test]
fn the_trace_of_clients_of_an_access_list_is_what_the_program_does() -> Result<()> {
    let prefix = |last, length| Prefix::new([172, 16, 40, last].into(), length);
    let all = prefix(0, 24).context("a prefix")?;
    let some = prefix(64, 27).context("a prefix")?;
    let one = prefix(70, 32).context("a prefix")?;
    let entries = [
        (all, Access::Deny),
        (some, Access::Allow),
        (one, Access::Deny),
    ];
    for service in KINDS {
        let mut world = small_world(service)?;
        world.change(|desired| {
            let service = &mut desired.services[0];
            service.features.access_list = true;
            service.access = Arc::new(AccessList::new(entries.into(), false));
        })?;
        for last in (30..110).step_by(5) {
            for segment in [Segment::First, Segment::Later] {
                let packet = FAMILIES[0].packet(transport(segment), service);
                let packet = packet.with(|p| p.source = [172, 16, 40, last].into());
                check(&world, &packet, segment)?;
            }
        }
    }
    Ok(())
}

#[test]
fn the_trace_of_challenged_and_limited_clients_is_what_the_program_does() -> Result<()> {
    for service in KINDS {
        let mut world = small_world(service)?;
        // So slow that no connection more is let through while the test runs.
        let slow = Rates {
            source: Rate::new(1, 3),
            service: Rate::new(1, 8),
        };
        world.change(|desired| {
            desired.services[0].features.rates = true;
            desired.services[0].rates = slow;
        })?;
        for last in [10, 11, 12] {
            for _connection in 0..5 {
                let packet = FAMILIES[0].packet(transport(Segment::First), service);
                let packet = packet.with(|p| p.source = [172, 16, 40, last].into());
                check(&world, &packet, Segment::First)?;
            }
        }
        world.change(|desired| {
            desired.services[0].features.rates = false;
            desired.services[0].features.challenge = true;
        })?;
        for segment in [Segment::First, Segment::Later, Segment::First] {
            check(
                &world,
                &FAMILIES[0].packet(transport(segment), service),
                segment,
            )?;
        }
    }
    Ok(())
}

#[test]
fn the_trace_of_a_flow_whose_backend_went_is_what_the_program_does() -> Result<()> {
    for service in KINDS {
        let mut world = small_world(service)?;
        let family = FAMILIES[0];
        let flows: Vec<Packet> = (0..16)
            .map(|_| family.packet(transport(Segment::First), service))
            .collect();
        for flow in &flows {
            check(&world, flow, Segment::First)?;
            let ack = flow
                .clone()
                .with(|p| p.transport = transport(Segment::Later));
            check(&world, &ack, Segment::Later)?;
        }
        world.change(|desired| {
            desired.services[0].backends.remove(0);
        })?;
        for flow in &flows {
            for segment in [Segment::Later, Segment::First, Segment::Later] {
                let packet = flow.clone().with(|p| p.transport = transport(segment));
                check(&world, &packet, segment)?;
            }
        }
    }
    Ok(())
}

#[test]
fn the_trace_of_clients_of_full_backends_is_what_the_program_does() -> Result<()> {
    for (balance, forward) in scheduling::COUNTED {
        let mut service = scheduling::service_of(balance, forward, &[1; 5]);
        for (backend, limit) in service.backends.iter_mut().zip([1, 4, 9, 16, 2]) {
            backend.limit = limit;
        }
        let world = scheduling::world_of(service)?;
        for client in 0..40 {
            for segment in [Segment::First, Segment::First, Segment::Later] {
                let packet = scheduling::packet(transport(segment), client, 1_024);
                // Nobody's, so the slot's, if it has no record.
                if client < 32 || segment == Segment::First {
                    check(&world, &packet, segment)?;
                }
            }
        }
    }
    Ok(())
}
