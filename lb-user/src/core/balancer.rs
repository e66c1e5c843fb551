//! Everything that decides where packets should go, as one value.
//!
//! [`Balancer`] owns the configuration, the health of every backend, what operators said about
//! them, and where the neighbours are. Events go in through `set_*` and [`Balancer::observe`]; after
//! any of them [`Balancer::desired`] says what the kernel should do, and [`super::plan`] how to get
//! there. The daemon holds one and calls it from one task; nothing here has an effect.
//!
//! | a backend that is | takes new flows | keeps the flows recorded for it |
//! |---|---|---|
//! | up, enabled, weight above 0 | yes | yes |
//! | up, draining, leaving, evacuated or of weight 0 | no | yes |
//! | held: silent like all others | as it did | as it did |
//! | up, disabled | no | no: they are selected anew |
//! | down or unknown | no | no |
//! | behind another interface than the VIPs', in a `nat` service | no | no |
//!
//! All flows are recorded where they are tracked (by turns, the least loaded, NAT). Elsewhere those of
//! slots that change hands are, see [`super::slots`]: so a backend that stops taking new flows keeps
//! those that it has.

pub mod adopt;
mod carrier;
mod full;
mod leaving;
mod ramps;
mod select;
mod tunnels;
mod view;
mod wishes;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use lb_common::abi::{Features, Forward, Ip, NatPool, NextHop, ServiceKey};

use self::ramps::Ramp;
pub use self::select::SelectError;
pub use self::view::{BackendView, ServiceView};
use crate::config::model::{Backend, Challenge, Config, Protocol, Service};
pub use crate::core::admin::{Admin, AdminState};
use crate::core::flows::UDP_IDLE;
use crate::core::health::{Health, HealthState, ProbeOutcome, Thresholds, Transition};
use crate::core::maglev::Lender;
use crate::core::plan::{Desired, DesiredBackend, DesiredService};
use crate::core::slots;

/// What a backend is called: its service's name and its own.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BackendKey {
    service: String,
    backend: String,
}

impl BackendKey {
    /// The key of a backend by its names.
    #[must_use]
    pub fn new(service: &str, backend: &str) -> Self {
        Self {
            service: service.to_owned(),
            backend: backend.to_owned(),
        }
    }

    fn of(service: &Service, backend: &Backend) -> Self {
        Self::new(service.name(), backend.name())
    }

    /// The name of its service.
    #[must_use]
    pub fn service(&self) -> &str {
        &self.service
    }

    /// Its own name.
    #[must_use]
    pub fn backend(&self) -> &str {
        &self.backend
    }
}

impl fmt::Display for BackendKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.service, self.backend)
    }
}

/// Configuration, health, operators' wishes and neighbours. See the module.
#[derive(Clone, Debug)]
pub struct Balancer {
    config: Config,
    admin: AdminState,
    health: BTreeMap<BackendKey, Health>,
    next_hops: BTreeMap<IpAddr, NextHop>,
    default_sources: Vec<IpAddr>,
    tunnel_sources: Vec<IpAddr>,
    mtus: BTreeMap<IpAddr, u16>,
    interface: Option<(u32, [u8; 6])>,
    /// Services that see a flood of SYNs.
    attacked: BTreeSet<ServiceKey>,
    /// Backends that do not take their whole share yet.
    ramps: BTreeMap<BackendKey, Ramp>,
    /// Backends that have as many flows as they take.
    full: BTreeSet<BackendKey>,
}

impl Balancer {
    /// A balancer that knows no backend's health and no neighbour.
    #[must_use]
    pub fn new(config: Config, mut admin: AdminState) -> Self {
        admin.retain(leaving::spoken_of(&config, &admin));
        let health = config
            .backends()
            .map(|(service, backend)| (BackendKey::of(service, backend), first_health(service)))
            .collect();
        Self {
            config,
            admin,
            health,
            next_hops: BTreeMap::new(),
            default_sources: Vec::new(),
            tunnel_sources: Vec::new(),
            mtus: BTreeMap::new(),
            interface: None,
            attacked: BTreeSet::new(),
            ramps: BTreeMap::new(),
            full: BTreeSet::new(),
        }
    }

    /// Takes a new configuration.
    ///
    /// A backend that is still reached by the same service, address and port keeps its health under
    /// whatever name, so a reload cuts no session; so does one that is still asked at the same address
    /// and port under its name, so that a service that moves finds it. What operators said goes by
    /// name.
    pub fn set_config(&mut self, config: Config) {
        let admin = std::mem::take(&mut self.admin);
        let old = std::mem::replace(self, Self::new(config, admin));
        self.follow_ramps(&old);
        self.next_hops = old.next_hops;
        self.default_sources = old.default_sources;
        self.tunnel_sources = old.tunnel_sources;
        self.mtus = old.mtus;
        self.interface = old.interface;
        self.attacked = old.attacked;
        self.full = old.full;
        for (service, backend) in self.config.backends() {
            let Some((old_service, old_backend)) = predecessor(&old.config, service, backend)
            else {
                continue;
            };
            let known = old.health.get(&BackendKey::of(old_service, old_backend));
            if let (Some(_), Some(known)) = (service.check(), known) {
                self.health
                    .insert(BackendKey::of(service, backend), known.clone());
            }
        }
    }

    /// The configuration in force.
    #[must_use]
    pub const fn config(&self) -> &Config {
        &self.config
    }

    /// Takes in what came of a probe of `backend`; tells of it if that changes its health.
    ///
    /// An outcome for a backend that is not configured, or not checked, is ignored: probes may end
    /// after a reload.
    pub fn observe(&mut self, backend: &BackendKey, outcome: ProbeOutcome) -> Option<Transition> {
        let service = self
            .config
            .services()
            .iter()
            .find(|s| s.name() == backend.service)?;
        let check = service.check()?;
        let thresholds = Thresholds {
            fall: check.fall(),
            rise: check.rise(),
        };
        let transition = self.health.get_mut(backend)?.observe(outcome, thresholds)?;
        if transition.to == HealthState::Down {
            self.cool(backend);
        }
        Some(transition)
    }

    /// The health of `backend`; unknown if there is no such backend.
    #[must_use]
    pub fn health(&self, backend: &BackendKey) -> HealthState {
        self.health
            .get(backend)
            .map_or(HealthState::Unknown, Health::state)
    }

    /// Whether `backend` is up only because nobody shows that the way to it works.
    #[must_use]
    pub fn is_held(&self, backend: &BackendKey) -> bool {
        self.health.get(backend).is_some_and(Health::is_held)
    }

    /// Supposes that `backend` has failed, checked or not: for what-if questions.
    pub fn assume_down(&mut self, backend: &BackendKey) {
        if let Some(health) = self.health.get_mut(backend) {
            *health = Health::assumed_down();
        }
    }

    /// Says where frames to `address` go. It stays the way there until there is another: who does not
    /// answer on it is the health checks' to judge, and without a check nobody is left to say that it
    /// is worse than none.
    pub fn set_next_hop(&mut self, address: IpAddr, next_hop: NextHop) {
        self.next_hops.insert(address, next_hop);
    }

    /// Where frames to `address` go, if that is known.
    #[must_use]
    pub fn next_hop(&self, address: IpAddr) -> Option<NextHop> {
        self.next_hops.get(&address).copied()
    }

    /// Says whether a service sees a flood of SYNs.
    pub fn set_attacked(&mut self, service: ServiceKey, is_attacked: bool) {
        if is_attacked {
            self.attacked.insert(service);
        } else {
            self.attacked.remove(&service);
        }
    }

    /// The backends that NAT has no address to send to from.
    pub fn without_source(&self) -> impl Iterator<Item = (&Service, &Backend)> {
        let translated = self.config.backends();
        translated.filter(|(service, backend)| {
            service.forward() == Forward::Nat && !self.has_source_for(backend.address())
        })
    }

    /// Says what NAT sends from to backends of `source`'s family, where neither the configuration
    /// nor an earlier call has: live flows are bound to it, so it stays until the end.
    pub fn add_default_source(&mut self, source: IpAddr) {
        if !self.has_source_for(source) {
            self.default_sources.push(source);
        }
    }

    /// What NAT sends from, in the order of the pool.
    pub fn sources(&self) -> impl Iterator<Item = IpAddr> {
        let given = self.config.nat().sources();
        let is_missing =
            |default: &&IpAddr| !given.iter().any(|g| g.is_ipv4() == default.is_ipv4());
        let defaults = self.default_sources.iter().filter(is_missing);
        // One that is given may be a VIP of no service.
        let defaults = defaults.filter(|source| !self.is_vip(**source));
        given.iter().chain(defaults).copied()
    }

    fn has_source_for(&self, destination: IpAddr) -> bool {
        let mut sources = self.sources();
        sources.any(|source| source.is_ipv4() == destination.is_ipv4())
    }

    /// Does as an operator says about `backend`, which must be one that [`Self::select`] returned:
    /// others are ignored.
    pub fn set_admin(&mut self, backend: &BackendKey, admin: Admin) {
        if self.health.contains_key(backend) {
            self.admin.set_admin(backend, admin);
            if admin == Admin::Disabled {
                self.cool(backend);
            }
        }
    }

    /// Overrides the configured weight of `backend`; the configured weight itself ends the override.
    pub fn set_weight(&mut self, backend: &BackendKey, weight: u16) {
        let configured = self
            .config
            .backends()
            .find(|(service, candidate)| BackendKey::of(service, candidate) == *backend)
            .map(|(_, candidate)| candidate.weight());
        if let Some(configured) = configured {
            let weight = weight.min(Backend::MAX_WEIGHT);
            self.admin
                .set_weight(backend, (weight != configured).then_some(weight));
        }
    }

    /// What operators have said: to be kept across restarts.
    #[must_use]
    pub const fn admin(&self) -> &AdminState {
        &self.admin
    }

    /// Finds a backend by `SERVICE/BACKEND`, or by `BACKEND` if only one service has it.
    ///
    /// # Errors
    ///
    /// If there is none, or more than one; the error lists those that could be meant.
    pub fn select(&self, name: &str) -> Result<BackendKey, SelectError> {
        select::select(self.health.keys(), name)
    }

    /// What the kernel should do.
    #[must_use]
    pub fn desired(&self) -> Desired {
        Desired {
            services: self
                .config
                .services()
                .iter()
                .map(|s| self.desired_service(s))
                .collect(),
            nat_pool: self.nat_pool(),
            tunnel_sources: self.tunnel_sources(),
            own_mac: self.own_mac(),
            limits: self.config.limits(),
        }
    }

    fn desired_service(&self, service: &Service) -> DesiredService {
        let present = service
            .backends()
            .iter()
            .filter(|b| self.is_present(service, b));
        DesiredService {
            tunnel: tunnels::form(service),
            features: self.features(service),
            rates: service.guard().rates(),
            access: Arc::clone(service.guard().access()),
            backends: present
                .map(|backend| self.desired_backend(service, backend))
                .collect(),
            lenders: self.lenders(service).collect(),
            fallen: self.fallen(service).collect(),
            window: window(service, service.keep_alive()),
            widest_window: match service.protocol() {
                Protocol::Mqtt => window(service, service.keep_alive_max()),
                Protocol::Tcp | Protocol::Udp => window(service, service.keep_alive()),
            },
            ..DesiredService::new(service.key(), service.balance(), service.forward())
        }
    }

    /// What `service` does besides choosing and forwarding.
    fn features(&self, service: &Service) -> Features {
        let access = service.guard().access();
        let rates = service.guard().rates();
        Features {
            mqtt: service.protocol() == Protocol::Mqtt,
            access_list: !access.entries().is_empty(),
            default_deny: access.denies_by_default(),
            rates: rates.service.is_some() || rates.source.is_some(),
            challenge: match service.guard().challenge() {
                Challenge::Auto => self.attacked.contains(&service.key()),
                Challenge::Always => true,
                Challenge::Never => false,
            },
        }
    }

    /// The backends of `service` that would take new flows by the configuration, and cannot.
    fn lenders(&self, service: &Service) -> impl Iterator<Item = Lender> {
        let down = service
            .backends()
            .iter()
            .filter(|backend| !self.is_present(service, backend));
        let whole = down.map(|backend| {
            // The slots that it will have at the end of its ramp.
            let weight = ramps::whole(service, self.wanted_weight(service, backend));
            (backend, weight)
        });
        whole
            .filter(|(_, weight)| *weight > 0)
            .map(|(backend, weight)| Lender {
                address: Ip::from(backend.address()),
                port: backend.port(),
                weight,
            })
    }

    /// The backends of `service` that take no packets for a reason that may pass by itself.
    fn fallen(&self, service: &Service) -> impl Iterator<Item = (Ip, u16)> {
        let backends = service.backends().iter();
        backends
            .filter(|backend| {
                !self.is_present(service, backend)
                    && self.standing(service, backend) != Admin::Disabled
            })
            .map(|backend| (Ip::from(backend.address()), backend.port()))
    }

    fn desired_backend(&self, service: &Service, backend: &Backend) -> DesiredBackend {
        let key = BackendKey::of(service, backend);
        DesiredBackend {
            address: Ip::from(backend.address()),
            port: backend.port(),
            weight: self.eased(service, &key, self.wanted_weight(service, backend)),
            next_hop: self.next_hop(backend.address()),
            limit: backend.max_connections(),
            mtu: self.path_mtu(service, backend),
            full: self.full.contains(&key),
        }
    }

    /// Whether packets can be sent to `backend`. Before its next hop is known they would be dropped.
    fn is_present(&self, service: &Service, backend: &Backend) -> bool {
        let key = BackendKey::of(service, backend);
        self.health(&key) == HealthState::Up
            && self.next_hop(backend.address()).is_some()
            && self.standing(service, backend) != Admin::Disabled
            && self.sees_replies(service, backend)
    }

    /// The weight by what operators say.
    fn wanted_weight(&self, service: &Service, backend: &Backend) -> u16 {
        match self.standing(service, backend) {
            Admin::Enabled => self.weight(&BackendKey::of(service, backend), backend),
            Admin::Draining | Admin::Disabled => 0,
        }
    }

    fn weight(&self, key: &BackendKey, backend: &Backend) -> u16 {
        self.admin.weight(key).unwrap_or(backend.weight())
    }

    /// Empty where nothing is translated: the program then looks for no replies.
    fn nat_pool(&self) -> NatPool {
        if !self.config.translates() {
            return NatPool::EMPTY;
        }
        let nat = self.config.nat();
        let sources: Vec<Ip> = self.sources().map(Ip::from).collect();
        NatPool::new(&sources, nat.first_port(), nat.last_port())
    }

    /// Whether it is a virtual address: no packet of ours comes from one.
    #[must_use]
    pub fn is_vip(&self, address: IpAddr) -> bool {
        self.config
            .vips()
            .iter()
            .any(|vip| vip.address() == address)
    }
}

/// How long slots of `service` learn the sessions of clients with this keep-alive. Of UDP flows that
/// are silent for longer than they are remembered, more time finds no more.
fn window(service: &Service, keep_alive: Duration) -> Duration {
    let window = slots::window(keep_alive);
    match service.protocol() {
        Protocol::Tcp | Protocol::Mqtt => window,
        Protocol::Udp => window.min(UDP_IDLE),
    }
}

/// Who of the `old` configuration `backend` was: reached alike, else asked alike under its name.
fn predecessor<'a>(
    old: &'a Config,
    service: &Service,
    backend: &Backend,
) -> Option<(&'a Service, &'a Backend)> {
    let there = || {
        let backends = old.backends();
        backends.filter(|(_, candidate)| candidate.address() == backend.address())
    };
    let reached = there().find(|(old_service, old_backend)| {
        old_service.key() == service.key() && old_backend.port() == backend.port()
    });
    reached.or_else(|| {
        there().find(|(old_service, old_backend)| {
            BackendKey::of(old_service, old_backend) == BackendKey::of(service, backend)
                && asked_port(old_service, old_backend) == asked_port(service, backend)
        })
    })
}

/// The port that `backend` is asked at, if it is asked.
fn asked_port(service: &Service, backend: &Backend) -> Option<u16> {
    Some(service.check()?.port_of(backend))
}

fn first_health(service: &Service) -> Health {
    match service.check() {
        Some(_) => Health::unknown(),
        None => Health::assumed_up(),
    }
}

#[cfg(test)]
mod tests;
