//! Packets that travel to their backend inside another packet: either family in either, IP in IP
//! and GUE.

use std::net::{IpAddr, Ipv6Addr};

use anyhow::{Context, Result, ensure};
use lb_common::{
    abi::{
        Balance, Encapsulation, FlowKey, Forward, Ip, NextHop, PROTOCOL_TCP, PROTOCOL_UDP,
        ServiceKey, TunnelSources,
    },
    flow::HashKeys,
    parse::{TCP_ACK, TCP_SYN},
    verdict::Verdict,
};
use lb_user::{
    config::model::Limits,
    core::{
        image::Tunnel,
        plan::{Desired, DesiredBackend, DesiredService},
    },
};
use tests::{
    packet::{Packet, Transport},
    prog_run::LOOPBACK,
    tunnel::Outer,
    world::{Outcome, SEED, World},
};

use super::case::same;
use super::services::{ELSEWHERE, FAMILIES, Family};

const SYN: Transport = Transport::Tcp(TCP_SYN);
const ACK: Transport = Transport::Tcp(TCP_ACK);

pub(super) const FORMS: [Encapsulation; 2] = [Encapsulation::IpIp, Encapsulation::Gue];
pub(super) const BALANCES: [Balance; 2] = [Balance::Maglev, Balance::RoundRobin];
const GUE_PORT: u16 = 6080;
const MTU: u16 = 1500;

/// The service's port says what it is like: form, family of the backend, and balance.
pub(super) fn port(form: Encapsulation, outer: Family, balance: Balance) -> u16 {
    3000 + form as u16 + 10 * u16::from(outer == Family::V6) + 100 * (balance as u16)
}

fn backend_address(outer: Family, service: u16) -> IpAddr {
    let [high, low] = service.to_be_bytes();
    match outer {
        Family::V4 => IpAddr::from([10, 20, high, low]),
        Family::V6 => Ipv6Addr::new(0xfd00, 0x20, 0, 0, 0, 0, 0, service).into(),
    }
}

pub(super) fn hop(interface: u32) -> NextHop {
    NextHop {
        interface,
        mac: [2, 0xbb, 0, 0, 0, 1],
        source_mac: [2, 0xaa, 0, 0, 0, 1],
    }
}

fn sources() -> TunnelSources {
    TunnelSources::EMPTY
        .with(Ip::from_v4([10, 9, 0, 0]), 8)
        .with(
            Ip::from(IpAddr::from(Ipv6Addr::new(0xfd00, 9, 0, 0, 0, 0, 0, 0))),
            16,
        )
}

fn service(
    inner: Family,
    protocol: u8,
    form: Encapsulation,
    outer: Family,
    balance: Balance,
) -> DesiredService {
    let port = port(form, outer, balance);
    let address = Ip::from(backend_address(outer, port));
    let backend = DesiredBackend {
        mtu: MTU,
        ..DesiredBackend::new(address, port, 1, Some(hop(LOOPBACK)))
    };
    DesiredService {
        tunnel: Tunnel {
            encapsulation: form,
            port: GUE_PORT,
        },
        backends: vec![backend],
        ..DesiredService::new(
            ServiceKey::new(Ip::from(inner.vip()), port, protocol),
            balance,
            Forward::Tunnel,
        )
    }
}

pub(super) fn world() -> Result<World> {
    World::new(desired())
}

/// Every form, of both families and protocols.
pub(super) fn desired() -> Desired {
    let mut services = Vec::new();
    for inner in FAMILIES {
        for protocol in [PROTOCOL_TCP, PROTOCOL_UDP] {
            for form in FORMS {
                for outer in FAMILIES {
                    for balance in BALANCES {
                        services.push(service(inner, protocol, form, outer, balance));
                    }
                }
            }
        }
    }
    Desired {
        services,
        tunnel_sources: sources(),
        // Set by the world.
        ..Desired::nothing(Limits {
            services: 0,
            backends: 0,
            flows: 0,
            half_open: 0,
            access_entries: 0,
            fragments: 0,
            sources: 0,
        })
    }
}

/// One service alone: IPv4 in IPv4 by IP in IP, over TCP.
fn small_world() -> Result<World> {
    let mut world = world()?;
    world.change(|desired| {
        let key = ServiceKey::new(Ip::from(Family::V4.vip()), PLAIN, PROTOCOL_TCP);
        desired.services.retain(|service| service.key == key);
    })?;
    Ok(world)
}

/// Port of IP in IP over IPv4, without tracking.
const PLAIN: u16 = 3000;

/// The outer headers that a packet must get.
fn outer(packet: &Packet, form: Encapsulation, family: Family) -> Result<Outer> {
    let (flow, service) = (packet.flow(), packet.destination_port);
    outer_of(packet, &flow, service, form, family)
}

/// The outer headers for a packet of a flow to a service.
pub(super) fn outer_of(
    packet: &Packet,
    flow: &FlowKey,
    service: u16,
    form: Encapsulation,
    family: Family,
) -> Result<Outer> {
    let hash = HashKeys::from_seed(SEED).hash(flow);
    let source = sources().source(family == Family::V4, hash);
    let source = source.context("there are sources of both families")?;
    let destination = backend_address(family, service);
    let mut outer = Outer::new(source.into(), destination, packet);
    outer.flow_label = hash & 0xf_ffff;
    let from = 49_152 | (hash & 0x3fff) as u16;
    outer.gue = (form == Encapsulation::Gue).then_some((from, GUE_PORT));
    Ok(outer)
}

fn check(world: &World, packet: &Packet, form: Encapsulation, family: Family) -> Result<()> {
    let out = world.send(packet)?;
    ensure!(
        out.verdict == Verdict::TxTunnel,
        "{:?} for {packet:?}",
        out.verdict
    );
    let outer = outer(packet, form, family)?;
    let expected = outer.wrap(&packet.forwarded(hop(LOOPBACK)), hop(LOOPBACK));
    same(&out.answer.frame, &expected).with_context(|| format!("{packet:?}"))
}

#[test]
fn either_family_travels_in_either_by_either_form_under_any_number_of_tags() -> Result<()> {
    let world = world()?;
    let tags = [[0x8100, 0x6007], [0x88a8, 0x0064]];
    for form in FORMS {
        for outer in FAMILIES {
            for inner in FAMILIES {
                for balance in BALANCES {
                    for transport in [SYN, ACK, Transport::Udp] {
                        for count in 0..=2 {
                            let service = port(form, outer, balance);
                            let packet = inner.packet(transport, service);
                            let packet = packet.with(|packet| packet.tags = tags[..count].to_vec());
                            check(&world, &packet, form, outer)?;
                        }
                    }
                }
            }
        }
    }
    Ok(())
}

#[test]
fn options_extensions_and_padding_go_along() -> Result<()> {
    let world = world()?;
    for form in FORMS {
        for outer in FAMILIES {
            let service = port(form, outer, Balance::Maglev);
            let v4 = Family::V4.packet(SYN, service).with(|packet| {
                packet.options = vec![1; 40];
                packet.tcp_options = vec![1; 40];
                packet.padding = vec![0xee; 20];
            });
            check(&world, &v4, form, outer)?;
            let v6 = Family::V6.packet(Transport::Udp, service).with(|packet| {
                packet.extensions = vec![(tests::packet::DESTINATION_OPTIONS, vec![0; 8])];
                packet.padding = vec![0xee; 7];
            });
            check(&world, &v6, form, outer)?;
        }
    }
    Ok(())
}

#[test]
fn sources_stay_in_their_prefix_and_vary_by_flow() -> Result<()> {
    let world = world()?;
    for (family, at, length) in [(Family::V4, 26, 4), (Family::V6, 22, 16)] {
        let service = port(Encapsulation::IpIp, family, Balance::Maglev);
        let mut seen = std::collections::BTreeSet::new();
        for _flow in 0..500 {
            let packet = Family::V4.packet(ACK, service);
            let out = world.send(&packet)?.answer.frame;
            ensure!(world.send(&packet)?.answer.frame == out, "not by flow");
            seen.insert(out[at..at + length].to_vec());
        }
        let free = if family == Family::V4 { 1 } else { 2 };
        let prefixes: std::collections::BTreeSet<_> =
            seen.iter().map(|source| &source[..length - free]).collect();
        ensure!(prefixes.len() == 1, "{prefixes:02x?}");
        ensure!(seen.len() > 200, "only {} sources", seen.len());
    }
    Ok(())
}

/// The largest packet that fits, and one of a byte more.
#[test]
fn packet_that_does_not_fit_is_answered_with_the_size_that_does() -> Result<()> {
    let world = world()?;
    for form in FORMS {
        for outer_family in FAMILIES {
            for inner in FAMILIES {
                let service = port(form, outer_family, Balance::Maglev);
                let packet = inner.packet(ACK, service).with(|packet| {
                    packet.payload.clear();
                });
                let overhead = outer(&packet, form, outer_family)?.overhead();
                let headers = packet.build().len() - packet.network_offset();
                let room = usize::from(MTU) - overhead - headers;
                let fitting = packet.with(|packet| packet.payload = vec![7; room]);
                check(&world, &fitting, form, outer_family)?;
                let larger = fitting.with(|packet| packet.payload.push(7));
                let out = world.send(&larger)?;
                ensure!(out.verdict == Verdict::TxTooBig, "{:?}", out.verdict);
                // The last field of the answer's ICMP header, in either family.
                let (at, icmp) = (
                    larger.network_offset(),
                    if inner == Family::V4 { 20 } else { 40 },
                );
                let told = &out.answer.frame[at + icmp + 4..at + icmp + 8];
                let wanted = (u32::from(MTU) - overhead as u32).to_be_bytes();
                ensure!(told == wanted, "an MTU of {told:?} was told");
            }
        }
    }
    Ok(())
}

/// What a SYN says of segments bounds what the backend sends, and that does not go by the tunnel.
#[test]
fn options_of_a_syn_stay_as_they_are() -> Result<()> {
    let world = world()?;
    let options = [2, 4, 0x05, 0xb4, 4, 2, 1, 1];
    for form in FORMS {
        for outer_family in FAMILIES {
            for inner in FAMILIES {
                let service = port(form, outer_family, Balance::Maglev);
                let packet = inner.packet(SYN, service).with(|packet| {
                    packet.payload.clear();
                    packet.tcp_options = options.to_vec();
                });
                check(&world, &packet, form, outer_family)?;
            }
        }
    }
    Ok(())
}

fn send_changed(change: impl FnOnce(&mut Desired)) -> Result<(World, Outcome)> {
    let mut world = small_world()?;
    world.change(change)?;
    let out = world.send(&Family::V4.packet(ACK, PLAIN))?;
    Ok((world, out))
}

#[test]
fn backend_behind_another_interface_is_reached_by_redirect() -> Result<()> {
    let (_, out) = send_changed(|desired| {
        desired.services[0].backends[0].next_hop = Some(hop(ELSEWHERE));
    })?;
    ensure!(out.verdict == Verdict::RedirectTunnel, "{:?}", out.verdict);
    Ok(())
}

#[test]
fn tunnel_without_a_source_of_its_family_is_counted() -> Result<()> {
    let (world, out) = send_changed(|desired| {
        let v6 = Ip::from(backend_address(Family::V6, 9));
        desired.tunnel_sources = TunnelSources::EMPTY.with(v6, 0);
    })?;
    ensure!(
        out.verdict == Verdict::DropTunnelNoSource,
        "{:?}",
        out.verdict
    );
    let service = world.service(Family::V4.vip(), PLAIN, PROTOCOL_TCP)?;
    let dropped = world.datapath().service_traffic(service.id)?.dropped;
    ensure!(dropped == 1, "{dropped} drops were counted");
    Ok(())
}

#[test]
fn packet_is_counted_by_its_own_length() -> Result<()> {
    let world = small_world()?;
    for transport in [SYN, ACK, ACK] {
        world.send(&Family::V4.packet(transport, PLAIN))?;
    }
    let service = world.service(Family::V4.vip(), PLAIN, PROTOCOL_TCP)?;
    let [backend] = world.backends_of(service.id)[..] else {
        anyhow::bail!("one backend was expected");
    };
    let traffic = world.traffic(backend)?;
    let length = Family::V4.packet(ACK, PLAIN).build().len() as u64;
    ensure!(
        (traffic.packets, traffic.bytes, traffic.new_connections) == (3, 3 * length, 1),
        "{traffic:?}"
    );
    Ok(())
}

#[test]
fn mtu_that_is_not_known_lets_everything_pass() -> Result<()> {
    let mut world = small_world()?;
    world.change(|desired| desired.services[0].backends[0].mtu = 0)?;
    let larger = Family::V4.packet(ACK, PLAIN).with(|packet| {
        packet.payload = vec![7; usize::from(MTU)];
    });
    check(&world, &larger, Encapsulation::IpIp, Family::V4)
}
