//! A shard: one thread's share of the sessions, and everything that happens to them.
//!
//! A client belongs to the shard that its client id hashes to, so a session is only ever touched by
//! one thread and needs no lock. All connections of these clients run on the same thread and call
//! in directly. What shards share (routes, retained messages, lanes) is in `Shared`.

mod access;
mod account;
mod arrivals;
mod barrier;
mod chores;
mod claims;
mod cluster;
mod clustered;
mod confirmations;
mod delivery;
mod filters;
mod frames;
mod heal;
mod inspect;
mod kept;
mod leaving;
mod losses;
mod orphans;
mod packets;
mod replicas;
mod request;
mod seeing_off;
mod sessions;
mod settling;
mod shadows;
mod shared;
mod stall;
#[cfg(test)]
mod testing;
mod transit;
mod worker;

use std::{
    collections::{BTreeMap, BTreeSet},
    rc::Rc,
    sync::{
        Arc, PoisonError, RwLock,
        atomic::{AtomicUsize, Ordering},
    },
    task::Waker,
    time::{Duration, Instant},
};

use tracing::debug;

use crate::{
    access::{Access, Identity},
    cluster::Cluster,
    codec::packet::{ConnAck, Connect, ConnectCode, reason},
    config::{Limits, SessionLimits},
    evacuation::Evacuation,
    events::Events,
    herald::Herald,
    lanes::{Lanes, Outbox, frame::Source},
    link::Link,
    load::Load,
    metrics::{Counters, Histogram, Metric, Metrics},
    receipts::{Ledger, Needs},
    replica::hash_of,
    retained::Retained,
    routes::{Routes, ShardId},
    session::{Cause, Shelf, Stock, Subscription, Terms, journal::Origin},
    shares::Shares,
    store::Store,
    sys::Sys,
    trie::Trie,
};
use account::{Account, Line};
pub(crate) use claims::{Admission, Entrance};
use clustered::Clustered;
use filters::Filters;
pub(crate) use inspect::Piece;
pub(crate) use kept::Inheritance;
use leaving::Heir;
use orphans::Orphans;
pub(crate) use packets::Flow;
pub(crate) use request::{Answer, Kick, Query, Request, Selection, Vitals};
pub(crate) use seeing_off::{Backlog, SeeOff, SeenOff};
pub(crate) use sessions::SessionKey;
use sessions::{Entry, Sessions};
use shadows::Shadows;
pub use worker::WorkerError;
pub(crate) use worker::{Alive, Arrival, spawn};

/// Sessions that end, and wills that are due, before clients get their turn: those who left together
/// have these together.
const DEADLINES_PER_TURN: usize = 256;

/// What the shards of a node have in common.
pub(crate) struct Shared {
    /// A reload may change them; connections keep what they began with.
    pub(crate) limits: RwLock<Limits>,
    pub(crate) session_limits: SessionLimits,
    pub(crate) access: Access,
    pub(crate) shards: u16,
    pub(crate) routes: Routes,
    /// Those with a subscriber whose session is kept, or that had one since they had any. Empty
    /// without a store.
    pub(crate) kept_routes: Routes,
    pub(crate) shares: Arc<Shares>,
    pub(crate) retained: RwLock<Retained>,
    /// Of messages that wait for clients.
    pub(crate) stock: Arc<Stock>,
    /// How many there are on all shards.
    pub(crate) sessions: AtomicUsize,
    pub(crate) node: Box<str>,
    pub(crate) metrics: Metrics,
    pub(crate) sys_interval: Option<Duration>,
    /// What `$SYS` last said, for those who subscribe later.
    pub(crate) sys: RwLock<Retained>,
    pub(crate) lanes: Arc<Lanes>,
    /// The node is one of several.
    pub(crate) cluster: Option<Arc<Cluster>>,
    /// From a client's arrival to the answer to its CONNECT.
    pub(crate) connect_times: Histogram,
    pub(crate) load: Arc<Load>,
    pub(crate) evacuation: Evacuation,
    /// What operators are told of.
    pub(crate) events: Events,
    /// What outlives the process; `None` if nothing does.
    pub(crate) store: Option<Arc<Store>>,
}

impl Shared {
    pub(crate) fn limits(&self) -> Limits {
        *self.limits.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn set_limits(&self, limits: Limits) {
        *self.limits.write().unwrap_or_else(PoisonError::into_inner) = limits;
        let mut retained = self
            .retained
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        retained.set_bounds(limits.into());
        self.stock.set_bound(limits.node_queue_bytes);
    }

    /// The shard that a client belongs to.
    pub(crate) fn shard_of(&self, client_id: &str) -> ShardId {
        self.shard_of_hash(hash_of(client_id))
    }

    /// As [`Shared::shard_of`], for who knows only the hash of the client id.
    pub(crate) fn shard_of_hash(&self, hash: u64) -> ShardId {
        let shard = hash % u64::from(self.shards);
        ShardId(u16::try_from(shard).unwrap_or(0))
    }

    fn has_session_room(&self) -> bool {
        self.sessions.load(Ordering::Acquire) < self.limits().sessions
    }

    /// Takes room for a session, if there is any.
    fn reserve_session(&self) -> Result<(), ConnectCode> {
        let before = self.sessions.fetch_add(1, Ordering::AcqRel);
        if before < self.limits().sessions {
            return Ok(());
        }
        self.sessions.fetch_sub(1, Ordering::AcqRel);
        Err(ConnectCode::QuotaExceeded)
    }
}

/// One thread's share of the node.
pub(crate) struct Shard {
    id: ShardId,
    shared: Arc<Shared>,
    counters: Arc<Counters>,
    shelf: Rc<Shelf>,
    sessions: Sessions,
    subscribers: Trie<SessionKey, Subscription>,
    filters: Filters,
    /// When absent sessions and delayed wills need attention.
    deadlines: BTreeSet<(Instant, SessionKey)>,
    outbox: Outbox,
    outbox_work: Rc<tokio::sync::Notify>,
    ledger: Ledger,
    clustered: Clustered,
    orphans: Orphans,
    /// Frames from other shards.
    frames_taken: u64,
    herald: Herald,
    /// The node stops: no more messages are taken.
    is_draining: bool,
    /// Connections that wait for the lanes before they read on.
    stalled: BTreeMap<SessionKey, Waker>,
    /// Those that publish, and wait for other nodes.
    held_up: BTreeMap<SessionKey, Waker>,
    /// Rung when the store has caught up.
    relief: Rc<tokio::sync::Notify>,
    /// No client is given anything more.
    is_stopping: bool,
    /// On the shard that publishes `$SYS` for all.
    sys: Option<Sys>,
    /// Where there is a store, or a cluster.
    account: Option<Rc<Account>>,
    /// Of sessions of other nodes.
    shadows: Shadows,
    copies: replicas::Told,
    /// Where the message that is being published came from, if others are to note it.
    source: Option<Source>,
    /// When the message that is retained, and is on its way, was published.
    retained_at: u64,
    /// What an earlier life of this shard has taken of messages that may come again.
    taken: BTreeSet<Origin>,
    /// Kept between messages for its memory.
    matches: Vec<(SessionKey, Subscription)>,
    needs: Needs,
}

impl Shard {
    pub(crate) fn new(id: ShardId, shared: Arc<Shared>, counters: Arc<Counters>) -> Self {
        let lease = shared.cluster.as_ref().map(|cluster| cluster.lease());
        // One shard looks after what belongs to all.
        let sys = shared
            .sys_interval
            .filter(|_interval| id == ShardId(0))
            .map(|interval| Sys::new(interval, Instant::now()));
        let outbox = Outbox::new(id, shared.ends(), Arc::clone(&shared.lanes));
        let shelf = Shelf::new(Arc::clone(&shared.stock));
        let clustered = Clustered::new(&shared);
        let outbox_work = Rc::default();
        let account = Account::of_cluster(id, &shared, &outbox_work);
        Self {
            id,
            shared,
            counters,
            shelf,
            sessions: Sessions::default(),
            subscribers: Trie::default(),
            filters: Filters::default(),
            deadlines: BTreeSet::new(),
            outbox,
            outbox_work,
            ledger: Ledger::default(),
            clustered,
            orphans: Orphans::default(),
            frames_taken: 0,
            herald: Herald::default(),
            is_draining: false,
            stalled: BTreeMap::new(),
            held_up: BTreeMap::new(),
            relief: Rc::default(),
            is_stopping: false,
            sys,
            account,
            shadows: Shadows::new(lease),
            copies: replicas::Told::default(),
            source: None,
            retained_at: 0,
            taken: BTreeSet::new(),
            matches: Vec::new(),
            needs: Needs::default(),
        }
    }

    /// Gives a client its session, taking it over from an older connection, and answers CONNECT.
    ///
    /// # Errors
    /// When the client must be refused; the CONNECT is not answered then.
    pub(crate) fn connect(
        &mut self,
        connect: Connect,
        identity: Identity,
        assigned_client_id: Option<String>,
        link: &Rc<Link>,
        now: Instant,
    ) -> Result<SessionKey, ConnectCode> {
        let Limits {
            inflight,
            packet_bytes,
            topic_aliases,
            ..
        } = self.shared.limits();
        self.promote_lost(&connect.client_id, now);
        let noted = self.noted();
        let expiry = self.expiry_of(&connect);
        self.check_store(&connect.client_id, expiry)?;
        let permit = self.permit(&connect, &identity, link.peer())?;
        let is_assigned =
            self.check_client_id(&connect.client_id, &identity, assigned_client_id.is_some())?;
        let is_over = connect.clean_start || self.is_others(&connect.client_id, &identity);
        let present = self.take_over(&connect.client_id, is_over, Heir::Here, now);
        let session_present = present.is_some();
        let key = match present {
            Some(key) => self.renew_grants(key, &identity, now),
            None => self.open_session(&connect.client_id, identity.clone())?,
        };
        let keep_alive = self.imposed_keep_alive(&connect);
        self.counters.inc(Metric::Connected);
        debug!(
            client_id = connect.client_id,
            user = identity.user(),
            version = ?connect.version,
            session_present,
            address = %link.peer().address,
            certificate = link.peer().common_name(),
            "client connected"
        );
        let is_v5 = connect.version.is_v5();
        let Some(entry) = self.sessions.get_mut(key) else {
            return Ok(key);
        };
        entry.link = Some(Rc::clone(link));
        entry.losses = None;
        self.counters.inc(Metric::SessionsConnected);
        entry.owner = identity;
        entry.is_assigned = is_assigned;
        entry.permit = permit;
        let profile = entry.profile();
        let over = entry.settle_record(self.account.as_deref(), expiry, connect.will.is_some());
        entry.session.attach(Terms {
            window: connect
                .receive_maximum
                .map_or(inflight, |maximum| inflight.min(maximum.get())),
            // MQTT 3 has no way to tell the client a bound; identifiers are one.
            receive: usize::from(if is_v5 { inflight } else { u16::MAX }),
            expiry,
            will: connect.will,
        });
        let asked = Duration::from_secs(u64::from(connect.session_expiry.unwrap_or(0)));
        let granted = u32::try_from(expiry.as_secs()).unwrap_or(u32::MAX);
        let is_kept = entry.session.is_kept();
        if let Some(session) = over {
            self.note_over(session, profile, &[]);
        }
        self.hold_noted(noted, link);
        link.connack(ConnAck {
            session_present,
            code: ConnectCode::Accepted,
            session_expiry: (is_v5 && asked != expiry).then_some(granted),
            receive_maximum: Some(inflight),
            maximum_packet: u32::try_from(packet_bytes).ok(),
            topic_aliases,
            keep_alive,
            assigned_client_id,
            servers: None,
        });
        let Some(entry) = self.sessions.get_mut(key) else {
            return Ok(key);
        };
        let mut line = Line::new(link, self.account.as_ref(), is_kept);
        let dropped = entry.session.pump(&mut line, now);
        entry.note_appetite();
        self.counters.add(Metric::DroppedExpired, dropped);
        self.greet(key, link, now);
        self.schedule(key);
        Ok(key)
    }

    /// The keep-alive that a client gets in place of its own. MQTT 3 has no way to tell it.
    pub(super) fn imposed_keep_alive(&self, connect: &Connect) -> Option<u16> {
        let longest = self.shared.session_limits.max_keep_alive;
        let is_longer = connect.keep_alive == 0 || connect.keep_alive > longest;
        (connect.version.is_v5() && longest > 0 && is_longer).then_some(longest)
    }

    /// Keeps the shard's calendar in step with a session's.
    fn schedule(&mut self, key: SessionKey) {
        let Some(entry) = self.sessions.get_mut(key) else {
            return;
        };
        let due = entry.next_deadline();
        if due == entry.deadline {
            return;
        }
        if let Some(old) = std::mem::replace(&mut entry.deadline, due) {
            self.deadlines.remove(&(old, key));
        }
        if let Some(due) = due {
            self.deadlines.insert((due, key));
        }
    }

    /// Does what is due, as much as one turn allows; tells whether there is more.
    pub(crate) fn handle_timeout(&mut self, now: Instant) -> bool {
        self.look_after_all(now);
        self.publish_sys(now);
        self.release_subacks(0, now);
        self.handle_transit_timeout(now);
        self.forget_mourned(now);
        self.count_copies();
        for _ in 0..DEADLINES_PER_TURN {
            let Some((due, key)) = self.deadlines.pop_first() else {
                return false;
            };
            if due > now {
                self.deadlines.insert((due, key));
                return false;
            }
            let Some(entry) = self.session_due(key, now) else {
                continue;
            };
            entry.deadline = None;
            let aftermath = entry.session.handle_timeout(now);
            self.counters
                .add(Metric::SessionsExpired, usize::from(aftermath.ended));
            self.settle(key, aftermath, Vec::new(), now);
        }
        true
    }

    /// Tells every client that the node stops.
    pub(crate) fn shut_down(&mut self, now: Instant) {
        self.is_stopping = true;
        self.give_up_keeping();
        for (key, link) in self.sessions.connected() {
            link.close_gently(reason::SHUTTING_DOWN);
            self.counters.inc(Metric::ClosedStopping);
            self.disconnect(key, &link, Cause::Shutdown, now);
        }
    }

    pub(crate) fn counters(&self) -> &Arc<Counters> {
        &self.counters
    }

    pub(crate) fn limits(&self) -> Limits {
        self.shared.limits()
    }
}
