//! What the program is told of virtual routers' addresses, beside all that the event loop tells it:
//! each advert makes a lease longer, whatever keeps the loop busy.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    time::{Duration, Instant},
};

use aya::{
    Ebpf,
    maps::{HashMap, Map, MapData},
};
use lb_common::abi::{self, Ip, Lease, VirtualMac};

use super::{
    DatapathError,
    apply::is_missing,
    error::failed,
    lookup::{another, monotonic},
};
use crate::core::vrrp::node::Macs;

/// Addresses of routers with the routers' numbers, and until when each is here; `None` if it is not.
pub type Wishes = BTreeMap<IpAddr, (u8, Option<Instant>)>;

/// The leases of addresses, and who has written them.
pub struct Leases {
    map: HashMap<MapData, Ip, Lease>,
    /// What is there.
    written: BTreeMap<IpAddr, Lease>,
    /// The routers that have a virtual MAC address, by their addresses.
    vips: BTreeMap<IpAddr, u8>,
    /// Whether each is this host's; also those of routers that are no more, and those that an earlier
    /// process had when it ended.
    macs: BTreeMap<VirtualMac, bool>,
}

/// A lease that an earlier process has left, and that has not ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Running {
    pub vip: IpAddr,
    /// The number of the router that is Active.
    pub vrid: u8,
    pub until: Instant,
}

impl Leases {
    pub(super) fn open(ebpf: &Ebpf) -> Result<Self, DatapathError> {
        let missing = || DatapathError::Missing { name: abi::LEASES };
        let Map::HashMap(data) = ebpf.map(abi::LEASES).ok_or_else(missing)? else {
            return Err(missing());
        };
        let map = another(data, abi::LEASES)?;
        let map = HashMap::try_from(map).map_err(failed(abi::LEASES, "opened"))?;
        let mut leases = Self {
            map,
            written: BTreeMap::new(),
            vips: BTreeMap::new(),
            macs: BTreeMap::new(),
        };
        for entry in leases.map.iter() {
            let (vip, lease): (Ip, Lease) = entry.map_err(failed(abi::LEASES, "read"))?;
            leases.written.insert(vip.into(), lease);
            // It could not take out what was let in for these.
            let left = VirtualMac::of_key(vip).filter(|_| lease.until != 0);
            leases.macs.extend(left.map(|mac| (mac, true)));
        }
        Ok(leases)
    }

    /// Those that are running.
    pub fn running(&self) -> impl Iterator<Item = Running> {
        let (now, at) = (monotonic(), Instant::now());
        let vips = self.written.iter().filter(|(vip, _)| !vip.is_multicast());
        vips.filter_map(move |(vip, lease)| {
            let left = lease.until.checked_sub(now).filter(|left| *left > 0)?;
            Some(Running {
                vip: *vip,
                vrid: u8::try_from(lease.vrid).ok()?,
                until: at + Duration::from_nanos(left),
            })
        })
    }

    /// Has the program know these addresses of routers, and no others.
    ///
    /// # Errors
    /// With the first one that the kernel refuses; the others are written all the same.
    pub fn follow(&mut self, wanted: &Wishes) -> Result<(), DatapathError> {
        let mut outcome = self.write(wanted.iter());
        let macs: BTreeSet<IpAddr> = self.macs.keys().map(|mac| mac.key().into()).collect();
        let gone = self.written.keys().copied();
        let gone = gone.filter(|key| !wanted.contains_key(key) && !macs.contains(key));
        for vip in &gone.collect::<Vec<_>>() {
            match self.map.remove(&Ip::from(*vip)) {
                Err(error) if !is_missing(&error) => {
                    outcome = outcome.and(Err(failed(abi::LEASES, "updated")(error)));
                }
                Ok(()) | Err(_) => drop(self.written.remove(vip)),
            }
        }
        outcome
    }

    /// Has the program know which of these are not here, and nothing else.
    ///
    /// # Errors
    /// With the first one that the kernel refuses; the others are written all the same.
    pub fn end(&mut self, wanted: &Wishes) -> Result<(), DatapathError> {
        let ended = wanted.iter();
        self.write(ended.filter(|(_, (_, until))| until.is_none()))
    }

    fn write<'a>(
        &mut self,
        wanted: impl Iterator<Item = (&'a IpAddr, &'a (u8, Option<Instant>))>,
    ) -> Result<(), DatapathError> {
        let (now, at) = (monotonic(), Instant::now());
        let mut outcome = Ok(());
        for (vip, (vrid, until)) in wanted {
            let left = until.map(|until| until.saturating_duration_since(at));
            let left = left.map(|left| u64::try_from(left.as_nanos()).unwrap_or(u64::MAX));
            let lease = Lease::new(left.map_or(0, |left| now.saturating_add(left)), *vrid);
            let number = self.vips.get(vip).copied().unwrap_or_default();
            outcome = outcome.and(self.put(*vip, lease.at(number)));
        }
        outcome
    }

    /// All virtual MAC addresses that are or were of a router, and whether each is this host's.
    pub fn macs(&self) -> impl Iterator<Item = (VirtualMac, bool)> {
        self.macs.iter().map(|(mac, is_here)| (*mac, *is_here))
    }

    /// Has the program answer neighbours with virtual MAC addresses, and take the frames to those that
    /// are this host's.
    ///
    /// # Errors
    /// With the first one that the kernel refuses; the others are written all the same.
    pub fn use_macs(&mut self, macs: &Macs) -> Result<(), DatapathError> {
        self.vips.clone_from(&macs.vips);
        let gone = self.macs.keys().map(|mac| (*mac, false));
        let mut all: BTreeMap<VirtualMac, bool> = gone.collect();
        all.extend(&macs.here);
        let mut outcome = Ok(());
        for (mac, is_here) in &all {
            let until = if *is_here { u64::MAX } else { 0 };
            if *is_here {
                // The program may have left it to a peer while this process did not come to its turn.
                self.written.remove(&mac.key().into());
            }
            outcome = outcome.and(self.put(mac.key().into(), Lease::new(until, 0)));
        }
        self.macs = all;
        outcome
    }

    fn put(&mut self, key: IpAddr, lease: Lease) -> Result<(), DatapathError> {
        let known = self.written.get(&key);
        if known.is_some_and(|known| is_same(*known, lease)) {
            return Ok(());
        }
        let put = self.map.insert(Ip::from(key), lease, 0);
        put.map_err(failed(abi::LEASES, "updated"))?;
        self.written.insert(key, lease);
        Ok(())
    }
}

/// Whether two leases differ by no more than it takes to read a clock.
fn is_same(one: Lease, other: Lease) -> bool {
    (one.vrid, one.mac()) == (other.vrid, other.mac()) && one.until.abs_diff(other.until) < 100_000
}
