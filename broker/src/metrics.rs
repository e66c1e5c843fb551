//! What the broker counts, and Prometheus's text form of it.
//!
//! Every thread that handles packets counts in a [`Counters`] of its own, so that counting never
//! makes two cores wait for each other; reading sums them.

mod histogram;

use std::{
    array,
    fmt::Write,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

pub(crate) use histogram::Histogram;

/// Everything that is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
pub enum Metric {
    Connections,
    Sessions,
    SessionsConnected,
    Subscriptions,
    SharedSubscriptions,
    Accepted,
    Connected,
    RefusedFull,
    RefusedBusy,
    RefusedRate,
    RefusedSessions,
    RefusedStore,
    RefusedTimeout,
    RefusedProxy,
    RefusedTls,
    RefusedWebSocket,
    RefusedProtocol,
    RefusedClosed,
    RefusedAccess,
    RefusedReferred,
    RefusedMove,
    SessionsExpired,
    ClosedGoodbye,
    ClosedLost,
    ClosedKeepAlive,
    ClosedTakenOver,
    ClosedProtocol,
    ClosedAccess,
    ClosedLoginExpired,
    ClosedKicked,
    ClosedReferred,
    ClosedStopping,
    WebSocketText,
    WebSocketUnmasked,
    WebSocketExtension,
    WebSocketOpcode,
    WebSocketSequence,
    WebSocketControl,
    WebSocketLength,
    WebSocketClose,
    MessagesIn,
    MessagesThrottled,
    MessagesOut,
    PacketsIn,
    PacketsOut,
    BytesIn,
    BytesOut,
    DroppedQueue,
    DroppedExpired,
    DroppedShared,
    DroppedPeer,
    DroppedBytes,
    SlowSubscribers,
    Unconfirmed,
    RefusedSubscriptions,
    RefusedRetained,
    RefusedPublish,
    RefusedUnstored,
    DeniedPublish,
    DeniedSubscribe,
    ClusterIn,
    ClusterOut,
    ClusterGone,
    ClusterMovedIn,
    ClusterMovedOut,
    ClusterJoined,
    ClusterLost,
    CopiedSessions,
    BareSessions,
    Copies,
    CopyBytes,
    Promoted,
    ClusterRefused,
    LaneFrames,
    LaneMessages,
    LaneGaps,
    LaneRestarts,
}

impl Metric {
    /// Connections that never had a session, by the reason.
    pub const REFUSED: [Self; 14] = [
        Self::RefusedFull,
        Self::RefusedBusy,
        Self::RefusedRate,
        Self::RefusedSessions,
        Self::RefusedStore,
        Self::RefusedTimeout,
        Self::RefusedProxy,
        Self::RefusedTls,
        Self::RefusedWebSocket,
        Self::RefusedProtocol,
        Self::RefusedClosed,
        Self::RefusedAccess,
        Self::RefusedReferred,
        Self::RefusedMove,
    ];

    /// Whether it is a count of what has happened, not of what is there.
    #[cfg(test)]
    pub(crate) fn only_grows(self) -> bool {
        let mut descriptions = DESCRIPTIONS.iter();
        descriptions.any(|known| known.metric == self && matches!(known.kind, Kind::Counter))
    }
}

enum Kind {
    Gauge,
    Counter,
}

/// One line of the exposition; metrics of the same name follow each other.
struct Description {
    metric: Metric,
    kind: Kind,
    name: &'static str,
    label: &'static str,
    help: &'static str,
}

const fn describe(
    metric: Metric,
    kind: Kind,
    name: &'static str,
    label: &'static str,
    help: &'static str,
) -> Description {
    Description {
        metric,
        kind,
        name,
        label,
        help,
    }
}

#[rustfmt::skip]
const DESCRIPTIONS: &[Description] = {
    use Kind::{Counter, Gauge};
    use Metric::*;
    &[
        describe(Connections, Gauge, "connections", "", "Accepted sockets that are open."),
        describe(Sessions, Gauge, "sessions", "", "Sessions, connected or kept for absent clients."),
        describe(SessionsConnected, Gauge, "sessions_connected", "", "Sessions whose client is connected."),
        describe(Subscriptions, Gauge, "subscriptions", "", "Subscriptions of all sessions."),
        describe(SharedSubscriptions, Gauge, "shared_subscriptions", "", "Those of them that share messages with others."),
        describe(Accepted, Counter, "accepted_total", "", "Sockets accepted."),
        describe(Connected, Counter, "connects_total", "", "CONNECT packets answered with success."),
        describe(RefusedFull, Counter, "refused_total", "reason=\"connections\"", "Sockets closed before their CONNECT was accepted."),
        describe(RefusedBusy, Counter, "refused_total", "reason=\"busy\"", ""),
        describe(RefusedRate, Counter, "refused_total", "reason=\"rate\"", ""),
        describe(RefusedSessions, Counter, "refused_total", "reason=\"sessions\"", ""),
        describe(RefusedStore, Counter, "refused_total", "reason=\"store\"", ""),
        describe(RefusedTimeout, Counter, "refused_total", "reason=\"timeout\"", ""),
        describe(RefusedProxy, Counter, "refused_total", "reason=\"proxy\"", ""),
        describe(RefusedTls, Counter, "refused_total", "reason=\"tls\"", ""),
        describe(RefusedWebSocket, Counter, "refused_total", "reason=\"websocket\"", ""),
        describe(RefusedProtocol, Counter, "refused_total", "reason=\"protocol\"", ""),
        describe(RefusedClosed, Counter, "refused_total", "reason=\"closed\"", ""),
        describe(RefusedAccess, Counter, "refused_total", "reason=\"access\"", ""),
        describe(RefusedReferred, Counter, "refused_total", "reason=\"sent_away\"", ""),
        describe(RefusedMove, Counter, "refused_total", "reason=\"move\"", ""),
        describe(SessionsExpired, Counter, "sessions_expired_total", "", "Sessions of absent clients that were kept to the end."),
        describe(ClosedGoodbye, Counter, "disconnects_total", "reason=\"goodbye\"", "Connections ended, by reason."),
        describe(ClosedLost, Counter, "disconnects_total", "reason=\"lost\"", ""),
        describe(ClosedKeepAlive, Counter, "disconnects_total", "reason=\"keep_alive\"", ""),
        describe(ClosedTakenOver, Counter, "disconnects_total", "reason=\"taken_over\"", ""),
        describe(ClosedProtocol, Counter, "disconnects_total", "reason=\"protocol\"", ""),
        describe(ClosedAccess, Counter, "disconnects_total", "reason=\"access\"", ""),
        describe(ClosedLoginExpired, Counter, "disconnects_total", "reason=\"login_expired\"", ""),
        describe(ClosedKicked, Counter, "disconnects_total", "reason=\"kicked\"", ""),
        describe(ClosedReferred, Counter, "disconnects_total", "reason=\"sent_away\"", ""),
        describe(ClosedStopping, Counter, "disconnects_total", "reason=\"stopping\"", ""),
        describe(WebSocketText, Counter, "websocket_errors_total", "reason=\"text\"", "WebSockets closed because of what their clients sent, by reason."),
        describe(WebSocketUnmasked, Counter, "websocket_errors_total", "reason=\"unmasked\"", ""),
        describe(WebSocketExtension, Counter, "websocket_errors_total", "reason=\"extension\"", ""),
        describe(WebSocketOpcode, Counter, "websocket_errors_total", "reason=\"opcode\"", ""),
        describe(WebSocketSequence, Counter, "websocket_errors_total", "reason=\"sequence\"", ""),
        describe(WebSocketControl, Counter, "websocket_errors_total", "reason=\"control\"", ""),
        describe(WebSocketLength, Counter, "websocket_errors_total", "reason=\"length\"", ""),
        describe(WebSocketClose, Counter, "websocket_errors_total", "reason=\"close\"", ""),
        describe(MessagesIn, Counter, "messages_received_total", "", "PUBLISH packets from clients."),
        describe(MessagesThrottled, Counter, "messages_throttled_total", "", "PUBLISH packets after which a client was read no further for a while."),
        describe(MessagesOut, Counter, "messages_sent_total", "", "PUBLISH packets to clients."),
        describe(PacketsIn, Counter, "packets_received_total", "", "Packets from clients, after CONNECT."),
        describe(PacketsOut, Counter, "packets_sent_total", "", "Packets to clients."),
        describe(BytesIn, Counter, "bytes_received_total", "", "Bytes read from clients, after CONNECT."),
        describe(BytesOut, Counter, "bytes_sent_total", "", "Bytes written to clients."),
        describe(DroppedQueue, Counter, "messages_dropped_total", "reason=\"queue_full\"", "Messages not delivered to a subscriber."),
        describe(DroppedExpired, Counter, "messages_dropped_total", "reason=\"expired_or_too_large\"", ""),
        describe(DroppedShared, Counter, "messages_dropped_total", "reason=\"no_member\"", ""),
        describe(DroppedPeer, Counter, "messages_dropped_total", "reason=\"peer_slow\"", ""),
        describe(DroppedBytes, Counter, "payload_bytes_dropped_total", "", "Payload of messages dropped because a queue was full."),
        describe(SlowSubscribers, Counter, "slow_subscribers_total", "", "Times that a subscriber began to lose messages."),
        describe(Unconfirmed, Gauge, "publishes_unconfirmed", "", "PUBLISH packets that are not acknowledged because not all shards have taken the message."),
        describe(RefusedSubscriptions, Counter, "subscriptions_refused_total", "", "Filters refused because of a limit."),
        describe(RefusedRetained, Counter, "retained_refused_total", "", "Messages not retained because of the limit."),
        describe(RefusedPublish, Counter, "publish_refused_total", "", "Messages to topics that clients may not publish to."),
        describe(RefusedUnstored, Counter, "publish_unstored_total", "", "Messages refused because what they need could not be stored."),
        describe(DeniedPublish, Counter, "denied_total", "action=\"publish\"", "What clients wanted to do and no rule of the ACL file allows."),
        describe(DeniedSubscribe, Counter, "denied_total", "action=\"subscribe\"", ""),
        describe(ClusterIn, Counter, "cluster_messages_received_total", "", "Messages of other nodes' clients."),
        describe(ClusterOut, Counter, "cluster_messages_sent_total", "", "Messages for other nodes' clients, one for each node."),
        describe(ClusterGone, Counter, "cluster_batches_gone_total", "", "Batches of messages for a node that was gone before it had taken them."),
        describe(ClusterMovedIn, Counter, "cluster_sessions_moved_total", "direction=\"in\"", "Sessions that came from another node with their clients, or went there."),
        describe(ClusterMovedOut, Counter, "cluster_sessions_moved_total", "direction=\"out\"", ""),
        describe(ClusterJoined, Counter, "cluster_joined_total", "", "Times that another node was met."),
        describe(ClusterLost, Counter, "cluster_lost_total", "", "Times that another node was held for gone."),
        describe(CopiedSessions, Gauge, "cluster_copied_sessions", "", "Sessions of this node of which another one has a copy."),
        describe(BareSessions, Gauge, "cluster_bare_sessions", "", "Sessions of this node of which no other one has a copy yet."),
        describe(Copies, Gauge, "cluster_copies", "", "Copies of other nodes' sessions."),
        describe(CopyBytes, Gauge, "cluster_copy_bytes", "", "About how many bytes they hold."),
        describe(Promoted, Counter, "cluster_promoted_total", "", "Copies that became sessions because their node was gone."),
        describe(ClusterRefused, Counter, "cluster_refused_total", "", "Callers that were not let in."),
        describe(LaneFrames, Counter, "lane_frames_total", "", "Batches received from other shards."),
        describe(LaneMessages, Counter, "lane_messages_total", "", "Messages received from other shards."),
        describe(LaneGaps, Counter, "lane_gaps_total", "", "Batches missing between shards; must stay 0."),
        describe(LaneRestarts, Counter, "lane_restarts_total", "", "Times a shard joined a rebuilt Router."),
    ]
};

/// One thread's counts. Aligned so that no two share a cache line.
#[derive(Debug)]
#[repr(align(128))]
pub struct Counters([AtomicU64; DESCRIPTIONS.len()]);

impl Default for Counters {
    fn default() -> Self {
        Self(array::from_fn(|_metric| AtomicU64::new(0)))
    }
}

impl Counters {
    pub fn add(&self, metric: Metric, amount: usize) {
        self.0[metric as usize].fetch_add(amount as u64, Ordering::Relaxed);
    }

    pub fn inc(&self, metric: Metric) {
        self.add(metric, 1);
    }

    /// Lowers a gauge. One thread's share may go below zero; the sum over all does not.
    pub fn sub(&self, metric: Metric, amount: usize) {
        self.0[metric as usize].fetch_sub(amount as u64, Ordering::Relaxed);
    }
}

/// All threads' counters together.
#[derive(Clone, Debug)]
pub struct Metrics {
    parts: Vec<Arc<Counters>>,
}

impl Metrics {
    pub fn new(parts: Vec<Arc<Counters>>) -> Self {
        Self { parts }
    }

    pub fn get(&self, metric: Metric) -> u64 {
        let part = |counters: &Arc<Counters>| counters.0[metric as usize].load(Ordering::Relaxed);
        self.parts.iter().map(part).fold(0, u64::wrapping_add)
    }

    /// Appends all metrics in Prometheus's text format.
    pub fn render(&self, out: &mut String) {
        let mut previous = "";
        for Description {
            metric,
            kind,
            name,
            label,
            help,
        } in DESCRIPTIONS
        {
            if *name != previous {
                let kind = match kind {
                    Kind::Gauge => "gauge",
                    Kind::Counter => "counter",
                };
                render_head(out, name, kind, help);
                previous = name;
            }
            render_value(out, name, label, self.get(*metric));
        }
    }
}

/// Appends a metric's HELP and TYPE lines.
pub fn render_head(out: &mut String, name: &str, kind: &str, help: &str) {
    // Writing to a String does not fail.
    let _ = writeln!(out, "# HELP tidegate_broker_{name} {help}");
    let _ = writeln!(out, "# TYPE tidegate_broker_{name} {kind}");
}

/// Appends one sample.
pub fn render_value(out: &mut String, name: &str, label: &str, value: u64) {
    let _ = if label.is_empty() {
        writeln!(out, "tidegate_broker_{name} {value}")
    } else {
        writeln!(out, "tidegate_broker_{name}{{{label}}} {value}")
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn descriptions_are_in_the_order_of_the_metrics() {
        for (index, description) in DESCRIPTIONS.iter().enumerate() {
            assert_eq!(description.metric as usize, index);
        }
    }

    #[test]
    fn threads_are_summed_and_heads_written_once() {
        let parts = vec![Arc::new(Counters::default()), Arc::new(Counters::default())];
        parts[0].inc(Metric::Connections);
        parts[1].sub(Metric::Connections, 1);
        parts[0].add(Metric::RefusedFull, 3);
        let metrics = Metrics::new(parts);
        assert_eq!(metrics.get(Metric::Connections), 0);
        let mut text = String::new();
        metrics.render(&mut text);
        assert!(text.contains("tidegate_broker_connections 0\n"));
        assert!(text.contains("tidegate_broker_refused_total{reason=\"connections\"} 3\n"));
        assert_eq!(
            text.matches("# TYPE tidegate_broker_refused_total counter")
                .count(),
            1
        );
    }
}
