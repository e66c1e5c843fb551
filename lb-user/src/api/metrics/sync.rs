//! The channel to the other node as families; none without a peer.

use super::Page;
use crate::control::{FlowLag, ReceivingStatus, SendingStatus, SyncStatus};

/// A value of what is sent.
type OfSending = fn(&SendingStatus) -> f64;
/// A value of what is received.
type OfReceiving = fn(&ReceivingStatus) -> u64;

/// Over the last minute. Without new flows there is none.
fn flow_lag(page: &mut Page, lag: &FlowLag) {
    let FlowLag {
        flows,
        p50_seconds,
        p99_seconds,
        max_seconds,
    } = lag;
    page.family(
        "tidegate_sync_flow_lag_flows",
        "gauge",
        "New flows of the last minute that came to be in the peer's tables.",
    );
    page.sample(&[], flows);
    page.family(
        "tidegate_sync_flow_lag_seconds",
        "gauge",
        "How long they took for that; quantile 1 is the longest.",
    );
    for (quantile, seconds) in [
        ("0.5", p50_seconds),
        ("0.99", p99_seconds),
        ("1", max_seconds),
    ] {
        page.sample(&[("quantile", quantile)], seconds);
    }
}

pub(super) fn channel(page: &mut Page, status: Option<&SyncStatus>) {
    let Some(status) = status else {
        return;
    };
    let SyncStatus {
        sending, receiving, ..
    } = status;
    page.family(
        "tidegate_sync_in_sync",
        "gauge",
        "Whether the receiving end has all that the sending end has.",
    );
    let flag = |seconds: Option<u64>| u8::from(seconds.is_some());
    page.sample(&[("direction", "sending")], flag(sending.in_sync_seconds));
    page.sample(
        &[("direction", "receiving")],
        flag(receiving.in_sync_seconds),
    );
    let families: [(&str, &str, &str, OfSending); 9] = [
        (
            "lag_seconds",
            "gauge",
            "Age of the oldest change that the peer is not known to have.",
            |it| it.lag_seconds,
        ),
        ("entries", "gauge", "What the peer should have.", |it| {
            it.entries as f64
        }),
        (
            "pending",
            "gauge",
            "What of it the peer is not known to have as it is.",
            |it| it.pending as f64,
        ),
        (
            "unacknowledged",
            "gauge",
            "New flows that are not known to be in the peer's tables.",
            |it| it.unacknowledged as f64,
        ),
        (
            "events_total",
            "counter",
            "New flows reported by the program.",
            |it| it.events as f64,
        ),
        (
            "events_lost_total",
            "counter",
            "New flows it had no room to report: the next sweep finds them.",
            |it| it.events_lost as f64,
        ),
        ("messages_total", "counter", "Messages sent.", |it| {
            it.messages as f64
        }),
        ("sent_bytes_total", "counter", "Bytes of them.", |it| {
            it.bytes as f64
        }),
        (
            "snapshots_sent_total",
            "counter",
            "Snapshots begun.",
            |it| it.snapshots as f64,
        ),
    ];
    for (name, kind, help, value) in families {
        page.family(&format!("tidegate_sync_{name}"), kind, help);
        page.sample(&[], value(sending));
    }
    flow_lag(page, &sending.flow_lag);
    let families: [(&str, &str, OfReceiving); 3] = [
        ("taken_total", "Records of the peer's taken in.", |it| {
            it.taken
        }),
        ("removed_total", "Records of the peer's taken back.", |it| {
            it.removed
        }),
        (
            "snapshots_received_total",
            "Snapshots of the peer's.",
            |it| it.snapshots,
        ),
    ];
    for (name, help, value) in families {
        page.family(&format!("tidegate_sync_{name}"), "counter", help);
        page.sample(&[], value(receiving));
    }
    page.family(
        "tidegate_sync_refused_total",
        "counter",
        "Records of the peer's that this node has no use for.",
    );
    for (reason, count) in &receiving.refused {
        page.sample(&[("reason", reason)], count);
    }
    page.family(
        "tidegate_sync_rejected_total",
        "counter",
        "Connections of callers that came to nothing.",
    );
    for (reason, count) in &receiving.rejected {
        page.sample(&[("reason", reason)], count);
    }
}
