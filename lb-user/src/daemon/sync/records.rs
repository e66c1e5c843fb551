//! Takes in what the peer tells of: writes records, and says what concerns the event loop.

use std::collections::{BTreeMap, BTreeSet};
use std::{sync::Arc, time::Duration};

use lb_common::abi::{FlowKey, Tick};

use crate::{
    core::sync::{
        Item,
        names::{Names, Refused},
        record::{FlowName, FlowRecord, Key, Record},
    },
    daemon::{engine::Told, vrrp::Roles},
    io::datapath::{DatapathError, Recorded, Recorder},
};

/// What was done, since the start.
#[derive(Clone, Debug, Default)]
pub(super) struct Counts {
    pub(super) taken: u64,
    pub(super) removed: u64,
    pub(super) refused: BTreeMap<Refused, u64>,
}

/// Who writes, by which names.
pub(super) struct Records {
    pub(super) recorder: Recorder,
    pub(super) names: Arc<Names>,
    pub(super) roles: Roles,
    pub(super) counts: Counts,
}

impl Records {
    /// Takes in what is new, in its order; `sent` is the peer's clock, `now` this node's. Blocks.
    ///
    /// # Errors
    /// If the kernel does not let the tables be changed.
    pub(super) fn apply(
        &mut self,
        items: Vec<Item<Key, Record>>,
        clocks: (Tick, Tick),
    ) -> Result<Vec<Told>, DatapathError> {
        let mut told = Vec::new();
        for item in items {
            match item {
                Item::Put(Key::Flow(name), Record::Flow(record)) => {
                    self.put(&name, &record, clocks)?;
                }
                Item::Put(Key::KeepAlive(name), Record::KeepAlive(seconds)) => {
                    let seconds = Duration::from_secs(seconds.into());
                    let key = self.names.service(&name);
                    told.extend(self.count(key.map(|key| Told::KeepAlive(key, seconds))));
                }
                Item::Put(Key::Slots(name), Record::Slots(table)) => {
                    let key = self.names.service(&name);
                    let key =
                        key.and_then(|key| table.is_valid().then_some(key).ok_or(Refused::Invalid));
                    told.extend(self.count(key.map(|key| Told::Slots(key, Arc::new(*table)))));
                }
                Item::Put(..) => self.refuse(Refused::Invalid),
                Item::Remove(Key::Flow(name)) => {
                    if self.names.service(&name.service).is_ok() {
                        self.recorder.forget(&FlowKey::from(&name))?;
                        self.counts.removed += 1;
                    }
                }
                // What a service was, it stays until its peer says something else.
                Item::Remove(Key::KeepAlive(_) | Key::Slots(_)) => {}
            }
        }
        Ok(told)
    }

    fn put(
        &mut self,
        name: &FlowName,
        record: &FlowRecord,
        clocks: (Tick, Tick),
    ) -> Result<(), DatapathError> {
        let key = FlowKey::from(name);
        let refusal = match self.names.flow(name, record, clocks) {
            Ok(local) => match self.recorder.record(&key, &local)? {
                Recorded::Done => {
                    self.counts.taken += 1;
                    return Ok(());
                }
                Recorded::NoRoom => Refused::NoRoom,
            },
            Err(refusal) => refusal,
        };
        self.refuse(refusal);
        // What is recorded of it is not so.
        if self.names.service(&name.service).is_ok() {
            self.recorder.forget(&key)?;
        }
        Ok(())
    }

    fn count<T>(&mut self, outcome: Result<T, Refused>) -> Option<T> {
        match outcome {
            Ok(told) => {
                self.counts.taken += 1;
                Some(told)
            }
            Err(refusal) => {
                self.refuse(refusal);
                None
            }
        }
    }

    fn refuse(&mut self, refusal: Refused) {
        *self.counts.refused.entry(refusal).or_default() += 1;
    }

    /// Forgets the flows of the services of a snapshot that it does not name. Blocks; if this node
    /// takes over meanwhile, flows are its own from then on.
    ///
    /// # Errors
    /// If the kernel does not let the tables be read or changed.
    pub(super) fn retain(&mut self, named: &BTreeSet<Key>) -> Result<(), DatapathError> {
        let services = named.iter().filter_map(|key| match key {
            Key::Slots(service) => self.names.service(service).ok(),
            Key::Flow(_) | Key::KeepAlive(_) => None,
        });
        let services = services.collect();
        let is_named = |key: &FlowKey| named.contains(&Key::Flow(FlowName::from(key)));
        let is_peers = |key: &FlowKey| !self.roles.is_active(key.service().vip().into());
        self.counts.removed += self.recorder.retain(&services, is_named, is_peers)?;
        Ok(())
    }
}
