//! A shard's part in shared subscriptions: messages for seats, and what members leave behind.

use std::{collections::BTreeMap, sync::Arc, time::Instant};

use super::{Entry, SessionKey, Shard};
use crate::{
    message::Message,
    metrics::Metric,
    routes::ShardId,
    session::{Delivered, Grant, Orphan, Subscription},
    shares::{Appetite, Presence, Seat, ShareId},
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
        if seats.granted.insert(share, subscription).is_none() {
            self.counters.inc(Metric::SharedSubscriptions);
        }
    }

    /// Takes a session out of a group. What it was not sent is for the other members.
    pub(super) fn leave_group(&mut self, key: SessionKey, shared: SharedFilter<'_>, now: Instant) {
        let Some(share) = self.shared.shares.leave(shared, self.id, key.number()) else {
            return;
        };
        self.counters.sub(Metric::SharedSubscriptions, 1);
        let Some(entry) = self.sessions.get_mut(key) else {
            return;
        };
        if let Some(seats) = &mut entry.seats {
            seats.granted.remove(&share);
            if seats.granted.is_empty() {
                entry.seats = None;
            }
        }
        let orphans = entry.session.reclaim_unsent(Some(share));
        self.adopt(orphans, now);
    }

    /// Finds new members for messages whose own has left.
    pub(super) fn adopt(&mut self, orphans: Vec<Orphan>, now: Instant) {
        if self.is_stopping {
            return;
        }
        for Orphan { share, message } in orphans {
            self.dispatch(share, &message, now);
        }
    }

    /// Gives a message to one member of a group.
    pub(super) fn dispatch(&mut self, share: ShareId, message: &Arc<Message>, now: Instant) {
        for _ in 0..CANDIDATES {
            let Some((shard, seat)) = self.shared.shares.choose(share, message.qos) else {
                break;
            };
            if shard != self.id {
                self.send_to_seat(shard, seat, message, now);
                return;
            }
            if self.seat(seat, message, now) {
                return;
            }
        }
        self.counters.inc(Metric::DroppedShared);
    }

    fn send_to_seat(&mut self, shard: ShardId, seat: Seat, message: &Message, now: Instant) {
        self.outbox.push(shard, message, Some(seat), now);
        self.outbox_work.notify_one();
    }

    /// Delivers a message that another shard has chosen one of this shard's sessions for.
    pub(crate) fn deliver_to_seat(&mut self, seat: Seat, message: &Arc<Message>, now: Instant) {
        if !self.seat(seat, message, now) {
            self.dispatch(seat.share, message, now);
        }
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
        let mut wire = entry.link.as_deref();
        let delivered = entry.session.deliver(message, grant, wire.as_mut(), now);
        entry.note_appetite();
        match delivered {
            Delivered::Sent | Delivered::Queued => true,
            // Expired, unless it is QoS 0 for a client that has just gone.
            Delivered::Skipped => message.is_expired(now),
            // A packet that is too long for its client is gone (MQTT 5, 3.1.2-26).
            Delivered::Dropped => {
                let is_full = entry.session.appetite(entry.link.is_some()) == Appetite::Full;
                self.counters
                    .add(Metric::DroppedQueue, usize::from(!is_full));
                !is_full
            }
        }
    }
}
