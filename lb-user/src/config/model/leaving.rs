//! Backends that a new configuration does not have and that still have sessions: they *leave*. They
//! stay in the configuration in force, marked, take no new flows, and go with their last session.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use lb_common::abi::ServiceKey;

use super::{Backend, Config, Service};

/// Leaving backends need room as well.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "limits.backends: there is room for {limit}, which {configured} configured ones and {leaving} with sessions \
     that were taken out do not fit in: wait until these are drained, or disable them"
)]
pub struct NoRoomToLeave {
    limit: u32,
    configured: usize,
    leaving: usize,
}

/// A backend that packets are sent to, of whose configuration nothing is left but this.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Remnant {
    pub service: ServiceKey,
    /// `ADDRESS:PORT` if it is not known.
    pub name: Option<String>,
    pub address: IpAddr,
    pub port: u16,
    /// The most flows it takes; 0: any number.
    pub max_connections: u32,
}

impl Remnant {
    /// Its service and its place in it, as text.
    #[must_use]
    pub fn place(&self) -> String {
        place(self.service, SocketAddr::new(self.address, self.port))
    }
}

/// A backend's service and its place in it, as text.
fn place(service: ServiceKey, backend: SocketAddr) -> String {
    let vip = SocketAddr::new(IpAddr::from(service.vip()), service.port());
    format!("{vip}/{} {backend}", service.protocol())
}

impl Config {
    /// The name of every backend by its service and place, as [`Remnant::place`] has it.
    #[must_use]
    pub fn names(&self) -> BTreeMap<String, String> {
        let names = self.backends().map(|(service, backend)| {
            let place = place(service.key(), backend.place());
            (place, backend.name.clone())
        });
        names.collect()
    }

    /// This configuration, with `remnants` as backends that leave: those that it lacks, of services that
    /// it has.
    ///
    /// # Errors
    ///
    /// If there is no room for all of them.
    pub fn with_remnants(
        mut self,
        remnants: impl IntoIterator<Item = Remnant>,
    ) -> Result<Self, NoRoomToLeave> {
        let configured = self.backends().count();
        for remnant in remnants {
            let mut services = self.services.iter_mut();
            let Some(service) = services.find(|service| service.key() == remnant.service) else {
                continue;
            };
            let place = SocketAddr::new(remnant.address, remnant.port);
            let backend = Backend {
                name: remnant.name.unwrap_or_else(|| place.to_string()),
                address: remnant.address,
                port: remnant.port,
                weight: 0,
                max_connections: remnant.max_connections,
                leaving: true,
            };
            if !service.has_place(&backend) {
                service.add_leaving(&backend);
            }
        }
        self.with_room(configured)
    }

    /// This configuration, with those backends of `old` that it lacks and that `has_sessions`.
    ///
    /// Only what is reached alike is kept: the service has the same VIP, port and protocol, and forwards
    /// the same way, by tunnels of the same form. One whose name another backend has now is called
    /// `NAME@ADDRESS:PORT`, which no file can say.
    ///
    /// # Errors
    ///
    /// If there is no room for all of them.
    pub fn with_leaving(
        mut self,
        old: &Self,
        has_sessions: impl Fn(&Service, &Backend) -> bool,
    ) -> Result<Self, NoRoomToLeave> {
        let configured = self.backends().count();
        for service in &mut self.services {
            let is_it = |before: &&Service| {
                before.key() == service.key()
                    && before.forward() == service.forward()
                    && before.tunnel() == service.tunnel()
            };
            let Some(before) = old.services.iter().find(is_it) else {
                continue;
            };
            for backend in before.backends() {
                if !service.has_place(backend) && has_sessions(before, backend) {
                    service.add_leaving(backend);
                }
            }
        }
        self.with_room(configured)
    }

    /// Itself, if there is room for its backends, of which so many are not those that leave.
    fn with_room(self, configured: usize) -> Result<Self, NoRoomToLeave> {
        let leaving = self.backends().count() - configured;
        let limit = self.limits.backends;
        if configured + leaving > limit as usize {
            return Err(NoRoomToLeave {
                limit,
                configured,
                leaving,
            });
        }
        Ok(self)
    }

    /// This configuration without those leaving backends that are `gone`.
    #[must_use]
    pub fn without_leaving(&self, gone: impl Fn(&Service, &Backend) -> bool) -> Self {
        let mut rest = self.clone();
        for (service, before) in rest.services.iter_mut().zip(&self.services) {
            let stays = |backend: &Backend| !(backend.is_leaving() && gone(before, backend));
            service.backends.retain(stays);
        }
        rest
    }
}

impl Service {
    /// Whether one of the backends is reached as `other` is.
    fn has_place(&self, other: &Backend) -> bool {
        let mut backends = self.backends.iter();
        backends.any(|backend| backend.place() == other.place())
    }

    fn add_leaving(&mut self, backend: &Backend) {
        let mut leaving = backend.clone();
        leaving.leaving = true;
        if self.backends.iter().any(|other| other.name == leaving.name) {
            leaving.name = format!("{}@{}", backend.name, backend.place());
        }
        self.backends.push(leaving);
    }
}

impl Backend {
    const fn place(&self) -> SocketAddr {
        SocketAddr::new(self.address, self.port)
    }
}
