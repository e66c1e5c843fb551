//! What members of groups leave behind: other members are to have it in their place.
//!
//! ```text
//! a member leaves -> waiting -> some each turn, to members here or on other shards
//!   -> under way, if it is noted: until they have it -> noted as done where it was
//! ```

use std::{
    cell::RefCell,
    collections::{BTreeMap, VecDeque},
    rc::Rc,
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::sync::Notify;

use super::Shard;
use crate::{
    message::Message,
    receipts::{Needs, Waiter},
    session::{
        Orphan,
        journal::{Change, Seq, SessionId},
    },
};

/// Messages that one turn finds new members for.
const PLACED_PER_TURN: usize = 256;

/// Messages that may wait for their turn. They count in no session's queue.
const MOST_WAITING: usize = 100_000;

/// How long they are left alone while lanes or the store are full.
const RETRY: Duration = Duration::from_millis(1);

#[derive(Default)]
pub(super) struct Orphans {
    /// In the order in which members had them.
    waiting: VecDeque<Orphan>,
    /// Of kept sessions, on their way to other members.
    under_way: BTreeMap<u64, Move>,
    last_move: u64,
    work: Rc<Notify>,
}

struct Move {
    message: Arc<Message>,
    /// Where it is noted until others have it: a crash in between must not lose it.
    noted: Vec<(SessionId, Seq)>,
}

impl Orphans {
    /// Whether others have all that they were to have.
    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty() && self.under_way.is_empty()
    }
}

impl Shard {
    /// Takes messages whose member has left: others get them, some at once and some each turn. When the
    /// node stops, they stay where they are noted.
    pub(super) fn adopt(&mut self, orphans: Vec<Orphan>, now: Instant) {
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
                self.dispatch(&shares, message, &mut needs, now);
                let moved = Move {
                    message: Arc::clone(message),
                    noted: copies.iter().filter_map(|orphan| orphan.noted).collect(),
                };
                self.start_move(moved, &needs);
            }
        }
        !self.orphans.waiting.is_empty()
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

    fn note_moved(&self, moved: Move) {
        let Some(account) = self.account() else {
            return;
        };
        let Move { message, noted } = moved;
        for (session, seq) in noted {
            let message = Some(Arc::clone(&message));
            let change = Change::Done { seq, message };
            account.journal().note(session, change);
        }
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

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::{
        message::{MessageId, Qos},
        metrics::{Counters, Metric, Metrics},
        receipts::Need,
        routes::ShardId,
        session::Cause,
        shard::{Shared, testing::GROUP},
        shares::{Appetite, Presence},
    };

    fn message() -> Arc<Message> {
        Arc::new(Message {
            topic: "t".into(),
            payload: Box::default(),
            properties: Box::default(),
            qos: Qos::AtLeastOnce,
            retain: false,
            expires: None,
            id: MessageId::NONE,
        })
    }

    #[test]
    fn what_a_member_leaves_behind_is_handed_on_some_each_turn() {
        const LEFT: usize = 2 * PLACED_PER_TURN + 1;
        let settings = format!("[limits]\nqueue_messages = {LEFT}\ninflight = 1");
        let shared = Shared::for_tests(&settings, 1);
        let counters = Arc::new(Counters::default());
        let metrics = Metrics::new(vec![Arc::clone(&counters)]);
        let mut shard = Shard::new(ShardId(0), shared, counters);
        let now = Instant::now();
        let leaver = shard.join_for_tests("leaver", Qos::AtLeastOnce);
        for _ in 0..=LEFT {
            shard.publish(message(), None, &mut Needs::default(), now);
        }
        let _heir = shard.join_for_tests("heir", Qos::AtLeastOnce);
        let [leaver_key, heir_key] = ["leaver", "heir"].map(|id| shard.sessions.find(id).unwrap());
        let has = |shard: &mut Shard| {
            let session = &shard.sessions.get_mut(heir_key).unwrap().session;
            session.inflight_len() + session.queue_len()
        };
        shard.disconnect(leaver_key, &leaver, Cause::Broken, now);
        assert!(!shard.orphans.is_empty());
        // The one in flight as well, as the session has ended.
        assert_eq!(has(&mut shard), 1 + PLACED_PER_TURN);
        assert!(shard.place_orphans(now));
        assert_eq!(has(&mut shard), 1 + 2 * PLACED_PER_TURN);
        assert!(!shard.place_orphans(now));
        assert_eq!(has(&mut shard), LEFT + 1);
        assert!(shard.orphans.is_empty());
        assert_eq!(metrics.get(Metric::DroppedShared), 0);
    }

    #[test]
    fn message_of_a_kept_member_stays_noted_until_its_next_one_has_it() {
        let shared = Shared::for_tests("", 2);
        let mut shard = Shard::new(ShardId(0), Arc::clone(&shared), Arc::default());
        let now = Instant::now();
        let _parcels = shard.keep_for_tests();
        let journal = shard.account().unwrap().journal().clone();
        let is_done =
            |(_session, change): &(SessionId, Change)| matches!(change, Change::Done { .. });
        let dones = || {
            let changes = journal.take().unwrap_or_default();
            changes.into_iter().filter(is_done).count()
        };
        let link = shard.join_kept_for_tests("a", Qos::AtLeastOnce);
        let key = shard.sessions.find("a").unwrap();
        shard.disconnect(key, &link, Cause::Broken, now);
        let message = message();
        for _ in 0..2 {
            shard.publish(Arc::clone(&message), None, &mut Needs::default(), now);
        }
        // There is one on another shard when it leaves.
        let other = Presence::new(Appetite::Ready);
        let shares = &shared.shares;
        shares.join(GROUP, ShardId(1), 0, Qos::AtLeastOnce, &other);
        let left = BTreeSet::from([shard.leave_group(key, GROUP).unwrap()]);
        shard.hand_on(key, &left, now);
        assert_eq!(dones(), 0);
        let to = ShardId(1);
        for sequence in 0..3 {
            shard.handle_confirmation(Need::Frame { to, sequence });
        }
        assert_eq!(dones(), 2);
        assert!(shard.orphans.is_empty());
    }
}
