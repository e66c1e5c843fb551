//! The channel to the other node of a pair, as the outside sees it.

use std::{collections::BTreeMap, net::SocketAddr};

use serde::{Deserialize, Serialize};

/// Both directions of it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SyncStatus {
    pub listen: SocketAddr,
    pub peer: SocketAddr,
    /// What this node tells its peer: of the VIPs that it is Active for.
    pub sending: SendingStatus,
    /// What its peer tells it: of the VIPs that it stands by for.
    pub receiving: ReceivingStatus,
}

/// What a node tells its peer.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct SendingStatus {
    /// Whether the peer is there and takes what it is told.
    pub connected: bool,
    /// For how long the peer has had everything but the newest changes; `None`: it does not.
    pub in_sync_seconds: Option<u64>,
    /// For how long the oldest change is known here that the peer is not known to have.
    pub lag_seconds: f64,
    /// What the peer should have: flows, tables, keep-alives.
    pub entries: u64,
    /// Those of them that it is not known to have as they are.
    pub pending: u64,
    /// From a new flow's being established to its being in the peer's tables.
    pub flow_lag: FlowLag,
    /// New flows that are not known to be there.
    pub unacknowledged: u64,
    /// New flows that the program has reported since the start.
    pub events: u64,
    /// Those that it could not report, as there were too many at once: the next walk has them.
    pub events_lost: u64,
    /// Messages sent since the start.
    pub messages: u64,
    /// What they took on the wire.
    pub bytes: u64,
    /// Those of them that began a snapshot.
    pub snapshots: u64,
    /// Why the peer is told nothing, if it is not.
    pub error: Option<String>,
}

/// How long new flows of the last minute took to be in the peer's tables. By one clock: what the
/// peer's acknowledgement took to come back is in it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct FlowLag {
    pub flows: u64,
    /// Up to a sixteenth more than it was.
    pub p50_seconds: f64,
    pub p99_seconds: f64,
    pub max_seconds: f64,
}

/// What a node is told.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ReceivingStatus {
    /// Whether the peer has called, and has shown that it has the key.
    pub connected: bool,
    /// For how long this node has had all that the peer has, but the newest; `None`: it does not.
    pub in_sync_seconds: Option<u64>,
    /// Records taken in since the start.
    pub taken: u64,
    /// Records taken back.
    pub removed: u64,
    pub snapshots: u64,
    /// Records that this node has no use for, by reason.
    pub refused: BTreeMap<String, u64>,
    /// Connections that came to nothing, by reason.
    pub rejected: BTreeMap<String, u64>,
    /// Why the last one did, or why nobody can call.
    pub error: Option<String>,
}
