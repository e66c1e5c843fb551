//! Turns what sessions note into what is written.
//!
//! A message that waits in many sessions is stored once, and goes with the last of them.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
};

use super::{
    batch::Batch,
    clock::Clock,
    record::{self, BodyId, Content, Entry, Share},
};
use crate::{
    codec::packet::PacketId,
    message::Message,
    retained::{Fate, Kept, Note},
    routes::ShardId,
    session::{
        Grant,
        journal::{Change, Origin, Progress, Remains, Seq, SessionId, Spread},
    },
    shares::Shares,
};

/// What has to be known of what is stored, to change it.
pub(super) struct Scribe {
    shares: Arc<Shares>,
    /// Stored messages by their address.
    bodies: HashMap<usize, Body>,
    last_body: BodyId,
    /// QoS 2 messages that not all shards may have, and which other shards have taken them.
    spread: BTreeMap<(SessionId, u16), BTreeSet<ShardId>>,
    batch: Batch,
}

struct Body {
    id: BodyId,
    /// How many sessions have it.
    references: usize,
    /// Its address stands for it, so it must not be another's meanwhile.
    _message: Arc<Message>,
}

impl Scribe {
    pub(super) fn new(shares: Arc<Shares>, last_body: BodyId) -> Self {
        Self {
            shares,
            bodies: HashMap::new(),
            last_body,
            spread: BTreeMap::new(),
            batch: Batch::default(),
        }
    }

    /// What is to be written.
    pub(super) fn batch(&self) -> &Batch {
        &self.batch
    }

    pub(super) fn handle_written(&mut self) {
        self.batch = Batch::default();
    }

    /// The batch stays, to be tried again with what comes meanwhile.
    pub(super) fn handle_failure(&mut self) {
        self.batch.distrust();
    }

    /// Removes rows that nothing needs.
    pub(super) fn remove(&mut self, strays: Batch) {
        self.batch = strays;
    }

    /// A message that is stored already has one more session.
    pub(super) fn adopt(&mut self, message: &Arc<Message>, id: BodyId) {
        let body = self.bodies.entry(address(message)).or_insert_with(|| Body {
            id,
            references: 0,
            _message: Arc::clone(message),
        });
        body.references += 1;
    }

    /// Not all shards may have a message.
    pub(super) fn adopt_begun(&mut self, origin: Origin) {
        let key = (origin.session, origin.id.get());
        self.spread.entry(key).or_default();
    }

    /// A shard has taken a message that not all may have.
    pub(super) fn adopt_spread(&mut self, origin: Origin, shard: ShardId) {
        let key = (origin.session, origin.id.get());
        self.spread.entry(key).or_default().insert(shard);
    }

    pub(super) fn note_retained(&mut self, note: Note, clock: Clock) {
        let Note { topic, fate } = note;
        let value = match fate {
            Fate::Kept(Kept { message, since, at }) => {
                let since = clock.to_wall(since);
                Some(record::encode_retained(&message, since, at, clock))
            }
            Fate::Deleted(deletion) => Some(record::encode_deleted(deletion)),
            Fate::Gone => None,
        };
        self.batch.retained.insert(topic, value);
    }

    pub(super) fn note(&mut self, session: SessionId, change: Change, clock: Clock) {
        match change {
            Change::State(state) => {
                let value = record::encode_state(&state, clock);
                self.batch.sessions.insert(session, Some(value));
            }
            Change::Subscribed(filter, subscription) => {
                let value = record::encode_subscription(&subscription);
                let key = (session, filter);
                self.batch.subscriptions.insert(key, Some(value));
            }
            Change::Unsubscribed(filter) => {
                self.batch.subscriptions.insert((session, filter), None);
            }
            Change::Taken {
                seq,
                message,
                grant,
                progress,
            } => {
                let body = self.refer(&message, clock);
                self.put((session, seq), progress, body, grant);
                self.batch.fresh.insert((session, seq));
            }
            Change::Published {
                seq,
                message,
                grant,
                id,
            } => {
                // It waited, so it is stored.
                let known = self.bodies.get(&address(&message)).map(|body| body.id);
                let body = known.unwrap_or_else(|| self.refer(&message, clock));
                self.put((session, seq), Progress::Published(id), body, grant);
            }
            Change::Released { seq, id, message } => {
                let entry = Entry {
                    progress: Progress::Released(id),
                    content: None,
                };
                let value = record::encode_entry(&entry);
                self.batch.entries.insert((session, seq), Some(value));
                if let Some(message) = message {
                    self.release(&message);
                }
            }
            Change::Done { seq, message } => self.drop_entry(session, seq, message.as_ref()),
            Change::Received(id, spread) => {
                let key = (session, id.get());
                let value = record::encode_spread(spread);
                self.batch.received.insert(key, Some(value));
                match spread {
                    Spread::Begun | Spread::Unplaced => drop(self.spread.entry(key).or_default()),
                    Spread::Done => self.forget_spread(key),
                }
            }
            Change::Spread(id, shard) => {
                // Its sender may be done with it, or gone: nobody would remove the row.
                if let Some(shards) = self.spread.get_mut(&(session, id.get())) {
                    shards.insert(shard);
                    let row = (session, id.get(), shard.0);
                    self.batch.spread.insert(row, Some(Vec::new()));
                }
            }
            Change::Completed(id) => self.complete(session, id),
            Change::Ended(remains) => self.end(session, remains),
        }
    }

    fn end(&mut self, session: SessionId, remains: Remains) {
        let Remains {
            filters,
            messages,
            received,
        } = remains;
        self.batch.sessions.insert(session, None);
        for filter in filters {
            self.batch.subscriptions.insert((session, filter), None);
        }
        for (seq, message) in messages {
            self.drop_entry(session, seq, message.as_ref());
        }
        for id in received {
            self.complete(session, id);
        }
    }

    fn complete(&mut self, session: SessionId, id: PacketId) {
        let key = (session, id.get());
        self.batch.received.insert(key, None);
        self.forget_spread(key);
    }

    /// Which shards have taken a message is of no interest when all have.
    fn forget_spread(&mut self, key: (SessionId, u16)) {
        for shard in self.spread.remove(&key).unwrap_or_default() {
            self.batch.spread.insert((key.0, key.1, shard.0), None);
        }
    }

    fn put(&mut self, key: (SessionId, Seq), progress: Progress, body: BodyId, grant: Grant) {
        let share = grant.share.and_then(|share| self.shares.name(share));
        let share = share.map(|(group, filter)| Share { group, filter });
        let content = Some(Content { body, grant, share });
        let value = record::encode_entry(&Entry { progress, content });
        self.batch.entries.insert(key, Some(value));
    }

    fn drop_entry(&mut self, session: SessionId, seq: Seq, message: Option<&Arc<Message>>) {
        self.batch.remove_entry((session, seq));
        if let Some(message) = message {
            self.release(message);
        }
    }

    /// Has the message stored if it is not.
    fn refer(&mut self, message: &Arc<Message>, clock: Clock) -> BodyId {
        let Self {
            bodies,
            last_body,
            batch,
            shares: _,
            spread: _,
        } = self;
        let body = bodies.entry(address(message)).or_insert_with(|| {
            last_body.0 += 1;
            let value = record::encode_message(message, clock);
            batch.bodies.insert(*last_body, Some(value));
            Body {
                id: *last_body,
                references: 0,
                _message: Arc::clone(message),
            }
        });
        body.references += 1;
        body.id
    }

    fn release(&mut self, message: &Arc<Message>) {
        let address = address(message);
        let Some(body) = self.bodies.get_mut(&address) else {
            return;
        };
        body.references = body.references.saturating_sub(1);
        if body.references == 0 {
            let id = body.id;
            self.bodies.remove(&address);
            self.batch.remove_body(id);
        }
    }
}

fn address(message: &Arc<Message>) -> usize {
    Arc::as_ptr(message).addr()
}

#[cfg(test)]
mod tests;
