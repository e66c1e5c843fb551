//! The thread of the cluster: it owns the [`Core`], and does what that decides.
//!
//! ```text
//! thread cluster, one current-thread runtime, one local set
//!   accept       calls of other nodes          call    one for each call of ours
//!   read, write  two for each connection       tick    timers
//!   lane, heard  two for each slot: frames of shards for its peer; shards' confirmations
//!   lane out     messages of peers to the shards
//!   table        filters of this node that have changed
//!   groups       what their members can take
//!   orders       what operators want
//!   pages        retained messages for peers
//! ```
//! Each task tells the core what has happened and then does what there is to do ([`Driver::settle`]).

mod asking;
mod graves;
mod passage;
mod report;
mod retained;
mod tasks;

use std::{
    cell::RefCell,
    collections::BTreeMap,
    io,
    net::{IpAddr, SocketAddr, TcpListener as StdListener},
    path::PathBuf,
    rc::Rc,
    sync::{Arc, PoisonError},
    thread,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use bytes::Bytes;
use thiserror::Error;
use tokio::{
    net::TcpListener,
    sync::{Notify, Semaphore, mpsc, oneshot},
    task::{LocalSet, spawn_local},
};
use tokio_util::task::TaskTracker;
use tracing::error;

use super::{
    Cluster, Ledger, Order, PEERS,
    core::{Action, Core, LinkId, Me},
    links::{self, LinkEnd},
    questions::{self, Asked, Open},
    slot::{Kind, Slot},
    wire::Parting,
};
use crate::{
    config,
    herald::Herald,
    lanes::{LaneEnds, LaneError, Outbox},
    metrics::{Counters, Metric},
    routes::ShardId,
    shard::{Alive, Shared},
};
use retained::Chores;

/// How long the last words to other nodes may take.
const FAREWELL: Duration = Duration::from_millis(500);

/// Why a node cannot be one of a cluster.
#[derive(Debug, Error)]
pub enum ClusterError {
    #[error("cluster.listen: cannot listen on {address}")]
    Listen {
        address: SocketAddr,
        #[source]
        source: io::Error,
    },
    #[error("cluster.key_file")]
    Key(#[from] channel::KeyError),
    #[error("cannot start the cluster's thread")]
    Thread(#[source] io::Error),
    #[error("the cluster's thread cannot join the router")]
    Lane(#[from] LaneError),
}

/// The thread before it runs: other nodes can call already, and wait.
pub(crate) struct Prospect {
    config: config::Cluster,
    listener: StdListener,
    orders: mpsc::Receiver<Order>,
    cluster: Arc<Cluster>,
}

impl Prospect {
    /// Opens the port that other nodes call, for a node of so many shards.
    ///
    /// # Errors
    /// When the address is taken, or there is no key.
    pub(crate) fn open(
        node: &str,
        config: &config::Cluster,
        shards: u16,
    ) -> Result<Self, ClusterError> {
        // Later it is read again for each connection: it may be replaced.
        channel::Key::load(&config.key_file, super::PURPOSE)?;
        let listen = |address| {
            let listener = StdListener::bind(address)?;
            listener.set_nonblocking(true)?;
            Ok((listener.local_addr()?, listener))
        };
        let (listening, listener) =
            listen(config.listen).map_err(|source| ClusterError::Listen {
                address: config.listen,
                source,
            })?;
        let config = config::Cluster {
            listen: listening,
            ..config.clone()
        };
        let (cluster, orders) = Cluster::new(node, &config, shards);
        Ok(Self {
            config,
            listener,
            orders,
            cluster: Arc::new(cluster),
        })
    }

    pub(crate) fn cluster(&self) -> &Arc<Cluster> {
        &self.cluster
    }
}

/// The node's end of the thread.
pub(crate) struct Handle {
    pub(crate) thread: thread::JoinHandle<()>,
    /// Ends it.
    pub(crate) stop: oneshot::Sender<()>,
}

/// Starts the thread. `alive` hears of its end; what other nodes ask comes out of the receiver.
///
/// # Errors
/// When thread, runtime or lanes cannot be had.
pub(crate) fn spawn(
    prospect: Prospect,
    shared: Arc<Shared>,
    ledger: Option<Ledger>,
    counters: Arc<Counters>,
    alive: mpsc::Sender<()>,
) -> Result<(Handle, mpsc::Receiver<Asked>), ClusterError> {
    let Prospect {
        config,
        listener,
        orders,
        cluster,
    } = prospect;
    let ends = (0..PEERS).map(|slot| shared.lanes.join(cluster.end(slot), None));
    let ends: Vec<_> = ends.collect::<Result<_, _>>()?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(ClusterError::Thread)?;
    let (stop, stopped) = oneshot::channel();
    let (asking, asked) = mpsc::channel(questions::ASKED);
    let thread = thread::Builder::new()
        .name("cluster".to_owned())
        .spawn(move || {
            let _alive = Alive(alive);
            let driver = Driver::new(config, cluster, shared, ledger, counters, asking);
            let driver = Rc::new(RefCell::new(driver));
            let running = run(driver, listener, ends, orders, stopped);
            LocalSet::new().block_on(&runtime, running);
        })
        .map_err(ClusterError::Thread)?;
    Ok((Handle { thread, stop }, asked))
}

/// All that the thread has.
pub(super) struct Driver {
    core: Core,
    config: config::Cluster,
    cluster: Arc<Cluster>,
    shared: Arc<Shared>,
    /// `None` when nothing outlives the process.
    ledger: Option<Ledger>,
    counters: Arc<Counters>,
    slots: Vec<Slot>,
    links: BTreeMap<LinkId, LinkEnd>,
    last_link: u64,
    writers: TaskTracker,
    calls: Vec<Box<str>>,
    work: Rc<Work>,
    /// Which peers have buried whom, by the hashes of names, and when they said so.
    buried: BTreeMap<(ShardId, u64), Instant>,
    chores: Chores,
    /// Who waits until nothing does.
    drains: Vec<oneshot::Sender<()>>,
    /// Why strangers failed last, so that it is logged once, and seldom if they take turns.
    stranger: Option<(IpAddr, String)>,
    herald: Herald,
    /// What was asked of others.
    open: Open,
    /// To who answers others.
    asking: mpsc::Sender<Asked>,
    places: Arc<Semaphore>,
}

/// What tasks wait for.
#[derive(Default)]
struct Work {
    /// There is something for the shards.
    outbox: Notify,
    /// There are addresses to call.
    calls: Notify,
    /// There are retained messages to read.
    pages: Notify,
    /// A peer has taken something, or is gone.
    room: Notify,
}

async fn run(
    driver: Rc<RefCell<Driver>>,
    listener: StdListener,
    ends: Vec<LaneEnds>,
    orders: mpsc::Receiver<Order>,
    stopped: oneshot::Receiver<()>,
) {
    let listener = match TcpListener::from_std(listener) {
        Ok(listener) => listener,
        Err(error) => {
            error!(%error, "cannot accept other nodes' calls");
            return;
        }
    };
    let accept = spawn_local(links::accept(Rc::clone(&driver), listener));
    let mut lanes = tokio::task::JoinSet::new();
    for (slot, ends) in (0..PEERS).zip(ends) {
        lanes.spawn_local(tasks::read_lane(Rc::clone(&driver), slot, ends));
        lanes.spawn_local(tasks::hear_confirmations(Rc::clone(&driver), slot));
    }
    spawn_local(tasks::follow_store(Rc::clone(&driver)));
    spawn_local(tasks::watch_groups(Rc::clone(&driver)));
    let lane_out = spawn_local(tasks::flush_lanes(Rc::clone(&driver)));
    let tick = spawn_local(tasks::keep_time(Rc::clone(&driver)));
    let table = spawn_local(tasks::follow_table(Rc::clone(&driver)));
    let calls = spawn_local(tasks::make_calls(Rc::clone(&driver)));
    let pages = spawn_local(retained::read_pages(Rc::clone(&driver)));
    let orders = spawn_local(tasks::obey(Rc::clone(&driver), orders));
    tokio::select! {
        // An end without a word is the node's end too.
        _ = stopped => {}
        _ = accept => error!("no more calls of other nodes are taken"),
        Some(lane) = lanes.join_next() => {
            if let Ok(Err(error)) = lane {
                error!(error = &error as &dyn std::error::Error, "lane lost");
            }
        }
        _ = lane_out => {}
        _ = tick => {}
        _ = table => {}
        _ = calls => {}
        _ = pages => {}
        _ = orders => {}
    }
    let writers = driver.borrow().writers.clone();
    driver.borrow_mut().leave();
    writers.close();
    // Nodes that do not hear of it find out.
    let _late = tokio::time::timeout(FAREWELL, writers.wait()).await;
}

impl Driver {
    fn new(
        config: config::Cluster,
        cluster: Arc<Cluster>,
        shared: Arc<Shared>,
        ledger: Option<Ledger>,
        counters: Arc<Counters>,
        asking: mpsc::Sender<Asked>,
    ) -> Self {
        // A clock that is set back could repeat a number within the microsecond; a process id differs.
        let since = SystemTime::now().duration_since(UNIX_EPOCH);
        let micros = since.unwrap_or_default().as_micros();
        let incarnation =
            u64::try_from(micros).unwrap_or(0) ^ (u64::from(std::process::id()) << 44);
        let me = Me {
            cluster: config.name.as_str().into(),
            node: shared.node.clone(),
            incarnation,
            port: config.listen.port(),
        };
        let seeds: Vec<_> = config
            .seeds
            .iter()
            .map(|seed| seed.as_str().into())
            .collect();
        let mut core = Core::new(me, config.acknowledge, config.lease, &seeds, Instant::now());
        let retained = shared.retained.read();
        let retained = retained.unwrap_or_else(PoisonError::into_inner);
        if retained.len() == 0 {
            core.want_retained();
        }
        drop(retained);
        let slot = |slot| {
            let lanes = Arc::clone(&shared.lanes);
            Slot::new(Outbox::new(cluster.end(slot), shared.ends(), lanes))
        };
        Self {
            core,
            slots: (0..PEERS).map(slot).collect(),
            config,
            cluster,
            shared: Arc::clone(&shared),
            ledger,
            counters,
            links: BTreeMap::new(),
            last_link: 0,
            writers: TaskTracker::new(),
            calls: Vec::new(),
            work: Rc::default(),
            buried: BTreeMap::new(),
            chores: Chores::default(),
            drains: Vec::new(),
            stranger: None,
            herald: Herald::default(),
            open: Open::default(),
            asking,
            places: Arc::new(Semaphore::new(questions::ASKED)),
        }
    }

    pub(super) fn key_file(&self) -> PathBuf {
        self.config.key_file.clone()
    }

    pub(super) fn lease(&self) -> Duration {
        self.config.lease
    }

    pub(super) fn listening_at(&self) -> IpAddr {
        self.config.listen.ip()
    }

    /// Whether a node is, or has lately been, a member there.
    pub(super) fn is_host_of_member(&self, host: IpAddr) -> bool {
        self.core.is_host_of_member(host)
    }

    pub(super) fn writers(&self) -> &TaskTracker {
        &self.writers
    }

    pub(super) fn add_link(&mut self, end: LinkEnd) -> LinkId {
        self.last_link += 1;
        let id = LinkId(self.last_link);
        self.links.insert(id, end);
        id
    }

    pub(super) fn handle_connected(
        driver: &RefCell<Self>,
        id: LinkId,
        called: Option<Box<str>>,
        host: IpAddr,
    ) {
        Self::tell(driver, |core, now| {
            core.handle_connected(id, called, host, now)
        });
    }

    pub(super) fn handle_call_failed(driver: &RefCell<Self>, address: &str, trouble: &str) {
        Self::tell(driver, |core, now| {
            core.handle_call_failed(address, trouble, now)
        });
    }

    pub(super) fn handle_message(driver: &RefCell<Self>, id: LinkId, message: Bytes) {
        Self::tell(driver, |core, now| core.handle_message(id, message, now));
    }

    /// Notes that some bytes of a message have come.
    pub(super) fn handle_part(driver: &RefCell<Self>, id: LinkId) {
        driver.borrow_mut().core.handle_part(id, Instant::now());
    }

    pub(super) fn handle_closed(driver: &RefCell<Self>, id: LinkId, trouble: &str) {
        driver.borrow_mut().forget_link(id);
        Self::tell(driver, |core, now| {
            core.handle_closed(id, Some(trouble), now)
        });
    }

    fn forget_link(&mut self, id: LinkId) {
        self.links.remove(&id);
        self.open.lose(id);
    }

    fn tell(driver: &RefCell<Self>, event: impl FnOnce(&mut Core, Instant)) {
        let state = &mut *driver.borrow_mut();
        let now = Instant::now();
        state.core.set_time(state.cluster.now());
        event(&mut state.core, now);
        state.settle(now);
    }

    fn leave(&mut self) {
        let now = Instant::now();
        self.core.leave(Parting::Stops, now);
        self.settle(now);
    }

    /// Does what the core has decided, and tells others how things are.
    fn settle(&mut self, now: Instant) {
        let mut is_news = false;
        loop {
            let table = &self.cluster.table;
            let mut table = table.lock().unwrap_or_else(PoisonError::into_inner);
            self.core.pump(&mut table, now);
            drop(table);
            let mut is_idle = true;
            while let Some(action) = self.core.poll_action() {
                is_idle = false;
                is_news |= matches!(action, Action::Note(_));
                self.perform(action, now);
            }
            // What was passed on may be there already, which is to be said.
            if is_idle && !self.compare_late(now) {
                break;
            }
        }
        self.publish_masks();
        if is_news {
            self.publish_view(now);
        }
    }

    fn perform(&mut self, action: Action, now: Instant) {
        match action {
            Action::Call(address) => {
                self.calls.push(address);
                self.work.calls.notify_one();
            }
            Action::Send(id, bytes) => {
                if let Some(link) = self.links.get(&id) {
                    // Its task tells when it ends.
                    let _ = link.messages.send(bytes);
                }
            }
            Action::Close(id) => self.forget_link(id),
            Action::SeeTime(time) => self.cluster.see_time(time),
            Action::Deliver {
                slot,
                epoch,
                number,
                messages,
            } => {
                self.take_in(slot, (epoch, number), Kind::Published, messages, now);
            }
            Action::Keep {
                slot,
                epoch,
                number,
                messages,
            } => self.take_in(slot, (epoch, number), Kind::Retained, messages, now),
            Action::ReadRetained {
                slot,
                buckets,
                after,
            } => self.read_later(slot, buckets, after),
            Action::SumRetained { slot } => self.sum_retained(slot),
            Action::CompareRetained { slot, turn, sums } => {
                self.compare_retained(slot, turn, sums, now);
            }
            Action::Route { slot, change } => {
                let end = self.cluster.end(slot);
                if let Some(slot) = self.slots.get_mut(usize::from(slot)) {
                    slot.burial().change_route(change, end, &self.shared);
                }
            }
            Action::Confirm { slot, frame, level } => self.confirm(slot, frame, level, now),
            Action::Bury { slot, node, fate } => self.bury(slot, &node, fate, now),
            Action::Forsaken { slot } => self.renew_copies(slot, now),
            Action::Orphan {
                slot,
                frame,
                messages,
            } => {
                self.counters.inc(Metric::ClusterGone);
                self.take_orphan(slot, frame, &messages, now);
            }
            Action::Aside(link, number, aside) => self.handle_aside(link, number, aside),
            Action::Note(notice) => self.note(notice),
        }
    }
}
