//! The keys of the file: what each means on its own, and where it stood.
//!
//! Mirrors the TOML table by table. A key that is absent or was reported as wrong is `None`; what
//! holds between keys, and what an absent key stands for, is [`super::model`]'s to say.

mod dashboard;
mod notify;
mod vrrp;

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use lb_common::abi::{BackendId, Balance, Encapsulation, Forward};
use toml::de::DeValue;
use tracing_subscriber::EnvFilter;

pub(super) use self::dashboard::Dashboard;
pub(super) use self::notify::{Notify, NotifyType};
pub(super) use self::vrrp::{Track, Vrrp};
use super::model::{
    Backend, Challenge, LogFormat, MqttVersion, Prefix, Protocol, Unserved, XdpMode,
};
use super::prefixes::{self, List};
use super::reader::{Located, Place, Table};
use super::value::{
    Meaning, boolean, duration, fraction, host_address, host_prefix, host_socket, loopback_socket,
    mode, name, number, port, port_range, seed, source_prefix, text, text_that, word,
};

const DAY: Duration = Duration::from_secs(86_400);
/// Longer than any session should be silent, and far from where seconds since boot wrap.
const LONGEST_IDLE: Duration = DAY.saturating_mul(365);

/// The root of the file.
pub(super) struct Config {
    pub(super) interface: Option<Located<String>>,
    pub(super) xdp_mode: Option<Located<XdpMode>>,
    pub(super) seed: Option<Located<[u8; 16]>>,
    pub(super) state_dir: Option<Located<String>>,
    pub(super) pin_dir: Option<Located<String>>,
    pub(super) log: Log,
    pub(super) api: Api,
    pub(super) metrics_listen: Option<Located<SocketAddr>>,
    pub(super) dashboard: Option<Dashboard>,
    pub(super) limits: Limits,
    pub(super) tracking: Tracking,
    pub(super) nat: Nat,
    pub(super) tunnel: Tunnel,
    pub(super) sync: Option<Sync>,
    pub(super) vips: Vec<Vip>,
    pub(super) vrrps: Vec<Vrrp>,
    pub(super) notifies: Vec<Notify>,
    pub(super) services: Vec<Service>,
}

impl Config {
    pub(super) fn read(root: &mut Table<'_>) -> Self {
        Self {
            interface: root.required("interface", "interface = \"eth0\"", interface),
            xdp_mode: root.optional(
                "xdp_mode",
                word(&[
                    ("auto", XdpMode::Auto),
                    ("native", XdpMode::Native),
                    ("generic", XdpMode::Generic),
                ]),
            ),
            seed: root.optional("seed", seed),
            state_dir: root.optional("state_dir", text),
            pin_dir: root.optional(
                "pin_dir",
                text_that("an absolute path", |path| path.starts_with('/')),
            ),
            log: root.table("log", Log::read).unwrap_or_default(),
            api: root.table("api", Api::read).unwrap_or_default(),
            metrics_listen: root.table("metrics", read_metrics).flatten(),
            dashboard: root.table("dashboard", Dashboard::read),
            limits: root.table("limits", Limits::read).unwrap_or_default(),
            tracking: root.table("tracking", Tracking::read).unwrap_or_default(),
            nat: root.table("nat", Nat::read).unwrap_or_default(),
            tunnel: root.table("tunnel", Tunnel::read).unwrap_or_default(),
            sync: root.table("sync", Sync::read),
            vips: root.tables("vip", Vip::read),
            vrrps: root.tables("vrrp", Vrrp::read),
            notifies: root.tables("notify", Notify::read),
            services: root.tables("service", Service::read),
        }
    }
}

fn interface(value: &DeValue<'_>) -> Meaning<String> {
    let is_right =
        |name: &str| (1..16).contains(&name.len()) && !name.contains(['/', ' ', '\t', '\n']);
    text_that("the name of an interface", is_right)(value)
}

#[derive(Default)]
pub(super) struct Log {
    pub(super) level: Option<Located<String>>,
    pub(super) format: Option<Located<LogFormat>>,
}

impl Log {
    fn read(table: &mut Table<'_>) -> Self {
        let is_filter = |level: &str| EnvFilter::try_new(level).is_ok();
        Self {
            level: table.optional(
                "level",
                text_that(
                    "a log filter, such as \"info\" or \"info,lb_user=debug\"",
                    is_filter,
                ),
            ),
            format: table.optional(
                "format",
                word(&[("text", LogFormat::Text), ("json", LogFormat::Json)]),
            ),
        }
    }
}

#[derive(Default)]
pub(super) struct Api {
    pub(super) socket: Option<Located<String>>,
    pub(super) mode: Option<Located<u32>>,
    pub(super) group: Option<Located<String>>,
}

impl Api {
    fn read(table: &mut Table<'_>) -> Self {
        Self {
            // A unix socket's path has to fit into 108 bytes with a zero.
            socket: table.optional(
                "socket",
                text_that("a path of up to 107 bytes", |path| {
                    (1..108).contains(&path.len())
                }),
            ),
            mode: table.optional("mode", mode),
            group: table.optional("group", text),
        }
    }
}

fn read_metrics(table: &mut Table<'_>) -> Option<Located<SocketAddr>> {
    table.required("listen", "listen = \"127.0.0.1:9463\"", loopback_socket)
}

/// The greatest values are what the ids can tell apart, and what fits into memory.
#[derive(Default)]
pub(super) struct Limits {
    pub(super) services: Option<Located<u32>>,
    pub(super) backends: Option<Located<u32>>,
    pub(super) flows: Option<Located<u32>>,
    pub(super) half_open: Option<Located<u32>>,
    pub(super) access_entries: Option<Located<u32>>,
    pub(super) fragments: Option<Located<u32>>,
    pub(super) sources: Option<Located<u32>>,
}

impl Limits {
    fn read(table: &mut Table<'_>) -> Self {
        Self {
            services: table.optional("services", number(1..=1_024)),
            backends: table.optional("backends", number(1..=u32::from(BackendId::LIMIT))),
            flows: table.optional("flows", number(1..=50_000_000)),
            half_open: table.optional("half_open", number(1..=10_000_000)),
            access_entries: table.optional("access_entries", number(1..=10_000_000)),
            fragments: table.optional("fragments", number(1..=1_000_000)),
            // The kernel hands out room to CPUs in batches: small tables would forget at once.
            sources: table.optional("sources", number(1_024..=10_000_000)),
        }
    }
}

#[derive(Default)]
pub(super) struct Tracking {
    pub(super) idle: Option<Located<Duration>>,
    pub(super) shortest: Option<Located<Duration>>,
    pub(super) longest: Option<Located<Duration>>,
}

impl Tracking {
    fn read(table: &mut Table<'_>) -> Self {
        Self {
            idle: table.optional("idle", duration(LONGEST_IDLE)),
            shortest: table.optional("shortest", duration(DAY)),
            longest: table.optional("longest", duration(LONGEST_IDLE)),
        }
    }
}

#[derive(Default)]
pub(super) struct Nat {
    pub(super) sources: Vec<Located<IpAddr>>,
    pub(super) ports: Option<Located<(u16, u16)>>,
}

impl Nat {
    fn read(table: &mut Table<'_>) -> Self {
        Self {
            sources: table.list("sources", host_address),
            ports: table.optional("ports", port_range),
        }
    }
}

#[derive(Default)]
pub(super) struct Tunnel {
    pub(super) sources: Vec<Located<(IpAddr, u8)>>,
    pub(super) mtu: Option<Located<u16>>,
}

impl Tunnel {
    fn read(table: &mut Table<'_>) -> Self {
        Self {
            sources: table.list("sources", source_prefix),
            // Every host takes packets of 576 bytes (RFC 791, section 3.1).
            mtu: table.optional("mtu", number(576..=u16::MAX)),
        }
    }
}

pub(super) struct Sync {
    pub(super) listen: Option<Located<SocketAddr>>,
    pub(super) peer: Option<Located<SocketAddr>>,
    pub(super) key_file: Option<Located<String>>,
}

impl Sync {
    fn read(table: &mut Table<'_>) -> Self {
        let (listen, peer) = ("listen = \"10.0.0.1:9464\"", "peer = \"10.0.0.2:9464\"");
        let key_file = "key_file = \"/etc/tidegate/sync.key\"";
        Self {
            listen: table.required("listen", listen, host_socket),
            peer: table.required("peer", peer, host_socket),
            key_file: table.required("key_file", key_file, text),
        }
    }
}

pub(super) struct Vip {
    pub(super) address: Option<Located<(IpAddr, u8)>>,
    pub(super) assign: Option<Located<bool>>,
    pub(super) without_backends: Option<Located<Unserved>>,
}

impl Vip {
    fn read(table: &mut Table<'_>) -> Self {
        Self {
            address: table.required("address", "address = \"192.0.2.1/32\"", host_prefix),
            assign: table.optional("assign", boolean),
            without_backends: table.optional(
                "without_backends",
                word(&[("stay", Unserved::Stay), ("withdraw", Unserved::Withdraw)]),
            ),
        }
    }
}

pub(super) struct Service {
    pub(super) place: Place,
    pub(super) name: Option<Located<String>>,
    pub(super) vip: Option<Located<IpAddr>>,
    pub(super) port: Option<Located<u16>>,
    pub(super) protocol: Option<Located<Protocol>>,
    pub(super) balance: Option<Located<Balance>>,
    pub(super) forward: Option<Located<Forward>>,
    pub(super) tunnel: Option<Located<Encapsulation>>,
    pub(super) tunnel_port: Option<Located<u16>>,
    pub(super) keep_alive: Option<Located<Duration>>,
    pub(super) keep_alive_max: Option<Located<Duration>>,
    pub(super) slow_start: Option<Located<Duration>>,
    pub(super) check: Option<Check>,
    pub(super) guard: Option<Guard>,
    pub(super) backends: Vec<Server>,
}

impl Service {
    fn read(table: &mut Table<'_>) -> Self {
        let balances = [
            ("maglev", Balance::Maglev),
            ("source", Balance::Source),
            ("least_conn", Balance::LeastConn),
            ("round_robin", Balance::RoundRobin),
            // Weights are honoured everywhere: the name is for those who know the two apart.
            ("weighted_round_robin", Balance::RoundRobin),
        ];
        Self {
            place: table.place(),
            name: table.required("name", "name = \"mqtt\"", name),
            vip: table.required("vip", "vip = \"192.0.2.1\"", host_address),
            port: table.required("port", "port = 1883", port),
            protocol: table.optional(
                "protocol",
                word(&[
                    ("tcp", Protocol::Tcp),
                    ("udp", Protocol::Udp),
                    ("mqtt", Protocol::Mqtt),
                ]),
            ),
            balance: table.optional("balance", word(&balances)),
            forward: table.required(
                "forward",
                "forward = \"dsr\", \"nat\" or \"tunnel\"",
                word(&[
                    ("dsr", Forward::Dsr),
                    ("nat", Forward::Nat),
                    ("tunnel", Forward::Tunnel),
                ]),
            ),
            tunnel: table.optional(
                "tunnel",
                word(&[("ipip", Encapsulation::IpIp), ("gue", Encapsulation::Gue)]),
            ),
            tunnel_port: table.optional("tunnel_port", port),
            keep_alive: table.optional("keep_alive", duration(DAY)),
            keep_alive_max: table.optional("keep_alive_max", duration(DAY)),
            slow_start: table.optional("slow_start", duration(DAY)),
            check: table.table("check", Check::read),
            guard: table.table("guard", Guard::read),
            backends: table.tables("backend", Server::read),
        }
    }
}

/// A `[service.guard]`.
pub(super) struct Guard {
    pub(super) allow: Vec<Located<Prefix>>,
    pub(super) deny: Vec<Located<Prefix>>,
    pub(super) allow_file: Option<Located<List>>,
    pub(super) deny_file: Option<Located<List>>,
    pub(super) new_per_second: Option<Located<u32>>,
    pub(super) burst: Option<Located<u32>>,
    pub(super) new_per_second_per_source: Option<Located<u32>>,
    pub(super) burst_per_source: Option<Located<u32>>,
    pub(super) challenge: Option<Located<Challenge>>,
    pub(super) challenge_above: Option<Located<u32>>,
}

impl Guard {
    fn read(table: &mut Table<'_>) -> Self {
        Self {
            allow: table.list("allow", prefixes::prefix),
            deny: table.list("deny", prefixes::prefix),
            allow_file: table.optional("allow_file", prefixes::list),
            deny_file: table.optional("deny_file", prefixes::list),
            new_per_second: table.optional("new_per_second", number(1..=10_000_000)),
            burst: table.optional("burst", number(1..=10_000_000)),
            new_per_second_per_source: table
                .optional("new_per_second_per_source", number(1..=1_000_000)),
            burst_per_source: table.optional("burst_per_source", number(1..=1_000_000)),
            challenge: table.optional(
                "challenge",
                word(&[
                    ("auto", Challenge::Auto),
                    ("always", Challenge::Always),
                    ("off", Challenge::Never),
                ]),
            ),
            challenge_above: table.optional("challenge_above", number(1..=100_000_000)),
        }
    }
}

/// A `[[service.backend]]`.
pub(super) struct Server {
    pub(super) name: Option<Located<String>>,
    pub(super) address: Option<Located<IpAddr>>,
    pub(super) port: Option<Located<u16>>,
    pub(super) weight: Option<Located<u16>>,
    pub(super) max_connections: Option<Located<u32>>,
}

impl Server {
    fn read(table: &mut Table<'_>) -> Self {
        Self {
            name: table.required("name", "name = \"broker1\"", name),
            address: table.required("address", "address = \"192.0.2.10\"", host_address),
            port: table.optional("port", port),
            weight: table.optional("weight", number(0..=Backend::MAX_WEIGHT)),
            max_connections: table
                .optional("max_connections", number(0..=Backend::MAX_CONNECTIONS)),
        }
    }
}

/// The `type` of a check.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum CheckType {
    Mqtt,
    Tcp,
    Http,
    None,
}

pub(super) struct Check {
    pub(super) kind: Option<Located<CheckType>>,
    pub(super) port: Option<Located<u16>>,
    pub(super) interval: Option<Located<Duration>>,
    pub(super) timeout: Option<Located<Duration>>,
    pub(super) fall: Option<Located<u32>>,
    pub(super) rise: Option<Located<u32>>,
    pub(super) jitter: Option<Located<f64>>,
    pub(super) version: Option<Located<MqttVersion>>,
    pub(super) username: Option<Located<String>>,
    pub(super) password: Option<Located<String>>,
    pub(super) client_id: Option<Located<String>>,
    pub(super) path: Option<Located<String>>,
    pub(super) host: Option<Located<String>>,
    pub(super) expect: Option<Located<u16>>,
    pub(super) drain_on: Option<Located<u16>>,
}

impl Check {
    fn read(table: &mut Table<'_>) -> Self {
        let types = [
            ("mqtt", CheckType::Mqtt),
            ("tcp", CheckType::Tcp),
            ("http", CheckType::Http),
            ("none", CheckType::None),
        ];
        let versions = [("3.1.1", MqttVersion::V311), ("5", MqttVersion::V5)];
        Self {
            kind: table.required("type", "type = \"mqtt\"", word(&types)),
            port: table.optional("port", port),
            interval: table.optional("interval", duration(DAY)),
            timeout: table.optional("timeout", duration(DAY)),
            fall: table.optional("fall", number(1..=1_000)),
            rise: table.optional("rise", number(1..=1_000)),
            jitter: table.optional("jitter", fraction(0.0..=0.5)),
            version: table.optional("version", word(&versions)),
            username: table.optional("username", mqtt_text("a user name")),
            password: table.optional("password", secret_text),
            client_id: table.optional("client_id", mqtt_text("a client identifier")),
            path: table.optional(
                "path",
                text_that("a path, such as \"/health\"", |path| {
                    path.starts_with('/') && is_header_text(path)
                }),
            ),
            host: table.optional("host", text_that("the name of a host", is_header_text)),
            expect: table.optional("expect", number(100..=599)),
            drain_on: table.optional("drain_on", number(100..=599)),
        }
    }
}

/// Strings of MQTT carry their length in two bytes (MQTT 5.0, section 1.5.4).
fn mqtt_text(what: &'static str) -> impl Fn(&DeValue<'_>) -> Meaning<String> {
    text_that(what, |text| {
        (1..=65_535).contains(&text.len()) && !text.contains('\0')
    })
}

/// A password, which no error repeats.
fn secret_text(value: &DeValue<'_>) -> Meaning<String> {
    mqtt_text("a password")(value).map_err(|_| super::error::Problem::Invalid {
        expected: "a password of 1 to 65535 bytes in a string".to_owned(),
        found: "the value".to_owned(),
    })
}

/// Whether `text` can stand in the head of an HTTP request.
fn is_header_text(text: &str) -> bool {
    (1..=1_024).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic())
}
