//! What the engine makes of walks over the flow tables.

use std::{sync::Arc, time::Duration};

use lb_common::abi::Forward;
use tokio::sync::watch;
use tracing::warn;

use super::Engine;
use crate::{
    config::model::{Config, Protocol, Service},
    core::{
        event::Event,
        flows::{Expiry, Sight},
        image::{MapImage, ServiceImage},
        plan::{self, Desired, Moment},
        settle::{self, Findings},
        slots,
    },
    daemon::maps::Maps,
};

impl<M: Maps> Engine<M> {
    /// What is in force, and by what flows expire, whenever that changes.
    pub(in crate::daemon) fn sights(&self) -> watch::Receiver<Sight> {
        self.sights.subscribe()
    }

    /// Tells those who walk the flow tables what is in force.
    pub(super) fn publish(&self) {
        let expiry = expiry(self.balancer.config());
        self.sights.send_if_modified(|sight| {
            let changed = sight.expiry != expiry || *sight.image != self.image;
            if changed {
                *sight = Sight {
                    image: Arc::new(self.image.clone()),
                    expiry,
                };
            }
            changed
        });
    }

    pub(in crate::daemon) fn moment(&self) -> Moment {
        Moment {
            now: self.maps.now(),
            has_room: self.has_room,
        }
    }

    /// Takes the clients' word for how long they may be silent, where it is more than the
    /// configuration's, and within its bounds: any packet can claim whatever it wants.
    pub(super) fn widen_windows(&self, desired: &mut Desired) {
        for service in &mut desired.services {
            let Some(installed) = self.image.services.get(&service.key) else {
                continue;
            };
            match self.maps.longest_keep_alive(installed.id) {
                Ok(Some(seen)) => {
                    let wanted = slots::window(seen).min(service.widest_window);
                    service.window = service.window.max(wanted);
                }
                Ok(None) => {}
                Err(error) => warn!(error = format!("{error:#}"), "keep-alives cannot be read"),
            }
        }
    }

    /// Has no service inherit what the clients of another have claimed: forgets it of every id that
    /// `target` gives out, before packets are counted for the new user.
    pub(super) fn forget_keep_alives(&mut self, target: &MapImage) -> anyhow::Result<()> {
        for (key, service) in &target.services {
            let present = self.image.services.get(key);
            // A change that failed half way may have installed it.
            let doubtful = self.doubtful.iter().filter(|(other, _)| other == key);
            let mut known = present
                .into_iter()
                .chain(doubtful.map(|(_, attempt)| attempt));
            if !known.any(|known| known.id == service.id) {
                self.maps.forget_keep_alive(service.id)?;
                self.told_claims.remove(key);
            }
        }
        Ok(())
    }

    /// The services and keep-alives that clients have claimed beyond what windows wait for: each
    /// once, and again when it has doubled.
    pub(in crate::daemon) fn new_claims(&mut self) -> Vec<(String, Duration)> {
        let mut claims = Vec::new();
        for service in self.balancer.config().services() {
            let key = service.key();
            let installed = self.image.services.get(&key);
            let Some((most, installed)) = longest_waited_for(service).zip(installed) else {
                continue;
            };
            // If it cannot be read, the next change of backends says so.
            let seen = self.maps.longest_keep_alive(installed.id);
            let seen = seen.ok().flatten().unwrap_or_default();
            let told = self.told_claims.get(&key).copied().unwrap_or_default();
            // Any packet can claim a second more than the one before.
            if seen > most && seen >= told * 2 {
                self.told_claims.insert(key, seen);
                claims.push((service.name().to_owned(), seen));
            }
        }
        claims
    }

    fn tell_of_claims(&mut self) {
        for (service, claimed) in self.new_claims() {
            let seconds = claimed.as_secs();
            self.journal
                .tell(Event::KeepAliveClaimed { service, seconds });
        }
    }

    /// Takes in what a walk over the flow tables has found: slots may be safe again.
    pub(in crate::daemon) fn handle_findings(&mut self, findings: Findings) {
        self.tell_of_claims();
        self.note_room(findings.has_room);
        self.correct_loads(&findings);
        let settled = settle::settle(&self.image, &findings, self.moment());
        self.write_states(settled);
        self.findings = Some(findings);
    }

    /// Has the maps hold `target`, in which nothing but states of slots is new; says whether they do.
    fn write_states(&mut self, target: MapImage) -> bool {
        if self.attempted.is_some() {
            return false;
        }
        let steps = plan::diff(&self.image, &target);
        if steps.is_empty() {
            return true;
        }
        match self.install(target, &steps) {
            Ok(()) => {
                self.publish();
                true
            }
            Err(error) => {
                self.dirty = true;
                self.note_outcome(Some(&error));
                false
            }
        }
    }

    /// Tells the program what it cannot see of its flows' ends.
    fn correct_loads(&mut self, findings: &Findings) {
        for (&(id, epoch), census) in &findings.loads {
            if let Err(error) = self.maps.correct_load(id, epoch, census) {
                let error = format!("{error:#}");
                warn!(error, "counts of flows could not be corrected");
                return;
            }
        }
    }

    fn note_room(&mut self, has_room: bool) {
        match (self.has_room, has_room) {
            (true, false) => {
                self.has_room = false;
                self.journal.tell(Event::FlowsFull {});
            }
            (false, true) => self.handle_room(),
            (true, true) | (false, false) => {}
        }
    }

    /// Takes in that there is room again. Until windows have begun once more, there is none to speak of.
    fn handle_room(&mut self) {
        let begun = settle::begin_windows(&self.image, self.maps.now());
        // How long they are is not known before the image is what is wanted.
        if !self.is_settled() || !self.write_states(begun) {
            return;
        }
        self.has_room = true;
        self.journal.tell(Event::FlowsRoom {});
        let is_deferred = |service: &ServiceImage| service.table.deferred;
        self.dirty |= self.image.services.values().any(is_deferred);
    }
}

/// The longest keep-alive that windows of a service may wait for; none if no client says any, or no
/// slot learns.
pub(in crate::daemon) fn longest_waited_for(service: &Service) -> Option<Duration> {
    let learns = service.protocol() == Protocol::Mqtt && service.forward() != Forward::Nat;
    learns.then(|| service.keep_alive_max())
}

pub(super) fn expiry(config: &Config) -> Expiry {
    Expiry {
        idle: config.tracking_idle(),
        shortest: config.tracking_shortest(),
        longest: config.tracking_longest(),
    }
}
