//! The XDP program and its maps in the kernel; aya is named here and in this module's parts alone.
//!
//! Loads the embedded object, carries out [`crate::core::image::MapOp`]s, attaches and detaches,
//! and reads what the program counts. Decides nothing: what the maps should hold is the image's
//! business, when to call is the daemon's. Calls block for microseconds, a table write for a few
//! milliseconds, an access list for about 2 us an entry. One task owns the [`Datapath`].
//!
//! The program is attached through a BPF link. With [`Datapath::open_pinned`] that and the maps
//! outlive the process, see `pins.rs`; with [`Datapath::open`] the interface is as before if the process
//! ends in any way.

use std::{
    io,
    os::fd::{AsFd, BorrowedFd},
};

use aya::{
    Ebpf, EbpfLoader,
    maps::{Array, LpmTrie, Map, MapData, MapError, PerCpuArray, ProgramArray},
    programs::{ProgramError, Xdp, XdpMode as AyaMode, xdp::XdpLinkId},
};
use lb_common::{
    abi::{
        self, AccessKey, Backend, GENERATIONS, GuardCounts, Load, MqttPackets, NatPool, OwnMac,
        Rates, SlotLine, Stage, TABLE_LINES, Traffic, TunnelSources,
    },
    challenge,
    flow::HashKeys,
};

mod apply;
mod batch;
mod contents;
mod counters;
mod error;
mod events;
mod leases;
mod load;
mod lookup;
mod memory;
#[cfg(test)]
mod needs;
mod others;
mod pins;
mod replica;
mod services;
mod sweep;
#[cfg(feature = "trace")]
mod trace;

pub use error::DatapathError;
pub use events::{EVENTS, FlowEvents};
pub use leases::{Leases, Running, Wishes};
pub use lookup::monotonic;
pub use memory::{possible_cpus, ring_memory};
pub use others::program_name;
pub use pins::{Layout, Mismatch, PinError, Pins, is_in_bpf_file_system};
pub use replica::{Recorded, Recorder};
pub use sweep::{FlowCounts, Round, Sweeper, now};

use error::failed;
use lookup::Lookup;
use pins::{Link, Pinned};
use services::Services;

/// Built from source by build.rs; empty where that was not possible.
static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/tidegate-xdp.o"));

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
    /// Whether it has taken the place of an earlier one.
    pub is_successor: bool,
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
    /// Prefixes of clients.
    pub access_entries: u32,
    /// Packets that arrive in fragments, of which more may come.
    pub fragments: u32,
    /// Sources of connections that are remembered.
    pub sources: u32,
}

impl Limits {
    /// Entries of every map whose size is not fixed.
    ///
    /// Each (VIP, protocol) has a marker beside its services, so at most as many again.
    fn entries(self) -> impl IntoIterator<Item = (&'static str, u32)> {
        let Self {
            services,
            backends,
            flows,
            half_open,
            access_entries,
            fragments,
            sources,
        } = self;
        let (services, backends) = (u32::from(services), u32::from(backends));
        [
            (abi::SERVICES, services * 2),
            (abi::BACKENDS, backends),
            (abi::LOADS, backends),
            (abi::SLOTS, services * GENERATIONS * TABLE_LINES),
            (abi::RING_POSITIONS, services),
            (abi::FLOWS, flows),
            (abi::REPLIES, flows),
            (abi::HALF_OPEN, half_open),
            (abi::HALF_OPEN_REPLIES, half_open),
            (abi::FRAGMENTS, fragments),
            (abi::SERVICE_TRAFFIC, services),
            (abi::BACKEND_TRAFFIC, backends),
            (abi::RATES, services),
            (abi::MQTT_PACKETS, services),
            (abi::KEEP_ALIVES, services),
            (abi::GUARD_COUNTS, services),
            (abi::SERVICE_BUCKETS, services),
            (abi::SOURCE_BUCKETS, sources),
            (abi::ANSWERED, sources),
            // During a change it holds the old list and the new one; what is not used takes no memory.
            (abi::ACCESS, 2 * access_entries + 1),
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
    /// Bytes of the ring in which established flows are reported: a power of two. 0: none are.
    pub events: u32,
}

/// What holds the program on its interface.
enum Hold {
    /// Goes with the process.
    Own(XdpLinkId),
    Pinned(#[expect(dead_code, reason = "held, not used")] Link),
}

/// The loaded program.
pub struct Datapath {
    interface: String,
    mode: XdpMode,
    ebpf: Ebpf,
    link: Option<Hold>,
    pinned: Option<Pinned>,
    services: Services,
    backends: Array<MapData, Backend>,
    loads: Array<MapData, Load>,
    slots: Array<MapData, SlotLine>,
    nat_pool: Array<MapData, NatPool>,
    tunnel_sources: Array<MapData, TunnelSources>,
    own_mac: Array<MapData, OwnMac>,
    rates: Array<MapData, Rates>,
    access: LpmTrie<MapData, AccessKey, u32>,
    guard_counts: PerCpuArray<MapData, GuardCounts>,
    verdicts: PerCpuArray<MapData, u64>,
    service_traffic: PerCpuArray<MapData, Traffic>,
    backend_traffic: PerCpuArray<MapData, Traffic>,
    mqtt_packets: PerCpuArray<MapData, MqttPackets>,
    keep_alives: Array<MapData, u32>,
    keys: HashKeys,
    lookup: Lookup,
    /// Entries of the larger flow table.
    flow_capacity: usize,
    sweeper: Option<Sweeper>,
    recorder: Option<Recorder>,
    leases: Option<Leases>,
    events: Option<FlowEvents>,
    #[cfg(feature = "trace")]
    _trace: trace::Reader,
    /// The kernel empties it when nobody holds it from here.
    _stages: ProgramArray<MapData>,
}

impl Datapath {
    /// Creates the maps and loads the program; no packet meets it yet.
    ///
    /// # Errors
    /// If the build has no object, or the kernel refuses it.
    pub fn open(config: &DatapathConfig) -> Result<Self, DatapathError> {
        Self::load(config, None)
    }

    /// The same with maps that stay, or that an earlier process has left.
    ///
    /// # Errors
    /// As [`Self::open`]; if maps were left that cannot be used.
    pub fn open_pinned(config: &DatapathConfig, pins: Pins) -> Result<Self, DatapathError> {
        let layout = Layout::new(config.seed, &config.limits);
        let layout = layout.map_err(|source| DatapathError::Namespace { source })?;
        Self::load(config, Some(Pinned::begin(pins, layout)?))
    }

    fn load(config: &DatapathConfig, mut pinned: Option<Pinned>) -> Result<Self, DatapathError> {
        if OBJECT.is_empty() {
            return Err(DatapathError::NoObject);
        }
        let keys = HashKeys::from_seed(config.seed);
        let mut loader = EbpfLoader::new();
        loader.override_global(abi::HASH_KEYS, &keys, true);
        let challenge_key = challenge::Key::from_seed(config.seed);
        loader.override_global(abi::CHALLENGE_KEY, &challenge_key, true);
        let reports_flows = u32::from(config.events > 0);
        loader.override_global(abi::REPORTS_FLOWS, &reports_flows, true);
        loader.map_max_entries(abi::FLOW_EVENTS, config.events.max(1));
        for (name, entries) in config.limits.entries() {
            loader.map_max_entries(name, entries);
        }
        for (name, place) in pinned.iter().flat_map(Pinned::places) {
            loader.map_pin_path(name, place);
        }
        let load = |source| DatapathError::Load(Box::new(source));
        let mut ebpf = loader.load(OBJECT).map_err(load)?;
        #[cfg(feature = "trace")]
        let trace = trace::Reader::start(&mut ebpf)?;
        if let Some(pinned) = &mut pinned {
            let missing = DatapathError::Missing { name: abi::STAGES };
            pinned.keep_stages(ebpf.map(abi::STAGES).ok_or(missing)?)?;
        }
        let stages = load_programs(&mut ebpf)?;
        // Each map is taken once, below.
        let keep_alives = lookup::second_array(&ebpf, abi::KEEP_ALIVES)?;
        Ok(Self {
            interface: config.interface.clone(),
            mode: config.mode,
            link: None,
            pinned,
            services: Services::open(&mut ebpf)?,
            backends: take(&mut ebpf, abi::BACKENDS)?,
            loads: load::open(&ebpf)?,
            slots: take(&mut ebpf, abi::SLOTS)?,
            nat_pool: take(&mut ebpf, abi::NAT_POOL)?,
            tunnel_sources: take(&mut ebpf, abi::TUNNEL_SOURCES)?,
            own_mac: take(&mut ebpf, abi::OWN_MAC)?,
            rates: take(&mut ebpf, abi::RATES)?,
            access: take(&mut ebpf, abi::ACCESS)?,
            guard_counts: take(&mut ebpf, abi::GUARD_COUNTS)?,
            verdicts: take(&mut ebpf, abi::VERDICTS)?,
            service_traffic: take(&mut ebpf, abi::SERVICE_TRAFFIC)?,
            backend_traffic: take(&mut ebpf, abi::BACKEND_TRAFFIC)?,
            mqtt_packets: take(&mut ebpf, abi::MQTT_PACKETS)?,
            keep_alives: take(&mut ebpf, abi::KEEP_ALIVES)?,
            keys,
            lookup: Lookup::open(&mut ebpf)?,
            recorder: Some(Recorder::open(&ebpf)?),
            leases: Some(Leases::open(&ebpf)?),
            events: Some(FlowEvents::take(&mut ebpf)?),
            flow_capacity: config.limits.flows.max(config.limits.half_open) as usize,
            sweeper: Some(Sweeper::new(
                &mut ebpf,
                &config.limits,
                (keys, keep_alives),
            )?),
            #[cfg(feature = "trace")]
            _trace: trace,
            _stages: stages,
            ebpf,
        })
    }

    /// Lets the program see the interface's packets, in place of the one that was pinned if there is
    /// one.
    ///
    /// # Errors
    /// [`DatapathError::InterfaceBusy`] if a program is attached already, by whomever.
    pub fn attach(&mut self) -> Result<Attached, DatapathError> {
        let program = program(&mut self.ebpf, abi::PROGRAM)?;
        if let Some(pinned) = &mut self.pinned
            && let Some((link, mode)) = pinned.succeed(program)?
        {
            self.link = Some(Hold::Pinned(link));
            return Ok(Attached {
                mode,
                is_successor: true,
                refusal: None,
            });
        }
        let attached = self.attach_anew()?;
        if let Some(pinned) = &mut self.pinned
            && let Some(Hold::Own(link)) = self.link.take()
        {
            let program = self::program(&mut self.ebpf, abi::PROGRAM)?;
            self.link = Some(Hold::Pinned(pinned.keep(program, link, attached.mode)?));
        }
        Ok(attached)
    }

    fn attach_anew(&mut self) -> Result<Attached, DatapathError> {
        let modes: &[AttachedMode] = match self.mode {
            XdpMode::Auto => &[AttachedMode::Native, AttachedMode::Generic],
            XdpMode::Native => &[AttachedMode::Native],
            XdpMode::Generic => &[AttachedMode::Generic],
        };
        let mut refusal = None;
        for &mode in modes {
            match program(&mut self.ebpf, abi::PROGRAM)?.attach(&self.interface, mode.flag()) {
                Ok(link) => {
                    self.link = Some(Hold::Own(link));
                    return Ok(Attached {
                        mode,
                        is_successor: false,
                        refusal,
                    });
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

    /// Whether program and maps stay when the process ends.
    #[must_use]
    pub const fn is_pinned(&self) -> bool {
        self.pinned.is_some()
    }

    /// Takes the program off the interface and gives the maps back, pinned or not.
    ///
    /// # Errors
    /// If the kernel keeps the program attached; it goes with the process at the latest, or with the
    /// pin.
    pub fn detach(mut self) -> Result<(), DatapathError> {
        if let Some(pinned) = &self.pinned {
            pinned.remove()?;
        }
        let Some(Hold::Own(link)) = self.link.take() else {
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

    /// Hands out what writes records that a peer has told of, for a task of their own.
    /// `None` at every call but the first.
    pub fn take_recorder(&mut self) -> Option<Recorder> {
        self.recorder.take()
    }

    /// Hands out what tells the program of virtual routers, for a thread of their own.
    /// `None` at every call but the first.
    pub fn take_leases(&mut self) -> Option<Leases> {
        self.leases.take()
    }

    /// Hands out what reads of flows that were established, for a task of their own.
    /// `None` at every call but the first.
    pub fn take_events(&mut self) -> Option<FlowEvents> {
        self.events.take()
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
