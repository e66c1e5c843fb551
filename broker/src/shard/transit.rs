//! Sessions on their way to other nodes, from the side of the node that they leave.
//!
//! ```text
//! claimed -> link closed, absent -> pieces -> the last one -> installed -> told -> over, forgotten
//!            what comes is queued,            and              forwarded alone
//!            and is in a later piece          forwarded
//! ```
//!
//! Until the other node says that the session is *installed* it is whole here, and goes on here if that
//! node is lost. From then on it is a *ghost*: its filters, for what other nodes send here still. Once
//! all nodes know of them at the new place, and every shard of every node has confirmed that nothing
//! older is on its way (`barrier`), the other node hears that it has all.

use std::{sync::Arc, time::Instant};

use tracing::debug;

use super::{
    Entry, SessionKey, Shard,
    account::Line,
    barrier::Purpose,
    settling::{Phase, Settling},
};
use crate::{
    cluster::{
        claims::{Answer, Fellow},
        word::{Granted, Word},
    },
    lanes::frame::{self, Writer},
    message::{Message, MessageId, Qos},
    metrics::Metric,
    receipts::{Need, Needs},
    replica::{Step, wire},
    routes::ShardId,
    session::{Delivered, Grant, Place, Portion},
};

/// Bytes of a session that travel together.
const PIECE_BYTES: usize = 64 * 1024;

/// Bytes that may wait for a lane before no more of sessions is put there: they wait where they are.
const ROOM: usize = 512 * 1024;

/// Messages that a client may have had, in one piece.
const HAD_AT_ONCE: usize = 2000;

/// Pieces in a turn.
const PIECES_PER_TURN: usize = 64;

/// How a session is on its way.
pub(super) enum Transit {
    Leaving(Leaving),
    Settling(Settling),
}

/// A session that goes to another node.
pub(super) struct Leaving {
    to: Fellow,
    /// Of the claim.
    time: u64,
    place: Place,
    /// What its client may have had, as far as that was not sent.
    had: Vec<(MessageId, u64)>,
    pub(super) is_installed: bool,
    is_told: bool,
    deadline: Instant,
}

impl Leaving {
    fn is_sent(&self) -> bool {
        self.place == Place::End
    }

    /// That of the node that it goes to.
    pub(super) fn end(&self) -> ShardId {
        self.to.end
    }

    /// Whether it goes to the node at this end of a lane.
    pub(super) fn is_for(&self, end: ShardId) -> bool {
        self.to.end == end
    }
}

impl Shard {
    fn leaving(&mut self, client_id: &str) -> Option<(SessionKey, &mut Leaving)> {
        let key = self.sessions.find(client_id)?;
        let transit = self.sessions.get_mut(key)?.transit.as_deref_mut();
        match transit? {
            Transit::Leaving(leaving) => Some((key, leaving)),
            Transit::Settling(_) => None,
        }
    }

    /// Begins to send an absent session to another node.
    pub(super) fn depart(&mut self, key: SessionKey, to: Fellow, time: u64, now: Instant) {
        let deadline = now + self.clustered.patience;
        let Some(entry) = self.sessions.get_mut(key) else {
            return;
        };
        debug!(client_id = %entry.client_id, "session goes to another node");
        let had = entry.had.iter().map(|(id, node)| (*id, *node)).collect();
        entry.transit = Some(Box::new(Transit::Leaving(Leaving {
            to,
            time,
            place: Place::Start,
            had,
            is_installed: false,
            is_told: false,
            deadline,
        })));
        let client_id = Arc::clone(&entry.client_id);
        self.clustered.moving.insert(Arc::clone(&client_id));
        self.clustered.departures.push_back(client_id);
        self.schedule(key);
        self.outbox_work.notify_one();
    }

    /// Sends pieces of sessions as far as there is room; tells whether there are more.
    pub(super) fn send_pieces(&mut self, now: Instant) -> bool {
        let turns = self.clustered.departures.len().min(PIECES_PER_TURN);
        for _ in 0..turns {
            let Some(client_id) = self.clustered.departures.pop_front() else {
                break;
            };
            if self.send_piece(&client_id, now) {
                self.clustered.departures.push_back(client_id);
            }
        }
        !self.clustered.departures.is_empty()
    }

    /// Sends a piece, if there is room; tells whether the session has more.
    fn send_piece(&mut self, client_id: &str, now: Instant) -> bool {
        let patience = self.clustered.patience;
        let Some(key) = self.sessions.find(client_id) else {
            return false;
        };
        let Some(entry) = self.sessions.get_mut(key) else {
            return false;
        };
        let profile = entry.profile();
        let Some(Transit::Leaving(leaving)) = entry.transit.as_deref_mut() else {
            return false;
        };
        if leaving.is_sent() {
            return false;
        }
        // What it has left to others of its groups may come back to it.
        let is_left = |session| self.orphans.has_of(session) && !self.is_stopping;
        let is_awaited = entry.session.number().is_some_and(is_left);
        if is_awaited || entry.session.is_spreading() || self.outbox.waiting(leaving.to.end) > ROOM
        {
            return true;
        }
        leaving.deadline = now + patience;
        let (to, time) = (leaving.to.end, leaving.time);
        if !leaving.had.is_empty() {
            let left = leaving.had.len().saturating_sub(HAD_AT_ONCE);
            let piece = wire::piece_of_had(&leaving.had.split_off(left), now);
            let word = Word::Piece {
                client_id,
                time,
                piece: &piece,
                greetings: Vec::new(),
                is_last: false,
            };
            self.say(to, &word, false);
            return true;
        }
        let (portion, next) = entry.session.portion(profile, &leaving.place, PIECE_BYTES);
        let is_last = next == Place::End;
        leaving.place = next;
        let greetings = if is_last {
            entry.session.greetings()
        } else {
            Vec::new()
        };
        let piece = self.encode_portion(portion, now);
        let word = Word::Piece {
            client_id,
            time,
            piece: &piece,
            greetings,
            is_last,
        };
        self.say(to, &word, false);
        !is_last
    }

    fn encode_portion(&self, portion: Portion, now: Instant) -> bytes::Bytes {
        let Portion {
            state,
            received,
            subscriptions,
            messages,
        } = portion;
        let mut writer = wire::Writer::new(now);
        if let Some(state) = state {
            writer.push(&Step::State(state));
        }
        for (id, spread) in received {
            writer.push(&Step::Received(id, spread));
        }
        for (filter, subscription) in subscriptions {
            writer.push(&Step::Subscribed(filter, subscription));
        }
        for message in messages {
            let name = |share| self.shared.shares.name(share);
            writer.push(&Step::taken(message, name));
        }
        writer.take()
    }

    /// Delivers a message to a session that is on its way.
    pub(super) fn deliver_in_transit(
        &mut self,
        key: SessionKey,
        message: &Arc<Message>,
        grant: Grant,
        needs: &mut Needs,
        now: Instant,
    ) -> Delivered {
        let Some(entry) = self.sessions.get_mut(key) else {
            return Delivered::Skipped;
        };
        let Some(Transit::Leaving(leaving)) = entry.transit.as_deref() else {
            return self.deliver_settling(key, message, grant, now);
        };
        let (to, time, is_sent) = (leaving.to.end, leaving.time, leaving.is_sent());
        let mut delivered = Delivered::Queued;
        if !leaving.is_installed {
            let nobody = None::<&mut Line<'_>>;
            delivered = entry.session.deliver(message, grant.clone(), nobody, now);
        }
        // QoS 0 may be lost, but must not come twice.
        if is_sent && delivered == Delivered::Queued && grant.qos > Qos::AtMostOnce {
            let client_id = Arc::clone(&entry.client_id);
            let mut bytes = Writer::new(ShardId(0), 0);
            bytes.push(message, &[], now);
            let group = grant.share.and_then(|share| self.shared.shares.tag(share));
            let word = Word::Forward {
                client_id: &client_id,
                time,
                grant: Granted {
                    qos: grant.qos as u8,
                    retain: grant.retain,
                    subscription_ids: grant.subscription_ids,
                    group,
                },
                message: &bytes.finish()[frame::HEADER..],
            };
            let sequence = self.say(to, &word, true);
            needs.add(Need::Frame { to, sequence });
        }
        delivered
    }

    /// The session is at its new place, and stored there.
    pub(super) fn handle_installed(
        &mut self,
        from: Fellow,
        client_id: &str,
        time: u64,
        now: Instant,
    ) {
        let deadline = now + self.clustered.patience;
        let Some((key, leaving)) = self.leaving(client_id) else {
            return;
        };
        if (leaving.to, leaving.time) != (from, time) || !leaving.is_sent() {
            return;
        }
        leaving.is_installed = true;
        leaving.deadline = deadline;
        let is_told = leaving.is_told;
        if let Some(entry) = self.sessions.get_mut(key) {
            let profile = entry.profile();
            if let Some(session) = entry.session.hollow() {
                self.note_over(session, profile, &[]);
            }
        }
        self.counters.inc(Metric::ClusterMovedOut);
        self.clustered.claims.release(client_id);
        if is_told {
            self.end_ghost_later(client_id);
        }
        let is_next = self.clustered.arrivals.contains_key(client_id);
        self.install(client_id, now);
        if is_next {
            // Who was given the older one, or has another since, is the one to have both.
            for fellow in self.clustered.fellows.clone() {
                self.claim_session(fellow, client_id);
            }
        }
    }

    /// All nodes know of the session's filters at its new place.
    pub(super) fn handle_told(&mut self, from: Fellow, client_id: &str, time: u64) {
        let Some((_key, leaving)) = self.leaving(client_id) else {
            return;
        };
        if (leaving.to, leaving.time) != (from, time) || leaving.is_told {
            return;
        }
        leaving.is_told = true;
        if leaving.is_installed {
            self.end_ghost_later(client_id);
        }
    }

    /// Other nodes send all to the new place by now: what they have sent here alone is waited for.
    ///
    /// Its filters stay where they are meanwhile. If they were taken out of the routes, and came back
    /// with another session, a message could be forwarded that is younger than one which was not.
    fn end_ghost_later(&mut self, client_id: &str) {
        let barriers = &mut self.clustered.barriers;
        barriers.wait(Purpose::Ghost(client_id.into()));
        self.start_barrier();
    }

    /// Nothing more comes for a ghost.
    pub(super) fn end_ghost(&mut self, client_id: &str, now: Instant) {
        let Some((key, leaving)) = self.leaving(client_id) else {
            return;
        };
        let (to, time) = (leaving.to.end, leaving.time);
        if leaving.is_installed {
            self.say(to, &Word::Over { client_id, time }, false);
            self.forget(key, Vec::new(), now);
        }
    }

    /// Takes a session that is on its way back, if it can be; a ghost is forgotten.
    pub(super) fn call_back(&mut self, key: SessionKey, now: Instant) {
        let Some(entry) = self.sessions.get_mut(key) else {
            return;
        };
        let Some(Transit::Leaving(leaving)) = entry.transit.as_deref() else {
            return;
        };
        if leaving.is_installed {
            let client_id = Arc::clone(&entry.client_id);
            return self.end_ghost(&client_id, now);
        }
        let (to, time, was_sent) = (leaving.to, leaving.time, leaving.is_sent());
        entry.transit = None;
        let (client_id, session) = (Arc::clone(&entry.client_id), entry.session.number());
        debug!(%client_id, "session does not go to another node");
        self.clustered.moving.remove(&client_id);
        if was_sent {
            // Where it went it may have taken the place of its copy.
            if let (Some(account), Some(session)) = (&self.account, session) {
                let mut book = account.book().borrow_mut();
                book.note_forgotten(session, to.end, now);
                drop(book);
                account.copy_soon();
                self.outbox_work.notify_one();
            }
        }
        let word = Word::Answer {
            client_id: &client_id,
            time,
            answer: Answer::Nothing,
        };
        if self.clustered.fellows.contains(&to) {
            self.say(to.end, &word, false);
        }
        let policy = self.shared.access.policy();
        self.judge(key, &policy, now);
        self.schedule(key);
        self.clustered.claims.release(&client_id);
        self.install(&client_id, now);
    }

    /// The session cannot go to where it was claimed.
    pub(super) fn handle_unreadable(
        &mut self,
        from: Fellow,
        client_id: &str,
        time: u64,
        now: Instant,
    ) {
        if let Some((key, leaving)) = self.leaving(client_id)
            && (leaving.to, leaving.time) == (from, time)
            && !leaving.is_installed
        {
            self.call_back(key, now);
        }
    }

    /// Before a session that is on its way is forgotten: nothing of it must be left.
    pub(super) fn forget_transit(&mut self, entry: &mut Entry) {
        let Some(transit) = entry.transit.take() else {
            return;
        };
        self.clustered.moving.remove(&entry.client_id);
        match *transit {
            Transit::Leaving(leaving) if leaving.is_installed => {}
            Transit::Leaving(leaving) => {
                let word = Word::Answer {
                    client_id: &entry.client_id,
                    time: leaving.time,
                    answer: Answer::Nothing,
                };
                self.say(leaving.to.end, &word, false);
            }
            // What is noted of them must be told of with the rest.
            Transit::Settling(settling) => {
                // Where it was it is a member of its groups until then.
                if settling.phase == Phase::Early {
                    self.tell_when_known(settling.from, &entry.client_id, settling.time);
                }
                settling.give_up(&mut entry.session);
            }
        }
        self.clustered.claims.release(&entry.client_id);
    }

    /// Does without nodes that are lost.
    pub(super) fn handle_lost_fellows(&mut self, now: Instant) {
        let fellows = &self.clustered.fellows;
        self.clustered
            .arrivals
            .retain(|_client_id, arrival| fellows.contains(&arrival.from));
        for client_id in self.clustered.moving.clone() {
            let Some(key) = self.sessions.find(&client_id) else {
                continue;
            };
            let fellows = &self.clustered.fellows;
            let entry = self.sessions.get_mut(key);
            match entry.and_then(|entry| entry.transit.as_deref()) {
                Some(Transit::Leaving(leaving)) if !fellows.contains(&leaving.to) => {
                    self.call_back(key, now);
                }
                Some(Transit::Settling(settling)) if !fellows.contains(&settling.from) => {
                    self.stop_holding(key, now);
                }
                Some(_) | None => {}
            }
        }
        self.handle_lost_marks(now);
    }

    /// Gives up waiting where it has lasted too long.
    pub(super) fn handle_transit_timeout(&mut self, now: Instant) {
        self.follow_fellows(now);
        // Before its client is let in without it.
        self.give_up_late_arrivals(now);
        self.clustered.claims.handle_timeout(now);
        self.release_tellings();
        self.end_barrier(now);
        for client_id in self.clustered.moving.clone() {
            let Some(key) = self.sessions.find(&client_id) else {
                continue;
            };
            let entry = self.sessions.get_mut(key);
            match entry.and_then(|entry| entry.transit.as_deref()) {
                Some(Transit::Leaving(leaving)) if leaving.deadline <= now => {
                    self.call_back(key, now);
                }
                Some(Transit::Settling(settling)) if settling.deadline <= now => {
                    self.stop_waiting(key, now);
                }
                Some(_) | None => {}
            }
        }
        self.act_on_claims(now);
    }
}
