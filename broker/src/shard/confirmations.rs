//! A shard's part in confirming messages: its publishers' answers, and other shards' frames.

use std::{rc::Rc, sync::Arc, time::Instant};

use super::{SessionKey, Shard};
use crate::{
    codec::packet::{AckKind, PacketId, reason},
    lanes::{Confirmation, Level, frame::Source},
    message::{Message, Qos},
    receipts::{Need, Needs, Receipt, Waiter},
    routes::ShardId,
    session::Wire,
};

impl Shard {
    /// Publishes a client's message; returns the reason code of the answer, and what that waits for.
    pub(super) fn publish_for(
        &mut self,
        key: SessionKey,
        id: Option<PacketId>,
        message: Message,
        now: Instant,
    ) -> (u8, Option<Rc<Receipt>>) {
        let qos = message.qos;
        self.source = self.source_of(key, qos, id);
        let mut needs = std::mem::take(&mut self.needs);
        let is_wanted = self.publish(Arc::new(message), Some(key), &mut needs, now);
        let receipt = self.open_receipt(key, qos, id, needs);
        self.source = None;
        let reason = if is_wanted {
            reason::SUCCESS
        } else {
            reason::NO_MATCHING_SUBSCRIBERS
        };
        (reason, receipt)
    }

    /// What the answer to a QoS 2 message waits for that was published before: perhaps in an earlier
    /// life, which may have ended before all other shards had stored it.
    pub(super) fn publish_again(
        &mut self,
        key: SessionKey,
        id: Option<PacketId>,
        message: Message,
        now: Instant,
    ) -> Option<Rc<Receipt>> {
        let session = &self.sessions.get_mut(key)?.session;
        let Some(inherited) = session.inherited(id) else {
            return session.receipt(id?);
        };
        if let (false, Some(id)) = (inherited.is_here, id) {
            session.note_begun(id);
        }
        let qos = message.qos;
        self.source = Some(Source {
            origin: inherited.origin,
            is_repeat: true,
        });
        let message = self.name(Arc::new(message));
        let mut needs = std::mem::take(&mut self.needs);
        if inherited.is_here {
            self.route_elsewhere(&message, &mut needs, now);
        } else {
            self.route(&message, Some(key), &mut needs, now);
        }
        let receipt = self.open_receipt(key, qos, id, needs);
        self.source = None;
        receipt
    }

    fn source_of(&mut self, key: SessionKey, qos: Qos, id: Option<PacketId>) -> Option<Source> {
        let origin = self.sessions.get_mut(key)?.session.origin(qos, id)?;
        let is_repeat = false;
        Some(Source { origin, is_repeat })
    }

    fn open_receipt(
        &mut self,
        key: SessionKey,
        qos: Qos,
        id: Option<PacketId>,
        mut needs: Needs,
    ) -> Option<Rc<Receipt>> {
        let receipt = self.ledger.open(&needs);
        needs.clear();
        self.needs = needs;
        if let (Qos::ExactlyOnce, Some(id)) = (qos, id)
            && let Some(entry) = self.sessions.get_mut(key)
        {
            entry.session.await_receipt(id, &receipt);
        }
        receipt
    }

    /// Before a PUBREC is given: its message need not be passed on again after a crash.
    pub(super) fn note_spread(&mut self, key: SessionKey, id: PacketId) {
        if let Some(entry) = self.sessions.get_mut(key) {
            entry.session.note_spread(id);
        }
    }

    /// Tells a frame's sender that its messages were taken, when those have taken them that they were
    /// handed on to.
    pub(super) fn confirm_frame(&mut self, from: ShardId, sequence: u64, needs: &Needs) {
        if from.0 >= self.shared.shards {
            let lanes = &self.shared.lanes;
            lanes.tell(self.id, from, sequence, Level::Taken);
        }
        match self.ledger.open(needs) {
            Some(receipt) => receipt.tell(Waiter::Frame { from, sequence }),
            None => self.shared.lanes.confirm(self.id, from, sequence),
        }
    }

    /// Answers what need not wait any more of what a client has published.
    fn answer(&mut self, key: SessionKey) {
        let Some(entry) = self.sessions.get_mut(key) else {
            return;
        };
        let Some(link) = entry.link.clone() else {
            return;
        };
        while let Some(ack) = link.next_answer(Waiter::Session(key.number())) {
            let noted = self.noted();
            if ack.kind == AckKind::PubRec {
                self.note_spread(key, ack.id);
            }
            self.hold_noted(noted, &link);
            (&mut &*link).ack(ack);
        }
    }

    /// Takes note of what became of a frame.
    pub(super) fn handle_frame_confirmation(&mut self, confirmation: Confirmation) {
        let Confirmation {
            reader: to,
            sequence,
            level,
        } = confirmation;
        // What is safe was taken, whether that was told or not.
        if let Some(account) = &self.account {
            account.confirm(to, sequence, level);
        }
        if to.0 >= self.shared.shards {
            self.handle_confirmation(Need::Taken { to, sequence });
        }
        match level {
            Level::Passed | Level::Safe => self.handle_confirmation(Need::Frame { to, sequence }),
            Level::Taken => {}
        }
    }

    /// Answers those who waited for this alone.
    pub(super) fn handle_confirmation(&mut self, need: Need) {
        for waiter in self.ledger.confirm(need) {
            match waiter {
                Waiter::Session(number) => self.answer(SessionKey::of(number)),
                Waiter::Frame { from, sequence } => {
                    self.shared.lanes.confirm(self.id, from, sequence);
                }
                Waiter::Move(number) => self.finish_move(number),
                Waiter::Install(number) => self.finish_install(number),
            }
        }
    }
}
