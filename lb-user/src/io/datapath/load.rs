//! How many flows backends have: what the program counts, put right by walks.

use std::os::fd::AsFd as _;

use aya::{
    Ebpf,
    maps::{Array, Map, MapData, MapError},
};
use lb_common::abi::{self, Backend, BackendId, Load};

use super::{Datapath, DatapathError, error::failed};
use crate::core::load::Census;

impl Datapath {
    /// Corrects what the program counts of a backend by what a walk has found, unless its id has
    /// another user since.
    ///
    /// # Errors
    /// If the kernel does not let it be read or changed.
    pub fn correct_load(
        &mut self,
        id: BackendId,
        epoch: u16,
        census: &Census,
    ) -> Result<(), DatapathError> {
        let entry = self.backend_entry(id)?;
        let correction = census.correct(entry.correction());
        if entry.epoch() != epoch || entry.correction() == correction {
            return Ok(());
        }
        self.write_backend(id, entry.with_correction(correction))
    }

    /// The flows that a backend has, as the program sees it.
    ///
    /// # Errors
    /// If the kernel does not let it be read.
    pub fn open_flows(&self, id: BackendId) -> Result<u64, DatapathError> {
        let entry = self.backend_entry(id)?;
        let open = read(&self.loads, id)?.open(entry.correction());
        Ok(u64::try_from(open).unwrap_or(0))
    }

    /// The entry that is to be written for a backend, with the correction that it needs: that of the
    /// entry that is there, or one that makes a new user of the id begin with nothing.
    pub(super) fn with_correction(
        &self,
        id: BackendId,
        new: Backend,
    ) -> Result<Backend, DatapathError> {
        let old = self.backend_entry(id)?;
        let correction = if old.epoch() == new.epoch() {
            old.correction()
        } else {
            read(&self.loads, id)?.open(0).wrapping_neg()
        };
        Ok(new.with_correction(correction))
    }
}

/// A handle of the counters; there is more than one.
pub(super) fn open(ebpf: &Ebpf) -> Result<Array<MapData, Load>, DatapathError> {
    let missing = || DatapathError::Missing { name: abi::LOADS };
    let Map::Array(data) = ebpf.map(abi::LOADS).ok_or_else(missing)? else {
        return Err(missing());
    };
    let fd = data.fd().as_fd().try_clone_to_owned();
    let fd = fd.map_err(|error| failed(abi::LOADS, "opened")(MapError::IoError(error)))?;
    MapData::from_fd(fd)
        .and_then(Map::from_map_data)
        .and_then(Array::try_from)
        .map_err(failed(abi::LOADS, "opened"))
}

pub(super) fn read(loads: &Array<MapData, Load>, id: BackendId) -> Result<Load, DatapathError> {
    let load = loads.get(&u32::from(id.0), 0);
    load.map_err(failed(abi::LOADS, "read"))
}
