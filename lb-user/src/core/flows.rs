//! What a record in the flow tables is good for.
//!
//! The daemon walks the tables and asks a [`Judge`] about every record: whether it is over, whether
//! its slot says the same without it, whose session it is. A judge is made anew for each walk, by
//! the image that is in force then; it may be older than the program's tables by the length of a
//! walk, which no verdict here is sensitive to.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use lb_common::abi::{
    BackendId, Balance, Flow, FlowKey, FlowState, PROTOCOL_UDP, ServiceKey, Tick,
};
use lb_common::flow::{self, HashKeys};

use crate::core::image::{MapImage, ServiceImage, Table};
use crate::core::settle::{Sessions, SlotSet};
use crate::core::slots::{self, State};

/// A SYN is sent again after 1, 3, 7, 15 and 31 s; by then it has an answer or its sender gave up.
const HALF_OPEN: Duration = Duration::from_secs(60);
/// A closed flow is kept for as long as Linux keeps a connection in TIME-WAIT.
const CLOSED: Duration = Duration::from_secs(60);
/// A flow that was reset is kept for longer: a client that resets connects again, at times from the
/// same port.
const RESET: Duration = Duration::from_secs(120);
/// A session's CONNECT has to follow at once; brokers wait for it no longer.
const AWAITED: Duration = Duration::from_secs(60);
/// UDP says no goodbye; two minutes is what RFC 4787, REQ-5 asks for.
pub(crate) const UDP_IDLE: Duration = Duration::from_secs(120);

/// How long flows may be silent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Expiry {
    /// A flow of which no more is known.
    pub idle: Duration,
    /// The least for a flow whose keep-alive is known: that is no promise of a working network.
    pub shortest: Duration,
    /// The most for such a flow.
    pub longest: Duration,
}

/// By what records are judged.
#[derive(Clone, Debug)]
pub struct Sight {
    /// What is in force.
    pub image: Arc<MapImage>,
    pub expiry: Expiry,
}

/// In which of the two flow tables a record is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    HalfOpen,
    Established,
}

/// What is to become of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    Stays,
    /// The flow has ended, or its backend has.
    Over,
    /// The flow goes on without it: its slot says the same.
    Needless,
}

/// Judges the records of one walk.
pub struct Judge {
    now: Tick,
    keys: HashKeys,
    expiry: Expiry,
    services: Vec<Service>,
    backends: Vec<Backend>,
    /// Whether there is room for flows that seem to be over.
    is_roomy: bool,
    /// Whether a record was met that is younger than the image.
    pub is_behind: bool,
}

struct Service {
    key: ServiceKey,
    balance: Balance,
    records_all: bool,
    is_standby: bool,
    is_mqtt: bool,
    window: Duration,
    table: Arc<Table>,
    strays: SlotSet,
}

#[derive(Clone, Copy, Default)]
struct Backend {
    /// The epoch of the last user of the id.
    epoch: u16,
    /// Where it is among the services, if that user is still there, or fell and may return.
    service: Option<u16>,
    sessions: Sessions,
}

impl Judge {
    /// A judge for a walk that begins now; `is_roomy` if the tables are far from full.
    #[must_use]
    pub fn new(sight: &Sight, keys: HashKeys, now: Tick, is_roomy: bool) -> Self {
        let image = &sight.image;
        let services: Vec<Service> = image
            .services
            .iter()
            .map(|(key, service)| Service::new(*key, service))
            .collect();
        let places: BTreeMap<_, u16> = image
            .services
            .values()
            .zip(0..)
            .map(|(service, place)| (service.id, place))
            .collect();
        let ids = image.epochs.keys().last();
        let mut backends = vec![Backend::default(); ids.map_or(0, |id| usize::from(id.0) + 1)];
        for (id, epoch) in &image.epochs {
            let backend = &mut backends[usize::from(id.0)];
            backend.epoch = *epoch;
            let current = image.backends.get(id).filter(|now| now.epoch == *epoch);
            let fallen = image.fallen.get(id);
            let fallen = fallen.filter(|it| it.epoch == *epoch && now <= it.until);
            let service = current.map(|now| now.service);
            let service = service.or_else(|| fallen.map(|fallen| fallen.service));
            backend.service = service.and_then(|service| places.get(&service).copied());
        }
        Self {
            now,
            keys,
            expiry: sight.expiry,
            services,
            backends,
            is_roomy,
            is_behind: false,
        }
    }

    /// Judges a record and keeps count of it.
    pub fn judge(&mut self, place: Place, key: &FlowKey, flow: &Flow) -> Fate {
        let (fate, is_stray) = self.fate(place, key, flow);
        if fate != Fate::Stays {
            return fate;
        }
        let Some(backend) = self.backends.get_mut(usize::from(flow.backend)) else {
            self.is_behind = true;
            return fate;
        };
        let Some(service) = backend.service.filter(|_| backend.epoch == flow.epoch) else {
            self.is_behind = true;
            return fate;
        };
        if flow.state == FlowState::Established as u8 {
            backend.sessions.live += 1;
        } else if flow.state == FlowState::HalfOpen as u8 {
            backend.sessions.begun += 1;
        }
        if let (Some(slot), Some(service)) = (is_stray, self.services.get_mut(usize::from(service)))
        {
            service.strays.insert(slot);
        }
        fate
    }

    /// What is to become of a record, and the slot whose owner it differs from.
    ///
    /// Does not count: good for a second look.
    #[must_use]
    pub fn fate(&self, place: Place, key: &FlowKey, flow: &Flow) -> (Fate, Option<u32>) {
        let Some(backend) = self.backends.get(usize::from(flow.backend)) else {
            return (Fate::Stays, None);
        };
        if is_earlier(flow.epoch, backend.epoch)
            || (flow.epoch == backend.epoch && backend.service.is_none())
        {
            return (Fate::Over, None);
        }
        let service = backend.service.filter(|_| flow.epoch == backend.epoch);
        let service = service.and_then(|at| self.services.get(usize::from(at)));
        let silence = u64::from(self.now.since(Tick(flow.seen)));
        if silence > ticks(self.limit(service, place, key, flow)) {
            return (Fate::Over, None);
        }
        // What a peer has told of is the peer's to take back: its slots may follow later.
        let by_slot = |service: &&Service| !service.records_all && !service.is_standby;
        let Some(service) = service.filter(by_slot) else {
            return (Fate::Stays, None);
        };
        let slot = flow::slot(self.keys.hash_by(service.balance, key));
        let owner = service.table.slots.get(slot as usize);
        let is_owners = owner == Some(&BackendId(flow.backend));
        match (is_owners, place, service.table.holds.get(slot)) {
            (false, _, _) => (Fate::Stays, Some(slot)),
            (true, Place::Established, State::Safe | State::Mixed) => (Fate::Needless, None),
            // Without it the flow would be taken for one of the previous owner's.
            (true, _, State::AtRisk { .. }) | (true, Place::HalfOpen, _) => (Fate::Stays, None),
        }
    }

    /// How long a flow may be silent.
    fn limit(
        &self,
        service: Option<&Service>,
        place: Place,
        key: &FlowKey,
        flow: &Flow,
    ) -> Duration {
        let idle = self.expiry.idle;
        if place == Place::HalfOpen && flow.state == FlowState::HalfOpen as u8 {
            return HALF_OPEN;
        }
        if key.protocol() == PROTOCOL_UDP {
            return UDP_IDLE.min(idle);
        }
        let live = self.live_limit(service, flow);
        // A client's FIN or RST may be forged, and its session go on: it has its time to show that.
        // Where nobody has to show anything, or the table fills, it cannot be waited for.
        let doubt = match service {
            Some(service) if service.is_mqtt && self.is_roomy => live.min(service.window),
            Some(_) => Duration::ZERO,
            None => live,
        };
        if FlowState::is_live(flow.state) {
            live
        } else if flow.state == FlowState::Closing as u8 {
            CLOSED.min(idle).max(doubt)
        } else if flow.state == FlowState::Reset as u8 {
            RESET.min(idle).max(doubt)
        } else {
            CLOSED.min(idle)
        }
    }

    /// How long a flow of TCP may be silent that is not over.
    fn live_limit(&self, service: Option<&Service>, flow: &Flow) -> Duration {
        let Expiry {
            idle,
            shortest,
            longest,
        } = self.expiry;
        if flow.keep_alive.is_awaited() {
            return AWAITED;
        }
        let unrecorded = service.filter(|service| !service.records_all);
        let Some(seconds) = flow.keep_alive.seconds() else {
            return unrecorded.map_or(idle, |service| service.window.max(shortest));
        };
        let window = slots::window(Duration::from_secs(seconds.into()));
        // The operator's word for all sessions, if the server may have its own for this one, or if its
        // CONNECT may have passed unseen: then this one may be forged.
        let operators = unrecorded.or(service.filter(|_| flow.keep_alive.may_differ()));
        let operators = operators.map_or(Duration::ZERO, |service| service.window);
        window.max(operators).max(shortest).min(longest)
    }

    /// What has been found: stray records by service, sessions by backend.
    #[must_use]
    pub fn finish(
        self,
    ) -> (
        BTreeMap<ServiceKey, SlotSet>,
        BTreeMap<(BackendId, u16), Sessions>,
    ) {
        let strays = self.services.into_iter().map(|s| (s.key, s.strays));
        let backends = (0..).zip(&self.backends);
        let sessions = backends
            .filter(|(_, backend)| backend.service.is_some())
            .map(|(id, backend)| ((BackendId(id), backend.epoch), backend.sessions));
        (strays.collect(), sessions.collect())
    }
}

impl Service {
    fn new(key: ServiceKey, image: &ServiceImage) -> Self {
        Self {
            key,
            balance: image.balance,
            records_all: image.records_all(),
            is_standby: image.is_standby,
            is_mqtt: image.features.mqtt,
            window: image.window,
            table: Arc::clone(&image.table),
            strays: SlotSet::default(),
        }
    }
}

/// Whether an epoch was given out before another: they wrap.
const fn is_earlier(epoch: u16, other: u16) -> bool {
    epoch != other && other.wrapping_sub(epoch) < 1 << 15
}

/// Rounded up: two times so many ticks apart may be almost one tick closer.
fn ticks(duration: Duration) -> u64 {
    let tick = 1 << 30;
    u64::try_from(duration.as_nanos().div_ceil(tick)).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
