//! What the sending half notes of its messages, and takes back after a restart.

use std::sync::Arc;

use super::{InFlight, Outgoing, Queued, Source, Stage};
use crate::{
    codec::packet::PacketId,
    message::{Message, Qos},
    session::{
        Grant, RestoredMessage,
        journal::{Change, Progress, Record, Remains, Seq},
    },
};

impl Outgoing {
    pub(in crate::session) fn record(&self) -> &Record {
        &self.record
    }

    pub(in crate::session) fn record_mut(&mut self) -> &mut Record {
        &mut self.record
    }

    /// What is noted of messages.
    pub(in crate::session) fn remains(&self) -> Remains {
        let in_flight = self.inflight.iter().filter_map(|inflight| {
            let message = match &inflight.stage {
                Stage::Published(queued) => Some(Arc::clone(&queued.message)),
                Stage::Released => None,
            };
            Some((inflight.seq?, message))
        });
        let queued = self
            .queue
            .iter()
            .filter_map(|queued| Some((queued.seq?, Some(Arc::clone(&queued.message)))));
        Remains {
            messages: in_flight.chain(queued).collect(),
            ..Remains::default()
        }
    }

    /// The messages that are noted, in the order of their numbers.
    pub(in crate::session) fn snapshot(&self) -> Vec<RestoredMessage> {
        let content = |queued: &Queued| Some((Arc::clone(&queued.message), queued.grant.clone()));
        let noted = |seq, progress, content| RestoredMessage {
            seq,
            progress,
            content,
            group: None,
        };
        let in_flight = self
            .inflight
            .iter()
            .filter_map(|InFlight { id, seq, stage }| {
                Some(match stage {
                    Stage::Published(queued) => {
                        noted((*seq)?, Progress::Published(*id), content(queued))
                    }
                    Stage::Released => noted((*seq)?, Progress::Released(*id), None),
                })
            });
        let queued = self.queue.iter();
        let queued = queued
            .filter_map(|queued| Some(noted(queued.seq?, Progress::Waiting, content(queued))));
        in_flight.chain(queued).collect()
    }

    /// Takes back a message that was noted in an earlier life, in the order of their numbers.
    pub(in crate::session) fn restore(&mut self, restored: RestoredMessage) {
        let RestoredMessage {
            seq,
            progress,
            content,
            group: _,
        } = restored;
        self.record.skip_to(seq);
        let seq = Some(seq);
        let queued = content.map(|(message, grant)| Queued {
            // However much waits by now: it was taken.
            place: self.room.shelf.place_of_old(&message),
            message,
            grant,
            source: Source::Publisher,
            seq,
        });
        match (progress, queued) {
            (Progress::Waiting, Some(queued)) => self.push(queued),
            (Progress::Published(id), Some(queued)) => {
                self.inflight_bytes += queued.message.size();
                let queued = Queued {
                    place: None,
                    ..queued
                };
                let stage = Stage::Published(queued);
                self.inflight.push_back(InFlight { id, seq, stage });
            }
            (Progress::Released(id), _) => {
                let stage = Stage::Released;
                self.inflight.push_back(InFlight { id, seq, stage });
            }
            // What is not there cannot be sent.
            (Progress::Waiting | Progress::Published(_), None) => {}
        }
    }

    /// Notes that a message is the session's, if that is to outlive the process.
    pub(super) fn take(
        &mut self,
        message: &Arc<Message>,
        grant: &Grant,
        progress: Progress,
    ) -> Option<Seq> {
        self.take_as(Record::next_seq, message, grant, progress)
    }

    /// As [`Outgoing::take`], with a number that is given out by `number`.
    pub(super) fn take_as(
        &mut self,
        number: impl FnOnce(&mut Record) -> Seq,
        message: &Arc<Message>,
        grant: &Grant,
        progress: Progress,
    ) -> Option<Seq> {
        if !self.record.is_kept() || grant.qos == Qos::AtMostOnce {
            return None;
        }
        let seq = number(&mut self.record);
        self.record.note(|| Change::Taken {
            seq,
            message: Arc::clone(message),
            grant: grant.clone(),
            progress,
        });
        Some(seq)
    }

    /// Notes that a message is on its way.
    pub(super) fn note_published(
        &mut self,
        seq: Option<Seq>,
        message: &Arc<Message>,
        grant: &Grant,
        id: PacketId,
    ) -> Option<Seq> {
        let Some(seq) = seq else {
            return self.take(message, grant, Progress::Published(id));
        };
        self.record.note(|| Change::Published {
            seq,
            message: Arc::clone(message),
            grant: grant.clone(),
            id,
        });
        Some(seq)
    }

    /// Notes that a message cannot be sent; the result is that of sending it.
    pub(super) fn give_up(&self, seq: Option<Seq>, message: Arc<Message>) -> bool {
        if let Some(seq) = seq {
            let message = Some(message);
            self.record.note(|| Change::Done { seq, message });
        }
        false
    }
}

impl InFlight {
    /// The client has the message.
    pub(super) fn release(&mut self, record: &Record) {
        let before = std::mem::replace(&mut self.stage, Stage::Released);
        if let (Some(seq), Stage::Published(queued)) = (self.seq, before) {
            record.note(|| Change::Released {
                seq,
                id: self.id,
                message: Some(queued.message),
            });
        }
    }

    pub(super) fn note_done(self, record: &Record) {
        if let Some(seq) = self.seq {
            let message = match self.stage {
                Stage::Published(queued) => Some(queued.message),
                Stage::Released => None,
            };
            record.note(|| Change::Done { seq, message });
        }
    }
}

impl Queued {
    pub(super) fn note_done(&self, record: &Record) {
        if let Some(seq) = self.seq {
            let message = Some(Arc::clone(&self.message));
            record.note(|| Change::Done { seq, message });
        }
    }
}
