//! What operators are shown of the cluster.

use std::fmt::Write;

use serde::{Deserialize, Serialize};

use super::{Acknowledge, peer::Standing};
use crate::{
    config,
    metrics::{render_head, render_value},
};

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
    /// Parts of the stream to it that were sent again, as a connection had broken.
    #[serde(default)]
    pub repeated: u64,
    /// What it has told of itself last; absent until it has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tally: Option<Tally>,
}

/// How much a node has: what it tells the others, and each of them shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tally {
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

    /// Appends how the other nodes are, in Prometheus's text format.
    pub(crate) fn render(&self, out: &mut String) {
        let alive = self.members.iter().filter(|member| member.alive);
        let help = "Other nodes of the cluster that are there.";
        render_head(out, "cluster_peers", "gauge", help);
        render_value(out, "cluster_peers", "", alive.count() as u64);
        let help = "1 while the node has left the cluster.";
        render_head(out, "cluster_left", "gauge", help);
        render_value(out, "cluster_left", "", u64::from(self.left));
        for (name, kind, help, value) in OF_PEERS {
            let name = format!("cluster_peer_{name}");
            render_head(out, &name, kind, help);
            for member in &self.members {
                let node = &member.node;
                let value = value(member);
                // Writing to a String does not fail.
                let _ = writeln!(out, "tidegate_broker_{name}{{node=\"{node}\"}} {value}");
            }
        }
    }
}

/// What metrics tell of each other node: name, type, explanation, and the value.
type OfPeer = (
    &'static str,
    &'static str,
    &'static str,
    fn(&MemberView) -> f64,
);

const OF_PEERS: [OfPeer; 6] = [
    (
        "alive",
        "gauge",
        "1 for a node that is there, 0 for one that is held for gone.",
        |member| f64::from(u8::from(member.alive)),
    ),
    (
        "connected",
        "gauge",
        "1 while there is a connection to the node.",
        |member| f64::from(u8::from(member.connected)),
    ),
    (
        "filters",
        "gauge",
        "Filters that the node has subscribers for.",
        |member| member.filters as f64,
    ),
    (
        "queued_bytes",
        "gauge",
        "Bytes for the node that it has not taken.",
        |member| member.queued_bytes as f64,
    ),
    (
        "lag_seconds",
        "gauge",
        "How long the node has taken nothing of what there is for it.",
        |member| member.lag_seconds,
    ),
    (
        "repeated_total",
        "counter",
        "Parts of the stream to the node that were sent again.",
        |member| member.repeated as f64,
    ),
];

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
            repeated: peer.out.repeated(),
            tally: peer.tally,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metrics_have_a_line_for_each_other_node() {
        let member = |node: &str, alive| MemberView {
            node: node.to_owned(),
            address: "10.0.0.2:7883".to_owned(),
            alive,
            connected: alive,
            synced: alive,
            since_seconds: 1,
            loss: None,
            filters: 3,
            queued_bytes: 70_000_000,
            lag_seconds: 1.5,
            repeated: 2,
            tally: None,
        };
        let status = ClusterStatus {
            cluster: "c".to_owned(),
            node: "a".to_owned(),
            listen: "10.0.0.1:7883".to_owned(),
            acknowledge: "local".to_owned(),
            left: false,
            members: vec![member("b", true), member("c", false)],
            met: Vec::new(),
            troubles: Vec::new(),
            copied_sessions: 0,
            bare_sessions: 0,
            copies: 0,
            copy_bytes: 0,
        };
        let mut text = String::new();
        status.render(&mut text);
        for line in [
            "tidegate_broker_cluster_peers 1",
            "tidegate_broker_cluster_peer_alive{node=\"b\"} 1",
            "tidegate_broker_cluster_peer_alive{node=\"c\"} 0",
            "tidegate_broker_cluster_peer_queued_bytes{node=\"b\"} 70000000",
            "tidegate_broker_cluster_peer_lag_seconds{node=\"b\"} 1.5",
            "tidegate_broker_cluster_peer_repeated_total{node=\"c\"} 2",
        ] {
            assert!(text.lines().any(|told| told == line), "{line}: {text}");
        }
        let heads = text.matches("# TYPE tidegate_broker_cluster_peer_alive gauge");
        assert_eq!(heads.count(), 1);
    }
}
