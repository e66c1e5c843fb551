//! What is read at the start: rows become sessions and retained messages.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    path::{Path, PathBuf},
    sync::Arc,
};

use super::{
    StoreError,
    batch::Batch,
    clock::Clock,
    disk::Reader,
    record::{self, BodyId, Content, Share},
};
use crate::{
    cluster::clock::{at_wall, is_credible},
    codec::packet::PacketId,
    message::Message,
    retained::{Deletion, Kept},
    routes::ShardId,
    session::{
        Restored, RestoredMessage,
        journal::{Origin, Profile, Seq, SessionId, Spread, State},
    },
};

/// All that was stored.
#[derive(Debug, Default)]
pub(crate) struct Saved {
    pub(crate) sessions: Vec<Restored>,
    pub(crate) retained: Vec<Kept>,
    /// Topics whose messages were deleted, and when.
    pub(crate) deleted: Vec<(Box<str>, Deletion)>,
    /// What shards have taken of QoS 2 messages that may come again.
    pub(crate) taken: Vec<(ShardId, Origin)>,
}

/// How much that is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Counts {
    pub(super) sessions: usize,
    pub(super) subscriptions: usize,
    pub(super) messages: usize,
    pub(super) retained: usize,
}

/// Puts rows together.
pub(super) struct Loader {
    directory: PathBuf,
    clock: Clock,
    sessions: BTreeMap<SessionId, Restored>,
    bodies: HashMap<BodyId, Arc<Message>>,
    /// A message and its number, once for each session that has it.
    pub(super) references: Vec<(Arc<Message>, BodyId)>,
    retained: Vec<Kept>,
    deleted: Vec<(Box<str>, Deletion)>,
    /// The node has as many shards as it had, so that each has the sessions that it had.
    has_same_shards: bool,
    /// QoS 2 messages that not all shards may have.
    pub(super) begun: BTreeSet<Origin>,
    /// Which shards have them.
    pub(super) taken: Vec<(ShardId, Origin)>,
    last_session: SessionId,
    last_body: BodyId,
    /// Rows that belong to nothing.
    pub(super) strays: Batch,
    /// What rows become that were about other shards.
    pub(super) outdated: Batch,
    pub(super) counts: Counts,
}

impl Loader {
    pub(super) fn new(directory: &Path, has_same_shards: bool, clock: Clock) -> Self {
        Self {
            directory: directory.to_owned(),
            clock,
            sessions: BTreeMap::new(),
            bodies: HashMap::new(),
            references: Vec::new(),
            retained: Vec::new(),
            deleted: Vec::new(),
            has_same_shards,
            begun: BTreeSet::new(),
            taken: Vec::new(),
            last_session: SessionId(0),
            last_body: BodyId(0),
            strays: Batch::default(),
            outdated: Batch::default(),
            counts: Counts::default(),
        }
    }

    /// The highest numbers that were given.
    pub(super) fn last(&self) -> (SessionId, BodyId) {
        (self.last_session, self.last_body)
    }

    /// Everything that was read.
    pub(super) fn finish(&mut self) -> Saved {
        for (id, message) in &self.bodies {
            if Arc::strong_count(message) == 1 {
                self.strays.bodies.insert(*id, None);
            }
        }
        self.bodies.clear();
        self.counts.sessions = self.sessions.len();
        self.counts.retained = self.retained.len();
        Saved {
            sessions: std::mem::take(&mut self.sessions).into_values().collect(),
            retained: std::mem::take(&mut self.retained),
            deleted: std::mem::take(&mut self.deleted),
            taken: self.taken.clone(),
        }
    }

    /// Where a row belongs that may be one of a session that has ended: its number is not given
    /// again, or the row would be another's.
    fn note_session(&mut self, session: u64) -> SessionId {
        let session = SessionId(session);
        self.last_session = self.last_session.max(session);
        session
    }

    fn damaged(&self, table: &'static str, key: impl ToString) -> StoreError {
        StoreError::Damaged {
            directory: self.directory.clone(),
            table,
            key: key.to_string(),
        }
    }
}

impl Reader for Loader {
    fn body(&mut self, body: u64, value: &[u8]) -> Result<(), StoreError> {
        let message = record::decode_message(value, self.clock)
            .ok_or_else(|| self.damaged("bodies", body))?;
        let body = BodyId(body);
        self.last_body = self.last_body.max(body);
        self.bodies.insert(body, Arc::new(message));
        Ok(())
    }

    fn session(&mut self, session: u64, value: &[u8]) -> Result<(), StoreError> {
        let state = record::decode_state(value, self.clock)
            .ok_or_else(|| self.damaged("sessions", session))?;
        let State {
            profile,
            expiry,
            ends,
            will,
            will_due,
        } = state;
        let session = self.note_session(session);
        let restored = Restored {
            session,
            profile: Profile::clone(&profile),
            expiry,
            ends,
            will,
            will_due,
            subscriptions: Vec::new(),
            received: Vec::new(),
            messages: Vec::new(),
        };
        self.sessions.insert(session, restored);
        Ok(())
    }

    fn subscription(&mut self, session: u64, filter: &str, value: &[u8]) -> Result<(), StoreError> {
        let key = (self.note_session(session), Box::from(filter));
        let Some(restored) = self.sessions.get_mut(&key.0) else {
            self.strays.subscriptions.insert(key, None);
            return Ok(());
        };
        let Some(subscription) = record::decode_subscription(value) else {
            return Err(self.damaged("subscriptions", format!("{session} {filter}")));
        };
        restored.subscriptions.push((key.1, subscription));
        self.counts.subscriptions += 1;
        Ok(())
    }

    fn entry(&mut self, session: u64, seq: u64, value: &[u8]) -> Result<(), StoreError> {
        let key = (self.note_session(session), Seq(seq));
        let Some(restored) = self.sessions.get_mut(&key.0) else {
            self.strays.entries.insert(key, None);
            return Ok(());
        };
        let entry = record::decode_entry(value);
        let message = entry.and_then(|entry| {
            let content = match entry.content {
                Some(content) => Some(find(&self.bodies, content)?),
                None => None,
            };
            Some((entry.progress, content))
        });
        let Some((progress, found)) = message else {
            return Err(self.damaged("entries", format!("{session} {seq}")));
        };
        let (mut content, mut group) = (None, None);
        if let Some((message, Content { body, grant, share })) = found {
            self.references.push((Arc::clone(&message), body));
            content = Some((message, grant));
            group = share.map(|Share { group, filter }| (group, filter));
        }
        restored.messages.push(RestoredMessage {
            seq: key.1,
            progress,
            content,
            group,
        });
        self.counts.messages += 1;
        Ok(())
    }

    fn received(&mut self, session: u64, id: u16, value: &[u8]) -> Result<(), StoreError> {
        let key = (self.note_session(session), id);
        let (Some(restored), Some(id)) = (self.sessions.get_mut(&key.0), PacketId::new(id)) else {
            self.strays.received.insert(key, None);
            return Ok(());
        };
        let Some(mut spread) = record::decode_spread(value) else {
            return Err(self.damaged("received", format!("{session} {id}")));
        };
        if spread == Spread::Begun && !self.has_same_shards {
            spread = Spread::Unplaced;
            let value = record::encode_spread(spread);
            self.outdated.received.insert(key, Some(value));
        }
        restored.received.push((id, spread));
        if spread != Spread::Done {
            let session = key.0;
            self.begun.insert(Origin { session, id });
        }
        Ok(())
    }

    fn spread(&mut self, session: u64, id: u16, shard: u16) -> Result<(), StoreError> {
        let key = (self.note_session(session), id, shard);
        let origin = PacketId::new(id).map(|id| Origin { session: key.0, id });
        match origin.filter(|origin| self.begun.contains(origin)) {
            _ if !self.has_same_shards => drop(self.outdated.spread.insert(key, None)),
            Some(origin) => self.taken.push((ShardId(shard), origin)),
            None => drop(self.strays.spread.insert(key, None)),
        }
        Ok(())
    }

    fn retained(&mut self, topic: &str, value: &[u8]) -> Result<(), StoreError> {
        let Some(row) = record::decode_retained(value, self.clock) else {
            return Err(self.damaged("retained", topic));
        };
        let deletion = row.deletion();
        let record::Retained { since, at, message } = row;
        let is_dated = is_credible(at);
        match message {
            Some(message) => self.retained.push(Kept {
                message: Arc::new(message),
                since: self.clock.to_instant(since),
                // One of before the node was in a cluster, or of an earlier format, has the time of day.
                at: if is_dated { at } else { at_wall(since) },
            }),
            None if is_dated => self.deleted.push((topic.into(), deletion)),
            None => {}
        }
        Ok(())
    }
}

fn find(
    bodies: &HashMap<BodyId, Arc<Message>>,
    content: Content,
) -> Option<(Arc<Message>, Content)> {
    let message = bodies.get(&content.body)?;
    Some((Arc::clone(message), content))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::retained::Cause;

    #[test]
    fn number_of_a_session_that_left_rows_behind_is_not_given_again() {
        let mut loader = Loader::new(Path::new("/nowhere"), true, Clock::read());
        loader.spread(3, 1, 0).unwrap();
        loader.received(4, 1, &[0]).unwrap();
        loader.subscription(5, "t", &[0]).unwrap();
        loader.entry(6, 1, &[]).unwrap();
        assert_eq!(loader.last().0, SessionId(6));
        assert_eq!(loader.strays.len(), 4);
        assert!(loader.finish().sessions.is_empty());
    }

    #[test]
    fn message_without_a_time_of_the_clusters_has_the_time_of_day_and_one_of_nonsense_too() {
        let clock = Clock::read();
        let mut loader = Loader::new(Path::new("/nowhere"), true, clock);
        // QoS 0, retained, of topic `t` without properties.
        let message = [0b100, 0, 1, b't', 0, 0, 0, 0, b'x'];
        let message = record::decode_message(&message, clock).unwrap();
        for at in [0, 5, u64::MAX] {
            let row = record::encode_retained(&message, 17, at, clock);
            loader.retained("t", &row).unwrap();
            let deletion = Deletion {
                at,
                cause: Cause::Meant,
            };
            let row = record::encode_deleted(deletion);
            loader.retained("u", &row).unwrap();
        }
        let saved = loader.finish();
        let times: Vec<_> = saved.retained.iter().map(|kept| kept.at).collect();
        assert_eq!(times, [at_wall(17), 5, at_wall(17)]);
        let deleted: Vec<_> = saved
            .deleted
            .iter()
            .map(|(_, deletion)| *deletion)
            .collect();
        let cause = Cause::Meant;
        assert_eq!(deleted, [Deletion { at: 5, cause }]);
    }
}
