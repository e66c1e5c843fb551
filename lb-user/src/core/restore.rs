//! The picture of the maps from the maps themselves, for a daemon that finds them in use.
//!
//! Maps outlive the daemon, and one that was killed may have done half of a change. Its steps are safe
//! one by one, so whatever the maps hold is right for packets. What is left to find out is what
//! [`MapImage`] knows besides: this module makes one of [`Contents`], and of what it cannot tell it
//! supposes what moves no session:
//!
//! | not in the maps | is taken to be |
//! |---|---|
//! | when a slot is no longer at risk | what was noted with the table: see [`Contents::learning`] |
//! | what a table was made from | something else: [`Table::deferred`] has it made again |
//! | who of those without a place fell | all, for as long as after a fall |
//! | the window of a service | nothing: the next image has the configuration's |
//! | whether it stood by for a peer | that it did, if the noted moment is never |
//!
//! A marker may be missing or left over, and an access list be nobody's, which no image can say:
//! [`markers`] and [`unheard`] do.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use lb_common::abi::{
    Access, Backend, BackendId, NatPool, OwnMac, Rates, Service, ServiceId, ServiceKey, Slot, Tick,
    TunnelSources,
};

use crate::config::model::{AccessList, Prefix};
use crate::core::image::{BackendImage, Fallen, MapImage, ServiceImage, Table, Tunnel};
use crate::core::plan::{KEPT, NEVER};
use crate::core::slots::{Holds, State};

/// What the maps hold.
#[derive(Clone, Debug)]
pub struct Contents {
    /// Services and markers.
    pub services: BTreeMap<ServiceKey, Service>,
    /// Every entry, whether it is in use or not.
    pub backends: BTreeMap<BackendId, Backend>,
    /// The active tables of those services that have one.
    pub tables: BTreeMap<ServiceId, Entries>,
    /// When the last slot of a service's newest table is no longer at risk, where one is.
    pub learning: BTreeMap<ServiceId, Tick>,
    pub rates: BTreeMap<ServiceId, Rates>,
    pub access: BTreeMap<ServiceId, BTreeMap<Prefix, Access>>,
    pub nat_pool: NatPool,
    pub tunnel_sources: TunnelSources,
}

/// A table as the kernel has it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Entries {
    pub slots: Vec<Slot>,
    pub ring: Vec<BackendId>,
}

/// The image of what the maps hold.
#[must_use]
pub fn image(contents: &Contents, now: Tick) -> MapImage {
    let backends: BTreeMap<BackendId, BackendImage> = contents
        .backends
        .iter()
        .filter(|(_, entry)| entry.is_serving())
        .map(|(&id, entry)| (id, backend(entry)))
        .collect();
    let services = contents.services.iter();
    let services = services.filter(|(_, entry)| !entry.is_marker());
    MapImage {
        services: services
            .map(|(&key, entry)| (key, service(entry, contents, &backends, now)))
            .collect(),
        nat_pool: contents.nat_pool,
        tunnel_sources: contents.tunnel_sources,
        // Each program has its own.
        own_mac: OwnMac::UNKNOWN,
        epochs: contents
            .backends
            .iter()
            .map(|(&id, entry)| (id, entry.epoch()))
            .filter(|&(_, epoch)| epoch > 0)
            .collect(),
        fallen: fallen(contents, &backends, now).collect(),
        backends,
    }
}

fn backend(entry: &Backend) -> BackendImage {
    BackendImage {
        address: *entry.address(),
        port: u16::from_be_bytes(entry.port()),
        service: entry.service(),
        epoch: entry.epoch(),
        next_hop: entry.next_hop(),
        weight: entry.weight(),
        limit: entry.limit(),
        counted: entry.is_counted(),
        mtu: entry.mtu(),
        emptied: entry.is_emptied(),
    }
}

fn service(
    entry: &Service,
    contents: &Contents,
    backends: &BTreeMap<BackendId, BackendImage>,
    now: Tick,
) -> ServiceImage {
    let (id, features) = (entry.id(), entry.features());
    let until = contents.learning.get(&id).copied().unwrap_or(now);
    let entries = contents.tables.get(&id);
    let entries = entries.filter(|_| entry.has_backends());
    let said = contents.access.get(&id).cloned().unwrap_or_default();
    let rates = contents.rates.get(&id).copied().unwrap_or_default();
    ServiceImage {
        id,
        balance: entry.balance(),
        forward: entry.forward(),
        tunnel: Tunnel {
            encapsulation: entry.encapsulation(),
            port: u16::from_be_bytes(entry.tunnel_port()),
        },
        features,
        rates: if features.rates {
            rates
        } else {
            Rates::default()
        },
        access: Arc::new(AccessList::new(said, features.default_deny)),
        window: Duration::ZERO,
        // Its windows stand still, and begin if it does not stand by any more.
        is_standby: until == NEVER,
        generation: entry.generation(),
        table: Arc::new(entries.map_or_else(Table::default, |it| table(it, backends, until))),
    }
}

fn table(entries: &Entries, backends: &BTreeMap<BackendId, BackendImage>, until: Tick) -> Table {
    let weight = |owner: &BackendId| Some((*owner, backends.get(owner)?.weight));
    Table {
        weights: entries.ring.iter().filter_map(weight).collect(),
        lenders: BTreeSet::new(),
        slots: entries.slots.iter().map(|slot| slot.owner()).collect(),
        holds: (0..)
            .zip(&entries.slots)
            .map(|(at, slot)| (at, state(*slot, until)))
            .collect::<Holds>(),
        deferred: true,
        ring: entries.ring.clone(),
        left_out: BTreeSet::new(),
    }
}

const fn state(slot: Slot, until: Tick) -> State {
    if slot.is_safe() {
        State::Safe
    } else if slot.is_at_risk() {
        State::AtRisk {
            previous: slot.previous(),
            until,
        }
    } else {
        State::Mixed
    }
}

/// Who once had an id that nobody has now: of these, the next image keeps those that may return.
fn fallen(
    contents: &Contents,
    backends: &BTreeMap<BackendId, BackendImage>,
    now: Tick,
) -> impl Iterator<Item = (BackendId, Fallen)> {
    let places: BTreeSet<_> = backends
        .values()
        .map(|backend| (backend.service, backend.address, backend.port))
        .collect();
    let entries = contents.backends.iter();
    entries.filter_map(move |(&id, entry)| {
        let BackendImage {
            address,
            port,
            service,
            epoch,
            ..
        } = backend(entry);
        let is_free = !entry.is_serving() && epoch > 0;
        (is_free && !places.contains(&(service, address, port))).then_some((
            id,
            Fallen {
                address,
                port,
                service,
                epoch,
                until: now.after(KEPT),
            },
        ))
    })
}

/// The prefixes that are said of ids that no service has: the next one to get the id would go by them.
#[must_use]
pub fn unheard(contents: &Contents) -> Vec<(ServiceId, Vec<Prefix>)> {
    let own = contents.services.values();
    let ids: BTreeSet<ServiceId> = own
        .filter(|entry| !entry.is_marker())
        .map(Service::id)
        .collect();
    let said = contents.access.iter().filter(|(id, _)| !ids.contains(id));
    said.map(|(&id, list)| (id, list.keys().copied().collect()))
        .collect()
}

/// The markers that are missing, and those that mark nothing any more.
#[must_use]
pub fn markers(services: &BTreeMap<ServiceKey, Service>) -> (Vec<ServiceKey>, Vec<ServiceKey>) {
    let (there, services): (Vec<_>, Vec<_>) =
        services.iter().partition(|(_, entry)| entry.is_marker());
    let there: BTreeSet<ServiceKey> = there.into_iter().map(|(&key, _)| key).collect();
    let wanted: BTreeSet<ServiceKey> = services
        .into_iter()
        .map(|(key, _)| ServiceKey::marker(key.vip(), key.protocol()))
        .collect();
    (
        wanted.difference(&there).copied().collect(),
        there.difference(&wanted).copied().collect(),
    )
}
