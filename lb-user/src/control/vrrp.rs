//! What the outside can know of virtual routers, and have them do.

use std::{collections::BTreeMap, net::IpAddr};

use serde::{Deserialize, Serialize};

/// All virtual routers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct VrrpStatus {
    pub routers: Vec<RouterStatus>,
    /// Adverts that were refused before it was clear whose they are, by interface and reason.
    pub refused: BTreeMap<String, BTreeMap<String, u64>>,
}

/// One virtual router.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RouterStatus {
    pub name: String,
    pub group: Option<String>,
    pub interface: String,
    pub vrid: u8,
    /// 2 or 3.
    pub version: u8,
    pub vips: Vec<IpAddr>,
    /// The MAC address that these are at, if not the interface's own.
    #[serde(default)]
    pub virtual_mac: Option<String>,
    /// `initialize`, `backup` or `active`.
    pub role: String,
    /// Whether it is Active and waits for its successor.
    pub leaving: bool,
    /// The priority in force.
    pub priority: u8,
    /// The address that its adverts come from.
    pub source: Option<IpAddr>,
    /// Who is Active, if another is.
    pub peer: Option<PeerStatus>,
    /// Why it must not be Active: `operator`, `fault`, `group`.
    pub held: Vec<String>,
    /// What it lacks: `not_ready`, `link_down`, `no_address`, `no_socket`, `unfit`, `no_backends`,
    /// `no_vip`, `tracked`.
    pub faults: Vec<String>,
    /// Why the priority in force is lower than the configured one: `silent_backends`, `tracked`.
    pub lowered_by: Vec<String>,
    /// Whether it leaves an Active of lower priority alone until it is in sync with it.
    pub awaits_sync: bool,
    /// What it depends on.
    #[serde(default)]
    pub tracked: Vec<TrackStatus>,
    pub last_change: Option<RoleChange>,
    /// How often it came to each role.
    pub changes: BTreeMap<String, u64>,
    pub adverts: AdvertsStatus,
}

/// A peer that is Active.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PeerStatus {
    pub address: IpAddr,
    pub priority: u8,
}

/// Something that a virtual router depends on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TrackStatus {
    pub name: String,
    /// `gateway ADDRESS`, `script COMMAND` or `PERCENT % of its backends`.
    pub target: String,
    /// `unknown`, `up` or `down`.
    pub state: String,
    /// What the priority loses while it is down; without it the router gives its role up.
    pub cost: Option<u8>,
}

/// A change of role.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RoleChange {
    pub from: String,
    pub to: String,
    pub cause: String,
    pub seconds_ago: u64,
}

/// Adverts, since the router was set up as it is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AdvertsStatus {
    pub sent: u64,
    pub received: u64,
    /// Of others while this router was Active.
    pub contests: u64,
    /// By reason.
    pub refused: BTreeMap<String, u64>,
    /// Those that count but are odd, by what is odd about them.
    pub remarked: BTreeMap<String, u64>,
    /// Rounds of gratuitous ARP or neighbour advertisements.
    pub announcements: u64,
}

/// What an operator wants of a virtual router.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RouterOrder {
    /// Its name, or its group's; all routers of a group move together.
    pub name: String,
    pub change: RouterChange,
}

/// A change to a virtual router.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RouterChange {
    /// It hands its role over, and takes none.
    Release,
    /// It takes part again, and does not wait any more after a failure.
    Resume,
}

/// Why a virtual router was not changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RouterChangeError {
    #[error("there is no virtual router or group named {name}")]
    Unknown { name: String },
    #[error("the virtual routers are busy with other orders")]
    Busy,
}
