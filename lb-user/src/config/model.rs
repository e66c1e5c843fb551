//! The configuration, validated: what the rest of the daemon works with.
//!
//! A [`Config`] can only come from [`super::parse`], so whoever holds one need not check anything
//! again: names are unique, every VIP is declared, families agree, limits suffice. Fields are
//! private and read by getters named after their keys. Two configurations compare with `==`.

mod dashboard;
mod defaults;
mod guard;
mod leaving;
mod notify;
mod reload;
mod rules;
mod service;
mod sync;
mod track;
mod tunnel;
mod vrrp;

use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

pub use self::dashboard::Dashboard;
pub use self::guard::{AccessList, Challenge, Guard, Prefix};
pub use self::leaving::{NoRoomToLeave, Remnant};
pub use self::notify::{Authorities, Email, Exec, HookUrl, MailTls, Means, Notify, Webhook};
pub use self::reload::{ReloadBlocker, ReloadBlockers};
pub use self::service::{
    Backend, Check, HttpCheck, MqttCheck, MqttVersion, Probe, Protocol, Secret, Service,
};
pub use self::sync::Sync;
pub use self::track::{Track, TrackTarget};
pub use self::tunnel::{SourcePrefix, Tunnel};
pub use self::vrrp::{OtherAddresses, Vrrp, VrrpChecksum, VrrpVersion, WithoutBackends};

/// A whole configuration, every rule of which holds.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    interface: String,
    xdp_mode: XdpMode,
    seed: Option<[u8; 16]>,
    state_dir: PathBuf,
    pin_dir: PathBuf,
    log: Log,
    api: Api,
    metrics: Option<SocketAddr>,
    dashboard: Option<Dashboard>,
    limits: Limits,
    tracking_idle: Duration,
    tracking_shortest: Duration,
    tracking_longest: Duration,
    nat: Nat,
    tunnel_sources: Vec<SourcePrefix>,
    tunnel_mtu: Option<u16>,
    sync: Option<Sync>,
    vips: Vec<Vip>,
    vrrps: Vec<Vrrp>,
    notifies: Vec<Notify>,
    services: Vec<Service>,
}

impl Config {
    /// The interface that carries the VIPs.
    #[must_use]
    pub fn interface(&self) -> &str {
        &self.interface
    }

    /// Where in the receive path the program is attached.
    #[must_use]
    pub const fn xdp_mode(&self) -> XdpMode {
        self.xdp_mode
    }

    /// The seed of the flow hash; without one the daemon makes one and keeps it in `state_dir`.
    #[must_use]
    pub const fn seed(&self) -> Option<[u8; 16]> {
        self.seed
    }

    /// Where the daemon keeps what outlives it.
    #[must_use]
    pub fn state_dir(&self) -> &Path {
        &self.state_dir
    }

    /// Where in a BPF file system the program and its maps are kept, which outlive the daemon.
    #[must_use]
    pub fn pin_dir(&self) -> &Path {
        &self.pin_dir
    }

    /// What is logged, and how.
    #[must_use]
    pub const fn log(&self) -> &Log {
        &self.log
    }

    /// The control socket.
    #[must_use]
    pub const fn api(&self) -> &Api {
        &self.api
    }

    /// The loopback address of the metrics page, if there is one.
    #[must_use]
    pub const fn metrics_listen(&self) -> Option<SocketAddr> {
        self.metrics
    }

    /// The page for browsers, if there is one.
    #[must_use]
    pub const fn dashboard(&self) -> Option<&Dashboard> {
        self.dashboard.as_ref()
    }

    /// Capacities of the maps.
    #[must_use]
    pub const fn limits(&self) -> Limits {
        self.limits
    }

    /// How long a tracked flow may be silent before it is forgotten.
    #[must_use]
    pub const fn tracking_idle(&self) -> Duration {
        self.tracking_idle
    }

    /// The least silence after which a tracked flow of known keep-alive is forgotten.
    #[must_use]
    pub const fn tracking_shortest(&self) -> Duration {
        self.tracking_shortest
    }

    /// The silence after which it is forgotten at the latest.
    #[must_use]
    pub const fn tracking_longest(&self) -> Duration {
        self.tracking_longest
    }

    /// What NAT sends from.
    #[must_use]
    pub const fn nat(&self) -> &Nat {
        &self.nat
    }

    /// What tunnels send from, at most one prefix a family; where there is none of a family, they use
    /// what the host itself would.
    #[must_use]
    pub fn tunnel_sources(&self) -> &[SourcePrefix] {
        &self.tunnel_sources
    }

    /// The largest outer packet that all of the ways to the backends carry, in bytes; without it that
    /// of their first hops counts.
    #[must_use]
    pub const fn tunnel_mtu(&self) -> Option<u16> {
        self.tunnel_mtu
    }

    /// The channel to the other node of a pair, if there is one.
    #[must_use]
    pub const fn sync(&self) -> Option<&Sync> {
        self.sync.as_ref()
    }

    /// The declared VIPs, in the order of the file.
    #[must_use]
    pub fn vips(&self) -> &[Vip] {
        &self.vips
    }

    /// Those of no virtual router: this host holds them whatever other hosts do.
    pub fn own_vips(&self) -> impl Iterator<Item = &Vip> {
        let is_routers = |vip: &Vip| {
            let mut routers = self.vrrps.iter();
            routers.any(|router| router.vips().contains(&vip.address()))
        };
        self.vips.iter().filter(move |vip| !is_routers(vip))
    }

    /// Those of them that Tidegate puts on the interface.
    pub fn held_alone(&self) -> impl Iterator<Item = &Vip> {
        self.own_vips().filter(|vip| vip.assign())
    }

    /// The virtual routers, in the order of the file.
    #[must_use]
    pub fn vrrps(&self) -> &[Vrrp] {
        &self.vrrps
    }

    /// Who is told of events, in the order of the file.
    #[must_use]
    pub fn notifies(&self) -> &[Notify] {
        &self.notifies
    }

    /// The services, in the order of the file.
    #[must_use]
    pub fn services(&self) -> &[Service] {
        &self.services
    }

    /// All backends with their services, in the order of the file.
    pub fn backends(&self) -> impl Iterator<Item = (&Service, &Backend)> {
        self.services.iter().flat_map(|service| {
            let backends = service.backends().iter();
            backends.map(move |backend| (service, backend))
        })
    }
}

/// Where in the receive path the program is attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum XdpMode {
    /// Natively if the driver can, else generically.
    Auto,
    /// In the driver, or not at all.
    Native,
    /// In the network stack, which any interface can.
    Generic,
}

/// Capacities of the maps, fixed when they are made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Services, each of which takes half a megabyte of table.
    pub services: u32,
    /// Backends of all services together.
    pub backends: u32,
    /// Tracked flows.
    pub flows: u32,
    /// Tracked flows of which only a SYN was seen.
    pub half_open: u32,
    /// Prefixes of clients, of all services together.
    pub access_entries: u32,
    /// Packets that arrive in fragments, of which more may come.
    pub fragments: u32,
    /// Sources of connections that are remembered.
    pub sources: u32,
}

/// What is logged, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Log {
    level: String,
    format: LogFormat,
}

impl Log {
    /// A filter of the tracing library, such as `info` or `info,lb_user::daemon=debug`.
    #[must_use]
    pub fn level(&self) -> &str {
        &self.level
    }

    /// For whom the lines are written.
    #[must_use]
    pub const fn format(&self) -> LogFormat {
        self.format
    }
}

/// For whom log lines are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Text,
    /// For programs: one JSON object a line.
    Json,
}

/// The control socket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Api {
    socket: PathBuf,
    mode: u32,
    group: Option<String>,
}

impl Api {
    /// Path of the unix socket.
    #[must_use]
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// Permission bits of the socket.
    #[must_use]
    pub const fn mode(&self) -> u32 {
        self.mode
    }

    /// Name of the group that owns the socket.
    #[must_use]
    pub fn group(&self) -> Option<&str> {
        self.group.as_deref()
    }
}

/// What NAT sends from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Nat {
    sources: Vec<IpAddr>,
    first_port: u16,
    last_port: u16,
}

impl Nat {
    /// The configured source addresses; where there is none of a family, NAT uses what the host itself
    /// would.
    #[must_use]
    pub fn sources(&self) -> &[IpAddr] {
        &self.sources
    }

    /// First port of the range.
    #[must_use]
    pub const fn first_port(&self) -> u16 {
        self.first_port
    }

    /// Last port of the range, itself part of it.
    #[must_use]
    pub const fn last_port(&self) -> u16 {
        self.last_port
    }
}

/// A virtual address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Vip {
    address: IpAddr,
    prefix: u8,
    assign: bool,
    unserved: Unserved,
}

/// What becomes of a VIP of no virtual router while no service of it has a backend that answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unserved {
    /// It stays on the interface.
    Stay,
    /// It is taken off, so that whoever announces it withdraws it.
    Withdraw,
}

impl Vip {
    /// The address.
    #[must_use]
    pub const fn address(&self) -> IpAddr {
        self.address
    }

    /// Length of the prefix it is assigned with.
    #[must_use]
    pub const fn prefix(&self) -> u8 {
        self.prefix
    }

    /// Whether the daemon puts it on the interface; else somebody else does.
    #[must_use]
    pub const fn assign(&self) -> bool {
        self.assign
    }

    /// Whether it is there only while its packets are served.
    #[must_use]
    pub const fn is_withdrawn_unserved(&self) -> bool {
        matches!(self.unserved, Unserved::Withdraw)
    }
}
