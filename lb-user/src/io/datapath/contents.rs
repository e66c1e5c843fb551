//! Reading back what pinned maps hold, for a daemon that finds them in use.

use std::{collections::BTreeMap, net::IpAddr};

use aya::{
    Pod,
    maps::{Array, LpmTrie, Map, MapData, MapError},
};
use lb_common::abi::{
    self, Access, AccessKey, Backend, BackendId, NatPool, Rates, Service, ServiceId, ServiceKey,
    Slot, SlotLine, Tick, TunnelSources,
};

use super::{
    Datapath, DatapathError,
    error::failed,
    pins::{Left, NOTES, Pinned, Pins, note_at},
};
use crate::{
    config::model::Prefix,
    core::{
        image::{MapImage, MapOp},
        plan,
        restore::{self, Contents, Entries},
    },
};

/// Maps that another process has filled, by handles of their own.
struct Held {
    services: Left<Service>,
    backends: Left<Backend>,
    slots: Array<MapData, SlotLine>,
    rates: Left<Rates>,
    access: LpmTrie<MapData, AccessKey, u32>,
    nat_pool: Left<NatPool>,
    tunnel_sources: Left<TunnelSources>,
    notes: Array<MapData, u32>,
}

impl Datapath {
    /// The image of what another process has left, if it has; the maps hold it from here on, if they
    /// are not the same.
    ///
    /// # Errors
    /// If the kernel does not let maps be read or filled; if they are too small.
    pub fn adopted(&mut self) -> Result<Option<MapImage>, DatapathError> {
        let Some(found) = self.pinned.as_ref().and_then(Pinned::found) else {
            return Ok(None);
        };
        let contents = Held::open(found)?.contents()?;
        let image = restore::image(&contents, super::now());
        if let Some(pinned) = &mut self.pinned
            && pinned.is_moving()
        {
            pinned.copy(&image)?;
            self.apply(&plan::diff(&MapImage::empty(), &image))?;
            return Ok(Some(image));
        }
        let (missing, stray) = restore::markers(&contents.services);
        let missing = missing
            .into_iter()
            .map(|key| MapOp::SetService(key, Service::marker()));
        let stray = stray.into_iter().map(MapOp::RemoveService);
        let unheard = restore::unheard(&contents)
            .into_iter()
            .map(|(id, prefixes)| MapOp::RemoveAccess(id, prefixes));
        self.apply(&missing.chain(stray).chain(unheard).collect::<Vec<_>>())?;
        Ok(Some(image))
    }
}

impl Held {
    fn open(pins: &Pins) -> Result<Self, DatapathError> {
        Ok(Self {
            services: Left::open(pins, abi::SERVICES)?,
            backends: Left::open(pins, abi::BACKENDS)?,
            slots: open(pins, abi::SLOTS)?,
            rates: Left::open(pins, abi::RATES)?,
            access: open(pins, abi::ACCESS)?,
            nat_pool: Left::open(pins, abi::NAT_POOL)?,
            tunnel_sources: Left::open(pins, abi::TUNNEL_SOURCES)?,
            notes: open(pins, NOTES)?,
        })
    }

    fn contents(&self) -> Result<Contents, DatapathError> {
        let mut services = BTreeMap::new();
        self.services.walk(|key: &ServiceKey, service| {
            services.insert(*key, service);
        })?;
        let mut contents = Contents {
            services,
            backends: BTreeMap::new(),
            tables: BTreeMap::new(),
            learning: BTreeMap::new(),
            rates: BTreeMap::new(),
            access: self.access_lists()?,
            nat_pool: self.nat_pool.get(0)?,
            tunnel_sources: self.tunnel_sources.get(0)?,
        };
        for entry in contents.services.values() {
            if entry.is_marker() {
                continue;
            }
            let id = entry.id();
            if entry.has_backends() {
                contents.tables.insert(id, self.table(entry)?);
            }
            let until = get(&self.notes, NOTES, note_at(id, entry.generation()))?;
            contents
                .learning
                .extend((until > 0).then_some((id, Tick(until))));
            let rates = self.rates.get(u32::from(id.0))?;
            contents.rates.insert(id, rates);
        }
        for id in (0..self.backends.room()).filter_map(|id| u16::try_from(id).ok()) {
            let entry = self.backends.get(id.into())?;
            contents.backends.insert(BackendId(id), entry);
        }
        Ok(contents)
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

    fn access_lists(&self) -> Result<BTreeMap<ServiceId, BTreeMap<Prefix, Access>>, DatapathError> {
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
            let list = lists.entry(data.service()).or_default();
            list.insert(prefix, access);
        }
        Ok(lists)
    }
}

fn open<T: TryFrom<Map, Error = MapError>>(
    pins: &Pins,
    name: &'static str,
) -> Result<T, DatapathError> {
    super::pins::open(&pins.path(name)).map_err(failed(name, "opened"))
}

fn get<V: Pod>(
    map: &Array<MapData, V>,
    name: &'static str,
    index: u32,
) -> Result<V, DatapathError> {
    map.get(&index, 0).map_err(failed(name, "read"))
}
