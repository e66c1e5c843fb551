//! A shard's part in copies of its sessions on other nodes: what is copied, and when.
//!
//! The [`crate::replica::book::Book`] says what other nodes have. Sessions that have no copy where it
//! belongs are copied one after another, between the turns of clients, and no more of them than leaves
//! the way to the other node free for messages.

use std::{
    cell::RefCell,
    rc::Rc,
    time::{Duration, Instant},
};

use super::{Entry, Shard, account::Account};
use crate::{
    metrics::Metric,
    replica::{Step, place::Peer},
    session::journal::SessionId,
};

/// What was told of the copies, to tell what has changed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Told {
    copied: usize,
    bare: usize,
}

impl Entry {
    /// Has a session that is being connected noted as far as is needed: all of it, its will, or
    /// nothing. Tells under which number it is noted no longer.
    pub(super) fn settle_record(
        &mut self,
        account: Option<&Account>,
        expiry: Duration,
        has_will: bool,
    ) -> Option<SessionId> {
        match account {
            Some(account) if !expiry.is_zero() => {
                let profile = self.profile();
                self.session.keep(profile, || account.open_session());
                None
            }
            Some(account) if has_will && account.is_copied() => {
                let (journal, session) = account.open_brief();
                let profile = self.profile();
                self.session.keep_will(profile, journal, session)
            }
            Some(_) | None => self.session.keep_no_longer(),
        }
    }
}

impl Shard {
    fn set_peers(&mut self, peers: Vec<Peer>, now: Instant) {
        self.shadows.note_peers(&peers, now);
        if let Some(account) = &self.account {
            account.set_peers(peers);
        }
    }

    /// Copies the next session that is due; tells whether there was one.
    fn copy_next(&mut self, now: Instant) -> bool {
        let Some(account) = self.account.clone() else {
            return false;
        };
        // What others are to have of a session is noted of it, and not in it any more: a copy that is
        // made by now would lack it, and the one that it is to replace has it.
        let waits = |session| self.orphans.has_of(session);
        let next = account.book().borrow().next_due(waits);
        let Some((session, client_id)) = next else {
            return false;
        };
        // What is noted by now is in what is copied.
        account.send_now();
        let key = self.sessions.find(&client_id);
        let entry = key.and_then(|key| self.sessions.get_mut(key));
        let snapshot = entry.and_then(|entry| {
            let had = entry.had.iter().map(|(id, node)| Step::Had(*node, *id));
            let had: Vec<_> = had.collect();
            Some((entry.session.snapshot()?, had))
        });
        let steps = snapshot
            .filter(|(snapshot, _had)| snapshot.session == session)
            .map(|(mut snapshot, had)| {
                if session.is_brief() {
                    snapshot.subscriptions.clear();
                    snapshot.received.clear();
                }
                let mut steps = Step::whole(snapshot, |share| self.shared.shares.name(share));
                steps.extend(had);
                steps
            });
        account.book().borrow_mut().copy(session, steps, now);
        self.outbox_work.notify_one();
        true
    }

    /// Where nobody has a session that is kept when the node stops, it ends with it.
    pub(super) fn give_up_keeping(&mut self) {
        let is_kept = |account: &Rc<Account>| account.is_stored() || account.is_taken();
        if self.account.as_ref().is_some_and(is_kept) {
            return;
        }
        for entry in self.sessions.iter_mut() {
            entry.session.keep_no_longer();
        }
    }

    /// Counts what other nodes have, and what is here of theirs.
    pub(super) fn count_copies(&mut self) {
        let Some(account) = &self.account else { return };
        let (all, bare) = account.book().borrow().counts();
        let copied = all - bare;
        let before = std::mem::replace(&mut self.copies, Told { copied, bare });
        let counters = &self.counters;
        counters.add(Metric::CopiedSessions, copied);
        counters.sub(Metric::CopiedSessions, before.copied);
        counters.add(Metric::BareSessions, bare);
        counters.sub(Metric::BareSessions, before.bare);
        self.shadows.count(counters);
    }
}

/// Copies sessions for as long as the shard lives.
pub(super) async fn serve(shard: Rc<RefCell<Shard>>) {
    let (cluster, account) = {
        let state = shard.borrow();
        (state.shared.cluster.clone(), state.account.clone())
    };
    let Some((cluster, account)) = cluster.zip(account) else {
        return;
    };
    let follow = async {
        let mut peers = cluster.living();
        peers.mark_changed();
        // The sender lives as long as the shard.
        while peers.changed().await.is_ok() {
            let there = Vec::clone(&peers.borrow_and_update());
            shard.borrow_mut().set_peers(there, Instant::now());
        }
    };
    let copy = async {
        loop {
            account.copy_due().await;
            while shard.borrow_mut().copy_next(Instant::now()) {
                tokio::task::yield_now().await;
            }
        }
    };
    tokio::join!(follow, copy);
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeSet, sync::Arc};

    use super::*;
    use crate::{
        message::Qos,
        receipts::{Need, Needs},
        replica::place::Place,
        routes::ShardId,
        session::Cause,
        shard::{
            Shared,
            testing::{CLUSTER, GROUP},
        },
        shares::{Appetite, Presence},
        testing,
    };

    #[test]
    fn copy_is_not_made_before_others_have_what_they_get_of_the_session() {
        let shared = Shared::for_tests(CLUSTER, 2);
        let mut shard = Shard::new(ShardId(0), Arc::clone(&shared), Arc::default());
        let now = Instant::now();
        let link = shard.join_kept_for_tests("a", Qos::AtLeastOnce);
        let key = shard.sessions.find("a").unwrap();
        shard.disconnect(key, &link, Cause::Broken, now);
        let message = Arc::new(testing::message([], Qos::AtLeastOnce));
        shard.publish(message, None, &mut Needs::default(), now);
        let other = Presence::new(Appetite::Ready);
        let shares = &shared.shares;
        shares.join(GROUP, ShardId(1), 0, Qos::AtLeastOnce, &other);
        let left = BTreeSet::from([shard.leave_group(key, GROUP).unwrap()]);
        shard.hand_on(key, &left, now);
        shard.account().unwrap().send_now();
        let (end, life) = (ShardId(2), 1);
        let place = Place { end, life };
        shard.set_peers(vec![Peer { place, node: 1 }], now);
        let bare = |shard: &Shard| shard.account().unwrap().book().borrow().counts().1;
        assert!(!shard.copy_next(now));
        assert_eq!(bare(&shard), 1);
        for sequence in 0..2 {
            let to = ShardId(1);
            shard.handle_confirmation(Need::Frame { to, sequence });
        }
        assert!(shard.orphans.is_empty());
        assert!(shard.copy_next(now));
        assert!(!shard.copy_next(now));
    }
}
