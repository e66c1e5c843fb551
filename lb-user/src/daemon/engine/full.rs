//! Looks who has as many flows as it takes.

use lb_common::abi::Ip;

use super::Engine;
use crate::{core::balancer::BackendKey, daemon::maps::Maps};

impl<M: Maps> Engine<M> {
    /// Has the tables follow who is full.
    pub(in crate::daemon) fn look_for_full(&mut self) {
        let backends = self.balancer.config().backends();
        let mut limited = backends
            .filter(|(_, backend)| backend.max_connections() > 0)
            .peekable();
        if limited.peek().is_none() {
            return;
        }
        let index = self.image.backend_index();
        let loads: Vec<_> = limited
            .filter_map(|(service, backend)| {
                let installed = self.image.services.get(&service.key())?;
                let address = Ip::from(backend.address());
                let id = index.get(&(installed.id, address, backend.port()))?;
                // What cannot be read is known as soon as it can.
                let open = self.maps.open_flows(*id).ok()?;
                let key = BackendKey::new(service.name(), backend.name());
                Some((key, open, u64::from(backend.max_connections())))
            })
            .collect();
        self.dirty |= self.balancer.set_loads(loads);
    }
}
