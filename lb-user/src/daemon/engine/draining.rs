//! What is known of sessions: how many there are, and whether a draining backend has any left.

use std::{collections::BTreeSet, time::Duration};

use lb_common::abi::{BackendId, Ip, SLOT_COUNT, ServiceKey};

use super::Engine;
use crate::{
    config::model::{Backend, Config, NoRoomToLeave, Service},
    control::{DrainStatus, SlotsStatus},
    core::{
        balancer::{Admin, BackendKey},
        event::Event,
        health::HealthState,
        image::{BackendIndex, ServiceImage},
        settle,
    },
    daemon::maps::Maps,
};

impl<M: Maps> Engine<M> {
    /// What is left of the sessions of a draining backend; `id` is none if it takes no packets.
    pub(in crate::daemon) fn drain(&self, key: &ServiceKey, id: Option<BackendId>) -> DrainStatus {
        // The maps may hold something else than is known, or what is wanted is yet to come.
        let is_settled = self.is_settled() && self.attempted.is_none();
        let left = self
            .recorded(id)
            .map_or(0, |sessions| sessions.live + sessions.begun);
        let (Some(service), Some(id)) = (self.image.services.get(key), id) else {
            return DrainStatus {
                drained: is_settled,
                left,
                left_exact: is_settled,
                ..DrainStatus::default()
            };
        };
        let findings = self.findings.as_ref().filter(|_| self.has_room);
        let all_found = findings.filter(|findings| findings.has_all(key, service, id));
        let epoch = self.image.backends.get(&id).map(|backend| backend.epoch);
        let was_emptied = all_found
            .zip(epoch)
            .is_some_and(|(findings, epoch)| findings.was_emptied(id, epoch));
        DrainStatus {
            drained: is_settled && was_emptied && left == 0,
            left,
            left_exact: is_settled && all_found.is_some(),
            drain_learning_seconds: if service.table.holds.has_previous(id) {
                self.learning_seconds(service)
            } else {
                0
            },
        }
    }

    /// `new`, as it can follow the configuration in force: with the backends that it lacks and that
    /// may have sessions.
    ///
    /// # Errors
    ///
    /// If there is no room for these.
    pub(in crate::daemon) fn successor(&self, new: Config) -> Result<Config, NoRoomToLeave> {
        let index = self.image.backend_index();
        let is_drained =
            |service: &Service, backend: &Backend| self.is_drained(&index, service, backend);
        self.balancer.successor(new, is_drained)
    }

    fn is_drained(&self, index: &BackendIndex, service: &Service, backend: &Backend) -> bool {
        let key = service.key();
        let installed = self.image.services.get(&key);
        let id = installed.and_then(|installed| {
            let place = (installed.id, Ip::from(backend.address()), backend.port());
            index.get(&place).copied()
        });
        self.drain(&key, id).drained
    }

    /// Takes out those leaving backends that have no session left; whether there were any.
    pub(in crate::daemon) fn dismiss_drained(&mut self) -> bool {
        if self.balancer.leaving().next().is_none() {
            return false;
        }
        let index = self.image.backend_index();
        let gone: Vec<BackendKey> = self
            .balancer
            .leaving()
            .filter(|(service, backend)| self.is_drained(&index, service, backend))
            .map(|(service, backend)| BackendKey::new(service.name(), backend.name()))
            .collect();
        if gone.is_empty() {
            return false;
        }
        for backend in &gone {
            self.journal.tell(Event::BackendLeft {
                service: backend.service().to_owned(),
                backend: backend.backend().to_owned(),
            });
        }
        self.handle_config(self.balancer.without(&gone));
        true
    }

    /// Tells of a backend that has begun or ended to say that it takes no new clients.
    pub(super) fn note_wish(&mut self, backend: &BackendKey, before: bool, reason: Option<&str>) {
        let wants_drain = self.balancer.wants_drain(backend);
        if wants_drain == before {
            return;
        }
        self.dirty = true;
        let (service, name) = (backend.service().to_owned(), backend.backend().to_owned());
        if wants_drain {
            self.journal.tell(Event::BackendEvacuating {
                service,
                backend: name,
                reason: reason.unwrap_or_default().to_owned(),
            });
        } else if self.balancer.health(backend) == HealthState::Up {
            self.journal.tell(Event::BackendWelcoming {
                service,
                backend: name,
            });
        }
    }

    /// Tells which draining backends have lost their last session.
    pub(in crate::daemon) fn note_drained(&mut self) {
        let admin = self.balancer.admin();
        let backends = self.balancer.config().backends();
        let mut draining = backends
            .map(|(service, backend)| {
                let key = BackendKey::new(service.name(), backend.name());
                (key, service, backend)
            })
            .filter(|(key, service, backend)| {
                let is_evacuated = self.balancer.is_evacuated(service, backend);
                admin.admin(key) == Admin::Draining || is_evacuated
            })
            .filter(|(key, ..)| !self.balancer.is_leaving(key))
            .peekable();
        let mut drained = BTreeSet::new();
        if draining.peek().is_some() {
            let index = self.image.backend_index();
            let done = draining.filter(|(_, service, it)| self.is_drained(&index, service, it));
            drained.extend(done.map(|(key, ..)| key));
        }
        for key in drained.difference(&self.drained) {
            self.journal.tell(Event::BackendDrained {
                service: key.service().to_owned(),
                backend: key.backend().to_owned(),
            });
        }
        self.drained = drained;
    }

    /// How many sessions a backend has, if all flows of its service are recorded.
    pub(in crate::daemon) fn counted(
        &self,
        key: &ServiceKey,
        id: Option<BackendId>,
    ) -> Option<u64> {
        let service = self.image.services.get(key)?;
        let findings = self.findings.as_ref()?;
        let all = service.records_all() && findings.complete && self.has_room;
        if !all {
            return None;
        }
        self.recorded(id).map(|sessions| sessions.live)
    }

    /// The flows that are recorded for a backend, as of the last walk: none, if nobody has the id.
    pub(in crate::daemon) fn recorded(&self, id: Option<BackendId>) -> Option<settle::Sessions> {
        let findings = self.findings.as_ref();
        let Some(id) = id else {
            return Some(settle::Sessions::default());
        };
        let epoch = self.image.backends.get(&id)?.epoch;
        findings?.sessions.get(&(id, epoch)).copied()
    }

    /// The slots of a service.
    pub(in crate::daemon) fn slots(&self, key: &ServiceKey) -> SlotsStatus {
        let Some(service) = self.image.services.get(key) else {
            return SlotsStatus::default();
        };
        let (mixed, at_risk) = service.table.holds.count();
        let all = if service.table.slots.is_empty() {
            0
        } else {
            SLOT_COUNT as usize
        };
        SlotsStatus {
            safe: all.saturating_sub(mixed + at_risk) as u64,
            mixed: mixed as u64,
            at_risk: at_risk as u64,
            learning_seconds: self.learning_seconds(service),
            deferred: service.table.deferred,
        }
    }

    /// How long until no slot of a service is at risk, if nothing changes.
    fn learning_seconds(&self, service: &ServiceImage) -> u64 {
        let until = service.table.holds.until();
        let Some(until) = until.filter(|_| !service.is_standby) else {
            return 0;
        };
        let now = self.maps.now();
        // Windows begin once more when there is room again.
        let until = if self.has_room {
            until
        } else {
            until.max(now.after(service.window))
        };
        let ticks = u64::from(until.since(now));
        Duration::from_nanos(ticks << 30).as_secs_f64().ceil() as u64
    }
}
