//! The decapsulator on a backend: loads the XDP program that takes clients' packets out of tunnels,
//! attaches it, and reads what it counts.
//!
//! For `tidegate decap`, and for brokers that load it themselves: it knows nothing of the balancer,
//! its configuration or an async runtime. Calls block for milliseconds. The program is attached
//! through a BPF link that this process holds: if the process ends in any way, the interface is as
//! before.

mod error;
mod prefix;

use std::{
    collections::BTreeMap,
    io,
    net::IpAddr,
    os::fd::{AsFd as _, BorrowedFd},
};

use aya::{
    Ebpf, EbpfLoader,
    maps::{HashMap, LpmTrie, Map, MapError, PerCpuArray, lpm_trie::Key},
    programs::{ProgramError, Xdp, XdpMode},
};
use lb_common::{
    abi::Ip,
    decap::{self, Outcome},
};

pub use self::{
    error::DecapError,
    prefix::{Prefix, WrongPrefix},
};
use error::failed;

/// Built from source by build.rs; empty where that was not possible.
static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/tidegate-decap.o"));

/// Which way of attaching to use.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mode {
    /// Native, and generic where the driver has no native mode.
    #[default]
    Auto,
    /// In the driver.
    Native,
    /// In the network stack, after the driver: slower, works everywhere.
    Generic,
}

/// What [`Decap::open`] needs to know.
#[derive(Clone, Debug)]
pub struct Config {
    pub interface: String,
    pub mode: Mode,
    /// Who may send tunnelled packets.
    pub sources: Vec<Prefix>,
    /// For which addresses they are unpacked.
    pub vips: Vec<IpAddr>,
    /// The UDP port of GUE.
    pub gue_port: u16,
}

/// The loaded program; dropping it takes it off the interface.
pub struct Decap {
    interface: String,
    mode: Mode,
    ebpf: Ebpf,
}

impl Decap {
    /// Loads the program and fills its maps; no packet meets it yet.
    ///
    /// # Errors
    /// If nobody may send or nothing is to be unpacked, the build has no object, or the kernel
    /// refuses it.
    pub fn open(config: &Config) -> Result<Self, DecapError> {
        if config.sources.is_empty() || config.vips.is_empty() {
            return Err(DecapError::Nothing);
        }
        if OBJECT.is_empty() {
            return Err(DecapError::NoObject);
        }
        let mut ebpf = EbpfLoader::new()
            .override_global(decap::GUE_PORT, &config.gue_port, true)
            .map_max_entries(decap::SOURCES, entries(config.sources.len()))
            .map_max_entries(decap::VIPS, entries(config.vips.len()))
            .load(OBJECT)
            .map_err(|source| DecapError::Load(Box::new(source)))?;
        let mut sources: LpmTrie<_, Ip, u32> = map(&mut ebpf, decap::SOURCES)?;
        for prefix in &config.sources {
            sources
                .insert(&Key::new(prefix.bits(), Ip::from(prefix.address())), 1, 0)
                .map_err(failed(decap::SOURCES, "filled"))?;
        }
        let mut vips: HashMap<_, Ip, u32> = map(&mut ebpf, decap::VIPS)?;
        for &vip in &config.vips {
            vips.insert(Ip::from(vip), 1, 0)
                .map_err(failed(decap::VIPS, "filled"))?;
        }
        let mut decap = Self {
            interface: config.interface.clone(),
            mode: config.mode,
            ebpf,
        };
        let verify = |source| DecapError::Verify(Box::new(source));
        decap.program()?.load().map_err(verify)?;
        Ok(decap)
    }

    /// Lets the program see the interface's packets; says whether in native or generic mode.
    ///
    /// # Errors
    /// [`DecapError::InterfaceBusy`] if a program is attached already, by whomever.
    pub fn attach(&mut self) -> Result<Mode, DecapError> {
        let modes: &[Mode] = match self.mode {
            Mode::Auto => &[Mode::Native, Mode::Generic],
            Mode::Native => &[Mode::Native],
            Mode::Generic => &[Mode::Generic],
        };
        let mut refusal = missing();
        for &mode in modes {
            let (flag, name) = match mode {
                Mode::Generic => (XdpMode::Skb, "generic"),
                Mode::Auto | Mode::Native => (XdpMode::Driver, "native"),
            };
            let interface = self.interface.clone();
            // The link stays in the program, and goes with it.
            match self.program()?.attach(&interface, flag) {
                Ok(_link) => return Ok(mode),
                Err(source) => refusal = refused(interface, name, source),
            }
            // A program in the other mode would be as much in the way.
            if let DecapError::InterfaceBusy { .. } | DecapError::NoInterface { .. } = refusal {
                break;
            }
        }
        Err(refusal)
    }

    /// How many packets ended in each way since the program was loaded.
    ///
    /// # Errors
    /// If the kernel does not give its counters.
    pub fn counts(&self) -> Result<BTreeMap<Outcome, u64>, DecapError> {
        let counts = self.ebpf.map(decap::COUNTS).ok_or_else(missing)?;
        let counts: PerCpuArray<_, u64> =
            counts.try_into().map_err(failed(decap::COUNTS, "opened"))?;
        let read = |outcome: Outcome| {
            let per_cpu = counts.get(&(outcome as u32), 0);
            let per_cpu = per_cpu.map_err(failed(decap::COUNTS, "read"))?;
            Ok((outcome, per_cpu.iter().sum()))
        };
        Outcome::ALL.into_iter().map(read).collect()
    }

    /// The loaded program, for tests that feed it frames of their own.
    ///
    /// # Errors
    /// If there is none, which [`Decap::open`] rules out.
    pub fn program_fd(&self) -> Result<BorrowedFd<'_>, DecapError> {
        let program = self.ebpf.program(decap::PROGRAM).ok_or_else(missing)?;
        let program: &Xdp = program.try_into().map_err(|_: ProgramError| missing())?;
        let fd = program.fd().map_err(|_: ProgramError| missing())?;
        Ok(fd.as_fd())
    }

    fn program(&mut self) -> Result<&mut Xdp, DecapError> {
        let program = self.ebpf.program_mut(decap::PROGRAM).ok_or_else(missing)?;
        program.try_into().map_err(|_: ProgramError| missing())
    }
}

fn missing() -> DecapError {
    DecapError::Missing {
        name: decap::PROGRAM,
    }
}

fn entries(count: usize) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX)
}

fn map<'a, T: TryFrom<&'a mut Map, Error = MapError>>(
    ebpf: &'a mut Ebpf,
    name: &'static str,
) -> Result<T, DecapError> {
    let map = ebpf.map_mut(name).ok_or(DecapError::Missing { name })?;
    map.try_into().map_err(failed(name, "opened"))
}

fn refused(interface: String, mode: &'static str, source: ProgramError) -> DecapError {
    if let ProgramError::UnknownInterface { .. } = source {
        return DecapError::NoInterface { interface };
    }
    if matches!(errno(&source), Some(libc::EBUSY | libc::EEXIST)) {
        return DecapError::InterfaceBusy { interface };
    }
    DecapError::Attach {
        interface,
        mode,
        source: Box::new(source),
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
