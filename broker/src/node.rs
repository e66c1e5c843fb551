//! One broker node: shards, lanes, listeners and the metrics port, started and stopped in order.

mod books;
mod cluster;
mod error;
mod threads;

use std::{
    net::SocketAddr,
    sync::{
        Arc, PoisonError, RwLock,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use tokio::{
    net::TcpListener,
    sync::{mpsc, watch},
    task::JoinSet,
};
use tracing::{info, warn};

pub use self::error::{NodeError, Unusable};
use self::{
    books::Books,
    error::unusable,
    threads::{join, shard_count},
};
use crate::{
    access::Access,
    cluster::{Handle, Order, PEERS, Prospect},
    config::Config,
    control::{
        Pulse,
        shards::Shards,
        view::{NodeStatus, RouterStatus},
        watch_pulse,
    },
    gate::Gate,
    http,
    lanes::{self, Lanes},
    listener,
    load::{self, Load},
    metrics::{Counters, Histogram, Metric, Metrics, render_head, render_value},
    retained::{self, Retained},
    routes::{Routes, ShardId},
    service::{Service, Services},
    session::Stock,
    shard::{self, Request, Shared},
    shares::Shares,
    tunnel::Unpacker,
};

/// How long subscribers get to read what waits for them before the node says goodbye.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(3);

/// How often it is looked whether they have. Each look passes over all sessions.
const DRAIN_LOOK: Duration = Duration::from_millis(10);

/// How long the shards' threads get to end: somewhat longer than their clients get to leave.
const JOIN_TIMEOUT: Duration = Duration::from_secs(5);

/// What the node tells about itself.
pub struct Status {
    started: Instant,
    listeners: Vec<SocketAddr>,
    metrics: Metrics,
    shared: Arc<Shared>,
    services: Services,
    shards: Shards,
    pulse: watch::Receiver<Arc<Pulse>>,
    /// Of the shards, to the pulse.
    answer_times: Arc<Histogram>,
    ready: AtomicBool,
    unpacker: Option<Unpacker>,
}

impl Status {
    pub fn is_ready(&self) -> bool {
        let is_settled = self.cluster().is_none_or(|cluster| cluster.is_settled());
        is_settled && self.ready.load(Ordering::Acquire)
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

    /// All of it in short, for operators.
    pub(crate) fn view(&self) -> NodeStatus {
        let pulse = Arc::clone(&self.pulse.borrow());
        NodeStatus {
            node: self.shared.node.to_string(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pid: std::process::id(),
            uptime_seconds: self.started.elapsed().as_secs(),
            ready: self.is_ready(),
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

    fn retained(&self) -> u64 {
        let retained = &self.shared.retained;
        let retained = retained.read().unwrap_or_else(PoisonError::into_inner);
        retained.len() as u64
    }

    /// What clients make the node hold, where that is bounded in bytes.
    fn render_bytes(&self, out: &mut String) {
        let Shared {
            retained, stock, ..
        } = &*self.shared;
        let retained = retained.read().unwrap_or_else(PoisonError::into_inner);
        let help = "Bytes of retained messages and of the tree of their topics.";
        render_head(out, "retained_bytes", "gauge", help);
        render_value(out, "retained_bytes", "", retained.bytes() as u64);
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

/// A running node.
pub struct Node {
    status: Arc<Status>,
    addresses: Vec<SocketAddr>,
    metrics_address: Option<SocketAddr>,
    stop: watch::Sender<bool>,
    threads: Vec<thread::JoinHandle<()>>,
    cluster: Option<Handle>,
    /// Keeps the way to the shards open while they are drained.
    gate: Arc<Gate>,
    listeners: JoinSet<()>,
    /// What looks at the node, for as long as there is something to see.
    servers: JoinSet<()>,
    /// Closed when a shard's thread has ended.
    ended: mpsc::Receiver<()>,
}

impl Node {
    /// Opens every socket, starts every thread, and accepts clients from then on.
    ///
    /// # Errors
    /// When a file cannot be used, an address is taken or a thread cannot be had; nothing is left
    /// running.
    pub async fn start(config: &Config) -> Result<Self, NodeError> {
        Self::start_with(config, shard_count()).await
    }

    async fn start_with(config: &Config, shards: u16) -> Result<Self, NodeError> {
        let services = config.listeners().iter().map(Service::new);
        let services = Services::new(services.collect::<Result<_, _>>()?);
        let access = Access::start(config.access())?;
        let unpacker = match (config.tunnel(), config.vip()) {
            (Some(tunnel), Some(vip)) => Some(Unpacker::start(tunnel, vip).await?),
            _ => None,
        };
        let mss = unpacker.as_ref().map(Unpacker::mss);
        let sockets: Vec<TcpListener> = config
            .listeners()
            .iter()
            .map(|listener| listener::bind(listener.address, mss))
            .collect::<Result<_, _>>()?;
        let addresses: Vec<SocketAddr> = sockets
            .iter()
            .filter_map(|socket| socket.local_addr().ok())
            .collect();
        let metrics_socket = http::bind(config.metrics()).await?;
        let metrics_address = metrics_socket
            .as_ref()
            .and_then(|socket| socket.local_addr().ok());

        let prospect = cluster::open(config, shards)?;
        // One for each shard, one for the listeners, one for the cluster.
        let counters: Vec<_> = (0..=shards + 1)
            .map(|_owner| Arc::new(Counters::default()))
            .collect();
        let metrics = Metrics::new(counters.clone());
        let shares = Arc::new(Shares::default());
        let mut retained = Retained::new(config.limits().into());
        let (alive, ended) = mpsc::channel(1);
        let mut books = Books::open(config, shards, &shares, &mut retained, &alive)?;
        let cluster = prospect.as_ref().map(Prospect::cluster).cloned();
        let ends = shards + cluster.as_ref().map_or(0, |_cluster| PEERS);
        let shared = Arc::new(Shared {
            limits: RwLock::new(config.limits()),
            session_limits: config.session(),
            access,
            shards,
            routes: Routes::default(),
            kept_routes: Routes::default(),
            shares,
            retained: RwLock::new(retained),
            stock: Stock::new(config.limits().node_queue_bytes),
            sessions: AtomicUsize::new(0),
            node: config.node().into(),
            metrics: metrics.clone(),
            sys_interval: config.sys_interval(),
            sys: RwLock::new(Retained::new(retained::Bounds::NONE)),
            lanes: Arc::new(Lanes::start(ends)?),
            cluster,
            connect_times: Histogram::default(),
            load: Arc::new(Load::new(config.overload(), shards, Instant::now())),
            store: books.as_ref().map(|books| Arc::clone(&books.store)),
        });
        let (begin, begun) = watch::channel(false);
        let mut restored = Vec::new();
        let (stop, stopped) = watch::channel(false);
        let mut threads = Vec::new();
        let mut arrivals = Vec::new();
        let mut requests = Vec::new();
        for (id, counters) in (0..shards).map(ShardId).zip(&counters) {
            let handle = shard::spawn(
                id,
                Arc::clone(&shared),
                Arc::clone(counters),
                books.as_mut().map(|books| books.inheritance(&shared, id)),
                begun.clone(),
                stopped.clone(),
                alive.clone(),
            )?;
            threads.push(handle.thread);
            restored.push(handle.restored);
            arrivals.push(handle.arrivals);
            requests.push(handle.requests);
        }

        let ledger = books.as_ref().map(|books| books.ledger(&stopped));
        // It ends when the last shard has.
        threads.extend(books.map(Books::into_thread));
        for restored in restored {
            restored.await.map_err(|_ended| NodeError::Restore)?;
        }
        let _ = begin.send(true);
        let cluster = cluster::start(prospect, &shared, ledger, counters.last(), alive)?;

        let gate = Arc::new(Gate::new(
            Arc::clone(&shared),
            arrivals,
            Arc::clone(&counters[usize::from(shards)]),
        ));
        let load = Arc::clone(&shared.load);
        let accepting = services.subscribe();
        let shards = Shards::new(Arc::clone(&shared), requests);
        let (beats, pulse) = watch::channel(Arc::new(Pulse::none(Instant::now())));
        let answer_times = Arc::new(Histogram::default());
        let status = Arc::new(Status {
            started: Instant::now(),
            listeners: addresses.clone(),
            metrics: metrics.clone(),
            shared,
            shards: shards.clone(),
            pulse,
            services,
            answer_times: Arc::clone(&answer_times),
            ready: AtomicBool::new(true),
            unpacker,
        });
        let mut listeners = JoinSet::new();
        for (socket, service) in sockets.into_iter().zip(accepting) {
            listeners.spawn(listener::serve(socket, service, Arc::clone(&gate)));
        }
        let mut servers = JoinSet::new();
        servers.spawn(load::pulse(Arc::clone(&load), None));
        servers.spawn(load::watch_memory(load));
        let lanes = Arc::clone(&status.shared.lanes);
        servers.spawn(lanes::supervise(lanes, lanes::BEAT));
        servers.spawn(watch_pulse(shards, metrics, answer_times, beats));
        if let Some(socket) = metrics_socket {
            let routes = http::router(Arc::clone(&status));
            servers.spawn(async move {
                if let Err(error) = axum::serve(socket, routes).await {
                    warn!(%error, "metrics port failed");
                }
            });
        }
        Ok(Self {
            status,
            addresses,
            metrics_address,
            stop,
            threads,
            cluster,
            gate,
            listeners,
            servers,
            ended,
        })
    }

    /// The addresses that clients connect to, with the ports that the kernel chose.
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    pub fn metrics_address(&self) -> Option<SocketAddr> {
        self.metrics_address
    }

    pub fn status(&self) -> &Arc<Status> {
        &self.status
    }

    /// Gives each part its section of a new configuration.
    ///
    /// # Errors
    /// All that cannot be used. Everything stays as it was then: who may connect may rest on what
    /// listeners ask of clients.
    pub fn reload(&self, config: &Config) -> Result<(), Vec<Unusable>> {
        let Status {
            shared, services, ..
        } = &*self.status;
        let listeners = services.prepare(config.listeners());
        let policy = shared.access.prepare(config.access());
        let (next, policy) = match (listeners, policy) {
            (Ok(next), Ok(policy)) => (next, policy),
            (listeners, policy) => {
                return Err(unusable(listeners.err().unwrap_or_default(), policy.err()));
            }
        };
        shared.set_limits(config.limits());
        shared.load.set_bounds(config.overload());
        // Listeners first, as clients are accepted under a policy and then by a listener: none comes
        // by what an older listener asked under a policy that rests on the newer one.
        services.exchange(next);
        shared.access.exchange(policy);
        Ok(())
    }

    /// Resolves when a part of the node ended that should not have.
    pub async fn failed(&mut self) {
        tokio::select! {
            _ = self.ended.recv() => {}
            _ = self.listeners.join_next() => {}
            _ = self.servers.join_next() => {}
        }
    }

    /// Says that the node is about to stop to those who ask whether it is ready, and serves on.
    pub fn announce_stop(&self) {
        self.status.ready.store(false, Ordering::Release);
    }

    /// Accepts no more clients, delivers what was taken from them, says goodbye to those that are
    /// there, and ends every thread.
    pub async fn stop(mut self) {
        self.announce_stop();
        self.listeners.shutdown().await;
        self.drain().await;
        // The shards hold receivers for as long as they run; without one there is nobody to tell.
        let _ = self.stop.send(true);
        drop(self.gate);
        let threads = std::mem::take(&mut self.threads);
        match join(threads, JOIN_TIMEOUT).await {
            Some(0) => {}
            Some(_panicked) => warn!("a shard's thread panicked"),
            None => warn!("a shard's thread does not end: its clients are cut off"),
        }
        cluster::stop(self.cluster.take()).await;
        self.servers.shutdown().await;
    }

    /// Waits until every message that was acknowledged is in its subscribers' sockets, if they read.
    async fn drain(&self) {
        let shards = self.status.shards();
        let drained = async {
            // A shard that has ended holds nothing that the others would have to wait for.
            shards.ask_all(Request::Drain).await;
            let mut before = None;
            loop {
                // Each shard answers for its own moment: a frame may have come since. Two rounds
                // between which none has moved are about one and the same moment.
                let answers = shards.ask_all(Request::FramesIfDrained).await;
                let moved: Option<u64> = answers
                    .into_iter()
                    .filter_map(|(moved, _took)| moved.ok())
                    .sum();
                if moved.is_some() && moved == before {
                    break;
                }
                before = moved;
                tokio::time::sleep(DRAIN_LOOK).await;
            }
            if let Some(cluster) = self.status.cluster() {
                cluster.order(Order::Drain).await;
            }
        };
        if tokio::time::timeout(DRAIN_TIMEOUT, drained).await.is_err() {
            info!("some clients have not read all that is theirs");
        }
    }
}

#[cfg(test)]
mod tests;
