//! As large as it is meant to get: 100 services of 100 backends each.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    net::{IpAddr, Ipv4Addr},
    time::Instant,
};

use anyhow::{Context, Result, ensure};
use lb_common::{
    abi::{
        Balance, Flow, Forward, GENERATIONS, Ip, NextHop, PROTOCOL_TCP, ServiceKey, TABLE_LINES,
    },
    parse::TCP_SYN,
    verdict::Verdict,
};
use lb_user::{
    config::model,
    core::plan::{Desired, DesiredBackend, DesiredService},
    io::datapath::{Limits, possible_cpus, ring_memory},
};
use tests::{
    packet::{Packet, Transport},
    prog_run::LOOPBACK,
    world::World,
};

const SERVICES: u16 = 100;
const BACKENDS: u8 = 100;
const FIRST_PORT: u16 = 2000;
const VIP: IpAddr = IpAddr::V4(Ipv4Addr::new(172, 16, 40, 24));
const CLIENT: IpAddr = IpAddr::V4(Ipv4Addr::new(172, 16, 40, 100));

/// Clients of each service: few enough to be quick, so many that hardly a backend goes without.
const CLIENTS: u16 = 400;

fn service(number: u16) -> DesiredService {
    let port = FIRST_PORT + number;
    let backends = (0..BACKENDS).map(|backend| {
        let [high, low] = number.to_be_bytes();
        let next_hop = NextHop {
            interface: LOOPBACK,
            mac: mac(number, backend),
            source_mac: [2, 0, 0, 0, 0, 1],
        };
        let address = Ip::from_v4([10, high, low, backend]);
        DesiredBackend::new(address, port, 1, Some(next_hop))
    });
    DesiredService {
        backends: backends.collect(),
        ..DesiredService::new(
            ServiceKey::new(Ip::from(VIP), port, PROTOCOL_TCP),
            Balance::Maglev,
            Forward::Dsr,
        )
    }
}

fn mac(service: u16, backend: u8) -> [u8; 6] {
    let [high, low] = service.to_be_bytes();
    [2, 0xbb, 0, high, low, backend]
}

/// What a task took; how long that may be depends on the machine.
fn timed<T>(what: &str, task: impl FnOnce() -> Result<T>) -> Result<T> {
    let start = Instant::now();
    let done = task().with_context(|| what.to_owned())?;
    println!("{what}: {:.3} s", start.elapsed().as_secs_f64());
    Ok(done)
}

/// What the kernel says of a map.
struct MapInfo {
    max_entries: u32,
    value_size: u32,
}

/// Bytes that the kernel accounts to those maps of this process that are meant.
fn map_memory(is_meant: impl Fn(&MapInfo) -> bool) -> Result<u64> {
    let mut seen = BTreeMap::new();
    for entry in fs::read_dir("/proc/self/fdinfo")? {
        // Other tests close files meanwhile.
        let Ok(info) = fs::read_to_string(entry?.path()) else {
            continue;
        };
        let value = |name| {
            let mut lines = info.lines().filter_map(|line| line.split_once(':'));
            lines.find_map(|(key, value)| (key == name).then_some(value.trim()))
        };
        let (Some(id), Some(bytes)) = (value("map_id"), value("memlock")) else {
            continue;
        };
        let number = |name| anyhow::Ok(value(name).context("a map without size")?.parse()?);
        let map = MapInfo {
            max_entries: number("max_entries")?,
            value_size: number("value_size")?,
        };
        if is_meant(&map) {
            // A map may be open twice.
            seen.insert(id.parse::<u64>()?, bytes.parse::<u64>()?);
        }
    }
    Ok(seen.values().sum())
}

fn nothing() -> Desired {
    // The world sets its own.
    Desired::nothing(model::Limits {
        services: 0,
        backends: 0,
        flows: 0,
        half_open: 0,
        fragments: 0,
        access_entries: 0,
        sources: 0,
    })
}

/// By numbers of entries that other tests' maps do not have: those are in this process, too.
#[test]
fn maps_take_what_is_documented() -> Result<()> {
    let limits = Limits {
        services: 37,
        backends: 1_021,
        flows: 1_000_000,
        half_open: 65_521,
        access_entries: 0,
        fragments: 4_093,
        sources: 65_519,
    };
    let services = u32::from(limits.services);
    let sizes = [
        services,
        services * 2,
        services * GENERATIONS * TABLE_LINES,
        limits.backends.into(),
        limits.flows,
        limits.half_open,
        limits.fragments,
        limits.sources,
    ];
    let _world = World::with_limits(nothing(), limits)?;

    let is_flows = |map: &MapInfo| {
        map.max_entries == limits.flows && map.value_size as usize == size_of::<Flow>()
    };
    let bytes = map_memory(is_flows)?;
    let each = bytes as f64 / f64::from(limits.flows);
    println!("a tracked session takes {each:.1} bytes");
    ensure!(bytes > 0, "there is no table of {} sessions", limits.flows);
    ensure!(each <= 128.0, "a tracked session takes {each:.1} bytes");
    let said = Limits::flow_memory(limits.flows);
    ensure!(
        (each / said - 1.0).abs() < 0.03,
        "{each:.1} bytes, not {said:.1}"
    );

    let taken = map_memory(|map| sizes.contains(&map.max_entries))?;
    let said = limits.map_memory(possible_cpus());
    println!("maps take {taken} bytes, {said} were foretold");
    let ratio = taken as f64 / said as f64;
    ensure!((0.97..1.03).contains(&ratio), "{taken} bytes, not {said}");
    Ok(())
}

/// By a size that other tests' rings do not have.
#[test]
fn the_ring_of_new_flows_takes_what_is_documented() -> Result<()> {
    const BYTES: u32 = 1 << 21;
    let desired = Desired {
        services: vec![service(0)],
        ..nothing()
    };
    let _world = World::reporting(desired, BYTES)?;
    let taken = map_memory(|map| map.max_entries == BYTES)?;
    let said = ring_memory(BYTES);
    println!("the ring takes {taken} bytes, {said} were foretold");
    let ratio = taken as f64 / said as f64;
    ensure!((0.97..1.03).contains(&ratio), "{taken} bytes, not {said}");
    Ok(())
}

/// The backends that the clients of a service are sent to, which must be its own.
fn reached(world: &World, service: u16) -> Result<BTreeSet<u8>> {
    let mut reached = BTreeSet::new();
    for client in 0..CLIENTS {
        let ends = ((CLIENT, 1024 + client), (VIP, FIRST_PORT + service));
        let packet = Packet::new(Transport::Tcp(TCP_SYN), ends.0, ends.1);
        let out = world.send(&packet)?;
        ensure!(out.verdict == Verdict::TxDsr, "{:?}", out.verdict);
        let [.., backend] = out.answer.frame[..6] else {
            anyhow::bail!("a short frame came out");
        };
        ensure!(
            out.answer.frame[..6] == mac(service, backend),
            "service {service} was sent to {:02x?}",
            &out.answer.frame[..6]
        );
        reached.insert(backend);
    }
    Ok(reached)
}

#[test]
fn a_hundred_services_of_a_hundred_backends_work() -> Result<()> {
    let desired = Desired {
        services: (0..SERVICES).map(service).collect(),
        ..nothing()
    };
    let before = map_memory(|_| true)?;
    let mut world = timed("loading and filling all maps", || World::new(desired))?;
    let megabytes = (map_memory(|_| true)? - before) as f64 / f64::from(1 << 20);
    println!("memory of all maps: {megabytes:.1} MiB");
    timed("packets to all services", || {
        for service in 0..SERVICES {
            let count = reached(&world, service)?.len();
            ensure!(count > 90, "service {service} uses {count} backends");
        }
        Ok(())
    })?;
    timed("one backend's death", || {
        world.change(|desired| {
            desired.services[50].backends.remove(7);
        })
    })?;
    let left = reached(&world, 50)?;
    ensure!(!left.contains(&7), "packets go to a backend that died");
    ensure!(
        reached(&world, 51)?.len() > 90,
        "another service lost backends"
    );
    timed("the death of one backend of each service", || {
        world.change(|desired| {
            for service in &mut desired.services {
                service.backends.pop();
            }
        })
    })
}
