//! How an accepted client gets its session, and its connection a task.

use std::{cell::RefCell, future::poll_fn, pin::Pin, rc::Rc, sync::Arc, task::Poll, time::Instant};

use bytes::BytesMut;
use tokio::io::{AsyncRead as _, ReadBuf};
use tokio_util::task::TaskTracker;

use super::Arrival;
use crate::{
    cluster::claims::Refusal,
    codec::packet::{ConnectCode, Recipient},
    config::Limits,
    connection::Connection,
    gate::Slot,
    handshake,
    link::Link,
    metrics::Metric,
    shard::{Admission, Entrance, Shard},
    transport::Transport,
};

/// Bytes that a client may say while it waits; the rest waits in its socket.
const SAID_BOUND: usize = 4096;

/// Lets a client in once it is known which other nodes there are. Before, a node that has just started would
/// find no session where another one has it.
pub(super) fn enter(shard: &Rc<RefCell<Shard>>, arrival: Arrival, connections: &TaskTracker) {
    let cluster = shard.borrow().shared.cluster.clone();
    let Some(cluster) = cluster.filter(|cluster| !cluster.has_looked()) else {
        return claim(shard, arrival, connections);
    };
    let (shard, tracker) = (Rc::clone(shard), connections.clone());
    connections.spawn_local(async move {
        let mut arrival = arrival;
        let mut said = BytesMut::from(std::mem::take(&mut arrival.rest));
        tokio::select! {
            biased;
            () = cluster.looked() => {}
            () = hang_up(&mut arrival.transport, &mut said) => {
                shard.borrow().counters().inc(Metric::ClosedLost);
                return;
            }
        }
        arrival.rest = said.freeze();
        // The node may be about to stop.
        if !tracker.is_closed() {
            claim(&shard, arrival, &tracker);
        }
    });
}

/// Lets a client in, at once or when other nodes have said that it is the only one with its id.
fn claim(shard: &Rc<RefCell<Shard>>, arrival: Arrival, connections: &TaskTracker) {
    let entrance = shard.borrow_mut().claim_client(&arrival, Instant::now());
    match entrance {
        Ok(Entrance::Open(time)) => admit(shard, arrival, time, connections),
        Ok(Entrance::Later(time, verdict)) => {
            let (shard, tracker) = (Rc::clone(shard), connections.clone());
            connections.spawn_local(async move {
                let (mut arrival, mut verdict) = (arrival, verdict);
                let mut said = BytesMut::from(std::mem::take(&mut arrival.rest));
                let verdict = tokio::select! {
                    biased;
                    verdict = &mut verdict => verdict,
                    () = hang_up(&mut arrival.transport, &mut said) => {
                        return leave(&shard, &arrival, time);
                    }
                };
                arrival.rest = said.freeze();
                // Without a verdict the shard has ended.
                let Ok(verdict) = verdict else { return };
                match verdict {
                    Ok(()) => admit(&shard, arrival, time, &tracker),
                    Err(Refusal::Denied) => {
                        refuse(&shard, arrival, ConnectCode::ClientIdInvalid, &tracker);
                    }
                    Err(Refusal::Stuck) => {
                        refuse(&shard, arrival, ConnectCode::ServerUnavailable, &tracker);
                    }
                    // It is as if it had been let in, and sent away. There is no DISCONNECT before a
                    // CONNACK, and none of its codes says it.
                    Err(Refusal::TakenOver) => drop(arrival),
                }
            });
        }
        Err(code) => refuse(shard, arrival, code, connections),
    }
}

/// Waits until a client has hung up that has said nothing behind its CONNECT. What it says goes to
/// `said`, up to a bound; who says something and hangs up has meant it.
async fn hang_up(transport: &mut Box<dyn Transport>, said: &mut BytesMut) {
    let mut buffer = [0; 512];
    poll_fn(|context| {
        while said.len() < SAID_BOUND {
            let mut read = ReadBuf::new(&mut buffer);
            let polled = Pin::new(&mut *transport).poll_read(context, &mut read);
            match polled {
                Poll::Ready(Ok(())) if !read.filled().is_empty() => {
                    said.extend_from_slice(read.filled());
                }
                Poll::Ready(_) if said.is_empty() => return Poll::Ready(()),
                Poll::Ready(_) | Poll::Pending => break,
            }
        }
        Poll::Pending
    })
    .await;
}

/// Has nobody wait for a client that has gone.
fn leave(shard: &Rc<RefCell<Shard>>, arrival: &Arrival, time: u64) {
    let admission = Admission {
        client_id: arrival.connect.client_id.clone(),
        time,
        clean_start: false,
    };
    let mut shard = shard.borrow_mut();
    shard.counters().inc(Metric::ClosedLost);
    shard.finish_claim(&admission, None, Instant::now());
}

fn admit(shard: &Rc<RefCell<Shard>>, arrival: Arrival, time: u64, connections: &TaskTracker) {
    let Arrival {
        transport,
        peer,
        connect,
        identity,
        assigned_client_id,
        rest,
        slot,
    } = arrival;
    let now = Instant::now();
    let assigned = assigned_client_id.then(|| connect.client_id.clone());
    let mut state = shard.borrow_mut();
    let keep_alive = state
        .imposed_keep_alive(&connect)
        .unwrap_or(connect.keep_alive);
    let counters = Arc::clone(state.counters());
    let link = Link::new(peer, &connect, state.limits(), counters);
    let client = connect.recipient();
    let admission = Admission {
        client_id: connect.client_id.clone(),
        time,
        clean_start: connect.clean_start,
    };
    let answer = state.connect(connect, identity, assigned, &link, now);
    state.finish_claim(&admission, answer.as_ref().ok().copied(), now);
    let limits = state.limits();
    if answer.is_ok() {
        state.shared.connect_times.observe(slot.since().elapsed());
    }
    drop(state);
    match answer {
        Ok(key) => {
            let connection = Connection::new(
                transport,
                Rc::clone(shard),
                key,
                link,
                limits,
                keep_alive,
                rest,
            );
            connections.spawn_local(async move {
                connection.await;
                drop(slot);
            });
        }
        Err(code) => send_away((transport, client, slot), code, limits, connections),
    }
}

fn refuse(
    shard: &Rc<RefCell<Shard>>,
    arrival: Arrival,
    code: ConnectCode,
    connections: &TaskTracker,
) {
    let limits = shard.borrow().limits();
    let client = arrival.connect.recipient();
    let stranger = (arrival.transport, client, arrival.slot);
    send_away(stranger, code, limits, connections);
}

fn send_away(
    (mut transport, client, slot): (Box<dyn Transport>, Recipient, Slot),
    code: ConnectCode,
    limits: Limits,
    connections: &TaskTracker,
) {
    connections.spawn_local(async move {
        let refusal = handshake::refuse(&mut transport, code, client);
        // One that does not read would keep its place for good.
        let _late = tokio::time::timeout(limits.connect_timeout, refusal).await;
        drop(slot);
    });
}
