//! One client's session: what MQTT says must outlive its connection.
//!
//! Plain data and rules: no sockets, no clock, no tasks. The time is passed in, packets go to a
//! [`Wire`], and the owner (a shard) asks [`Session::next_deadline`] when to call
//! [`Session::handle_timeout`].
//!
//! ```text
//!            attach                    detach, expiry > 0
//!  (created) ------> connected <----------------------------> absent
//!                        |              attach                  | expiry passes
//!                        | detach, expiry = 0                   v
//!                        +----------------------------------> ended
//! ```

pub mod journal;
mod kept;
mod moving;
mod outgoing;
mod stock;
mod terms;

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Bound,
    rc::Rc,
    sync::Arc,
    time::{Duration, Instant},
};

use crate::{
    codec::packet::{Ack, AckKind, Delivery, PacketId, Will, reason},
    message::{Message, Qos},
    receipts::Receipt,
    shares::{Appetite, ShareId},
    topic,
};
use journal::{Change, Spread};
pub use kept::{Inherited, Restored, RestoredMessage};
pub use moving::{Place, Portion};
pub use outgoing::{Delivered, Held, Outgoing};
pub use stock::{Reserved, Shelf, Stock};
pub use terms::{
    Aftermath, Cause, Grant, Greeting, Orphan, ReceiveMaximumExceeded, Room, Subscription, Terms,
};

/// A QoS 2 message from the client.
#[derive(Debug, Default)]
struct Received {
    /// What its PUBREC waits for.
    receipt: Option<Rc<Receipt>>,
    /// Everybody has it, which is noted: its PUBREC is on its way.
    is_spread: bool,
    /// An earlier life of the broker has received it, and may not have passed it on to everybody.
    inherited: Option<Inherited>,
}

/// Retained messages that may wait in the queue before more are fetched from their store.
const GREETING_BOUND: usize = 64;

/// The client's end of an attached session.
pub trait Wire {
    /// Whether the output buffer takes another PUBLISH.
    fn has_room(&self) -> bool;
    /// Sends a PUBLISH.
    ///
    /// Returns `false`, and sends nothing, when the packet is longer than the client takes.
    #[must_use]
    fn publish(&mut self, delivery: &Delivery, now: Instant) -> bool;
    fn ack(&mut self, ack: Ack);
}

/// One client's session.
#[derive(Debug)]
pub struct Session {
    subscriptions: BTreeMap<Box<str>, Subscription>,
    /// What these cost, see [`topic::weight`].
    subscription_bytes: usize,
    /// Subscriptions whose retained messages are not all queued, with the place reached.
    greetings: BTreeMap<Box<str>, Option<Box<str>>>,
    /// QoS 2 messages from the client that await its PUBREL.
    received: BTreeMap<PacketId, Received>,
    outgoing: Outgoing,
    will: Option<Will>,
    expiry: Duration,
    will_due: Option<Instant>,
    ends: Option<Instant>,
    receive_bound: usize,
}

impl Session {
    /// `room` is for messages that wait for the client.
    pub fn new(room: Room) -> Self {
        Self {
            subscriptions: BTreeMap::new(),
            subscription_bytes: 0,
            greetings: BTreeMap::new(),
            received: BTreeMap::new(),
            outgoing: Outgoing::new(room),
            will: None,
            expiry: Duration::ZERO,
            will_due: None,
            ends: None,
            receive_bound: 0,
        }
    }

    /// Gives the session a connection; a will that was waiting for its delay is cancelled.
    pub fn attach(&mut self, terms: Terms) {
        let Terms {
            window,
            receive,
            expiry,
            will,
        } = terms;
        // The PUBRELs of an older connection take nothing of this one's quota (MQTT 5, 4.9).
        self.receive_bound = receive + self.received.len();
        self.outgoing.attach(window);
        self.expiry = expiry;
        self.will = will;
        self.will_due = None;
        self.ends = None;
        self.note_state();
    }

    /// Takes the connection away.
    pub fn detach(&mut self, cause: Cause, now: Instant) -> Aftermath {
        let aftermath = self.detach_silently(cause, now);
        if !aftermath.ended {
            self.note_state();
        }
        aftermath
    }

    fn detach_silently(&mut self, cause: Cause, now: Instant) -> Aftermath {
        self.outgoing.detach();
        let will = match cause {
            Cause::Broken => self.will.take(),
            Cause::Referred if self.expiry.is_zero() => None,
            Cause::Referred => self.will.take_if(|will| will.delay > 0),
            // A delay goes on behind the next start.
            Cause::Shutdown if self.is_kept() => self.will.take(),
            Cause::Goodbye | Cause::Shutdown => None,
        };
        self.will = None;
        self.ends = Some(now + self.expiry);
        let ends_with_node = cause == Cause::Shutdown && !self.is_kept();
        if self.expiry.is_zero() || ends_with_node {
            return Aftermath {
                will: will.map(|will| will.publication(now)),
                ended: true,
            };
        }
        let Some(will) = will else {
            return Aftermath::default();
        };
        // The will is due after its delay or with the session's end (MQTT 5, 3.1.3.2.2).
        let delay = Duration::from_secs(u64::from(will.delay)).min(self.expiry);
        if delay.is_zero() {
            return Aftermath {
                will: Some(will.publication(now)),
                ended: false,
            };
        }
        self.will_due = Some(now + delay);
        self.will = Some(will);
        Aftermath::default()
    }

    /// Ends an absent session before its time, as a clean start does.
    pub fn end(&mut self, now: Instant) -> Aftermath {
        Aftermath {
            will: self.will.take().map(|will| will.publication(now)),
            ended: true,
        }
    }

    /// Changes how long the session outlives its connection, as a DISCONNECT may.
    pub fn set_expiry(&mut self, expiry: Duration) {
        self.expiry = expiry;
    }

    /// Drops the will unless it may be published to its topic.
    pub fn keep_will_if(&mut self, may: impl FnOnce(&str) -> bool) {
        if self
            .will
            .take_if(|will| !may(&will.message.topic))
            .is_some()
        {
            self.note_state();
        }
    }

    pub fn expiry(&self) -> Duration {
        self.expiry
    }

    /// When [`Session::handle_timeout`] has something to do.
    pub fn next_deadline(&self) -> Option<Instant> {
        match (self.will_due, self.ends) {
            (Some(will), Some(end)) => Some(will.min(end)),
            (due, None) | (None, due) => due,
        }
    }

    pub fn handle_timeout(&mut self, now: Instant) -> Aftermath {
        let passed = |due: Option<Instant>| due.is_some_and(|due| due <= now);
        let ended = passed(self.ends);
        let mut will = None;
        if passed(self.will_due) || ended {
            self.will_due = None;
            will = self.will.take().map(|will| will.publication(now));
        }
        if will.is_some() && !ended {
            self.note_state();
        }
        Aftermath { will, ended }
    }

    /// Records a subscription; tells whether its filter is new to the session.
    pub fn subscribe(&mut self, filter: &str, subscription: Subscription) -> bool {
        self.note(|| Change::Subscribed(filter.into(), subscription));
        let older = self.subscriptions.insert(filter.into(), subscription);
        if older.is_none() {
            self.subscription_bytes += topic::weight(filter);
        }
        older.is_none()
    }

    /// Forgets a subscription; tells whether there was one.
    pub fn unsubscribe(&mut self, filter: &str) -> bool {
        self.greetings.remove(filter);
        let had = self.subscriptions.remove(filter).is_some();
        if had {
            self.subscription_bytes -= topic::weight(filter);
            self.note(|| Change::Unsubscribed(filter.into()));
        }
        had
    }

    pub fn filters(&self) -> impl Iterator<Item = &str> {
        self.subscriptions.keys().map(AsRef::as_ref)
    }

    pub fn is_subscribed(&self, filter: &str) -> bool {
        self.subscriptions.contains_key(filter)
    }

    pub fn subscription_count(&self) -> usize {
        self.subscriptions.len()
    }

    /// Bytes of all filters, and of the branches that they have in trees.
    pub fn subscription_bytes(&self) -> usize {
        self.subscription_bytes
    }

    /// Takes note of a PUBLISH from the client.
    ///
    /// Returns `false` when it repeats a QoS 2 message that was already passed on.
    ///
    /// # Errors
    /// When the client has more QoS 2 messages under way than it may.
    pub fn handle_publish(
        &mut self,
        qos: Qos,
        id: Option<PacketId>,
    ) -> Result<bool, ReceiveMaximumExceeded> {
        let (Qos::ExactlyOnce, Some(id)) = (qos, id) else {
            return Ok(true);
        };
        if self.received.contains_key(&id) {
            return Ok(false);
        }
        if self.received.len() >= self.receive_bound {
            return Err(ReceiveMaximumExceeded);
        }
        self.received.insert(id, Received::default());
        self.note(|| Change::Received(id, Spread::Begun));
        Ok(true)
    }

    /// Notes what the answer to a QoS 2 message waits for. A repeat of it, which may come by another
    /// connection, must wait for the same.
    pub fn await_receipt(&mut self, id: PacketId, receipt: &Option<Rc<Receipt>>) {
        if let Some(received) = self.received.get_mut(&id) {
            received.receipt.clone_from(receipt);
            received.inherited = None;
        }
    }

    /// What the answer to a QoS 2 message waits for.
    pub fn receipt(&self, id: PacketId) -> Option<Rc<Receipt>> {
        self.received.get(&id)?.receipt.clone()
    }

    /// Whether a PUBREL can be an answer to what the client was told. One that comes before its PUBREC
    /// frees an identifier that other shards may yet note a message by.
    pub fn may_release(&self, id: PacketId) -> bool {
        let received = self.received.get(&id);
        received.is_none_or(|received| received.is_spread)
    }

    /// Takes back that a PUBLISH was noted: it is refused, which ends its delivery.
    pub fn forget_publish(&mut self, id: PacketId) {
        self.complete(id);
    }

    /// Tells whether the message was known.
    fn complete(&mut self, id: PacketId) -> bool {
        let known = self.received.remove(&id).is_some();
        if known {
            self.note(|| Change::Completed(id));
        }
        known
    }

    /// Handles PUBACK, PUBREC, PUBREL and PUBCOMP.
    ///
    /// Returns the number of messages dropped because they expired or are too long.
    pub fn handle_ack(&mut self, ack: Ack, wire: &mut impl Wire, now: Instant) -> usize {
        match ack.kind {
            AckKind::PubRel => {
                let reason = if self.complete(ack.id) {
                    reason::SUCCESS
                } else {
                    reason::PACKET_ID_NOT_FOUND
                };
                wire.ack(Ack {
                    kind: AckKind::PubComp,
                    id: ack.id,
                    reason,
                });
                0
            }
            AckKind::PubRec => {
                self.outgoing.handle_pubrec(ack, wire);
                self.outgoing.pump(wire, now)
            }
            AckKind::PubAck | AckKind::PubComp => {
                self.outgoing.handle_completion(ack);
                self.outgoing.pump(wire, now)
            }
        }
    }

    /// Passes a message on to the client, or queues it.
    pub fn deliver(
        &mut self,
        message: &Arc<Message>,
        grant: Grant,
        wire: Option<&mut impl Wire>,
        now: Instant,
    ) -> Delivered {
        self.outgoing.deliver(message, grant, wire, now)
    }

    /// Makes the retained messages of a subscription due.
    pub fn greet(&mut self, filter: &str) {
        self.greetings.insert(filter.into(), None);
    }

    /// The retained messages to fetch next; `None` while enough of them are queued.
    ///
    /// They wait in their store, which holds them anyway, and not in the queue.
    pub fn next_greeting(&self) -> Option<Greeting<'_>> {
        if self.outgoing.queued_retained() >= GREETING_BOUND {
            return None;
        }
        let (filter, after) = self.greetings.first_key_value()?;
        Some(Greeting {
            filter,
            after: after.as_deref(),
        })
    }

    /// Takes what was found for [`Session::next_greeting`]; `next` is the place reached, `None`
    /// when that was all.
    ///
    /// Returns the number of messages dropped because they expired or are too long.
    pub fn handle_retained(
        &mut self,
        messages: Vec<Arc<Message>>,
        next: Option<Box<str>>,
        wire: &mut impl Wire,
        now: Instant,
    ) -> usize {
        let Some(mut greeting) = self.greetings.first_entry() else {
            return 0;
        };
        if let Some(subscription) = self.subscriptions.get(greeting.key()) {
            for message in messages {
                let grant = Grant {
                    qos: message.qos.min(subscription.qos),
                    retain: true,
                    subscription_ids: subscription.id.into_iter().collect(),
                    share: None,
                };
                self.outgoing.queue_retained(message, grant);
            }
        }
        if next.is_some() {
            *greeting.get_mut() = next;
        } else {
            greeting.remove();
        }
        self.outgoing.pump(wire, now)
    }

    /// Sends what the last connection left unacknowledged and then what is queued, as far as window
    /// and output buffer allow.
    ///
    /// Returns the number of messages dropped because they expired or are too long.
    pub fn pump(&mut self, wire: &mut impl Wire, now: Instant) -> usize {
        self.outgoing.pump(wire, now)
    }

    /// How much the session can take of what is shared with others.
    pub fn appetite(&self, is_connected: bool) -> Appetite {
        if is_connected && self.outgoing.is_idle() {
            Appetite::Ready
        } else if self.outgoing.is_full() {
            Appetite::Full
        } else if is_connected {
            Appetite::Busy
        } else {
            Appetite::Away
        }
    }

    /// The groups on whose behalf something waits for the client.
    pub fn waiting_shares(&self) -> BTreeSet<ShareId> {
        self.outgoing.waiting_shares()
    }

    /// Takes back what waits for the client on behalf of these groups, or of all.
    pub fn reclaim_unsent(&mut self, shares: Option<&BTreeSet<ShareId>>) -> Vec<Orphan> {
        self.outgoing.reclaim_unsent(shares)
    }

    /// Messages that wait for the client.
    pub fn queue_len(&self) -> usize {
        self.outgoing.queue_len()
    }

    /// Messages that the client has and has not acknowledged.
    pub fn inflight_len(&self) -> usize {
        self.outgoing.inflight_len()
    }

    /// Whether so much waits that little more can.
    pub fn is_nearly_full(&self) -> bool {
        self.outgoing.is_nearly_full()
    }

    /// When an absent client's session ends.
    pub fn ends(&self) -> Option<Instant> {
        self.ends
    }

    /// The subscriptions whose filters come behind this one, in order.
    pub fn subscriptions_after(
        &self,
        filter: Option<&str>,
    ) -> impl Iterator<Item = (&str, &Subscription)> {
        let from = filter.map_or(Bound::Unbounded, Bound::Excluded);
        let range = self.subscriptions.range::<str, _>((from, Bound::Unbounded));
        range.map(|(filter, subscription)| (&**filter, subscription))
    }

    /// Takes the will that is due when the node stops: a connected client's if it has no delay, and
    /// an absent one's if its session ends with the node.
    pub fn last_will(&mut self, now: Instant) -> Option<Arc<Message>> {
        let is_last = self.will_due.is_some() && !self.is_kept();
        let is_at_once = self.will_due.is_none();
        let will = self
            .will
            .take_if(|will| is_last || is_at_once && will.delay == 0)?;
        self.note_state();
        Some(will.publication(now))
    }
}

#[cfg(test)]
mod tests;
