//! What the program is told of virtual routers' addresses, beside all that the event loop tells it:
//! each advert makes a lease longer, whatever keeps the loop busy.

use std::{
    collections::BTreeMap,
    net::IpAddr,
    time::{Duration, Instant},
};

use aya::{
    Ebpf,
    maps::{HashMap, Map, MapData},
};
use lb_common::abi::{self, Ip, Lease};

use super::{
    DatapathError,
    apply::is_missing,
    error::failed,
    lookup::{another, monotonic},
};

/// Addresses of routers with the routers' numbers, and until when each is here; `None` if it is not.
pub type Wishes = BTreeMap<IpAddr, (u8, Option<Instant>)>;

/// The leases of addresses, and who has written them.
pub struct Leases {
    map: HashMap<MapData, Ip, Lease>,
    /// What is there.
    written: BTreeMap<IpAddr, Lease>,
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
        };
        for entry in leases.map.iter() {
            let (vip, lease): (Ip, Lease) = entry.map_err(failed(abi::LEASES, "read"))?;
            leases.written.insert(vip.into(), lease);
        }
        Ok(leases)
    }

    /// Those that are running.
    pub fn running(&self) -> impl Iterator<Item = Running> {
        let (now, at) = (monotonic(), Instant::now());
        self.written.iter().filter_map(move |(vip, lease)| {
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
        let gone: Vec<IpAddr> = self.written.keys().copied().collect();
        for vip in gone.iter().filter(|vip| !wanted.contains_key(vip)) {
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
            let known = self.written.get(vip);
            if known.is_some_and(|known| is_same(*known, lease)) {
                continue;
            }
            match self.map.insert(Ip::from(*vip), lease, 0) {
                Ok(()) => drop(self.written.insert(*vip, lease)),
                Err(error) => outcome = outcome.and(Err(failed(abi::LEASES, "updated")(error))),
            }
        }
        outcome
    }
}

/// Whether two leases differ by no more than it takes to read a clock.
fn is_same(one: Lease, other: Lease) -> bool {
    one.vrid == other.vrid && one.until.abs_diff(other.until) < 100_000
}
