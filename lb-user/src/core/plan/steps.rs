//! The steps from one image to another.

use std::collections::BTreeMap;
use std::sync::Arc;

use lb_common::abi::{Backend, Service, ServiceKey};

use super::access;
use crate::core::image::{BackendImage, MapImage, MapOp, ServiceImage, Setting, Table};

/// The steps that turn maps that hold `old` into maps that hold `new`, in a safe order.
///
/// `new` must come from [`super::next`] on `old`: then no id changes hands between the two.
#[must_use]
pub fn diff(old: &MapImage, new: &MapImage) -> Vec<MapOp> {
    let (old_entries, new_entries) = (entries(old), entries(new));
    let mut ops = Vec::new();
    if old.nat_pool != new.nat_pool {
        ops.push(MapOp::Set(Setting::NatPool(Box::new(new.nat_pool))));
    }
    if old.tunnel_sources != new.tunnel_sources {
        ops.push(MapOp::Set(Setting::TunnelSources(Box::new(
            new.tunnel_sources,
        ))));
    }
    if old.own_mac != new.own_mac {
        ops.push(MapOp::Set(Setting::OwnMac(new.own_mac)));
    }
    ops.extend(changed_rates(old, new));
    ops.extend(
        changed(&old.backends, &new.backends).map(|(&id, b)| MapOp::SetBackend(id, entry(b))),
    );
    ops.extend(access::said(old, new));
    ops.extend(written_tables(old, new));
    ops.extend(changed(&old_entries, &new_entries).map(|(&key, &s)| MapOp::SetService(key, s)));
    ops.extend(gone(&old_entries, &new_entries).map(|&key| MapOp::RemoveService(key)));
    if old_entries
        .iter()
        .any(|(key, entry)| new_entries.get(key) != Some(entry))
    {
        ops.push(MapOp::AwaitGracePeriod);
    }
    ops.extend(access::taken_back(old, new));
    ops.extend(gone(&old.backends, &new.backends).map(|&id| MapOp::RemoveBackend(id)));
    ops
}

/// The entries of the service map: every service, and a marker for each VIP and protocol.
fn entries(image: &MapImage) -> BTreeMap<ServiceKey, Service> {
    let markers = image.services.keys().map(|key| {
        (
            ServiceKey::marker(key.vip(), key.protocol()),
            Service::marker(),
        )
    });
    let services = image
        .services
        .iter()
        .map(|(&key, service)| (key, service_entry(service)));
    markers.chain(services).collect()
}

fn service_entry(service: &ServiceImage) -> Service {
    let ServiceImage {
        id,
        balance,
        forward,
        tunnel,
        features,
        rates: _,
        access: _,
        window: _,
        generation,
        is_standby: _,
        ref table,
    } = *service;
    let mut entry = Service::new(id, generation, ring_length(table), balance, forward);
    if !table.slots.is_empty() {
        entry = entry.with_old_flows();
    }
    entry
        .with_tunnel(tunnel.encapsulation, tunnel.port)
        .with_features(features)
}

/// A service that has no rates does not read them.
fn changed_rates(old: &MapImage, new: &MapImage) -> impl Iterator<Item = MapOp> {
    new.services.iter().filter_map(|(key, service)| {
        let is_there = old.services.get(key).is_some_and(|old| {
            (old.id, old.features.rates, old.rates) == (service.id, true, service.rates)
        });
        (service.features.rates && !is_there)
            .then_some(MapOp::Set(Setting::Rates(service.id, service.rates)))
    })
}

fn ring_length(table: &Table) -> u16 {
    u16::try_from(table.ring.len()).unwrap_or(u16::MAX)
}

fn entry(backend: &BackendImage) -> Backend {
    let BackendImage {
        address,
        port,
        service,
        epoch,
        next_hop,
        weight,
        limit,
        counted,
        mtu,
        emptied,
    } = *backend;
    let entry = Backend::new(address, port, service, epoch, next_hop)
        .with_load(weight, limit)
        .with_mtu(mtu);
    let entry = if counted { entry.counted() } else { entry };
    if emptied { entry.emptied() } else { entry }
}

/// An empty table is not written: its service says that it has no backends.
fn written_tables(old: &MapImage, new: &MapImage) -> impl Iterator<Item = MapOp> {
    new.services.iter().filter_map(|(key, service)| {
        let is_there = old.services.get(key).is_some_and(|old| {
            (old.id, old.generation, &old.table) == (service.id, service.generation, &service.table)
        });
        (!is_there && !service.table.slots.is_empty()).then(|| MapOp::WriteTable {
            service: service.id,
            generation: service.generation,
            table: Arc::clone(&service.table),
        })
    })
}

fn changed<'a, K: Ord, V: PartialEq>(
    old: &'a BTreeMap<K, V>,
    new: &'a BTreeMap<K, V>,
) -> impl Iterator<Item = (&'a K, &'a V)> {
    new.iter()
        .filter(|(key, value)| old.get(key) != Some(value))
}

fn gone<'a, K: Ord, V>(
    old: &'a BTreeMap<K, V>,
    new: &'a BTreeMap<K, V>,
) -> impl Iterator<Item = &'a K> {
    old.keys().filter(|key| !new.contains_key(key))
}
