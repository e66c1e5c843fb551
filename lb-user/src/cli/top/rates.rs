//! From two statuses to rates.

use std::{collections::BTreeMap, time::Duration};

use serde::Serialize;

use crate::control::{
    BackendStatus, Health, ServiceState, ServiceStatus, Sessions, Status, TrafficStatus,
};
use crate::core::balancer::Admin;

/// What happened between two statuses, a second.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct Rates {
    /// Between the two.
    pub(super) seconds: f64,
    pub(super) services: Vec<ServiceRates>,
    /// Dropped packets by verdict, those that there were.
    pub(super) drops: BTreeMap<String, f64>,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct ServiceRates {
    #[serde(flatten)]
    pub(super) row: Row,
    /// MQTT packets by type, those that there were.
    pub(super) mqtt: BTreeMap<String, f64>,
    pub(super) backends: Vec<Row>,
}

/// One service or backend.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct Row {
    pub(super) name: String,
    /// `up`, or what is the matter with it.
    pub(super) state: String,
    /// From clients.
    pub(super) packets_per_second: f64,
    pub(super) bits_per_second: f64,
    pub(super) new_per_second: f64,
    pub(super) resets_per_second: f64,
    pub(super) drops_per_second: f64,
    /// Replies, where they pass here.
    pub(super) reply_packets_per_second: f64,
    pub(super) reply_bits_per_second: f64,
    pub(super) sessions: Sessions,
}

impl Rates {
    /// What happened between two statuses of one daemon. A counter that went back counts as still:
    /// the daemon was started anew.
    pub(super) fn between(earlier: &Status, now: &Status, elapsed: Duration) -> Self {
        let meter = Meter(elapsed.as_secs_f64());
        let services = now.services.iter().map(|service| {
            let before = earlier.services.iter();
            meter.service(before.clone().find(|old| old.name == service.name), service)
        });
        let mut drops = meter.map(&earlier.verdicts, &now.verdicts);
        drops.retain(|verdict, _| verdict.starts_with("drop_"));
        Self {
            seconds: meter.0,
            services: services.collect(),
            drops,
        }
    }
}

/// The time between two looks, in seconds.
#[derive(Clone, Copy)]
struct Meter(f64);

impl Meter {
    fn rate(self, before: u64, now: u64) -> f64 {
        if self.0 > 0.0 {
            now.saturating_sub(before) as f64 / self.0
        } else {
            0.0
        }
    }

    /// The rates that are not 0. What was not there before starts at 0.
    fn map(
        self,
        before: &BTreeMap<String, u64>,
        now: &BTreeMap<String, u64>,
    ) -> BTreeMap<String, f64> {
        let rates = now.iter().map(|(name, count)| {
            let before = before.get(name).copied().unwrap_or(0);
            (name.clone(), self.rate(before, *count))
        });
        rates.filter(|(_, rate)| *rate > 0.0).collect()
    }

    fn service(self, before: Option<&ServiceStatus>, now: &ServiceStatus) -> ServiceRates {
        let old = before.unwrap_or(now);
        let backends = now.backends.iter().map(|backend| {
            let old = old.backends.iter().find(|old| old.name == backend.name);
            self.backend(old.unwrap_or(backend), backend)
        });
        let state = match now.state {
            ServiceState::Up => "up",
            ServiceState::Down => "down",
        };
        let packets = |service: &ServiceStatus| {
            let mqtt = service.mqtt.as_ref();
            mqtt.map(|mqtt| mqtt.packets.clone()).unwrap_or_default()
        };
        ServiceRates {
            row: self.row(
                (&now.name, state.to_owned(), now.sessions),
                (old.traffic, now.traffic),
                (old.dropped, now.dropped),
            ),
            mqtt: self.map(&packets(old), &packets(now)),
            backends: backends.collect(),
        }
    }

    fn backend(self, old: &BackendStatus, now: &BackendStatus) -> Row {
        let state = match (now.health, now.admin) {
            (Health::Up, Admin::Enabled) if now.held => now.health_in_words(),
            (Health::Up, Admin::Enabled) => in_use(now),
            (Health::Up, Admin::Draining | Admin::Disabled) => now.standing(),
            (health @ (Health::Down | Health::Unknown), _) => health.to_string(),
        };
        self.row(
            (&now.name, state, now.sessions),
            (old.traffic, now.traffic),
            (old.dropped, now.dropped),
        )
    }

    fn row(
        self,
        (name, state, sessions): (&str, String, Sessions),
        (old, now): (TrafficStatus, TrafficStatus),
        (dropped, drops): (u64, u64),
    ) -> Row {
        Row {
            name: name.to_owned(),
            state,
            packets_per_second: self.rate(old.packets, now.packets),
            bits_per_second: self.rate(old.bytes, now.bytes) * 8.0,
            new_per_second: self.rate(old.new_connections, now.new_connections),
            resets_per_second: self.rate(old.resets, now.resets),
            drops_per_second: self.rate(dropped, drops),
            reply_packets_per_second: self.rate(old.reply_packets, now.reply_packets),
            reply_bits_per_second: self.rate(old.reply_bytes, now.reply_bytes) * 8.0,
            sessions,
        }
    }
}

/// `up`, and how far a slow start has come; or that it takes no more.
fn in_use(backend: &BackendStatus) -> String {
    let limit = u64::from(backend.max_connections);
    let share = backend.effective_weight / f64::from(backend.weight);
    if limit > 0 && backend.sessions.exact && backend.sessions.count >= limit {
        "full".to_owned()
    } else if share > 0.0 && share < 1.0 {
        format!("up {:.0}%", share * 100.0)
    } else {
        "up".to_owned()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::Rates;
    use crate::control::{BackendStatus, Status, example};

    fn later(change: impl FnOnce(&mut Status)) -> Rates {
        let earlier = example::status();
        let mut now = earlier.clone();
        change(&mut now);
        Rates::between(&earlier, &now, Duration::from_secs(2))
    }

    #[test]
    fn state_tells_of_slow_starts_and_of_limits() {
        let state = |change: fn(&mut BackendStatus)| {
            let rates = later(|now| change(&mut now.services[0].backends[0]));
            rates.services[0].backends[0].state.clone()
        };
        assert_eq!(state(|_| {}), "up");
        assert_eq!(state(|backend| backend.effective_weight = 0.3), "up 30%");
        assert_eq!(state(|backend| backend.held = true), "held");
        assert_eq!(state(|backend| backend.max_connections = 4), "full");
        assert_eq!(state(|backend| backend.max_connections = 5), "up");
        assert_eq!(state(|backend| backend.effective_weight = 0.0), "up");
    }

    #[test]
    fn rates_are_differences_over_time() {
        let rates = later(|now| {
            let service = &mut now.services[0];
            service.traffic.packets += 200;
            service.traffic.bytes += 1000;
            service.dropped += 4;
            service.backends[0].traffic.resets += 1;
            now.verdicts.insert("drop_denied".to_owned(), 4);
            now.verdicts.insert("tx_dsr".to_owned(), 1000);
        });
        let service = &rates.services[0];
        assert_eq!(service.row.packets_per_second, 100.0);
        assert_eq!(service.row.bits_per_second, 4000.0);
        assert_eq!(service.row.drops_per_second, 2.0);
        assert_eq!(service.backends[0].resets_per_second, 0.5);
        assert_eq!(rates.drops, [("drop_denied".to_owned(), 2.0)].into());
    }

    #[test]
    fn mqtt_packets_have_rates_by_type() {
        let rates = later(|now| {
            let mqtt = now.services[0].mqtt.as_mut().unwrap();
            mqtt.packets.insert("publish".to_owned(), 50);
        });
        assert_eq!(
            rates.services[0].mqtt,
            [("publish".to_owned(), 25.0)].into()
        );
    }

    #[test]
    fn a_daemon_that_was_started_anew_counts_as_still() {
        let rates = later(|now| {
            now.services[0].traffic.packets = 1;
            now.services[0].backends[0].traffic.bytes = 0;
        });
        assert_eq!(rates.services[0].row.packets_per_second, 0.0);
        assert_eq!(rates.services[0].backends[0].bits_per_second, 0.0);
    }

    #[test]
    fn what_is_new_starts_when_it_is_first_seen() {
        let rates = later(|now| now.services[0].name = "renamed".to_owned());
        assert_eq!(rates.services[0].row.packets_per_second, 0.0);
        assert_eq!(rates.services[0].backends[0].packets_per_second, 0.0);
    }
}
