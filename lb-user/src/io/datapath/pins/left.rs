//! Maps that another version may have left, whose values are longer or shorter than this one's.
//!
//! From one layout to the next of the same number values grow at their end only, and zero there means
//! what it meant before. So what this version has beyond the other is zero, and what the other has beyond
//! this one is left out: an upgrade and a downgrade read each other's maps alike.

use std::{marker::PhantomData, os::fd::AsFd as _};

use aya::{
    Pod,
    maps::{MapData, MapError},
};

use super::Pins;
use crate::io::datapath::{DatapathError, batch, error::failed};

/// A pinned map of values `V`, or of what another version has for them.
pub(in crate::io::datapath) struct Left<V> {
    map: MapData,
    name: &'static str,
    value_size: usize,
    entries: u32,
    values: PhantomData<V>,
}

impl<V: Pod> Left<V> {
    /// Opens what is pinned under that name.
    pub(in crate::io::datapath) fn open(
        pins: &Pins,
        name: &'static str,
    ) -> Result<Self, DatapathError> {
        let map = MapData::from_pin(pins.path(name)).map_err(failed(name, "opened"))?;
        let info = map.info().map_err(failed(name, "opened"))?;
        Ok(Self {
            value_size: info.value_size() as usize,
            entries: info.max_entries(),
            map,
            name,
            values: PhantomData,
        })
    }

    /// How many entries it has room for; an array has them all.
    pub(in crate::io::datapath) const fn room(&self) -> u32 {
        self.entries
    }

    /// An entry of an array.
    pub(in crate::io::datapath) fn get(&self, index: u32) -> Result<V, DatapathError> {
        let mut bytes = vec![0; self.value_size];
        let read = batch::look_up_one(self.map.fd().as_fd(), index, &mut bytes);
        let read = read.map_err(MapError::IoError);
        read.map_err(failed(self.name, "read"))?;
        Ok(batch::fit(&bytes))
    }

    /// Calls `visit` with every entry of a hash map of `K`.
    pub(in crate::io::datapath) fn walk<K: Pod>(
        &self,
        mut visit: impl FnMut(&K, V),
    ) -> Result<(), DatapathError> {
        let walked = batch::walk_bytes(
            self.map.fd().as_fd(),
            self.value_size,
            |key: &K, value: &[u8]| visit(key, batch::fit(value)),
        );
        walked.map_err(|source| DatapathError::Walk {
            name: self.name,
            source,
        })
    }
}
