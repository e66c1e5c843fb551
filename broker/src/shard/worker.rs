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

use super::{Inheritance, Request, Shard, Shared, access, account, orphans, replicas};
use crate::{
    access::Identity,
    codec::packet::Connect,
    gate::Slot,
    lanes::{
        self, Event, Flushed, Inbox, LaneEnds, LaneError, LaneReader,
        frame::{self, Content, Item},
    },
    load,
    message::Qos,
    metrics::{Counters, Metric},
    peer::Peer,
    receipts::Needs,
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

/// How long a full lane is left alone before it is tried again.
const LANE_RETRY: Duration = Duration::from_millis(1);

/// Frames read before connections get their turn. A frame is half a connection's turn, and carries
/// what many connections of another shard have sent.
const FRAMES_PER_TURN: u64 = 8;

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
    let lane_out = tokio::task::spawn_local(send_frames(Rc::clone(&shard)));
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
    let confirmations = tokio::task::spawn_local(hear_confirmations(id, Rc::clone(&shard)));
    let lane_in = tokio::task::spawn_local(receive_frames(id, Rc::clone(&shard), ends));
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

/// Delivers what other shards send; joins the next Router when this one dies.
async fn receive_frames(
    id: ShardId,
    shard: Rc<RefCell<Shard>>,
    ends: LaneEnds,
) -> Result<(), LaneError> {
    let (ends_count, lanes) = {
        let state = shard.borrow();
        (state.shared.ends(), Arc::clone(&state.shared.lanes))
    };
    let mut inbox = Inbox::new(id, ends_count, Arc::clone(&lanes));
    let (mut reader, tx) = LaneReader::new(id, lanes, ends);
    shard.borrow_mut().outbox.rejoin(tx);
    let mut frames = 0_u64;
    loop {
        let tx = match reader.next().await? {
            Event::Joined(tx) => tx,
            Event::Frame(bytes) => {
                let is_whole = receive_frame(&shard, &mut inbox, &bytes);
                frames += 1;
                // The link yields only when it is empty; connections must get their turn.
                if frames.is_multiple_of(FRAMES_PER_TURN) {
                    tokio::task::yield_now().await;
                }
                if is_whole {
                    continue;
                }
                reader.rejoin(lanes::Failure::Gap).await?
            }
        };
        let mut state = shard.borrow_mut();
        state.counters.inc(Metric::LaneRestarts);
        state.outbox.rejoin(tx);
    }
}

/// Delivers a frame's messages; tells whether the lane is still whole.
fn receive_frame(shard: &RefCell<Shard>, inbox: &mut Inbox, payload: &[u8]) -> bool {
    let mut bytes = payload;
    let mut needs = Needs::default();
    let mut is_awaited = false;
    let from = frame::read_header(&mut &*bytes).map_or(ShardId(0), |header| header.from);
    let arrival = inbox.handle_frame(&mut bytes);
    let mut state = shard.borrow_mut();
    let messages = match arrival {
        lanes::Arrival::New { messages } => messages,
        lanes::Arrival::Ignored => return true,
        lanes::Arrival::Gap { missing } => {
            error!(missing, "frames missing on a lane");
            let missing = usize::try_from(missing).unwrap_or(usize::MAX);
            state.counters.add(Metric::LaneGaps, missing);
            return false;
        }
    };
    state.counters.inc(Metric::LaneFrames);
    state.counters.add(Metric::LaneMessages, messages as usize);
    let now = Instant::now();
    let noted = state.noted();
    // What another node's item waits for must not be other items: two nodes could wait for each other.
    let is_neighbours = from.0 < state.shared.shards;
    let mut handed_on = Needs::default();
    while let Some(content) = frame::read_content(&mut bytes, now) {
        let Item {
            message,
            seats,
            source,
        } = match content {
            Content::Message(item) => item,
            Content::Word {
                bytes,
                is_awaited: is_word_awaited,
            } => {
                is_awaited |= is_word_awaited;
                state.handle_word(from, bytes, now);
                continue;
            }
        };
        let message = Arc::new(message);
        is_awaited |= message.qos > Qos::AtMostOnce;
        if !seats.is_empty() {
            // What a shard has taken for its subscribers says nothing of its seats: a repeat's are
            // chosen anew.
            state.deliver_to_seats(&seats, &message, &mut needs, now);
        } else if !state.has_taken(source) {
            let noted = state.noted();
            let needs = if is_neighbours {
                &mut needs
            } else {
                &mut handed_on
            };
            state.deliver(&message, None, needs, now);
            state.note_taken(noted, source);
        }
    }
    state.frames_taken += 1;
    state.need_noted(noted, &mut needs);
    let finished = inbox.finish_frame();
    if let Some((from, sequence)) = finished.filter(|_frame| is_awaited) {
        state.confirm_frame(from, sequence, &needs);
    }
    true
}

/// Answers publishers when other shards have taken their messages.
async fn hear_confirmations(id: ShardId, shard: Rc<RefCell<Shard>>) {
    let lanes = Arc::clone(&shard.borrow().shared.lanes);
    let mut taken = Vec::new();
    loop {
        lanes.confirmed(id, &mut taken).await;
        for (count, confirmation) in (1_u64..).zip(taken.drain(..)) {
            shard.borrow_mut().handle_frame_confirmation(confirmation);
            // There is an answer for each message of a frame.
            if count.is_multiple_of(FRAMES_PER_TURN) {
                tokio::task::yield_now().await;
            }
        }
    }
}

/// Hands frames to the Router after each burst of packets.
async fn send_frames(shard: Rc<RefCell<Shard>>) {
    let work = Rc::clone(&shard.borrow().outbox_work);
    loop {
        work.notified().await;
        loop {
            let flushed = shard.borrow_mut().flush_lanes();
            match flushed {
                Flushed::All => break,
                Flushed::Blocked => tokio::time::sleep(LANE_RETRY).await,
            }
        }
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
                shard.release_fading();
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
