//! The interface that the program is attached to, which has the VIPs.

use lb_common::abi::{Forward, OwnMac};

use super::Balancer;
use crate::config::model::{Backend, Service};

impl Balancer {
    /// Says which interface it is, by its index, and what frames for it are sent to. Returns whether
    /// that is news.
    pub fn set_interface(&mut self, index: u32, mac: [u8; 6]) -> bool {
        self.interface.replace((index, mac)) != Some((index, mac))
    }

    pub(super) fn own_mac(&self) -> OwnMac {
        self.interface
            .map_or(OwnMac::UNKNOWN, |(_, mac)| OwnMac::new(mac))
    }

    /// Whether what `backend` answers comes back to us where it has to: translated replies that come
    /// in by another interface end at the host's own TCP.
    #[must_use]
    pub fn sees_replies(&self, service: &Service, backend: &Backend) -> bool {
        let hop = self.next_hop(backend.address());
        let is_elsewhere = hop
            .zip(self.interface)
            .is_some_and(|(hop, (index, _))| hop.interface != index);
        service.forward() != Forward::Nat || !is_elsewhere
    }
}
