//! Sessions that come from other nodes: their pieces, and how they go on here.

mod telling;

use std::{
    sync::{Arc, atomic::Ordering},
    time::Instant,
};

use tracing::{debug, warn};

use super::{
    SessionKey, Shard,
    barrier::Purpose,
    settling::{Forwarded, Phase, Settling},
    transit::Transit,
};
use crate::{
    access::Identity,
    cluster::{
        claims::{Answer, Fellow},
        word::{Granted, Word},
    },
    message::MessageId,
    metrics::Metric,
    receipts::{Needs, Waiter},
    replica::{
        Shadow,
        wire::{Malformed, Reader},
    },
    session::{
        Reserved, Restored, RestoredMessage, Session,
        journal::{Profile, Progress, SessionId, State},
    },
    topic::{self, SharedFilter, Wanted},
    trie::Inserted,
};

/// The pieces of a session so far.
pub(super) struct Arrival {
    pub(super) from: Fellow,
    time: u64,
    shadow: Shadow,
    /// Retained messages that the client has not had; there with the last piece.
    greetings: Option<Greetings>,
    /// When the next piece is late.
    deadline: Instant,
    /// What the older node has forwarded, of a session that is whole.
    forwards: Vec<Forward>,
    forwarded_bytes: usize,
}

/// A message for a session that is not here yet.
struct Forward {
    grant: Granted,
    message: Box<[u8]>,
    room: Reserved,
}

/// Why a session does not come.
#[derive(Debug, thiserror::Error)]
enum Obstacle {
    #[error(transparent)]
    Malformed(#[from] Malformed),
    #[error("nothing more of it comes")]
    Late,
}

/// Filters whose retained messages are not all sent, and the topics reached.
type Greetings = Vec<(Box<str>, Option<Box<str>>)>;

/// A session whose older node is to hear that it is here.
pub(super) struct Install {
    to: Fellow,
    client_id: Arc<str>,
    time: u64,
}

/// A session whose older node is to hear that all know of its filters.
pub(super) struct Telling {
    /// That others have to know.
    version: u64,
    to: Fellow,
    client_id: Arc<str>,
    time: u64,
}

impl Shard {
    /// Takes in a part of a session.
    pub(super) fn handle_piece(
        &mut self,
        from: Fellow,
        client_id: &str,
        time: u64,
        piece: &[u8],
        now: Instant,
    ) {
        let deadline = now + self.clustered.patience;
        let new = || Arrival {
            from,
            time,
            shadow: Shadow::default(),
            greetings: None,
            deadline,
            forwards: Vec::new(),
            forwarded_bytes: 0,
        };
        let arrivals = &mut self.clustered.arrivals;
        let arrival = arrivals.entry(client_id.into()).or_insert_with(new);
        if (arrival.from, arrival.time) != (from, time) {
            *arrival = new();
        }
        arrival.deadline = deadline;
        let read = Reader::new(piece, now).try_for_each(|step| {
            let (_whose, step) = step?;
            arrival.shadow.apply(step);
            Ok::<(), Malformed>(())
        });
        match read {
            Ok(()) => self.clustered.claims.handle_part(client_id, time, now),
            Err(error) => self.give_up_arrival(from, client_id, time, &error.into()),
        }
    }

    /// Leaves a session where it is: half of it must not take the place of the whole.
    fn give_up_arrival(&mut self, from: Fellow, client_id: &str, time: u64, why: &Obstacle) {
        warn!(client_id, %why, "a session of another node stays there");
        self.clustered.arrivals.remove(client_id);
        self.say(from.end, &Word::Unreadable { client_id, time }, false);
        let claims = &mut self.clustered.claims;
        claims.give_up(client_id, time);
        claims.release(client_id);
    }

    /// Leaves sessions where they are of which nothing more has come. Those that are whole wait for
    /// others, which have deadlines of their own.
    pub(super) fn give_up_late_arrivals(&mut self, now: Instant) {
        let is_late = |arrival: &Arrival| arrival.greetings.is_none() && arrival.deadline <= now;
        let arrivals = self.clustered.arrivals.iter();
        let late = arrivals.filter(|(_client_id, arrival)| is_late(arrival));
        let late: Vec<_> = late
            .map(|(client_id, arrival)| (client_id.clone(), arrival.from, arrival.time))
            .collect();
        for (client_id, from, time) in late {
            self.give_up_arrival(from, &client_id, time, &Obstacle::Late);
        }
    }

    /// Keeps what was forwarded for a session that is whole and not here yet; tells whether it is for
    /// such a one. What is for a group is not kept where there is no room: others have some.
    pub(super) fn keep_forward(&mut self, forwarded: &Forwarded<'_>) -> bool {
        let Forwarded {
            from,
            client_id,
            time,
            grant,
            message,
        } = forwarded;
        let most = self.shared.limits().queue_bytes;
        let arrival = self.clustered.arrivals.get_mut(*client_id);
        let Some(arrival) = arrival.filter(|it| (it.from, it.time) == (*from, *time)) else {
            return false;
        };
        let has_room = arrival.forwarded_bytes < most;
        let stock = Some(&self.shared.stock).filter(|_stock| has_room);
        let Some(room) = stock.and_then(|stock| stock.reserve(message.len())) else {
            if grant.group.is_some() {
                return false;
            }
            self.counters.inc(Metric::DroppedQueue);
            return true;
        };
        arrival.forwarded_bytes += message.len();
        arrival.forwards.push(Forward {
            grant: grant.clone(),
            message: (*message).into(),
            room,
        });
        true
    }

    /// The older node has kept the session.
    pub(super) fn forget_arrival(&mut self, from: Fellow, client_id: &str) {
        let arrivals = &mut self.clustered.arrivals;
        if arrivals
            .get(client_id)
            .is_some_and(|arrival| arrival.from == from)
        {
            arrivals.remove(client_id);
            self.clustered.claims.release(client_id);
        }
    }

    /// Takes note that this was the last part.
    pub(super) fn handle_last_piece(
        &mut self,
        from: Fellow,
        client_id: &str,
        time: u64,
        greetings: Greetings,
        now: Instant,
    ) {
        let arrival = self.clustered.arrivals.get_mut(client_id);
        if let Some(arrival) =
            arrival.filter(|arrival| (arrival.from, arrival.time) == (from, time))
        {
            arrival.greetings = Some(greetings);
            self.install(client_id, now);
        }
    }

    /// Has a session that is here as a whole go on here. One that was here, and is just leaving, is
    /// waited for.
    pub(super) fn install(&mut self, client_id: &str, now: Instant) {
        let key = self.sessions.find(client_id);
        if let Some(entry) = key.and_then(|key| self.sessions.get_mut(key))
            && entry.is_leaving()
            && !entry.is_ghost()
        {
            return;
        }
        let arrivals = &mut self.clustered.arrivals;
        let is_whole = |arrival: &&mut Arrival| arrival.greetings.is_some();
        if arrivals.get_mut(client_id).filter(is_whole).is_none() {
            return;
        }
        let Some(Arrival {
            from,
            time,
            shadow,
            greetings,
            deadline: _,
            forwards,
            forwarded_bytes: _,
        }) = arrivals.remove(client_id)
        else {
            return;
        };
        let mut had = shadow.had().clone();
        had.retain(|_id, node| !self.shadows.has_brought_all(*node));
        let Some(restored) = shadow.into_restored(SessionId(0)) else {
            return self.give_up_arrival(from, client_id, time, &Malformed.into());
        };
        let greetings = greetings.unwrap_or_default();
        if let Some(key) = key {
            self.call_back(key, now);
        }
        let noted = self.noted();
        let mut needs = Needs::default();
        let (key, is_new, is_heir) = match self.sessions.find(client_id) {
            Some(key) if self.inherits(key, &restored) => {
                self.add_subscriptions(key, restored.subscriptions);
                let policy = self.shared.access.policy();
                self.restrict(key, &policy, now);
                self.merge(key, restored.messages, now);
                (key, false, true)
            }
            Some(key) => {
                self.share_left(restored.messages, &mut needs, now);
                (key, false, false)
            }
            None => (self.take_over_session(restored, greetings, now), true, true),
        };
        self.counters.inc(Metric::ClusterMovedIn);
        self.shadows.supersede(from.end, client_id);
        let deadline = now + self.clustered.patience;
        let Some(entry) = self.sessions.get_mut(key) else {
            return;
        };
        debug!(client_id, "session has come from another node");
        if is_new {
            entry.time = time;
        }
        if is_heir {
            entry.had.append(&mut had);
        }
        let client_id = Arc::clone(&entry.client_id);
        if is_heir && entry.transit.is_none() {
            let phase = if is_new { Phase::Early } else { Phase::Late };
            let seen = entry.session.message_ids();
            let settling = Settling::new(from, time, phase, seen, deadline);
            entry.transit = Some(Box::new(Transit::Settling(settling)));
            self.clustered.moving.insert(Arc::clone(&client_id));
        }
        for forward in forwards {
            // The session takes room of its own.
            drop(forward.room);
            let forwarded = Forwarded {
                from,
                client_id: &client_id,
                time,
                grant: forward.grant,
                message: &forward.message,
            };
            self.handle_forward(forwarded, &mut needs, now);
        }
        let install = Install {
            to: from,
            client_id: Arc::clone(&client_id),
            time,
        };
        self.need_noted(noted, &mut needs);
        self.note_install(&needs, install);
        if is_new {
            let barriers = &mut self.clustered.barriers;
            barriers.wait(Purpose::Settling(Arc::clone(&client_id), time));
            self.start_barrier();
            let policy = self.shared.access.policy();
            self.judge(key, &policy, now);
        } else {
            self.tell_when_known(from, &client_id, time);
        }
        let claims = &mut self.clustered.claims;
        claims.handle_answer(from, &client_id, time, Answer::Nothing, now);
        claims.release(&client_id);
    }

    /// Makes a session as it was on another node.
    fn take_over_session(
        &mut self,
        restored: Restored,
        greetings: Greetings,
        now: Instant,
    ) -> SessionKey {
        let Restored {
            session: _,
            profile,
            expiry,
            ends,
            will,
            will_due,
            subscriptions,
            received,
            messages,
        } = restored;
        let Profile {
            client_id,
            user,
            is_assigned,
            grants,
            since,
        } = profile.clone();
        let mut session = Session::new(self.room());
        if let Some(account) = &self.account {
            session.keep(profile.clone(), || account.open_session());
        }
        let state = State {
            profile: Arc::new(profile),
            expiry,
            ends,
            will,
            will_due,
        };
        session.take_over_state(state, now);
        for (filter, subscription) in &subscriptions {
            session.subscribe(filter, *subscription);
        }
        for (id, spread) in received {
            session.take_over_received(id, spread);
        }
        for (filter, after) in greetings {
            session.take_over_greeting(filter, after);
        }
        let is_kept = session.is_kept();
        let owner = Identity::of_earlier(user, grants);
        let key = self.sessions.insert(&client_id, owner, session);
        // It was let in once, and a limit that is reached here is for others.
        self.shared.sessions.fetch_add(1, Ordering::AcqRel);
        self.counters.inc(Metric::Sessions);
        self.counters
            .add(Metric::Subscriptions, subscriptions.len());
        for (filter, subscription) in subscriptions {
            self.filters.add(&filter);
            match topic::parse_filter(&filter) {
                Some(Wanted::Share(shared)) => self.join_group(key, shared, subscription),
                Some(Wanted::All(filter)) => {
                    if self.subscribers.insert(filter, key, subscription) == Inserted::NewFilter {
                        self.shared.add_route(filter, self.id);
                    }
                    if is_kept {
                        self.shared.kept_routes.add(filter, self.id);
                    }
                }
                None => {}
            }
        }
        if let Some(entry) = self.sessions.get_mut(key) {
            entry.is_assigned = is_assigned;
            entry.set_since(since);
            for message in messages {
                let message = with_group(&self.shared.shares, message);
                entry.session.take_over_message(message);
            }
            entry.note_appetite();
        }
        self.schedule(key);
        key
    }

    /// Whether an older session's messages are for the one that is here: not if that is another
    /// user's, or if its client has wanted none of the older one.
    pub(super) fn inherits(&mut self, key: SessionKey, restored: &Restored) -> bool {
        let Profile { user, since, .. } = &restored.profile;
        self.sessions.get_mut(key).is_some_and(|entry| {
            entry.owner.user() == user.as_deref() && entry.begun <= since.connected
        })
    }

    /// Gives messages of an older session to the one that is here.
    pub(super) fn merge(&mut self, key: SessionKey, messages: Vec<RestoredMessage>, now: Instant) {
        let Some(entry) = self.sessions.get_mut(key) else {
            return;
        };
        let known = entry.session.message_ids();
        for message in messages {
            let message = with_group(&self.shared.shares, message);
            let id = message.content.as_ref().map(|(message, _grant)| message.id);
            // Under another identifier: the client has not had it here.
            let is_new = |id: MessageId| !known.contains(&id) && !entry.had.contains_key(&id);
            if id.is_some_and(|id| id.is_none() || is_new(id)) {
                entry.session.take_over_message(RestoredMessage {
                    progress: Progress::Waiting,
                    ..message
                });
            }
        }
        entry.note_appetite();
        if let Some(link) = entry.link.clone() {
            self.pump(key, &link, now);
        }
    }

    /// Tells the older node that the session is here, once it is stored, and others have what they are
    /// to have of it.
    fn note_install(&mut self, needs: &Needs, install: Install) {
        match self.ledger.open(needs) {
            Some(receipt) => {
                self.clustered.last_install += 1;
                let number = self.clustered.last_install;
                self.clustered.installs.insert(number, install);
                receipt.tell(Waiter::Install(number));
            }
            None => self.say_installed(&install),
        }
    }

    /// A session that has come is stored.
    pub(super) fn finish_install(&mut self, number: u64) {
        if let Some(install) = self.clustered.installs.remove(&number) {
            self.say_installed(&install);
        }
    }

    fn say_installed(&mut self, install: &Install) {
        let Install {
            to,
            client_id,
            time,
        } = install;
        if self.clustered.fellows.contains(to) {
            let time = *time;
            self.say(to.end, &Word::Installed { client_id, time }, false);
        }
    }
}

fn with_group(shares: &crate::shares::Shares, mut message: RestoredMessage) -> RestoredMessage {
    if let (Some((_message, grant)), Some((group, filter))) = (&mut message.content, &message.group)
    {
        grant.share = shares.find(SharedFilter { group, filter });
    }
    message
}

#[cfg(test)]
mod tests;
