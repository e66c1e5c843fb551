//! Keeps the books of traffic: the kernel counts by ids, which change hands; operators think in
//! services and backends.
//!
//! The counters of an id go on when it gets a new user, so the ledger notes where they stood then.
//! What a backend had when it gave its id up stays with it, for when it comes back, and in the sum
//! of its service.

use std::collections::{BTreeMap, btree_map::Entry};

use lb_common::abi::{BackendId, GuardCounts, Ip, MqttPackets, ServiceId, ServiceKey, Traffic};

use super::maps::Maps;
use crate::core::image::MapImage;

/// Whose traffic it is, whatever the name in the configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Account {
    pub(super) service: ServiceKey,
    pub(super) address: Ip,
    pub(super) port: u16,
}

/// The books.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    backends: BTreeMap<Holding, Tenancy<Account>>,
    services: BTreeMap<ServiceId, Tenancy<ServiceKey>>,
    /// What the counters of MQTT packets said when a service got its id.
    packets: BTreeMap<ServiceId, MqttPackets>,
    /// What the guard's counters said when the holders in `services` got their ids.
    guards: BTreeMap<ServiceId, GuardCounts>,
    /// What was counted under ids since given up.
    closed: BTreeMap<Account, Traffic>,
}

/// A backend id in the hands of one user.
type Holding = (BackendId, u16);

/// Who has an id, and what its counters said when they got it.
#[derive(Clone, Copy, Debug)]
struct Tenancy<K> {
    holder: K,
    before: Traffic,
}

impl Ledger {
    /// Opens an account for every id that `image` gives out; before the change is applied.
    pub(super) fn open(&mut self, image: &MapImage, maps: &impl Maps) -> anyhow::Result<()> {
        for (key, service) in &image.services {
            let known = self.services.get(&service.id);
            if known.is_none_or(|tenancy| tenancy.holder != *key) {
                let before = maps.service_traffic(service.id)?;
                self.packets
                    .insert(service.id, maps.mqtt_packets(service.id)?);
                self.guards
                    .insert(service.id, maps.guard_counts(service.id)?);
                self.services.insert(
                    service.id,
                    Tenancy {
                        holder: *key,
                        before,
                    },
                );
            }
        }
        let keys: BTreeMap<ServiceId, ServiceKey> = image
            .services
            .iter()
            .map(|(key, service)| (service.id, *key))
            .collect();
        for (&id, backend) in &image.backends {
            let (holding, Some(&service)) = ((id, backend.epoch), keys.get(&backend.service))
            else {
                continue;
            };
            if let Entry::Vacant(entry) = self.backends.entry(holding) {
                let (address, port) = (backend.address, backend.port);
                let holder = Account {
                    service,
                    address,
                    port,
                };
                let before = maps.backend_traffic(id)?;
                entry.insert(Tenancy { holder, before });
            }
        }
        Ok(())
    }

    /// Closes the accounts of ids that `image` has given up; after the change is applied, when no
    /// packet is counted for them any more.
    pub(super) fn close(&mut self, image: &MapImage, maps: &impl Maps) -> anyhow::Result<()> {
        let gone: Vec<Holding> = self
            .backends
            .keys()
            .filter(|(id, epoch)| image.backends.get(id).is_none_or(|now| now.epoch != *epoch))
            .copied()
            .collect();
        for holding in gone {
            let counted = maps.backend_traffic(holding.0)?;
            if let Some(tenancy) = self.backends.remove(&holding) {
                let closed = self.closed.entry(tenancy.holder).or_default();
                *closed = sum(*closed, since(counted, tenancy.before));
            }
        }
        self.services.retain(|id, tenancy| {
            image
                .services
                .get(&tenancy.holder)
                .is_some_and(|service| service.id == *id)
        });
        self.closed
            .retain(|account, _| image.services.contains_key(&account.service));
        Ok(())
    }

    /// All that went through one backend of a service.
    pub(super) fn backend(&self, account: Account, maps: &impl Maps) -> anyhow::Result<Traffic> {
        let mut total = self.closed.get(&account).copied().unwrap_or_default();
        for ((id, _), tenancy) in &self.backends {
            if tenancy.holder == account {
                total = sum(total, since(maps.backend_traffic(*id)?, tenancy.before));
            }
        }
        Ok(total)
    }

    /// All that went through a service, by whatever backend, and what was dropped at its door.
    pub(super) fn service(&self, key: ServiceKey, maps: &impl Maps) -> anyhow::Result<Traffic> {
        let mut total = Traffic::default();
        for (account, closed) in &self.closed {
            if account.service == key {
                total = sum(total, *closed);
            }
        }
        for ((id, _), tenancy) in &self.backends {
            if tenancy.holder.service == key {
                total = sum(total, since(maps.backend_traffic(*id)?, tenancy.before));
            }
        }
        for (id, tenancy) in &self.services {
            if tenancy.holder == key {
                total = sum(total, since(maps.service_traffic(*id)?, tenancy.before));
            }
        }
        Ok(total)
    }

    /// The MQTT packets that clients sent to the service that has an id.
    pub(super) fn mqtt_packets(
        &self,
        id: ServiceId,
        maps: &impl Maps,
    ) -> anyhow::Result<MqttPackets> {
        let before = self.packets.get(&id).copied().unwrap_or_default();
        Ok(maps.mqtt_packets(id)?.combine(before, u64::saturating_sub))
    }

    /// What the guard of a service did.
    pub(super) fn guard(&self, key: ServiceKey, maps: &impl Maps) -> anyhow::Result<GuardCounts> {
        let mut services = self.services.iter();
        let Some((id, _)) = services.find(|(_, tenancy)| tenancy.holder == key) else {
            return Ok(GuardCounts::default());
        };
        let before = self.guards.get(id).copied().unwrap_or_default();
        Ok(maps.guard_counts(*id)?.combine(before, u64::saturating_sub))
    }
}

fn sum(a: Traffic, b: Traffic) -> Traffic {
    a.combine(b, u64::saturating_add)
}

fn since(counted: Traffic, before: Traffic) -> Traffic {
    counted.combine(before, u64::saturating_sub)
}
