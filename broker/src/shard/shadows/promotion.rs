//! Copies of a lost node's sessions become sessions of this one.

use std::{collections::BTreeSet, sync::Arc, time::Instant};

use super::super::{SessionKey, Shard};
use crate::{
    metrics::Metric,
    replica::{Shadow, hash_of, wire::Whose},
    routes::ShardId,
    session::{Restored, Subscription, journal::SessionId},
};

impl Shard {
    pub(super) fn promote_all(
        &mut self,
        from: ShardId,
        copies: impl IntoIterator<Item = (Whose, Shadow)>,
        now: Instant,
    ) {
        let mut keys = Vec::new();
        for (whose, shadow) in copies {
            // The whole one becomes a session, if there is one.
            if shadow.whole_at().is_some_and(|node| self.is_there(node)) {
                continue;
            }
            self.counters.inc(Metric::Promoted);
            keys.extend(self.promote(from, whose, shadow, now));
        }
        let client_ids = keys.iter().filter_map(|key| {
            let entry = self.sessions.get_mut(*key)?;
            Some(Arc::clone(&entry.client_id))
        });
        let client_ids = client_ids.collect();
        self.claim_promoted(&client_ids);
        let policy = self.shared.access.policy();
        for key in keys {
            // What rules do not allow here they have taken from sessions of this node.
            self.judge(key, &policy, now);
            self.do_due(key, now);
            self.reclaim(key, now);
        }
    }

    /// Does what a session had to do when its node was lost: its client may be about to come back,
    /// and would find it undone.
    fn do_due(&mut self, key: SessionKey, now: Instant) {
        let Some(entry) = self.sessions.get_mut(key) else {
            return;
        };
        let aftermath = entry.session.handle_timeout(now);
        self.counters
            .add(Metric::SessionsExpired, usize::from(aftermath.ended));
        self.settle(key, aftermath, Vec::new(), now);
    }

    fn promote(
        &mut self,
        from: ShardId,
        whose: Whose,
        shadow: Shadow,
        now: Instant,
    ) -> Option<SessionKey> {
        let state = shadow.state()?;
        let client_id = Arc::clone(&state.profile.client_id);
        // A session of another shard's would be found by nobody.
        if hash_of(&client_id) != whose.client {
            return None;
        }
        if whose.session.is_brief() {
            // The session has ended with its node, so its will is due.
            if let Some(will) = state.will.clone() {
                self.publish_will(will.publication(now), None, now);
            }
            return None;
        }
        let ids: BTreeSet<_> = shadow.message_ids().collect();
        let had = shadow.had().clone();
        let older = self.sessions.find(&client_id);
        let entry = older.and_then(|key| self.sessions.get_mut(key));
        if let Some(key) = older.filter(|_key| entry.is_some_and(|entry| entry.goes_to(from))) {
            self.call_back(key, now);
        }
        let key = match self.sessions.find(&client_id) {
            Some(key) => {
                self.publish_late_will(&shadow, now);
                self.add_to(key, shadow, now)
            }
            None => self.awaken(shadow, now),
        }?;
        let promoted = self.shadows.promoted_of(from);
        promoted.sessions.insert(key, whose.client);
        for id in &ids {
            promoted.recent.insert(whose.client, *id, now);
        }
        let node = self.shadows.returns.node_at(from).unwrap_or_default();
        if let Some(entry) = self.sessions.get_mut(key) {
            entry.had.extend(had);
            entry.had.extend(ids.into_iter().map(|id| (id, node)));
        }
        Some(key)
    }

    /// Publishes the will of a client that is here by now: its older connection was lost with the
    /// node. If the will has a delay, the client has come back before that was over.
    fn publish_late_will(&mut self, shadow: &Shadow, now: Instant) {
        let state = shadow.state();
        let will = state.and_then(|state| Some((state.will.clone()?, state.ends, state.will_due)));
        let is_due = |delay, ends: Option<Instant>, due: Option<Instant>| match ends {
            Some(_ends) => due.is_some_and(|due| due <= now),
            None => delay == 0,
        };
        if let Some((will, ends, due)) = will
            && is_due(will.delay, ends, due)
        {
            self.publish_will(will.publication(now), None, now);
        }
    }

    fn awaken(&mut self, shadow: Shadow, now: Instant) -> Option<SessionKey> {
        let (_journal, session) = self.account()?.open_session();
        let restored = shadow.into_restored(session)?;
        let client_id = Arc::clone(&restored.profile.client_id);
        self.restore_session(restored, now);
        let key = self.sessions.find(&client_id)?;
        self.sessions.get_mut(key)?.session.note_whole();
        Some(key)
    }

    /// The client was here before its older node was held for gone, and has another session: what
    /// waited for it on the other node is not lost. One that keeps nothing wants nothing of it.
    fn add_to(&mut self, key: SessionKey, shadow: Shadow, now: Instant) -> Option<SessionKey> {
        let entry = self.sessions.get_mut(key)?;
        // The session of one that is leaving is on another node.
        if !entry.session.is_kept() || entry.is_leaving() {
            return None;
        }
        let restored = shadow.into_restored(SessionId(0))?;
        if !self.inherits(key, &restored) {
            return None;
        }
        let Restored {
            subscriptions,
            messages,
            ..
        } = restored;
        self.add_subscriptions(key, subscriptions);
        self.merge(key, messages, now);
        Some(key)
    }

    /// Gives a session the subscriptions of an older one that it does not have: its client has not
    /// wanted to begin anew, whether it was told that there is one or not.
    pub(in crate::shard) fn add_subscriptions(
        &mut self,
        key: SessionKey,
        subscriptions: Vec<(Box<str>, Subscription)>,
    ) {
        for (filter, subscription) in subscriptions {
            let Some(entry) = self.sessions.get_mut(key) else {
                return;
            };
            if !entry.session.is_subscribed(&filter) {
                entry.session.subscribe(&filter, subscription);
                self.counters.inc(Metric::Subscriptions);
                self.add_subscriber(key, &filter, subscription);
            }
        }
    }

    fn is_there(&self, node: u64) -> bool {
        let cluster = self.shared.cluster.as_ref();
        cluster.is_some_and(|cluster| {
            let living = cluster.living();
            living.borrow().iter().any(|peer| peer.node == node)
        })
    }
}
