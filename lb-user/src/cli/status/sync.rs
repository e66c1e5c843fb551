//! The channel to the other node in a few lines.

use std::collections::BTreeMap;

use console::units::duration;

use crate::control::{FlowLag, ReceivingStatus, SendingStatus, SyncStatus};

/// Both directions; empty without a peer.
pub(super) fn lines(status: Option<&SyncStatus>) -> String {
    let Some(status) = status else {
        return String::new();
    };
    let SyncStatus {
        listen: _,
        peer,
        sending,
        receiving,
    } = status;
    format!(
        "\nsync to {peer}: {}\nsync from {peer}: {}\n",
        to(sending),
        from(receiving)
    )
}

fn to(sending: &SendingStatus) -> String {
    let SendingStatus {
        connected: _,
        in_sync_seconds,
        lag_seconds,
        entries,
        pending,
        flow_lag,
        unacknowledged,
        events: _,
        events_lost,
        messages: _,
        bytes: _,
        snapshots: _,
        error,
    } = sending;
    match (in_sync_seconds, error) {
        (Some(seconds), _) => {
            let mut parts = vec![format!(
                "in sync for {}, lag {lag_seconds:.1} s, {entries} entries, {pending} pending",
                duration(*seconds)
            )];
            parts.extend(new_flows(flow_lag));
            let count = |count: &u64, what| (*count > 0).then(|| format!("{count} {what}"));
            parts.extend(count(unacknowledged, "new flows not acknowledged"));
            parts.extend(count(events_lost, "new flows not reported at once"));
            parts.join("; ")
        }
        (None, Some(error)) => format!("NOT IN SYNC: {error}"),
        (None, None) => format!("not in sync yet, {pending} of {entries} entries pending"),
    }
}

fn new_flows(lag: &FlowLag) -> Option<String> {
    let FlowLag {
        flows,
        p50_seconds,
        p99_seconds,
        max_seconds,
    } = lag;
    let [p50, p99, max] = [p50_seconds, p99_seconds, max_seconds].map(|it| it * 1e3);
    (*flows > 0).then(|| format!("new flows: p50 {p50:.1} ms, p99 {p99:.1} ms, max {max:.1} ms"))
}

fn from(receiving: &ReceivingStatus) -> String {
    let ReceivingStatus {
        connected: _,
        in_sync_seconds,
        taken,
        removed,
        snapshots: _,
        refused,
        rejected,
        error,
    } = receiving;
    let mut parts = vec![match (in_sync_seconds, error) {
        (Some(seconds), _) => format!("in sync for {}", duration(*seconds)),
        (None, Some(error)) => format!("NOT IN SYNC: {error}"),
        (None, None) => "not in sync yet".to_owned(),
    }];
    parts.push(format!("{taken} records taken in, {removed} taken back"));
    parts.extend(counts("refused", refused));
    parts.extend(counts("connections rejected", rejected));
    parts.join("; ")
}

fn counts(what: &str, counts: &BTreeMap<String, u64>) -> Option<String> {
    let parts: Vec<String> = counts
        .iter()
        .map(|(why, count)| format!("{why} {count}"))
        .collect();
    (!parts.is_empty()).then(|| format!("{what}: {}", parts.join(", ")))
}

#[cfg(test)]
mod tests {
    use super::lines;
    use crate::control::example;

    #[test]
    fn each_direction_says_how_it_is() {
        let text = lines(Some(&example::sync()));
        for part in [
            "sync to 172.16.40.23:9464: in sync for 1 min 1 s, lag 0.5 s, 7 entries, 1 pending; \
             new flows: p50 1.5 ms, p99 4.0 ms, max 8.2 ms; 1 new flows not acknowledged\n",
            "sync from 172.16.40.23:9464: NOT IN SYNC: the peer has another key",
            "5 records taken in, 0 taken back; refused: unknown_backend 2; connections rejected: key 3",
        ] {
            assert!(text.contains(part), "{part} is not in {text}");
        }
    }

    #[test]
    fn without_a_peer_nothing_is_said() {
        assert_eq!(lines(None), "");
    }
}
