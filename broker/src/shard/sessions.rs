//! The sessions of one shard, by client id and by a small key that tries and timers hold.

use std::{collections::BTreeMap, ops::Bound, rc::Rc, sync::Arc, time::Instant};

use super::{Shard, losses::Losses, shared::Seats, transit::Transit};
use crate::{
    access::{Identity, Permit},
    codec::packet::ConnectCode,
    link::Link,
    message::MessageId,
    metrics::Metric,
    routes::ShardId,
    session::{
        Room, Session,
        journal::{Profile, Since},
    },
};

/// A session's place in its shard; reused after the session has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct SessionKey(u32);

impl SessionKey {
    /// What the key is called where it crosses threads.
    pub(super) fn number(self) -> u32 {
        self.0
    }

    pub(super) fn of(number: u32) -> Self {
        Self(number)
    }
}

/// A session and its surroundings.
pub(super) struct Entry {
    pub(super) client_id: Arc<str>,
    /// The user of the connection, or of the last one.
    pub(super) owner: Identity,
    /// The broker has given the client id, and its user need have no right to it otherwise.
    pub(super) is_assigned: bool,
    /// What that user may do by this client id.
    pub(super) permit: Permit,
    pub(super) session: Session,
    /// The connection that holds the session.
    pub(super) link: Option<Rc<Link>>,
    /// Its places in groups that share subscriptions.
    pub(super) seats: Option<Box<Seats>>,
    /// The session's place in the shard's calendar.
    pub(super) deadline: Option<Instant>,
    /// In a box because few have any.
    pub(super) losses: Option<Box<Losses>>,
    /// When its client has connected, by the cluster's clock.
    pub(super) time: u64,
    /// When its client has wanted no older session: what is older is not its.
    pub(super) begun: u64,
    /// The session is on its way from one node to another.
    pub(super) transit: Option<Box<Transit>>,
    /// What the copy had from which the session was made, here or where it was before. The node that was
    /// held for gone, by the hash of its name, may bring it once more.
    pub(super) had: BTreeMap<MessageId, u64>,
}

impl Entry {
    pub(super) fn client_id(&self) -> &str {
        &self.client_id
    }

    /// Whose session it is, for the store.
    pub(super) fn profile(&self) -> Profile {
        Profile {
            client_id: Arc::clone(&self.client_id),
            user: self.owner.user().map(Arc::from),
            is_assigned: self.is_assigned,
            grants: self.owner.grants().cloned(),
            since: Since {
                connected: self.time,
                begun: self.begun,
            },
        }
    }

    /// Takes note of when its client has connected, as another life of the broker or another node has.
    pub(super) fn set_since(&mut self, since: Since) {
        let Since { connected, begun } = since;
        self.time = connected;
        self.begun = begun;
    }

    /// Whether the session goes to another node, or has gone there.
    pub(super) fn is_leaving(&self) -> bool {
        matches!(self.transit.as_deref(), Some(Transit::Leaving(_)))
    }

    /// Whether the session has gone to another node, and is here for what is still sent here.
    pub(super) fn is_ghost(&self) -> bool {
        let transit = self.transit.as_deref();
        matches!(transit, Some(Transit::Leaving(leaving)) if leaving.is_installed)
    }

    /// The node that it has gone to, then.
    pub(super) fn went_to(&self) -> Option<ShardId> {
        match self.transit.as_deref()? {
            Transit::Leaving(leaving) if leaving.is_installed => Some(leaving.end()),
            Transit::Leaving(_) | Transit::Settling(_) => None,
        }
    }

    /// As [`Entry::profile`], of a session that is kept.
    pub(super) fn kept_profile(&self) -> Option<Profile> {
        self.session.is_kept().then(|| self.profile())
    }

    /// Whether the session goes to this node, or has gone there.
    pub(super) fn goes_to(&self, end: ShardId) -> bool {
        let transit = self.transit.as_deref();
        matches!(transit, Some(Transit::Leaving(leaving)) if leaving.is_for(end))
    }

    /// When the session needs attention, or its client has to go.
    pub(super) fn next_deadline(&self) -> Option<Instant> {
        if self.is_leaving() {
            return None;
        }
        let login_ends = self.link.as_ref().and_then(|_link| self.owner.until());
        let due = [self.session.next_deadline(), login_ends];
        due.into_iter().flatten().min()
    }

    /// Whether a client that is there lets much wait, or has just lost messages by that.
    pub(super) fn is_slow(&self, now: Instant) -> bool {
        let has_lost = self
            .losses
            .as_ref()
            .is_some_and(|losses| losses.is_recent(now));
        self.link.is_some() && (has_lost || self.session.is_nearly_full())
    }

    /// Whether nothing waits for a client that is there, and it waits for no answer.
    pub(super) fn is_quiet(&self) -> bool {
        self.link.as_ref().is_none_or(|link| {
            link.output_len() == 0 && link.unanswered() == 0 && self.session.queue_len() == 0
        })
    }
}

#[derive(Default)]
pub(super) struct Sessions {
    /// Ordered, so that a listing can go on where its last page ended.
    keys: BTreeMap<Arc<str>, SessionKey>,
    entries: Vec<Option<Entry>>,
    free: Vec<SessionKey>,
    /// How often one was looked up to be changed.
    looks: u64,
}

impl Sessions {
    pub(super) fn find(&self, client_id: &str) -> Option<SessionKey> {
        self.keys.get(client_id).copied()
    }

    pub(super) fn get_mut(&mut self, key: SessionKey) -> Option<&mut Entry> {
        self.looks = self.looks.wrapping_add(1);
        self.entries.get_mut(key.0 as usize)?.as_mut()
    }

    pub(super) fn insert(
        &mut self,
        client_id: &str,
        owner: Identity,
        session: Session,
    ) -> SessionKey {
        let client_id: Arc<str> = client_id.into();
        let entry = Entry {
            client_id: Arc::clone(&client_id),
            owner,
            is_assigned: false,
            permit: Permit::nothing(),
            session,
            link: None,
            seats: None,
            deadline: None,
            losses: None,
            time: 0,
            begun: 0,
            transit: None,
            had: BTreeMap::new(),
        };
        let key = self.free.pop().unwrap_or_else(|| {
            self.entries.push(None);
            // Four thousand million sessions do not fit into one shard's memory.
            SessionKey(u32::try_from(self.entries.len() - 1).unwrap_or(u32::MAX))
        });
        self.entries[key.0 as usize] = Some(entry);
        self.keys.insert(client_id, key);
        key
    }

    pub(super) fn remove(&mut self, key: SessionKey) -> Option<Entry> {
        let entry = self.entries.get_mut(key.0 as usize)?.take()?;
        self.keys.remove(&entry.client_id);
        self.free.push(key);
        Some(entry)
    }

    /// The session at a place, if there is one; `None` behind the last place.
    pub(super) fn place(&self, place: u32) -> Option<Option<&Entry>> {
        self.entries.get(place as usize).map(Option::as_ref)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Entry> {
        self.entries.iter().flatten()
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = &mut Entry> {
        self.entries.iter_mut().flatten()
    }

    pub(super) fn len(&self) -> usize {
        self.keys.len()
    }

    /// Sessions in the order of their client ids.
    pub(super) fn range(&self, from: Bound<&str>) -> impl Iterator<Item = (&str, &Entry)> {
        let keys = self.keys.range::<str, _>((from, Bound::Unbounded));
        keys.filter_map(|(client_id, key)| {
            let entry = self.entries.get(key.0 as usize)?.as_ref()?;
            Some((&**client_id, entry))
        })
    }

    /// Sessions behind the one with this client id, in order.
    pub(super) fn after(
        &self,
        client_id: Option<&str>,
    ) -> impl Iterator<Item = (SessionKey, &Entry)> {
        let from = client_id.map_or(Bound::Unbounded, Bound::Excluded);
        let keys = self.keys.range::<str, _>((from, Bound::Unbounded));
        keys.filter_map(|(_client_id, key)| {
            let entry = self.entries.get(key.0 as usize)?.as_ref()?;
            Some((*key, entry))
        })
    }

    pub(super) fn connected(&self) -> Vec<(SessionKey, Rc<Link>)> {
        let mut connected = Vec::new();
        for key in self.keys.values() {
            let entry = self.entries[key.0 as usize].as_ref();
            if let Some(link) = entry.and_then(|entry| entry.link.as_ref()) {
                connected.push((*key, Rc::clone(link)));
            }
        }
        connected
    }
}

/// What may be done before others get their turn, in sessions that were touched: some milliseconds. More
/// than a full read of small messages has for one subscriber, less than one has for hundreds.
const WORK_PER_TURN: u64 = 16 * 1024;

/// The work of one turn, from when it began.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Work(u64);

impl Shard {
    pub(crate) fn begin_work(&self) -> Work {
        Work(self.sessions.looks)
    }

    /// Whether so much was done since then that others should have their turn.
    pub(crate) fn is_spent(&self, Work(begun): Work) -> bool {
        self.sessions.looks.wrapping_sub(begun) >= WORK_PER_TURN
    }

    pub(super) fn open_session(
        &mut self,
        client_id: &str,
        owner: Identity,
    ) -> Result<SessionKey, ConnectCode> {
        let reserved = self.shared.reserve_session();
        if reserved.is_err() {
            self.counters.inc(Metric::RefusedSessions);
        }
        reserved?;
        self.counters.inc(Metric::Sessions);
        let session = Session::new(self.room());
        Ok(self.sessions.insert(client_id, owner, session))
    }

    pub(super) fn check_session_room(&self) -> Result<(), ConnectCode> {
        if self.shared.has_session_room() {
            return Ok(());
        }
        self.counters.inc(Metric::RefusedSessions);
        Err(ConnectCode::QuotaExceeded)
    }

    /// What may wait for a client whose session begins.
    pub(super) fn room(&self) -> Room {
        let limits = self.shared.limits();
        Room {
            messages: limits.queue_messages,
            bytes: limits.queue_bytes,
            shelf: Rc::clone(&self.shelf),
        }
    }
}
