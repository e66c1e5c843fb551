//! The owner's side: which node has the copy of which session, and what it has yet to confirm.
//!
//! ```text
//! changes -> handle_parcel -> words to the places of their sessions -> poll_word -> lane
//!                                      confirmed <- confirm <- frames that the places have taken
//! peers   -> set_peers -> sessions that are due -> next_due -> copy -> words, a few at a time
//! ```
//! A session that begins has its copy from its first change on. One that was there before, or whose
//! place is another since peers came or went, is copied as a whole, in its turn: changes go to its
//! older place as well until the new one has all of it.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::Arc,
    time::Instant,
};

use bytes::Bytes;

use super::{
    Group, Step,
    place::{Peer, Place, place_of},
    wire::{Whose, Writer},
    word::Word,
};
use crate::{
    routes::ShardId,
    session::journal::{Change, SessionId},
    shares::ShareId,
};

/// Bytes after which a piece ends. A frame is twice that.
const PIECE_BYTES: usize = 32 * 1024;

/// Bytes of copies that may wait for their places: messages wait behind them, for milliseconds.
const COPY_ROOM: usize = 256 * 1024;

/// What is to go down a peer's lane.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outgoing {
    pub to: ShardId,
    pub word: Bytes,
    pub purpose: Purpose,
}

/// What a word's confirmation is good for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// A parcel of changes.
    Parcel(u64),
    /// A part of the copy of a session.
    Copy {
        session: SessionId,
        /// The number of the copy.
        copy: u64,
        bytes: usize,
    },
    Nothing,
}

#[derive(Debug)]
struct Copied {
    client_id: Arc<str>,
    client: u64,
    /// Who is told of changes.
    at: Option<Place>,
    /// Who is told too, until the other one has all.
    older: Option<Place>,
}

/// Of one shard.
#[derive(Debug, Default)]
pub struct Book {
    peers: Vec<Peer>,
    sessions: BTreeMap<SessionId, Copied>,
    /// Those whose place is another than where they are.
    due: BTreeSet<SessionId>,
    /// Those whose place does not have all of them: the number of the copy, and how many words of it are
    /// not confirmed.
    under_way: BTreeMap<SessionId, (u64, usize)>,
    /// The number of the last copy.
    copies: u64,
    copy_bytes: usize,
    words: VecDeque<Outgoing>,
    /// Words on their way, by their frames.
    sent: BTreeMap<(ShardId, u64), Vec<Purpose>>,
    /// How many words of a parcel are not confirmed.
    owing: BTreeMap<u64, usize>,
    /// Places that have not heard that all was told: they may have copies of what is no more.
    untold: BTreeSet<Place>,
}

impl Book {
    /// Whether there is anybody to have copies.
    pub fn has_peers(&self) -> bool {
        !self.peers.is_empty()
    }

    /// How many sessions there are, and how many of them have no copy.
    pub fn counts(&self) -> (usize, usize) {
        let all = self.sessions.len();
        let bare = if self.peers.is_empty() {
            all
        } else {
            let waiting = self
                .due
                .iter()
                .filter(|due| !self.under_way.contains_key(due));
            self.under_way.len() + waiting.count()
        };
        (all, bare)
    }

    /// Notes who is there. What was at somebody who is not is to be copied anew.
    pub fn set_peers(&mut self, peers: Vec<Peer>) {
        let before = std::mem::replace(&mut self.peers, peers);
        let peers = &self.peers;
        let met = peers.iter().filter(|peer| !before.contains(peer));
        self.untold.extend(met.map(|peer| peer.place));
        let is_there = |place: &Place| peers.iter().any(|peer| peer.place == *place);
        self.untold.retain(is_there);
        for (session, copied) in &mut self.sessions {
            copied.older = copied.older.filter(is_there);
            if copied.at.is_some_and(|at| !is_there(&at)) {
                // Who was to be relieved has all of it.
                copied.at = copied.older.take();
                self.under_way.remove(session);
            }
            let wanted = place_of(copied.client, peers);
            if wanted.is_some() && wanted != copied.at {
                self.due.insert(*session);
            } else {
                self.due.remove(session);
            }
        }
    }

    /// Notes that the node at this end of a lane may have forgotten a session, as it was to go there,
    /// and it does not.
    pub fn note_forgotten(&mut self, session: SessionId, end: ShardId, now: Instant) {
        let Some(copied) = self.sessions.get_mut(&session) else {
            return;
        };
        let mut telling = Telling::new(now);
        let whose = copied.whose(session);
        let is_there = |place: &Place| place.end != end;
        for place in [copied.at, copied.older].into_iter().flatten() {
            if !is_there(&place) {
                telling.tell_at(place, whose, &Step::Ended);
            }
        }
        copied.older = copied.older.filter(is_there);
        if copied.at.is_some_and(|at| !is_there(&at)) {
            copied.at = copied.older.take();
            self.under_way.remove(&session);
            self.due.insert(session);
        }
        for (place, piece) in telling.finish() {
            self.push(place, &piece, Purpose::Nothing);
        }
    }

    /// Adds a session that was noted elsewhere: by an earlier life, or on another node.
    pub fn register(&mut self, session: SessionId, client_id: &Arc<str>, client: u64) {
        let copied = Copied {
            client_id: Arc::clone(client_id),
            client,
            at: None,
            older: None,
        };
        self.sessions.insert(session, copied);
        if self.has_peers() {
            self.due.insert(session);
        }
    }

    /// Tells other nodes of changes to their copies; `hash` is for client ids.
    pub fn handle_parcel(
        &mut self,
        number: u64,
        changes: &[(SessionId, Change)],
        hash: impl Fn(&str) -> u64,
        name: impl Fn(ShareId) -> Option<Group>,
        now: Instant,
    ) {
        let mut telling = Telling::new(now);
        for (session, change) in changes {
            // What is left of a session that is over is for this node's store alone.
            if change.is_estate() && !session.is_brief() {
                continue;
            }
            if let Change::State(state) = change
                && !self.sessions.contains_key(session)
            {
                let client_id = &state.profile.client_id;
                let client = hash(client_id);
                self.register(*session, client_id, client);
                self.due.remove(session);
                if let Some(copied) = self.sessions.get_mut(session) {
                    copied.at = place_of(client, &self.peers);
                    telling.tell(copied, *session, &Step::Whole);
                }
            }
            if let Some(copied) = self.sessions.get(session)
                && copied.at.is_some()
                && let Some(step) = Step::of(change, &name)
            {
                telling.tell(copied, *session, &step);
            }
            if let Change::Ended(_) = change {
                self.forget(*session);
            }
        }
        let pieces = telling.finish();
        if !pieces.is_empty() {
            self.owing.insert(number, pieces.len());
        }
        for (place, piece) in pieces {
            self.push(place, &piece, Purpose::Parcel(number));
        }
    }

    fn push(&mut self, place: Place, piece: &[u8], purpose: Purpose) {
        let Place { end: to, life } = place;
        let word = Word::Steps { life, piece }.encode();
        self.words.push_back(Outgoing { to, word, purpose });
    }

    fn forget(&mut self, session: SessionId) {
        self.sessions.remove(&session);
        self.due.remove(&session);
        self.under_way.remove(&session);
    }

    /// A session that is to be copied, and its client id, if there is room for it. Those that have to
    /// wait stay due.
    pub fn next_due(&self, waits: impl Fn(SessionId) -> bool) -> Option<(SessionId, Arc<str>)> {
        if self.copy_bytes >= COPY_ROOM {
            return None;
        }
        let mut due = self.due.iter();
        let next = due.find(|due| !self.under_way.contains_key(due) && !waits(**due))?;
        Some((*next, Arc::clone(&self.sessions.get(next)?.client_id)))
    }

    /// Copies a session that is due to its place; `None` when there is no such session any more. All
    /// that was noted before must have been in a parcel.
    pub fn copy(&mut self, session: SessionId, steps: Option<Vec<Step>>, now: Instant) {
        self.due.remove(&session);
        let Some(steps) = steps else {
            self.forget(session);
            return;
        };
        let Some(copied) = self.sessions.get_mut(&session) else {
            return;
        };
        let Some(place) = place_of(copied.client, &self.peers) else {
            return;
        };
        copied.older = copied.at.replace(place);
        let mut steps = steps;
        if copied.older.is_some()
            && let Some(first @ Step::Whole) = steps.first_mut()
        {
            let older = self
                .peers
                .iter()
                .find(|peer| Some(peer.place) == copied.older);
            *first = Step::Replacing(older.map_or(0, |peer| peer.node));
        }
        // Its place may have one of an earlier life, which is whole until then.
        steps.push(Step::Complete);
        let mut telling = Telling::new(now);
        for step in &steps {
            telling.tell_at(place, copied.whose(session), step);
        }
        let pieces = telling.finish();
        self.copies += 1;
        let copy = self.copies;
        self.under_way.insert(session, (copy, pieces.len()));
        for (place, piece) in pieces {
            let bytes = piece.len();
            self.copy_bytes += bytes;
            let purpose = Purpose::Copy {
                session,
                copy,
                bytes,
            };
            self.push(place, &piece, purpose);
        }
    }

    /// The next word for a lane; [`Book::note_sent`] is to follow.
    pub fn poll_word(&mut self) -> Option<Outgoing> {
        self.words.pop_front()
    }

    pub fn has_words(&self) -> bool {
        !self.words.is_empty() || !self.untold.is_empty() && self.is_all_told()
    }

    /// Whether each session's place has all of it.
    fn is_all_told(&self) -> bool {
        self.due.is_empty() && self.under_way.is_empty()
    }

    /// The next place that is to hear, behind the words, that all was told.
    pub fn poll_told(&mut self) -> Option<Place> {
        let is_told = self.words.is_empty() && self.is_all_told();
        is_told.then(|| self.untold.pop_first()).flatten()
    }

    /// Notes in which frame a word is.
    pub fn note_sent(&mut self, to: ShardId, sequence: u64, purpose: Purpose) {
        if purpose != Purpose::Nothing {
            let purposes = self.sent.entry((to, sequence)).or_default();
            purposes.push(purpose);
        }
    }

    /// Notes that a frame was taken, or that it never will be; tells whether there was one.
    pub fn confirm(&mut self, to: ShardId, sequence: u64, now: Instant) -> bool {
        let Some(purposes) = self.sent.remove(&(to, sequence)) else {
            return false;
        };
        for purpose in purposes {
            match purpose {
                Purpose::Parcel(number) => self.settle_parcel(number),
                Purpose::Copy {
                    session,
                    copy,
                    bytes,
                } => {
                    self.copy_bytes -= bytes;
                    self.note_copied(session, copy, now);
                }
                Purpose::Nothing => {}
            }
        }
        true
    }

    /// Notes that a frame is on its way, which is enough for what clients wait for: a copy is not whole
    /// before it was taken. Tells whether something was waited for.
    pub fn note_passed(&mut self, to: ShardId, sequence: u64) -> bool {
        let Some(purposes) = self.sent.get_mut(&(to, sequence)) else {
            return false;
        };
        let is_parcel = |purpose: &mut Purpose| matches!(purpose, Purpose::Parcel(_));
        let parcels: Vec<_> = purposes.extract_if(.., is_parcel).collect();
        for purpose in &parcels {
            if let Purpose::Parcel(number) = purpose {
                self.settle_parcel(*number);
            }
        }
        !parcels.is_empty()
    }

    fn settle_parcel(&mut self, number: u64) {
        if let Some(words) = self.owing.get_mut(&number) {
            *words -= 1;
            if *words == 0 {
                self.owing.remove(&number);
            }
        }
    }

    fn note_copied(&mut self, session: SessionId, copy: u64, now: Instant) {
        let Some((copying, words)) = self.under_way.get_mut(&session) else {
            return;
        };
        // It may be a copy to somebody who was lost meanwhile, or has forgotten it.
        if *copying != copy {
            return;
        }
        *words -= 1;
        if *words > 0 {
            return;
        }
        self.under_way.remove(&session);
        if let Some(copied) = self.sessions.get_mut(&session)
            && let Some(older) = copied.older.take()
        {
            let mut telling = Telling::new(now);
            telling.tell_at(older, copied.whose(session), &Step::Ended);
            for (place, piece) in telling.finish() {
                self.push(place, &piece, Purpose::Nothing);
            }
        }
    }

    /// The last of the parcels up to which all are confirmed, of those that were sent.
    pub fn confirmed(&self, sent: u64) -> u64 {
        let first = self.owing.first_key_value();
        first.map_or(sent, |(number, _words)| number.saturating_sub(1))
    }
}

impl Copied {
    fn whose(&self, session: SessionId) -> Whose {
        Whose {
            client: self.client,
            session,
        }
    }
}

/// Pieces in the making.
struct Telling {
    writers: BTreeMap<Place, Writer>,
    pieces: Vec<(Place, Bytes)>,
    now: Instant,
}

impl Telling {
    fn new(now: Instant) -> Self {
        Self {
            writers: BTreeMap::new(),
            pieces: Vec::new(),
            now,
        }
    }

    fn tell(&mut self, copied: &Copied, session: SessionId, step: &Step) {
        for place in [copied.at, copied.older].into_iter().flatten() {
            self.tell_at(place, copied.whose(session), step);
        }
    }

    fn tell_at(&mut self, place: Place, whose: Whose, step: &Step) {
        let now = self.now;
        let writer = self
            .writers
            .entry(place)
            .or_insert_with(|| Writer::new(now));
        writer.push_of(whose, step);
        if writer.len() >= PIECE_BYTES {
            self.pieces.push((place, writer.take()));
        }
    }

    fn finish(mut self) -> Vec<(Place, Bytes)> {
        for (place, mut writer) in self.writers {
            if !writer.is_empty() {
                self.pieces.push((place, writer.take()));
            }
        }
        self.pieces
    }
}

#[cfg(test)]
mod tests;
