//! Going on where another process has stopped, by the image of the maps that it left.

use std::collections::BTreeSet;
use std::net::IpAddr;

use lb_common::abi::Ip;

use super::{BackendKey, Balancer, tunnels};
use crate::config::model::{Check, Config, Remnant, Service};
use crate::core::health::Health;
use crate::core::image::{BackendImage, MapImage, ServiceImage};

impl Balancer {
    /// Takes `image` for what was decided so far.
    ///
    /// A backend that packets are sent to is up until probes say otherwise, by the thresholds that hold
    /// for any that is up: a first probe that goes unanswered must cost nobody a session. One that got
    /// no new flows may have wished so, and gets none until it has answered: with its slots it would
    /// be given clients that it refuses. What NAT sends from stays, as live flows are bound to it.
    pub fn adopt(&mut self, image: &MapImage) {
        let index = image.backend_index();
        let found: Vec<(BackendKey, Health, IpAddr, BackendImage)> = self
            .config
            .backends()
            .filter_map(|(service, backend)| {
                let installed = image.services.get(&service.key())?;
                let place = (installed.id, Ip::from(backend.address()), backend.port());
                let entry = image.backends.get(index.get(&place)?)?;
                let hears_wishes = service.check().is_some_and(Check::hears_wishes);
                let health = if hears_wishes && entry.weight == 0 {
                    Health::assumed_draining()
                } else {
                    Health::assumed_up()
                };
                let key = BackendKey::of(service, backend);
                Some((key, health, backend.address(), *entry))
            })
            .collect();
        for (key, health, address, entry) in found {
            self.health.insert(key, health);
            if let Some(next_hop) = entry.next_hop {
                self.set_next_hop(address, next_hop);
                self.set_mtu(address, entry.mtu);
            }
        }
        for is_v4 in [true, false] {
            for number in (0_u8..).take(image.nat_pool.source_count(is_v4) as usize) {
                self.add_default_source(IpAddr::from(*image.nat_pool.source(is_v4, number)));
            }
        }
    }

    /// Whether flows that are bound to what NAT sends from by `image` still are sent from there.
    #[must_use]
    pub fn keeps_sources(&self, image: &MapImage) -> bool {
        let (old, new) = (&image.nat_pool, self.nat_pool());
        let translates = self.config.translates();
        [true, false].into_iter().all(|is_v4| {
            let mut numbers = (0_u8..).take(old.source_count(is_v4) as usize);
            let is_there = |number| {
                u32::from(number) < new.source_count(is_v4)
                    && old.source(is_v4, number) == new.source(is_v4, number)
            };
            !translates || numbers.all(is_there)
        })
    }
}

/// The backends that `image` sends packets to and `config` lacks, though it has their services and
/// these forward alike: they may have sessions.
#[must_use]
pub fn remnants(config: &Config, image: &MapImage) -> Vec<Remnant> {
    let services = config.services().iter();
    let installed = services.filter_map(|service| {
        let installed = image.services.get(&service.key())?;
        forwards_alike(service, installed).then_some((service, installed))
    });
    installed
        .flat_map(|(service, installed)| remnants_of(service, installed, image))
        .collect()
}

fn forwards_alike(service: &Service, installed: &ServiceImage) -> bool {
    (service.forward(), tunnels::form(service)) == (installed.forward, installed.tunnel)
}

fn remnants_of(
    service: &Service,
    installed: &ServiceImage,
    image: &MapImage,
) -> impl Iterator<Item = Remnant> {
    let backends = service.backends().iter();
    let known: BTreeSet<(Ip, u16)> = backends
        .map(|backend| (Ip::from(backend.address()), backend.port()))
        .collect();
    let (key, id) = (service.key(), installed.id);
    let entries = image.backends.values();
    entries
        .filter(move |entry| entry.service == id && !known.contains(&(entry.address, entry.port)))
        .map(move |entry| Remnant {
            service: key,
            name: None,
            address: IpAddr::from(entry.address),
            port: entry.port,
            max_connections: entry.limit,
        })
}

#[cfg(test)]
mod tests;
