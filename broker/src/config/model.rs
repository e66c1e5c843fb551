//! The validated configuration: every rule and every default is here.
//!
//! A [`Config`] cannot be built any other way, so the rest of the program need not check again.

use std::{
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use lb_decap::{Mode, Prefix};
use toml::Spanned;
use tracing_subscriber::EnvFilter;

use super::{
    Access, Cluster, ConfigError, Control, Persistence, Stop,
    check::{Check, parse_prefix},
    file,
    limits::Limits,
    listener::Listener,
    overload::Overload,
};
use crate::cluster::is_valid_node;

/// A configuration that keeps every rule.
#[derive(Clone, Debug)]
pub struct Config {
    node: String,
    listeners: Vec<Listener>,
    access: Access,
    vip: Option<Vip>,
    tunnel: Option<Tunnel>,
    cluster: Option<Cluster>,
    limits: Limits,
    overload: Overload,
    session: SessionLimits,
    persistence: Option<Persistence>,
    sys_interval: Duration,
    control: Control,
    stop: Stop,
    metrics: Option<SocketAddr>,
    health: Option<SocketAddr>,
    log: Log,
}

/// Addresses that this host holds for direct server return.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Vip {
    pub addresses: Vec<(IpAddr, u8)>,
    pub interface: String,
}

/// How packets from tunnels come in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tunnel {
    /// The interface that they come in by.
    pub interface: String,
    pub mode: Mode,
    /// Who may send them.
    pub from: Vec<Prefix>,
    /// The UDP port of GUE.
    pub port: u16,
    /// The largest segment that clients are to send; by the interface's MTU if `None`.
    pub mss: Option<u16>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SessionLimits {
    pub max_expiry: Duration,
    /// The longest keep-alive of an MQTT 5 client; zero for any.
    pub max_keep_alive: u16,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Log {
    pub level: String,
    pub format: LogFormat,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    Text,
    Json,
}

impl Config {
    /// The node's name, unique among the brokers of one installation.
    pub fn node(&self) -> &str {
        &self.node
    }

    pub fn listeners(&self) -> &[Listener] {
        &self.listeners
    }

    pub fn access(&self) -> &Access {
        &self.access
    }

    pub fn vip(&self) -> Option<&Vip> {
        self.vip.as_ref()
    }

    /// Set only where there are virtual addresses.
    pub fn tunnel(&self) -> Option<&Tunnel> {
        self.tunnel.as_ref()
    }

    pub fn cluster(&self) -> Option<&Cluster> {
        self.cluster.as_ref()
    }

    pub fn limits(&self) -> Limits {
        self.limits
    }

    pub fn overload(&self) -> Overload {
        self.overload
    }

    pub fn session(&self) -> SessionLimits {
        self.session
    }

    /// Set only where sessions and retained messages outlive the process.
    pub fn persistence(&self) -> Option<&Persistence> {
        self.persistence.as_ref()
    }

    /// How often `$SYS` messages are published; `None` for never.
    pub fn sys_interval(&self) -> Option<Duration> {
        (!self.sys_interval.is_zero()).then_some(self.sys_interval)
    }

    pub fn control(&self) -> &Control {
        &self.control
    }

    pub fn stop(&self) -> Stop {
        self.stop
    }

    pub fn metrics(&self) -> Option<SocketAddr> {
        self.metrics
    }

    /// Where balancers ask whether to send clients here.
    pub fn health(&self) -> Option<SocketAddr> {
        self.health
    }

    pub fn log(&self) -> &Log {
        &self.log
    }

    /// The keys of what differs in `other` and is decided once, at the start.
    pub(crate) fn fixed_changes(&self, other: &Self) -> Vec<&'static str> {
        let Self {
            node,
            listeners,
            access,
            vip,
            tunnel,
            cluster,
            limits: _,
            overload: _,
            session,
            persistence,
            sys_interval,
            control,
            stop,
            metrics,
            health,
            log,
        } = self;
        let addresses = listeners.iter().map(|listener| listener.address);
        let others = other.listeners.iter().map(|listener| listener.address);
        let changes = [
            ("node", *node != other.node),
            ("listener.address", !addresses.eq(others)),
            (
                "access.hash_threads",
                access.hash_threads != other.access.hash_threads,
            ),
            ("vip", *vip != other.vip),
            ("tunnel", *tunnel != other.tunnel),
            ("cluster", *cluster != other.cluster),
            ("session", *session != other.session),
            ("persistence", *persistence != other.persistence),
            ("sys", *sys_interval != other.sys_interval),
            ("control", *control != other.control),
            ("stop", *stop != other.stop),
            ("metrics", *metrics != other.metrics),
            ("health", *health != other.health),
            ("log", *log != other.log),
        ];
        let changes = changes.into_iter().filter(|(_key, differs)| *differs);
        changes.map(|(key, _differs)| key).collect()
    }
}

/// Applies every rule and reports all that are broken.
pub(super) fn validate(raw: file::Config, text: &str) -> Result<Config, ConfigError> {
    let file::Config {
        node,
        listener,
        access,
        vip,
        tunnel,
        cluster,
        limits,
        overload,
        session,
        persistence,
        sys,
        control,
        stop,
        metrics,
        health,
        log,
    } = raw;
    let mut check = Check::new(text);

    let listeners = check.listeners(listener);
    let config = Config {
        node: check.node(node),
        access: check.access(access, &listeners),
        listeners,
        tunnel: tunnel.map(|tunnel| check.tunnel(tunnel, vip.is_some())),
        vip: vip.map(|vip| check.vip(vip)),
        cluster: cluster.and_then(|cluster| check.cluster(cluster)),
        limits: check.limits(limits),
        overload: check.overload(overload),
        session: SessionLimits {
            max_expiry: check.duration(
                "session.max_expiry",
                session.max_expiry,
                Duration::from_hours(7 * 24),
            ),
            max_keep_alive: check.max_keep_alive(session.max_keep_alive),
        },
        persistence: check.persistence(persistence),
        sys_interval: check.duration("sys.interval", sys.interval, Duration::from_secs(10)),
        control: check.control(control),
        stop: check.stop(stop),
        metrics: metrics.and_then(|metrics| check.metrics(metrics)),
        health: health
            .and_then(|health| check.parse("health.listen", &health.listen, "an address and port")),
        log: check.log(log),
    };

    if check.problems.is_empty() {
        Ok(config)
    } else {
        check.problems.sort_by_key(|problem| problem.line);
        Err(ConfigError::Invalid(check.problems))
    }
}

impl Check<'_> {
    fn node(&mut self, node: Spanned<String>) -> String {
        if !is_valid_node(node.get_ref()) {
            self.refuse(
                "node",
                node.span(),
                "1 to 64 letters, digits, '-', '_' or '.'",
            );
        }
        node.into_inner()
    }

    fn vip(&mut self, raw: file::Vip) -> Vip {
        let file::Vip {
            addresses: list,
            interface,
        } = raw;
        if list.get_ref().is_empty() {
            self.refuse(
                "vip.addresses",
                list.span(),
                "at least one address, or no [vip] at all",
            );
        }
        let mut addresses = Vec::new();
        for (index, address) in list.into_inner().into_iter().enumerate() {
            let key = format!("vip.addresses[{index}]");
            match parse_prefix(address.get_ref()) {
                Some(parsed) if addresses.contains(&parsed) => {
                    self.refuse(&key, address.span(), "listed twice");
                }
                Some(parsed) => addresses.push(parsed),
                None => self.refuse(
                    &key,
                    address.span(),
                    "not an address/prefix such as \"192.0.2.1/32\"",
                ),
            }
        }
        let interface = match interface {
            Some(name) => self.interface("vip.interface", name),
            None => "lo".to_owned(),
        };
        Vip {
            addresses,
            interface,
        }
    }

    fn max_keep_alive(&mut self, raw: Option<Spanned<String>>) -> u16 {
        let span = raw.as_ref().map_or(0..0, Spanned::span);
        let longest = self.duration("session.max_keep_alive", raw, Duration::ZERO);
        let seconds = u16::try_from(longest.as_secs()).ok();
        match seconds.filter(|_seconds| longest.subsec_nanos() == 0) {
            Some(seconds) => seconds,
            None => {
                self.refuse(
                    "session.max_keep_alive",
                    span,
                    "must be whole seconds, 65535 at most; \"0s\" for any keep-alive",
                );
                0
            }
        }
    }

    fn metrics(&mut self, raw: file::Metrics) -> Option<SocketAddr> {
        let address: SocketAddr =
            self.parse("metrics.listen", &raw.listen, "an address and port")?;
        if !address.ip().is_loopback() {
            self.refuse(
                "metrics.listen",
                raw.listen.span(),
                "must be a loopback address",
            );
        }
        Some(address)
    }

    fn log(&mut self, raw: file::Log) -> Log {
        let file::Log { level, format } = raw;
        let level = match level {
            Some(level) => {
                if EnvFilter::try_new(level.get_ref()).is_err() {
                    self.refuse(
                        "log.level",
                        level.span(),
                        "not a tracing filter such as \"info\"",
                    );
                }
                level.into_inner()
            }
            None => "info".to_owned(),
        };
        let format = match format.as_ref().map(|format| format.get_ref().as_str()) {
            None | Some("text") => LogFormat::Text,
            Some("json") => LogFormat::Json,
            Some(_) => {
                let span = format.as_ref().map_or(0..0, Spanned::span);
                self.refuse("log.format", span, "must be \"text\" or \"json\"");
                LogFormat::Text
            }
        };
        Log { level, format }
    }
}
