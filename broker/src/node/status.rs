//! What the node tells about itself.

use std::{
    net::SocketAddr,
    sync::{
        Arc, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Instant,
};

use tokio::sync::watch;

use crate::{
    control::{
        Pulse,
        shards::Shards,
        view::{NodeStatus, RouterStatus},
    },
    evacuation::Evacuation,
    events::Events,
    metrics::{Histogram, Metric, Metrics, render_head, render_value},
    service::Services,
    shard::Shared,
    tunnel::Unpacker,
};

/// What the node tells about itself.
pub struct Status {
    pub(super) started: Instant,
    pub(super) listeners: Vec<SocketAddr>,
    pub(super) metrics: Metrics,
    pub(super) shared: Arc<Shared>,
    pub(super) services: Services,
    pub(super) shards: Shards,
    pub(super) pulse: watch::Receiver<Arc<Pulse>>,
    /// Of the shards, to the pulse.
    pub(super) answer_times: Arc<Histogram>,
    pub(super) ready: AtomicBool,
    pub(super) unpacker: Option<Unpacker>,
}

impl Status {
    pub fn is_ready(&self) -> bool {
        let is_settled = self.cluster().is_none_or(|cluster| cluster.is_settled());
        is_settled && !self.is_evacuating() && self.ready.load(Ordering::Acquire)
    }

    /// Whether clients are sent away, or all have been.
    pub(crate) fn is_evacuating(&self) -> bool {
        self.shared.evacuation.is_on()
    }

    pub(crate) fn events(&self) -> &Events {
        &self.shared.events
    }

    pub(crate) fn evacuation(&self) -> &Evacuation {
        &self.shared.evacuation
    }

    pub fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    pub(crate) fn shards(&self) -> &Shards {
        &self.shards
    }

    /// The shards that have not answered for too long.
    pub(crate) fn stuck(&self) -> Vec<u16> {
        self.pulse.borrow().stuck(Instant::now())
    }

    /// Whether everything that clients wait for answers.
    pub(crate) fn answers(&self) -> bool {
        self.stuck().is_empty() && self.router().answers
    }

    /// All of it in short, for operators.
    pub(crate) fn view(&self) -> NodeStatus {
        let pulse = Arc::clone(&self.pulse.borrow());
        NodeStatus {
            node: self.shared.node.to_string(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pid: std::process::id(),
            uptime_seconds: self.started.elapsed().as_secs(),
            ready: self.is_ready(),
            evacuation: self.shared.evacuation.view(Instant::now()),
            listeners: self.listeners.iter().map(SocketAddr::to_string).collect(),
            connections: self.metrics.get(Metric::Connections),
            sessions: self.metrics.get(Metric::Sessions),
            subscriptions: self.metrics.get(Metric::Subscriptions),
            retained: self.retained(),
            store: self.shared.store.as_ref().map(|store| store.view()),
            router: self.router(),
            authenticators: self.shared.access.policy().status(),
            rates: pulse.rates,
            shards: pulse.shards.clone(),
        }
    }

    pub(crate) fn router(&self) -> RouterStatus {
        let (health, now) = (self.shared.lanes.health(), Instant::now());
        RouterStatus {
            up_seconds: now.saturating_duration_since(health.built).as_secs(),
            answers: !health.is_silent(now),
            restarts: health.restarts(),
            hung: health.hung,
        }
    }

    pub(super) fn retained(&self) -> u64 {
        let retained = &self.shared.retained;
        let retained = retained.read().unwrap_or_else(PoisonError::into_inner);
        retained.len() as u64
    }

    /// What clients make the node hold, where that is bounded in bytes.
    fn render_bytes(&self, out: &mut String) {
        let Shared {
            retained,
            stock,
            cluster,
            ..
        } = &*self.shared;
        let retained = retained.read().unwrap_or_else(PoisonError::into_inner);
        let help = "Bytes of retained messages and of the tree of their topics.";
        render_head(out, "retained_bytes", "gauge", help);
        render_value(out, "retained_bytes", "", retained.bytes() as u64);
        if cluster.is_some() {
            let (remembered, forgotten) = retained.deletions();
            let help = "Deletions of retained messages that are remembered.";
            render_head(out, "retained_deletions", "gauge", help);
            render_value(out, "retained_deletions", "", remembered as u64);
            let (name, help) = (
                "retained_deletions_forgotten_total",
                "Deletions forgotten for later ones: what they deleted may come back.",
            );
            render_head(out, name, "counter", help);
            render_value(out, name, "", forgotten);
        }
        let help = "Bytes of messages that wait for clients.";
        render_head(out, "queue_bytes", "gauge", help);
        render_value(out, "queue_bytes", "", stock.bytes() as u64);
        let (name, help) = (
            "queue_refused_total",
            "Messages not queued because limits.node_queue_bytes are.",
        );
        render_head(out, name, "counter", help);
        render_value(out, name, "", stock.refused());
    }

    /// Appends everything in Prometheus's text format.
    pub fn render(&self, out: &mut String) {
        self.metrics.render(out);
        render_head(out, "retained", "gauge", "Retained messages.");
        render_value(out, "retained", "", self.retained());
        self.render_bytes(out);
        render_head(out, "ready", "gauge", "1 while new clients are welcome.");
        render_value(out, "ready", "", u64::from(self.is_ready()));
        self.shared.evacuation.render(out);
        self.render_cluster(out);
        let help = "From a client's arrival to the answer to its CONNECT.";
        self.shared
            .connect_times
            .render(out, "connect_seconds", help);
        let help = "How long shards take to answer, asked once a second.";
        self.answer_times.render(out, "shard_answer_seconds", help);
        self.shared.lanes.health().render(out, Instant::now());
        self.pulse.borrow().render(out);
        self.services.render(out);
        self.shared.access.render(out);
        self.shared.load.render(out);
        if let Some(store) = &self.shared.store {
            store.render(out);
        }
        if let Some(unpacker) = &self.unpacker {
            unpacker.render(out);
        }
    }
}
