//! `$SYS`: what the node tells about itself in MQTT's own way.
//!
//! The names and forms are mosquitto's, which dashboards know; see `docs/mqtt.md` for all of them.
//! Pure: the shard that publishes the messages passes in the time and what was counted.

mod cluster;

use std::time::{Duration, Instant};

use crate::{
    cluster::view::{ClusterStatus, Tally},
    message::{Message, MessageId, Qos},
    metrics::{Metric, Metrics},
};

/// What a broker tells about itself starts with this level; clients publish nothing there.
pub(crate) const ROOT: &str = "$SYS";

/// Whether only the broker may publish to the topic.
pub(crate) fn is_reserved(topic: &str) -> bool {
    crate::topic::split_level(topic).0 == ROOT
}

const DROPPED: &[Metric] = &[
    Metric::DroppedQueue,
    Metric::DroppedExpired,
    Metric::DroppedShared,
    Metric::DroppedPeer,
];

/// Sums of counters, as they are.
const COUNTS: [(&str, &[Metric]); 16] = {
    use Metric::*;
    [
        ("bytes/received", &[BytesIn]),
        ("bytes/sent", &[BytesOut]),
        ("clients/connected", &[SessionsConnected]),
        ("clients/expired", &[SessionsExpired]),
        ("clients/total", &[Sessions]),
        ("connections/refused", &Metric::REFUSED),
        ("messages/received", &[Connected, PacketsIn]),
        ("messages/sent", &[PacketsOut]),
        ("publish/messages/dropped", DROPPED),
        ("publish/messages/received", &[MessagesIn]),
        ("publish/messages/refused", &[RefusedPublish, DeniedPublish]),
        ("publish/messages/sent", &[MessagesOut]),
        ("retained messages/refused", &[RefusedRetained]),
        ("shared_subscriptions/count", &[SharedSubscriptions]),
        ("subscriptions/count", &[Subscriptions]),
        (
            "subscriptions/refused",
            &[RefusedSubscriptions, DeniedSubscribe],
        ),
    ]
};

/// What is also told as a rate a minute.
const LOADS: [(&str, &[Metric]); 9] = {
    use Metric::*;
    [
        ("bytes/received", &[BytesIn]),
        ("bytes/sent", &[BytesOut]),
        ("connections", &[Connected]),
        ("messages/received", &[Connected, PacketsIn]),
        ("messages/sent", &[PacketsOut]),
        ("publish/dropped", DROPPED),
        ("publish/received", &[MessagesIn]),
        ("publish/sent", &[MessagesOut]),
        ("sockets", &[Accepted]),
    ]
};

/// The times over which rates are averaged.
const SPANS: [(&str, f64); 3] = [("1min", 60.0), ("5min", 300.0), ("15min", 900.0)];

/// Everything that is told.
pub(crate) struct Reading<'a> {
    pub(crate) node: &'a str,
    pub(crate) metrics: &'a Metrics,
    /// What other nodes are told.
    pub(crate) tally: Tally,
    /// The cluster that the node is one of.
    pub(crate) cluster: Option<&'a ClusterStatus>,
}

/// When the next messages are due, and what the last ones said.
#[derive(Debug)]
pub(crate) struct Sys {
    interval: Duration,
    started: Instant,
    due: Instant,
    last: Instant,
    loads: [Load; LOADS.len()],
    most_connected: u64,
    cluster: cluster::Told,
}

/// An average that forgets, over each of the [`SPANS`].
#[derive(Clone, Copy, Debug, Default)]
struct Load {
    count: u64,
    rates: [f64; SPANS.len()],
}

impl Sys {
    pub(crate) fn new(interval: Duration, now: Instant) -> Self {
        Self {
            interval,
            started: now,
            due: now,
            last: now,
            loads: [Load::default(); LOADS.len()],
            most_connected: 0,
            cluster: cluster::Told::default(),
        }
    }

    pub(crate) fn is_due(&self, now: Instant) -> bool {
        self.due <= now
    }

    /// The messages of one interval.
    pub(crate) fn handle_timeout(&mut self, reading: &Reading<'_>, now: Instant) -> Vec<Message> {
        let elapsed = now.duration_since(self.last);
        self.last = now;
        self.due = now + self.interval;
        let sum = |metrics: &[Metric]| -> u64 {
            let one = |metric: &Metric| reading.metrics.get(*metric);
            metrics.iter().map(one).fold(0, u64::wrapping_add)
        };
        let mut messages = vec![
            message("node", reading.node.to_owned()),
            message(
                "version",
                concat!("tidegate-broker version ", env!("CARGO_PKG_VERSION")).to_owned(),
            ),
            message(
                "uptime",
                format!("{} seconds", now.duration_since(self.started).as_secs()),
            ),
            message(
                "retained messages/count",
                reading.tally.retained.to_string(),
            ),
        ];
        let counts = COUNTS.map(|(name, metrics)| message(name, sum(metrics).to_string()));
        messages.extend(counts);

        let connected = reading.metrics.get(Metric::SessionsConnected);
        let absent = reading
            .metrics
            .get(Metric::Sessions)
            .saturating_sub(connected);
        self.most_connected = self.most_connected.max(connected);
        messages.extend([
            message("clients/disconnected", absent.to_string()),
            message("clients/maximum", self.most_connected.to_string()),
        ]);
        for (load, (name, metrics)) in self.loads.iter_mut().zip(LOADS) {
            load.observe(sum(metrics), elapsed);
            messages.extend(load.messages(name));
        }
        if let Some(status) = reading.cluster {
            messages.extend(self.cluster.messages(status, reading.tally));
        }
        messages
    }
}

impl Load {
    fn observe(&mut self, count: u64, elapsed: Duration) {
        let elapsed = elapsed.as_secs_f64();
        let grown = count.wrapping_sub(self.count);
        self.count = count;
        // At the start there is nothing that could be averaged.
        if elapsed <= 0.0 {
            return;
        }
        #[expect(clippy::cast_precision_loss, reason = "a rate with two decimals")]
        let rate = grown as f64 * 60.0 / elapsed;
        for (average, (_name, span)) in self.rates.iter_mut().zip(SPANS) {
            *average = rate + (-elapsed / span).exp() * (*average - rate);
        }
    }

    fn messages<'a>(&'a self, name: &'a str) -> impl Iterator<Item = Message> + 'a {
        self.rates.iter().zip(SPANS).map(move |(rate, (span, _))| {
            message(&format!("load/{name}/{span}"), format!("{rate:.2}"))
        })
    }
}

fn message(name: &str, payload: String) -> Message {
    Message {
        topic: format!("{ROOT}/broker/{name}").into(),
        payload: payload.into_bytes().into(),
        properties: Box::default(),
        qos: Qos::AtMostOnce,
        retain: true,
        expires: None,
        id: MessageId::NONE,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::metrics::Counters;

    const TALLY: Tally = Tally {
        welcomes: true,
        clients: 0,
        sessions: 0,
        subscriptions: 0,
        retained: 7,
        messages_in: 0,
        messages_out: 0,
    };

    struct Scene {
        sys: Sys,
        counters: Arc<Counters>,
        metrics: Metrics,
        now: Instant,
    }

    impl Scene {
        fn new() -> Self {
            let now = Instant::now();
            let counters = Arc::new(Counters::default());
            Self {
                sys: Sys::new(Duration::from_secs(10), now),
                metrics: Metrics::new(vec![Arc::clone(&counters)]),
                counters,
                now,
            }
        }

        fn told_after(&mut self, seconds: u64, name: &str) -> String {
            self.now += Duration::from_secs(seconds);
            let reading = Reading {
                node: "n1",
                metrics: &self.metrics,
                tally: TALLY,
                cluster: None,
            };
            let messages = self.sys.handle_timeout(&reading, self.now);
            let topic = format!("$SYS/broker/{name}");
            let told: Vec<_> = messages.iter().filter(|m| *m.topic == *topic).collect();
            assert_eq!(told.len(), 1, "{name}");
            String::from_utf8(told[0].payload.to_vec()).unwrap()
        }
    }

    #[test]
    fn topics_are_legal_and_none_is_there_twice() {
        let mut scene = Scene::new();
        let reading = Reading {
            node: "n1",
            metrics: &scene.metrics,
            tally: TALLY,
            cluster: None,
        };
        let messages = scene.sys.handle_timeout(&reading, scene.now);
        let mut topics: Vec<_> = messages.iter().map(|message| &*message.topic).collect();
        assert!(
            topics
                .iter()
                .all(|topic| crate::topic::is_valid_name(topic))
        );
        topics.sort_unstable();
        topics.dedup();
        assert_eq!(topics.len(), messages.len());
    }

    #[test]
    fn counts_are_told_as_they_are() {
        let mut scene = Scene::new();
        scene.counters.add(Metric::PacketsIn, 5);
        scene.counters.inc(Metric::Connected);
        scene.counters.add(Metric::Sessions, 3);
        scene.counters.add(Metric::SessionsConnected, 2);
        assert_eq!(scene.told_after(0, "messages/received"), "6");
        assert_eq!(scene.told_after(0, "clients/disconnected"), "1");
        scene.counters.sub(Metric::SessionsConnected, 1);
        assert_eq!(scene.told_after(0, "clients/maximum"), "2");
        assert_eq!(scene.told_after(0, "retained messages/count"), "7");
        assert_eq!(scene.told_after(61, "uptime"), "61 seconds");
        assert_eq!(scene.told_after(0, "node"), "n1");
    }

    #[test]
    fn loads_follow_a_steady_rate_and_forget_it() {
        let mut scene = Scene::new();
        for _ in 0..60 {
            scene.counters.add(Metric::MessagesIn, 20);
            scene.told_after(10, "uptime");
        }
        let load = |scene: &mut Scene, name: &str| -> f64 {
            scene.counters.add(Metric::MessagesIn, 20);
            scene.told_after(10, name).parse().unwrap()
        };
        let fast = load(&mut scene, "load/publish/received/1min");
        assert!((fast - 120.0).abs() < 0.1, "{fast}");
        let slow = load(&mut scene, "load/publish/received/15min");
        assert!((50.0..70.0).contains(&slow), "{slow}");
        scene.told_after(600, "uptime");
        assert_eq!(scene.told_after(1, "load/publish/received/1min"), "0.01");
    }

    #[test]
    fn messages_are_due_once_an_interval() {
        let mut scene = Scene::new();
        assert!(scene.sys.is_due(scene.now));
        scene.told_after(0, "uptime");
        assert!(!scene.sys.is_due(scene.now + Duration::from_secs(9)));
        assert!(scene.sys.is_due(scene.now + Duration::from_secs(10)));
    }

    #[test]
    fn only_the_level_itself_is_reserved() {
        assert!(is_reserved("$SYS") && is_reserved("$SYS/broker/uptime"));
        assert!(!is_reserved("$SYSTEM/x") && !is_reserved("a/$SYS"));
    }
}
