//! What is known of the sessions of a service or backend.

use std::{collections::BTreeMap, time::Duration};

use lb_common::{
    abi::MqttPackets,
    mqtt::{TYPES, packet_type},
};
use serde::{Deserialize, Serialize};

use super::TrafficStatus;

/// How many flows are open.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sessions {
    pub count: u64,
    /// Whether they were counted. Otherwise this is what started less what was seen to close, since
    /// the daemon's start: with dsr and tunnel, a server's own close is seen only by the client's
    /// answer, and a flow that just falls silent not at all.
    pub exact: bool,
}

impl Sessions {
    /// What traffic tells of them.
    #[must_use]
    pub const fn estimated(traffic: TrafficStatus) -> Self {
        Self {
            count: traffic.new_connections.saturating_sub(traffic.closed),
            exact: false,
        }
    }

    /// As many as are recorded.
    #[must_use]
    pub const fn counted(count: u64) -> Self {
        Self { count, exact: true }
    }
}

/// What is left of a draining backend's sessions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DrainStatus {
    /// Whether no session is left.
    pub drained: bool,
    /// Sessions, and flows that have only begun, as far as they are known.
    pub left: u64,
    /// Whether these are all.
    pub left_exact: bool,
    /// How long until all are known, if they are not because the backend's slots are at risk.
    pub drain_learning_seconds: u64,
}

/// The slots of a service by their state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SlotsStatus {
    /// Every packet goes to the owner.
    pub safe: u64,
    /// Some recorded flows belong to other backends.
    pub mixed: u64,
    /// Flows that are not recorded belong to the previous owner.
    pub at_risk: u64,
    /// How long until the last slot is not at risk any more.
    pub learning_seconds: u64,
    /// Whether some slots keep an owner that they should not have, for want of room for flows.
    pub deferred: bool,
}

/// What was read of the payload of a service with `protocol = "mqtt"`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MqttStatus {
    /// Packets from clients by type, as far as they stand at the front of a segment. What clients
    /// may not send is left out unless it was seen.
    pub packets: BTreeMap<String, u64>,
    /// The longest keep-alive that a client has asked for.
    pub longest_keep_alive_seconds: Option<u64>,
    /// The longest that learning windows wait for; none where no slot learns.
    #[serde(default)]
    pub keep_alive_max_seconds: Option<u64>,
    /// Whether the first data of a flow must be a CONNECT: where no record of each flow is kept,
    /// nothing tells first data from later.
    #[serde(default)]
    pub checks_first_packets: bool,
}

impl MqttStatus {
    /// What the kernel has counted.
    #[must_use]
    pub fn new(
        packets: MqttPackets,
        longest_keep_alive: Option<Duration>,
        keep_alive_max: Option<Duration>,
        checks_first_packets: bool,
    ) -> Self {
        let types = TYPES.iter().zip(packets.0);
        let packets = types
            .filter(|(name, count)| *count > 0 || is_for_clients(name))
            .map(|(name, count)| ((*name).to_owned(), count));
        Self {
            packets: packets.collect(),
            longest_keep_alive_seconds: longest_keep_alive.map(|longest| longest.as_secs()),
            keep_alive_max_seconds: keep_alive_max.map(|most| most.as_secs()),
            checks_first_packets,
        }
    }

    /// The longest keep-alive that a client has asked for, if learning windows do not wait for it.
    #[must_use]
    pub fn excessive_keep_alive_seconds(&self) -> Option<u64> {
        let seen = self.longest_keep_alive_seconds?;
        (seen > self.keep_alive_max_seconds?).then_some(seen)
    }
}

/// Whether a client may send it (MQTT 5.0, section 2.1.2).
fn is_for_clients(name: &str) -> bool {
    let only_servers = [0x00, 0x20, 0x90, 0xb0, 0xd0].map(|first| TYPES[packet_type(first)]);
    !only_servers.contains(&name)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use lb_common::abi::MqttPackets;

    use super::{MqttStatus, Sessions};
    use crate::control::TrafficStatus;

    #[test]
    fn what_only_servers_send_is_told_only_if_seen() {
        let mut packets = MqttPackets::default();
        let names = |packets| {
            MqttStatus::new(packets, None, None, true)
                .packets
                .into_keys()
        };
        assert_eq!(names(packets).len(), 11);
        assert!(!names(packets).any(|name| name == "connack"));
        packets.0[2] = 1;
        assert!(names(packets).any(|name| name == "connack"));
        let status = MqttStatus::new(packets, Some(Duration::from_secs(90)), None, true);
        assert_eq!(status.longest_keep_alive_seconds, Some(90));
    }

    #[test]
    fn a_keep_alive_is_excessive_beyond_what_windows_wait_for() {
        let excessive = |seen: Option<u64>, most: Option<u64>| {
            let (seen, most) = (seen.map(Duration::from_secs), most.map(Duration::from_secs));
            MqttStatus::new(MqttPackets::default(), seen, most, false)
                .excessive_keep_alive_seconds()
        };
        assert_eq!(excessive(Some(91), Some(90)), Some(91));
        assert_eq!(excessive(Some(90), Some(90)), None);
        assert_eq!(excessive(None, Some(90)), None);
        assert_eq!(excessive(Some(65_535), None), None);
    }

    #[test]
    fn sessions_are_never_fewer_than_none() {
        let mut traffic = TrafficStatus {
            new_connections: 5,
            closed: 2,
            ..TrafficStatus::default()
        };
        assert_eq!(Sessions::estimated(traffic).count, 3);
        traffic.closed = 9;
        assert_eq!(Sessions::estimated(traffic).count, 0);
        assert!(Sessions::counted(1).exact && !Sessions::estimated(traffic).exact);
    }
}
