//! All that the outside can know of the daemon, taken at one moment.

use std::{collections::BTreeMap, fmt};

use dashboard::DashboardStatus;
use lb_common::abi::Traffic;
use serde::{Deserialize, Serialize};

use super::{
    DrainStatus, MqttStatus, NotifierStatus, Sessions, SlotsStatus, SyncStatus, VrrpStatus,
};
use crate::core::{balancer::Admin, health::HealthState};

/// The whole of it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Status {
    pub version: String,
    pub pid: u32,
    pub uptime_seconds: u64,
    pub config: ConfigStatus,
    pub interface: InterfaceStatus,
    pub vips: Vec<VipStatus>,
    /// Who among the nodes has which of them.
    #[serde(default)]
    pub vrrp: VrrpStatus,
    /// The channel to the other node, if one is configured.
    #[serde(default)]
    pub sync: Option<SyncStatus>,
    pub services: Vec<ServiceStatus>,
    /// Packets by how they ended.
    pub verdicts: BTreeMap<String, u64>,
    pub flows: Flows,
    pub counters: Counters,
    /// Events since the start, by kind.
    #[serde(default)]
    pub events: BTreeMap<String, u64>,
    /// Who is told of them.
    #[serde(default)]
    pub notifiers: Vec<NotifierStatus>,
    /// What happens at the dashboard, if there is one.
    #[serde(default)]
    pub dashboard: Option<DashboardStatus>,
}

/// Which configuration is in force.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConfigStatus {
    pub path: String,
    /// How many configurations this process has used.
    pub generation: u64,
    /// Why the last reload changed nothing, if it did not.
    pub last_error: Option<String>,
}

/// Where packets come in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct InterfaceStatus {
    pub name: String,
    /// `native` or `generic`.
    pub xdp_mode: String,
}

/// One virtual address.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VipStatus {
    /// With its prefix length.
    pub address: String,
    pub interface: String,
    pub state: VipState,
    /// Why it is withdrawn, or should be.
    #[serde(default)]
    pub lack: Option<String>,
}

/// Whether a VIP is where it should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum VipState {
    /// On the interface.
    Assigned,
    /// Not on the interface, although it should be.
    Absent,
    /// Not on the interface, as its virtual router is not Active.
    Standby,
    /// Not on the interface, as its packets are not served.
    Withdrawn,
    /// On the interface although they are not: somebody else has put it there.
    Left,
    /// Somebody else's business.
    Unmanaged,
}

impl fmt::Display for VipState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Assigned => "assigned",
            Self::Absent => "absent",
            Self::Standby => "standby",
            Self::Withdrawn => "withdrawn",
            Self::Left => "left",
            Self::Unmanaged => "unmanaged",
        })
    }
}

/// One service.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ServiceStatus {
    pub name: String,
    pub vip: String,
    pub port: u16,
    pub protocol: String,
    pub balance: String,
    pub forward: String,
    /// The form of its tunnels, with the port where it has one: `ipip`, `gue:6080`.
    #[serde(default)]
    pub tunnel: Option<String>,
    pub state: ServiceState,
    #[serde(flatten)]
    pub traffic: TrafficStatus,
    /// Client packets that no backend got.
    pub dropped: u64,
    pub sessions: Sessions,
    #[serde(default)]
    pub slots: SlotsStatus,
    /// For `protocol = "mqtt"`.
    pub mqtt: Option<MqttStatus>,
    #[serde(default)]
    pub guard: GuardStatus,
    pub backends: Vec<BackendStatus>,
}

/// Who was kept from a service, since the daemon started.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct GuardStatus {
    /// Prefixes in the access list.
    pub access_entries: u64,
    /// Packets of clients that the access list denies.
    pub denied: u64,
    /// New connections beyond the rate of one source.
    pub source_limited: u64,
    /// New connections beyond the rate of the service.
    pub service_limited: u64,
    /// When clients are challenged: `auto`, `always` or `off`.
    pub challenge: String,
    /// Whether they are at the moment.
    pub is_challenging: bool,
    /// SYNs that were answered with a challenge.
    pub challenged: u64,
    /// Good answers to challenges.
    pub answered: u64,
}

/// Whether any backend of a service takes new flows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ServiceState {
    Up,
    Down,
}

impl fmt::Display for ServiceState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Up => "up",
            Self::Down => "down",
        })
    }
}

/// What was forwarded since the daemon started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TrafficStatus {
    pub packets: u64,
    pub bytes: u64,
    pub new_connections: u64,
    /// Replies that were translated (NAT only).
    pub reply_packets: u64,
    pub reply_bytes: u64,
    /// Packets of tracked flows for which the flow table had no room.
    pub untracked: u64,
    /// Flows that were seen to close, by FIN or RST.
    pub closed: u64,
    /// Those of them that were reset.
    pub resets: u64,
}

impl From<Traffic> for TrafficStatus {
    fn from(traffic: Traffic) -> Self {
        Self {
            packets: traffic.packets,
            bytes: traffic.bytes,
            new_connections: traffic.new_connections,
            reply_packets: traffic.reply_packets,
            reply_bytes: traffic.reply_bytes,
            untracked: traffic.untracked,
            closed: traffic.closed,
            resets: traffic.resets,
        }
    }
}

/// One backend of one service.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct BackendStatus {
    pub name: String,
    pub address: String,
    pub port: u16,
    /// The weight in force.
    pub weight: u16,
    /// The weight that it takes new flows by: less while it starts slowly, 0 if it takes none.
    #[serde(default)]
    pub effective_weight: f64,
    /// The most flows that it takes; 0: any number.
    #[serde(default)]
    pub max_connections: u32,
    pub admin: Admin,
    /// Whether it was taken out of the configuration and stays until its last session has ended.
    #[serde(default)]
    pub leaving: bool,
    pub health: Health,
    /// Whether it is up only because nobody is heard from who would show that the way to it works.
    #[serde(default)]
    pub held: bool,
    /// Whether it drains because its check says that it takes no new clients.
    #[serde(default)]
    pub evacuated: bool,
    /// Why the last probe failed, if it did.
    pub reason: Option<String>,
    /// Its MAC address, or its gateway's.
    pub next_hop: Option<String>,
    /// Its share of the service's new flows, 0 to 1.
    pub share: f64,
    #[serde(flatten)]
    pub traffic: TrafficStatus,
    pub dropped: u64,
    pub sessions: Sessions,
    /// If it is draining.
    #[serde(flatten)]
    pub drain: Option<DrainStatus>,
    pub probe: ProbeStatus,
}

impl BackendStatus {
    /// How it stands, in one word.
    #[must_use]
    pub fn standing(&self) -> String {
        match self.admin {
            Admin::Draining if self.leaving => "leaving".to_owned(),
            Admin::Draining if self.evacuated => "evacuated".to_owned(),
            Admin::Enabled | Admin::Draining | Admin::Disabled => self.admin.to_string(),
        }
    }

    /// What the probes say of it, in one word.
    #[must_use]
    pub fn health_in_words(&self) -> String {
        if self.held {
            "held".to_owned()
        } else {
            self.health.to_string()
        }
    }
}

/// What the probes say of a backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Health {
    Up,
    Down,
    /// Not judged yet.
    Unknown,
}

impl From<HealthState> for Health {
    fn from(state: HealthState) -> Self {
        match state {
            HealthState::Unknown => Self::Unknown,
            HealthState::Up => Self::Up,
            HealthState::Down => Self::Down,
        }
    }
}

impl fmt::Display for Health {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Up => "up",
            Self::Down => "down",
            Self::Unknown => "unknown",
        })
    }
}

/// How a backend was probed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ProbeStatus {
    pub successes: u64,
    pub failures: u64,
    /// How long the last successful one took.
    pub last_seconds: Option<f64>,
}

/// Flows that are being tracked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Flows {
    pub tracked: u64,
    pub half_open: u64,
}

/// What the daemon did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counters {
    pub reloads_ok: u64,
    pub reloads_failed: u64,
    /// Changes that the kernel did not take at once.
    pub apply_errors: u64,
}
