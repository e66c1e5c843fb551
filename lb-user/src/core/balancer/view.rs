//! What there is to tell about services and backends: the core's part of a status.

use std::collections::BTreeMap;

use lb_common::abi::{BackendId, Ip, NextHop};

use crate::config::model::{Backend, Service};
use crate::core::balancer::{Admin, BackendKey, Balancer};
use crate::core::health::{Health, HealthState};
use crate::core::image::{BackendIndex, MapImage, ServiceImage};

/// A service as it stands.
#[derive(Clone, Debug)]
pub struct ServiceView<'a> {
    pub service: &'a Service,
    /// Whether any backend takes new flows.
    pub up: bool,
    pub backends: Vec<BackendView<'a>>,
}

/// A backend as it stands.
#[derive(Clone, Debug)]
pub struct BackendView<'a> {
    pub backend: &'a Backend,
    pub key: BackendKey,
    /// Its id, if it takes packets.
    pub id: Option<BackendId>,
    pub admin: Admin,
    /// The weight in force: the operator's, else the configured one.
    pub weight: u16,
    /// The weight that it takes new flows by: less on a ramp, 0 if it takes none.
    pub effective_weight: f64,
    pub health: HealthState,
    /// Whether it is up only because nobody shows that the way to it works.
    pub held: bool,
    /// Whether it drains because it says itself that it takes no new clients.
    pub evacuated: bool,
    /// Why the last probe was no success, if it was none.
    pub reason: Option<&'a str>,
    pub next_hop: Option<NextHop>,
    /// Its share of the service's new flows, 0 to 1.
    pub share: f64,
}

impl Balancer {
    /// Tells of every service, with the shares that `image` gives.
    #[must_use]
    pub fn view<'a>(&'a self, image: &MapImage) -> Vec<ServiceView<'a>> {
        let index = image.backend_index();
        let services = self.config().services().iter();
        services
            .map(|service| self.view_service(service, image, &index))
            .collect()
    }

    fn view_service<'a>(
        &'a self,
        service: &'a Service,
        image: &MapImage,
        index: &BackendIndex,
    ) -> ServiceView<'a> {
        let installed = image.services.get(&service.key());
        let shares = installed.map(ServiceImage::shares).unwrap_or_default();
        let backends = service.backends().iter();
        ServiceView {
            service,
            up: installed.is_some_and(ServiceImage::is_up),
            backends: backends
                .map(|backend| {
                    let present = installed.and_then(|installed| {
                        let address = Ip::from(backend.address());
                        let place = (installed.id, address, backend.port());
                        index.get(&place).copied()
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
        present: Option<BackendId>,
        shares: &BTreeMap<BackendId, f64>,
    ) -> BackendView<'a> {
        let key = BackendKey::of(service, backend);
        let share = present.and_then(|id| shares.get(&id));
        BackendView {
            backend,
            id: present,
            admin: self.standing(service, backend),
            weight: self.weight(&key, backend),
            effective_weight: self.effective_weight(service, backend),
            health: self.health(&key),
            held: self.is_held(&key),
            evacuated: self.is_evacuated(service, backend),
            reason: self.health.get(&key).and_then(Health::reason),
            next_hop: self.next_hop(backend.address()),
            share: share.copied().unwrap_or(0.0),
            key,
        }
    }
}
