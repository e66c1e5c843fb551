//! Records of flows that a peer has told of.
//!
//! Beside the program, which makes records of its own, and beside the sweeper, which takes those away
//! that are over: a node writes here what concerns the VIPs that it stands by for.

use std::{
    collections::BTreeSet,
    os::fd::{AsFd as _, OwnedFd},
};

use aya::{
    Ebpf,
    maps::{HashMap, Map, MapData},
};
use lb_common::abi::{self, Flow, FlowKey, Reply, ServiceKey};

use super::{DatapathError, apply::is_missing, batch, error::failed, lookup::second};
use crate::core::sync::names::Local;

/// Writes into the flow tables.
pub struct Recorder {
    flows: HashMap<MapData, FlowKey, Flow>,
    half_open: HashMap<MapData, FlowKey, Flow>,
    replies: HashMap<MapData, FlowKey, Reply>,
    /// The first two again, for batches.
    fds: [(OwnedFd, &'static str); 2],
}

/// Whether a record has found room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Recorded {
    Done,
    NoRoom,
}

impl Recorder {
    pub(super) fn open(ebpf: &Ebpf) -> Result<Self, DatapathError> {
        Ok(Self {
            flows: second(ebpf, abi::FLOWS)?,
            half_open: second(ebpf, abi::HALF_OPEN)?,
            replies: second(ebpf, abi::REPLIES)?,
            fds: [fd(ebpf, abi::FLOWS)?, fd(ebpf, abi::HALF_OPEN)?],
        })
    }

    /// Records a flow, in place of what was recorded of it.
    ///
    /// # Errors
    /// If the kernel does not let the tables be changed, but for want of room.
    pub fn record(&mut self, key: &FlowKey, local: &Local) -> Result<Recorded, DatapathError> {
        let Local { flow, reply } = local;
        // In this order: the sweeper takes replies away that are no flow's.
        if insert(&mut self.flows, abi::FLOWS, key, flow)? == Recorded::NoRoom {
            return Ok(Recorded::NoRoom);
        }
        let Some((reply_key, reply)) = reply else {
            return Ok(Recorded::Done);
        };
        let outcome = insert(&mut self.replies, abi::REPLIES, reply_key, reply)?;
        if outcome == Recorded::NoRoom {
            remove(&mut self.flows, abi::FLOWS, key)?;
        }
        Ok(outcome)
    }

    /// Forgets a flow. If it was translated, the sweeper finds its reply.
    ///
    /// # Errors
    /// If the kernel does not let the tables be changed.
    pub fn forget(&mut self, key: &FlowKey) -> Result<(), DatapathError> {
        remove(&mut self.flows, abi::FLOWS, key)?;
        remove(&mut self.half_open, abi::HALF_OPEN, key)
    }

    /// Forgets the flows of some services that are not among those named; says how many these were.
    /// Asks of each again whether it is the peer's, just before: a walk over large tables takes a while.
    ///
    /// # Errors
    /// If the kernel does not let the tables be read or changed.
    pub fn retain(
        &mut self,
        services: &BTreeSet<ServiceKey>,
        is_named: impl Fn(&FlowKey) -> bool,
        is_peers: impl Fn(&FlowKey) -> bool,
    ) -> Result<u64, DatapathError> {
        let mut stale = Vec::new();
        for (fd, name) in &self.fds {
            let walked = batch::walk(fd.as_fd(), |key: &FlowKey, _: &Flow| {
                if services.contains(&key.service()) && !is_named(key) {
                    stale.push(*key);
                }
            });
            walked.map_err(|source| DatapathError::Walk { name, source })?;
        }
        let mut count = 0;
        for key in stale.iter().filter(|key| is_peers(key)) {
            self.forget(key)?;
            count += 1;
        }
        Ok(count)
    }
}

fn insert<V: aya::Pod>(
    map: &mut HashMap<MapData, FlowKey, V>,
    name: &'static str,
    key: &FlowKey,
    value: &V,
) -> Result<Recorded, DatapathError> {
    match map.insert(key, value, 0) {
        Ok(()) => Ok(Recorded::Done),
        Err(error) if matches!(super::errno(&error), Some(libc::E2BIG | libc::ENOMEM)) => {
            Ok(Recorded::NoRoom)
        }
        Err(error) => Err(failed(name, "updated")(error)),
    }
}

fn remove<V: aya::Pod>(
    map: &mut HashMap<MapData, FlowKey, V>,
    name: &'static str,
    key: &FlowKey,
) -> Result<(), DatapathError> {
    match map.remove(key) {
        Err(error) if is_missing(&error) => Ok(()),
        other => other.map_err(failed(name, "updated")),
    }
}

fn fd(ebpf: &Ebpf, name: &'static str) -> Result<(OwnedFd, &'static str), DatapathError> {
    let missing = || DatapathError::Missing { name };
    let (Map::HashMap(data) | Map::LruHashMap(data)) = ebpf.map(name).ok_or_else(missing)? else {
        return Err(missing());
    };
    let fd = data.fd().as_fd().try_clone_to_owned();
    let fd = fd.map_err(|source| DatapathError::Walk { name, source })?;
    Ok((fd, name))
}
