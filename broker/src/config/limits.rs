//! The rules of `[limits]`.

use std::time::Duration;

use toml::Spanned;

use super::{check::Check, file};
use crate::rate::Rate;

/// MQTT's remaining length has 28 bits.
const LONGEST_PACKET: i64 = 268_435_455;

const MIB: i64 = 1024 * 1024;

/// More than any host has.
const MOST_BYTES: i64 = 1 << 50;

/// What one client, and all of them together, may ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    pub connections: usize,
    pub packet_bytes: usize,
    /// Bytes of a CONNECT.
    pub connect_bytes: usize,
    pub connect_timeout: Duration,
    /// Accepted connections whose CONNECT is not through.
    pub connecting: usize,
    /// CONNECTs of all clients together.
    pub connect_rate: Option<Rate>,
    /// Messages of one client, and bytes of them.
    pub publish_rate: Option<Rate>,
    pub publish_bytes_rate: Option<Rate>,
    pub inflight: u16,
    /// Messages that wait for one client, and bytes of them.
    pub queue_messages: usize,
    pub queue_bytes: usize,
    /// Bytes of messages that wait for all clients together.
    pub node_queue_bytes: usize,
    /// Sessions of the node, connected or absent.
    pub sessions: usize,
    /// Subscriptions of one client.
    pub subscriptions: usize,
    /// Bytes of their filters, and of what these take in the trees of filters.
    pub subscription_bytes: usize,
    /// Retained messages of the node, and bytes of them and of the tree of their topics.
    pub retained: usize,
    pub retained_bytes: usize,
    /// Topic aliases of one client, and as many towards it.
    pub topic_aliases: u16,
}

impl Check<'_> {
    pub(super) fn limits(&mut self, raw: file::Limits) -> Limits {
        let file::Limits {
            connections,
            packet_bytes,
            connect_bytes,
            connect_timeout,
            connecting,
            connect_rate,
            connect_burst,
            publish_rate,
            publish_bytes_rate,
            inflight,
            queue_messages,
            queue_bytes,
            node_queue_bytes,
            sessions,
            subscriptions,
            subscription_bytes,
            retained,
            retained_bytes,
            topic_aliases,
        } = raw;
        let timeout_span = connect_timeout.as_ref().map_or(0..0, Spanned::span);
        let connect_timeout = self.duration(
            "limits.connect_timeout",
            connect_timeout,
            Duration::from_secs(10),
        );
        if connect_timeout.is_zero() {
            self.refuse("limits.connect_timeout", timeout_span, "must not be zero");
        }
        Limits {
            connections: self.size("limits.connections", connections, 1_000_000, 1..10_000_001),
            packet_bytes: self.size(
                "limits.packet_bytes",
                packet_bytes,
                1_048_576,
                256..LONGEST_PACKET + 1,
            ),
            connect_bytes: self.size(
                "limits.connect_bytes",
                connect_bytes,
                65_536,
                256..LONGEST_PACKET + 1,
            ),
            connect_timeout,
            connecting: self.size("limits.connecting", connecting, 10_000, 1..10_000_001),
            connect_rate: self.rate(
                ("limits.connect_rate", connect_rate),
                ("limits.connect_burst", connect_burst),
            ),
            publish_rate: self.rate(("limits.publish_rate", publish_rate), ("", None)),
            publish_bytes_rate: self.rate(
                ("limits.publish_bytes_rate", publish_bytes_rate),
                ("", None),
            ),
            inflight: self.short("limits.inflight", inflight, 100, 1..65_536),
            queue_messages: self.size(
                "limits.queue_messages",
                queue_messages,
                1000,
                0..100_000_001,
            ),
            queue_bytes: self.size(
                "limits.queue_bytes",
                queue_bytes,
                64 * MIB,
                1..MOST_BYTES + 1,
            ),
            node_queue_bytes: self.size(
                "limits.node_queue_bytes",
                node_queue_bytes,
                1024 * MIB,
                1..MOST_BYTES + 1,
            ),
            sessions: self.size("limits.sessions", sessions, 1_000_000, 1..100_000_001),
            subscriptions: self.size("limits.subscriptions", subscriptions, 10_000, 1..10_000_001),
            subscription_bytes: self.size(
                "limits.subscription_bytes",
                subscription_bytes,
                64 * MIB,
                1..MOST_BYTES + 1,
            ),
            retained: self.size("limits.retained", retained, 1_000_000, 0..100_000_001),
            retained_bytes: self.size(
                "limits.retained_bytes",
                retained_bytes,
                1024 * MIB,
                1..MOST_BYTES + 1,
            ),
            topic_aliases: self.short("limits.topic_aliases", topic_aliases, 32, 0..65_536),
        }
    }
}
