//! What operators are shown of the cluster.

use serde::{Deserialize, Serialize};

use super::{Acknowledge, peer::Standing, wire::Tally};
use crate::config;

/// The cluster as this node sees it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ClusterStatus {
    pub cluster: String,
    pub node: String,
    /// Where other nodes call this one.
    pub listen: String,
    /// `replicated` or `local`.
    pub acknowledge: String,
    /// This node has left the cluster, and is none of its members.
    pub left: bool,
    pub members: Vec<MemberView>,
    /// Addresses that were called, and who answered.
    pub met: Vec<MetView>,
    /// Addresses where nobody was reached.
    pub troubles: Vec<TroubleView>,
    /// Sessions of this node of which another one has a copy, and those that have none yet.
    pub copied_sessions: u64,
    pub bare_sessions: u64,
    /// Copies of other nodes' sessions, and about how many bytes they hold.
    pub copies: u64,
    pub copy_bytes: u64,
}

/// Another node.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct MemberView {
    pub node: String,
    pub address: String,
    /// It is held for alive.
    pub alive: bool,
    /// There is a connection to it at the moment.
    pub connected: bool,
    /// It knows all filters of this node.
    pub synced: bool,
    /// Since when it is alive, or gone.
    pub since_seconds: u64,
    /// Why it is gone.
    pub loss: Option<String>,
    /// Filters that it has subscribers for.
    pub filters: usize,
    /// Bytes that it has not taken.
    pub queued_bytes: usize,
    /// How long it has not taken any of them.
    #[serde(default)]
    pub lag_seconds: f64,
    /// What it has told of itself last; absent until it has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tally: Option<TallyView>,
}

/// What another node has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TallyView {
    /// New clients may come.
    pub welcomes: bool,
    /// Those that are connected.
    pub clients: u64,
    pub sessions: u64,
    pub subscriptions: u64,
    pub retained: u64,
    pub messages_in: u64,
    pub messages_out: u64,
}

/// An address where a node answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MetView {
    pub address: String,
    pub node: String,
}

/// An address that is called in vain.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TroubleView {
    pub address: String,
    pub trouble: String,
}

/// Whom to call.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct JoinOrder {
    pub address: String,
}

/// What came of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Joined {
    /// The node that answered.
    pub node: String,
}

impl ClusterStatus {
    /// Of a node that has met nobody.
    pub(super) fn alone(node: &str, config: &config::Cluster) -> Self {
        let acknowledge = match config.acknowledge {
            Acknowledge::Replicated => "replicated",
            Acknowledge::Local => "local",
        };
        Self {
            cluster: config.name.clone(),
            node: node.to_owned(),
            listen: config.listen.to_string(),
            acknowledge: acknowledge.to_owned(),
            left: false,
            members: Vec::new(),
            met: Vec::new(),
            troubles: Vec::new(),
            copied_sessions: 0,
            bare_sessions: 0,
            copies: 0,
            copy_bytes: 0,
        }
    }
}

impl From<Tally> for TallyView {
    fn from(tally: Tally) -> Self {
        let Tally {
            welcomes,
            clients,
            sessions,
            subscriptions,
            retained,
            messages_in,
            messages_out,
        } = tally;
        Self {
            welcomes,
            clients,
            sessions,
            subscriptions,
            retained,
            messages_in,
            messages_out,
        }
    }
}

impl MemberView {
    pub(super) fn new(node: &str, peer: &super::peer::Peer, now: std::time::Instant) -> Self {
        Self {
            node: node.to_owned(),
            address: peer.address().to_string(),
            alive: peer.is_alive(),
            connected: peer.link.is_some(),
            synced: peer.is_alive() && peer.is_synced(),
            since_seconds: now.saturating_duration_since(peer.since).as_secs(),
            loss: match peer.standing {
                Standing::Joining | Standing::Alive => None,
                Standing::Gone(loss) => Some(loss.to_string()),
            },
            filters: peer.routes.len(),
            queued_bytes: peer.out.bytes(),
            lag_seconds: peer.lag(now).as_secs_f64(),
            tally: peer.tally.map(TallyView::from),
        }
    }
}
