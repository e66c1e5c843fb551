//! A shard's thread: it owns the [`Shard`], runs its connections, lanes and timers.
//!
//! ```text
//! thread shard-N, one current-thread runtime, one local set
//!   intake     arrivals channel -> one connection task each
//!   lane in    LinkRx -> Shard::deliver; joins the next Router when this one dies
//!   lane out   Outbox -> LinkTx, once per burst
//!   cluster    sends SUBACKs when other nodes know of the filters
//!   receipts   acknowledges what other shards have taken
//!   orphans    hands on what members of groups have left
//!   timers     session expiry and delayed wills
//!   account    Journal -> store, other nodes; lets go what waited for them
//!   replicas   copies sessions to other nodes
//!   access     closes connections that a changed configuration would not let in
//! ```

mod entrance;

use std::{
    cell::RefCell,
    io,
    rc::Rc,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use bytes::Bytes;
use thiserror::Error;
use tokio::{
    sync::{mpsc, oneshot, watch},
    task::LocalSet,
};
use tokio_util::task::TaskTracker;
use tracing::{error, warn};

use super::{Inheritance, Request, Shard, Shared, access, account, frames, orphans, replicas};
use crate::{
    access::Identity,
    codec::packet::Connect,
    gate::Slot,
    lanes::{LaneEnds, LaneError},
    load,
    metrics::Counters,
    peer::Peer,
    routes::ShardId,
    transport::Transport,
};

/// Accepted clients that may wait for their shard; the listener then accepts no more.
const ARRIVALS: usize = 1024;

/// Questions that may wait for the shard; whoever asks more waits as well.
const REQUESTS: usize = 64;

/// How often absent sessions and expired retained messages are looked at. MQTT counts both in
/// whole seconds.
const TICK: Duration = Duration::from_millis(250);

/// How long clients get to take their last packets when the node stops.
const FAREWELL: Duration = Duration::from_secs(2);

/// A client whose CONNECT was read, on its way to its shard.
pub(crate) struct Arrival {
    pub(crate) transport: Box<dyn Transport>,
    pub(crate) peer: Peer,
    pub(crate) connect: Connect,
    pub(crate) identity: Identity,
    pub(crate) assigned_client_id: bool,
    /// What came after the CONNECT.
    pub(crate) rest: Bytes,
    pub(crate) slot: Slot,
}

/// The node's end of a shard's thread.
pub(crate) struct Handle {
    /// Everything that was stored is back.
    pub(crate) restored: oneshot::Receiver<()>,
    pub(crate) arrivals: mpsc::Sender<Arrival>,
    pub(crate) requests: mpsc::Sender<Request>,
    pub(crate) thread: thread::JoinHandle<()>,
}

/// Why a shard cannot start.
#[derive(Debug, Error)]
pub enum WorkerError {
    #[error("cannot start a shard's thread")]
    Thread(#[source] io::Error),
    #[error("cannot start a shard's runtime")]
    Runtime(#[source] io::Error),
    #[error("a shard cannot join the router")]
    Lane(#[from] LaneError),
}

/// Starts a shard's thread. It ends when `stop` says so, or when its lane is lost for good; `alive`
/// hears of it. Until `begun`, which all shards share, nothing happens by itself.
///
/// # Errors
/// When thread, runtime or lane cannot be had.
pub(crate) fn spawn(
    id: ShardId,
    shared: Arc<Shared>,
    counters: Arc<Counters>,
    inheritance: Option<Inheritance>,
    begun: watch::Receiver<bool>,
    stop: watch::Receiver<bool>,
    alive: mpsc::Sender<()>,
) -> Result<Handle, WorkerError> {
    let ends = shared.lanes.join(id, None)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(WorkerError::Runtime)?;
    let (arrivals, queue) = mpsc::channel(ARRIVALS);
    let (requests, asked) = mpsc::channel(REQUESTS);
    let (all_back, restored) = oneshot::channel();
    let thread = thread::Builder::new()
        .name(format!("shard-{}", id.0))
        .spawn(move || {
            let _alive = Alive(alive);
            let mut shard = Shard::new(id, shared, counters);
            if let Some(inheritance) = inheritance {
                shard.inherit(inheritance, Instant::now());
            }
            // Nobody waits for it when the start has failed.
            let _ = all_back.send(());
            let shard = Rc::new(RefCell::new(shard));
            let work = run(id, Rc::clone(&shard), queue, asked, ends, begun, stop);
            LocalSet::new().block_on(&runtime, work);
            shard.borrow_mut().flush_lanes();
        })
        .map_err(WorkerError::Thread)?;
    Ok(Handle {
        restored,
        arrivals,
        requests,
        thread,
    })
}

/// Tells the node that the thread has ended, also when it panicked.
pub(crate) struct Alive(pub(crate) mpsc::Sender<()>);

impl Drop for Alive {
    fn drop(&mut self) {
        // One message is enough for all threads.
        let _ = self.0.try_send(());
    }
}

async fn run(
    id: ShardId,
    shard: Rc<RefCell<Shard>>,
    arrivals: mpsc::Receiver<Arrival>,
    requests: mpsc::Receiver<Request>,
    ends: LaneEnds,
    begun: watch::Receiver<bool>,
    mut stop: watch::Receiver<bool>,
) {
    let connections = TaskTracker::new();
    let mut intake = tokio::task::spawn_local(accept(
        Rc::clone(&shard),
        arrivals,
        connections.clone(),
        begun.clone(),
    ));
    // Ends by itself when nobody is left to ask.
    let _answers =
        tokio::task::spawn_local(answer(Rc::clone(&shard), requests, connections.clone()));
    let lane_out = tokio::task::spawn_local(frames::send(Rc::clone(&shard)));
    let orphans = tokio::task::spawn_local(orphans::place(Rc::clone(&shard)));
    let timers = tokio::task::spawn_local(keep_time(Rc::clone(&shard), begun));
    // Ends at once without a store.
    let _parcels = tokio::task::spawn_local(account::serve(Rc::clone(&shard)));
    let load = Arc::clone(&shard.borrow().shared.load);
    let pulse = tokio::task::spawn_local(load::pulse(load, Some(id)));
    // Ends at once without a cluster.
    let _copies = tokio::task::spawn_local(replicas::serve(Rc::clone(&shard)));
    let access = tokio::task::spawn_local(access::follow(Rc::clone(&shard)));
    let cluster = tokio::task::spawn_local(follow_cluster(Rc::clone(&shard)));
    let confirmations = tokio::task::spawn_local(frames::hear_confirmations(id, Rc::clone(&shard)));
    let lane_in = tokio::task::spawn_local(frames::receive(id, Rc::clone(&shard), ends));
    tokio::select! {
        _ = stop.wait_for(|stop| *stop) => {}
        result = lane_in => {
            if let Ok(Err(error)) = result {
                error!(error = &error as &dyn std::error::Error, "lane lost");
            }
        }
        // Ends when the listeners are gone, or by a fault that would leave clients unanswered.
        result = &mut intake => {
            if let Err(error) = result {
                error!(error = &error as &dyn std::error::Error, "intake failed");
            }
        }
        _ = lane_out => {}
        _ = confirmations => {}
        _ = orphans => {}
        _ = cluster => {}
        _ = timers => {}
        _ = pulse => {}
        _ = access => {}
    }
    intake.abort();
    connections.close();
    shard.borrow_mut().shut_down(Instant::now());
    // Clients that do not read in time are cut off with the thread.
    let _ = tokio::time::timeout(FAREWELL, connections.wait()).await;
}

/// Answers what the node asks, a short piece of work each time.
async fn answer(
    shard: Rc<RefCell<Shard>>,
    mut requests: mpsc::Receiver<Request>,
    connections: TaskTracker,
) {
    while let Some(request) = requests.recv().await {
        let connections = connections.len();
        let now = Instant::now();
        shard.borrow_mut().handle_request(request, connections, now);
        // Whoever asks a lot does so between the turns of clients.
        tokio::task::yield_now().await;
    }
}

/// Gives each arriving client a task of its own.
async fn accept(
    shard: Rc<RefCell<Shard>>,
    mut arrivals: mpsc::Receiver<Arrival>,
    connections: TaskTracker,
    mut begun: watch::Receiver<bool>,
) {
    // What a rule takes from one member of a group, another may be there for on any shard.
    if begun.wait_for(|begun| *begun).await.is_err() {
        return;
    }
    // Rules may have changed while the broker was away.
    access::judge_all(&shard).await;
    orphans::take_up(&shard).await;
    while let Some(arrival) = arrivals.recv().await {
        account::relief(&shard).await;
        let Arrival {
            mut transport,
            peer,
            connect,
            identity,
            assigned_client_id,
            rest,
            slot,
        } = arrival;
        if let Err(error) = transport.rehome() {
            warn!(%error, "cannot move a connection to its shard");
            continue;
        }
        let arrival = Arrival {
            transport,
            peer,
            connect,
            identity,
            assigned_client_id,
            rest,
            slot,
        };
        entrance::enter(&shard, arrival, &connections);
    }
}

async fn follow_cluster(shard: Rc<RefCell<Shard>>) {
    let cluster = shard.borrow().shared.cluster.clone();
    let Some((mut known, mut fellows)) =
        cluster.map(|cluster| (cluster.known(), cluster.fellows()))
    else {
        return std::future::pending().await;
    };
    // The sender lives as long as the shard.
    loop {
        tokio::select! {
            Ok(()) = known.changed() => {
                let version = *known.borrow_and_update();
                let mut shard = shard.borrow_mut();
                shard.release_subacks(version, Instant::now());
                shard.release_tellings();
            }
            Ok(()) = fellows.changed() => {
                fellows.mark_unchanged();
                shard.borrow_mut().follow_fellows(Instant::now());
            }
            else => break,
        }
    }
}

async fn keep_time(shard: Rc<RefCell<Shard>>, mut begun: watch::Receiver<bool>) {
    // A will that is due must find all of its subscribers.
    if begun.wait_for(|begun| *begun).await.is_err() {
        return;
    }
    let mut tick = tokio::time::interval(TICK);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tick.tick().await;
        while shard.borrow_mut().handle_timeout(Instant::now()) {
            tokio::task::yield_now().await;
        }
    }
}

#[cfg(test)]
mod tests;
