//! Each state of a slot and each kind of packet: who gets it, and what is recorded then.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr},
};

use anyhow::{Context, Result, ensure};
use lb_common::{
    abi::{
        BackendId, Balance, FlowState, Forward, Ip, NextHop, PROTOCOL_TCP, PROTOCOL_UDP,
        ServiceKey, Tick, TunnelSources,
    },
    parse::{TCP_ACK, TCP_FIN, TCP_RST, TCP_SYN},
    verdict::Action,
};
use lb_user::core::{
    plan::{Desired, DesiredBackend, DesiredService},
    slots::State,
};
use tests::{
    packet::{Packet, Transport},
    prog_run::LOOPBACK,
    world::World,
};

use super::fragments;
use super::icmp::{about, kinds, least, sent_back};
use super::services::{FAMILIES, desired_of};

const SYN: Transport = Transport::Tcp(TCP_SYN);
const ACK: Transport = Transport::Tcp(TCP_ACK);
const FIN: Transport = Transport::Tcp(TCP_FIN | TCP_ACK);
const RST: Transport = Transport::Tcp(TCP_RST);

/// The ways of forwarding in which slots matter, and the ports of their services.
const WAYS: [(Forward, u16); 2] = [(Forward::Dsr, 4000), (Forward::Tunnel, 4001)];

/// A backend, by what it is to the slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Role {
    Owner,
    /// The owner before, of a slot at risk.
    Previous,
    Third,
    /// Removed from the service.
    Gone,
}

const ROLES: [Role; 4] = [Owner, Previous, Third, Gone];

/// The state of the slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Slot {
    Safe,
    Mixed,
    AtRisk,
}

/// What is recorded of a flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Record {
    None,
    /// Only its SYN was seen.
    Begun(Role),
    Live(Role),
    Closing(Role),
    Reset(Role),
}

/// A packet of the flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sent {
    Syn,
    /// Twice.
    Syns,
    Ack,
    Fin,
    Rst,
    Udp,
    /// An ICMP error that quotes what the backend sent.
    Error,
    /// The first piece of an ACK.
    Piece,
    /// A later piece, when the first one has passed.
    Later,
}

use Record::{Begun, Closing, Live, Reset};
use Role::{Gone, Owner, Previous, Third};
use Sent::{Ack, Error, Fin, Later, Piece, Rst, Syn, Syns, Udp};
use Slot::{AtRisk, Mixed, Safe};

const ALL: &[Sent] = &[Syn, Syns, Ack, Fin, Rst, Udp, Error, Piece, Later];
/// Those that change nothing about a flow that lives.
const IN_LIFE: &[Sent] = &[Syn, Syns, Ack, Udp, Error, Piece, Later];
const SYNS: &[Sent] = &[Syn, Syns];
const ACKS: &[Sent] = &[Ack, Udp, Piece, Later];
/// Those that do not start a flow.
const NO_SYNS: &[Sent] = &[Ack, Fin, Rst, Udp, Error, Piece, Later];

/// The slot, what is recorded before, what is sent, who gets it, what is recorded after.
type Row = (Slot, Record, &'static [Sent], Role, Record);

const TABLE: &[Row] = &[
    // Nobody looks for records in a safe slot: there is none that differs from its owner.
    (Safe, Record::None, ALL, Owner, Record::None),
    (Safe, Begun(Owner), ALL, Owner, Begun(Owner)),
    (Safe, Live(Owner), ALL, Owner, Live(Owner)),
    (Safe, Live(Previous), ALL, Owner, Live(Previous)),
    (Safe, Live(Third), ALL, Owner, Live(Third)),
    (Safe, Live(Gone), ALL, Owner, Live(Gone)),
    // A flow that is not recorded is the owner's.
    (Mixed, Record::None, ALL, Owner, Record::None),
    (Mixed, Begun(Owner), SYNS, Owner, Begun(Owner)),
    (Mixed, Begun(Owner), ACKS, Owner, Live(Owner)),
    (Mixed, Begun(Third), SYNS, Third, Begun(Third)),
    (Mixed, Begun(Third), ACKS, Third, Live(Third)),
    (Mixed, Begun(Third), &[Error], Third, Begun(Third)),
    (Mixed, Live(Owner), IN_LIFE, Owner, Live(Owner)),
    (Mixed, Live(Owner), &[Fin], Owner, Closing(Owner)),
    (Mixed, Live(Owner), &[Rst], Owner, Reset(Owner)),
    (Mixed, Live(Previous), IN_LIFE, Previous, Live(Previous)),
    (Mixed, Live(Previous), &[Fin], Previous, Closing(Previous)),
    (Mixed, Live(Previous), &[Rst], Previous, Reset(Previous)),
    (Mixed, Live(Third), IN_LIFE, Third, Live(Third)),
    (Mixed, Live(Third), &[Fin], Third, Closing(Third)),
    (Mixed, Live(Third), &[Rst], Third, Reset(Third)),
    // A FIN or RST may be forged, so a SYN behind it moves nothing.
    (Mixed, Closing(Third), SYNS, Third, Closing(Third)),
    (Mixed, Closing(Third), ACKS, Third, Closing(Third)),
    (Mixed, Closing(Third), &[Rst], Third, Reset(Third)),
    (Mixed, Reset(Third), SYNS, Third, Reset(Third)),
    (Mixed, Reset(Third), ACKS, Third, Live(Third)),
    (Mixed, Live(Gone), SYNS, Owner, Record::None),
    (Mixed, Live(Gone), NO_SYNS, Owner, Live(Gone)),
    // A flow that is not recorded is the owner's if it starts, else the previous owner's.
    (AtRisk, Record::None, SYNS, Owner, Begun(Owner)),
    (AtRisk, Record::None, ACKS, Previous, Live(Previous)),
    (AtRisk, Record::None, &[Fin], Previous, Closing(Previous)),
    (AtRisk, Record::None, &[Rst, Error], Previous, Record::None),
    (AtRisk, Begun(Owner), SYNS, Owner, Begun(Owner)),
    (AtRisk, Begun(Owner), ACKS, Owner, Live(Owner)),
    (AtRisk, Begun(Owner), &[Error], Owner, Begun(Owner)),
    (AtRisk, Begun(Third), SYNS, Third, Begun(Third)),
    (AtRisk, Begun(Third), ACKS, Third, Live(Third)),
    (AtRisk, Live(Owner), IN_LIFE, Owner, Live(Owner)),
    (AtRisk, Live(Owner), &[Fin], Owner, Closing(Owner)),
    (AtRisk, Live(Owner), &[Rst], Owner, Reset(Owner)),
    (AtRisk, Live(Previous), IN_LIFE, Previous, Live(Previous)),
    (AtRisk, Live(Previous), &[Fin], Previous, Closing(Previous)),
    (AtRisk, Live(Previous), &[Rst], Previous, Reset(Previous)),
    (AtRisk, Live(Third), IN_LIFE, Third, Live(Third)),
    (AtRisk, Live(Third), &[Fin], Third, Closing(Third)),
    (AtRisk, Live(Third), &[Rst], Third, Reset(Third)),
    (AtRisk, Closing(Previous), SYNS, Previous, Closing(Previous)),
    (AtRisk, Closing(Previous), ACKS, Previous, Closing(Previous)),
    (AtRisk, Closing(Previous), &[Rst], Previous, Reset(Previous)),
    (AtRisk, Reset(Previous), SYNS, Previous, Reset(Previous)),
    (AtRisk, Reset(Previous), ACKS, Previous, Live(Previous)),
    (AtRisk, Live(Gone), SYNS, Owner, Begun(Owner)),
    (AtRisk, Live(Gone), ACKS, Previous, Live(Previous)),
    (AtRisk, Live(Gone), &[Fin], Previous, Closing(Previous)),
    (AtRisk, Live(Gone), &[Rst, Error], Previous, Live(Gone)),
];

/// One packet of one row, in one family and one way of forwarding.
#[derive(Debug)]
struct Case {
    slot: Slot,
    before: Record,
    sent: Sent,
    to: Role,
    after: Record,
    /// The flow, as an ACK or datagram of it.
    packet: Packet,
}

fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for family in FAMILIES {
        for (_, port) in WAYS {
            for &(slot, before, kinds, to, after) in TABLE {
                // UDP has no SYN, FIN or RST to have recorded.
                let has_udp = matches!(before, Record::None | Live(_));
                let kinds = kinds.iter().filter(|sent| has_udp || **sent != Udp);
                cases.extend(kinds.map(|&sent| Case {
                    slot,
                    before,
                    sent,
                    to,
                    after,
                    packet: family.packet(if sent == Udp { Transport::Udp } else { ACK }, port),
                }));
            }
        }
    }
    cases
}

/// The services, with a backend for each role.
fn services() -> Desired {
    let mut desired = desired_of(&[]);
    desired.tunnel_sources = TunnelSources::EMPTY.with(Ip::from_v4([10, 9, 0, 0]), 8);
    for family in FAMILIES {
        for protocol in [PROTOCOL_TCP, PROTOCOL_UDP] {
            for (forward, port) in WAYS {
                let number = desired.services.len() as u8;
                let key = ServiceKey::new(Ip::from(family.vip()), port, protocol);
                desired.services.push(DesiredService {
                    backends: ROLES.map(|role| backend(number, role, port)).to_vec(),
                    ..DesiredService::new(key, Balance::Maglev, forward)
                });
            }
        }
    }
    desired
}

fn backend(service: u8, role: Role, port: u16) -> DesiredBackend {
    let next_hop = NextHop {
        interface: LOOPBACK,
        mac: [0x02, 0xdd, 0, 0, service, role as u8],
        source_mac: [0x02, 0xaa, 0, 0, 0, 1],
    };
    let address = IpAddr::from(Ipv4Addr::new(10, 30, service, role as u8 + 1));
    DesiredBackend::new(Ip::from(address), port, 1, Some(next_hop))
}

/// The ids of each service's backends.
type Ids = BTreeMap<ServiceKey, BTreeMap<Role, BackendId>>;

fn ids(world: &World) -> Ids {
    let services = world.image().services.iter();
    services
        .map(|(key, service)| {
            let ids = world.backends_of(service.id);
            (*key, ROLES.into_iter().zip(ids).collect())
        })
        .collect()
}

/// Gives every slot an owner, and a state with or without an owner before.
fn hold(world: &mut World, ids: &Ids, slot: Slot, owner: Role, previous: Role) -> Result<()> {
    let by_id: BTreeMap<_, _> = ids
        .iter()
        .map(|(key, roles)| Ok((world.image().services[key].id, roles.clone())))
        .collect::<Result<_>>()?;
    world.hold(|service| {
        let roles = &by_id[&service.id];
        let state = match slot {
            Safe => State::Safe,
            Mixed => State::Mixed,
            AtRisk => State::AtRisk {
                previous: roles[&previous],
                until: Tick(u32::MAX),
            },
        };
        (roles[&owner], state)
    })
}

/// Has the program record what is to be there before: at risk, it records what starts for the owner
/// and all else for the owner before.
fn prepare(world: &mut World, ids: &Ids, cases: &[Case]) -> Result<()> {
    for role in ROLES {
        hold(world, ids, AtRisk, role, role)?;
        for case in cases {
            let packets: &[Transport] = match case.before {
                Begun(of) if of == role => &[SYN],
                Live(of) if of == role => &[case.packet.transport],
                Closing(of) if of == role => &[ACK, FIN],
                Reset(of) if of == role => &[ACK, RST],
                Record::None | Begun(_) | Live(_) | Closing(_) | Reset(_) => &[],
            };
            for transport in packets {
                world.send(&with(&case.packet, *transport))?;
            }
        }
    }
    Ok(())
}

fn with(packet: &Packet, transport: Transport) -> Packet {
    packet.clone().with(|packet| packet.transport = transport)
}

/// The packets of a case; the last one counts.
fn packets(sent: Sent, flow: &Packet) -> Vec<Packet> {
    let piece = fragments::Piece::first();
    match sent {
        Syn => vec![with(flow, SYN)],
        Syns => vec![with(flow, SYN); 2],
        Ack | Udp => vec![flow.clone()],
        Fin => vec![with(flow, FIN)],
        Rst => vec![with(flow, RST)],
        Error => {
            let answer = sent_back(flow);
            let kind = kinds(super::case::family_of(flow))[0];
            vec![about(&answer, kind, least(&answer))]
        }
        Piece => vec![piece.of(flow)],
        Later => vec![piece.of(flow), piece.later(1, false).body(flow)],
    }
}

/// What is recorded of a flow.
fn recorded(world: &World, flow: &Packet, roles: &BTreeMap<Role, BackendId>) -> Result<Record> {
    let Some(found) = world.datapath().flow(&flow.flow())? else {
        return Ok(Record::None);
    };
    let id = BackendId(found.flow.backend);
    let role = roles.iter().find(|(_, of)| **of == id);
    let (&role, _) = role.context("recorded for another service's backend")?;
    let state = found.flow.state;
    let is = |wanted: FlowState| state == wanted as u8;
    ensure!(
        found.half_open == is(FlowState::HalfOpen),
        "state {state} in the wrong table"
    );
    Ok(match state {
        _ if is(FlowState::HalfOpen) => Begun(role),
        _ if is(FlowState::Established) => Live(role),
        _ if is(FlowState::Closing) => Closing(role),
        _ => Reset(role),
    })
}

fn run(world: &World, ids: &Ids, case: &Case) -> Result<()> {
    let roles = &ids[&case.packet.flow().service()];
    let before = recorded(world, &case.packet, roles)?;
    ensure!(before == case.before, "{before:?} was recorded before");
    for packet in packets(case.sent, &case.packet) {
        let out = world.send(&packet)?;
        ensure!(out.answer.action == Action::Transmit, "{:?}", out.verdict);
        let backend = world.backend_by_mac(&out.answer.frame[..6]);
        let backend = backend.context("sent to nobody's MAC address")?;
        let to = roles.iter().find(|(_, id)| **id == backend);
        let (to, _) = to.context("sent to another service's backend")?;
        ensure!(*to == case.to, "{to:?} got it");
    }
    let after = recorded(world, &case.packet, roles)?;
    ensure!(after == case.after, "{after:?} is recorded after");
    Ok(())
}

#[test]
fn each_packet_goes_where_the_state_of_its_slot_says() -> Result<()> {
    let mut world = World::new(services())?;
    let (ids, cases) = (ids(&world), cases());
    prepare(&mut world, &ids, &cases)?;
    world.change(|desired| {
        for service in &mut desired.services {
            service.backends.pop();
        }
    })?;
    let mut wrong = Vec::new();
    for slot in [Safe, Mixed, AtRisk] {
        hold(&mut world, &ids, slot, Owner, Previous)?;
        for case in cases.iter().filter(|case| case.slot == slot) {
            if let Err(error) = run(&world, &ids, case) {
                let Case {
                    before,
                    sent,
                    packet,
                    ..
                } = case;
                let (to, port) = (packet.destination, packet.destination_port);
                wrong.push(format!(
                    "{slot:?} {before:?} {sent:?} to {to} {port}: {error}"
                ));
            }
        }
    }
    ensure!(wrong.is_empty(), "{}", wrong.join("\n"));
    Ok(())
}
