//! Backends that were taken out of the configuration, as long as they have sessions.
//!
//! To the kernel they are draining: no new flows, and those that they have go on. Whether they still
//! have any is the daemon's to find out; one that is down or disabled has none.

use super::{Admin, BackendKey, Balancer};
use crate::config::model::{Backend, Config, NoRoomToLeave, Service};

impl Balancer {
    /// `new`, as it can follow the configuration in force: with the backends that it lacks and that
    /// packets are sent to.
    ///
    /// # Errors
    ///
    /// If there is no room for these.
    pub fn successor(&self, new: Config) -> Result<Config, NoRoomToLeave> {
        new.with_leaving(&self.config, |service, backend| {
            self.is_present(service, backend)
        })
    }

    /// The backends that leave.
    pub fn leaving(&self) -> impl Iterator<Item = (&Service, &Backend)> {
        let backends = self.config.backends();
        backends.filter(|(_, backend)| backend.is_leaving())
    }

    /// Whether `backend` is one of them.
    #[must_use]
    pub fn is_leaving(&self, backend: &BackendKey) -> bool {
        let mut leaving = self.leaving();
        leaving.any(|(service, candidate)| BackendKey::of(service, candidate) == *backend)
    }

    /// Forgets leaving backends.
    pub fn dismiss(&mut self, gone: &[BackendKey]) {
        let is_gone =
            |service: &Service, backend: &Backend| gone.contains(&BackendKey::of(service, backend));
        self.set_config(self.config.without_leaving(is_gone));
    }

    /// Whether `backend` is to be used: who leaves drains, but may be cut off.
    pub(super) fn standing(&self, service: &Service, backend: &Backend) -> Admin {
        let said = self.admin.admin(&BackendKey::of(service, backend));
        match said {
            Admin::Enabled if backend.is_leaving() => Admin::Draining,
            Admin::Enabled | Admin::Draining | Admin::Disabled => said,
        }
    }
}

#[cfg(test)]
mod tests;
