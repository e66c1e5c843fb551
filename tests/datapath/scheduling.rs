//! Which backend takes a new flow: weights, source affinity.

use std::net::{IpAddr, Ipv4Addr};

use anyhow::{Context, Result, ensure};
use lb_common::{
    abi::{BackendId, Balance, Forward, Ip, NextHop, PROTOCOL_TCP, ServiceKey},
    parse::TCP_SYN,
    verdict::Verdict,
};
use lb_user::{
    config::model,
    core::plan::{Desired, DesiredBackend, DesiredService},
    io::datapath::Limits,
};
use tests::{
    packet::{Packet, Transport},
    prog_run::LOOPBACK,
    world::World,
};

use super::services::{NAT_PORTS, VIP_V4, nat_pool};

const SYN: Transport = Transport::Tcp(TCP_SYN);
const PORT: u16 = 1883;

/// One service with a backend of each weight.
pub(crate) fn service_of(balance: Balance, forward: Forward, weights: &[u16]) -> DesiredService {
    let backend = |(number, &weight): (u8, &u16)| {
        let next_hop = NextHop {
            interface: LOOPBACK,
            mac: [0x02, 0xcc, 0, 0, 0, number],
            source_mac: [0x02, 0xaa, 0, 0, 0, 1],
        };
        let address = Ip::from_v4([10, 7, 0, number + 1]);
        DesiredBackend::new(address, PORT, weight, Some(next_hop))
    };
    DesiredService {
        backends: (0..).zip(weights).map(backend).collect(),
        ..DesiredService::new(
            ServiceKey::new(Ip::from(VIP_V4), PORT, PROTOCOL_TCP),
            balance,
            forward,
        )
    }
}

/// A world with that service alone.
pub(crate) fn world_of(service: DesiredService) -> Result<World> {
    let limits = Limits {
        services: 1,
        backends: u16::try_from(service.backends.len())?,
        flows: 32_768,
        half_open: 32_768,
        access_entries: 1,
        fragments: 1,
        sources: 1_024,
    };
    let desired = Desired {
        services: vec![service],
        nat_pool: nat_pool(NAT_PORTS),
        ..Desired::nothing(model::Limits {
            services: 0,
            backends: 0,
            flows: 0,
            half_open: 0,
            access_entries: 0,
            fragments: 0,
            sources: 0,
        })
    };
    World::with_limits(desired, limits)
}

/// A client's packet to the service.
pub(crate) fn packet(transport: Transport, client: u32, port: u16) -> Packet {
    let client = IpAddr::V4(Ipv4Addr::from(0x0b00_0000 + client));
    Packet::new(transport, (client, port), (VIP_V4, PORT))
}

/// Sends a packet and says which backend got it.
pub(crate) fn send(world: &World, packet: &Packet) -> Result<BackendId> {
    let out = world.send(packet)?;
    ensure!(
        matches!(out.verdict, Verdict::TxDsr | Verdict::TxNat),
        "{:?}",
        out.verdict
    );
    let backend = world.backend_by_mac(&out.answer.frame[..6]);
    backend.context("sent to nobody's MAC address")
}

#[test]
fn by_source_all_that_a_client_opens_goes_to_one_backend() -> Result<()> {
    for forward in [Forward::Dsr, Forward::Nat] {
        let world = world_of(service_of(Balance::Source, forward, &[1; 4]))?;
        let mut taken = [0_u32; 4];
        for client in 0..100 {
            let first = send(&world, &packet(SYN, client, 1024))?;
            ensure!(first == world.owner(&packet(SYN, client, 1024))?);
            for port in 1025..1035 {
                ensure!(send(&world, &packet(SYN, client, port))? == first);
            }
            taken[usize::from(first.0)] += 1;
        }
        ensure!(taken.iter().all(|&clients| clients > 5), "{taken:?}");
    }
    Ok(())
}

#[test]
fn by_source_weights_are_honoured() -> Result<()> {
    let world = world_of(service_of(Balance::Source, Forward::Dsr, &[3, 1]))?;
    let mut taken = [0_i32; 2];
    for client in 0..4_000 {
        let backend = send(&world, &packet(SYN, client, 1024))?;
        taken[usize::from(backend.0)] += 1;
    }
    println!("source, weights 3 and 1: {taken:?} clients");
    // Five standard deviations of 4,000 draws.
    ensure!((taken[0] - 3_000).abs() < 137, "{taken:?}");
    Ok(())
}
