//! What members of groups leave behind, and wills: others are to have them, on this shard or another.
//!
//! ```text
//! a member leaves -> waiting -> some each turn, to members here or on other shards
//!   -> under way, if it is noted: until they have it -> noted as done where it was
//! ```
//!
//! When a kept session ends meanwhile, its row stays as an estate, so that a later life of the broker
//! finds what was under way and begins anew. A will that is due gets an estate of its own.

mod wills;

use std::{
    cell::RefCell,
    collections::{BTreeMap, VecDeque, btree_map::Entry},
    rc::Rc,
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::sync::Notify;

use super::Shard;
use crate::{
    message::Message,
    metrics::Metric,
    receipts::{Needs, Waiter},
    session::{
        Orphan, Restored, RestoredMessage,
        journal::{Change, Profile, Remains, Seq, SessionId, State},
    },
    topic::SharedFilter,
};

/// Messages that one turn finds new members for.
const PLACED_PER_TURN: usize = 256;

/// Messages that may wait for their turn. They count in no session's queue, and their bytes in the
/// node's stock until others have them.
const MOST_WAITING: usize = 100_000;

/// How long they are left alone while lanes or the store are full.
const RETRY: Duration = Duration::from_millis(1);

#[derive(Default)]
pub(super) struct Orphans {
    /// In the order in which members had them.
    waiting: VecDeque<Orphan>,
    /// Of kept sessions, on their way to others.
    under_way: BTreeMap<u64, Move>,
    last_move: u64,
    /// Of kept sessions some of whose messages are waiting or under way.
    estates: BTreeMap<SessionId, Estate>,
    /// Estates of an earlier life.
    found: Vec<Restored>,
    work: Rc<Notify>,
}

struct Move {
    message: Arc<Message>,
    /// Where it is noted until others have it: a crash in between must not lose it.
    noted: Vec<(SessionId, Noted)>,
}

/// As what a message is noted.
#[derive(Clone, Copy)]
enum Noted {
    Queued(Seq),
    Will,
}

#[derive(Default)]
struct Estate {
    /// Messages that others are to have.
    left: usize,
    /// The session is over, and its row goes with the last of them.
    is_over: bool,
}

impl Orphans {
    /// Whether others have all that they were to have.
    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty() && self.under_way.is_empty()
    }

    /// Whether others are to have something that is noted of this session.
    pub(super) fn has_of(&self, session: SessionId) -> bool {
        self.estates.contains_key(&session)
    }

    /// Whether so many wait that whoever can keep its own should.
    pub(super) fn are_many(&self) -> bool {
        self.waiting.len() >= MOST_WAITING
    }

    /// Takes what was left of a session in an earlier life, for [`take_up`].
    pub(super) fn inherit(&mut self, estate: Restored) {
        self.found.push(estate);
    }

    fn estate(&mut self, session: SessionId) -> &mut Estate {
        self.estates.entry(session).or_default()
    }

    /// Others have one more message; tells whether that was the last of a session that is over.
    fn settle_one(&mut self, session: SessionId) -> bool {
        let Entry::Occupied(mut estate) = self.estates.entry(session) else {
            return false;
        };
        let left = &mut estate.get_mut().left;
        *left = left.saturating_sub(1);
        *left == 0 && estate.remove().is_over
    }
}

impl Shard {
    /// Takes messages whose member has left: others get them, some at once and some each turn. When the
    /// node stops, they stay where they are noted.
    pub(super) fn adopt(&mut self, orphans: Vec<Orphan>, now: Instant) {
        for (session, _seq) in orphans.iter().filter_map(|orphan| orphan.noted) {
            self.orphans.estate(session).left += 1;
        }
        if orphans.is_empty() || self.is_stopping {
            return;
        }
        let is_first = self.orphans.waiting.is_empty();
        self.orphans.waiting.extend(orphans);
        if is_first {
            self.place_orphans(now);
        }
        while self.orphans.waiting.len() > MOST_WAITING {
            self.place_orphans(now);
        }
        if !self.orphans.waiting.is_empty() {
            self.orphans.work.notify_one();
        }
    }

    /// Finds new members for some messages; tells whether there are more.
    fn place_orphans(&mut self, now: Instant) -> bool {
        if self.is_stopping {
            return false;
        }
        let waiting = &mut self.orphans.waiting;
        let count = waiting.len().min(PLACED_PER_TURN);
        let orphans: Vec<_> = waiting.drain(..count).collect();
        // Thousands may have left at once, and may never again.
        if waiting.is_empty() {
            *waiting = VecDeque::new();
        }
        // One message may have waited for many groups, one after another.
        for copies in orphans.chunk_by(|a, b| Arc::ptr_eq(&a.message, &b.message)) {
            let shares: Vec<_> = copies.iter().map(|orphan| orphan.share).collect();
            if let Some(Orphan { message, .. }) = copies.first() {
                // Its publisher was answered when the member took it.
                let mut needs = Needs::default();
                self.dispatch_left(&shares, message, &mut needs, now);
                let noted = copies.iter().filter_map(|orphan| orphan.noted);
                let noted = noted.map(|(session, seq)| (session, Noted::Queued(seq)));
                let moved = Move {
                    message: Arc::clone(message),
                    noted: noted.collect(),
                };
                self.start_move(moved, &needs);
            }
        }
        !self.orphans.waiting.is_empty()
    }

    /// A session is noted no longer, or by another number. If others are to have these messages of it
    /// or earlier ones, what is noted of them is an estate.
    pub(super) fn note_over(&mut self, session: SessionId, profile: Profile, orphans: &[Orphan]) {
        let has_heirs = self.orphans.estates.contains_key(&session)
            || orphans.iter().any(|orphan| orphan.noted.is_some());
        if has_heirs {
            self.orphans.estate(session).is_over = true;
            self.note(session, Change::State(State::estate(profile, None)));
        }
    }

    fn start_move(&mut self, moved: Move, needs: &Needs) {
        if moved.noted.is_empty() {
            return;
        }
        match self.ledger.open(needs) {
            Some(receipt) => {
                let orphans = &mut self.orphans;
                orphans.last_move += 1;
                orphans.under_way.insert(orphans.last_move, moved);
                receipt.tell(Waiter::Move(orphans.last_move));
            }
            None => self.note_moved(moved),
        }
    }

    /// Others have a message, and have stored it.
    pub(super) fn finish_move(&mut self, number: u64) {
        if let Some(moved) = self.orphans.under_way.remove(&number) {
            self.note_moved(moved);
        }
    }

    fn note_moved(&mut self, moved: Move) {
        let Move { message, noted } = moved;
        for (session, noted) in noted {
            let change = match noted {
                Noted::Queued(seq) => Change::Done {
                    seq,
                    message: Some(Arc::clone(&message)),
                },
                Noted::Will => Change::Completed(wills::ID),
            };
            self.note(session, change);
            self.settle_one(session);
        }
    }

    fn settle_one(&mut self, session: SessionId) {
        if self.orphans.settle_one(session) {
            self.note(session, Change::Ended(Remains::default()));
        }
        if !self.orphans.has_of(session)
            && let Some(account) = self.account()
        {
            account.copy_soon();
        }
    }

    fn note(&self, session: SessionId, change: Change) {
        if let Some(account) = self.account() {
            account.journal().note(session, change);
        }
    }

    /// Passes on what others were to have of a session in an earlier life; tells whether there is more.
    fn take_up_estate(&mut self, now: Instant) -> bool {
        if self.is_stopping {
            return false;
        }
        let Some(found) = self.orphans.found.pop() else {
            return false;
        };
        let Restored {
            session,
            will,
            received,
            messages,
            ..
        } = found;
        let estate = self.orphans.estate(session);
        estate.is_over = true;
        // Until all of it is under way.
        estate.left = 1;
        let mut orphans = Vec::new();
        for RestoredMessage {
            seq,
            content,
            group,
            ..
        } in messages
        {
            let (Some((message, _grant)), Some((group, filter))) = (content, group) else {
                continue;
            };
            let name = SharedFilter {
                group: &group,
                filter: &filter,
            };
            match self.shared.shares.find(name) {
                Some(share) => orphans.push(Orphan {
                    share,
                    message,
                    noted: Some((session, seq)),
                    place: None,
                }),
                None => {
                    self.counters.inc(Metric::DroppedShared);
                    let message = Some(message);
                    self.note(session, Change::Done { seq, message });
                }
            }
        }
        if let Some(will) = will {
            self.orphans.estate(session).left += 1;
            self.publish_will_again(session, will.message, &received, now);
        }
        self.adopt(orphans, now);
        self.settle_one(session);
        true
    }
}

/// Finds new members for what waits, for as long as the shard lives.
pub(super) async fn place(shard: Rc<RefCell<Shard>>) {
    let work = Rc::clone(&shard.borrow().orphans.work);
    loop {
        work.notified().await;
        while shard.borrow_mut().place_orphans(Instant::now()) {
            tokio::task::yield_now().await;
            while shard.borrow().is_congested() {
                tokio::time::sleep(RETRY).await;
            }
        }
    }
}

/// Passes on what was left in an earlier life, when all shards have their sessions back.
pub(super) async fn take_up(shard: &RefCell<Shard>) {
    while shard.borrow_mut().take_up_estate(Instant::now()) {
        tokio::task::yield_now().await;
    }
}

#[cfg(test)]
mod tests;
