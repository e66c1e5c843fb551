//! Messages of a session that moves to another node, or has just come from one.

use std::{collections::BTreeSet, sync::Arc, time::Instant};

use super::{Delivered, InFlight, Outgoing, Queued, Source, Stage};
use crate::{
    message::{Message, MessageId, Qos},
    session::{
        Grant, RestoredMessage, Wire,
        journal::{Change, Progress, Record, Seq},
    },
};

/// A message that is the session's, and waits until it is known whether it comes by another way too.
#[derive(Debug)]
pub struct Held(Queued);

impl Held {
    pub fn id(&self) -> MessageId {
        self.0.message.id
    }

    pub fn topic(&self) -> &str {
        &self.0.message.topic
    }

    /// Bytes that it takes.
    pub fn size(&self) -> usize {
        self.0.message.size() + HELD_BYTES
    }
}

impl Outgoing {
    /// Messages from the one at this place on, in their order and about so many bytes of them; and the
    /// place of the next one.
    pub(in crate::session) fn portion(
        &self,
        from: usize,
        bytes: usize,
    ) -> (Vec<RestoredMessage>, Option<usize>) {
        let mut room = bytes;
        let mut portion = Vec::new();
        for place in from..self.inflight.len() + self.queue.len() {
            if room == 0 {
                return (portion, Some(place));
            }
            let (progress, queued) = match self.inflight.get(place) {
                Some(InFlight { id, stage, .. }) => match stage {
                    Stage::Published(queued) => (Progress::Published(*id), Some(queued)),
                    Stage::Released => (Progress::Released(*id), None),
                },
                None => (
                    Progress::Waiting,
                    self.queue.get(place - self.inflight.len()),
                ),
            };
            let content = queued.map(|queued| (Arc::clone(&queued.message), queued.grant.clone()));
            let size = queued.map_or(0, |queued| queued.message.size()) + MESSAGE_BYTES;
            // One that is longer than a piece has one for itself: a frame takes no more.
            if size > room && !portion.is_empty() {
                return (portion, Some(place));
            }
            room = room.saturating_sub(size);
            portion.push(RestoredMessage {
                seq: Seq(place as u64),
                progress,
                content,
                group: None,
            });
        }
        (portion, None)
    }

    /// Whether the first message is longer than this.
    pub(in crate::session) fn is_long(&self, room: usize) -> bool {
        let (portion, _next) = self.portion(0, 1);
        let content = portion.first().map(|first| &first.content);
        content.is_some_and(|content| {
            let size = content
                .as_ref()
                .map_or(0, |(message, _grant)| message.size());
            size + MESSAGE_BYTES > room
        })
    }

    /// Takes over a message of the session's from another node, behind those that it has.
    pub(in crate::session) fn take_over(&mut self, message: RestoredMessage) {
        let RestoredMessage {
            seq: _,
            progress,
            content,
            group: _,
        } = message;
        match (progress, content) {
            (Progress::Waiting, Some((message, grant))) => {
                // However much waits by now: it was taken.
                let place = self.room.shelf.place_of_old(&message);
                self.push(Queued {
                    message,
                    grant,
                    source: Source::Publisher,
                    place,
                    seq: None,
                });
            }
            (Progress::Published(id), Some((message, grant))) => {
                self.inflight_bytes += message.size();
                let seq = self.take(&message, &grant, progress);
                let stage = Stage::Published(Queued {
                    message,
                    grant,
                    source: Source::Publisher,
                    place: None,
                    seq,
                });
                self.inflight.push_back(InFlight { id, seq, stage });
            }
            (Progress::Released(id), _) => {
                let seq = self.take_released(id);
                let stage = Stage::Released;
                self.inflight.push_back(InFlight { id, seq, stage });
            }
            // What is not there cannot be sent.
            (Progress::Waiting | Progress::Published(_), None) => {}
        }
    }

    /// Notes that the client has a message that is not here any more: one without content stands for
    /// it.
    fn take_released(&mut self, id: crate::codec::packet::PacketId) -> Option<Seq> {
        let message = Arc::new(Message {
            topic: Box::default(),
            payload: Box::default(),
            properties: Box::default(),
            qos: Qos::ExactlyOnce,
            retain: false,
            expires: None,
            id: MessageId::NONE,
        });
        let grant = Grant {
            qos: Qos::ExactlyOnce,
            retain: false,
            subscription_ids: Vec::new(),
            share: None,
        };
        let seq = self.take(&message, &grant, Progress::Published(id))?;
        let message = Some(message);
        self.record.note(|| Change::Released { seq, id, message });
        Some(seq)
    }

    /// Takes a message without saying whether it will be sent; `None` when there is no room.
    pub(in crate::session) fn hold(
        &mut self,
        message: &Arc<Message>,
        grant: Grant,
        held_bytes: usize,
    ) -> Option<Held> {
        if held_bytes + self.queued_bytes >= self.room.bytes {
            return None;
        }
        let place = self.room.shelf.place(message)?;
        // Behind what is yet to be forwarded, also after a crash.
        let seq = self.take_as(Record::next_held_seq, message, &grant, Progress::Waiting);
        Some(Held(Queued {
            message: Arc::clone(message),
            grant,
            source: Source::Publisher,
            place: Some(place),
            seq,
        }))
    }

    /// Nothing is held any more.
    pub(in crate::session) fn end_hold(&mut self) {
        self.record.end_hold();
    }

    /// Sends a message that was held, or queues it.
    pub(in crate::session) fn let_go(
        &mut self,
        Held(queued): Held,
        wire: Option<&mut impl Wire>,
        now: Instant,
    ) -> Delivered {
        if queued.message.is_expired(now) {
            queued.note_done(&self.record);
            return Delivered::Skipped;
        }
        match wire {
            Some(wire) if wire.has_room() && self.may_overtake_queue(queued.grant.qos) => {
                if self.send(queued, wire, now) {
                    Delivered::Sent
                } else {
                    Delivered::TooLong
                }
            }
            Some(_) | None => {
                self.push(queued);
                Delivered::Queued
            }
        }
    }

    /// Forgets a message that was held: it has come by another way.
    pub(in crate::session) fn drop_held(&self, Held(queued): &Held) {
        queued.note_done(&self.record);
    }

    pub(in crate::session) fn message_ids(&self) -> BTreeSet<MessageId> {
        let in_flight = self
            .inflight
            .iter()
            .filter_map(|InFlight { stage, .. }| match stage {
                Stage::Published(queued) => Some(queued.message.id),
                Stage::Released => None,
            });
        let queued = self.queue.iter().map(|queued| queued.message.id);
        in_flight.chain(queued).collect()
    }

    /// Forgets all messages; nothing is noted of that.
    pub(in crate::session) fn clear(&mut self) {
        self.inflight.clear();
        self.inflight_bytes = 0;
        self.sent = 0;
        self.queue.clear();
        self.count_queue();
    }
}

/// What a message is taken for beside its content, on its way.
const MESSAGE_BYTES: usize = 64;

/// And in memory: there are no queues with a number of places for those that are held.
const HELD_BYTES: usize = 256;
