//! Sessions that come from other nodes, from the side of the node that they come to.
//!
//! ```text
//! pieces -> shadow -> installed, and noted -> told, when all nodes know its filters -> over: settled
//!                     messages that come directly are held; forwarded ones are delivered
//! ```
//!
//! While a session *settles*, nodes send messages for it here, where it was, or to both. What the older
//! node forwards was published before what comes here alone, so it goes first; and what comes both ways
//! is known by its id, and delivered once.

use std::{collections::BTreeSet, sync::Arc, time::Instant};

use super::{SessionKey, Shard, account::Line, transit::Transit};
use crate::{
    cluster::{claims::Fellow, word::Granted},
    lanes::frame,
    message::{Message, MessageId, Qos},
    metrics::Metric,
    session::{Delivered, Grant, Held, Session},
    topic,
};

/// Messages of a session that settles whose ids are remembered. Beyond that, one may come twice.
const MOST_SEEN: usize = 100_000;

/// A session that has come, and is still sent messages where it was.
pub(super) struct Settling {
    pub(super) from: Fellow,
    /// Of the claim.
    time: u64,
    /// What comes directly waits for what is forwarded.
    is_holding: bool,
    held: Vec<Held>,
    held_bytes: usize,
    /// What came forwarded, or, if nothing is held, either way.
    seen: BTreeSet<MessageId>,
    /// What the client has published itself.
    own: BTreeSet<MessageId>,
    pub(super) deadline: Instant,
}

impl Settling {
    /// `is_holding` where the session begins with what has come; one that is there goes on meanwhile.
    pub(super) fn new(from: Fellow, time: u64, is_holding: bool, deadline: Instant) -> Self {
        Self {
            from,
            time,
            is_holding,
            held: Vec::new(),
            held_bytes: 0,
            seen: BTreeSet::new(),
            own: BTreeSet::new(),
            deadline,
        }
    }

    /// Before the session ends: it is to know of all of its messages.
    pub(super) fn give_up(self, session: &mut Session) {
        for held in self.held {
            session.drop_held(&held);
        }
    }

    /// Tells whether the message is new.
    fn see(&mut self, id: MessageId) -> bool {
        if self.seen.len() >= MOST_SEEN {
            return !self.seen.contains(&id);
        }
        self.seen.insert(id)
    }
}

impl Shard {
    fn settling(&mut self, client_id: &str) -> Option<(SessionKey, &mut Settling)> {
        let key = self.sessions.find(client_id)?;
        let transit = self.sessions.get_mut(key)?.transit.as_deref_mut();
        match transit? {
            Transit::Settling(settling) => Some((key, settling)),
            Transit::Leaving(_) => None,
        }
    }

    /// Delivers a message that has come directly to a session that settles.
    pub(super) fn deliver_settling(
        &mut self,
        key: SessionKey,
        message: &Arc<Message>,
        grant: Grant,
        now: Instant,
    ) -> Delivered {
        let Some(entry) = self.sessions.get_mut(key) else {
            return Delivered::Skipped;
        };
        if grant.qos > Qos::AtMostOnce
            && !message.id.is_none()
            && let Some(Transit::Settling(settling)) = entry.transit.as_deref_mut()
        {
            if settling.is_holding {
                let held = entry.session.hold(message, grant, settling.held_bytes);
                let Some(held) = held else {
                    return Delivered::Full;
                };
                settling.held_bytes += held.size();
                settling.held.push(held);
                return Delivered::Queued;
            }
            if !settling.see(message.id) {
                return Delivered::Skipped;
            }
        }
        let is_kept = entry.session.is_kept();
        let account = self.account.as_ref();
        let line = |link| Line::new(link, account, is_kept);
        let mut wire = entry.link.as_ref().map(line);
        let delivered = entry.session.deliver(message, grant, wire.as_mut(), now);
        entry.note_appetite();
        delivered
    }

    /// Takes note of what a client publishes whose session settles: it may come back to it.
    pub(super) fn note_own(&mut self, key: Option<SessionKey>, id: MessageId) {
        if self.clustered.moving.is_empty() {
            return;
        }
        let entry = key.and_then(|key| self.sessions.get_mut(key));
        if let Some(Transit::Settling(settling)) =
            entry.and_then(|entry| entry.transit.as_deref_mut())
            && settling.own.len() < MOST_SEEN
        {
            settling.own.insert(id);
        }
    }

    /// Delivers a message that has come to where the session was.
    pub(super) fn handle_forward(
        &mut self,
        from: Fellow,
        client_id: &str,
        time: u64,
        grant: Granted,
        mut message: &[u8],
        now: Instant,
    ) {
        let Some((key, settling)) = self.settling(client_id) else {
            return;
        };
        let message = frame::read_message(&mut message, now);
        let Some((message, _seats)) =
            message.filter(|_message| (settling.from.end, settling.time) == (from.end, time))
        else {
            return;
        };
        let Some(qos) = Qos::from_bits(grant.qos) else {
            return;
        };
        let is_own = settling.own.contains(&message.id);
        if !settling.see(message.id) && !message.id.is_none() {
            return;
        }
        let Some(entry) = self.sessions.get_mut(key) else {
            return;
        };
        // The client may have unsubscribed, and may not want what it has published.
        let is_wanted = entry
            .session
            .subscriptions_after(None)
            .any(|(filter, subscription)| {
                topic::matches(filter, &message.topic) && !(is_own && subscription.no_local)
            });
        if !is_wanted {
            return;
        }
        let grant = Grant {
            qos,
            retain: grant.retain,
            subscription_ids: grant.subscription_ids,
            share: None,
        };
        let is_kept = entry.session.is_kept();
        let account = self.account.as_ref();
        let line = |link| Line::new(link, account, is_kept);
        let mut wire = entry.link.as_ref().map(line);
        let message = Arc::new(message);
        let delivered = entry.session.deliver(&message, grant, wire.as_mut(), now);
        entry.note_appetite();
        self.note_delivered(key, &message, delivered, now);
    }

    /// Nothing more is forwarded.
    pub(super) fn handle_over(&mut self, from: Fellow, client_id: &str, time: u64, now: Instant) {
        let Some((key, settling)) = self.settling(client_id) else {
            return;
        };
        if (settling.from.end, settling.time) == (from.end, time) {
            self.stop_holding(key, now);
            self.end_settling(key);
        }
    }

    /// Delivers what is held: what was not forwarded by now will not be, or is not waited for.
    pub(super) fn stop_holding(&mut self, key: SessionKey, now: Instant) {
        let Some(entry) = self.sessions.get_mut(key) else {
            return;
        };
        let Some(Transit::Settling(settling)) = entry.transit.as_deref_mut() else {
            return;
        };
        settling.is_holding = false;
        settling.held_bytes = 0;
        let is_kept = entry.session.is_kept();
        let account = self.account.as_ref();
        let line = |link| Line::new(link, account, is_kept);
        let mut wire = entry.link.as_ref().map(line);
        for held in std::mem::take(&mut settling.held) {
            if settling.see(held.id()) {
                let delivered = entry.session.let_go(held, wire.as_mut(), now);
                let is_lost = delivered == Delivered::TooLong;
                self.counters
                    .add(Metric::DroppedExpired, usize::from(is_lost));
            } else {
                entry.session.drop_held(&held);
            }
        }
        entry.note_appetite();
    }

    /// The older node is silent: first nothing is held any more, then nothing is expected.
    pub(super) fn stop_waiting(&mut self, key: SessionKey, now: Instant) {
        let deadline = now + self.clustered.patience;
        let entry = self.sessions.get_mut(key);
        let Some(Transit::Settling(settling)) =
            entry.and_then(|entry| entry.transit.as_deref_mut())
        else {
            return;
        };
        if settling.is_holding {
            settling.deadline = deadline;
            self.stop_holding(key, now);
        } else {
            self.end_settling(key);
        }
    }

    fn end_settling(&mut self, key: SessionKey) {
        if let Some(entry) = self.sessions.get_mut(key) {
            entry.transit = None;
            let client_id = Arc::clone(&entry.client_id);
            self.clustered.moving.remove(&client_id);
            self.clustered.claims.release(&client_id);
        }
    }
}
