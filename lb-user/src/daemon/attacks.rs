//! Looks for floods of SYNs, and has the services that see one challenge their clients.

use std::{collections::BTreeMap, time::Duration};

use lb_common::abi::ServiceKey;

use super::{engine::Engine, maps::Maps};
use crate::{
    config::model::Challenge,
    core::{
        attack::{Change, Watch},
        event::Event,
    },
};

/// The watches of services that challenge when attacked.
pub(super) type Watches = BTreeMap<ServiceKey, Watch>;

impl<M: Maps> Engine<M> {
    /// Looks at the SYNs of every service that challenges when attacked; `now` is the time since any
    /// fixed moment. Without the kernel's counters nothing changes.
    pub(super) fn look_for_attacks(&mut self, now: Duration) {
        let mut watches = std::mem::take(&mut self.watches);
        let services = self.balancer.config().services().iter();
        let watched: Vec<_> = services
            .filter(|service| service.guard().challenge() == Challenge::Auto)
            .map(|s| (s.key(), s.name().to_owned(), s.guard().challenge_above()))
            .collect();
        let is_watched = |key: &ServiceKey| watched.iter().any(|(watched, ..)| watched == key);
        for (key, _) in watches.extract_if(.., |key, _| !is_watched(key)) {
            self.handle_attack(key, false);
        }
        for (key, name, above) in watched {
            let Ok(guard) = self.ledger.guard(key, &self.maps) else {
                continue;
            };
            let watch = watches.entry(key).or_default();
            let change = watch.observe(guard.syns, now, above.into());
            let rate = watch.rate();
            match change {
                Some(Change::Begins) => {
                    self.journal.tell(Event::FloodBegan {
                        service: name,
                        rate,
                        above: above.into(),
                    });
                }
                Some(Change::Ends) => {
                    self.journal.tell(Event::FloodEnded {
                        service: name,
                        rate,
                    });
                }
                None => continue,
            }
            self.handle_attack(key, watch.is_attacked());
        }
        self.watches = watches;
    }
}
