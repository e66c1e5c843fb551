//! What a shard does with each packet of a connected client.

use std::{collections::BTreeSet, rc::Rc, time::Instant};

use tracing::debug;

use super::{SessionKey, Shard, account::Line};
use crate::{
    codec::packet::{Ack, AckKind, ClientPacket, PacketId, Subscribe, SubscribeFilter, reason},
    link::Link,
    message::{Message, Qos},
    metrics::Metric,
    receipts::{Receipt, Waiter},
    session::{Cause, Subscription},
    shares::ShareId,
    store::Condition,
    sys,
    topic::{self, Wanted},
    trie::Inserted,
};

/// Filters that one SUBSCRIBE may bring: more than any client sends at once, and few enough that
/// the shard is not held up.
const FILTERS_PER_SUBSCRIBE: usize = 1024;

/// Groups that one session may be in. A message can be for all of them, each with a copy to route.
const MEMBERSHIPS_PER_SESSION: usize = 1024;

/// Whether a connection goes on after a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Flow {
    Continue,
    Close(Cause),
}

impl Shard {
    /// Handles a packet of the client whose session is `key`.
    ///
    /// # Errors
    /// The reason code with which the connection must be closed.
    pub(crate) fn handle_packet(
        &mut self,
        key: SessionKey,
        link: &Rc<Link>,
        packet: ClientPacket,
        now: Instant,
    ) -> Result<Flow, u8> {
        match packet {
            ClientPacket::Publish {
                id,
                alias,
                mut message,
            } => {
                if let Some(alias) = alias {
                    link.resolve(alias, &mut message.topic)?;
                }
                self.handle_publish(key, link, id, message, now)?;
            }
            ClientPacket::Ack(ack) => {
                if let Some(entry) = self.sessions.get_mut(key) {
                    if ack.kind == AckKind::PubRel && !entry.session.may_release(ack.id) {
                        return Err(reason::PROTOCOL_ERROR);
                    }
                    let is_kept = entry.session.is_kept();
                    let mut line = Line::new(link, self.account.as_ref(), is_kept);
                    let dropped = entry.session.handle_ack(ack, &mut line, now);
                    entry.note_appetite();
                    self.counters.add(Metric::DroppedExpired, dropped);
                    self.greet(key, link, now);
                }
            }
            ClientPacket::Subscribe(subscribe) => {
                self.handle_subscribe(key, link, subscribe, now)?;
            }
            ClientPacket::Unsubscribe { id, filters } => {
                let noted = self.noted();
                let mut left = BTreeSet::new();
                let codes: Vec<u8> = filters
                    .iter()
                    .map(|filter| self.unsubscribe(key, filter, &mut left))
                    .collect();
                self.hold_noted(noted, link);
                link.unsuback(id, &codes);
                // Once for all of them: the whole queue is looked through.
                self.hand_on(key, &left, now);
            }
            ClientPacket::PingReq => link.pingresp(),
            ClientPacket::Disconnect {
                reason,
                session_expiry,
            } => {
                return self.handle_disconnect(key, reason, session_expiry);
            }
        }
        Ok(Flow::Continue)
    }

    fn handle_publish(
        &mut self,
        key: SessionKey,
        link: &Rc<Link>,
        id: Option<PacketId>,
        message: Message,
        now: Instant,
    ) -> Result<(), u8> {
        link.note_message();
        let noted = self.noted();
        let Some(entry) = self.sessions.get_mut(key) else {
            return Ok(());
        };
        let qos = message.qos;
        // The first one of a QoS 2 message may not be stored yet when the second comes.
        let is_repeatable = qos == Qos::ExactlyOnce && entry.session.is_kept();
        let is_new = entry
            .session
            .handle_publish(qos, id)
            .map_err(|_exceeded| reason::RECEIVE_MAXIMUM_EXCEEDED)?;
        let is_reserved = sys::is_reserved(&message.topic);
        if is_reserved || is_new && !entry.permit.may_publish(&message.topic) {
            debug!(
                client_id = %entry.client_id,
                user = entry.owner.user(),
                topic = %message.topic,
                "publication denied"
            );
            self.counters.inc(if is_reserved {
                Metric::RefusedPublish
            } else {
                Metric::DeniedPublish
            });
            // MQTT 3 must be told of success, or be disconnected (3.1.1, 3.3.5-2).
            self.forget_publish(key, id);
            self.hold_noted(noted, link);
            acknowledge(key, link, qos, id, reason::NOT_AUTHORIZED, None);
            return Ok(());
        }
        if is_new && id.is_some() && self.cannot_store(&message) {
            self.counters.inc(Metric::RefusedUnstored);
            self.forget_publish(key, id);
            // MQTT 3 cannot be told in an acknowledgement.
            if !link.version().is_v5() {
                return Err(reason::QUOTA_EXCEEDED);
            }
            acknowledge(key, link, qos, id, reason::QUOTA_EXCEEDED, None);
            return Ok(());
        }
        // Refused as a whole where its publisher can be told; others' messages are delivered and
        // merely not kept.
        let is_refused =
            is_new && id.is_some() && link.version().is_v5() && !self.may_retain(&message);
        let (reason, receipt) = if is_refused {
            self.counters.inc(Metric::RefusedRetained);
            self.forget_publish(key, id);
            (reason::QUOTA_EXCEEDED, None)
        } else if is_new {
            self.publish_for(key, id, message, now)
        } else {
            (reason::SUCCESS, self.publish_again(key, id, message, now))
        };
        if let (Qos::ExactlyOnce, Some(id)) = (qos, id)
            && receipt.as_ref().is_none_or(|receipt| receipt.is_complete())
        {
            self.note_spread(key, id);
        }
        if is_repeatable {
            self.hold(link);
        } else if qos > Qos::AtMostOnce {
            self.hold_noted(noted, link);
        }
        acknowledge(key, link, qos, id, reason, receipt);
        Ok(())
    }

    fn forget_publish(&mut self, key: SessionKey, id: Option<PacketId>) {
        if let (Some(entry), Some(id)) = (self.sessions.get_mut(key), id) {
            entry.session.forget_publish(id);
        }
    }

    fn handle_subscribe(
        &mut self,
        key: SessionKey,
        link: &Rc<Link>,
        subscribe: Subscribe,
        now: Instant,
    ) -> Result<(), u8> {
        let Subscribe {
            id,
            subscription_id,
            filters,
        } = subscribe;
        // A group has no member of its own to leave out (MQTT 5, 3.8.3-4).
        let is_shared = |wanted: &SubscribeFilter| {
            matches!(topic::parse_filter(&wanted.filter), Some(Wanted::Share(_)))
        };
        if filters
            .iter()
            .any(|wanted| wanted.no_local && is_shared(wanted))
        {
            return Err(reason::PROTOCOL_ERROR);
        }
        let noted = self.noted();
        let mut codes = Vec::with_capacity(filters.len());
        for (index, wanted) in filters.iter().enumerate() {
            let subscribed = if index < FILTERS_PER_SUBSCRIBE {
                self.subscribe(key, wanted, subscription_id)
            } else {
                Err(reason::QUOTA_EXCEEDED)
            };
            match subscribed {
                Ok(()) => codes.push(wanted.qos as u8),
                Err(reason) => {
                    let is_limit = reason == reason::QUOTA_EXCEEDED;
                    self.counters
                        .add(Metric::RefusedSubscriptions, usize::from(is_limit));
                    // MQTT 3.1.1 has one code for failure (3.9.3).
                    let is_v5 = link.version().is_v5();
                    codes.push(if is_v5 { reason } else { reason::FAILURE });
                }
            }
        }
        self.hold_noted(noted, link);
        self.answer_subscribe(link, id, codes, now);
        self.greet(key, link, now);
        Ok(())
    }

    /// Adds one filter, or tells why it is refused.
    fn subscribe(
        &mut self,
        key: SessionKey,
        wanted: &SubscribeFilter,
        subscription_id: Option<u32>,
    ) -> Result<(), u8> {
        let SubscribeFilter {
            filter,
            qos,
            no_local,
            retain_as_published,
            retain_handling,
        } = wanted;
        let Some(meant) = topic::parse_filter(filter) else {
            return Err(reason::TOPIC_FILTER_INVALID);
        };
        let account = self.account.as_ref();
        let Some(entry) = self.sessions.get_mut(key) else {
            return Err(reason::FAILURE);
        };
        let is_kept = entry.session.is_kept();
        if is_kept && account.is_some_and(|account| account.condition() != Condition::Good) {
            return Err(reason::QUOTA_EXCEEDED);
        }
        if !entry.permit.may_subscribe(filter) {
            debug!(
                client_id = %entry.client_id,
                user = entry.owner.user(),
                %filter,
                "subscription denied"
            );
            self.counters.inc(Metric::DeniedSubscribe);
            return Err(reason::NOT_AUTHORIZED);
        }
        let is_in_many_groups = matches!(meant, Wanted::Share(_))
            && entry.membership_count() >= MEMBERSHIPS_PER_SESSION;
        let limits = self.shared.limits();
        let bytes = entry.session.subscription_bytes() + topic::weight(filter);
        let has_many = entry.session.subscription_count() >= limits.subscriptions
            || bytes > limits.subscription_bytes
            || self.shared.load.is_swollen();
        if (has_many || is_in_many_groups) && !entry.session.is_subscribed(filter) {
            return Err(reason::QUOTA_EXCEEDED);
        }
        let subscription = Subscription {
            qos: *qos,
            no_local: *no_local,
            retain_as_published: *retain_as_published,
            id: subscription_id,
        };
        let is_new = entry.session.subscribe(filter, subscription);
        if is_new {
            self.counters.inc(Metric::Subscriptions);
            self.filters.add(filter);
        }
        match meant {
            // Groups get no retained messages (MQTT 5, 4.8.2).
            Wanted::Share(shared) => self.join_group(key, shared, subscription),
            Wanted::All(filter) => {
                if retain_handling.asks(is_new) {
                    entry.session.greet(filter);
                }
                if self.subscribers.insert(filter, key, subscription) == Inserted::NewFilter {
                    self.shared.add_route(filter, self.id);
                }
                if is_kept {
                    self.shared.kept_routes.add(filter, self.id);
                }
                if is_new {
                    self.note_fresh(key, filter);
                }
            }
        }
        Ok(())
    }

    /// Takes one filter away; the result is its UNSUBACK code. If it was a group's, that has lost a
    /// member.
    pub(super) fn unsubscribe(
        &mut self,
        key: SessionKey,
        filter: &str,
        left: &mut BTreeSet<ShareId>,
    ) -> u8 {
        let Some(meant) = topic::parse_filter(filter) else {
            return reason::TOPIC_FILTER_INVALID;
        };
        let Some(entry) = self.sessions.get_mut(key) else {
            return reason::FAILURE;
        };
        if !entry.session.unsubscribe(filter) {
            return reason::NO_SUBSCRIPTION_EXISTED;
        }
        self.counters.sub(Metric::Subscriptions, 1);
        self.filters.remove(filter);
        match meant {
            Wanted::Share(shared) => left.extend(self.leave_group(key, shared)),
            Wanted::All(filter) => self.cancel(key, filter),
        }
        reason::SUCCESS
    }

    fn handle_disconnect(
        &mut self,
        key: SessionKey,
        reason: u8,
        session_expiry: Option<u32>,
    ) -> Result<Flow, u8> {
        if let Some(seconds) = session_expiry {
            let expiry = self.bounded_expiry(seconds);
            let Some(entry) = self.sessions.get_mut(key) else {
                return Ok(Flow::Close(Cause::Goodbye));
            };
            // A session that was to end with its connection cannot be prolonged (3.14.2.2.2). That it
            // does where none is kept is no wish of the client's.
            let are_kept = !self.shared.session_limits.max_expiry.is_zero();
            if entry.session.expiry().is_zero() && seconds != 0 && are_kept {
                return Err(reason::PROTOCOL_ERROR);
            }
            entry.session.set_expiry(expiry);
        }
        // Only a normal disconnection deletes the will (3.14.4).
        let cause = if reason == reason::SUCCESS {
            Cause::Goodbye
        } else {
            Cause::Broken
        };
        Ok(Flow::Close(cause))
    }
}

/// Answers a PUBLISH, when its receipt is complete. MQTT 3 has no reason in it, and takes every answer
/// for success.
fn acknowledge(
    key: SessionKey,
    link: &Link,
    qos: Qos,
    id: Option<PacketId>,
    reason: u8,
    receipt: Option<Rc<Receipt>>,
) {
    let kind = match qos {
        Qos::AtMostOnce => return,
        Qos::AtLeastOnce => AckKind::PubAck,
        Qos::ExactlyOnce => AckKind::PubRec,
    };
    if let Some(id) = id {
        let waiter = Waiter::Session(key.number());
        link.acknowledge(Ack { kind, id, reason }, receipt, waiter);
    }
}

#[cfg(test)]
mod tests;
