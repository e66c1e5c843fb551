//! A shard's part in confirming messages: its publishers' answers, and other shards' frames.

use std::{rc::Rc, sync::Arc, time::Instant};

use super::{SessionKey, Shard};
use crate::{
    codec::packet::{PacketId, reason},
    message::{Message, Qos},
    receipts::{Need, Needs, Receipt, Waiter},
    routes::ShardId,
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
        let mut needs = std::mem::take(&mut self.needs);
        let is_wanted = self.publish(Arc::new(message), Some(key), &mut needs, now);
        let receipt = self.ledger.open(&needs);
        needs.clear();
        self.needs = needs;
        if let (Qos::ExactlyOnce, Some(id)) = (qos, id)
            && let Some(entry) = self.sessions.get_mut(key)
        {
            entry.session.await_receipt(id, &receipt);
        }
        let reason = if is_wanted {
            reason::SUCCESS
        } else {
            reason::NO_MATCHING_SUBSCRIBERS
        };
        (reason, receipt)
    }

    /// What the answer to a QoS 2 message waits for that was published before.
    pub(super) fn receipt(&mut self, key: SessionKey, id: Option<PacketId>) -> Option<Rc<Receipt>> {
        self.sessions.get_mut(key)?.session.receipt(id?)
    }

    /// Tells a frame's sender that its messages were taken, when those have taken them that they were
    /// handed on to.
    pub(super) fn confirm_frame(&mut self, from: ShardId, sequence: u64, needs: &Needs) {
        match self.ledger.open(needs) {
            Some(receipt) => receipt.tell(Waiter::Frame { from, sequence }),
            None => self.shared.lanes.confirm(self.id, from, sequence),
        }
    }

    /// Answers those who waited for this alone.
    pub(super) fn handle_confirmation(&mut self, need: Need) {
        for waiter in self.ledger.confirm(need) {
            match waiter {
                Waiter::Session(number) => {
                    let entry = self.sessions.get_mut(SessionKey::of(number));
                    if let Some(link) = entry.and_then(|entry| entry.link.as_ref()) {
                        link.release(waiter);
                    }
                }
                Waiter::Frame { from, sequence } => {
                    self.shared.lanes.confirm(self.id, from, sequence);
                }
            }
        }
    }
}
