//! What outlives the daemon: maps, program and link, pinned in a BPF file system.
//!
//! ```text
//!   PIN_DIR/INTERFACE/            with : for each dot; 0700, locked by the daemon that uses it
//!     LAYOUT                      what all the others are like, and the seed of the flow hash
//!     SERVICES, FLOWS, ...        every map that says where packets go: see `PINNED`
//!     NOTES                       when slots are no longer at risk, which no packet needs to know
//!     STAGES-ID                   the programs that the first one calls: see below
//!     link                        the first program on the interface; comes last, goes first
//! ```
//! As long as `link` is there, the kernel sends the interface's packets through the program, whatever
//! becomes of processes. A start finds one of these:
//!
//! | found | what the start does |
//! |---|---|
//! | no `link` | what a creation or a removal left half-way is removed, all is made anew |
//! | a `link` whose interface is gone | the same: no packet can come that way again |
//! | a `link`, and the layout that is wanted | adopts it: opens the maps, loads its own program, and replaces the one in force by one update of the link |
//! | the same, with maps of other sizes, by `limits` or by another version | moves: makes maps beside the old ones, copies what they hold, and then the same, see [`moving`] |
//! | a `link`, and anything else | refuses, and says what to do: traffic goes on |
//!
//! A program keeps the maps that it was loaded with. Those that hold what is between the daemon and the
//! operator alone (counters), between parts of one program (`JOB`, `STAGES`, its constants), or what the
//! next daemon knows as well (`OWN_MAC`) or finds by itself (`FLOW_EVENTS`), are not pinned, and new with
//! each program: so they may change from one version to the next. Some that are pinned are made anew if
//! they are missing, see `RENEWABLE`. The kernel empties an array of programs that nobody holds but a
//! program. So it is pinned as well, under a name of its own, and the one before goes when no packet can
//! be in its program any more.
//!
//! Every mount of a BPF file system has files of its own. Where there is none yet, one is mounted.

mod files;
mod layout;
mod left;
mod link;
mod moving;

use std::{
    fs::{self, DirBuilder, File},
    io,
    os::unix::fs::DirBuilderExt as _,
    path::{Path, PathBuf},
};

use aya::{
    maps::{Array, Map, MapData, MapError},
    programs::{Xdp, xdp::XdpLinkId},
};
use lb_common::abi::{self, GENERATIONS, Lease, ServiceId, Tick};
use rustix::fs::{FlockOperation, flock};

pub use self::layout::{Layout, Mismatch};
pub(super) use self::left::Left;
pub(super) use self::link::Link;
use self::moving::Move;
use super::{AttachedMode, DatapathError, apply::await_grace_period, error::failed};
use crate::core::image::MapImage;

/// The maps that outlive the daemon.
const PINNED: [&str; 20] = [
    abi::SERVICES,
    abi::BACKENDS,
    abi::SLOTS,
    abi::RING_POSITIONS,
    abi::FLOWS,
    abi::HALF_OPEN,
    abi::REPLIES,
    abi::HALF_OPEN_REPLIES,
    abi::NAT_POOL,
    abi::LOADS,
    abi::TUNNEL_SOURCES,
    abi::FRAGMENTS,
    abi::ACCESS,
    abi::RATES,
    abi::SERVICE_BUCKETS,
    abi::SOURCE_BUCKETS,
    abi::ANSWERED,
    abi::KEEP_ALIVES,
    abi::FLOWS_FULL,
    abi::LEASES,
];

/// Those of them that begin empty where they are missing: no session depends on what they hold, which is
/// of the last seconds or minutes. So a version that has one more finds its predecessor's pins good.
const RENEWABLE: [&str; 4] = [
    abi::FRAGMENTS,
    abi::SOURCE_BUCKETS,
    abi::ANSWERED,
    abi::LEASES,
];

/// The one of them that no limit sizes: a move leaves it where it is, as it is written all the time, unless
/// its values are of another length.
const UNSIZED: &str = abi::LEASES;

const LAYOUT: &str = "LAYOUT";
pub(super) const NOTES: &str = "NOTES";
const LINK: &str = "link";
const STAGES: &str = "STAGES-";

/// Why nothing can be pinned, or what is pinned cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum PinError {
    /// There is no place for pins: without them the program goes with the process.
    #[error("there is no BPF file system at {}, and none can be mounted", .path.display())]
    NoFileSystem { path: PathBuf, source: io::Error },
    #[error("cannot use the pin directory {}", .path.display())]
    Directory { path: PathBuf, source: io::Error },
    #[error(
        "{} is in use by another tidegate: stop that one first, or give this one a pin_dir of its own",
        .path.display()
    )]
    Held { path: PathBuf },
    #[error(
        "the program on {interface:?} goes on forwarding as it is, since {mismatch}; or, to begin anew, take it off \
         with `tidegate stop --detach --config FILE`, which ends the sessions that need its records"
    )]
    Other {
        interface: String,
        mismatch: Mismatch,
    },
    #[error("pinned {name} could not be {action}")]
    Object {
        name: String,
        action: &'static str,
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

/// What to do with what is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Start {
    Create,
    /// Goes on with what is like this.
    Adopt(Layout),
    /// The same, in maps of other sizes.
    Move(Layout),
}

/// Whether a directory is in a BPF file system, or would be if it were made.
#[must_use]
pub fn is_in_bpf_file_system(directory: &Path) -> bool {
    files::is_inside(directory)
}

/// A directory of pins, held for as long as this lives.
#[derive(Debug)]
pub struct Pins {
    directory: PathBuf,
    name: String,
    /// The interface's index.
    interface: u32,
    _lock: File,
}

impl Pins {
    /// Takes the pins of an interface, in a directory that is made if need be.
    ///
    /// # Errors
    ///
    /// [`PinError::NoFileSystem`] if there can be none here; if another process has it.
    pub fn open(pin_dir: &Path, name: &str, interface: u32) -> Result<Self, PinError> {
        files::mount(pin_dir)?;
        // The file system takes no dots, and no interface has a colon in its name.
        let directory = pin_dir.join(name.replace('.', ":"));
        let unusable = |source| PinError::Directory {
            path: directory.clone(),
            source,
        };
        let mut builder = DirBuilder::new();
        builder.recursive(true).mode(0o700);
        builder.create(&directory).map_err(unusable)?;
        let lock = File::open(&directory).map_err(unusable)?;
        if flock(&lock, FlockOperation::NonBlockingLockExclusive).is_err() {
            return Err(PinError::Held { path: directory });
        }
        Ok(Self {
            directory,
            name: name.to_owned(),
            interface,
            _lock: lock,
        })
    }

    /// What the pins are like that packets go by; `None` if they go by none.
    ///
    /// # Errors
    ///
    /// If the link cannot be opened.
    pub fn layout(&self) -> Result<Option<Layout>, PinError> {
        Ok(self.living_link()?.and_then(|_| self.read_layout()))
    }

    /// Whether packets go through the program that is pinned here.
    ///
    /// # Errors
    ///
    /// If the link cannot be opened.
    pub fn are_in_force(&self) -> Result<bool, PinError> {
        Ok(self.living_link()?.is_some())
    }

    /// Removes all, the link first: the program is gone when nobody holds the link here either. Says
    /// whether there was one.
    ///
    /// # Errors
    ///
    /// If something stays; the next start removes it.
    pub fn remove(&self) -> Result<bool, PinError> {
        let was_there = self.living_link()?.is_some();
        self.remove_link()?;
        self.clear()?;
        // Made again by the next start.
        drop(fs::remove_dir(&self.directory));
        Ok(was_there)
    }

    /// That `mismatch` is in the way of going on.
    #[must_use]
    pub fn refuse(name: &str, mismatch: Mismatch) -> PinError {
        PinError::Other {
            interface: name.to_owned(),
            mismatch,
        }
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    /// Says what a start has to do, and makes room for it: see the module.
    fn begin(&self, wanted: &Layout) -> Result<Start, PinError> {
        let Some(link) = self.living_link()? else {
            self.remove_link()?;
            self.clear()?;
            return Ok(Start::Create);
        };
        self.settle_move(link.program())?;
        let found = self.read_layout();
        let start = found.ok_or(Mismatch::Version).and_then(|found| {
            let start = match found.check(wanted) {
                Err(Mismatch::Limits) => Start::Move(found),
                other => other.map(|()| Start::Adopt(found))?,
            };
            if link.interface() != self.interface {
                return Err(Mismatch::Interface);
            }
            let needed = PINNED.into_iter().filter(|name| !RENEWABLE.contains(name));
            let mut names = needed.chain([NOTES]);
            if names.all(|name| self.path(name).exists()) {
                Ok(start)
            } else {
                Err(Mismatch::Missing)
            }
        });
        let start = start.map_err(|mismatch| Self::refuse(&self.name, mismatch))?;
        if let Start::Move(_) = start {
            self.drop_other_leases()?;
        }
        Ok(start)
    }

    /// Removes leases that another version has of another length: none are as good.
    fn drop_other_leases(&self) -> Result<(), PinError> {
        let Ok(map) = MapData::from_pin(self.path(UNSIZED)) else {
            return Ok(());
        };
        let info = map.info().map_err(self.cannot(UNSIZED, "opened"))?;
        if info.value_size() as usize == size_of::<Lease>() {
            return Ok(());
        }
        files::remove(&self.path(UNSIZED)).map_err(self.cannot(UNSIZED, "removed"))
    }

    fn read_layout(&self) -> Option<Layout> {
        let map: Array<MapData, Layout> = open(&self.path(LAYOUT)).ok()?;
        map.get(&0, 0).ok()
    }

    /// Removes all but the link.
    fn clear(&self) -> Result<(), PinError> {
        for name in self.names()? {
            if name != LINK {
                files::remove(&self.path(&name)).map_err(self.cannot(&name, "removed"))?;
            }
        }
        Ok(())
    }

    fn names(&self) -> Result<Vec<String>, PinError> {
        files::names(&self.directory).map_err(|source| PinError::Directory {
            path: self.directory.clone(),
            source,
        })
    }

    fn cannot<E: Into<Box<dyn std::error::Error + Send + Sync>>>(
        &self,
        name: &str,
        action: &'static str,
    ) -> impl Fn(E) -> PinError {
        let name = self.path(name).display().to_string();
        move |source| PinError::Object {
            name: name.clone(),
            action,
            source: source.into(),
        }
    }
}

/// The pins of a program that is loaded.
pub(super) struct Pinned {
    pins: Pins,
    layout: Layout,
    start: Start,
    notes: Array<MapData, u32>,
    /// The name of the array of programs that is this one's.
    stages: String,
    /// Whether packets go through the program.
    is_in_force: bool,
    moved: Move,
}

impl Pinned {
    /// Makes ready for maps like `layout`.
    pub(super) fn begin(pins: Pins, layout: Layout) -> Result<Self, DatapathError> {
        let start = pins.begin(&layout)?;
        let place = start.place(&pins, NOTES);
        if let Start::Create | Start::Move(_) = start {
            let notes = Array::<MapData, u32>::create(layout.services() * GENERATIONS, 0);
            let pinned = notes.map_err(failed(NOTES, "created"))?.pin(&place);
            pinned.map_err(pins.cannot(NOTES, "pinned"))?;
        }
        let notes = open(&place).map_err(failed(NOTES, "opened"))?;
        Ok(Self {
            pins,
            layout,
            start,
            notes,
            stages: String::new(),
            is_in_force: false,
            moved: Move::default(),
        })
    }

    /// Where each map is to be found, or to be left.
    pub(super) fn places(&self) -> impl Iterator<Item = (&'static str, PathBuf)> {
        let places = PINNED.into_iter();
        places.map(|name| (name, self.start.place(&self.pins, name)))
    }

    /// Pins the array of the programs that are called.
    pub(super) fn keep_stages(&mut self, stages: &Map) -> Result<(), DatapathError> {
        let Map::ProgramArray(data) = stages else {
            return Err(DatapathError::Missing { name: abi::STAGES });
        };
        let info = data.info().map_err(failed(abi::STAGES, "opened"))?;
        self.stages = format!("{STAGES}{}", info.id());
        let pinned = stages.pin(self.pins.path(&self.stages));
        Ok(pinned.map_err(self.pins.cannot(&self.stages, "pinned"))?)
    }

    /// Where maps are that were there before, if they were.
    pub(super) fn found(&self) -> Option<&Pins> {
        (self.start != Start::Create).then_some(&self.pins)
    }

    /// Whether these are not the maps that the program is loaded with.
    pub(super) const fn is_moving(&self) -> bool {
        matches!(self.start, Start::Move(_))
    }

    /// Copies what flows, backends and services have beside `image`.
    pub(super) fn copy(&mut self, image: &MapImage) -> Result<(), DatapathError> {
        self.moved.copy_arrays(&self.pins, image)?;
        self.moved.copy_flows(&self.pins)
    }

    /// Has the program that was attached just now stay.
    pub(super) fn keep(
        &mut self,
        program: &mut Xdp,
        link: XdpLinkId,
        mode: AttachedMode,
    ) -> Result<Link, DatapathError> {
        self.keep_layout(mode)?;
        let link = self.pins.keep(program, link)?;
        self.is_in_force = true;
        Ok(link)
    }

    fn keep_layout(&self, mode: AttachedMode) -> Result<(), DatapathError> {
        let mut map = Array::create(1, 0).map_err(failed(LAYOUT, "created"))?;
        let layout = self.layout.attached(mode);
        map.set(0, layout, 0).map_err(failed(LAYOUT, "updated"))?;
        let pinned = map.pin(self.start.place(&self.pins, LAYOUT));
        Ok(pinned.map_err(self.pins.cannot(LAYOUT, "pinned"))?)
    }

    /// If another program is in force, puts this one in its place, and says how that is attached.
    pub(super) fn succeed(
        &mut self,
        program: &mut Xdp,
    ) -> Result<Option<(Link, AttachedMode)>, DatapathError> {
        let (Start::Adopt(found) | Start::Move(found)) = self.start else {
            return Ok(None);
        };
        if self.is_moving() {
            self.keep_layout(found.mode())?;
            self.pins.pin_program(program)?;
            self.moved.copy_flows(&self.pins)?;
        }
        let link = self.pins.replace(program)?;
        self.is_in_force = true;
        // A packet may still be in the other program, about to record a flow or to call its stages.
        await_grace_period();
        if self.is_moving() {
            let copied = std::mem::take(&mut self.moved).copy_flows(&self.pins);
            self.pins.end_move()?;
            copied?;
        }
        for name in self.pins.names()? {
            if name.starts_with(STAGES) && name != self.stages {
                let removed = files::remove(&self.pins.path(&name));
                removed.map_err(self.pins.cannot(&name, "removed"))?;
            }
        }
        Ok(Some((link, found.mode())))
    }

    /// Notes until when slots of a service's table may be at risk.
    pub(super) fn note(
        &mut self,
        id: ServiceId,
        generation: u32,
        until: Option<Tick>,
    ) -> Result<(), DatapathError> {
        let until = until.map_or(0, |until| until.0);
        let written = self.notes.set(note_at(id, generation), until, 0);
        written.map_err(failed(NOTES, "updated"))
    }

    /// Removes everything.
    pub(super) fn remove(&self) -> Result<(), DatapathError> {
        self.pins.remove()?;
        Ok(())
    }
}

impl Drop for Pinned {
    /// What was pinned for a start that failed would take memory for nothing.
    fn drop(&mut self) {
        if self.is_in_force {
            return;
        }
        drop(match self.start {
            Start::Create => self.pins.clear(),
            Start::Adopt(_) => Ok(()),
            Start::Move(_) => self.pins.give_up_move(),
        });
        if !self.stages.is_empty() {
            drop(files::remove(&self.pins.path(&self.stages)));
        }
    }
}

impl Start {
    /// Where a map is to be found, or to be left.
    fn place(self, pins: &Pins, name: &str) -> PathBuf {
        match self {
            Self::Create | Self::Adopt(_) => pins.path(name),
            Self::Move(_) if name == UNSIZED => pins.path(name),
            Self::Move(_) => pins.path(&format!("{name}{}", moving::NEXT)),
        }
    }
}

/// Where the note of a table is. The table that is being written has one of its own: a process may
/// be killed before it is in force.
pub(super) const fn note_at(id: ServiceId, generation: u32) -> u32 {
    id.0 as u32 * GENERATIONS + generation
}

pub(super) fn open<T: TryFrom<Map, Error = MapError>>(path: &Path) -> Result<T, MapError> {
    MapData::from_pin(path)
        .and_then(Map::from_map_data)
        .and_then(T::try_from)
}
