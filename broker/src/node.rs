//! One broker node: shards, lanes, listeners and the metrics port, started and stopped in order.

mod books;
mod cluster;
mod error;
mod status;
mod threads;

use std::{
    net::SocketAddr,
    num::NonZeroU32,
    sync::{
        Arc, RwLock,
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

use self::{
    books::Books,
    error::unusable,
    threads::{join, shard_count},
};
pub use self::{
    error::{NodeError, Unusable},
    status::Status,
};
use crate::{
    access::Access,
    cluster::{Handle, Order, PEERS, Prospect},
    config::{Config, Sharing},
    control::{Pulse, answer_others, shards::Shards, watch_pulse},
    evacuation::{self, Evacuation},
    events::{Event, Events},
    gate::Gate,
    http,
    lanes::{self, Lanes},
    listener,
    load::{self, Load},
    metrics::{Counters, Histogram, Metrics},
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

/// A running node.
pub struct Node {
    status: Arc<Status>,
    addresses: Vec<SocketAddr>,
    metrics_address: Option<SocketAddr>,
    health_address: Option<SocketAddr>,
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
        let metrics_address = http::address(metrics_socket.as_ref());
        let health_socket = http::bind(config.health()).await?;
        let health_address = http::address(health_socket.as_ref());

        let prospect = cluster::open(config, shards)?;
        // One for each shard, one for the listeners, one for the cluster.
        let counters: Vec<_> = (0..=shards + 1)
            .map(|_owner| Arc::new(Counters::default()))
            .collect();
        let metrics = Metrics::new(counters.clone());
        let sharing = config.cluster().map(|cluster| cluster.shared_subscriptions);
        let shares = Arc::new(Shares::new(sharing == Some(Sharing::Local)));
        let mut retained = Retained::new(config.limits().into());
        let (alive, ended) = mpsc::channel(1);
        let mut books = Books::open(config, shards, &shares, &mut retained, &alive)?;
        let cluster = prospect.as_ref().map(Prospect::cluster).cloned();
        if let Some(cluster) = &cluster {
            // Wills that are due are published before the cluster's thread begins.
            cluster.see_time(retained.latest());
        }
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
            evacuation: Evacuation::default(),
            events: Events::default(),
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
        let (cluster, asked) = cluster.unzip();

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
        servers.spawn(evacuation::drive(shards.clone()));
        servers.spawn(watch_pulse(shards, metrics, answer_times, beats));
        if let Some(asked) = asked {
            servers.spawn(answer_others(Arc::clone(&status), asked));
        }
        if let Some(socket) = metrics_socket {
            let routes = http::router(Arc::clone(&status));
            servers.spawn(http::serve(socket, routes));
        }
        if let Some(socket) = health_socket {
            let routes = http::health_router(Arc::clone(&status));
            servers.spawn(http::serve(socket, routes));
        }
        let version = env!("CARGO_PKG_VERSION");
        status.events().tell(&Event::Started { version });
        Ok(Self {
            status,
            addresses,
            metrics_address,
            health_address,
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

    pub fn health_address(&self) -> Option<SocketAddr> {
        self.health_address
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

    /// Sends all clients away, so many a second, before a stop.
    pub async fn empty(&self, rate: NonZeroU32) {
        let status = &self.status;
        status.evacuation().empty(rate, status.metrics()).await;
    }

    /// Accepts no more clients, delivers what was taken from them, says goodbye to those that are
    /// there, and ends every thread.
    pub async fn stop(mut self) {
        self.announce_stop();
        self.status.events().tell(&Event::Stopping {});
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
