//! Looking at single flows, while the sweeper has the tables.

use std::{os::fd::AsFd as _, time::Duration};

use aya::{
    Ebpf, Pod,
    maps::{Array, HashMap, Map, MapData, MapError},
};
use lb_common::{
    abi::{self, Bucket, Flow, FlowKey, Ip, ServiceId, SourceKey, Tick},
    challenge::is_fresh,
    flow::HashKeys,
};

use super::{Datapath, DatapathError, error::failed, sweep::now, take};
use crate::core::trace::{GuardMemory, RecordedFlow};

/// Second handles of the flow tables.
pub(super) struct Lookup {
    flows: HashMap<MapData, FlowKey, Flow>,
    half_open: HashMap<MapData, FlowKey, Flow>,
    answered: HashMap<MapData, SourceKey, u32>,
    sources: HashMap<MapData, SourceKey, Bucket>,
    services: Array<MapData, Bucket>,
}

impl Lookup {
    pub(super) fn open(ebpf: &mut Ebpf) -> Result<Self, DatapathError> {
        Ok(Self {
            flows: second(ebpf, abi::FLOWS)?,
            half_open: second(ebpf, abi::HALF_OPEN)?,
            answered: take(ebpf, abi::ANSWERED)?,
            sources: take(ebpf, abi::SOURCE_BUCKETS)?,
            services: take(ebpf, abi::SERVICE_BUCKETS)?,
        })
    }
}

impl Datapath {
    /// The secret of the flow hash.
    #[must_use]
    pub const fn hash_keys(&self) -> HashKeys {
        self.keys
    }

    /// The record of a flow, from client to VIP.
    ///
    /// # Errors
    /// If the kernel does not let the tables be read.
    pub fn flow(&self, key: &FlowKey) -> Result<Option<RecordedFlow>, DatapathError> {
        let now = now();
        let found = |flow, half_open| recorded(*key, flow, half_open, now);
        if let Some(flow) = get(&self.lookup.flows, abi::FLOWS, key)? {
            return Ok(Some(found(flow, false)));
        }
        let flow = get(&self.lookup.half_open, abi::HALF_OPEN, key)?;
        Ok(flow.map(|flow| found(flow, true)))
    }

    /// What the guard of a service remembers of a client, and of all of them.
    ///
    /// # Errors
    /// If the kernel does not let it be read.
    pub fn guard_memory(&self, client: Ip, id: ServiceId) -> Result<GuardMemory, DatapathError> {
        let Lookup {
            answered,
            sources,
            services,
            ..
        } = &self.lookup;
        let anywhere = SourceKey::new(client, ServiceId(0));
        let answer = get(answered, abi::ANSWERED, &anywhere)?;
        let source = get(sources, abi::SOURCE_BUCKETS, &SourceKey::new(client, id))?;
        let service = services.get(&u32::from(id.0), 0);
        Ok(GuardMemory {
            answered: answer.is_some_and(|then| is_fresh(Tick(then), now())),
            source: source.unwrap_or_default().0,
            service: service.map_err(failed(abi::SERVICE_BUCKETS, "read"))?.0,
            now: monotonic(),
        })
    }

    /// Recorded flows of a client, `most` at most. Walks the tables: a system call a flow.
    ///
    /// # Errors
    /// If the kernel does not let the tables be read.
    pub fn flows_of(&self, client: Ip, most: usize) -> Result<Vec<RecordedFlow>, DatapathError> {
        let tables = [
            (&self.lookup.flows, abi::FLOWS, false),
            (&self.lookup.half_open, abi::HALF_OPEN, true),
        ];
        let now = now();
        let mut found = Vec::new();
        for (table, name, half_open) in tables {
            // As in the sweeper's walk: a bound, as the kernel may start again from the front.
            for entry in table.iter().take(self.flow_capacity) {
                let (key, flow) = match entry {
                    Ok(entry) => entry,
                    Err(MapError::KeyNotFound) => continue,
                    Err(error) => return Err(failed(name, "read")(error)),
                };
                if key.source() == client {
                    found.push(recorded(key, flow, half_open, now));
                }
                if found.len() >= most {
                    return Ok(found);
                }
            }
        }
        Ok(found)
    }
}

fn recorded(key: FlowKey, flow: Flow, half_open: bool, now: Tick) -> RecordedFlow {
    let ticks = now.since(Tick(flow.seen));
    RecordedFlow {
        key,
        flow,
        half_open,
        silent: Duration::from_nanos(u64::from(ticks) << 30),
    }
}

pub(super) fn second<V: Pod>(
    ebpf: &Ebpf,
    name: &'static str,
) -> Result<HashMap<MapData, FlowKey, V>, DatapathError> {
    let missing = || DatapathError::Missing { name };
    let (Map::HashMap(data) | Map::LruHashMap(data)) = ebpf.map(name).ok_or_else(missing)? else {
        return Err(missing());
    };
    let map = another(data, name)?;
    HashMap::try_from(map).map_err(failed(name, "opened"))
}

/// A second handle of an array.
pub(super) fn second_array<V: Pod>(
    ebpf: &Ebpf,
    name: &'static str,
) -> Result<Array<MapData, V>, DatapathError> {
    let missing = || DatapathError::Missing { name };
    let Map::Array(data) = ebpf.map(name).ok_or_else(missing)? else {
        return Err(missing());
    };
    let map = another(data, name)?;
    Array::try_from(map).map_err(failed(name, "opened"))
}

pub(super) fn another(data: &MapData, name: &'static str) -> Result<Map, DatapathError> {
    let fd = data.fd().as_fd().try_clone_to_owned();
    let fd = fd.map_err(|error| failed(name, "opened")(MapError::IoError(error)))?;
    MapData::from_fd(fd)
        .and_then(Map::from_map_data)
        .map_err(failed(name, "opened"))
}

/// The kernel's clock of buckets, events and leases, in nanoseconds.
#[must_use]
pub fn monotonic() -> u64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    time.tv_sec.unsigned_abs() * 1_000_000_000 + time.tv_nsec.unsigned_abs()
}

pub(super) fn get<K: Pod, V: Pod>(
    table: &HashMap<MapData, K, V>,
    name: &'static str,
    key: &K,
) -> Result<Option<V>, DatapathError> {
    match table.get(key, 0) {
        Ok(flow) => Ok(Some(flow)),
        Err(MapError::KeyNotFound) => Ok(None),
        Err(error) => Err(failed(name, "read")(error)),
    }
}
