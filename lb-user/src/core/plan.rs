//! From what is desired to what the maps hold, and from one content of the maps to the next.
//!
//! [`next`] gives ids to services and backends, and keeps all that need not change: ids, tables,
//! generations. [`diff`] lists the steps from one image to another in an order that is safe at every
//! step, whatever packet comes in between:
//!
//! 1. the addresses to send from, rates, and every new or changed backend, which no table names yet or which stays right;
//! 2. entries of access lists that are new or say something else, the longest prefixes first;
//! 3. changed tables, into the half that no packet reads;
//! 4. services: each update switches one service from its old table to its new one;
//! 5. services that go;
//! 6. a grace period, after which no packet reads an old table;
//! 7. entries of access lists that go, the shortest prefixes first;
//! 8. backends that go, which no table names any more.
//!
//! So at every step each client is judged as the old list says, or as the new one does: its longest
//! prefix of the new list comes before any shorter one, and its longest prefix of the old list goes
//! after any shorter one. In between, services change what they say of clients in no prefix.
//!
//! A backend that fell, and may return, gives up its place in the maps and not its id: for a minute
//! both are kept together, with the epoch, so that the flows recorded for it are its own again.
//!
//! An id given up in a step is not given out again in the same step: packets still under way would
//! take the new user for the old one. So [`next`] may leave out what finds no free id; calling it
//! again on its own result takes that in. It has converged when its result equals its argument.

mod access;
mod ids;
mod steps;
mod tables;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use lb_common::abi::{
    BackendId, Balance, Features, Forward, Ip, NatPool, NextHop, OwnMac, Rates, ServiceId,
    ServiceKey, Tick, TunnelSources,
};

pub use self::access::stale;
use self::ids::Holders;
pub use self::steps::diff;
use crate::config::model::{AccessList, Limits};
use crate::core::image::{BackendImage, Fallen, MapImage, ServiceImage, Table, Tunnel};
use crate::core::maglev::{Lender, Member};
use crate::core::slots::{Holds, Terms};
use crate::core::sync::record::{BackendName, SlotTable};

/// How long a backend that fell has its id and its flows kept. Of a way that is broken for longer, most
/// sessions will have sent something meanwhile, and met another backend.
pub(super) const KEPT: Duration = Duration::from_secs(60);

/// What the kernel should do, by names of the outside world.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Desired {
    pub services: Vec<DesiredService>,
    pub nat_pool: NatPool,
    pub tunnel_sources: TunnelSources,
    /// What frames for this host are sent to.
    pub own_mac: OwnMac,
    /// How many ids there are.
    pub limits: Limits,
}

/// A service that should exist.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DesiredService {
    pub key: ServiceKey,
    pub balance: Balance,
    pub forward: Forward,
    pub tunnel: Tunnel,
    pub features: Features,
    pub rates: Rates,
    pub access: Arc<AccessList>,
    pub backends: Vec<DesiredBackend>,
    /// Backends that would take new flows if they were up. They take no packets.
    pub lenders: Vec<Lender>,
    /// Those that take no packets and may return: who does so soon is who it was.
    pub fallen: Vec<(Ip, u16)>,
    /// How long a live session may be silent.
    pub window: Duration,
    /// How much longer that may become by what clients ask for.
    pub widest_window: Duration,
    /// Whether nobody's session went by its table so far: then there are none to keep.
    pub is_fresh: bool,
    /// Whether this node stands by for a peer: learning windows do not run.
    pub is_standby: bool,
    /// Who has its slots at the peer whose sessions this node would take over.
    pub inherited: Option<Arc<SlotTable>>,
}

/// A backend that should take packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DesiredBackend {
    pub address: Ip,
    pub port: u16,
    /// Share of new flows; 0: only the flows recorded for it.
    pub weight: u16,
    pub next_hop: Option<NextHop>,
    /// The most flows it takes; 0: any number.
    pub limit: u32,
    /// The largest IP packet on the way to it, in bytes; 0: not known.
    pub mtu: u16,
    /// Whether it is known to have as many flows as it takes.
    pub full: bool,
}

impl Desired {
    /// Nothing.
    #[must_use]
    pub const fn nothing(limits: Limits) -> Self {
        Self {
            services: Vec::new(),
            nat_pool: NatPool::EMPTY,
            tunnel_sources: TunnelSources::EMPTY,
            own_mac: OwnMac::UNKNOWN,
            limits,
        }
    }
}

impl DesiredService {
    /// A service without backends or anything else.
    #[must_use]
    pub fn new(key: ServiceKey, balance: Balance, forward: Forward) -> Self {
        Self {
            key,
            balance,
            forward,
            tunnel: Tunnel::default(),
            features: Features::default(),
            rates: Rates::default(),
            access: Arc::default(),
            backends: Vec::new(),
            lenders: Vec::new(),
            fallen: Vec::new(),
            window: Duration::ZERO,
            widest_window: Duration::ZERO,
            is_fresh: false,
            is_standby: false,
            inherited: None,
        }
    }
}

impl DesiredBackend {
    /// A backend without limits.
    #[must_use]
    pub const fn new(address: Ip, port: u16, weight: u16, next_hop: Option<NextHop>) -> Self {
        Self {
            address,
            port,
            weight,
            next_hop,
            limit: 0,
            mtu: 0,
            full: false,
        }
    }
}

/// No window ends then.
pub(super) const NEVER: Tick = Tick(u32::MAX);

/// What a change depends on besides what is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Moment {
    /// The clock of flows.
    pub now: Tick,
    /// Whether there is room to record flows; slots that have some stay as they are without.
    pub has_room: bool,
}

impl Moment {
    /// A moment at which there is room.
    #[must_use]
    pub const fn at(now: Tick) -> Self {
        Self {
            now,
            has_room: true,
        }
    }
}

/// The image that follows `previous` when `desired` is wanted.
#[must_use]
pub fn next(previous: &MapImage, desired: &Desired, moment: Moment) -> MapImage {
    let service_ids = ids::services(previous, desired);
    let mut image = MapImage {
        services: BTreeMap::new(),
        backends: BTreeMap::new(),
        nat_pool: desired.nat_pool,
        tunnel_sources: desired.tunnel_sources,
        own_mac: desired.own_mac,
        epochs: previous.epochs.clone(),
        fallen: BTreeMap::new(),
    };
    let index = ids::holders(previous, moment.now);
    let mut free = ids::free_backends(previous, moment.now, desired.limits);
    for service in &desired.services {
        let Some(&id) = service_ids.get(&service.key) else {
            continue;
        };
        let takers = place_backends(&mut image, &index, service, id, &mut free);
        image.fallen.extend(fallen(&index, service, id, moment.now));
        let present = previous.services.get(&service.key);
        let terms = Terms {
            is_alive: |id| image.backends.contains_key(&id),
            until: if service.is_standby {
                NEVER
            } else {
                moment.now.after(service.window)
            },
            has_room: moment.has_room,
        };
        let inherited = inherited(&image, service, id, terms.until);
        let table = tables::follow((present, inherited), service, &takers, &terms);
        let installed = install(present, service, id, table);
        image.services.insert(service.key, installed);
    }
    image
}

/// The backends of a service that take new flows.
#[derive(Default)]
struct Takers {
    members: Vec<Member>,
    /// Those of them that take none for now.
    full: BTreeSet<BackendId>,
}

/// Puts the backends of a service into the image; returns those that take new flows.
fn place_backends(
    image: &mut MapImage,
    index: &Holders,
    service: &DesiredService,
    service_id: ServiceId,
    free: &mut impl Iterator<Item = BackendId>,
) -> Takers {
    let mut takers = Takers::default();
    for backend in &service.backends {
        let DesiredBackend {
            address,
            port,
            weight,
            next_hop,
            limit,
            mtu,
            full,
        } = *backend;
        let holder = index.get(&(service_id, address, port));
        let known = holder.map(|holder| (holder.id, holder.epoch));
        let Some((id, epoch)) = known.or_else(|| {
            let id = free.next()?;
            Some((id, ids::next_epoch(&mut image.epochs, id)))
        }) else {
            continue;
        };
        let placed = BackendImage {
            address,
            port,
            service: service_id,
            epoch,
            next_hop,
            weight,
            limit,
            counted: limit > 0 || service.balance == Balance::LeastConn,
            mtu,
            emptied: weight == 0 && holder.is_some_and(|holder| holder.is_emptied),
        };
        image.backends.insert(id, placed);
        if weight > 0 {
            takers.members.push(Member {
                id,
                address,
                port,
                weight,
            });
            takers.full.extend(full.then_some(id));
        }
    }
    takers
}

/// The peer's owners and states, by the ids of this node; backends that it does not have are nobody.
fn inherited(
    image: &MapImage,
    service: &DesiredService,
    service_id: ServiceId,
    until: Tick,
) -> Option<(Vec<BackendId>, Holds)> {
    let table = service.inherited.as_ref()?;
    let backends = image.backends.iter();
    let ours = backends.filter(|(_, backend)| backend.service == service_id);
    let ids: BTreeMap<BackendName, BackendId> = ours
        .map(|(id, backend)| {
            let (address, port) = (backend.address.into(), backend.port);
            (BackendName { address, port }, *id)
        })
        .collect();
    Some(table.resolve(|name| ids.get(name).copied(), until))
}

/// Who of a service takes no packets, and gets its id back if it returns in time.
fn fallen(
    index: &Holders,
    service: &DesiredService,
    service_id: ServiceId,
    now: Tick,
) -> impl Iterator<Item = (BackendId, Fallen)> {
    service.fallen.iter().filter_map(move |&(address, port)| {
        let holder = index.get(&(service_id, address, port))?;
        let fallen = Fallen {
            address,
            port,
            service: service_id,
            epoch: holder.epoch,
            until: holder.until.unwrap_or_else(|| now.after(KEPT)),
        };
        Some((holder.id, fallen))
    })
}

/// The service's image: with `table` in the half that is not in use, else with the table it has.
fn install(
    previous: Option<&ServiceImage>,
    service: &DesiredService,
    id: ServiceId,
    table: Option<Table>,
) -> ServiceImage {
    let (generation, table) = match (table, previous) {
        (None, Some(previous)) => (previous.generation, Arc::clone(&previous.table)),
        (Some(table), Some(previous)) => (previous.generation ^ 1, Arc::new(table)),
        (table, None) => (0, Arc::new(table.unwrap_or_default())),
    };
    // The same list read again is the same: comparing it takes longer than anything else here.
    let access = match previous {
        Some(previous) if previous.access == service.access => Arc::clone(&previous.access),
        Some(_) | None => Arc::clone(&service.access),
    };
    ServiceImage {
        id,
        balance: service.balance,
        forward: service.forward,
        tunnel: service.tunnel,
        features: service.features,
        rates: service.rates,
        access,
        window: service.window,
        is_standby: service.is_standby,
        generation,
        table,
    }
}
