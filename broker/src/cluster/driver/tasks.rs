//! What the thread does all the time, a task each.

use std::{
    cell::RefCell,
    rc::Rc,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use rumqttd::local::LinkTx;
use tokio::{sync::mpsc, task::spawn_local};
use tracing::error;

use super::Driver;
use crate::{
    cluster::{Ledger, Order, core::Core, links, pair::FrameId, wire::Parting},
    events,
    lanes::{Arrival, Event, Failure, Inbox, LaneEnds, LaneError, LaneReader, frame},
    metrics::Metric,
    routes::ShardId,
    topic::SharedFilter,
};

/// How long a full lane is left alone before it is tried again.
const LANE_RETRY: Duration = Duration::from_millis(1);

/// Between two looks at what members of groups can take. Other nodes share by what was seen last.
const LOOK: Duration = Duration::from_millis(100);

/// Frames read from a lane before others have their turn.
const FRAMES_PER_TURN: u32 = 8;

/// Hands the shards' frames for a peer to the core.
pub(super) async fn read_lane(
    driver: Rc<RefCell<Driver>>,
    slot: u16,
    ends: LaneEnds,
) -> Result<(), LaneError> {
    let (me, mut inbox, mut reader, work) = {
        let state = &mut *driver.borrow_mut();
        let me = state.cluster.end(slot);
        let lanes = Arc::clone(&state.shared.lanes);
        let inbox = Inbox::new(me, state.shared.ends(), Arc::clone(&lanes));
        let (reader, tx) = LaneReader::new(me, lanes, ends);
        state.slots[usize::from(slot)].outbox.rejoin(tx);
        (me, inbox, reader, Rc::clone(&state.work))
    };
    let mut count = 0_u32;
    loop {
        loop {
            let room = work.room.notified();
            if !driver.borrow_mut().is_full(slot, Instant::now()) {
                break;
            }
            tokio::select! {
                () = room => {}
                // What comes from the peer goes by the Router too.
                () = reader.replaced() => {
                    let tx = reader.rejoin(Failure::Died).await?;
                    rejoin(&driver, slot, tx);
                }
            }
        }
        let tx = match reader.next().await? {
            Event::Joined(tx) => Some(tx),
            Event::Frame(bytes) => {
                let is_whole = read_frame(&driver, slot, me, &mut inbox, bytes);
                if is_whole {
                    None
                } else {
                    Some(reader.rejoin(Failure::Gap).await?)
                }
            }
        };
        if let Some(tx) = tx {
            rejoin(&driver, slot, tx);
        }
        count = count.wrapping_add(1);
        if count.is_multiple_of(FRAMES_PER_TURN) {
            tokio::task::yield_now().await;
        }
    }
}

/// Takes the way to another Router.
fn rejoin(driver: &RefCell<Driver>, slot: u16, tx: LinkTx) {
    let state = &mut *driver.borrow_mut();
    state.counters.inc(Metric::LaneRestarts);
    state.slots[usize::from(slot)].outbox.rejoin(tx);
}

/// Hands one frame on; `false` when some before it are missing.
fn read_frame(
    driver: &RefCell<Driver>,
    slot: u16,
    me: ShardId,
    inbox: &mut Inbox,
    bytes: Bytes,
) -> bool {
    let mut rest = &bytes[..];
    match inbox.handle_frame(&mut rest) {
        Arrival::New { .. } => {}
        Arrival::Ignored => return true,
        Arrival::Gap { missing } => {
            error!(missing, lane = me.0, "frames missing on a lane");
            let missing = usize::try_from(missing).unwrap_or(usize::MAX);
            driver.borrow().counters.add(Metric::LaneGaps, missing);
            return false;
        }
    }
    let messages = bytes.slice_ref(rest);
    if let Some((from, sequence)) = inbox.finish_frame() {
        let frame = frame::is_awaited(&messages).then_some(FrameId { from, sequence });
        driver
            .borrow()
            .counters
            .add(Metric::ClusterOut, frame::count_messages(&messages));
        let state = &mut *driver.borrow_mut();
        let now = Instant::now();
        state.send_frame(slot, frame, messages, now);
        state.settle(now);
    }
    true
}

/// Hears from the shards what they have taken of a peer's messages.
pub(super) async fn hear_confirmations(
    driver: Rc<RefCell<Driver>>,
    slot: u16,
) -> Result<(), LaneError> {
    let (me, lanes) = {
        let state = driver.borrow();
        (state.cluster.end(slot), Arc::clone(&state.shared.lanes))
    };
    let mut taken = Vec::new();
    loop {
        lanes.confirmed(me, &mut taken).await;
        let state = &mut *driver.borrow_mut();
        for confirmation in taken.drain(..) {
            state.slots[usize::from(slot)].confirm(confirmation);
        }
        let now = Instant::now();
        state.pass_on(slot, now);
        state.settle(now);
    }
}

/// Hands peers' messages to the Router.
pub(super) async fn flush_lanes(driver: Rc<RefCell<Driver>>) {
    let work = Rc::clone(&driver.borrow().work);
    loop {
        work.outbox.notified().await;
        loop {
            let is_blocked = driver.borrow_mut().flush();
            if !is_blocked {
                break;
            }
            tokio::time::sleep(LANE_RETRY).await;
        }
    }
}

pub(super) async fn keep_time(driver: Rc<RefCell<Driver>>) {
    loop {
        driver.borrow_mut().look_for_missing(Instant::now());
        Driver::tell(&driver, Core::handle_timeout);
        driver.borrow_mut().tell_tally(Instant::now());
        driver.borrow_mut().finish_burials(Instant::now());
        driver.borrow_mut().look_for_strays();
        driver.borrow().publish_view(Instant::now());
        let beat = driver.borrow().core.beat();
        tokio::time::sleep(beat).await;
    }
}

/// Hears what is stored, until the shards are to stop.
pub(super) async fn follow_store(driver: Rc<RefCell<Driver>>) {
    let store = |ledger: &Ledger| (Arc::clone(ledger.store()), ledger.stopped());
    let Some((store, mut stopped)) = driver.borrow().ledger.as_ref().map(store) else {
        return;
    };
    loop {
        tokio::select! {
            () = store.changed(store.cluster()) => {
                driver.borrow_mut().note_delivered(Instant::now());
            }
            _ = stopped.wait_for(|stopped| *stopped) => break,
        }
    }
    if let Some(ledger) = &mut driver.borrow_mut().ledger {
        ledger.close();
    }
}

pub(super) async fn follow_table(driver: Rc<RefCell<Driver>>) {
    let cluster = Arc::clone(&driver.borrow().cluster);
    loop {
        cluster.work.notified().await;
        Driver::tell(&driver, |_core, _now| {});
    }
}

/// Looks what members of groups can take, and has other nodes know.
pub(super) async fn watch_groups(driver: Rc<RefCell<Driver>>) {
    let (shared, cluster) = {
        let state = driver.borrow();
        (Arc::clone(&state.shared), Arc::clone(&state.cluster))
    };
    let mut tick = tokio::time::interval(LOOK);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut place = None;
    loop {
        tick.tick().await;
        for (group, filter) in shared.shares.look(&mut place) {
            let (group, filter) = (&*group, &*filter);
            cluster.note_group(&shared.shares, SharedFilter { group, filter });
        }
    }
}

pub(super) async fn make_calls(driver: Rc<RefCell<Driver>>) {
    let work = Rc::clone(&driver.borrow().work);
    loop {
        work.calls.notified().await;
        let calls = std::mem::take(&mut driver.borrow_mut().calls);
        for address in calls {
            spawn_local(links::call(Rc::clone(&driver), address));
        }
    }
}

pub(super) async fn obey(driver: Rc<RefCell<Driver>>, mut orders: mpsc::Receiver<Order>) {
    while let Some(order) = orders.recv().await {
        let now = Instant::now();
        let state = &mut *driver.borrow_mut();
        let done = match order {
            Order::Join(address, done) => {
                state.core.join(&address, now);
                Some(done)
            }
            Order::Leave(done) => {
                state.core.leave(Parting::Leaves, now);
                state.shared.events.tell(&events::Event::ClusterLeft {});
                Some(done)
            }
            Order::Drain(done) => {
                state.drains.push(done);
                None
            }
            Order::Ask(node, question, reply) => {
                state.ask(&node, question, reply);
                None
            }
            Order::Reply(ticket, answer) => {
                state.reply(ticket, answer);
                None
            }
            #[cfg(test)]
            Order::Hang(done, until) => {
                let _ = done.send(());
                let _ = until.recv();
                None
            }
        };
        state.settle(now);
        state.publish_view(now);
        if let Some(done) = done {
            // Whoever asked may have given up.
            let _ = done.send(());
        }
    }
    // The node has gone without a word.
    std::future::pending::<()>().await;
}
