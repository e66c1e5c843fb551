//! Wills: that of a kept session is noted until everybody has it.

use std::{sync::Arc, time::Instant};

use super::{Move, Noted};
use crate::{
    codec::packet::PacketId,
    lanes::frame::Source,
    message::{Message, Qos},
    metrics::Metric,
    receipts::Needs,
    session::journal::{Change, Origin, Profile, SessionId, Spread, State},
    shard::Shard,
    sys,
};

/// What other shards know a will by, with the number of its estate.
pub(super) const ID: PacketId = PacketId::MIN;

impl Shard {
    /// Publishes a client's will, unless to where clients may not publish. The owner of a kept session
    /// is told.
    pub(in crate::shard) fn publish_will(
        &mut self,
        will: Arc<Message>,
        owner: Option<Profile>,
        now: Instant,
    ) {
        if sys::is_reserved(&will.topic) {
            self.counters.inc(Metric::RefusedPublish);
            return;
        }
        let account = self.account();
        let account = account.filter(|_account| owner.is_some() && will.qos > Qos::AtMostOnce);
        let estate = account.map(|account| account.open_session().1);
        self.source = estate.map(|session| Source {
            origin: Origin { session, id: ID },
            is_repeat: false,
        });
        let mut needs = Needs::default();
        self.publish(Arc::clone(&will), None, &mut needs, now);
        self.source = None;
        if let (Some(session), Some(owner)) = (estate, owner)
            && !needs.is_empty()
        {
            let state = State::estate(owner, Some(Arc::clone(&will)));
            self.note(session, Change::State(state));
            self.note(session, Change::Received(ID, Spread::Begun));
            let estate = self.orphans.estate(session);
            estate.is_over = true;
            estate.left = 1;
            self.move_will(session, will, &needs);
        }
    }

    /// As [`Shard::publish_will`], of a will that an earlier life of the broker has begun to publish.
    pub(super) fn publish_will_again(
        &mut self,
        session: SessionId,
        will: Arc<Message>,
        received: &[(PacketId, Spread)],
        now: Instant,
    ) {
        self.source = Some(Source {
            origin: Origin { session, id: ID },
            is_repeat: true,
        });
        let mut needs = Needs::default();
        if received.contains(&(ID, Spread::Begun)) {
            self.route_elsewhere(&will, &mut needs, now);
        } else {
            // There were other shards. This one has it with this note.
            self.note(session, Change::Received(ID, Spread::Begun));
            self.route(&will, None, &mut needs, now);
        }
        self.source = None;
        self.move_will(session, will, &needs);
    }

    fn move_will(&mut self, session: SessionId, will: Arc<Message>, needs: &Needs) {
        let moved = Move {
            message: will,
            noted: vec![(session, Noted::Will)],
        };
        self.start_move(moved, needs);
    }
}
