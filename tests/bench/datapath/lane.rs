//! The pipeline of one measurement: generator, veth pair, program under test, sink.

use std::{net::Ipv4Addr, os::fd::AsFd as _, sync::Arc};

use anyhow::Context as _;
use aya::{
    Ebpf,
    maps::{Array, MapData, PerCpuArray},
};
use lb_common::abi::{
    Access, Backend, BackendId, Features, Forward, Ip, NatPool, NextHop, OwnMac, PROTOCOL_TCP,
    SLOT_COUNT, Service, ServiceId, ServiceKey, TunnelSources,
};
use lb_common::{
    generator::Order,
    parse::{TCP_ACK, TCP_SYN},
};
use lb_user::{
    config::model::Prefix,
    core::{
        image::{MapOp, Setting, Table},
        slots::State,
    },
    io::datapath::{Datapath, DatapathConfig, Limits, XdpMode},
};

use crate::mode::Mode;
use tests::{
    generator::{attach, head, index, ip, load, mac, program},
    prog_run,
};

const VIP: [u8; 4] = [172, 16, 40, 24];
const BACKENDS: u16 = 8;
/// IANA's for GUE.
const GUE_PORT: u16 = 6_080;
/// The generator's clients have 256 ports each: so many make a million flows.
const CLIENTS: u32 = 4_096;
/// Nets that no client is in, from here on.
const OTHERS: u32 = u32::from_be_bytes([32, 0, 0, 0]);

/// A veth pair; the link, and what is attached to it, goes with the value.
struct Veth {
    near: &'static str,
    far: &'static str,
}

impl Veth {
    fn new(near: &'static str, far: &'static str) -> anyhow::Result<Self> {
        ip(&["link", "add", near, "type", "veth", "peer", "name", far])?;
        let veth = Self { near, far };
        ip(&["link", "set", near, "up"])?;
        ip(&["link", "set", far, "up"])?;
        Ok(veth)
    }
}

impl Drop for Veth {
    fn drop(&mut self) {
        if let Err(error) = ip(&["link", "del", self.near]) {
            eprintln!("datapath: {error:#}");
        }
    }
}

/// The program under test.
enum Subject {
    Floor,
    Service(Box<Datapath>),
}

pub(crate) struct Lane {
    programs: Ebpf,
    order: Array<MapData, Order>,
    sunk: PerCpuArray<MapData, u64>,
    subject: Subject,
    veth: Veth,
}

impl Lane {
    /// The cheapest program at the far end.
    pub(crate) fn with_floor() -> anyhow::Result<Self> {
        let veth = Veth::new("near-floor", "far-floor")?;
        let mut programs = load()?;
        attach(&mut programs, "floor", veth.far)?;
        Self::new(veth, programs, Subject::Floor)
    }

    /// The balancer at the far end, with one service.
    pub(crate) fn with_service(mode: &Mode, flows: u32) -> anyhow::Result<Self> {
        // An LRU table evicts before it is full, so twice what is needed.
        let capacity = if mode.is_tracked() {
            flows.max(10_000) * 2
        } else {
            1_024
        };
        let veth = Veth::new("near", "far")?;
        let programs = load()?;
        let mut datapath = Datapath::open(&DatapathConfig {
            interface: veth.far.to_owned(),
            mode: XdpMode::Native,
            seed: *b"a benchmark seed",
            limits: Limits {
                services: 8,
                backends: BACKENDS * 2,
                flows: capacity,
                half_open: capacity,
                access_entries: mode.prefixes,
                fragments: 1,
                sources: 1_024,
            },
            events: 0,
        })?;
        datapath.apply(&service(mode, &veth)?)?;
        datapath.attach()?;
        Self::new(veth, programs, Subject::Service(Box::new(datapath)))
    }

    fn new(veth: Veth, mut programs: Ebpf, subject: Subject) -> anyhow::Result<Self> {
        attach(&mut programs, "sink", veth.near)?;
        program(&mut programs, "generate")?.load()?;
        let order = programs
            .take_map("ORDER")
            .context("the object has no ORDER")?;
        let sunk = programs
            .take_map("SUNK")
            .context("the object has no SUNK")?;
        Ok(Self {
            order: order.try_into()?,
            sunk: sunk.try_into()?,
            programs,
            subject,
            veth,
        })
    }

    /// Sends frames of so many flows, and says how many came back. `data` bytes behind TCP's header,
    /// ten at most, are payload; the rest of a frame is padding.
    pub(crate) fn send(
        &mut self,
        flows: u32,
        frames: u32,
        flags: u8,
        data: u8,
    ) -> anyhow::Result<u64> {
        let near = index(self.veth.near)?;
        let mut head = head(mac(self.veth.far)?, mac(self.veth.near)?);
        head[17] += data;
        let order = Order::new(near, flows, head, VIP, flags);
        self.order.set(0, order, 0)?;
        let before = self.arrived()?;
        let generator = program(&mut self.programs, "generate")?;
        let generator = generator.fd()?.as_fd().try_clone_to_owned()?;
        prog_run::run_live(generator.as_fd(), near, 64, frames)?;
        Ok(self.arrived()? - before)
    }

    /// Gives every flow its record, and moves it to the established table by its first data.
    pub(crate) fn establish(&mut self, flows: u32) -> anyhow::Result<()> {
        // Twice, as a busy machine loses frames.
        self.send(flows, flows * 2, TCP_SYN, 0)?;
        self.send(flows, flows * 2, TCP_ACK, 2)?;
        let Subject::Service(datapath) = &self.subject else {
            return Ok(());
        };
        let (mut begun, mut untracked) = (0, 0);
        for backend in 0..BACKENDS {
            let traffic = datapath.backend_traffic(BackendId(backend))?;
            begun += traffic.new_connections;
            untracked += traffic.untracked;
        }
        anyhow::ensure!(
            begun * 100 >= u64::from(flows) * 99 && untracked == 0,
            "{begun} of {flows} flows have a record, {untracked} packets found no room for one"
        );
        Ok(())
    }

    fn arrived(&self) -> anyhow::Result<u64> {
        Ok(self.sunk.get(&0, 0)?.iter().sum())
    }
}

/// One service whose backends all sit behind the near end.
fn service(mode: &Mode, veth: &Veth) -> anyhow::Result<Vec<MapOp>> {
    let hop = NextHop {
        interface: index(veth.far)?,
        mac: mac(veth.near)?,
        source_mac: mac(veth.far)?,
    };
    let id = ServiceId(0);
    let mut ops = Vec::new();
    // Room for twice the flows of the largest measurement.
    let sources = [1, 2, 3, 4].map(|host| Ip::from_v4([172, 16, 42, host]));
    let tunnel_sources = TunnelSources::EMPTY.with(Ip::from_v4([172, 16, 43, 0]), 8);
    ops.push(MapOp::Set(Setting::OwnMac(OwnMac::new(hop.source_mac))));
    ops.push(MapOp::Set(Setting::TunnelSources(Box::new(tunnel_sources))));
    ops.push(MapOp::Set(Setting::NatPool(Box::new(match mode.forward {
        Forward::Nat => NatPool::new(&sources, 1024, 65_535),
        Forward::Dsr | Forward::Tunnel => NatPool::EMPTY,
    }))));
    for backend in 0..BACKENDS {
        // Apart by address: NAT has a range of ports towards each.
        let address = Ip::from(std::net::IpAddr::V4(Ipv4Addr::new(
            172,
            16,
            41,
            backend as u8,
        )));
        let entry = Backend::new(address, 1883, id, 1, Some(hop));
        ops.push(MapOp::SetBackend(BackendId(backend), entry));
    }
    let owner = |slot: u32| BackendId((slot % u32::from(BACKENDS)) as u16);
    let slots = 0..if mode.is_mixed { SLOT_COUNT } else { 0 };
    let table = Arc::new(Table {
        holds: slots.map(|slot| (slot, State::Mixed)).collect(),
        slots: (0..SLOT_COUNT).map(owner).collect(),
        ring: (0..BACKENDS).map(BackendId).collect(),
        ..Table::default()
    });
    ops.push(MapOp::WriteTable {
        service: id,
        generation: 0,
        table,
    });
    let key = ServiceKey::new(Ip::from_v4(VIP), 1883, PROTOCOL_TCP);
    let service = Service::new(id, 0, BACKENDS, mode.balance, mode.forward);
    let mut service = service.with_tunnel(mode.form, GUE_PORT);
    if mode.prefixes > 0 {
        ops.push(MapOp::SetAccess(id, allowed(mode.prefixes)?));
        service = service.with_features(Features {
            access_list: true,
            default_deny: true,
            ..Features::default()
        });
    }
    ops.push(MapOp::SetService(key, service));
    Ok(ops)
}

/// So many prefixes: the first are the generator's clients one by one, the others somebody else's nets.
fn allowed(number: u32) -> anyhow::Result<Vec<(Prefix, Access)>> {
    let first = u32::from_be_bytes(Order::FIRST_SOURCE);
    let clients = (0..CLIENTS).map(|client| (first + client, 32));
    let others = (0..).map(|net: u32| (OTHERS + (net << 8), 24));
    let prefix = |(address, length): (u32, u8)| {
        let prefix = Prefix::new(Ipv4Addr::from(address).into(), length);
        Ok((prefix.context("no prefix")?, Access::Allow))
    };
    clients
        .chain(others)
        .take(number as usize)
        .map(prefix)
        .collect()
}
