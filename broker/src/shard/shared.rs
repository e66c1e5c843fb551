//! A shard's part in shared subscriptions: who is in which group, and messages for seats.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Instant,
};

use super::{Entry, SessionKey, Shard, Shared, account::Line};
use crate::{
    lanes::frame::{self, Content},
    message::{Message, Qos},
    metrics::Metric,
    receipts::Needs,
    routes::ShardId,
    session::{Delivered, Grant, Orphan, RestoredMessage, Subscription, journal::Progress},
    shares::{Appetite, Avoided, HANDED_ON, LEFT, Presence, Seat, ShareId, Shares},
    topic::SharedFilter,
};

/// Members that are asked before a message is given up. Each of the others was found full.
const CANDIDATES: usize = 64;

/// Bytes that wait for the lane of a node before nothing more of others' is handed on to it. Their senders
/// are not held up by it as this node's clients are.
const MOST_HANDED_ON: usize = 4 * 1024 * 1024;

/// The memberships of one session.
pub(super) struct Seats {
    presence: Arc<Presence>,
    granted: BTreeMap<ShareId, Subscription>,
}

impl Entry {
    /// Tells the groups how much the session can take.
    pub(super) fn note_appetite(&self) {
        if let Some(seats) = &self.seats {
            seats
                .presence
                .set(self.session.appetite(self.link.is_some()));
        }
    }

    /// Takes back what groups sent and the client was not, where others have time for it. If nobody
    /// has, it waits for the client: to find it a place anew at each interruption would have all of
    /// it stored anew.
    pub(super) fn reclaim_unsent(&mut self, shares: &Shares, seat: (ShardId, u32)) -> Vec<Orphan> {
        if self.seats.is_none() {
            return Vec::new();
        }
        let mut wanted = self.session.waiting_shares();
        wanted.retain(|share| shares.has_others(*share, seat));
        if wanted.is_empty() {
            return Vec::new();
        }
        self.session.reclaim_unsent(Some(&wanted))
    }

    /// Whether the session is in a group.
    pub(super) fn is_member(&self, share: ShareId) -> bool {
        let seats = self.seats.as_ref();
        seats.is_some_and(|seats| seats.granted.contains_key(&share))
    }

    /// In how many groups the session is.
    pub(super) fn membership_count(&self) -> usize {
        self.seats.as_ref().map_or(0, |seats| seats.granted.len())
    }
}

impl Shared {
    /// The node that has handed a message on which has come from this end of a lane, and from so many
    /// nodes to others: it has nobody for it who is there. The first one may, as it shares evenly.
    pub(crate) fn handed_on_by(&self, from: ShardId, hops: u8) -> Option<ShardId> {
        (from.0 >= self.shards && hops & !LEFT > HANDED_ON).then_some(from)
    }
}

impl Shard {
    pub(super) fn join_group(
        &mut self,
        key: SessionKey,
        shared: SharedFilter<'_>,
        subscription: Subscription,
    ) {
        let Some(entry) = self.sessions.get_mut(key) else {
            return;
        };
        let appetite = entry.session.appetite(entry.link.is_some());
        let seats = entry.seats.get_or_insert_with(|| {
            Box::new(Seats {
                presence: Presence::new(appetite),
                granted: BTreeMap::new(),
            })
        });
        let share = self.shared.shares.join(
            shared,
            self.id,
            key.number(),
            subscription.qos,
            &seats.presence,
        );
        seats.presence.set_kept(entry.session.is_kept());
        if seats.granted.insert(share, subscription).is_none() {
            self.counters.inc(Metric::SharedSubscriptions);
        }
        self.note_group(shared);
    }

    /// Has other nodes know what the members of a group can take.
    fn note_group(&self, shared: SharedFilter<'_>) {
        if let Some(cluster) = &self.shared.cluster {
            cluster.note_group(&self.shared.shares, shared);
        }
    }

    /// Takes a session out of a group; tells which that was.
    pub(super) fn leave_group(
        &mut self,
        key: SessionKey,
        shared: SharedFilter<'_>,
    ) -> Option<ShareId> {
        let share = self.shared.shares.leave(shared, self.id, key.number())?;
        self.note_group(shared);
        self.counters.sub(Metric::SharedSubscriptions, 1);
        if let Some(entry) = self.sessions.get_mut(key)
            && let Some(seats) = &mut entry.seats
        {
            seats.granted.remove(&share);
            if seats.granted.is_empty() {
                entry.seats = None;
            }
        }
        Some(share)
    }

    /// What a session was not sent for the groups that it has left is for their other members.
    pub(super) fn hand_on(&mut self, key: SessionKey, left: &BTreeSet<ShareId>, now: Instant) {
        if !left.is_empty()
            && let Some(entry) = self.sessions.get_mut(key)
        {
            let orphans = entry.session.reclaim_unsent(Some(left));
            self.adopt(orphans, now);
        }
    }

    /// Has others get what groups sent to an absent session and its client was not, if they have time.
    pub(super) fn reclaim(&mut self, key: SessionKey, now: Instant) {
        let seat = (self.id, key.number());
        let entry = self.sessions.get_mut(key);
        if let Some(entry) = entry.filter(|entry| entry.link.is_none()) {
            let orphans = entry.reclaim_unsent(&self.shared.shares, seat);
            self.adopt(orphans, now);
        }
    }

    /// Gives a message that is published here to one member of each group.
    pub(super) fn dispatch(
        &mut self,
        shares: &[ShareId],
        message: &Arc<Message>,
        needs: &mut Needs,
        now: Instant,
    ) {
        let shares = shares.iter().map(|share| (*share, 0));
        self.dispatch_on(shares, Avoided::default(), message, needs, now);
    }

    /// As [`Shard::dispatch`], for what members of this node leave behind: others of it come first.
    pub(super) fn dispatch_left(
        &mut self,
        shares: &[ShareId],
        message: &Arc<Message>,
        needs: &mut Needs,
        now: Instant,
    ) {
        let shares = shares.iter().map(|share| (*share, LEFT));
        self.dispatch_on(shares, Avoided::default(), message, needs, now);
    }

    /// Gives a message of another node's, which has come from so many to others, to one member of each of
    /// these groups, and back to who has handed it on only if there is nobody else. Those that are waited
    /// for are added to `needs`.
    pub(super) fn dispatch_further(
        &mut self,
        shares: impl IntoIterator<Item = (ShareId, u8)>,
        from: Option<ShardId>,
        message: &Arc<Message>,
        needs: &mut Needs,
        now: Instant,
    ) {
        let mut avoided = Avoided {
            from,
            ..Avoided::default()
        };
        let (shards, ends) = (self.shared.shards, self.shared.ends());
        for end in (shards..ends).map(ShardId) {
            if self.outbox.waiting(end) > MOST_HANDED_ON {
                avoided.full.insert(end);
            }
        }
        let mut handed_on = Needs::default();
        self.dispatch_on(shares, avoided, message, &mut handed_on, now);
        self.absorb_handed_on(handed_on, needs);
    }

    /// Gives a message to one member of each of these groups, and to none of these nodes; it has come from
    /// so many to others.
    fn dispatch_on(
        &mut self,
        shares: impl IntoIterator<Item = (ShareId, u8)>,
        avoided: Avoided,
        message: &Arc<Message>,
        needs: &mut Needs,
        now: Instant,
    ) {
        // Whoever makes up groups without end must not have the payload copied for each.
        let mut elsewhere: BTreeMap<ShardId, Vec<Seat>> = BTreeMap::new();
        for (share, hops) in shares {
            let seated = self.dispatch_here((share, hops), avoided, message, needs, now);
            if let Some((shard, seat)) = seated {
                elsewhere.entry(shard).or_default().push(seat);
            }
        }
        for (end, seats) in &elsewhere {
            if !self.is_dropped(*end, message) {
                self.send(*end, message, seats, needs, now);
            }
        }
    }

    /// Gives a message to a member of this shard, unless the one in turn is of another shard or node.
    fn dispatch_here(
        &mut self,
        (share, hops): (ShareId, u8),
        avoided: Avoided,
        message: &Arc<Message>,
        needs: &mut Needs,
        now: Instant,
    ) -> Option<(ShardId, Seat)> {
        let mut is_any_here = false;
        for _ in 0..CANDIDATES {
            let shares = &self.shared.shares;
            let chosen = shares.choose_but(share, message.qos, hops, avoided);
            let Some((shard, seat)) = chosen else {
                break;
            };
            if shard != self.id {
                return Some((shard, seat));
            }
            if self.seat(seat, avoided.from, message, needs, now) {
                return None;
            }
            is_any_here = true;
        }
        // Who is here would have to go back where it has come from.
        let shares = &self.shared.shares;
        let elsewhere = is_any_here
            .then(|| shares.choose_node(share, message.qos, hops, avoided))
            .flatten();
        if elsewhere.is_none() {
            self.counters.inc(Metric::DroppedShared);
        }
        elsewhere
    }

    /// Delivers a message that another shard, or node, has chosen sessions of this shard for. Those that
    /// it must be handed on to are added to `needs`.
    pub(crate) fn deliver_to_seats(
        &mut self,
        from: ShardId,
        seats: &[Seat],
        message: &Arc<Message>,
        needs: &mut Needs,
        now: Instant,
    ) {
        let is_own = |hops: u8| hops & !LEFT == 0;
        let mut handed_on = Needs::default();
        let (mut own, mut first, mut others) = (Vec::new(), Vec::new(), Vec::new());
        for seat in seats {
            let from = self.shared.handed_on_by(from, seat.hops);
            if !self.seat(*seat, from, message, &mut handed_on, now) {
                let refused = if is_own(seat.hops) {
                    &mut own
                } else if from.is_none() {
                    &mut first
                } else {
                    &mut others
                };
                refused.push((seat.share, seat.hops));
            }
        }
        self.dispatch_on(own, Avoided::default(), message, &mut handed_on, now);
        if seats.iter().all(|seat| is_own(seat.hops)) {
            needs.absorb(handed_on, |_end| false);
        } else {
            self.absorb_handed_on(handed_on, needs);
        }
        self.dispatch_further(first, None, message, needs, now);
        self.dispatch_further(others, Some(from), message, needs, now);
    }

    /// Has what another node has sent wait for those that it was handed on to, as far as it can.
    fn absorb_handed_on(&self, handed_on: Needs, needs: &mut Needs) {
        // What is safe of another node's is told in order. If it waited for what is safe at a third one,
        // or at its own, two nodes could wait for each other; but what is taken waits for nothing. Only
        // where so much is not safe that lanes are not read it could not be taken either.
        let (shards, cluster) = (self.shared.shards, self.shared.cluster.as_ref());
        if cluster.is_some_and(|cluster| cluster.is_any_behind()) {
            needs.absorb_of(handed_on, |end| end.0 < shards);
        } else {
            needs.absorb(handed_on, |end| end.0 >= shards);
        }
    }

    /// Finds new members for messages that this shard has sent to groups of a node that is gone.
    pub(super) fn regroup(&mut self, mut messages: &[u8], needs: &mut Needs, now: Instant) {
        while let Some(content) = frame::read_content(&mut messages, now) {
            let Content::Message(item) = content else {
                continue;
            };
            // QoS 0 is gone with the node.
            if item.message.qos == Qos::AtMostOnce {
                continue;
            }
            let message = Arc::new(item.message);
            let mut groups = Vec::new();
            for seat in &item.seats {
                match self.shared.shares.find_tagged(seat.share, &message.topic) {
                    // It did not come to the node that is lost.
                    Some(share) => groups.push((share, seat.hops.saturating_sub(1))),
                    None => self.counters.inc(Metric::DroppedShared),
                }
            }
            self.dispatch_on(groups, Avoided::default(), &message, needs, now);
        }
    }

    /// What an older session had of its groups, and its client had not, is for other members: the one
    /// that is here is nobody's heir.
    pub(super) fn share_left(
        &mut self,
        messages: Vec<RestoredMessage>,
        needs: &mut Needs,
        now: Instant,
    ) {
        for message in messages {
            let RestoredMessage {
                seq: _,
                progress: Progress::Waiting,
                content: Some((message, _grant)),
                group: Some((group, filter)),
            } = message
            else {
                continue;
            };
            let shared = SharedFilter {
                group: &group,
                filter: &filter,
            };
            match self.shared.shares.find(shared) {
                Some(share) => self.dispatch_left(&[share], &message, needs, now),
                None => self.counters.inc(Metric::DroppedShared),
            }
        }
    }

    /// Delivers a message to a member, unless that has gone to the node which has handed it on; `false`
    /// when another one should have it.
    fn seat(
        &mut self,
        seat: Seat,
        from: Option<ShardId>,
        message: &Arc<Message>,
        needs: &mut Needs,
        now: Instant,
    ) -> bool {
        let key = SessionKey::of(seat.session);
        let Some(entry) = self.sessions.get_mut(key) else {
            return false;
        };
        if from.is_some() && entry.went_to() == from {
            return false;
        }
        let granted = entry
            .seats
            .as_ref()
            .and_then(|seats| seats.granted.get(&seat.share));
        let Some(subscription) = granted else {
            return false;
        };
        let grant = Grant {
            qos: message.qos.min(subscription.qos),
            retain: message.retain && subscription.retain_as_published,
            subscription_ids: subscription.id.into_iter().collect(),
            share: Some(seat.share),
        };
        if entry.is_leaving() {
            let delivered = self.deliver_in_transit(key, message, grant, needs, now);
            return self.is_seated(key, delivered, message, now);
        }
        let is_kept = entry.session.is_kept();
        let account = self.account.as_ref();
        let line = |link| Line::new(link, account, is_kept);
        let mut wire = entry.link.as_ref().map(line);
        let delivered = entry.session.deliver(message, grant, wire.as_mut(), now);
        entry.note_appetite();
        self.is_seated(key, delivered, message, now)
    }

    /// Whether a message is where it belongs, or has none where it could.
    fn is_seated(
        &mut self,
        key: SessionKey,
        delivered: Delivered,
        message: &Message,
        now: Instant,
    ) -> bool {
        match delivered {
            Delivered::Sent | Delivered::Queued => true,
            // Expired, unless it is QoS 0 for a client that has just gone.
            Delivered::Skipped => message.is_expired(now),
            // A packet that is too long for its client is gone (MQTT 5, 3.1.2-26).
            Delivered::TooLong => {
                self.counters.inc(Metric::DroppedExpired);
                true
            }
            // Others go first until it has read: without a queue it looks ready all the time.
            Delivered::Full => {
                let entry = self.sessions.get_mut(key);
                if let Some(seats) = entry.and_then(|entry| entry.seats.as_ref()) {
                    seats.presence.set(Appetite::Full);
                }
                false
            }
        }
    }
}

#[cfg(test)]
mod tests;
