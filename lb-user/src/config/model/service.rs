//! Services, their backends and their health checks.

use std::fmt;
use std::net::IpAddr;
use std::time::Duration;

use lb_common::abi::{Balance, Forward, Ip, PROTOCOL_TCP, PROTOCOL_UDP, ServiceKey};

use super::Guard;
use super::Tunnel;

/// What every link carries that IPv6 is used on (RFC 8200, section 5).
const IPV6_MIN_MTU: u16 = 1280;

/// What clients connect to: a VIP, a port and a protocol, and who stands behind them.
#[derive(Clone, Debug, PartialEq)]
pub struct Service {
    pub(super) name: String,
    pub(super) vip: IpAddr,
    pub(super) port: u16,
    pub(super) protocol: Protocol,
    pub(super) balance: Balance,
    pub(super) forward: Forward,
    pub(super) tunnel: Option<Tunnel>,
    pub(super) keep_alive: Duration,
    pub(super) keep_alive_max: Duration,
    pub(super) slow_start: Option<Duration>,
    pub(super) check: Option<Check>,
    pub(super) guard: Guard,
    pub(super) backends: Vec<Backend>,
}

impl Service {
    /// The name, unique among services.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The VIP, which is declared.
    #[must_use]
    pub const fn vip(&self) -> IpAddr {
        self.vip
    }

    /// The port, never 0.
    #[must_use]
    pub const fn port(&self) -> u16 {
        self.port
    }

    /// The protocol.
    #[must_use]
    pub const fn protocol(&self) -> Protocol {
        self.protocol
    }

    /// How the backend of a new flow is picked.
    #[must_use]
    pub const fn balance(&self) -> Balance {
        self.balance
    }

    /// How the backends are reached.
    #[must_use]
    pub const fn forward(&self) -> Forward {
        self.forward
    }

    /// The form of its tunnels, if that is how the backends are reached.
    #[must_use]
    pub const fn tunnel(&self) -> Option<&Tunnel> {
        self.tunnel.as_ref()
    }

    /// The longest keep-alive that its clients use.
    #[must_use]
    pub const fn keep_alive(&self) -> Duration {
        self.keep_alive
    }

    /// The longest that a client's own word is believed, [`Self::keep_alive`] at least.
    #[must_use]
    pub const fn keep_alive_max(&self) -> Duration {
        self.keep_alive_max
    }

    /// How long a backend that returns takes to get its whole share of new flows.
    #[must_use]
    pub const fn slow_start(&self) -> Option<Duration> {
        self.slow_start
    }

    /// How the backends are checked; without a check they count as up.
    #[must_use]
    pub const fn check(&self) -> Option<&Check> {
        self.check.as_ref()
    }

    /// Who may connect.
    #[must_use]
    pub const fn guard(&self) -> &Guard {
        &self.guard
    }

    /// The backends, in the order of the file.
    #[must_use]
    pub fn backends(&self) -> &[Backend] {
        &self.backends
    }

    /// The bytes that a way to `backend` that carries `mtu` leaves for clients' packets, if these are
    /// too few: clients over IPv6 that are told of less go on with packets of 1280 bytes (RFC 8200,
    /// section 5), and none of those arrives.
    #[must_use]
    pub fn too_little_room(&self, backend: &Backend, mtu: u16) -> Option<u16> {
        let overhead = self
            .tunnel
            .filter(|_| self.vip.is_ipv6())?
            .overhead(backend.address);
        let room = mtu.saturating_sub(overhead);
        (room < IPV6_MIN_MTU).then_some(room)
    }

    /// What the kernel finds the service by.
    #[must_use]
    pub fn key(&self) -> ServiceKey {
        ServiceKey::new(Ip::from(self.vip), self.port, self.protocol.number())
    }
}

/// Transport protocol of a service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Protocol {
    Tcp,
    Udp,
    /// Over TCP, without TLS: what clients send is read on its way.
    Mqtt,
}

impl Protocol {
    /// Its number in the IP header.
    #[must_use]
    pub const fn number(self) -> u8 {
        match self {
            Self::Tcp | Self::Mqtt => PROTOCOL_TCP,
            Self::Udp => PROTOCOL_UDP,
        }
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
            Self::Mqtt => "mqtt",
        })
    }
}

/// One server of a service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Backend {
    pub(super) name: String,
    pub(super) address: IpAddr,
    pub(super) port: u16,
    pub(super) weight: u16,
    pub(super) max_connections: u32,
    pub(super) leaving: bool,
}

impl Backend {
    /// The greatest weight.
    pub const MAX_WEIGHT: u16 = 256;
    /// The greatest limit of connections: no table holds more.
    pub const MAX_CONNECTIONS: u32 = 50_000_000;

    /// The name, unique within its service.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its own address, of the VIP's family but at the end of a tunnel.
    #[must_use]
    pub const fn address(&self) -> IpAddr {
        self.address
    }

    /// The port it listens on, never 0.
    #[must_use]
    pub const fn port(&self) -> u16 {
        self.port
    }

    /// Its share of new flows relative to the others', at most [`Self::MAX_WEIGHT`]; 0 takes none.
    #[must_use]
    pub const fn weight(&self) -> u16 {
        self.weight
    }

    /// The most flows it takes; 0: any number.
    #[must_use]
    pub const fn max_connections(&self) -> u32 {
        self.max_connections
    }

    /// Whether it is not in the file any more, and only keeps the sessions it has.
    #[must_use]
    pub const fn is_leaving(&self) -> bool {
        self.leaving
    }
}

/// How the backends of a service are checked.
#[derive(Clone, Debug, PartialEq)]
pub struct Check {
    pub(super) probe: Probe,
    pub(super) port: Option<u16>,
    pub(super) interval: Duration,
    pub(super) timeout: Duration,
    pub(super) fall: u32,
    pub(super) rise: u32,
    pub(super) jitter: f64,
}

impl Check {
    /// What is asked of a backend.
    #[must_use]
    pub const fn probe(&self) -> &Probe {
        &self.probe
    }

    /// The port to ask, if it is not the backend's own.
    #[must_use]
    pub const fn port(&self) -> Option<u16> {
        self.port
    }

    /// The port to ask `backend` on.
    #[must_use]
    pub fn port_of(&self, backend: &Backend) -> u16 {
        self.port.unwrap_or(backend.port)
    }

    /// Time from one probe's start to the next's.
    #[must_use]
    pub const fn interval(&self) -> Duration {
        self.interval
    }

    /// How long an answer may take, at most [`Self::interval`].
    #[must_use]
    pub const fn timeout(&self) -> Duration {
        self.timeout
    }

    /// Failures in a row that take a backend down.
    #[must_use]
    pub const fn fall(&self) -> u32 {
        self.fall
    }

    /// Successes in a row that bring it up again.
    #[must_use]
    pub const fn rise(&self) -> u32 {
        self.rise
    }

    /// Whether a backend can answer that it takes no new clients.
    #[must_use]
    pub const fn hears_wishes(&self) -> bool {
        match &self.probe {
            Probe::Tcp => false,
            Probe::Mqtt(mqtt) => matches!(mqtt.version, MqttVersion::V5),
            Probe::Http(http) => http.drain_on.is_some(),
        }
    }

    /// Share of the interval, 0 to 0.5, by which a probe may come early.
    #[must_use]
    pub const fn jitter(&self) -> f64 {
        self.jitter
    }
}

/// What is asked of a backend.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Probe {
    /// Whether it accepts a connection.
    Tcp,
    /// Whether it accepts an MQTT session.
    Mqtt(MqttCheck),
    /// Whether it answers an HTTP request with the expected status.
    Http(HttpCheck),
}

/// An MQTT session to ask for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MqttCheck {
    pub(super) version: MqttVersion,
    pub(super) username: Option<String>,
    pub(super) password: Option<Secret>,
    pub(super) client_id: Option<String>,
}

impl MqttCheck {
    /// The protocol version to speak.
    #[must_use]
    pub const fn version(&self) -> MqttVersion {
        self.version
    }

    /// The user to log in as.
    #[must_use]
    pub fn username(&self) -> Option<&str> {
        self.username.as_deref()
    }

    /// The user's password.
    #[must_use]
    pub const fn password(&self) -> Option<&Secret> {
        self.password.as_ref()
    }

    /// The client identifier to use; without one the prober makes its own.
    #[must_use]
    pub fn client_id(&self) -> Option<&str> {
        self.client_id.as_deref()
    }
}

/// Version of MQTT.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MqttVersion {
    V311,
    V5,
}

/// A string that is not shown.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(pub(super) String);

impl Secret {
    /// The string itself.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

/// An HTTP request to make, and the answer to expect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpCheck {
    pub(super) path: String,
    pub(super) host: Option<String>,
    pub(super) expect: u16,
    pub(super) drain_on: Option<u16>,
}

impl HttpCheck {
    /// The path to ask for, which begins with a slash.
    #[must_use]
    pub fn path(&self) -> &str {
        &self.path
    }

    /// The `Host` header; without one it is the backend's address.
    #[must_use]
    pub fn host(&self) -> Option<&str> {
        self.host.as_deref()
    }

    /// The status code that means healthy.
    #[must_use]
    pub const fn expect(&self) -> u16 {
        self.expect
    }

    /// The status code that means that no new clients are taken.
    #[must_use]
    pub const fn drain_on(&self) -> Option<u16> {
        self.drain_on
    }
}
