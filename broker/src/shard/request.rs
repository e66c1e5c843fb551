//! What the rest of the node asks of a shard, which owns what is asked for.
//!
//! Each answer is a short piece of work: a listing is asked for in pieces, so that no client waits
//! for an operator.

use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;

use super::{SeeOff, SeenOff, Shard, inspect::Piece};
use crate::{
    codec::packet::reason,
    control::view::{ClientView, Kicked, SessionView, SubscriptionView, TopicView},
    metrics::Metric,
    session::Cause,
};

/// Where an answer goes. Who asked may have left: nobody minds then.
pub(crate) type Answer<T> = oneshot::Sender<T>;

/// A question, or an order.
pub(crate) enum Request {
    Vitals(Answer<Vitals>),
    Clients(Query, Answer<Piece<ClientView>>),
    Sessions(Query, Answer<Piece<SessionView>>),
    Subscriptions(Query, Answer<Piece<SubscriptionView>>),
    Topics(Query, Answer<Piece<TopicView>>),
    Kick(Kick, Answer<Option<Kicked>>),
    /// Send some clients elsewhere.
    SeeOff(SeeOff, Answer<SeenOff>),
    /// Take no more messages, and publish the wills that are due when the node stops.
    Drain(Answer<()>),
    /// How many frames went either way, if everything that was taken is on its way to its
    /// subscribers.
    FramesIfDrained(Answer<Option<u64>>),
    /// Do nothing, as a thread that hangs, until the other end is dropped.
    #[cfg(test)]
    Hang(Answer<()>, std::sync::mpsc::Receiver<()>),
}

/// How a shard is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Vitals {
    pub(crate) sessions: usize,
    pub(crate) connections: usize,
    /// What its thread has used of a core since it began.
    pub(crate) cpu: Duration,
}

/// Which rows of a listing are wanted; the empty one wants all. Nodes ask each other with it, too.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Query {
    /// Rows up to this key were had.
    pub(crate) after: Option<Box<str>>,
    /// The most rows that are wanted.
    pub(crate) limit: usize,
    pub(crate) filter: Selection,
}

/// What the rows must have in common.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Selection {
    /// How their client ids begin.
    pub(crate) prefix: Box<str>,
    /// Of one client.
    pub(crate) client: Option<Box<str>>,
    /// Of clients that do not keep up.
    pub(crate) slow: bool,
    /// Subscriptions with this filter.
    pub(crate) filter: Option<Box<str>>,
    /// Subscriptions whose filter matches this topic.
    pub(crate) topic: Option<Box<str>>,
}

/// Whom to send away.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Kick {
    pub(crate) client_id: Box<str>,
    /// With all that is kept for it.
    pub(crate) end_session: bool,
}

impl Shard {
    pub(super) fn handle_request(&mut self, request: Request, connections: usize, now: Instant) {
        match request {
            Request::Vitals(answer) => {
                let _ = answer.send(Vitals {
                    sessions: self.sessions.len(),
                    connections,
                    cpu: thread_time(),
                });
            }
            Request::Clients(query, answer) => {
                let _ = answer.send(self.clients(&query, now));
            }
            Request::Sessions(query, answer) => {
                let _ = answer.send(self.kept_sessions(&query, now));
            }
            Request::Subscriptions(query, answer) => {
                let _ = answer.send(self.subscriptions(&query));
            }
            Request::Topics(query, answer) => {
                let _ = answer.send(self.topics(&query));
            }
            Request::Kick(kick, answer) => {
                let _ = answer.send(self.kick(&kick, now));
            }
            // Nobody would count those whom nobody waits for any more.
            Request::SeeOff(_whom, answer) if answer.is_closed() => {}
            Request::SeeOff(whom, answer) => {
                let _ = answer.send(self.see_off(&whom, now));
            }
            Request::Drain(answer) => {
                self.drain(now);
                let _ = answer.send(());
            }
            Request::FramesIfDrained(answer) => {
                let frames = self.outbox.frames() + self.frames_taken;
                let _ = answer.send(self.is_drained().then_some(frames));
            }
            #[cfg(test)]
            Request::Hang(answer, until) => {
                let _ = answer.send(());
                let _ = until.recv();
            }
        }
    }

    /// Closes a client's connection, and ends its session if that is wanted; `None` when there is
    /// neither.
    fn kick(&mut self, kick: &Kick, now: Instant) -> Option<Kicked> {
        let key = self.sessions.find(&kick.client_id)?;
        let entry = self.sessions.get_mut(key)?;
        if entry.is_leaving() {
            return None;
        }
        if kick.end_session {
            entry.session.set_expiry(Duration::ZERO);
        }
        let was_connected = match entry.link.clone() {
            Some(link) => {
                link.close(reason::ADMINISTRATIVE_ACTION);
                self.counters.inc(Metric::ClosedKicked);
                self.disconnect(key, &link, Cause::Broken, now);
                true
            }
            None if kick.end_session => {
                let aftermath = entry.session.end(now);
                self.settle(key, aftermath, Vec::new(), now);
                false
            }
            None => false,
        };
        Some(Kicked {
            node: None,
            was_connected,
            session_ended: self.sessions.find(&kick.client_id) != Some(key),
        })
    }

    fn drain(&mut self, now: Instant) {
        self.is_draining = true;
        // A client that is connected when the node stops may be back, elsewhere, before its will's
        // delay is over. Who is away cannot come back to a session that ends with the node.
        let entries = self.sessions.iter_mut();
        let wills: Vec<_> = entries
            .filter(|entry| !entry.is_leaving())
            .filter_map(|entry| Some((entry.session.last_will(now)?, entry.kept_profile())))
            .collect();
        for (will, owner) in wills {
            self.publish_will(will, owner, now);
        }
    }

    /// Whether other shards have all that is theirs, and clients' sockets all that they may have.
    fn is_drained(&self) -> bool {
        let account = self.account();
        self.outbox.is_delivered()
            && self.orphans.is_empty()
            && !self.clustered.has_departures()
            && account.is_none_or(|account| account.is_settled())
            && self.sessions.iter().all(|entry| entry.is_quiet())
    }

    /// Whether the node is about to stop.
    pub(crate) fn is_draining(&self) -> bool {
        self.is_draining
    }
}

fn thread_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(
        u64::try_from(time.tv_sec).unwrap_or(0),
        u32::try_from(time.tv_nsec).unwrap_or(0),
    )
}
