//! Sessions that come from other nodes, from the side of the node that they come to.
//!
//! ```text
//! installed -> early -> barrier -> told ... over -> late -> barrier -> settled
//!              \________ held _________/
//! ```
//!
//! While a session *settles*, nodes send messages for it here, where it was, or to both; the older node
//! forwards what it gets. In each publisher's order, what is forwarded was published before what comes
//! here alone, so it goes first, and what comes directly is held meanwhile. A message that comes both
//! ways is delivered once:
//!
//! - What comes directly before the first barrier was sent to the older node as well, maybe so long ago
//!   that it is in what the session had there. It is left out, for it is forwarded, or was delivered.
//! - From then on ids tell, and they still do when all is forwarded, until the second barrier: a copy
//!   that was sent directly may be late.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Instant,
};

use super::{SessionKey, Shard, account::Line, barrier::Purpose, transit::Transit};
use crate::{
    cluster::{claims::Fellow, word::Granted},
    lanes::frame,
    message::{Message, MessageId, Qos},
    metrics::Metric,
    receipts::Needs,
    session::{Delivered, Grant, Held, Session},
    shares::{HANDED_ON, ShareId},
    topic,
};

/// Messages of a session that settles whose ids are remembered. Beyond that, one may come twice.
const MOST_SEEN: usize = 100_000;

/// A session that has come, and is still sent messages where it was.
pub(super) struct Settling {
    pub(super) from: Fellow,
    /// Of the claim.
    pub(super) time: u64,
    pub(super) phase: Phase,
    /// What has come directly, but for what was forwarded since.
    held: Vec<Option<Held>>,
    /// Where in this list messages are.
    places: BTreeMap<MessageId, usize>,
    /// How many of these came before the first barrier.
    early: usize,
    held_bytes: usize,
    /// What the session had, and what was forwarded; if nothing is held, what came directly too.
    seen: BTreeSet<MessageId>,
    /// Filters that the client has subscribed to since: the older node does not know of them.
    fresh: Vec<Box<str>>,
    /// What the client has published itself.
    own: BTreeSet<MessageId>,
    pub(super) deadline: Instant,
}

/// A message that has come to where its session was.
pub(super) struct Forwarded<'a> {
    pub(super) from: Fellow,
    pub(super) client_id: &'a str,
    /// Of the claim.
    pub(super) time: u64,
    pub(super) grant: Granted,
    /// As in a frame.
    pub(super) message: &'a [u8],
}

/// How far a session has settled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// What comes directly was sent to the older node too.
    Early,
    /// It may have been.
    Held,
    /// Nothing is held.
    Late,
}

impl Settling {
    /// A session that is here already, and gets what another one had, begins late.
    pub(super) fn new(
        from: Fellow,
        time: u64,
        phase: Phase,
        seen: BTreeSet<MessageId>,
        deadline: Instant,
    ) -> Self {
        Self {
            from,
            time,
            phase,
            held: Vec::new(),
            places: BTreeMap::new(),
            early: 0,
            held_bytes: 0,
            seen,
            fresh: Vec::new(),
            own: BTreeSet::new(),
            deadline,
        }
    }

    /// Before the session ends: it is to know of all of its messages.
    pub(super) fn give_up(self, session: &mut Session) {
        for held in self.held.into_iter().flatten() {
            session.drop_held(&held);
        }
    }

    fn push_held(&mut self, held: Held) {
        self.held_bytes += held.size();
        self.places.insert(held.id(), self.held.len());
        self.held.push(Some(held));
    }

    /// Takes out what is held of a message.
    fn take_held(&mut self, id: MessageId) -> Option<Held> {
        let place = self.places.remove(&id)?;
        let held = self.held.get_mut(place)?.take()?;
        self.held_bytes = self.held_bytes.saturating_sub(held.size());
        Some(held)
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
            if settling.phase != Phase::Late {
                let held = entry.session.hold(message, grant, settling.held_bytes);
                let Some(held) = held else {
                    return Delivered::Full;
                };
                settling.push_held(held);
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

    /// Takes note of a filter that a client subscribes to while its session settles.
    pub(super) fn note_fresh(&mut self, key: SessionKey, filter: &str) {
        let entry = self.sessions.get_mut(key);
        if let Some(Transit::Settling(settling)) =
            entry.and_then(|entry| entry.transit.as_deref_mut())
        {
            settling.fresh.push(filter.into());
        }
    }

    /// Delivers a message that has come to where the session was. What its group was given is for others
    /// of that if the session does not take it: it was chosen there, and nobody else has it. Those that
    /// it is handed on to are added to `needs`.
    pub(super) fn handle_forward(
        &mut self,
        forwarded: Forwarded<'_>,
        needs: &mut Needs,
        now: Instant,
    ) {
        if self.keep_forward(&forwarded) {
            return;
        }
        let from = forwarded.from.end;
        let group = forwarded.grant.group.map(ShareId);
        let message = frame::read_message(&mut &*forwarded.message, now);
        let Some((message, _seats)) = message else {
            return;
        };
        let message = Arc::new(message);
        let shares = &self.shared.shares;
        let share = group.and_then(|tag| shares.find_tagged(tag, &message.topic));
        let is_taken = self.deliver_forwarded(forwarded, share, &message, now);
        if is_taken || group.is_none() {
            return;
        }
        match share {
            // It was on two nodes. The first has the session for a member that is here, so it may have
            // nobody else, and others come first.
            Some(share) => {
                let further = [(share, HANDED_ON + 1)];
                self.dispatch_further(further, Some(from), &message, needs, now);
            }
            None => self.counters.inc(Metric::DroppedShared),
        }
    }

    /// Delivers it to the session; `false` when that does not take it, or is not here.
    fn deliver_forwarded(
        &mut self,
        forwarded: Forwarded<'_>,
        share: Option<ShareId>,
        message: &Arc<Message>,
        now: Instant,
    ) -> bool {
        let Forwarded {
            from,
            client_id,
            time,
            grant,
            message: _,
        } = forwarded;
        let Some((key, settling)) = self.settling(client_id) else {
            return false;
        };
        let Some(qos) = Qos::from_bits(grant.qos) else {
            return false;
        };
        if (settling.from.end, settling.time) != (from.end, time) {
            return false;
        }
        let is_own = settling.own.contains(&message.id);
        // What its group is given has come here for that alone.
        if grant.group.is_none() && !settling.see(message.id) && !message.id.is_none() {
            return true;
        }
        let Some(entry) = self.sessions.get_mut(key) else {
            return false;
        };
        // The client may have unsubscribed, and may not want what it has published.
        let is_wanted = match grant.group {
            Some(_tag) => share.is_some_and(|share| entry.is_member(share)),
            None => entry
                .session
                .subscriptions_after(None)
                .any(|(filter, subscription)| {
                    topic::matches(filter, &message.topic) && !(is_own && subscription.no_local)
                }),
        };
        if !is_wanted {
            return false;
        }
        let is_for_group = grant.group.is_some();
        let grant = Grant {
            qos,
            retain: grant.retain,
            subscription_ids: grant.subscription_ids,
            share,
        };
        let is_kept = entry.session.is_kept();
        let account = self.account.as_ref();
        let line = |link| Line::new(link, account, is_kept);
        let mut wire = entry.link.as_ref().map(line);
        let mut delivered = entry.session.deliver(message, grant, wire.as_mut(), now);
        // Two of it must not be noted when the node crashes.
        if !is_for_group
            && let Some(Transit::Settling(settling)) = entry.transit.as_deref_mut()
            && let Some(held) = settling.take_held(message.id)
        {
            if delivered == Delivered::Full {
                delivered = entry.session.let_go(held, wire.as_mut(), now);
            } else {
                entry.session.drop_held(&held);
            }
        }
        entry.note_appetite();
        if is_for_group && delivered == Delivered::Full {
            return false;
        }
        self.note_delivered(key, message, delivered, now);
        true
    }

    /// What was sent before the barrier is here.
    pub(super) fn pass_barrier(&mut self, client_id: &Arc<str>, time: u64) {
        let Some((key, settling)) = self.settling(client_id) else {
            return;
        };
        if settling.time != time {
            return;
        }
        match settling.phase {
            Phase::Early => {
                settling.phase = Phase::Held;
                settling.early = settling.held.len();
                let to = settling.from;
                self.tell_when_known(to, client_id, time);
            }
            Phase::Held => {}
            Phase::Late => self.end_settling(key),
        }
    }

    /// Nothing more is forwarded.
    pub(super) fn handle_over(&mut self, from: Fellow, client_id: &str, time: u64, now: Instant) {
        let Some((key, settling)) = self.settling(client_id) else {
            return;
        };
        if (settling.from.end, settling.time) != (from.end, time) {
            return;
        }
        let early = std::mem::take(&mut settling.early);
        let fresh = std::mem::take(&mut settling.fresh);
        let is_needless = |held: &mut Held| {
            let topic = held.topic();
            !fresh.iter().any(|filter| topic::matches(filter, topic))
        };
        let early = settling.held.iter_mut().take(early);
        let early: Vec<_> = early.filter_map(|held| held.take_if(is_needless)).collect();
        let Some(entry) = self.sessions.get_mut(key) else {
            return;
        };
        early.iter().for_each(|held| entry.session.drop_held(held));
        let client_id = Arc::clone(&entry.client_id);
        self.stop_holding(key, now);
        let barriers = &mut self.clustered.barriers;
        barriers.wait(Purpose::Settling(client_id, time));
        self.start_barrier();
    }

    /// Delivers what is held: what was not forwarded by now will not be, or is not waited for.
    pub(super) fn stop_holding(&mut self, key: SessionKey, now: Instant) {
        let Some(entry) = self.sessions.get_mut(key) else {
            return;
        };
        let Some(Transit::Settling(settling)) = entry.transit.as_deref_mut() else {
            return;
        };
        settling.phase = Phase::Late;
        settling.held_bytes = 0;
        let is_kept = entry.session.is_kept();
        let account = self.account.as_ref();
        let line = |link| Line::new(link, account, is_kept);
        let mut wire = entry.link.as_ref().map(line);
        settling.places.clear();
        for held in std::mem::take(&mut settling.held).into_iter().flatten() {
            if settling.see(held.id()) {
                let delivered = entry.session.let_go(held, wire.as_mut(), now);
                let is_lost = delivered == Delivered::TooLong;
                self.counters
                    .add(Metric::DroppedExpired, usize::from(is_lost));
            } else {
                entry.session.drop_held(&held);
            }
        }
        entry.session.end_hold();
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
        if settling.phase == Phase::Late {
            self.end_settling(key);
        } else {
            settling.deadline = deadline;
            self.stop_holding(key, now);
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
