//! The XDP program and its maps in the kernel; aya is named here and in `datapath/sweep.rs` alone.
//!
//! Loads the embedded object, carries out [`MapOp`]s, attaches and detaches, and reads what the
//! program counts. Decides nothing: what the maps should hold is the image's business, when to
//! call is the daemon's. Calls block for microseconds, a table write for a few milliseconds. One
//! task owns the [`Datapath`].
//!
//! The program is attached through a BPF link that this process holds: if the process ends in any
//! way, the interface is as before.

use std::{
    borrow::Borrow,
    collections::BTreeMap,
    io,
    os::fd::{AsFd, BorrowedFd},
    time::Duration,
};

use aya::{
    Ebpf, EbpfError, EbpfLoader, Pod,
    maps::{Array, HashMap, Map, MapData, MapError, PerCpuArray, ProgramArray},
    programs::{ProgramError, Xdp, XdpMode as AyaMode, xdp::XdpLinkId},
};
use lb_common::{
    abi::{
        self, Backend, BackendId, GENERATIONS, NatPool, SLOTS_PER_LINE, Service, ServiceId,
        ServiceKey, Slot, SlotLine, Stage, TABLE_LINES, Traffic,
    },
    flow::HashKeys,
    verdict::Verdict,
};

use crate::core::image::{MapOp, Table};

mod sweep;

pub use sweep::{FlowCounts, Sweeper};

/// Built from source by build.rs; empty where that was not possible.
static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/tidegate-xdp.o"));

/// Why something could not be done to the kernel.
#[derive(Debug, thiserror::Error)]
pub enum DatapathError {
    #[error(
        "this tidegate was built without its XDP program: run `cargo xtask setup`, then build again"
    )]
    NoObject,
    #[error(
        "interface {interface:?} already has an XDP program: stop the other tidegate or program that holds it (`ip link show {interface}` names it)"
    )]
    InterfaceBusy { interface: String },
    #[error("there is no interface {interface:?}: `ip link` lists those of this host")]
    NoInterface { interface: String },
    #[error(
        "the kernel refused the XDP program or its maps; tidegate needs root or CAP_BPF, CAP_PERFMON and CAP_NET_ADMIN, and Linux 5.15 or newer"
    )]
    Load(#[source] Box<EbpfError>),
    #[error("the kernel's verifier refused the XDP program")]
    Verify(#[source] Box<ProgramError>),
    #[error("the XDP program could not be attached to {interface:?} in {mode} mode")]
    Attach {
        interface: String,
        mode: &'static str,
        source: Box<ProgramError>,
    },
    #[error("the object has no {name:?}")]
    Missing { name: &'static str },
    #[error("map {name} could not be {action}")]
    Map {
        name: &'static str,
        action: &'static str,
        source: Box<MapError>,
    },
}

/// Which way of attaching to use.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum XdpMode {
    /// Native, and generic where the driver has no native mode.
    #[default]
    Auto,
    Native,
    Generic,
}

/// Which way was used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AttachedMode {
    /// In the driver.
    Native,
    /// In the network stack, after the driver: slower, works everywhere.
    Generic,
}

impl AttachedMode {
    /// The name in logs and status.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Native => "native",
            Self::Generic => "generic",
        }
    }

    fn flag(self) -> AyaMode {
        match self {
            Self::Native => AyaMode::Driver,
            Self::Generic => AyaMode::Skb,
        }
    }
}

/// How the program came to the interface.
#[derive(Debug)]
pub struct Attached {
    pub mode: AttachedMode,
    /// Why a faster mode could not be used, where one was tried.
    pub refusal: Option<DatapathError>,
}

/// Capacities of the maps, fixed when they are created.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    pub services: u16,
    pub backends: u16,
    /// Tracked flows that have sent data.
    pub flows: u32,
    /// Tracked flows that have only sent a SYN.
    pub half_open: u32,
}

impl Limits {
    /// Entries of every map whose size is not fixed.
    ///
    /// Each (VIP, protocol) has a marker beside its services, so at most as many again.
    fn entries(self) -> [(&'static str, u32); 10] {
        let Self {
            services,
            backends,
            flows,
            half_open,
        } = self;
        let (services, backends) = (u32::from(services), u32::from(backends));
        [
            (abi::SERVICES, services * 2),
            (abi::BACKENDS, backends),
            (abi::SLOTS, services * GENERATIONS * TABLE_LINES),
            (abi::RING_POSITIONS, services),
            (abi::FLOWS, flows),
            (abi::REPLIES, flows),
            (abi::HALF_OPEN, half_open),
            (abi::HALF_OPEN_REPLIES, half_open),
            (abi::SERVICE_TRAFFIC, services),
            (abi::BACKEND_TRAFFIC, backends),
        ]
    }
}

/// What [`Datapath::open`] needs to know.
#[derive(Clone, Debug)]
pub struct DatapathConfig {
    pub interface: String,
    pub mode: XdpMode,
    pub seed: [u8; 16],
    pub limits: Limits,
}

/// The loaded program.
pub struct Datapath {
    interface: String,
    mode: XdpMode,
    ebpf: Ebpf,
    link: Option<XdpLinkId>,
    services: HashMap<MapData, ServiceKey, Service>,
    backends: Array<MapData, Backend>,
    slots: Array<MapData, SlotLine>,
    nat_pool: Array<MapData, NatPool>,
    verdicts: PerCpuArray<MapData, u64>,
    service_traffic: PerCpuArray<MapData, Traffic>,
    backend_traffic: PerCpuArray<MapData, Traffic>,
    sweeper: Option<Sweeper>,
    /// The kernel empties it when nobody holds it from here.
    _stages: ProgramArray<MapData>,
}

impl Datapath {
    /// Creates the maps and loads the program; no packet meets it yet.
    ///
    /// # Errors
    /// If the build has no object, or the kernel refuses it.
    pub fn open(config: &DatapathConfig) -> Result<Self, DatapathError> {
        if OBJECT.is_empty() {
            return Err(DatapathError::NoObject);
        }
        let keys = HashKeys::from_seed(config.seed);
        let mut loader = EbpfLoader::new();
        loader.override_global(abi::HASH_KEYS, &keys, true);
        for (name, entries) in config.limits.entries() {
            loader.map_max_entries(name, entries);
        }
        let load = |source| DatapathError::Load(Box::new(source));
        let mut ebpf = loader.load(OBJECT).map_err(load)?;
        let stages = load_programs(&mut ebpf)?;
        Ok(Self {
            interface: config.interface.clone(),
            mode: config.mode,
            link: None,
            services: take(&mut ebpf, abi::SERVICES)?,
            backends: take(&mut ebpf, abi::BACKENDS)?,
            slots: take(&mut ebpf, abi::SLOTS)?,
            nat_pool: take(&mut ebpf, abi::NAT_POOL)?,
            verdicts: take(&mut ebpf, abi::VERDICTS)?,
            service_traffic: take(&mut ebpf, abi::SERVICE_TRAFFIC)?,
            backend_traffic: take(&mut ebpf, abi::BACKEND_TRAFFIC)?,
            sweeper: Some(Sweeper::new(&mut ebpf, &config.limits)?),
            _stages: stages,
            ebpf,
        })
    }

    /// Lets the program see the interface's packets.
    ///
    /// # Errors
    /// [`DatapathError::InterfaceBusy`] if a program is attached already, by whomever.
    pub fn attach(&mut self) -> Result<Attached, DatapathError> {
        let modes: &[AttachedMode] = match self.mode {
            XdpMode::Auto => &[AttachedMode::Native, AttachedMode::Generic],
            XdpMode::Native => &[AttachedMode::Native],
            XdpMode::Generic => &[AttachedMode::Generic],
        };
        let mut refusal = None;
        for &mode in modes {
            match program(&mut self.ebpf, abi::PROGRAM)?.attach(&self.interface, mode.flag()) {
                Ok(link) => {
                    self.link = Some(link);
                    return Ok(Attached { mode, refusal });
                }
                Err(source) => refusal = Some(self.refused(mode, source)),
            }
            // A program in the other mode would be as much in the way.
            if let Some(DatapathError::InterfaceBusy { .. } | DatapathError::NoInterface { .. }) =
                refusal
            {
                break;
            }
        }
        Err(refusal.unwrap_or(DatapathError::Missing { name: abi::PROGRAM }))
    }

    fn refused(&self, mode: AttachedMode, source: ProgramError) -> DatapathError {
        let interface = self.interface.clone();
        if let ProgramError::UnknownInterface { .. } = source {
            return DatapathError::NoInterface { interface };
        }
        if matches!(errno(&source), Some(libc::EBUSY | libc::EEXIST)) {
            return DatapathError::InterfaceBusy { interface };
        }
        DatapathError::Attach {
            interface,
            mode: mode.label(),
            source: Box::new(source),
        }
    }

    /// Takes the program off the interface and gives the maps back.
    ///
    /// # Errors
    /// If the kernel keeps the program attached; it goes with the process at the latest.
    pub fn detach(mut self) -> Result<(), DatapathError> {
        let Some(link) = self.link.take() else {
            return Ok(());
        };
        let (interface, mode) = (self.interface.clone(), "its");
        program(&mut self.ebpf, abi::PROGRAM)?
            .detach(link)
            .map_err(|source| DatapathError::Attach {
                interface,
                mode,
                source: Box::new(source),
            })
    }

    /// Carries out the steps of a change, in their order.
    ///
    /// # Errors
    /// At the first step that fails; the earlier ones stand. Steps may be repeated.
    pub fn apply(&mut self, ops: &[MapOp]) -> Result<(), DatapathError> {
        ops.iter().try_for_each(|op| self.step(op))?;
        // The next change may give a removed backend's entry to another: packets that still found it
        // serving must have left by then.
        if ops.iter().any(|op| matches!(op, MapOp::RemoveBackend(_))) {
            await_grace_period();
        }
        Ok(())
    }

    fn step(&mut self, op: &MapOp) -> Result<(), DatapathError> {
        match op {
            MapOp::SetNatPool(pool) => set(&mut self.nat_pool, abi::NAT_POOL, 0, **pool),
            MapOp::SetBackend(id, backend) => self.set_backend(*id, *backend),
            MapOp::RemoveBackend(id) => self.retire_backend(*id),
            MapOp::WriteTable {
                service,
                generation,
                table,
            } => self.write_table(*service, *generation, table),
            MapOp::SetService(key, service) => self
                .services
                .insert(key, service, 0)
                .map_err(failed(abi::SERVICES, "updated")),
            MapOp::RemoveService(key) => match self.services.remove(key) {
                Err(MapError::KeyNotFound) => Ok(()),
                other => other.map_err(failed(abi::SERVICES, "updated")),
            },
            MapOp::AwaitGracePeriod => {
                await_grace_period();
                Ok(())
            }
        }
    }

    fn set_backend(&mut self, id: BackendId, backend: Backend) -> Result<(), DatapathError> {
        set(&mut self.backends, abi::BACKENDS, u32::from(id.0), backend)
    }

    fn retire_backend(&mut self, id: BackendId) -> Result<(), DatapathError> {
        let old = self.backends.get(&u32::from(id.0), 0);
        let old = old.map_err(failed(abi::BACKENDS, "read"))?;
        self.set_backend(id, old.retired())
    }

    fn write_table(
        &mut self,
        service: ServiceId,
        generation: u32,
        table: &Table,
    ) -> Result<(), DatapathError> {
        let first = (u32::from(service.0) * GENERATIONS + generation) * TABLE_LINES;
        let ring = first + abi::SLOT_LINES;
        for (line, slots) in (first..).zip(lines(&table.slots)) {
            set(&mut self.slots, abi::SLOTS, line, slots)?;
        }
        for (line, slots) in (ring..).zip(lines(&table.ring)) {
            set(&mut self.slots, abi::SLOTS, line, slots)?;
        }
        Ok(())
    }

    /// How many packets ended in each way since the program was loaded.
    ///
    /// # Errors
    /// If the kernel does not give its counters.
    pub fn verdicts(&self) -> Result<BTreeMap<Verdict, u64>, DatapathError> {
        let read = |verdict: &Verdict| {
            let per_cpu = self.verdicts.get(&verdict.slot(), 0);
            let per_cpu = per_cpu.map_err(failed(abi::VERDICTS, "read"))?;
            Ok((*verdict, per_cpu.iter().sum()))
        };
        Verdict::ALL.iter().map(read).collect()
    }

    /// What went through a backend since the program was loaded, by whomever had its id.
    ///
    /// # Errors
    /// If the kernel does not give its counters.
    pub fn backend_traffic(&self, id: BackendId) -> Result<Traffic, DatapathError> {
        let per_cpu = self.backend_traffic.get(&u32::from(id.0), 0);
        Ok(sum(per_cpu
            .map_err(failed(abi::BACKEND_TRAFFIC, "read"))?
            .iter()))
    }

    /// What of a service's traffic was dropped.
    ///
    /// # Errors
    /// If the kernel does not give its counters.
    pub fn service_traffic(&self, id: ServiceId) -> Result<Traffic, DatapathError> {
        let per_cpu = self.service_traffic.get(&u32::from(id.0), 0);
        Ok(sum(per_cpu
            .map_err(failed(abi::SERVICE_TRAFFIC, "read"))?
            .iter()))
    }

    /// The loaded program, for tests that feed it frames of their own.
    ///
    /// # Errors
    /// If there is none, which [`Datapath::open`] rules out.
    pub fn program_fd(&self) -> Result<BorrowedFd<'_>, DatapathError> {
        let missing = || DatapathError::Missing { name: abi::PROGRAM };
        let program = self.ebpf.program(abi::PROGRAM).ok_or_else(missing)?;
        let program: &Xdp = program.try_into().map_err(|_: ProgramError| missing())?;
        let fd = program.fd().map_err(|_: ProgramError| missing())?;
        Ok(fd.as_fd())
    }

    /// Hands out the flow tables, for a task of their own: a round over them may take seconds.
    /// `None` at every call but the first.
    pub fn take_sweeper(&mut self) -> Option<Sweeper> {
        self.sweeper.take()
    }
}

/// Loads the first program and all that it calls.
fn load_programs(ebpf: &mut Ebpf) -> Result<ProgramArray<MapData>, DatapathError> {
    let verify = |source| DatapathError::Verify(Box::new(source));
    let mut stages: ProgramArray<MapData> = take(ebpf, abi::STAGES)?;
    for &(stage, name) in Stage::ALL {
        let program = program(ebpf, name)?;
        program.load().map_err(verify)?;
        let fd = program.fd().map_err(verify)?;
        stages
            .set(stage as u32, fd, 0)
            .map_err(failed(abi::STAGES, "updated"))?;
    }
    program(ebpf, abi::PROGRAM)?.load().map_err(verify)?;
    Ok(stages)
}

fn program<'a>(ebpf: &'a mut Ebpf, name: &'static str) -> Result<&'a mut Xdp, DatapathError> {
    let missing = DatapathError::Missing { name };
    let Some(program) = ebpf.program_mut(name) else {
        return Err(missing);
    };
    program
        .try_into()
        .map_err(|_other_type: ProgramError| missing)
}

fn take<T: TryFrom<Map, Error = MapError>>(
    ebpf: &mut Ebpf,
    name: &'static str,
) -> Result<T, DatapathError> {
    let map = ebpf.take_map(name).ok_or(DatapathError::Missing { name })?;
    map.try_into().map_err(failed(name, "opened"))
}

fn set<V: Pod>(
    map: &mut Array<MapData, V>,
    name: &'static str,
    index: u32,
    value: impl Borrow<V>,
) -> Result<(), DatapathError> {
    map.set(index, value, 0).map_err(failed(name, "updated"))
}

fn failed(name: &'static str, action: &'static str) -> impl Fn(MapError) -> DatapathError {
    move |source| DatapathError::Map {
        name,
        action,
        source: Box::new(source),
    }
}

/// Packs owners into map values; the places behind the last owner are never read.
fn lines(owners: &[BackendId]) -> impl Iterator<Item = SlotLine> {
    owners.chunks(SLOTS_PER_LINE as usize).map(|owners| {
        let mut line = SlotLine::default();
        for (slot, owner) in line.0.iter_mut().zip(owners) {
            *slot = Slot::safe(*owner);
        }
        line
    })
}

fn sum<'a>(per_cpu: impl Iterator<Item = &'a Traffic>) -> Traffic {
    per_cpu.fold(Traffic::default(), |total, cpu| {
        total.combine(*cpu, u64::wrapping_add)
    })
}

/// Waits until no CPU runs a program that began before the call.
///
/// `MEMBARRIER_CMD_GLOBAL` waits for an RCU grace period, and an XDP program runs inside an RCU
/// read-side section. Kernels that isolate CPUs refuse it; then a pause that is thousands of times
/// a packet's stay has to do.
fn await_grace_period() {
    const MEMBARRIER_CMD_GLOBAL: libc::c_int = 1;
    // SAFETY: the system call takes integers only and touches no memory of ours.
    let result = unsafe { libc::syscall(libc::SYS_membarrier, MEMBARRIER_CMD_GLOBAL, 0, 0) };
    if result != 0 {
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// The error number behind an error of aya's.
fn errno(error: &(dyn std::error::Error + 'static)) -> Option<i32> {
    let mut error = Some(error);
    while let Some(this) = error {
        if let Some(io) = this.downcast_ref::<io::Error>() {
            return io.raw_os_error();
        }
        error = this.source();
    }
    None
}
