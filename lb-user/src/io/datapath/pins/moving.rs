//! From maps of one size to maps of another, under traffic: with other room, or, from another version,
//! with longer or shorter values, see [`Left`].
//!
//! The program in force goes on recording flows in the old maps until the link has the new one. So
//! flows are copied three times: all of them, those that have come by then, and, when no packet can be
//! in the old program any more, the last of them. A flow that begins while the second walk goes on, and
//! sends before the third has found it, is unknown to the new program for a moment.
//!
//! Everything new has a name of its own until the link is updated: `NAME-next`. Which program the link
//! has then says whether they become the names, or go: a process that is killed in between leaves it to
//! the next.

use std::{collections::HashSet, fs};

use aya::{
    Pod,
    maps::{Array, HashMap, MapData, MapError},
    programs::{ProgramInfo, Xdp},
};
use lb_common::abi::{self, Backend, Bucket, Flow, FlowKey, Load, Reply};

use super::{Left, PinError, Pins, files, layout::Mismatch, open};
use crate::{
    core::image::MapImage,
    io::datapath::{DatapathError, errno, error::failed},
};

/// Ends the names of what is not in force yet. The file system takes no dots.
pub(super) const NEXT: &str = "-next";

/// The first program, while there are two of them.
const PROGRAM: &str = "program-next";

/// What was copied.
#[derive(Default)]
pub(super) struct Move {
    flows: HashSet<FlowKey>,
    half_open: HashSet<FlowKey>,
    replies: HashSet<FlowKey>,
    half_open_replies: HashSet<FlowKey>,
}

impl Move {
    /// Copies what backends and services have that is in no image.
    pub(super) fn copy_arrays(&self, pins: &Pins, image: &MapImage) -> Result<(), DatapathError> {
        array::<Backend>(pins, abi::BACKENDS)?;
        array::<Load>(pins, abi::LOADS)?;
        array::<u64>(pins, abi::RING_POSITIONS)?;
        array::<u32>(pins, abi::KEEP_ALIVES)?;
        // Or windows would end that had no room for what they met.
        array::<u32>(pins, abi::FLOWS_FULL)?;
        array::<Bucket>(pins, abi::SERVICE_BUCKETS)?;
        let services: Array<MapData, Bucket> = next(pins, abi::SERVICE_BUCKETS)?;
        let backends: Array<MapData, Backend> = next(pins, abi::BACKENDS)?;
        let has_room = image
            .services
            .values()
            .all(|service| u32::from(service.id.0) < services.len())
            && image
                .backends
                .keys()
                .all(|id| u32::from(id.0) < backends.len());
        if has_room {
            Ok(())
        } else {
            Err(pins.no_room())
        }
    }

    /// Copies the flows that were not there the last time.
    pub(super) fn copy_flows(&mut self, pins: &Pins) -> Result<(), DatapathError> {
        // A flow moves from half-open to established, inserted before it is removed; and a reply is of
        // no use without its flow.
        hash::<Reply>(pins, abi::HALF_OPEN_REPLIES, &mut self.half_open_replies)?;
        hash::<Reply>(pins, abi::REPLIES, &mut self.replies)?;
        hash::<Flow>(pins, abi::HALF_OPEN, &mut self.half_open)?;
        hash::<Flow>(pins, abi::FLOWS, &mut self.flows)
    }
}

impl Pins {
    /// Makes one thing of what a move has left half-way: what the link has is in force.
    pub(super) fn settle_move(&self, program: u32) -> Result<(), PinError> {
        let new = ProgramInfo::from_pin(self.path(PROGRAM)).ok();
        if new.is_some_and(|new| new.id() == program) {
            return self.end_move();
        }
        self.give_up_move()
    }

    /// Has everything new take the names of the old.
    pub(super) fn end_move(&self) -> Result<(), PinError> {
        for name in self.names()? {
            if let Some(old) = name.strip_suffix(NEXT).filter(|_| name != PROGRAM) {
                let renamed = fs::rename(self.path(&name), self.path(old));
                renamed.map_err(self.cannot(&name, "renamed"))?;
            }
        }
        files::remove(&self.path(PROGRAM)).map_err(self.cannot(PROGRAM, "removed"))
    }

    /// Removes everything new.
    pub(super) fn give_up_move(&self) -> Result<(), PinError> {
        for name in self.names()? {
            if name.ends_with(NEXT) {
                files::remove(&self.path(&name)).map_err(self.cannot(&name, "removed"))?;
            }
        }
        Ok(())
    }

    /// Has a process that comes in the middle know the new program.
    pub(super) fn pin_program(&self, program: &mut Xdp) -> Result<(), PinError> {
        let pinned = program.pin(self.path(PROGRAM));
        pinned.map_err(self.cannot(PROGRAM, "pinned"))
    }

    fn no_room(&self) -> DatapathError {
        Self::refuse(&self.name, Mismatch::Limits).into()
    }
}

fn next<T: TryFrom<aya::maps::Map, Error = MapError>>(
    pins: &Pins,
    name: &'static str,
) -> Result<T, DatapathError> {
    open(&pins.path(&format!("{name}{NEXT}"))).map_err(failed(name, "opened"))
}

/// Copies an array, as far as both reach.
fn array<V: Pod>(pins: &Pins, name: &'static str) -> Result<(), DatapathError> {
    let old = Left::<V>::open(pins, name)?;
    let mut new: Array<MapData, V> = next(pins, name)?;
    for index in 0..old.room().min(new.len()) {
        let value = old.get(index)?;
        new.set(index, value, 0).map_err(failed(name, "updated"))?;
    }
    Ok(())
}

/// Copies the entries of a hash map that are not in `known`, which grows by them.
fn hash<V: Pod>(
    pins: &Pins,
    name: &'static str,
    known: &mut HashSet<FlowKey>,
) -> Result<(), DatapathError> {
    /// Fails if the key is there: the new program knows better by then.
    const NEW: u64 = 1;
    let old = Left::<V>::open(pins, name)?;
    let mut new: HashMap<MapData, FlowKey, V> = next(pins, name)?;
    let mut found = Vec::new();
    old.walk(|key: &FlowKey, value| {
        if !known.contains(key) {
            found.push((*key, value));
        }
    })?;
    for (key, value) in found {
        match new.insert(key, value, NEW) {
            Ok(()) => {}
            Err(error) => match errno(&error) {
                Some(libc::EEXIST) => {}
                Some(libc::E2BIG) => return Err(pins.no_room()),
                _ => return Err(failed(name, "updated")(error)),
            },
        }
        known.insert(key);
    }
    Ok(())
}
