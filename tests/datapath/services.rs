//! The services that the cases are addressed to, on one IPv4 and one IPv6 address.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    sync::{
        LazyLock, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU16, Ordering},
    },
};

use anyhow::{Result, bail};
use lb_common::abi::{
    Balance, Forward, Ip, NatPool, NextHop, OwnMac, PROTOCOL_TCP, PROTOCOL_UDP, ServiceKey,
};
use lb_user::{
    config::model::Limits,
    core::plan::{Desired, DesiredBackend, DesiredService},
};
use tests::{
    packet::{Packet, Transport},
    prog_run::LOOPBACK,
    world::World,
};

pub(crate) const CLIENT_V4: IpAddr = IpAddr::V4(Ipv4Addr::new(172, 16, 40, 100));
pub(crate) const CLIENT_V6: IpAddr = IpAddr::V6(Ipv6Addr::new(0xfd00, 0x40, 0, 0, 0, 0, 0, 0x100));
pub(crate) const VIP_V4: IpAddr = IpAddr::V4(Ipv4Addr::new(172, 16, 40, 24));
pub(crate) const VIP_V6: IpAddr = IpAddr::V6(Ipv6Addr::new(0xfd00, 0x40, 0, 0, 0, 0, 0, 0x24));
/// What the balancer sends from to backends of `nat` services.
pub(crate) const OWN_V4: IpAddr = IpAddr::V4(Ipv4Addr::new(172, 16, 40, 22));
pub(crate) const OWN_V6: IpAddr = IpAddr::V6(Ipv6Addr::new(0xfd00, 0x40, 0, 0, 0, 0, 0, 0x22));

/// An interface that is not the one frames come in by.
pub(crate) const ELSEWHERE: u32 = 7;

/// First and last port of the NAT pool.
pub(crate) const NAT_PORTS: (u16, u16) = (20_000, 29_999);

/// The four kinds, two backends each.
pub(crate) const DSR_MAGLEV: u16 = 1883;
pub(crate) const DSR_ROUND_ROBIN: u16 = 1884;
pub(crate) const NAT_MAGLEV: u16 = 1885;
pub(crate) const NAT_ROUND_ROBIN: u16 = 1886;
/// Nobody there.
pub(crate) const EMPTY: u16 = 2000;
pub(crate) const EMPTY_NAT: u16 = 2001;
pub(crate) const EMPTY_ROUND_ROBIN: u16 = 2002;
/// One backend that takes no new flows.
pub(crate) const WEIGHTLESS: u16 = 2003;
/// One backend whose MAC address is not known.
pub(crate) const NO_NEXT_HOP: u16 = 2004;
pub(crate) const NO_NEXT_HOP_NAT: u16 = 2005;
pub(crate) const NO_NEXT_HOP_ROUND_ROBIN: u16 = 2009;
/// One backend behind another interface.
pub(crate) const BEHIND: u16 = 2006;
pub(crate) const BEHIND_NAT: u16 = 2007;
pub(crate) const BEHIND_ROUND_ROBIN: u16 = 2008;

/// The ports of the four kinds.
pub(crate) const KINDS: [u16; 4] = [DSR_MAGLEV, DSR_ROUND_ROBIN, NAT_MAGLEV, NAT_ROUND_ROBIN];

use Balance::{Maglev, RoundRobin};
use Forward::{Dsr, Nat, Tunnel};

/// Port, kind, interfaces of the backends (0: none is known) and their weight.
const SERVICES: [(u16, Balance, Forward, &[u32], u16); 14] = [
    (DSR_MAGLEV, Maglev, Dsr, &[LOOPBACK, LOOPBACK], 1),
    (DSR_ROUND_ROBIN, RoundRobin, Dsr, &[LOOPBACK, LOOPBACK], 1),
    (NAT_MAGLEV, Maglev, Nat, &[LOOPBACK, LOOPBACK], 1),
    (NAT_ROUND_ROBIN, RoundRobin, Nat, &[LOOPBACK, LOOPBACK], 1),
    (EMPTY, Maglev, Dsr, &[], 1),
    (EMPTY_NAT, Maglev, Nat, &[], 1),
    (EMPTY_ROUND_ROBIN, RoundRobin, Dsr, &[], 1),
    (WEIGHTLESS, Maglev, Dsr, &[LOOPBACK], 0),
    (NO_NEXT_HOP, Maglev, Dsr, &[0], 1),
    (NO_NEXT_HOP_NAT, Maglev, Nat, &[0], 1),
    (NO_NEXT_HOP_ROUND_ROBIN, RoundRobin, Dsr, &[0], 1),
    (BEHIND, Maglev, Dsr, &[ELSEWHERE], 1),
    (BEHIND_NAT, Maglev, Nat, &[ELSEWHERE], 1),
    (BEHIND_ROUND_ROBIN, RoundRobin, Dsr, &[ELSEWHERE], 1),
];

/// The address family of a case.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Family {
    V4,
    V6,
}

pub(crate) const FAMILIES: [Family; 2] = [Family::V4, Family::V6];

impl Family {
    pub(crate) fn client(self) -> IpAddr {
        match self {
            Self::V4 => CLIENT_V4,
            Self::V6 => CLIENT_V6,
        }
    }

    pub(crate) fn vip(self) -> IpAddr {
        match self {
            Self::V4 => VIP_V4,
            Self::V6 => VIP_V6,
        }
    }

    pub(crate) fn own(self) -> IpAddr {
        match self {
            Self::V4 => OWN_V4,
            Self::V6 => OWN_V6,
        }
    }

    fn backend(self, service: u16, number: u8) -> IpAddr {
        let [high, low] = service.to_be_bytes();
        match self {
            Self::V4 => IpAddr::from([10, high, low, number + 1]),
            Self::V6 => {
                let last = 0x100 + u16::from(number);
                Ipv6Addr::new(0xfd00, 0x50, 0, 0, 0, 0, service, last).into()
            }
        }
    }

    /// A packet of a new flow to a service.
    pub(crate) fn packet(self, transport: Transport, service: u16) -> Packet {
        let client = (self.client(), new_port());
        Packet::new(transport, client, (self.vip(), service))
    }
}

/// The world of the cases: loaded and filled once for all tests that do not change it.
///
/// One test at a time holds it, so that what it counts is its own.
pub(crate) fn world() -> Result<MutexGuard<'static, World>> {
    static WORLD: LazyLock<Result<Mutex<World>>> = LazyLock::new(|| {
        let world = World::new(desired(all_services()))?;
        Ok(Mutex::new(world))
    });
    match &*WORLD {
        // A test that failed has left it as good as one that did not.
        Ok(world) => Ok(world.lock().unwrap_or_else(PoisonError::into_inner)),
        Err(error) => bail!("{error:#}"),
    }
}

/// A world of a test's own, with one service over TCP and IPv4.
pub(crate) fn small_world(service: u16) -> Result<World> {
    World::new(desired_small(service))
}

/// One service over TCP and IPv4.
pub(crate) fn desired_small(service: u16) -> Desired {
    let mut services = all_services();
    let wanted = ServiceKey::new(Ip::from(VIP_V4), service, PROTOCOL_TCP);
    services.retain(|service| service.key == wanted);
    desired(services)
}

/// These services, of both families and protocols.
pub(crate) fn desired_of(ports: &[u16]) -> Desired {
    let mut services = all_services();
    services.retain(|service| ports.contains(&service.key.port()));
    desired(services)
}

/// A port of a client that hardly any other packet comes from: the cases share flow tables.
pub(crate) fn new_port() -> u16 {
    const FIRST: u16 = 32_768;
    static NEXT: AtomicU16 = AtomicU16::new(0);
    FIRST + NEXT.fetch_add(1, Ordering::Relaxed) % FIRST
}

fn desired(services: Vec<DesiredService>) -> Desired {
    Desired {
        services,
        nat_pool: nat_pool(NAT_PORTS),
        own_mac: OwnMac::new(Packet::TO_US),
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

pub(crate) fn nat_pool((first, last): (u16, u16)) -> NatPool {
    NatPool::new(&[Ip::from(OWN_V4), Ip::from(OWN_V6)], first, last)
}

fn all_services() -> Vec<DesiredService> {
    let mut services = Vec::new();
    for (port, balance, forward, interfaces, weight) in SERVICES {
        for family in FAMILIES {
            for protocol in [PROTOCOL_TCP, PROTOCOL_UDP] {
                let backends = (0..).zip(interfaces).map(|(number, interface)| {
                    backend(family, protocol, port, forward, number, *interface, weight)
                });
                services.push(DesiredService {
                    backends: backends.collect(),
                    ..DesiredService::new(
                        ServiceKey::new(Ip::from(family.vip()), port, protocol),
                        balance,
                        forward,
                    )
                });
            }
        }
    }
    services
}

fn backend(
    family: Family,
    protocol: u8,
    service: u16,
    forward: Forward,
    number: u8,
    interface: u32,
    weight: u16,
) -> DesiredBackend {
    let [high, low] = service.to_be_bytes();
    let last = number | if family == Family::V4 { 0x40 } else { 0x60 };
    let next_hop = (interface != 0).then_some(NextHop {
        interface,
        mac: [0x02, 0xbb, protocol, high, low, last],
        source_mac: [0x02, 0xaa, 0, 0, 0, interface.to_be_bytes()[3]],
    });
    // Only translation may change the port.
    let port = match forward {
        Dsr | Tunnel => service,
        Nat => service + 10_000,
    };
    DesiredBackend::new(
        Ip::from(family.backend(service, number)),
        port,
        weight,
        next_hop,
    )
}
