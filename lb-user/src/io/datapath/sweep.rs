//! Forgetting tracked flows that are over, and finding out about those that are not.
//!
//! The program never removes an established flow: only a clock can tell that it has ended. A round
//! looks at every flow, then at every reply translation, and removes those without a flow: that
//! frees their ports. What is over is the [`Judge`]'s to say. The daemon runs rounds on a thread of
//! their own, which is why [`Sweeper`] is separate from the datapath.

use std::{
    collections::{BTreeMap, hash_map::RandomState},
    hash::BuildHasher as _,
    io,
    os::fd::{AsFd as _, OwnedFd},
    sync::Arc,
};

use aya::{
    Ebpf,
    maps::{Array, HashMap, Map, MapData, MapError},
};
use lb_common::{
    abi::{self, Flow, FlowKey, Load, Reply, Tick},
    flow::HashKeys,
};

use super::{DatapathError, Limits, apply::is_missing, batch, error::failed, take};
use crate::core::{
    flows::{Fate, Judge, Place, Sight},
    load::{self, Loads},
    settle::Findings,
    sync::source::Walk,
};

/// What a round found and did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FlowCounts {
    /// Flows that have sent data, and are not over.
    pub tracked: u64,
    /// Flows that have only sent a SYN.
    pub half_open: u64,
    /// Flows that were over, or need no record, hence removed.
    pub removed: u64,
}

/// What came of a round.
#[derive(Clone, Debug)]
pub struct Round {
    pub counts: FlowCounts,
    pub findings: Findings,
}

/// The flow tables.
pub struct Sweeper {
    keys: HashKeys,
    flows: Table<Flow>,
    half_open: Table<Flow>,
    replies: Table<Reply>,
    half_open_replies: Table<Reply>,
    full: Array<MapData, u32>,
    loads: Array<MapData, Load>,
    keep_alives: Array<MapData, u32>,
    capacity: u64,
    /// Flows that the last round left in the larger table.
    tracked: u64,
}

impl Sweeper {
    pub(super) fn new(
        ebpf: &mut Ebpf,
        limits: &Limits,
        (keys, keep_alives): (HashKeys, Array<MapData, u32>),
    ) -> Result<Self, DatapathError> {
        Ok(Self {
            keys,
            flows: Table::take(ebpf, abi::FLOWS)?,
            half_open: Table::take(ebpf, abi::HALF_OPEN)?,
            replies: Table::take(ebpf, abi::REPLIES)?,
            half_open_replies: Table::take(ebpf, abi::HALF_OPEN_REPLIES)?,
            full: take(ebpf, abi::FLOWS_FULL)?,
            loads: super::load::open(ebpf)?,
            keep_alives,
            capacity: limits.flows.into(),
            tracked: 0,
        })
    }

    /// Whether the program was last told that there is room for flows.
    ///
    /// # Errors
    /// If the kernel does not let it be read.
    pub fn has_room(&self) -> Result<bool, DatapathError> {
        let full = self.full.get(&0, 0);
        Ok(full.map_err(failed(abi::FLOWS_FULL, "read"))? == 0)
    }

    /// Removes every flow that was silent for too long, was closed long enough ago, never got past
    /// its first packet, or goes the same way without a record; then the replies whose flow is gone,
    /// which frees their ports.
    ///
    /// Blocks for as long as the tables are large.
    ///
    /// # Errors
    /// If the kernel does not let a table be read or changed.
    pub fn round(&mut self, sight: &Sight) -> Result<Round, DatapathError> {
        self.round_noting(sight, None)
    }

    /// The same, and has `walk` take down what a peer is told of.
    ///
    /// # Errors
    /// As [`Self::round`].
    pub fn round_noting(
        &mut self,
        sight: &Sight,
        mut walk: Option<&mut Walk>,
    ) -> Result<Round, DatapathError> {
        let started = now();
        let before = self.loads(sight)?;
        // By the last round: half empty is far from full.
        let is_roomy = self.tracked < self.capacity / 2;
        let mut judge = Judge::new(sight, self.keys, started, is_roomy);
        let mut translated = Translated::default();
        let mut nobody = |_: &FlowKey, _: &Flow| {};
        // A flow moves from the first to the second, inserted before it is removed.
        let (half_open, begun) =
            self.half_open
                .judge(Place::HalfOpen, &mut judge, &mut translated, &mut nobody)?;
        let (tracked, established) = self.flows.judge(
            Place::Established,
            &mut judge,
            &mut translated,
            &mut |key, flow| {
                if let Some(walk) = walk.as_deref_mut() {
                    walk.note(key, flow);
                }
            },
        )?;
        self.tracked = tracked;
        let has_room = self.look_for_room(tracked)?;
        translated.0.sort_unstable();
        let (flows, half_open_flows) = (&self.flows, &self.half_open);
        let is_orphan = |key: &FlowKey, reply: &Reply| {
            let client = client(key, reply);
            if translated.has(&client, reply_port(key)) {
                return Ok(false);
            }
            has_flow([flows, half_open_flows, flows], &client, reply_port(key)).map(|has| !has)
        };
        self.replies.forget_if(is_orphan)?;
        if let Some(walk) = walk {
            self.note_beside_flows(walk)?;
        }
        self.half_open_replies.forget_if(is_orphan)?;
        let complete = !judge.is_behind;
        let (strays, sessions) = judge.finish();
        // What a walk has missed would be taken for ended.
        let after = if complete {
            self.loads(sight)?
        } else {
            BTreeMap::new()
        };
        let loads = load::censuses(&before, &after, &sessions);
        Ok(Round {
            counts: FlowCounts {
                tracked,
                half_open,
                removed: established + begun,
            },
            findings: Findings {
                image: Arc::clone(&sight.image),
                started,
                complete,
                has_room,
                strays,
                sessions,
                loads,
            },
        })
    }

    /// Has a walk take down what is not in the flow tables.
    fn note_beside_flows(&self, walk: &mut Walk) -> Result<(), DatapathError> {
        if walk.flows.iter().any(|(_, flow)| flow.is_translated()) {
            self.replies.walk(|key, reply| {
                walk.note_client(client(key, reply), reply.next_hop.mac);
            })?;
        }
        for key in &walk.services {
            let Some(service) = walk.image.services.get(key) else {
                continue;
            };
            let seconds = self.keep_alives.get(&u32::from(service.id.0), 0);
            let seconds = seconds.map_err(failed(abi::KEEP_ALIVES, "read"))?;
            walk.keep_alives.insert(*key, seconds);
        }
        Ok(())
    }

    /// What the program has counted of those backends that it counts, by id and epoch.
    fn loads(&self, sight: &Sight) -> Result<Loads, DatapathError> {
        let counted = sight.image.backends.iter();
        counted
            .filter(|(_, backend)| backend.counted)
            .map(|(id, backend)| Ok(((*id, backend.epoch), super::load::read(&self.loads, *id)?)))
            .collect()
    }

    /// Tells the program whether to go easy on the table of established flows, and says whether all
    /// of them have found room since the last time.
    fn look_for_room(&mut self, tracked: u64) -> Result<bool, DatapathError> {
        let was_full = !self.has_room()?;
        // The rest is for flows of sessions that are there already, should a flood of others come.
        let is_crowded = tracked * 100 >= self.capacity * 95;
        let is_roomy = tracked * 10 <= self.capacity * 9;
        let is_full = is_crowded || (was_full && !is_roomy);
        if is_full != was_full {
            self.full
                .set(0, u32::from(is_full), 0)
                .map_err(failed(abi::FLOWS_FULL, "updated"))?;
        }
        Ok(!was_full && !is_full)
    }
}

/// The flows that are translated, with their ports, as hashes: a look-up of each would be a system
/// call a flow.
#[derive(Default)]
struct Translated(Vec<u64>, RandomState);

impl Translated {
    fn note(&mut self, client: &FlowKey, flow: &Flow) {
        if flow.is_translated() {
            let port = u16::from_be_bytes(flow.nat_port());
            self.0.push(self.1.hash_one((client, port)));
        }
    }

    /// By the sorted list.
    fn has(&self, client: &FlowKey, port: u16) -> bool {
        self.0
            .binary_search(&self.1.hash_one((client, port)))
            .is_ok()
    }
}

fn client(key: &FlowKey, reply: &Reply) -> FlowKey {
    FlowKey::new(
        reply.client,
        reply.vip,
        u16::from_be_bytes(reply.client_port),
        u16::from_be_bytes(reply.vip_port),
        key.protocol(),
    )
}

/// The port of the balancer's that a reply is sent to.
const fn reply_port(key: &FlowKey) -> u16 {
    key.destination_port()
}

/// The program inserts into one table before it removes from the other, so a flow on its way from
/// the second to the first is missed only by looking in that order; hence the third look.
fn has_flow(tables: [&Table<Flow>; 3], client: &FlowKey, port: u16) -> Result<bool, DatapathError> {
    for table in tables {
        let flow = table.get(client)?;
        let has = |flow: Flow| flow.is_translated() && flow.nat_port() == port.to_be_bytes();
        if flow.is_some_and(has) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// One table, with its name for errors.
#[derive(Debug)]
struct Table<V: aya::Pod> {
    map: HashMap<MapData, FlowKey, V>,
    /// The same map, for batches.
    fd: OwnedFd,
    name: &'static str,
}

impl<V: aya::Pod> Table<V> {
    fn take(ebpf: &mut Ebpf, name: &'static str) -> Result<Self, DatapathError> {
        let map = ebpf.take_map(name).ok_or(DatapathError::Missing { name })?;
        let (Map::HashMap(data) | Map::LruHashMap(data)) = &map else {
            return Err(DatapathError::Missing { name });
        };
        let fd = data.fd().as_fd().try_clone_to_owned();
        let fd = fd.map_err(|source| DatapathError::Walk { name, source })?;
        let map = map.try_into().map_err(failed(name, "opened"))?;
        Ok(Self { map, fd, name })
    }

    fn get(&self, key: &FlowKey) -> Result<Option<V>, DatapathError> {
        match self.map.get(key, 0) {
            Ok(value) => Ok(Some(value)),
            Err(MapError::KeyNotFound) => Ok(None),
            Err(error) => Err(failed(self.name, "read")(error)),
        }
    }

    fn walk(&self, visit: impl FnMut(&FlowKey, &V)) -> Result<(), DatapathError> {
        let walked = batch::walk(self.fd.as_fd(), visit);
        walked.map_err(|source: io::Error| DatapathError::Walk {
            name: self.name,
            source,
        })
    }

    /// Removes what `is_over` says is over.
    ///
    /// An entry is looked at again right before it goes: it may have come to life since.
    fn forget_if(
        &mut self,
        is_over: impl Fn(&FlowKey, &V) -> Result<bool, DatapathError>,
    ) -> Result<(), DatapathError> {
        let mut over = Vec::new();
        let mut outcome = Ok(());
        self.walk(|key, value| match is_over(key, value) {
            Ok(true) => over.push(*key),
            Ok(false) => {}
            Err(error) => outcome = Err(error),
        })?;
        outcome?;
        for key in over {
            if let Some(value) = self.get(&key)?
                && is_over(&key, &value)?
            {
                self.forget(&key)?;
            }
        }
        Ok(())
    }

    fn forget(&mut self, key: &FlowKey) -> Result<(), DatapathError> {
        match self.map.remove(key) {
            Err(error) if is_missing(&error) => Ok(()),
            other => other.map_err(failed(self.name, "updated")),
        }
    }
}

impl Table<Flow> {
    /// Removes what the judge does not let stay; returns how many stay and how many went.
    ///
    /// As with [`Self::forget_if`], on a second look.
    fn judge(
        &mut self,
        place: Place,
        judge: &mut Judge,
        translated: &mut Translated,
        stays: &mut impl FnMut(&FlowKey, &Flow),
    ) -> Result<(u64, u64), DatapathError> {
        let mut leaving = Vec::new();
        let mut stay = 0;
        self.walk(|key, flow| match judge.judge(place, key, flow) {
            Fate::Stays => {
                stay += 1;
                translated.note(key, flow);
                stays(key, flow);
            }
            Fate::Over | Fate::Needless => leaving.push(*key),
        })?;
        let mut gone = 0;
        for key in leaving {
            let Some(flow) = self.get(&key)? else {
                continue;
            };
            match judge.judge(place, &key, &flow) {
                Fate::Stays => {
                    stay += 1;
                    translated.note(&key, &flow);
                    stays(&key, &flow);
                }
                Fate::Over | Fate::Needless => {
                    self.forget(&key)?;
                    gone += 1;
                }
            }
        }
        Ok((stay, gone))
    }
}

/// The kernel's clock of flows.
#[must_use]
pub fn now() -> Tick {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    let nanos = time.tv_sec.unsigned_abs() * 1_000_000_000 + time.tv_nsec.unsigned_abs();
    Tick::from_nanos(nanos)
}
