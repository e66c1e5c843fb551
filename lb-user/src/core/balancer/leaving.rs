//! Backends that were taken out of the configuration, as long as they have sessions.
//!
//! To the kernel they are draining: those that they have go on, and no new ones come once their slots
//! have other owners. What operators said of them is forgotten, but for a cut. Whether they still
//! have any is the daemon's to find out; one that is down or disabled has none.

use super::{Admin, AdminState, BackendKey, Balancer};
use crate::config::model::{Backend, Config, NoRoomToLeave, Service};

impl Balancer {
    /// `new`, as it can follow the configuration in force: with the backends that it lacks, that packets
    /// are sent to, and that are not drained.
    ///
    /// # Errors
    ///
    /// If there is no room for these.
    pub fn successor(
        &self,
        new: Config,
        is_drained: impl Fn(&Service, &Backend) -> bool,
    ) -> Result<Config, NoRoomToLeave> {
        new.with_leaving(&self.config, |service, backend| {
            self.is_present(service, backend) && !is_drained(service, backend)
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

    /// The configuration in force without those leaving backends that are `gone`.
    #[must_use]
    pub fn without(&self, gone: &[BackendKey]) -> Config {
        let is_gone =
            |service: &Service, backend: &Backend| gone.contains(&BackendKey::of(service, backend));
        self.config.without_leaving(is_gone)
    }

    /// Whether `backend` is to be used: who leaves, or says that it takes no new clients, drains, but
    /// may be cut off.
    #[must_use]
    pub fn standing(&self, service: &Service, backend: &Backend) -> Admin {
        let said = self.admin.admin(&BackendKey::of(service, backend));
        match said {
            Admin::Enabled if backend.is_leaving() || self.is_evacuated(service, backend) => {
                Admin::Draining
            }
            Admin::Enabled | Admin::Draining | Admin::Disabled => said,
        }
    }
}

/// The backends whose entries are kept: those of the file, and of who leaves those that are cut off.
/// What was said of the others must not meet them, or another of their name, when it returns.
pub(super) fn spoken_of(config: &Config, admin: &AdminState) -> Vec<BackendKey> {
    let all = config.backends().map(|(service, backend)| {
        let key = BackendKey::of(service, backend);
        let is_kept = !backend.is_leaving() || admin.admin(&key) == Admin::Disabled;
        is_kept.then_some(key)
    });
    all.flatten().collect()
}

#[cfg(test)]
mod tests;
