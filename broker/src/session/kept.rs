//! A session that outlives its process: how it is noted, and made again.

use std::{
    collections::BTreeSet,
    sync::Arc,
    time::{Duration, Instant},
};

use super::{
    Grant, Orphan, Received, Room, Session, Subscription,
    journal::{
        Change, Journal, Origin, Profile, Progress, Record, Remains, Seq, SessionId, Spread, State,
    },
};
use crate::{
    codec::packet::{PacketId, Will},
    message::{Message, Qos},
    topic,
};

/// What was noted of a session.
#[derive(Debug, PartialEq, Eq)]
pub struct Restored {
    pub session: SessionId,
    pub profile: Profile,
    pub expiry: Duration,
    /// When the session ends; `None` if its client was connected.
    pub ends: Option<Instant>,
    pub will: Option<Will>,
    pub will_due: Option<Instant>,
    pub subscriptions: Vec<(Box<str>, Subscription)>,
    pub received: Vec<(PacketId, Spread)>,
    /// In the order of their numbers.
    pub messages: Vec<RestoredMessage>,
}

impl Restored {
    /// Whether the session is over, and what is left is for others.
    pub fn is_estate(&self) -> bool {
        self.expiry.is_zero()
    }
}

/// What was noted of a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RestoredMessage {
    pub seq: Seq,
    pub progress: Progress,
    /// Not there if the client has it.
    pub content: Option<(Arc<Message>, Grant)>,
    /// The group that it is for, and its filter.
    pub group: Option<(Box<str>, Box<str>)>,
}

/// A QoS 2 message of the client's that an earlier life of the broker may not have passed on to
/// everybody.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Inherited {
    /// How other shards know it, also when its session is not kept any more.
    pub origin: Origin,
    /// The client's own shard has it, and its sessions are the same.
    pub is_here: bool,
}

impl Received {
    /// What another node is to know of it, when nobody is being told of the message any more. One
    /// that an earlier life of the broker has received, and the client has not repeated since, may
    /// not be with all who are to have it.
    pub(super) fn spread_elsewhere(&self) -> Spread {
        match self.inherited {
            Some(_) if !self.is_spread => Spread::Unplaced,
            Some(_) | None => Spread::Done,
        }
    }

    pub(super) fn restore(session: SessionId, id: PacketId, spread: Spread) -> (PacketId, Self) {
        let is_spread = spread == Spread::Done;
        let inherited = Inherited {
            origin: Origin { session, id },
            is_here: spread == Spread::Begun,
        };
        let received = Self {
            receipt: None,
            is_spread,
            inherited: (!is_spread).then_some(inherited),
        };
        (id, received)
    }
}

impl Session {
    /// The session as it was noted, without its messages. A client that was connected is not any
    /// more, and its will is due.
    pub fn restore(room: Room, journal: Journal, restored: Restored, now: Instant) -> Self {
        let Restored {
            session,
            profile,
            expiry,
            ends,
            will,
            will_due,
            subscriptions,
            received,
            messages: _,
        } = restored;
        let mut restored = Self::new(room);
        *restored.outgoing.record_mut() = Record::of(journal, session, profile);
        restored.subscriptions = subscriptions.into_iter().collect();
        let filters = restored.subscriptions.keys();
        restored.subscription_bytes = filters.map(|filter| topic::weight(filter)).sum();
        let received = received.into_iter();
        restored.received = received
            .map(|(id, spread)| Received::restore(session, id, spread))
            .collect();
        restored.expiry = expiry;
        restored.will = will;
        restored.will_due = will_due;
        let delay = |will: &Will| Duration::from_secs(u64::from(will.delay)).min(expiry);
        let latest = restored.will.as_ref().map(|will| now + delay(will));
        // No later than if the client had gone just now, whatever the time of day was taken for.
        restored.ends = Some(ends.map_or(now + expiry, |ends| ends.min(now + expiry)));
        restored.will_due = match ends {
            Some(_ends) => will_due.zip(latest).map(|(due, latest)| due.min(latest)),
            None => latest,
        };
        if ends.is_none() {
            restored.note_state();
        }
        restored
    }

    /// All that is noted of a session.
    pub fn snapshot(&self) -> Option<Restored> {
        let record = self.outgoing.record();
        let session = record.number()?;
        let spread = |received: &Received| match received.inherited {
            _ if received.is_spread => Spread::Done,
            Some(Inherited { is_here: false, .. }) => Spread::Unplaced,
            Some(_) | None => Spread::Begun,
        };
        let received = self.received.iter();
        Some(Restored {
            session,
            profile: Profile::clone(record.profile()?),
            expiry: self.expiry,
            ends: self.ends,
            will: self.will.clone(),
            will_due: self.will_due,
            subscriptions: self.subscriptions.clone().into_iter().collect(),
            received: received
                .map(|(id, received)| (*id, spread(received)))
                .collect(),
            messages: self.outgoing.snapshot(),
        })
    }

    /// How other shards are to know a QoS 2 message of the client's, if that can be received again
    /// after a crash.
    pub fn origin(&self, qos: Qos, id: Option<PacketId>) -> Option<Origin> {
        let session = self.outgoing.record().session()?;
        let id = id.filter(|_id| qos == Qos::ExactlyOnce)?;
        Some(Origin { session, id })
    }

    /// What is known of a message that an earlier life of the broker has received and may not have
    /// passed on to all of its shards.
    pub fn inherited(&self, id: Option<PacketId>) -> Option<Inherited> {
        self.received.get(&id?)?.inherited
    }

    /// A message is passed on anew, to all: the client's own shard has it with this note.
    pub fn note_begun(&self, id: PacketId) {
        self.note(|| Change::Received(id, Spread::Begun));
    }

    /// Everybody has a message: its sender may be told so, once this is stored. If that were not
    /// noted, a later life would pass it on again.
    pub fn note_spread(&mut self, id: PacketId) {
        if let Some(received) = self.received.get_mut(&id)
            && !std::mem::replace(&mut received.is_spread, true)
        {
            self.note(|| Change::Received(id, Spread::Done));
        }
    }

    /// Takes a message back that was noted; they come in the order of their numbers.
    pub fn restore_message(&mut self, message: RestoredMessage) {
        self.outgoing.restore(message);
    }

    /// Has the session outlive its process: everything about it is noted from its next connection
    /// on. `open` numbers a session that was not kept before, which is one without content.
    pub fn keep(&mut self, profile: Profile, open: impl FnOnce() -> (Journal, SessionId)) {
        if self.is_kept() {
            self.outgoing.record_mut().set_profile(profile);
        } else {
            self.keep_no_longer();
            let (journal, session) = open();
            *self.outgoing.record_mut() = Record::of(journal, session, profile);
        }
    }

    /// Has the will of a session that ends with its connection noted; `session` is a brief one. Tells
    /// under which number the session was noted.
    pub fn keep_will(
        &mut self,
        profile: Profile,
        journal: Journal,
        session: SessionId,
    ) -> Option<SessionId> {
        let before = self.keep_no_longer();
        *self.outgoing.record_mut() = Record::of(journal, session, profile);
        before
    }

    /// Notes all that there is of a session which was made again elsewhere than it was noted.
    pub fn note_whole(&self) {
        let Some(snapshot) = self.snapshot() else {
            return;
        };
        self.note_state();
        for (filter, subscription) in snapshot.subscriptions {
            self.note(|| Change::Subscribed(filter, subscription));
        }
        for (id, spread) in snapshot.received {
            self.note(|| Change::Received(id, spread));
        }
        for message in snapshot.messages {
            let RestoredMessage {
                seq,
                progress,
                content,
                group: _,
            } = message;
            match (content, progress) {
                (Some((message, grant)), _) => self.note(|| Change::Taken {
                    seq,
                    message,
                    grant,
                    progress,
                }),
                (None, Progress::Released(id)) => self.note(|| Change::Released {
                    seq,
                    id,
                    message: None,
                }),
                // What is not there cannot be sent.
                (None, Progress::Waiting | Progress::Published(_)) => {}
            }
        }
    }

    /// Has the session end with its process; tells under which number it was noted.
    pub fn keep_no_longer(&mut self) -> Option<SessionId> {
        let session = self.outgoing.record().session();
        if self.outgoing.record().number().is_some() {
            let remains = self.remains();
            self.outgoing.record_mut().close(remains);
        }
        session
    }

    /// Takes back what others are to have of a session that ends: what was not sent, and the QoS 1
    /// messages that its client did not acknowledge. QoS 2 messages that were sent are not among them:
    /// the client may have them, and nobody else may get them then (MQTT 5, 4.8.2-5).
    ///
    /// It stays noted until they have it, and all else is noted no longer; tells under which number it
    /// is, in a session that was kept.
    pub fn wind_up(&mut self) -> (Option<SessionId>, Vec<Orphan>) {
        let session = self.outgoing.record().session();
        if self.outgoing.record().number().is_none() {
            return (None, self.outgoing.reclaim_unfinished());
        }
        let mut remains = self.remains();
        let orphans = self.outgoing.reclaim_unfinished();
        let noted = orphans.iter().filter_map(|orphan| orphan.noted);
        let left: BTreeSet<Seq> = noted.map(|(_session, seq)| seq).collect();
        remains
            .messages
            .retain(|(seq, _message)| !left.contains(seq));
        self.outgoing.record_mut().close(remains);
        (session, orphans)
    }

    fn remains(&self) -> Remains {
        Remains {
            filters: self.subscriptions.keys().cloned().collect(),
            received: self.received.keys().copied().collect(),
            ..self.outgoing.remains()
        }
    }

    /// The number that the session is noted under, if it outlives its process.
    pub fn number(&self) -> Option<SessionId> {
        self.outgoing.record().session()
    }

    /// Whether the session outlives its process.
    pub fn is_kept(&self) -> bool {
        self.outgoing.record().is_kept()
    }

    pub(super) fn note(&self, change: impl FnOnce() -> Change) {
        self.outgoing.record().note(change);
    }

    /// Notes whose the session is, and since when.
    pub fn note_profile(&mut self, profile: Profile) {
        let record = self.outgoing.record_mut();
        if record.profile().is_some_and(|known| **known != profile) {
            record.set_profile(profile);
            self.note_state();
        }
    }

    pub(super) fn note_state(&self) {
        if let Some(profile) = self.outgoing.record().profile() {
            self.note(|| {
                Change::State(State {
                    profile: Arc::clone(profile),
                    expiry: self.expiry,
                    ends: self.ends,
                    will: self.will.clone(),
                    will_due: self.will_due,
                })
            });
        }
    }
}
