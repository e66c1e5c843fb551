//! Tables that nobody's session went by so far: those of a node that starts without the address, or
//! loses all backends without it.
//!
//! Such a node sees its backends come one after the other. When it takes over it must do as its peer
//! does, whose table has had all of them all the time, and not as if the first that it came to see had
//! served everybody. So until it has seen each of them, up or down, slots change at once. After that
//! its peer sees what it sees, and both learn.

use std::{collections::BTreeSet, net::IpAddr};

use super::Engine;
use crate::{
    config::model::Service,
    core::{
        balancer::{BackendKey, Balancer},
        health::HealthState,
        plan::Desired,
    },
    daemon::maps::Maps,
};

impl<M: Maps> Engine<M> {
    /// Takes in which of the services' addresses this node does not have: no client sends packets to
    /// it.
    pub(in crate::daemon) fn handle_absent(&mut self, vips: BTreeSet<IpAddr>) {
        // Whoever had it since has sessions to keep.
        self.fresh
            .retain(|key, _| vips.contains(&IpAddr::from(key.vip())));
        self.note_take_over(&vips);
        self.absent = vips;
    }

    /// Whether a service of an address starts anew, and has not seen all of its backends.
    pub(in crate::daemon) fn is_fresh(&self, vip: IpAddr) -> bool {
        self.fresh.keys().any(|key| IpAddr::from(key.vip()) == vip)
    }

    /// Finds the services that start anew, and says of all whether they do.
    pub(super) fn mark_fresh(&mut self, desired: &mut Desired) {
        for service in &mut desired.services {
            let key = service.key;
            if self.absent.contains(&IpAddr::from(key.vip())) && !self.is_up(&key) {
                self.fresh.entry(key).or_default();
            }
            service.is_fresh = self.fresh.contains_key(&key);
        }
    }

    /// Takes in what came of a probe: whether its service waits to see `backend`.
    pub(super) fn note_seen(&mut self, backend: &BackendKey, has_failed: bool) {
        let is_down = has_failed && self.balancer.health(backend) == HealthState::Down;
        let mut services = self.balancer.config().services().iter();
        let service = services.find(|service| service.name() == backend.service());
        let Some(down) = service.and_then(|service| self.fresh.get_mut(&service.key())) else {
            return;
        };
        if is_down {
            down.insert(backend.clone());
        } else {
            // One that answers is on its way up.
            down.remove(backend);
        }
    }

    /// Ends the start of services that have seen all their backends, which the maps have by now.
    pub(super) fn review_fresh(&mut self) {
        let balancer = &self.balancer;
        self.fresh.retain(|key, down| {
            let mut services = balancer.config().services().iter();
            let service = services.find(|service| service.key() == *key);
            service.is_some_and(|service| !has_seen_all(balancer, service, down))
        });
    }
}

/// Whether each backend of a service is there, or is known to be down. One that is not checked counts
/// as soon as there is a way to it.
fn has_seen_all(balancer: &Balancer, service: &Service, down: &BTreeSet<BackendKey>) -> bool {
    service.backends().iter().all(|backend| {
        let key = BackendKey::new(service.name(), backend.name());
        match balancer.health(&key) {
            HealthState::Up => balancer.next_hop(backend.address()).is_some(),
            HealthState::Down => down.contains(&key),
            HealthState::Unknown => false,
        }
    })
}
