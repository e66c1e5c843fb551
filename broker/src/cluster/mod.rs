//! The cluster: several nodes that pass messages on to each other's subscribers.
//!
//! Every node keeps a connection to every other one. Each tells the others which filters it has
//! subscribers for; a peer with a filter that matches gets the message once, and passes it on to its
//! own subscribers alone. To the shards a peer is one more destination of the lanes: the thread
//! here reads the lane and forwards its frames, and confirms them when the peer has.
//!
//! ```text
//! shard -> lane of the peer's slot -> driver -> stream of the pair ==TCP, Noise==> the peer's driver
//!                                                                                -> lanes -> shards
//! confirmation  <- driver <- "taken up to number n" <==========================  <- confirmations
//! ```
//!
//! | file | what |
//! |---|---|
//! | `core`, `core/*` | all decisions, without I/O: who is a member, what is sent, who is gone |
//! | `pair` | the numbered streams of two nodes; repeated after an interruption |
//! | `promises` | which of it is where it cannot be lost |
//! | `held` | what a peer has passed on and this node has not taken |
//! | `routes` | which filters this node and the others have, and how much their groups can take |
//! | `claims`, `clock` | who may have a client id; the order of connections |
//! | `word` | what shards of two nodes say to each other of sessions |
//! | `telling`, `news` | what peers are told of retained messages, and when others are asked |
//! | `questions` | what operators' listings ask of other nodes |
//! | `calls` | whom to call, and when |
//! | `wire` | what is said, as bytes |
//! | `driver`, `slot`, `keeper`, `links` | the thread: lanes, timers, connections |
//! | `burial` | what is left to do for a peer that is gone |
//! | `strangers` | places for callers that have not shown the key |
//!
//! **What is promised.** As long as two nodes hold each other for alive, each message that one
//! acknowledges has reached the sessions of the other's subscribers (with [`Acknowledge::Local`] it
//! will), once and in order, whatever becomes of connections. A peer that is silent for the lease, of
//! two that differ the longer one, or that takes nothing, is held for gone: what it has not taken it
//! does not get, and publishers are answered. A kept session has a copy on another node
//! ([`crate::replica`]), and is one there when its own is gone; what any node had sent the lost one goes
//! to it there. A client id has one connection, and one session, which goes where its client connects
//! (`shard::claims`).
//!
//! All nodes come to have the same retained messages: who differs is told, and the last by the cluster's
//! clock counts (`telling`, `retained`).
//!
//! **Groups.** Nodes tell each other how many members of each group they have that take messages
//! (`routes`), and the publisher's node chooses one of them for each message ([`crate::shares`]). That
//! gets it as any message, for the group alone, and chooses the member. If it has nobody left it hands
//! the message on, a few times at most. What was for the group of a node that is lost waits until that
//! is buried, and then finds another member, who may have become one only by that.

mod burial;
mod calls;
pub(crate) mod claims;
pub(crate) mod clock;
mod core;
mod driver;
mod held;
mod keeper;
mod ledger;
mod links;
mod news;
mod pair;
mod peer;
mod pending;
mod promises;
pub(crate) mod questions;
mod routes;
mod slot;
mod strangers;
pub(crate) mod telling;
pub mod view;
mod wire;
pub(crate) mod word;

use std::{
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU16, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use bytes::Bytes;
use channel::Purpose;
use tokio::sync::{Notify, mpsc, oneshot, watch};

pub use self::core::Acknowledge;
pub(crate) use self::core::PEERS;
use claims::{Fellow, Stamp};
use clock::Clock;
pub use driver::ClusterError;
pub(crate) use driver::{Handle, Prospect, spawn};
pub(crate) use ledger::Ledger;
use questions::{Question, Reply, Ticket, Unheard};
use routes::Table;
use view::ClusterStatus;

use crate::{
    config, message::MessageId, replica, routes::ShardId, shares::Shares, sys, topic::SharedFilter,
};

/// What the key of a cluster is for.
pub(crate) const PURPOSE: Purpose = Purpose {
    prologue: "tidegate-broker cluster",
    command: "tidegate-broker cluster key",
};

/// The shortest lease, below which a busy machine would be taken for a dead one, and the longest.
pub(crate) const LEASE: (Duration, Duration) = (Duration::from_millis(500), Duration::from_mins(1));

/// A bound in bytes. Tests have smaller ones, so that simulated nodes reach them all the time.
const fn sized(bytes: usize) -> usize {
    if cfg!(test) { bytes / 64 } else { bytes }
}

/// Orders that may wait for the thread.
const ORDERS: usize = 16;

/// What the node's other threads share with that of the cluster.
pub(crate) struct Cluster {
    /// The destination that the first peer is; shards come before.
    first: u16,
    /// Peers that are there, a bit for each slot.
    alive: AtomicU16,
    /// The node has from others what it is to begin with.
    settled: AtomicBool,
    /// Peers for which so much waits that messages of QoS 0 are dropped.
    slow: AtomicU16,
    /// A peer has so much in its sessions that is not safe that nothing more is to wait for it.
    is_behind: AtomicBool,
    table: Mutex<Table>,
    /// The table has changed.
    work: Notify,
    /// The version of the table that all peers know which are there.
    known: watch::Sender<u64>,
    /// Peers that are there, by their places among the destinations.
    living: watch::Sender<Vec<replica::place::Peer>>,
    view: watch::Sender<ClusterStatus>,
    orders: mpsc::Sender<Order>,
    node: Box<str>,
    /// The longest of all nodes' that are known, in milliseconds.
    lease: AtomicU64,
    /// Peers that are there, and how often they were lost.
    fellows: watch::Sender<Vec<Fellow>>,
    /// It is known who is there, as far as it need be to let clients in.
    looked: watch::Sender<bool>,
    clock: Clock,
    /// Tells this run of the node from all others.
    run: u64,
}

/// What operators, and the node itself, want done.
pub(crate) enum Order {
    Join(Box<str>, oneshot::Sender<()>),
    Leave(oneshot::Sender<()>),
    /// Says when nothing waits for any peer that is there.
    Drain(oneshot::Sender<()>),
    /// Asks a peer.
    Ask(Box<str>, Question, Reply),
    /// Answers one.
    Reply(Ticket, Vec<u8>),
    /// Do nothing, as a thread that hangs, until the other end is dropped.
    #[cfg(test)]
    Hang(oneshot::Sender<()>, std::sync::mpsc::Receiver<()>),
}

impl Cluster {
    /// The node's part of a cluster, behind so many shards; the orders are for the thread.
    pub(crate) fn new(
        node: &str,
        config: &config::Cluster,
        shards: u16,
    ) -> (Self, mpsc::Receiver<Order>) {
        let (orders, given) = mpsc::channel(ORDERS);
        let cluster = Self {
            first: shards,
            alive: AtomicU16::new(0),
            settled: AtomicBool::new(false),
            slow: AtomicU16::new(0),
            is_behind: AtomicBool::new(false),
            table: Mutex::default(),
            work: Notify::new(),
            known: watch::Sender::new(u64::MAX),
            living: watch::Sender::default(),
            view: watch::Sender::new(ClusterStatus::alone(node, config)),
            orders,
            node: node.into(),
            lease: AtomicU64::default(),
            fellows: watch::Sender::default(),
            looked: watch::Sender::new(false),
            clock: Clock::default(),
            run: clock::random(),
        };
        cluster.set_lease(config.lease);
        (cluster, given)
    }

    /// Which destination of the lanes a slot is.
    fn end(&self, slot: u16) -> ShardId {
        ShardId(self.first + slot)
    }

    /// The peers that are there.
    pub(crate) fn peers(&self) -> impl Iterator<Item = ShardId> + use<> {
        let (alive, first) = (self.alive.load(Ordering::Acquire), self.first);
        (0..PEERS)
            .filter(move |slot| alive & (1 << slot) != 0)
            .map(move |slot| ShardId(first + slot))
    }

    /// Whether the node has from others what it is to begin with, or there is nobody to have it from.
    pub(crate) fn is_settled(&self) -> bool {
        self.settled.load(Ordering::Acquire)
    }

    /// Whether it is known who is there: the session of a client that comes before may be with one whom
    /// the node has not met.
    pub(crate) fn has_looked(&self) -> bool {
        *self.looked.borrow()
    }

    /// Waits until it is.
    pub(crate) async fn looked(&self) {
        let mut looked = self.looked.subscribe();
        // The sender is here.
        let _ = looked.wait_for(|looked| *looked).await;
    }

    /// Whether too much waits for this destination.
    pub(crate) fn is_slow(&self, end: ShardId) -> bool {
        let slow = self.slow.load(Ordering::Relaxed);
        let slot = end.0.checked_sub(self.first);
        slot.is_some_and(|slot| slot < PEERS && slow & (1 << slot) != 0)
    }

    /// Whether there is so much at some node that is not safe yet that what comes from others should not
    /// wait for more of it.
    pub(crate) fn is_any_behind(&self) -> bool {
        self.is_behind.load(Ordering::Relaxed)
    }

    /// Tells the peers that a shard has subscribers for the filter.
    pub(crate) fn add_filter(&self, filter: &str) {
        self.change(filter, Table::add);
    }

    /// Tells the peers that a shard has none any more.
    pub(crate) fn remove_filter(&self, filter: &str) {
        self.change(filter, Table::remove);
    }

    /// Tells the peers what the members of a group can take, if that is other than what they know.
    pub(crate) fn note_group(&self, shares: &Shares, shared: SharedFilter<'_>) {
        if sys::is_reserved(shared.filter) {
            return;
        }
        let mut table = self.table.lock().unwrap_or_else(PoisonError::into_inner);
        // Asked for behind the lock: whoever comes last has seen what all others have done.
        let room = shares.room(shared);
        if table.set_group(&shared.text(), room) {
            self.work.notify_one();
        }
    }

    fn change(&self, filter: &str, change: impl FnOnce(&mut Table, &str) -> bool) {
        // What a node tells of itself is for its own clients.
        if sys::is_reserved(filter) {
            return;
        }
        let mut table = self.table.lock().unwrap_or_else(PoisonError::into_inner);
        if change(&mut table, filter) {
            self.work.notify_one();
        }
    }

    /// The version of the filters that peers do not know yet.
    pub(crate) fn untold(&self) -> Option<u64> {
        let table = self.table.lock().unwrap_or_else(PoisonError::into_inner);
        let version = table.version();
        (*self.known.borrow() < version).then_some(version)
    }

    /// Follows what peers know.
    pub(crate) fn known(&self) -> watch::Receiver<u64> {
        self.known.subscribe()
    }

    /// Follows which peers are there.
    pub(crate) fn fellows(&self) -> watch::Receiver<Vec<Fellow>> {
        self.fellows.subscribe()
    }

    /// As [`Cluster::fellows`], with what tells where copies of sessions are to be.
    pub(crate) fn living(&self) -> watch::Receiver<Vec<replica::place::Peer>> {
        self.living.subscribe()
    }

    /// How long any node may be silent before all hold it for gone.
    pub(crate) fn lease(&self) -> Duration {
        Duration::from_millis(self.lease.load(Ordering::Relaxed))
    }

    fn set_lease(&self, longest: Duration) {
        let millis = u64::try_from(longest.as_millis()).unwrap_or(u64::MAX);
        self.lease.store(millis, Ordering::Relaxed);
    }

    /// A time that is later than all that this node has given or seen.
    pub(crate) fn next_time(&self) -> u64 {
        self.clock.next()
    }

    /// Takes note of a time that another node has given.
    pub(crate) fn see_time(&self, time: u64) {
        self.clock.see(time);
    }

    /// A time that is no earlier than all that this node has given or seen.
    pub(crate) fn now(&self) -> u64 {
        self.clock.now()
    }

    /// How far the node whose clock is first is ahead of this one's.
    pub(crate) fn clock_ahead(&self) -> Duration {
        self.clock.ahead()
    }

    /// How long ago a time was, at least.
    pub(crate) fn age_of(&self, time: u64) -> Duration {
        self.clock.age_of(time)
    }

    /// A time that this node has given.
    pub(crate) fn stamp(&self, time: u64) -> Stamp {
        Stamp {
            time,
            node: self.node.clone(),
        }
    }

    /// The id of a shard's message with this number.
    pub(crate) fn message_id(&self, shard: ShardId, number: u64) -> MessageId {
        MessageId {
            run: self.run,
            number: u64::from(shard.0) << 48 | number,
        }
    }

    /// Makes these peers be there, and no others.
    #[cfg(test)]
    pub(crate) fn meet_for_tests(&self, ends: &[ShardId]) {
        let bits = ends.iter().map(|end| 1 << (end.0 - self.first));
        let alive = bits.fold(0, |alive, bit: u16| alive | bit);
        self.alive.store(alive, Ordering::Release);
        let fellows = ends.iter().map(|end| Fellow { end: *end, life: 1 });
        self.fellows.send_replace(fellows.collect());
        let living = ends.iter().map(|end| replica::place::Peer {
            place: replica::place::Place { end: *end, life: 1 },
            node: u64::from(end.0),
        });
        self.living.send_replace(living.collect());
    }

    pub(crate) fn view(&self) -> watch::Receiver<ClusterStatus> {
        self.view.subscribe()
    }

    /// Asks a peer, and waits for the answer until then.
    ///
    /// # Errors
    /// When there is none.
    pub(crate) async fn ask(
        &self,
        node: &str,
        question: Question,
        until: Instant,
    ) -> Result<Bytes, Unheard> {
        let (reply, answer) = oneshot::channel();
        let asked = async {
            let order = Order::Ask(node.into(), question, reply);
            let put = self.orders.send(order).await;
            put.map_err(|_ended| Unheard::Stopping)?;
            answer.await.unwrap_or(Err(Unheard::Stopping))
        };
        let asked = tokio::time::timeout_at(until.into(), asked).await;
        asked.unwrap_or(Err(Unheard::Late))
    }

    /// Answers a peer. One that is gone does not hear it.
    pub(crate) async fn reply(&self, ticket: Ticket, answer: Vec<u8>) {
        let _ = self.orders.send(Order::Reply(ticket, answer)).await;
    }

    /// Has the thread do something; `false` when it has ended.
    pub(crate) async fn order(&self, order: impl FnOnce(oneshot::Sender<()>) -> Order) -> bool {
        let (done, is_done) = oneshot::channel();
        self.orders.send(order(done)).await.is_ok() && is_done.await.is_ok()
    }
}

/// Whether a node, or a cluster, may be called so.
pub(crate) fn is_valid_node(name: &str) -> bool {
    let legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    (1..=64).contains(&name.len()) && name.chars().all(legal)
}
