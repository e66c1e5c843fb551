//! Messages on their way to one client: the window of unacknowledged ones, and the queue behind.

use std::{collections::VecDeque, sync::Arc, time::Instant};

use super::{
    Grant, Room, Wire,
    journal::{Progress, Record, Seq},
    stock::Place,
};
use crate::{
    codec::packet::{Ack, AckKind, Delivery, PacketId, reason},
    message::{Message, Qos},
};

mod kept;
mod moving;
mod orphans;

pub use moving::Held;

/// The sending half of a session.
#[derive(Debug)]
pub struct Outgoing {
    window: u16,
    last_id: u16,
    /// In the order of sending, which is the order of sending again (4.6).
    inflight: VecDeque<InFlight>,
    /// How many of those this connection was sent; the others are to be sent again before anything
    /// new is.
    sent: usize,
    queue: VecDeque<Queued>,
    queued_qos0: usize,
    queued_retained: usize,
    /// Of what publishers have sent; retained messages are held by their store.
    queued_bytes: usize,
    inflight_bytes: usize,
    room: Room,
    record: Record,
}

/// What became of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Delivered {
    Sent,
    Queued,
    /// Not taken: the queue is full.
    Full,
    /// Not taken: the client cannot take a packet of this length.
    TooLong,
    /// Not kept: QoS 0 for an absent client, or expired.
    Skipped,
}

#[derive(Debug)]
struct InFlight {
    id: PacketId,
    /// As noted, if the session is kept.
    seq: Option<Seq>,
    stage: Stage,
}

#[derive(Debug)]
enum Stage {
    /// PUBLISH sent; PUBACK or PUBREC awaited.
    Published(Queued),
    /// PUBREL sent; PUBCOMP awaited.
    Released,
}

#[derive(Debug)]
struct Queued {
    message: Arc<Message>,
    grant: Grant,
    source: Source,
    /// Of a message that waits for room in the window.
    place: Option<Place>,
    /// As noted, if the session is kept; QoS 0 is not.
    seq: Option<Seq>,
}

/// Where a message was before it was queued.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Source {
    Publisher,
    /// The store of retained messages.
    Store,
}

impl Outgoing {
    pub(super) fn new(room: Room) -> Self {
        Self {
            window: 0,
            last_id: 0,
            inflight: VecDeque::new(),
            sent: 0,
            queue: VecDeque::new(),
            queued_qos0: 0,
            queued_retained: 0,
            queued_bytes: 0,
            inflight_bytes: 0,
            room,
            record: Record::default(),
        }
    }

    pub(super) fn attach(&mut self, window: u16) {
        self.window = window;
        self.sent = 0;
    }

    pub(super) fn queue_len(&self) -> usize {
        self.queue.len()
    }

    pub(super) fn inflight_len(&self) -> usize {
        self.inflight.len()
    }

    /// Whether half of what may wait does.
    pub(super) fn is_nearly_full(&self) -> bool {
        self.queue.len() > self.room.messages / 2 || self.queued_bytes > self.room.bytes / 2
    }

    pub(super) fn queued_retained(&self) -> usize {
        self.queued_retained
    }

    /// Whether a message would be sent at once.
    pub(super) fn is_idle(&self) -> bool {
        self.queue.is_empty() && self.sent == self.inflight.len() && self.may_send_new()
    }

    pub(super) fn is_full(&self) -> bool {
        self.queue.len() >= self.room.messages || self.queued_bytes >= self.room.bytes
    }

    /// QoS 0 does not wait for a client that is away.
    pub(super) fn detach(&mut self) {
        self.queue
            .retain(|queued| queued.grant.qos > Qos::AtMostOnce);
        self.count_queue();
    }

    fn count_queue(&mut self) {
        let is_qos0 = |queued: &&Queued| queued.grant.qos == Qos::AtMostOnce;
        let is_retained = |queued: &&Queued| queued.source == Source::Store;
        self.queued_qos0 = self.queue.iter().filter(is_qos0).count();
        self.queued_retained = self.queue.iter().filter(is_retained).count();
        self.queued_bytes = self.queue.iter().map(Queued::weight).sum();
    }

    pub(super) fn deliver(
        &mut self,
        message: &Arc<Message>,
        grant: Grant,
        wire: Option<&mut impl Wire>,
        now: Instant,
    ) -> Delivered {
        if message.is_expired(now) {
            return Delivered::Skipped;
        }
        let queued = Queued {
            message: Arc::clone(message),
            grant,
            source: Source::Publisher,
            place: None,
            seq: None,
        };
        let Some(wire) = wire else {
            return match queued.grant.qos {
                Qos::AtMostOnce => Delivered::Skipped,
                Qos::AtLeastOnce | Qos::ExactlyOnce => self.enqueue(queued),
            };
        };
        if !wire.has_room() || !self.may_overtake_queue(queued.grant.qos) {
            return self.enqueue(queued);
        }
        if self.send(queued, wire, now) {
            Delivered::Sent
        } else {
            Delivered::TooLong
        }
    }

    /// Whether a message may be sent at once without breaking the order of its kind (4.6).
    fn may_overtake_queue(&self, qos: Qos) -> bool {
        match qos {
            Qos::AtMostOnce => self.queued_qos0 == 0,
            Qos::AtLeastOnce | Qos::ExactlyOnce => {
                let is_first =
                    self.queue.len() == self.queued_qos0 && self.sent == self.inflight.len();
                is_first && self.may_send_new()
            }
        }
    }

    fn has_window(&self) -> bool {
        self.sent < usize::from(self.window)
    }

    /// Whether the window takes a message that the client was never sent.
    fn may_send_new(&self) -> bool {
        self.has_window() && self.inflight_bytes < self.room.bytes
    }

    fn enqueue(&mut self, mut queued: Queued) -> Delivered {
        let is_long = self.queued_bytes + queued.weight() > self.room.bytes;
        if self.is_full() || is_long && !self.queue.is_empty() {
            return Delivered::Full;
        }
        queued.place = self.room.shelf.place(&queued.message);
        if queued.place.is_none() {
            return Delivered::Full;
        }
        self.push(queued);
        Delivered::Queued
    }

    /// Queues a message that is not lost to the queue's bound: the caller keeps to one of its own.
    pub(super) fn queue_retained(&mut self, message: Arc<Message>, grant: Grant) {
        self.push(Queued {
            message,
            grant,
            source: Source::Store,
            place: None,
            seq: None,
        });
    }

    fn push(&mut self, mut queued: Queued) {
        if queued.seq.is_none() {
            queued.seq = self.take(&queued.message, &queued.grant, Progress::Waiting);
        }
        self.queued_qos0 += usize::from(queued.grant.qos == Qos::AtMostOnce);
        self.queued_retained += usize::from(queued.source == Source::Store);
        self.queued_bytes += queued.weight();
        self.queue.push_back(queued);
    }

    /// Sends again what is in flight, then from the queue; returns how many messages were dropped
    /// on the way.
    pub(super) fn pump(&mut self, wire: &mut impl Wire, now: Instant) -> usize {
        let (is_done, mut dropped) = self.resend(wire, now);
        if !is_done {
            return dropped;
        }
        while let Some(next) = self.queue.front() {
            let is_qos0 = next.grant.qos == Qos::AtMostOnce;
            if !wire.has_room() || !(is_qos0 || self.may_send_new()) {
                break;
            }
            let Some(next) = self.queue.pop_front() else {
                break;
            };
            self.queued_qos0 -= usize::from(is_qos0);
            self.queued_retained -= usize::from(next.source == Source::Store);
            self.queued_bytes -= next.weight();
            if next.message.is_expired(now) {
                next.note_done(&self.record);
                dropped += 1;
            } else if !self.send(next, wire, now) {
                dropped += 1;
            }
        }
        // A queue that was long once should not hold its memory for the life of an idle client.
        if self.queue.is_empty() && self.queue.capacity() > 64 {
            self.queue = VecDeque::new();
        }
        dropped
    }

    fn send(&mut self, queued: Queued, wire: &mut impl Wire, now: Instant) -> bool {
        let Queued {
            message,
            grant,
            source,
            place: _,
            seq,
        } = queued;
        let id = match grant.qos {
            Qos::AtMostOnce => None,
            Qos::AtLeastOnce | Qos::ExactlyOnce => match self.free_id() {
                Some(id) => Some(id),
                None => return self.give_up(seq, message),
            },
        };
        let delivery = Delivery {
            message,
            qos: grant.qos,
            retain: grant.retain,
            dup: false,
            id,
            subscription_ids: grant.subscription_ids,
        };
        let share = grant.share;
        if !wire.publish(&delivery, now) {
            return self.give_up(seq, delivery.message);
        }
        if let Some(id) = id {
            let Delivery {
                message,
                qos,
                retain,
                subscription_ids,
                ..
            } = delivery;
            let grant = Grant {
                qos,
                retain,
                subscription_ids,
                share,
            };
            self.inflight_bytes += message.size();
            let seq = self.note_published(seq, &message, &grant, id);
            let stage = Stage::Published(Queued {
                message,
                grant,
                source,
                place: None,
                seq,
            });
            self.inflight.push_back(InFlight { id, seq, stage });
            self.sent += 1;
        }
        true
    }

    /// The next packet identifier that is not in flight; `None` when all are.
    fn free_id(&mut self) -> Option<PacketId> {
        for _ in 0..=u16::MAX {
            self.last_id = self.last_id.wrapping_add(1);
            let Some(id) = PacketId::new(self.last_id) else {
                continue;
            };
            if self.position(id).is_none() {
                return Some(id);
            }
        }
        None
    }

    /// Clients acknowledge in order for the most part, so the front is where to look first.
    fn position(&self, id: PacketId) -> Option<usize> {
        self.inflight.iter().position(|inflight| inflight.id == id)
    }

    /// PUBACK and PUBCOMP end a message's flight. Those for unknown identifiers are late answers
    /// to a session that is gone, and harmless.
    pub(super) fn handle_completion(&mut self, ack: Ack) {
        let Some(position) = self.position(ack.id) else {
            return;
        };
        let fits = match &self.inflight[position].stage {
            Stage::Published(queued) => {
                ack.kind == AckKind::PubAck && queued.grant.qos == Qos::AtLeastOnce
            }
            Stage::Released => ack.kind == AckKind::PubComp,
        };
        if fits {
            self.land(position);
        }
    }

    /// Ends a flight. A client may know of one that it was not sent again.
    fn land(&mut self, position: usize) {
        if let Some(landed) = self.inflight.remove(position) {
            self.inflight_bytes -= landed.stage.weight();
            landed.note_done(&self.record);
        }
        self.sent -= usize::from(position < self.sent);
    }

    pub(super) fn handle_pubrec(&mut self, ack: Ack, wire: &mut impl Wire) {
        let release = |reason| Ack {
            kind: AckKind::PubRel,
            id: ack.id,
            reason,
        };
        let Some(position) = self.position(ack.id) else {
            wire.ack(release(reason::PACKET_ID_NOT_FOUND));
            return;
        };
        match &self.inflight[position].stage {
            Stage::Published(queued) if queued.grant.qos != Qos::ExactlyOnce => {}
            // A refusal ends the flight, without PUBREL (MQTT 5, 4.3.3).
            Stage::Published(_) if ack.reason >= reason::FAILURE => self.land(position),
            Stage::Published(_) | Stage::Released => {
                let flight = &mut self.inflight[position];
                self.inflight_bytes -= flight.stage.weight();
                flight.release(&self.record);
                wire.ack(release(reason::SUCCESS));
            }
        }
    }

    /// Repeats what the last connection left in flight, in its order (4.4); tells whether all of
    /// it is on its way, and how many messages were dropped.
    fn resend(&mut self, wire: &mut impl Wire, now: Instant) -> (bool, usize) {
        let mut dropped = 0;
        while let Some(InFlight { id, stage, .. }) = self.inflight.get(self.sent) {
            if !wire.has_room() || !self.has_window() {
                return (false, dropped);
            }
            let is_sent = match stage {
                Stage::Released => {
                    wire.ack(Ack {
                        kind: AckKind::PubRel,
                        id: *id,
                        reason: reason::SUCCESS,
                    });
                    true
                }
                Stage::Published(queued) => wire.publish(&queued.repeat(*id), now),
            };
            if is_sent {
                self.sent += 1;
            } else {
                self.inflight_bytes -= stage.weight();
                if let Some(given_up) = self.inflight.remove(self.sent) {
                    given_up.note_done(&self.record);
                }
                dropped += 1;
            }
        }
        (true, dropped)
    }
}

impl Stage {
    /// Bytes that are held until the client has answered.
    fn weight(&self) -> usize {
        match self {
            Self::Published(queued) => queued.message.size(),
            Self::Released => 0,
        }
    }
}

impl Queued {
    /// Bytes that are held for the queue.
    fn weight(&self) -> usize {
        match self.source {
            Source::Publisher => self.message.size(),
            Source::Store => 0,
        }
    }

    fn repeat(&self, id: PacketId) -> Delivery {
        Delivery {
            message: Arc::clone(&self.message),
            qos: self.grant.qos,
            retain: self.grant.retain,
            dup: true,
            id: Some(id),
            subscription_ids: self.grant.subscription_ids.clone(),
        }
    }
}
