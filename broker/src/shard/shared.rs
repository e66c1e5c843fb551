//! A shard's part in shared subscriptions: who is in which group, and messages for seats.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Instant,
};

use super::{Entry, SessionKey, Shard, account::Line};
use crate::{
    message::Message,
    metrics::Metric,
    receipts::Needs,
    routes::ShardId,
    session::{Delivered, Grant, Orphan, Subscription},
    shares::{Appetite, Presence, Seat, ShareId, Shares},
    topic::SharedFilter,
};

/// Members that are asked before a message is given up. Each of the others was found full.
const CANDIDATES: usize = 64;

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

    /// In how many groups the session is.
    pub(super) fn membership_count(&self) -> usize {
        self.seats.as_ref().map_or(0, |seats| seats.granted.len())
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
    }

    /// Takes a session out of a group; tells which that was.
    pub(super) fn leave_group(
        &mut self,
        key: SessionKey,
        shared: SharedFilter<'_>,
    ) -> Option<ShareId> {
        let share = self.shared.shares.leave(shared, self.id, key.number())?;
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

    /// Gives a message to one member of each group.
    pub(super) fn dispatch(
        &mut self,
        shares: &[ShareId],
        message: &Arc<Message>,
        needs: &mut Needs,
        now: Instant,
    ) {
        // Whoever makes up groups without end must not have the payload copied for each.
        let mut elsewhere: BTreeMap<ShardId, Vec<Seat>> = BTreeMap::new();
        for share in shares {
            if let Some((shard, seat)) = self.dispatch_here(*share, message, now) {
                elsewhere.entry(shard).or_default().push(seat);
            }
        }
        for (shard, seats) in &elsewhere {
            self.send(*shard, message, seats, needs, now);
        }
    }

    /// Gives a message to a member of this shard, unless the one in turn is of another shard.
    fn dispatch_here(
        &mut self,
        share: ShareId,
        message: &Arc<Message>,
        now: Instant,
    ) -> Option<(ShardId, Seat)> {
        for _ in 0..CANDIDATES {
            let Some((shard, seat)) = self.shared.shares.choose(share, message.qos) else {
                break;
            };
            if shard != self.id {
                return Some((shard, seat));
            }
            if self.seat(seat, message, now) {
                return None;
            }
        }
        self.counters.inc(Metric::DroppedShared);
        None
    }

    /// Delivers a message that another shard has chosen sessions of this one for. Those that it must be
    /// handed on to are added to `needs`.
    pub(crate) fn deliver_to_seats(
        &mut self,
        seats: &[Seat],
        message: &Arc<Message>,
        needs: &mut Needs,
        now: Instant,
    ) {
        let refused: Vec<_> = seats
            .iter()
            .filter(|seat| !self.seat(**seat, message, now))
            .map(|seat| seat.share)
            .collect();
        self.dispatch(&refused, message, needs, now);
    }

    /// Delivers a message to a member; `false` when another one should have it.
    fn seat(&mut self, seat: Seat, message: &Arc<Message>, now: Instant) -> bool {
        let Some(entry) = self.sessions.get_mut(SessionKey::of(seat.session)) else {
            return false;
        };
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
        let is_kept = entry.session.is_kept();
        let account = self.account.as_ref();
        let line = |link| Line::new(link, account, is_kept);
        let mut wire = entry.link.as_ref().map(line);
        let delivered = entry.session.deliver(message, grant, wire.as_mut(), now);
        entry.note_appetite();
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
                if let Some(seats) = &entry.seats {
                    seats.presence.set(Appetite::Full);
                }
                false
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{message::Qos, metrics::Counters, session::Wire, shard::Shared, testing};

    #[test]
    fn message_that_one_member_has_no_room_for_goes_to_another() {
        let shared = Shared::for_tests("[limits]\nqueue_messages = 0", 1);
        let counters = Arc::new(Counters::default());
        let metrics = crate::metrics::Metrics::new(vec![Arc::clone(&counters)]);
        let mut shard = Shard::new(ShardId(0), shared, counters);
        let members = ["a", "b"].map(|client_id| shard.join_for_tests(client_id, Qos::AtMostOnce));
        let message = Arc::new(testing::message(vec![0; 512 * 1024], Qos::AtMostOnce));
        let publish = |shard: &mut Shard| {
            let needs = &mut Needs::default();
            shard.publish(Arc::clone(&message), None, needs, Instant::now())
        };
        for _ in &members {
            publish(&mut shard);
        }
        assert!(members.iter().all(|link| !(&&**link).has_room()));
        let [_unread, reader] = &members;
        // Whosever turn it is, the one that reads gets the next.
        for _ in 0..3 {
            drop(reader.take_output());
            publish(&mut shard);
            assert!(reader.output_len() > message.payload.len());
        }
        assert_eq!(metrics.get(Metric::DroppedQueue), 0);
        assert_eq!(metrics.get(Metric::DroppedShared), 0);
        // With both full it is lost, and the group knows.
        publish(&mut shard);
        assert_eq!(metrics.get(Metric::DroppedShared), 1);
    }
}
