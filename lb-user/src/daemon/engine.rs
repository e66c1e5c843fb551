//! What the event loop owns: the balancer's decisions and the maps that carry them out.
//!
//! Events change the [`Balancer`]; [`Engine::reconcile`], called after each burst of them, makes the
//! maps hold what it wants. There is no other way to the maps.

mod draining;
mod fresh;
mod full;
mod held;
mod inherited;
mod learning;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    ops::RangeInclusive,
    sync::Arc,
    time::Duration,
};

use lb_common::abi::{Forward, NextHop, Service as ServiceEntry, ServiceKey};
use tokio::sync::watch;

use self::learning::expiry;
pub(super) use self::{inherited::Told, learning::longest_waited_for};
use super::{attacks::Watches, ledger::Ledger, maps::Maps, sources::Narrow};
use crate::{
    config::model::{Config, Service},
    control::{Change, Counters, ProbeStatus},
    core::{
        admin::AdminState,
        balancer::{BackendKey, Balancer},
        event::Event,
        flows::Sight,
        health::{HealthState, ProbeOutcome, Question},
        image::{MapImage, MapOp, ServiceImage},
        plan,
        settle::Findings,
        sync::record::SlotTable,
    },
    io::probe::ProbeResult,
    journal::Journal,
};

/// How often the plan may ask for another round, each of which gives out the ids that the one before
/// took back: two are the most that it needs.
const ROUNDS: usize = 4;

/// Decisions and maps. See the module.
pub(super) struct Engine<M> {
    pub(super) balancer: Balancer,
    pub(super) maps: M,
    /// What the maps hold, as far as is known.
    pub(super) image: MapImage,
    /// What the maps may hold instead, in parts, since changes failed half way.
    attempted: Option<MapImage>,
    /// Every entry of a service that may be in force since then.
    doubtful: Vec<(ServiceKey, ServiceImage)>,
    pub(super) ledger: Ledger,
    pub(super) counters: Counters,
    pub(super) journal: Journal,
    /// Why the maps are not what they should be, as was told.
    trouble: Option<String>,
    pub(super) probes: BTreeMap<BackendKey, ProbeStatus>,
    /// Who is draining and has no session left, as was told.
    drained: BTreeSet<BackendKey>,
    /// Who is up only because nobody shows that the way there works.
    held: BTreeSet<BackendKey>,
    /// Who looks for floods of SYNs.
    pub(super) watches: Watches,
    /// What the last walk over the flow tables found.
    pub(super) findings: Option<Findings>,
    /// The keep-alive that the log last told of as too long, by service.
    told_claims: BTreeMap<ServiceKey, Duration>,
    /// Since when every flow that should be recorded could be.
    has_room: bool,
    /// What is in force, for those who walk the flow tables.
    sights: watch::Sender<Sight>,
    /// Whether the balancer has changed since the maps were.
    dirty: bool,
    /// The interface's own, as last told.
    addresses: Vec<IpAddr>,
    /// The services' addresses that this node does not have at the moment.
    absent: BTreeSet<IpAddr>,
    /// The services of such addresses by whose tables nobody's session went so far, with those of their
    /// backends that were found down since.
    fresh: BTreeMap<ServiceKey, BTreeSet<BackendKey>>,
    /// What the peer has told of slots, of services that this node stands by for.
    inherited: BTreeMap<ServiceKey, Arc<SlotTable>>,
    /// Which services had a backend after the last change.
    up: BTreeMap<ServiceKey, bool>,
}

impl<M: Maps> Engine<M> {
    /// An engine with maps that nobody has written to.
    pub(super) fn new(config: Config, admin: AdminState, maps: M, journal: Journal) -> Self {
        let sight = Sight {
            image: Arc::new(MapImage::empty()),
            expiry: expiry(&config),
        };
        Self {
            balancer: Balancer::new(config, admin),
            maps,
            image: MapImage::empty(),
            attempted: None,
            doubtful: Vec::new(),
            ledger: Ledger::default(),
            counters: Counters::default(),
            journal,
            trouble: None,
            probes: BTreeMap::new(),
            drained: BTreeSet::new(),
            held: BTreeSet::new(),
            watches: Watches::new(),
            findings: None,
            told_claims: BTreeMap::new(),
            has_room: true,
            sights: watch::Sender::new(sight),
            dirty: true,
            addresses: Vec::new(),
            absent: BTreeSet::new(),
            fresh: BTreeMap::new(),
            inherited: BTreeMap::new(),
            up: BTreeMap::new(),
        }
    }

    /// Goes on with maps that hold `image`. Whether there was room for all flows until now is known by
    /// what the program was told last.
    pub(super) fn go_on_with(&mut self, image: MapImage, has_room: bool) {
        self.image = image;
        self.has_room = has_room;
    }

    /// As [`Self::try_reconcile`], where nobody waits for the outcome.
    pub(super) fn reconcile(&mut self) {
        drop(self.try_reconcile());
    }

    /// Makes the maps hold what the balancer wants, if that may have changed or failed before.
    ///
    /// # Errors
    ///
    /// If the kernel refuses, which is counted and told; the next call then writes everything anew.
    pub(super) fn try_reconcile(&mut self) -> anyhow::Result<()> {
        if !self.dirty {
            self.review_fresh();
            return Ok(());
        }
        let outcome = self.advance();
        if outcome.is_ok() {
            self.publish();
            self.review_fresh();
            self.note_inherited();
        }
        self.dirty = outcome.is_err();
        self.note_outcome(outcome.as_ref().err());
        self.tell_of_services();
        outcome
    }

    /// Counts a failure, and tells of it if it is not the one of before.
    fn note_outcome(&mut self, error: Option<&anyhow::Error>) {
        self.counters.apply_errors += u64::from(error.is_some());
        let trouble = error.map(|error| format!("{error:#}"));
        match (&trouble, &self.trouble) {
            (Some(now), before) if before.as_ref() != Some(now) => {
                let error = now.clone();
                self.journal.tell(Event::MapsFailed { error });
            }
            (None, Some(_)) => self.journal.tell(Event::MapsRestored {}),
            (Some(_) | None, _) => {}
        }
        self.trouble = trouble;
    }

    /// Whether the maps hold what the balancer wants.
    pub(super) const fn is_settled(&self) -> bool {
        !self.dirty
    }

    fn advance(&mut self) -> anyhow::Result<()> {
        let mut desired = self.balancer.desired();
        self.widen_windows(&mut desired);
        self.mark_fresh(&mut desired);
        self.inherit(&mut desired);
        for _ in 0..ROUNDS {
            let target = plan::next(&self.image, &desired, self.moment());
            let steps = match &self.attempted {
                Some(attempted) => {
                    let mut steps = silence(&self.doubtful, &target);
                    steps.extend(rewrite([attempted, &self.image], &target));
                    let attempts = self.doubtful.iter().map(|(_, service)| service);
                    steps.extend(plan::stale(
                        attempts.chain(self.image.services.values()),
                        &target,
                    ));
                    steps
                }
                None => plan::diff(&self.image, &target),
            };
            if target == self.image && steps.is_empty() {
                break;
            }
            self.install(target, &steps)?;
        }
        self.ledger.close(&self.image, &self.maps)
    }

    /// Takes the steps that lead to `target`.
    fn install(&mut self, target: MapImage, steps: &[MapOp]) -> anyhow::Result<()> {
        self.ledger.open(&target, &self.maps)?;
        self.forget_keep_alives(&target)?;
        if let Err(error) = self.maps.apply(steps) {
            self.handle_failure(target);
            return Err(error);
        }
        self.attempted = None;
        self.doubtful.clear();
        self.image = target;
        Ok(())
    }

    /// Remembers what the maps may hold a part of.
    fn handle_failure(&mut self, target: MapImage) {
        // Flows may have been recorded under the epochs that it gave out.
        self.image.epochs.clone_from(&target.epochs);
        for (key, service) in &target.services {
            let entry = (*key, service.clone());
            if self.image.services.get(key) != Some(service) && !self.doubtful.contains(&entry) {
                self.doubtful.push(entry);
            }
        }
        match &mut self.attempted {
            Some(attempted) => {
                attempted.services.extend(target.services);
                attempted.backends.extend(target.backends);
            }
            None => self.attempted = Some(target),
        }
    }

    /// Takes in what came of a probe.
    pub(super) fn handle_probe(
        &mut self,
        backend: &BackendKey,
        question: Question,
        result: ProbeResult,
    ) {
        let stats = self.probes.entry(backend.clone()).or_default();
        let outcome = match result {
            Ok(took) => {
                stats.successes += 1;
                stats.last_seconds = Some(took.as_secs_f64());
                ProbeOutcome::Success
            }
            Err(failure) if failure.is_farewell() => {
                stats.successes += 1;
                let reason = failure.to_string();
                ProbeOutcome::Drain { reason }
            }
            Err(failure) => {
                stats.failures += 1;
                let reason = failure.to_string();
                if failure.was_answered() {
                    ProbeOutcome::Refusal { reason }
                } else {
                    ProbeOutcome::Silence { reason, question }
                }
            }
        };
        let (reason, has_failed) = match &outcome {
            ProbeOutcome::Success => (None, false),
            ProbeOutcome::Drain { reason } => (Some(reason.clone()), false),
            ProbeOutcome::Refusal { reason } | ProbeOutcome::Silence { reason, .. } => {
                (Some(reason.clone()), true)
            }
        };
        let wanted_drain = self.balancer.wants_drain(backend);
        let transition = self.balancer.observe(backend, outcome);
        self.note_seen(backend, has_failed);
        self.note_held(backend);
        self.note_wish(backend, wanted_drain, reason.as_deref());
        let Some(transition) = transition else {
            return;
        };
        let (from, to) = (transition.from, transition.to);
        self.journal.tell(Event::BackendHealth {
            service: backend.service().to_owned(),
            backend: backend.backend().to_owned(),
            from,
            to,
            reason,
        });
        self.dirty = true;
    }

    /// Does as an operator says about a backend.
    pub(super) fn handle_change(&mut self, backend: &BackendKey, change: Change) {
        match change {
            Change::Admin(admin) => self.balancer.set_admin(backend, admin),
            Change::Weight(weight) => self.balancer.set_weight(backend, weight),
        }
        self.dirty = true;
    }

    /// Takes in that it is `now`, since any fixed moment: backends that returned get more flows.
    pub(super) fn advance_ramps(&mut self, now: Duration) {
        self.dirty |= self.balancer.advance_ramps(now);
    }

    /// Takes in that a flood of SYNs to a service has begun or ended.
    pub(super) fn handle_attack(&mut self, service: ServiceKey, is_attacked: bool) {
        self.balancer.set_attacked(service, is_attacked);
        self.dirty = true;
    }

    /// Whether every checked backend was asked once, and is reachable if it answered: until then a
    /// service may lack backends only because nobody has looked yet.
    pub(super) fn has_looked_around(&self) -> bool {
        self.balancer.config().backends().all(|(service, backend)| {
            let key = BackendKey::new(service.name(), backend.name());
            let asked = service.check().is_none() || self.probes.contains_key(&key);
            let up = self.balancer.health(&key) == HealthState::Up;
            asked && (!up || self.balancer.next_hop(backend.address()).is_some())
        })
    }

    /// Takes in where a backend's frames go, and the largest IP packet that fits into one.
    pub(super) fn handle_next_hop(&mut self, address: IpAddr, next_hop: NextHop, mtu: u16) {
        self.balancer.set_mtu(address, mtu);
        self.balancer.set_next_hop(address, next_hop);
        self.dirty = true;
    }

    /// Takes in which interface the program is attached to, and what frames for it are sent to.
    pub(super) fn handle_interface(&mut self, index: u32, mac: [u8; 6]) {
        self.dirty |= self.balancer.set_interface(index, mac);
    }

    /// Takes in the interface's own addresses.
    pub(super) fn handle_addresses(&mut self, addresses: Vec<IpAddr>) {
        self.addresses = addresses;
    }

    /// Takes in what NAT sends from where the configuration does not say.
    pub(super) fn handle_default_source(&mut self, source: IpAddr) {
        self.balancer.add_default_source(source);
        self.dirty = true;
    }

    /// Takes in what tunnels send from where the configuration does not say.
    pub(super) fn handle_tunnel_source(&mut self, source: IpAddr) {
        self.balancer.add_tunnel_source(source);
        self.dirty = true;
    }

    /// Takes a new configuration in force.
    pub(super) fn handle_config(&mut self, config: Config) {
        self.balancer.set_config(config);
        let config = self.balancer.config();
        self.probes.retain(|key, _| {
            config.backends().any(|(service, backend)| {
                (service.name(), backend.name()) == (key.service(), key.backend())
            })
        });
        self.review_held();
        self.dirty = true;
    }

    /// The services that no backend takes new flows of, by name.
    pub(super) fn services_down(&self) -> impl Iterator<Item = &str> {
        let services = self.balancer.config().services().iter();
        services
            .filter(|service| !self.is_up(&service.key()))
            .map(Service::name)
    }

    /// The addresses that NAT is to send from although the interface does not have them: nobody
    /// answers for them.
    pub(super) fn foreign_sources(&self) -> impl Iterator<Item = IpAddr> {
        let in_use = self.balancer.config().translates();
        let sources = self.balancer.sources().filter(move |_| in_use);
        // A VIP comes and goes with its router.
        sources.filter(|source| !self.addresses.contains(source) && !self.balancer.is_vip(*source))
    }

    /// The tunnels that cannot carry all packets of their clients.
    pub(super) fn narrow_tunnels(&self) -> BTreeSet<Narrow> {
        let tunnels = self.balancer.narrow_tunnels();
        tunnels
            .map(|(service, backend, room)| Narrow {
                tunnel: BackendKey::new(service.name(), backend.name()),
                room,
            })
            .collect()
    }

    /// The services that forward packets to `address` as `forward` says, by name.
    pub(super) fn services_of(
        &self,
        address: IpAddr,
        forward: Forward,
    ) -> impl Iterator<Item = &str> {
        let backends = self.balancer.config().backends();
        backends
            .filter(move |(service, backend)| {
                service.forward() == forward && backend.address() == address
            })
            .map(|(service, _)| service.name())
    }

    /// Whether any backend of a service takes new flows.
    fn is_up(&self, key: &ServiceKey) -> bool {
        self.image
            .services
            .get(key)
            .is_some_and(ServiceImage::is_up)
    }

    /// Tells which services lost their last backend, or got one again. What was never up is the
    /// start's to tell.
    fn tell_of_services(&mut self) {
        let services = self.balancer.config().services().iter();
        let now: BTreeMap<_, _> = services
            .map(|service| (service.key(), self.is_up(&service.key())))
            .collect();
        for service in self.balancer.config().services() {
            let (key, name) = (service.key(), service.name());
            match (self.up.get(&key), now.get(&key)) {
                (Some(true), Some(false)) => {
                    let service = name.to_owned();
                    self.journal.tell(Event::ServiceDown { service });
                }
                (Some(false), Some(true)) => {
                    let service = name.to_owned();
                    self.journal.tell(Event::ServiceUp { service });
                }
                _ => {}
            }
        }
        self.up = now;
    }
}

/// The steps that keep packets off every table that may be in force and is not what `target` has:
/// [`rewrite`] could write another over it, or give the ids that it names to others.
fn silence(doubtful: &[(ServiceKey, ServiceImage)], target: &MapImage) -> Vec<MapOp> {
    let in_the_way = doubtful
        .iter()
        .filter(|(key, service)| target.services.get(key) != Some(service));
    let mut steps: Vec<MapOp> = in_the_way
        .map(|(key, service)| {
            let (balance, forward) = (service.balance, service.forward);
            let silent = ServiceEntry::new(service.id, service.generation, 0, balance, forward);
            MapOp::SetService(*key, silent)
        })
        .collect();
    if !steps.is_empty() {
        steps.push(MapOp::AwaitGracePeriod);
    }
    steps
}

/// The steps that bring maps that hold any mixture of `doubtful` to `target`: everything it has is
/// written, and everything else that they may hold is removed.
fn rewrite(doubtful: [&MapImage; 2], target: &MapImage) -> Vec<MapOp> {
    let mut steps = plan::diff(&MapImage::empty(), target);
    let mut backends = Vec::new();
    for image in doubtful {
        for step in plan::diff(image, target) {
            match step {
                MapOp::RemoveService(_) => steps.push(step),
                MapOp::RemoveBackend(_) => backends.push(step),
                MapOp::Set(_)
                | MapOp::SetBackend(..)
                | MapOp::SetAccess(..)
                | MapOp::RemoveAccess(..)
                | MapOp::WriteTable { .. }
                | MapOp::SetService(..)
                | MapOp::AwaitGracePeriod => {}
            }
        }
    }
    steps.push(MapOp::AwaitGracePeriod);
    steps.extend(backends);
    steps
}

/// The ports that NAT would use under `config`; `None` if it does not translate.
pub(super) fn nat_ports(config: &Config) -> Option<RangeInclusive<u16>> {
    let nat = config.nat();
    config
        .translates()
        .then(|| nat.first_port()..=nat.last_port())
}
