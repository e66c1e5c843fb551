//! Backends that a new configuration does not have and that still have sessions: they *leave*. They
//! stay in the configuration in force, marked, take no new flows, and go with their last session.

use std::net::SocketAddr;

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

impl Config {
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
