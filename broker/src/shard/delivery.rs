//! How a message gets from its publisher to its subscribers, here and on other shards.

use std::{
    rc::Rc,
    sync::{Arc, PoisonError, RwLock},
    time::Instant,
};

use tracing::warn;

use super::{SessionKey, Shard, Shared, account::Line, losses::Losses};
use crate::{
    cluster::view::Tally,
    lanes::{Flushed, frame::Mark},
    link::Link,
    message::{Message, Qos},
    metrics::Metric,
    receipts::{Need, Needs},
    retained::{Page, Retained},
    routes::{ShardId, ShardSet},
    session::{Delivered, Grant, Greeting, Subscription},
    shares::Seat,
    sys::{self, Reading},
};

/// Pages of retained messages that one client gets before others have their turn.
const PAGES_PER_TURN: usize = 4;

impl Shard {
    /// Stores and routes a message; tells whether anyone subscribes to it. Who has to confirm it before
    /// its publisher may forget it is added to `needs`.
    pub(super) fn publish(
        &mut self,
        message: Arc<Message>,
        origin: Option<SessionKey>,
        needs: &mut Needs,
        now: Instant,
    ) -> bool {
        let message = self.name(message);
        self.note_own(origin, message.id);
        // By it all nodes agree on which message is a topic's last.
        let cluster = self
            .shared
            .cluster
            .as_ref()
            .filter(|_cluster| message.retain);
        let at = cluster.map_or(0, |cluster| cluster.next_time());
        // Stored before it is routed: a subscriber that is added meanwhile finds it in one place
        // or the other.
        if message.retain {
            let is_kept = !self.cannot_retain(&message)
                && self
                    .shared
                    .retained
                    .write()
                    .unwrap_or_else(PoisonError::into_inner)
                    .store(&message, at, now);
            self.counters
                .add(Metric::RefusedRetained, usize::from(!is_kept));
            self.note_retained();
        }
        self.retained_at = at;
        let is_wanted = self.route(&message, origin, needs, now);
        self.retained_at = 0;
        is_wanted
    }

    /// Tells about the node, when it is time to.
    pub(super) fn publish_sys(&mut self, now: Instant) {
        let Some(sys) = self.sys.as_mut().filter(|sys| sys.is_due(now)) else {
            return;
        };
        let cluster = self.shared.cluster.as_ref();
        let view = cluster.map(|cluster| cluster.view());
        let view = view.as_ref().map(|view| view.borrow().clone());
        let reading = Reading {
            node: &self.shared.node,
            metrics: &self.shared.metrics,
            tally: self.shared.tally(),
            cluster: view.as_ref(),
        };
        let messages = sys.handle_timeout(&reading, now);
        for message in messages.into_iter().map(Arc::new) {
            let store = &self.shared.sys;
            let _is_kept = store
                .write()
                .unwrap_or_else(PoisonError::into_inner)
                .store(&message, 0, now);
            self.route(&message, None, &mut Needs::default(), now);
        }
    }

    /// Passes a message on to whoever subscribes to it; tells whether anyone does.
    pub(super) fn route(
        &mut self,
        message: &Arc<Message>,
        origin: Option<SessionKey>,
        needs: &mut Needs,
        now: Instant,
    ) -> bool {
        let shards = self.shared.routes.matching(&message.topic);
        self.forward(message, shards.union(self.keepers(message)), needs, now);
        if shards.contains(self.id) {
            self.deliver(message, origin, needs, now);
        }
        let shares = self.shared.shares.matching(&message.topic);
        self.dispatch(&shares, message, needs, now);
        !shards.is_empty() || !shares.is_empty()
    }

    /// As [`Shard::route`], to other shards alone, and to groups anew: this one has taken it.
    pub(super) fn route_elsewhere(
        &mut self,
        message: &Arc<Message>,
        needs: &mut Needs,
        now: Instant,
    ) {
        let shards = self.shared.routes.matching(&message.topic);
        self.forward(message, shards, needs, now);
        let shares = self.shared.shares.matching(&message.topic);
        self.dispatch(&shares, message, needs, now);
    }

    /// The other nodes, if they are to keep the message whether they have subscribers or not.
    fn keepers(&self, message: &Message) -> ShardSet {
        let mut keepers = ShardSet::default();
        if message.retain
            && let Some(cluster) = &self.shared.cluster
            && !sys::is_reserved(&message.topic)
        {
            cluster.peers().for_each(|peer| keepers.insert(peer));
        }
        keepers
    }

    /// Whether the message need not be retained, or can be.
    pub(super) fn may_retain(&self, message: &Message) -> bool {
        let retained = &self.shared.retained;
        !message.retain
            || message.payload.is_empty()
            || retained
                .read()
                .unwrap_or_else(PoisonError::into_inner)
                .has_room(message)
    }

    fn forward(&mut self, message: &Message, shards: ShardSet, needs: &mut Needs, now: Instant) {
        for other in (0..self.shared.ends()).map(ShardId) {
            if other != self.id && shards.contains(other) && !self.is_dropped(other, message) {
                self.send(other, message, &[], needs, now);
            }
        }
    }

    /// Whether a message that nobody need get is for a node that does not keep up.
    pub(super) fn is_dropped(&self, to: ShardId, message: &Message) -> bool {
        // A retained one is not for those alone who listen.
        let is_dropped = message.qos == Qos::AtMostOnce
            && !message.retain
            && to.0 >= self.shared.shards
            && self
                .shared
                .cluster
                .as_ref()
                .is_some_and(|cluster| cluster.is_slow(to));
        self.counters
            .add(Metric::DroppedPeer, usize::from(is_dropped));
        is_dropped
    }

    /// Sends a message to another shard for all of its subscribers, or for these seats.
    pub(super) fn send(
        &mut self,
        to: ShardId,
        message: &Message,
        seats: &[Seat],
        needs: &mut Needs,
        now: Instant,
    ) {
        let mark = Mark {
            source: self.source,
            retained_at: self.retained_at,
        };
        let sequence = self.outbox.push_marked(mark, to, message, seats, now);
        if message.qos > Qos::AtMostOnce {
            needs.add(Need::Frame { to, sequence });
        }
        self.outbox_work.notify_one();
    }

    /// Delivers a message to this shard's subscribers. Nodes that it must be handed on to are added to
    /// `needs`.
    pub(crate) fn deliver(
        &mut self,
        message: &Arc<Message>,
        origin: Option<SessionKey>,
        needs: &mut Needs,
        now: Instant,
    ) {
        let mut matches = std::mem::take(&mut self.matches);
        self.subscribers
            .for_each_match(&message.topic, |key, subscription| {
                if !(subscription.no_local && origin == Some(*key)) {
                    matches.push((*key, *subscription));
                }
            });
        self.deliver_to_all(&mut matches, message, needs, now);
        matches.clear();
        self.matches = matches;
    }

    pub(super) fn deliver_to_all(
        &mut self,
        matches: &mut [(SessionKey, Subscription)],
        message: &Arc<Message>,
        needs: &mut Needs,
        now: Instant,
    ) {
        // A client with overlapping subscriptions gets one copy (MQTT 5, 3.3.4).
        matches.sort_by_key(|(key, _subscription)| *key);
        for group in matches.chunk_by(|(a, _), (b, _)| a == b) {
            self.deliver_to(group, message, needs, now);
        }
    }

    fn deliver_to(
        &mut self,
        group: &[(SessionKey, Subscription)],
        message: &Arc<Message>,
        needs: &mut Needs,
        now: Instant,
    ) {
        let Some((key, _subscription)) = group.first() else {
            return;
        };
        if !self.shadows.admits(*key, message.id, now) {
            return;
        }
        let Some(entry) = self.sessions.get_mut(*key) else {
            return;
        };
        let granted = group
            .iter()
            .map(|(_key, subscription)| subscription.qos)
            .max();
        let keeps_retain = group
            .iter()
            .any(|(_key, subscription)| subscription.retain_as_published);
        let grant = Grant {
            qos: message.qos.min(granted.unwrap_or_default()),
            retain: message.retain && keeps_retain,
            subscription_ids: group
                .iter()
                .filter_map(|(_key, subscription)| subscription.id)
                .collect(),
            share: None,
        };
        if entry.transit.is_some() {
            let delivered = self.deliver_in_transit(*key, message, grant, needs, now);
            return self.note_delivered(*key, message, delivered, now);
        }
        let is_kept = entry.session.is_kept();
        let account = self.account.as_ref();
        let line = |link| Line::new(link, account, is_kept);
        let mut wire = entry.link.as_ref().map(line);
        let delivered = entry.session.deliver(message, grant, wire.as_mut(), now);
        entry.note_appetite();
        self.note_delivered(*key, message, delivered, now);
    }

    pub(super) fn note_delivered(
        &mut self,
        key: SessionKey,
        message: &Message,
        delivered: Delivered,
        now: Instant,
    ) {
        match delivered {
            Delivered::Sent | Delivered::Queued | Delivered::Skipped => {}
            Delivered::Full | Delivered::TooLong => self.note_loss(key, message, delivered, now),
        }
    }

    /// Counts a message that a subscriber does not get, and tells who does not keep up.
    fn note_loss(
        &mut self,
        key: SessionKey,
        message: &Message,
        delivered: Delivered,
        now: Instant,
    ) {
        // A message longer than the client takes is nobody's slowness.
        if delivered == Delivered::TooLong {
            self.counters.inc(Metric::DroppedExpired);
            return;
        }
        self.counters.inc(Metric::DroppedQueue);
        self.counters
            .add(Metric::DroppedBytes, message.payload.len());
        let Some(entry) = self.sessions.get_mut(key) else {
            return;
        };
        let losses = entry.losses.get_or_insert_with(|| {
            self.counters.inc(Metric::SlowSubscribers);
            Box::new(Losses::new(now))
        });
        if losses.note(message.payload.len(), now)
            && let Some(unsaid) = self.herald.speak(now)
        {
            losses.note_told(now);
            let (dropped_messages, dropped_bytes) = (losses.messages, losses.bytes);
            warn!(
                client_id = entry.client_id(),
                connected = entry.link.is_some(),
                queued = entry.session.queue_len(),
                dropped_messages,
                dropped_bytes,
                not_told_of_others = unsaid,
                "subscriber does not keep up and loses messages"
            );
        }
    }

    /// Passes retained messages on to a client that subscribed, as many as one turn allows.
    pub(super) fn greet(&mut self, key: SessionKey, link: &Rc<Link>, now: Instant) {
        let Some(entry) = self.sessions.get_mut(key) else {
            return;
        };
        for _ in 0..PAGES_PER_TURN {
            let Some(Greeting { filter, after }) = entry.session.next_greeting() else {
                return;
            };
            let store = self.shared.store_of(filter);
            let Page { messages, next } = store
                .read()
                .unwrap_or_else(PoisonError::into_inner)
                .page(filter, after, now);
            let messages = messages.into_iter().map(|kept| kept.message).collect();
            let mut line = Line::new(link, self.account.as_ref(), entry.session.is_kept());
            let dropped = entry
                .session
                .handle_retained(messages, next, &mut line, now);
            self.counters.add(Metric::DroppedExpired, dropped);
        }
        link.continue_later();
    }

    /// Sends queued messages that found no room before.
    pub(crate) fn pump(&mut self, key: SessionKey, link: &Rc<Link>, now: Instant) {
        let Some(entry) = self.sessions.get_mut(key) else {
            return;
        };
        if entry
            .link
            .as_ref()
            .is_some_and(|current| Rc::ptr_eq(current, link))
        {
            let mut line = Line::new(link, self.account.as_ref(), entry.session.is_kept());
            let dropped = entry.session.pump(&mut line, now);
            entry.note_appetite();
            self.counters.add(Metric::DroppedExpired, dropped);
            self.greet(key, link, now);
        }
    }

    /// Hands frames for other shards to the Router.
    pub(super) fn flush_lanes(&mut self) -> Flushed {
        if let Some(account) = &self.account {
            account.send_now();
            account.send_words(&mut self.outbox);
        }
        let has_more = self.send_pieces(Instant::now()) | self.claim_sessions();
        let flushed = self.outbox.flush();
        self.resume_stalled();
        if has_more { Flushed::Blocked } else { flushed }
    }
}

impl Shared {
    /// What the node tells of itself, its own clients and the other nodes alike.
    pub(crate) fn tally(&self) -> Tally {
        let cluster = self.cluster.as_ref();
        let is_settled = cluster.is_none_or(|cluster| cluster.is_settled());
        let retained = self.retained.read();
        let retained = retained.unwrap_or_else(PoisonError::into_inner).len();
        let get = |metric| self.metrics.get(metric);
        Tally {
            // A rebalance is over soon; who waits for what others have retained is not there yet.
            welcomes: !self.evacuation.is_emptying() && is_settled,
            clients: get(Metric::SessionsConnected),
            sessions: get(Metric::Sessions),
            subscriptions: get(Metric::Subscriptions),
            retained: retained as u64,
            messages_in: get(Metric::MessagesIn),
            messages_out: get(Metric::MessagesOut),
        }
    }

    /// Where the retained messages are that a filter can match. No wildcard matches `$SYS`.
    pub(crate) fn store_of(&self, filter: &str) -> &RwLock<Retained> {
        if sys::is_reserved(filter) {
            &self.sys
        } else {
            &self.retained
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        message::MessageId,
        shares::{Appetite, Presence},
        topic::SharedFilter,
    };

    #[test]
    fn message_for_many_groups_crosses_to_another_shard_once() {
        let shared = Shared::for_tests("", 2);
        let mut shard = Shard::new(ShardId(0), Arc::clone(&shared), Arc::default());
        let presence = Presence::new(Appetite::Ready);
        for number in 0..100 {
            let group = SharedFilter {
                group: &format!("g{number}"),
                filter: "#",
            };
            shared
                .shares
                .join(group, ShardId(1), 0, Qos::AtLeastOnce, &presence);
        }
        let message = Message {
            topic: "t".into(),
            payload: vec![0; 1024 * 1024].into(),
            properties: Box::default(),
            qos: Qos::AtLeastOnce,
            retain: false,
            expires: None,
            id: MessageId::NONE,
        };
        let mut needs = Needs::default();
        assert!(shard.publish(Arc::new(message), None, &mut needs, Instant::now()));
        assert!(!shard.outbox.is_congested());
        assert!(!shard.outbox.is_delivered());
    }
}
