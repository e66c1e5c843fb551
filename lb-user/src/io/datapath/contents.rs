//! Reading back what the maps hold, for a daemon that finds them in use.

use std::{collections::BTreeMap, net::IpAddr};

use aya::{
    Pod,
    maps::{Array, MapData},
};
use lb_common::abi::{self, Access, AccessKey, BackendId, Service, ServiceId, Slot};

use super::{Datapath, DatapathError, error::failed};
use crate::{
    config::model::Prefix,
    core::restore::{self, Contents, Entries},
};

impl Datapath {
    /// What the maps hold, if another process has filled them; markers that half a change has left or
    /// has not brought are put right.
    ///
    /// # Errors
    /// If the kernel does not let them be read.
    pub fn adopted(&mut self) -> Result<Option<Contents>, DatapathError> {
        let Some(pinned) = self.pinned.as_ref().filter(|pinned| pinned.is_adopted()) else {
            return Ok(None);
        };
        let services = self.services.all()?;
        let own = services.values().filter(|entry| !entry.is_marker());
        let mut contents = Contents {
            backends: BTreeMap::new(),
            tables: BTreeMap::new(),
            learning: BTreeMap::new(),
            rates: BTreeMap::new(),
            access: self.access_entries()?,
            nat_pool: get(&self.nat_pool, abi::NAT_POOL, 0)?,
            tunnel_sources: get(&self.tunnel_sources, abi::TUNNEL_SOURCES, 0)?,
            services: BTreeMap::new(),
        };
        for entry in own {
            let id = entry.id();
            if entry.has_backends() {
                contents.tables.insert(id, self.table(entry)?);
            }
            let until = pinned.noted(id)?;
            contents.learning.extend(until.map(|until| (id, until)));
            let rates = get(&self.rates, abi::RATES, u32::from(id.0))?;
            contents.rates.insert(id, rates);
        }
        for id in (0..self.backends.len()).filter_map(|id| u16::try_from(id).ok()) {
            let id = BackendId(id);
            contents.backends.insert(id, self.backend_entry(id)?);
        }
        let (missing, stray) = restore::markers(&services);
        for key in &missing {
            self.services.set(key, &Service::marker())?;
        }
        for key in &stray {
            self.services.remove(key)?;
        }
        contents.services = services;
        Ok(Some(contents))
    }

    /// The active table of a service.
    fn table(&self, service: &Service) -> Result<Entries, DatapathError> {
        let first = service.table();
        let ring = first + abi::SLOT_LINES;
        let read = |lines, count: usize| {
            let mut slots = Vec::with_capacity(count + abi::SLOTS_PER_LINE as usize);
            for line in lines {
                slots.extend(get(&self.slots, abi::SLOTS, line)?.0);
            }
            slots.truncate(count);
            Ok::<Vec<Slot>, DatapathError>(slots)
        };
        let turns = read(ring..first + abi::TABLE_LINES, service.ring_length().into())?;
        Ok(Entries {
            slots: read(first..ring, abi::SLOT_COUNT as usize)?,
            ring: turns.iter().map(|turn| turn.owner()).collect(),
        })
    }

    fn access_entries(
        &self,
    ) -> Result<BTreeMap<ServiceId, BTreeMap<Prefix, Access>>, DatapathError> {
        let mut lists: BTreeMap<ServiceId, BTreeMap<Prefix, Access>> = BTreeMap::new();
        for entry in self.access.iter() {
            let (key, access) = entry.map_err(failed(abi::ACCESS, "read"))?;
            let (bits, data) = (key.prefix_len(), key.data());
            let address = data.address();
            let length = AccessKey::length_of(address.is_v4(), bits);
            let Some(prefix) = Prefix::new(IpAddr::from(address), length) else {
                continue;
            };
            let access = if access == Access::Allow as u32 {
                Access::Allow
            } else {
                Access::Deny
            };
            lists
                .entry(data.service())
                .or_default()
                .insert(prefix, access);
        }
        Ok(lists)
    }
}

fn get<V: Pod>(
    map: &Array<MapData, V>,
    name: &'static str,
    index: u32,
) -> Result<V, DatapathError> {
    map.get(&index, 0).map_err(failed(name, "read"))
}
