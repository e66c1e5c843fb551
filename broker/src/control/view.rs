//! What operators are shown: the JSON of the control socket and of `--json`.

use std::{borrow::Cow, num::NonZeroU32};

use serde::{Deserialize, Serialize};

pub use crate::store::{Condition, StoreView};

/// A row of a listing, which is in the order of these keys.
pub trait Row {
    /// Whether several shards may have a part of one row.
    const HAS_PARTS: bool = false;

    fn key(&self) -> Cow<'_, str>;

    /// Adds another shard's part.
    fn add(&mut self, _part: Self)
    where
        Self: Sized,
    {
    }
}

/// Part of a listing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Page<T> {
    pub rows: Vec<T>,
    /// What to ask with, as `after`, for the rows behind these; absent if there are none.
    pub next: Option<String>,
}

/// A row of one node's listing among those of the others.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeRow<T> {
    pub node: String,
    #[serde(flatten)]
    pub row: T,
}

/// Part of a listing of all nodes of the cluster.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WidePage<T> {
    pub rows: Vec<NodeRow<T>>,
    /// As in [`Page`].
    pub next: Option<String>,
    /// Nodes whose rows are missing.
    pub silent: Vec<SilentNode>,
}

/// All nodes of the cluster.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ClusterNodes {
    pub nodes: Vec<NodeStatus>,
    /// Those that have not answered.
    pub silent: Vec<SilentNode>,
}

/// A node that was not heard.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SilentNode {
    pub node: String,
    pub trouble: String,
}

/// How the node is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct NodeStatus {
    pub node: String,
    pub version: String,
    pub pid: u32,
    pub uptime_seconds: u64,
    /// Clients are accepted.
    pub ready: bool,
    /// How far clients are sent away; absent if they are not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub evacuation: Option<EvacuationView>,
    pub listeners: Vec<String>,
    pub connections: u64,
    pub sessions: u64,
    pub subscriptions: u64,
    pub retained: u64,
    /// What outlives the process; absent if nothing does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub store: Option<StoreView>,
    pub router: RouterStatus,
    /// Who is asked who clients are, in turn.
    #[serde(default)]
    pub authenticators: Vec<AuthenticatorStatus>,
    pub rates: Rates,
    pub shards: Vec<ShardStatus>,
}

/// Clients that are sent away.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EvacuationView {
    pub aim: EvacuationAim,
    pub phase: EvacuationPhase,
    /// Until the first one goes.
    pub begins_in_seconds: u64,
    pub sent: u64,
    /// Those who are yet to go.
    pub left: u64,
    /// Clients a second.
    pub rate: NonZeroU32,
    /// Where MQTT 5 clients are told to go.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub servers: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EvacuationAim {
    Evacuate,
    Rebalance,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EvacuationPhase {
    /// For balancers to see that the node is not ready.
    Waiting,
    Sending,
    /// Nobody is left, and nobody is let in.
    Evacuated,
}

/// How clients are sent away.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SendAway {
    /// Clients a second.
    pub rate: u32,
    /// For balancers to see that the node is not ready.
    pub wait_seconds: u64,
    /// Where MQTT 5 clients are told to go: hosts and ports.
    #[serde(default)]
    pub servers: Vec<String>,
    /// They need not come back.
    #[serde(default)]
    pub permanent: bool,
    /// As if their connections had broken.
    #[serde(default)]
    pub publish_wills: bool,
}

/// How clients are sent away until so many are left.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rebalance {
    /// Absent: as many as the nodes of the cluster have on average.
    #[serde(default)]
    pub keep: Option<u64>,
    pub terms: SendAway,
}

/// What moves messages from thread to thread.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RouterStatus {
    pub up_seconds: u64,
    /// It was heard within the last seconds.
    pub answers: bool,
    /// How many before it have failed.
    pub restarts: u64,
    /// Those of them that did not die but hang.
    pub hung: u64,
}

/// One way to find out who clients are.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuthenticatorStatus {
    /// As metrics call it.
    pub name: String,
    // What it has answered since the broker was started.
    pub allowed: u64,
    pub denied: u64,
    pub ignored: u64,
    pub unavailable: u64,
    /// How many keys it has, if it goes by keys.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keys: Option<usize>,
    /// Why a server that it depends on could not be asked the last time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
}

/// What happened in the last second.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Rates {
    pub connects: f64,
    pub messages_in: f64,
    pub messages_out: f64,
    pub messages_dropped: f64,
    pub bytes_in: f64,
    pub bytes_out: f64,
}

/// One thread of the node.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct ShardStatus {
    pub shard: u16,
    pub connections: usize,
    pub sessions: usize,
    /// What it used of a core in the last second: 1 is all of it.
    pub load: f64,
    /// How long it took to answer; absent if it did not in time.
    pub answered_in_seconds: Option<f64>,
}

/// A client that is connected.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClientView {
    pub client_id: String,
    pub address: String,
    /// Who the client was found to be; absent if nobody in particular.
    pub user: Option<String>,
    /// The common name in the certificate that the client has shown.
    pub certificate: Option<String>,
    /// MQTT's.
    pub version: Cow<'static, str>,
    pub keep_alive_seconds: u16,
    pub clean_start: bool,
    pub connected_seconds: u64,
    pub subscriptions: usize,
    /// Messages that wait for the client.
    pub queued: usize,
    /// Messages that it has and has not acknowledged.
    pub inflight: usize,
    /// Bytes that its socket has not taken.
    pub unsent_bytes: usize,
    pub messages_in: u64,
    pub messages_out: u64,
    pub bytes_in: u64,
    pub bytes_out: u64,
    /// Messages that it did not get because too many waited.
    pub dropped_messages: u64,
    /// Their payload.
    pub dropped_bytes: u64,
    /// It does not keep up.
    pub slow: bool,
}

/// What is kept for a client, connected or not.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionView {
    pub client_id: String,
    pub connected: bool,
    /// How long the session outlives its connection.
    pub expiry_seconds: u64,
    /// When it ends unless its client comes back; absent while that is connected.
    pub ends_in_seconds: Option<u64>,
    pub subscriptions: usize,
    pub queued: usize,
    pub inflight: usize,
    /// Messages that were not kept, since the client last connected, because too many waited.
    pub dropped_messages: u64,
}

/// A filter that somebody has subscribed to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TopicView {
    pub filter: String,
    /// How many clients have it.
    pub subscribers: u64,
}

/// A retained message.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RetainedView {
    pub topic: String,
    /// Of payload.
    pub bytes: usize,
    pub qos: u8,
    /// How long it has been kept.
    pub age_seconds: u64,
    /// How long it will be; absent if until it is replaced.
    pub expires_in_seconds: Option<u64>,
    /// Its beginning, if that was asked for and is text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub payload: Option<String>,
    /// Its beginning in hexadecimal, if that was asked for and is no text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub payload_hex: Option<String>,
}

/// One filter of one client.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SubscriptionView {
    pub client_id: String,
    pub filter: String,
    pub qos: u8,
    pub no_local: bool,
    pub retain_as_published: bool,
    pub subscription_id: Option<u32>,
}

/// An order to send a client away.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KickOrder {
    pub client_id: String,
    /// With all that is kept for it.
    #[serde(default)]
    pub end_session: bool,
}

/// What became of such an order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Kicked {
    /// Where the client was; absent without a cluster.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
    pub was_connected: bool,
    pub session_ended: bool,
}

/// What became of a new configuration.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reloaded {
    /// Keys that have changed and are read once, at the start.
    pub needs_restart: Vec<String>,
}

impl Row for ClientView {
    fn key(&self) -> Cow<'_, str> {
        Cow::Borrowed(&self.client_id)
    }
}

impl Row for SessionView {
    fn key(&self) -> Cow<'_, str> {
        Cow::Borrowed(&self.client_id)
    }
}

impl Row for TopicView {
    const HAS_PARTS: bool = true;

    fn key(&self) -> Cow<'_, str> {
        Cow::Borrowed(&self.filter)
    }

    fn add(&mut self, part: Self) {
        self.subscribers += part.subscribers;
    }
}

impl Row for SubscriptionView {
    fn key(&self) -> Cow<'_, str> {
        Cow::Owned(Self::key_of(&self.client_id, &self.filter))
    }
}

/// Sorts before all else, and is in no string of MQTT (1.5.4).
const SEPARATOR: char = '\0';

impl SubscriptionView {
    pub(crate) fn key_of(client_id: &str, filter: &str) -> String {
        format!("{client_id}{SEPARATOR}{filter}")
    }

    /// The client and the filter that a key stands for.
    pub(crate) fn split_key(key: &str) -> (&str, Option<&str>) {
        match key.split_once(SEPARATOR) {
            Some((client_id, filter)) => (client_id, Some(filter)),
            None => (key, None),
        }
    }
}
