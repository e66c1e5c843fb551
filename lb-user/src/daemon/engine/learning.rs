//! What the engine makes of walks over the flow tables.

use std::{collections::BTreeSet, net::IpAddr, sync::Arc};

use lb_common::abi::Tick;
use tokio::sync::watch;
use tracing::{error, info, warn};

use super::Engine;
use crate::{
    config::model::Config,
    core::{
        flows::{Expiry, Sight},
        image::ServiceImage,
        plan::{self, Desired, Moment},
        settle::{self, Findings, Learned},
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
    /// configuration's.
    pub(super) fn widen_windows(&self, desired: &mut Desired) {
        for service in &mut desired.services {
            let Some(installed) = self.image.services.get(&service.key) else {
                continue;
            };
            match self.maps.longest_keep_alive(installed.id) {
                Ok(Some(seen)) => service.window = service.window.max(slots::window(seen)),
                Ok(None) => {}
                Err(error) => warn!(error = format!("{error:#}"), "keep-alives cannot be read"),
            }
        }
    }

    /// Takes in which of the services' addresses this node does not have: no client sends packets to
    /// it.
    pub(in crate::daemon) fn handle_absent(&mut self, vips: BTreeSet<IpAddr>) {
        self.absent = vips;
    }

    /// Finds the services that start anew: none of their backends was there at some moment since this
    /// node last had the address. When it takes over it must do as its peer does, whose table has had
    /// all backends all the time, and not as if the first of them that it came to see had served
    /// everybody.
    pub(super) fn mark_fresh(&mut self, desired: &mut Desired) {
        for service in &mut desired.services {
            let key = service.key;
            if !self.absent.contains(&IpAddr::from(key.vip())) {
                self.fresh.remove(&key);
            } else if !self.is_up(&key) {
                self.fresh.insert(key);
            }
            service.is_fresh = self.fresh.contains(&key);
        }
        self.fresh
            .retain(|key| desired.services.iter().any(|service| service.key == *key));
    }

    /// Takes in what a walk over the flow tables has found: slots may be safe again.
    pub(in crate::daemon) fn handle_findings(&mut self, findings: Findings) {
        let now = self.maps.now();
        self.note_room(findings.has_room, now);
        self.correct_loads(&findings);
        if self.attempted.is_none() {
            let learned = Learned {
                now,
                room_since: self.room_since,
            };
            let target = settle::settle(&self.image, &findings, learned);
            let steps = plan::diff(&self.image, &target);
            if !steps.is_empty() {
                match self.install(target, &steps) {
                    Ok(()) => self.publish(),
                    Err(error) => {
                        self.dirty = true;
                        self.counters.apply_errors += 1;
                        let error = format!("{error:#}");
                        error!(error, "slots could not be settled, will be written anew");
                    }
                }
            }
        }
        self.findings = Some(findings);
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

    fn note_room(&mut self, has_room: bool, now: Tick) {
        if !has_room {
            self.room_since = now;
        }
        if has_room == self.has_room {
            return;
        }
        self.has_room = has_room;
        if has_room {
            info!("there is room for flows again");
            let is_deferred = |service: &ServiceImage| service.table.deferred;
            self.dirty |= self.image.services.values().any(is_deferred);
        } else {
            warn!(
                "no room for more flows: new ones keep to their slots, changes of backends wait; \
                 limits.flows is the number there is room for"
            );
        }
    }
}

pub(super) fn expiry(config: &Config) -> Expiry {
    Expiry {
        idle: config.tracking_idle(),
        shortest: config.tracking_shortest(),
        longest: config.tracking_longest(),
    }
}
