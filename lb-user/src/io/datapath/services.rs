//! The map of services.
//!
//! The kernel hands an entry that was replaced or removed out again at once, and may fill it while a
//! packet copies it: half of another service, or all of it. So the next entry is written when no
//! packet can still read the one before.

use aya::{
    Ebpf,
    maps::{HashMap, MapData},
};
use lb_common::abi::{self, Service, ServiceKey};

use super::{
    DatapathError,
    apply::{await_grace_period, is_missing},
    error::failed,
    take,
};

/// Fails if the key is there.
const NEW: u64 = 1;

/// See the module.
#[derive(Debug)]
pub(super) struct Services {
    map: HashMap<MapData, ServiceKey, Service>,
    /// Whether a packet may still read an entry that the next one would be written over.
    is_one_freed: bool,
}

impl Services {
    pub(super) fn open(ebpf: &mut Ebpf) -> Result<Self, DatapathError> {
        Ok(Self {
            map: take(ebpf, abi::SERVICES)?,
            is_one_freed: false,
        })
    }

    pub(super) fn set(&mut self, key: &ServiceKey, service: &Service) -> Result<(), DatapathError> {
        self.wait();
        // Most are new when there are many.
        if self.map.insert(key, service, NEW).is_ok() {
            return Ok(());
        }
        self.is_one_freed = true;
        let replaced = self.map.insert(key, service, 0);
        replaced.map_err(failed(abi::SERVICES, "updated"))
    }

    pub(super) fn remove(&mut self, key: &ServiceKey) -> Result<(), DatapathError> {
        self.is_one_freed = true;
        match self.map.remove(key) {
            Err(error) if is_missing(&error) => Ok(()),
            other => other.map_err(failed(abi::SERVICES, "updated")),
        }
    }

    /// Waits until no packet reads a freed entry, if there may be one.
    fn wait(&mut self) {
        if self.is_one_freed {
            self.note_grace_period();
            await_grace_period();
        }
    }

    /// Says that no packet from before reads anything any more.
    pub(super) const fn note_grace_period(&mut self) {
        self.is_one_freed = false;
    }
}
