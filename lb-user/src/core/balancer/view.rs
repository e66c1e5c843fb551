//! What there is to tell about services and backends: the core's part of a status.

use std::collections::BTreeMap;

use lb_common::abi::{BackendId, Ip, NextHop, ServiceId};

use crate::config::model::{Backend, Service};
use crate::core::balancer::{Admin, BackendKey, Balancer};
use crate::core::health::{Health, HealthState};
use crate::core::image::{BackendImage, MapImage, ServiceImage};

/// A service as it stands.
#[derive(Clone, Debug)]
pub struct ServiceView<'a> {
    pub service: &'a Service,
    /// Index of its counters, once it is in the maps.
    pub id: Option<ServiceId>,
    /// Whether any backend takes new flows.
    pub up: bool,
    pub backends: Vec<BackendView<'a>>,
}

/// A backend as it stands.
#[derive(Clone, Debug)]
pub struct BackendView<'a> {
    pub backend: &'a Backend,
    pub key: BackendKey,
    /// Index of its counters, while it is in the maps.
    pub id: Option<BackendId>,
    /// Tells users of one id apart: counters start anew when it differs.
    pub epoch: Option<u16>,
    pub admin: Admin,
    /// The weight in force: the operator's, else the configured one.
    pub weight: u16,
    pub health: HealthState,
    /// Why the last probe failed, if it did.
    pub reason: Option<&'a str>,
    pub next_hop: Option<NextHop>,
    /// Its share of the service's new flows, 0 to 1.
    pub share: f64,
}

impl Balancer {
    /// Tells of every service, with the ids and shares that `image` gives.
    #[must_use]
    pub fn view<'a>(&'a self, image: &MapImage) -> Vec<ServiceView<'a>> {
        let services = self.config().services().iter();
        services
            .map(|service| self.view_service(service, image))
            .collect()
    }

    fn view_service<'a>(&'a self, service: &'a Service, image: &MapImage) -> ServiceView<'a> {
        let installed = image.services.get(&service.key());
        let shares = installed.map(ServiceImage::shares).unwrap_or_default();
        let backends = service.backends().iter();
        ServiceView {
            service,
            id: installed.map(|installed| installed.id),
            up: installed.is_some_and(|installed| !installed.table.slots.is_empty()),
            backends: backends
                .map(|backend| {
                    let present = installed.and_then(|installed| {
                        let address = Ip::from(backend.address());
                        image.find_backend(installed.id, address, backend.port())
                    });
                    self.view_backend(service, backend, present, &shares)
                })
                .collect(),
        }
    }

    fn view_backend<'a>(
        &'a self,
        service: &Service,
        backend: &'a Backend,
        present: Option<(BackendId, &BackendImage)>,
        shares: &BTreeMap<BackendId, f64>,
    ) -> BackendView<'a> {
        let key = BackendKey::of(service, backend);
        let share = present.and_then(|(id, _)| shares.get(&id));
        BackendView {
            backend,
            id: present.map(|(id, _)| id),
            epoch: present.map(|(_, image)| image.epoch),
            admin: self.admin().admin(&key),
            weight: self.weight(&key, backend),
            health: self.health(&key),
            reason: self.health.get(&key).and_then(Health::reason),
            next_hop: self.next_hop(backend.address()),
            share: share.copied().unwrap_or(0.0),
            key,
        }
    }
}
