//! Tells of backends that are held: up although they are silent, as everybody else is.

use std::{collections::BTreeMap, net::IpAddr};

use super::Engine;
use crate::{
    config::model::{Service, Track, TrackTarget, Vrrp},
    core::{
        balancer::{Admin, BackendKey},
        event::Event,
        health::HealthState,
        vrrp::{node::Backing, track::Share},
    },
    daemon::maps::Maps,
};

impl<M: Maps> Engine<M> {
    /// Takes in what a probe of `backend` may have changed.
    pub(super) fn note_held(&mut self, backend: &BackendKey) {
        let had_any = !self.held.is_empty();
        if !self.balancer.is_held(backend) {
            self.held.remove(backend);
        } else if !self.held.contains(backend) {
            self.held.insert(backend.clone());
        }
        self.tell_of_held(had_any);
    }

    /// Takes in that others are configured.
    pub(super) fn review_held(&mut self) {
        let had_any = !self.held.is_empty();
        let backends = self.balancer.config().backends();
        let keys =
            backends.map(|(service, backend)| BackendKey::new(service.name(), backend.name()));
        self.held = keys.filter(|key| self.balancer.is_held(key)).collect();
        self.tell_of_held(had_any);
    }

    /// The services' addresses, and the best that any service there has to send packets to.
    pub(in crate::daemon) fn backing(&self) -> BTreeMap<IpAddr, Backing> {
        let mut all = BTreeMap::new();
        for service in self.balancer.config().services() {
            let best = all.entry(service.vip()).or_insert(Backing::Nobody);
            *best = self.backing_of(service).max(*best);
        }
        all
    }

    fn backing_of(&self, service: &Service) -> Backing {
        if !self.is_up(&service.key()) {
            return Backing::Nobody;
        }
        let backends = service.backends().iter();
        let is_sound = backends
            .map(|backend| BackendKey::new(service.name(), backend.name()))
            .any(|key| {
                self.balancer.health(&key) == HealthState::Up && !self.balancer.is_held(&key)
            });
        if is_sound {
            Backing::Sound
        } else {
            Backing::Silent
        }
    }

    /// How many backends of each router are up that depends on them. One that is held counts as it is:
    /// silence is told by [`Self::backing`].
    pub(in crate::daemon) fn shares(&self) -> BTreeMap<String, Share> {
        let config = self.balancer.config();
        let depends = |router: &&Vrrp| {
            let mut targets = router.tracks().iter().map(Track::target);
            targets.any(|target| matches!(target, TrackTarget::Backends(_)))
        };
        let routers = config.vrrps().iter().filter(depends);
        let shares = routers.map(|router| (router.name().to_owned(), self.share_of(router)));
        shares.collect()
    }

    fn share_of(&self, router: &Vrrp) -> Share {
        let mut share = Share::default();
        let backends = self.balancer.config().backends();
        let backends = backends.filter(|(service, backend)| {
            let is_used = self.balancer.standing(service, backend) == Admin::Enabled;
            is_used && router.vips().contains(&service.vip())
        });
        for (service, backend) in backends {
            let key = BackendKey::new(service.name(), backend.name());
            match self.balancer.health(&key) {
                HealthState::Up => share.up += 1,
                HealthState::Unknown => share.unknown += 1,
                HealthState::Down => share.down += 1,
            }
        }
        share
    }

    /// Tells of the first and the last of them: a link that is down concerns them all.
    fn tell_of_held(&self, had_any: bool) {
        match (had_any, self.held.first()) {
            (false, Some(backend)) => self.journal.tell(Event::BackendsSilent {
                service: backend.service().to_owned(),
                backend: backend.backend().to_owned(),
            }),
            (true, None) => self.journal.tell(Event::BackendsHeard {}),
            (true, Some(_)) | (false, None) => {}
        }
    }
}
