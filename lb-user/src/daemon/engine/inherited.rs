//! What the engine makes of what the peer tells of its slots: it stands by for the peer's sessions.
//!
//! The slots of a service that this node stands by for follow the peer's: their owners are those that
//! this node would choose, and where the peer's sessions are elsewhere the slot is held, as after a
//! change of this node's own. No window runs meanwhile: nobody's packets go by. When the node takes
//! over, all of them begin: what the peer has learned last may not have got here.

use std::{collections::BTreeSet, net::IpAddr, sync::Arc, time::Duration};

use lb_common::abi::ServiceKey;
use tracing::warn;

use super::Engine;
use crate::{
    core::{plan::Desired, sync::record::SlotTable},
    daemon::maps::Maps,
};

/// What the peer says of a service that this node stands by for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::daemon) enum Told {
    Slots(ServiceKey, Arc<SlotTable>),
    KeepAlive(ServiceKey, Duration),
}

impl<M: Maps> Engine<M> {
    /// Takes in what the peer says.
    pub(in crate::daemon) fn handle_told(&mut self, told: Told) {
        match told {
            Told::Slots(key, table) => {
                let is_news = self.inherited.get(&key) != Some(&table);
                if is_news && self.stands_by(&key) {
                    self.inherited.insert(key, table);
                    self.dirty = true;
                }
            }
            Told::KeepAlive(key, seconds) => self.raise_keep_alive(&key, seconds),
        }
    }

    fn raise_keep_alive(&mut self, key: &ServiceKey, to: Duration) {
        let Some(service) = self.image.services.get(key) else {
            return;
        };
        if let Err(error) = self.maps.raise_keep_alive(service.id, to) {
            let error = format!("{error:#}");
            warn!(error, "a keep-alive that the peer has seen cannot be kept");
        }
    }

    /// Whether the peer tells this node of a service's flows.
    fn stands_by(&self, key: &ServiceKey) -> bool {
        let has_peer = self.balancer.config().sync().is_some();
        has_peer && self.absent.contains(&IpAddr::from(key.vip()))
    }

    /// The addresses that a peer has had, as far as the maps say.
    pub(in crate::daemon) fn stood_by(&self) -> BTreeSet<IpAddr> {
        let services = self.image.services.iter();
        let standing_by = services.filter(|(_, service)| service.is_standby);
        standing_by
            .map(|(key, _)| IpAddr::from(key.vip()))
            .collect()
    }

    /// Has services follow the peer's slots.
    pub(super) fn inherit(&self, desired: &mut Desired) {
        for service in &mut desired.services {
            service.is_standby = self.stands_by(&service.key);
            service.inherited = self.inherited.get(&service.key).cloned();
        }
    }

    /// Takes in that the maps hold what was inherited: of what is this node's own by now, its own
    /// table is what follows.
    pub(super) fn note_inherited(&mut self) {
        let Self {
            inherited, absent, ..
        } = self;
        inherited.retain(|key, _| absent.contains(&IpAddr::from(key.vip())));
    }

    /// Takes in that from now on these VIPs are not here: windows stand still, or begin.
    pub(super) fn note_take_over(&mut self, vips: &BTreeSet<IpAddr>) {
        let has_peer = self.balancer.config().sync().is_some();
        self.dirty |= has_peer && *vips != self.absent;
    }
}
