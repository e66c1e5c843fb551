//! From what a walk over the flow tables has met, and what the program reports between two of them, to
//! what the peer should have.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use lb_common::abi::{BackendId, Flow, FlowKey, Forward, ServiceKey};

use super::names;
use super::record::{
    BackendName, FlowName, FlowRecord, Key, Record, ServiceName, SlotTable, Translation,
};
use super::sender::Sender;
use crate::core::image::{MapImage, ServiceImage};

/// What a walk has met of the services that the peer is told of.
#[derive(Clone, Debug)]
pub struct Walk {
    /// What was in force when it began: all that was recorded by an earlier one has been met.
    pub image: Arc<MapImage>,
    /// The services.
    pub services: BTreeSet<ServiceKey>,
    /// Established flows that stay.
    pub flows: Vec<(FlowKey, Flow)>,
    /// Of translated flows, where the client's packets come from.
    pub clients: HashMap<FlowKey, [u8; 6]>,
    /// The longest keep-alive that was asked for, in seconds.
    pub keep_alives: BTreeMap<ServiceKey, u32>,
}

impl Walk {
    /// One that has met nothing, of the services with one of these VIPs.
    #[must_use]
    pub fn new(image: &Arc<MapImage>, vips: &BTreeSet<IpAddr>) -> Self {
        let services = image.services.keys();
        let services = services.filter(|key| vips.contains(&key.vip().into()));
        Self {
            services: services.copied().collect(),
            image: Arc::clone(image),
            flows: Vec::new(),
            clients: HashMap::new(),
            keep_alives: BTreeMap::new(),
        }
    }

    /// Takes in a record that stays.
    pub fn note(&mut self, key: &FlowKey, flow: &Flow) {
        if self.services.contains(&key.service()) {
            self.flows.push((*key, *flow));
        }
    }

    /// Takes in where a client's packets come from.
    pub fn note_client(&mut self, client: FlowKey, mac: [u8; 6]) {
        if self.services.contains(&client.service()) {
            self.clients.insert(client, mac);
        }
    }
}

/// A flow that the program has just established.
#[derive(Clone, Copy, Debug)]
pub struct Established {
    pub key: FlowKey,
    pub flow: Flow,
    /// Of a translated flow, where the client's packets come from.
    pub client: [u8; 6],
    /// When it was established.
    pub made: Duration,
    /// A time after `flow` was read.
    pub met: Duration,
}

/// What the peer should have.
pub struct Source {
    pub sender: Sender<Key, Record>,
    /// The backends of an image.
    backends: Option<(Arc<MapImage>, Backends)>,
    /// The image and services of the last walk.
    last: Option<(Arc<MapImage>, BTreeSet<ServiceKey>)>,
    /// When it began.
    looked: Option<Duration>,
    intake: Option<Intake>,
}

/// A walk of which not all has been taken in.
struct Intake {
    image: Arc<MapImage>,
    /// The backends of the image.
    backends: Backends,
    flows: std::vec::IntoIter<(FlowKey, Flow)>,
    clients: HashMap<FlowKey, [u8; 6]>,
    /// What the walk has met may have been like that since.
    since: Duration,
    /// Whether the one before was made by the same image.
    is_same: bool,
}

/// So many flows are taken in at once: those that begin meanwhile wait for a few milliseconds.
const STRIDE: usize = 2048;

impl Source {
    /// See [`Sender::new`].
    #[must_use]
    pub fn new(stream: u64) -> Self {
        Self {
            sender: Sender::new(stream),
            backends: None,
            last: None,
            looked: None,
            intake: None,
        }
    }

    /// How old what the peer does not have can be: nothing, if it is to have nothing.
    #[must_use]
    pub fn lag(&self, at: Duration) -> Duration {
        let has_any = self.last.as_ref().is_some_and(|(_, it)| !it.is_empty());
        let looked = self.looked.filter(|_| has_any);
        looked.map_or(Duration::ZERO, |looked| {
            at.saturating_sub(looked).max(self.sender.lag(at))
        })
    }

    /// Begins to take in what a walk has met that began at some time. [`Self::continue_walk`] does the
    /// rest.
    pub fn begin_walk(&mut self, walk: Walk, begun: Duration) {
        // Since the walk before, what has changed may have been like that.
        let since = self.looked.replace(begun).unwrap_or(begun);
        let Walk {
            image,
            services,
            flows,
            clients,
            keep_alives,
        } = walk;
        // The receiver may have lost, or changed, what it was told of a service that was not this
        // node's for a while.
        let last = self.last.take();
        if last.as_ref().is_none_or(|(_, before)| *before != services) {
            self.sender.clear();
        }
        self.sender.begin_walk(begun);
        for (service, seconds) in keep_alives {
            let name = Key::KeepAlive(service.into());
            self.sender.offer(name, Record::KeepAlive(seconds), since);
        }
        self.intake = Some(Intake {
            backends: names::backends(&image),
            flows: flows.into_iter(),
            clients,
            since,
            is_same: last.is_some_and(|(before, _)| Arc::ptr_eq(&before, &image)),
            image: Arc::clone(&image),
        });
        self.last = Some((image, services));
    }

    /// Whether a walk is being taken in.
    #[must_use]
    pub const fn is_walking(&self) -> bool {
        self.intake.is_some()
    }

    /// Takes in some more of the walk; slots come last, as they depend on records.
    pub fn continue_walk(&mut self) {
        let Some(mut intake) = self.intake.take() else {
            return;
        };
        let Intake {
            image,
            backends,
            flows,
            clients,
            since,
            is_same,
        } = &mut intake;
        for (key, flow) in flows.by_ref().take(STRIDE) {
            let client = clients.get(&key).copied().unwrap_or_default();
            if let Some(record) = record(image, backends, &flow, client) {
                let name = Key::Flow(FlowName::from(&key));
                self.sender.offer(name, Record::Flow(record), *since);
            }
        }
        if flows.len() > 0 {
            self.intake = Some(intake);
            return;
        }
        let ours = |key: &ServiceKey| {
            let services = self.last.as_ref().map(|(_, services)| services);
            services.is_some_and(|services| services.contains(key))
        };
        for (key, service) in image.services.iter().filter(|(key, _)| ours(key)) {
            let name = Key::Slots(ServiceName::from(*key));
            if *is_same && self.sender.keep(&name) {
                continue;
            }
            let table = Box::new(slots(service, backends));
            self.sender.offer(name, Record::Slots(table), *since);
        }
        self.sender.end_walk(*since);
    }

    /// Takes in a walk at one go.
    #[cfg(test)]
    pub(super) fn handle_walk(&mut self, walk: Walk, begun: Duration) {
        self.begin_walk(walk, begun);
        while self.is_walking() {
            self.continue_walk();
        }
    }

    /// Takes in a flow by what is in force, if it is one of a service that the last walk was for: else
    /// the next walk has it.
    pub fn handle_established(&mut self, image: &Arc<MapImage>, established: &Established) {
        let Established {
            key,
            flow,
            client,
            made,
            met,
        } = established;
        let has_service = |(_, services): &(_, BTreeSet<_>)| services.contains(&key.service());
        if !self.last.as_ref().is_some_and(has_service) {
            return;
        }
        let is_same = |(known, _): &(Arc<_>, _)| Arc::ptr_eq(known, image);
        if !self.backends.as_ref().is_some_and(is_same) {
            self.backends = Some((Arc::clone(image), names::backends(image)));
        }
        let backends = self.backends.as_ref().map(|(_, backends)| backends);
        if let Some(record) = backends.and_then(|it| record(image, it, flow, *client)) {
            let name = Key::Flow(FlowName::from(key));
            self.sender
                .announce(name, Record::Flow(record), *made, *met);
        }
    }
}

type Backends = BTreeMap<BackendId, (BackendName, u16)>;

/// What is told of a flow; nothing if its backend has gone.
fn record(
    image: &MapImage,
    backends: &Backends,
    flow: &Flow,
    client: [u8; 6],
) -> Option<FlowRecord> {
    let (backend, epoch) = backends.get(&BackendId(flow.backend))?;
    if *epoch != flow.epoch {
        return None;
    }
    let translation = flow.is_translated().then(|| {
        let v4 = backend.address.is_ipv4();
        let source = *image.nat_pool.source(v4, flow.nat_source);
        Box::new(Translation {
            source: source.into(),
            port: u16::from_be_bytes(flow.nat_port()),
            client,
        })
    });
    Some(FlowRecord {
        backend: *backend,
        state: flow.state,
        keep_alive: flow.keep_alive.to_bits(),
        seen: flow.seen,
        sequence: if translation.is_some() {
            0
        } else {
            flow.sequence()
        },
        translation,
    })
}

/// The slots of a service, as far as flows depend on them.
fn slots(service: &ServiceImage, backends: &Backends) -> SlotTable {
    if service.forward == Forward::Nat {
        return SlotTable::default();
    }
    let table = &service.table;
    SlotTable::new(&table.slots, &table.holds, |id| {
        backends.get(&id).map(|(name, _)| *name)
    })
}

#[cfg(test)]
mod tests;
