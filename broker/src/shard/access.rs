//! What clients may do on a shard, and what becomes of them when that changes.

use std::{cell::RefCell, collections::BTreeSet, rc::Rc, sync::Arc, time::Instant};

use tracing::debug;

use super::{Entry, SessionKey, Shard};
use crate::{
    access::{Identity, Permit, Policy, Standing},
    codec::packet::{Connect, ConnectCode, reason},
    link::Link,
    metrics::Metric,
    peer::Peer,
    session::Cause,
};

/// Sessions that are judged in one turn, with their filters and what waits for them. A session is
/// judged as a whole.
const JUDGED_PER_TURN: usize = 512;

impl Shard {
    /// What a client may do; it may have to go, as the policy in force need not be the one by which
    /// it was found out who the client is.
    pub(super) fn permit(
        &self,
        connect: &Connect,
        identity: &Identity,
        peer: &Peer,
    ) -> Result<Permit, ConnectCode> {
        let policy = self.shared.access.policy();
        let permit = policy.permit(identity, &connect.client_id);
        let may_have_will = connect
            .will
            .as_ref()
            .is_none_or(|will| permit.may_publish(&will.message.topic));
        if !may_have_will {
            debug!(
                client_id = connect.client_id,
                user = identity.user(),
                "will denied"
            );
            self.counters.inc(Metric::DeniedPublish);
        }
        if may_have_will && policy.standing(identity, Some(peer)) == Standing::Good {
            Ok(permit)
        } else {
            self.counters.inc(Metric::RefusedAccess);
            Err(ConnectCode::NotAuthorized)
        }
    }

    /// Whether a client may have its id, and if so, whether it is one that the broker has given: to
    /// it, or earlier to the user whose session it still is.
    ///
    /// Who says nothing of who it is may have none of a session that a user has opened: it could end
    /// every user's.
    pub(super) fn check_client_id(
        &mut self,
        client_id: &str,
        identity: &Identity,
        is_new: bool,
    ) -> Result<bool, ConnectCode> {
        let key = self.sessions.find(client_id);
        let older = key.and_then(|key| self.sessions.get_mut(key));
        let is_users = older
            .as_ref()
            .is_some_and(|entry| entry.owner.user().is_some());
        let was_given =
            older.is_some_and(|entry| entry.is_assigned && entry.owner.is_same_user(identity));
        let is_assigned = is_new || was_given;
        let policy = self.shared.access.policy();
        let may_have = is_assigned || policy.allows_client_id(identity, client_id);
        if may_have && !(is_users && identity.user().is_none()) {
            return Ok(is_assigned);
        }
        debug!(
            client_id,
            user = identity.user(),
            "not a client id of the user"
        );
        self.counters.inc(Metric::RefusedAccess);
        Err(ConnectCode::ClientIdInvalid)
    }

    /// Closes the connections of clients that the policy in force would not let in, ends the sessions
    /// that nobody could come back to, and takes from others what it does not allow.
    ///
    /// Judges some sessions, in the order of their client ids; returns the last one's if there are more
    /// behind it. Those that come meanwhile are judged as they come.
    pub(crate) fn apply_policy(&mut self, after: Option<&str>, now: Instant) -> Option<Arc<str>> {
        let policy = self.shared.access.policy();
        let mut keys = Vec::new();
        let mut last = None;
        let mut looks = 0;
        for (key, entry) in self.sessions.after(after) {
            if looks >= JUDGED_PER_TURN {
                break;
            }
            looks += 1 + entry.session.subscription_count() + entry.session.queue_len();
            keys.push(key);
            last = Some(Arc::clone(&entry.client_id));
        }
        for key in keys {
            self.judge(key, &policy, now);
        }
        last.filter(|_client_id| looks >= JUDGED_PER_TURN)
    }

    /// Does what the policy says of a session. One that is on its way to another node is judged there,
    /// or here when it is called back: what it has must not change between its pieces.
    pub(super) fn judge(&mut self, key: SessionKey, policy: &Policy, now: Instant) {
        let entry = self.sessions.get_mut(key);
        let Some(entry) = entry.filter(|entry| !entry.is_leaving()) else {
            return;
        };
        let link = entry.link.clone();
        let owner = &entry.owner;
        let may_have_id = entry.is_assigned || policy.allows_client_id(owner, &entry.client_id);
        let standing = if may_have_id {
            policy.standing(owner, link.as_ref().map(|link| link.peer()))
        } else {
            Standing::Gone
        };
        match standing {
            Standing::Good => self.restrict(key, policy, now),
            Standing::Unproven => {
                self.restrict(key, policy, now);
                self.send_away(key, link.as_ref(), now);
            }
            Standing::Gone => {
                // Who is not let in has nothing to publish.
                entry.session.keep_will_if(|_topic| false);
                self.send_away(key, link.as_ref(), now);
                if let Some(entry) = self.sessions.get_mut(key) {
                    let aftermath = entry.session.end(now);
                    self.settle(key, aftermath, Vec::new(), now);
                }
            }
        }
    }

    /// A session that needs attention; `None` where that was the client's login, which is over: the
    /// client is sent away then.
    pub(super) fn session_due(&mut self, key: SessionKey, now: Instant) -> Option<&mut Entry> {
        let entry = self.sessions.get_mut(key)?;
        let is_over = entry.owner.until().is_some_and(|end| end <= now);
        let Some(link) = entry.link.clone().filter(|_link| is_over) else {
            return self.sessions.get_mut(key);
        };
        entry.deadline = None;
        self.counters.inc(Metric::ClosedLoginExpired);
        link.close(reason::MAXIMUM_CONNECT_TIME);
        self.disconnect(key, &link, Cause::Broken, now);
        None
    }

    fn send_away(&mut self, key: SessionKey, link: Option<&Rc<Link>>, now: Instant) {
        let Some(link) = link else { return };
        self.counters.inc(Metric::ClosedAccess);
        link.close(reason::NOT_AUTHORIZED);
        self.disconnect(key, link, Cause::Broken, now);
    }

    /// Ends those subscriptions of a session that its client has by an earlier login, which said that
    /// it may do other things than this one says. One that should say so and does not allows nothing,
    /// whatever the earlier one was.
    pub(super) fn renew_grants(
        &mut self,
        key: SessionKey,
        identity: &Identity,
        now: Instant,
    ) -> SessionKey {
        if let Some(entry) = self.sessions.get_mut(key)
            && (identity.lacks_grants() || !entry.owner.has_same_grants(identity))
        {
            entry.owner = identity.clone();
            let policy = self.shared.access.policy();
            self.restrict(key, &policy, now);
        }
        key
    }

    /// Ends the subscriptions, and drops the will, that are not allowed any more.
    pub(super) fn restrict(&mut self, key: SessionKey, policy: &Policy, now: Instant) {
        let Some(entry) = self.sessions.get_mut(key) else {
            return;
        };
        let permit = policy.permit(&entry.owner, &entry.client_id);
        entry
            .session
            .keep_will_if(|topic| permit.may_publish(topic));
        let lost: Vec<Box<str>> = entry
            .session
            .filters()
            .filter(|filter| !permit.may_subscribe(filter))
            .map(Box::from)
            .collect();
        entry.permit = permit;
        let mut left = BTreeSet::new();
        for filter in lost {
            if let Some(entry) = self.sessions.get_mut(key) {
                let client_id = &entry.client_id;
                debug!(%client_id, user = entry.owner.user(), %filter, "subscription ended");
            }
            self.counters.inc(Metric::DeniedSubscribe);
            self.unsubscribe(key, &filter, &mut left);
        }
        self.hand_on(key, &left, now);
    }
}

/// Judges all sessions by each new policy, and whenever somebody may have to go by the same one.
pub(super) async fn follow(shard: Rc<RefCell<Shard>>) {
    let mut changes = shard.borrow().shared.access.changes();
    // The sender lives as long as the shard.
    while changes.changed().await.is_ok() {
        judge_all(&shard).await;
    }
}

/// Judges all sessions, some each turn.
pub(super) async fn judge_all(shard: &RefCell<Shard>) {
    let mut judged = None;
    loop {
        let now = Instant::now();
        judged = shard.borrow_mut().apply_policy(judged.as_deref(), now);
        if judged.is_none() {
            return;
        }
        tokio::task::yield_now().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        config::Config,
        message::Qos,
        routes::ShardId,
        session::{Session, Subscription},
        shard::Shared,
        testing::Dir,
    };

    /// A shard with so many sessions whose clients are away; the first one has as many filters.
    fn shard(sessions: usize) -> Shard {
        let mut shard = Shard::new(ShardId(0), Shared::for_tests("", 1), Arc::default());
        for number in 0..sessions {
            let client_id = format!("c{number:04}");
            shard.open_session(&client_id, Identity::ANONYMOUS).unwrap();
        }
        let subscription = Subscription {
            qos: Qos::AtMostOnce,
            no_local: false,
            retain_as_published: false,
            id: None,
        };
        let first = shard.sessions.find("c0000").unwrap();
        let session: &mut Session = &mut shard.sessions.get_mut(first).unwrap().session;
        for number in 0..sessions {
            session.subscribe(&number.to_string(), subscription);
        }
        shard
    }

    /// Lets nobody in who says nothing of who it is.
    fn close_the_door(shard: &Shard) {
        let dir = Dir::new();
        let path = dir.write("passwords", "");
        let text = format!(
            "node = \"n\"\n[[listener]]\naddress = \"127.0.0.1:0\"\n\
             [[access.authenticator]]\ntype = \"file\"\npath = {path:?}\n"
        );
        let config = Config::parse(&text).unwrap();
        let access = &shard.shared.access;
        access.exchange(access.prepare(config.access()).unwrap());
    }

    #[test]
    fn sessions_are_judged_some_each_turn_and_each_with_all_of_its_filters() {
        const SESSIONS: usize = 2 * JUDGED_PER_TURN;
        let mut shard = shard(SESSIONS);
        let now = Instant::now();
        close_the_door(&shard);
        let first = shard.apply_policy(None, now);
        assert_eq!(first.as_deref(), Some("c0000"));
        assert_eq!(shard.sessions.len(), SESSIONS - 1);
        let second = shard.apply_policy(first.as_deref(), now);
        assert_eq!(second.as_deref(), Some("c0512"));
        assert_eq!(shard.sessions.len(), SESSIONS - 1 - JUDGED_PER_TURN);
        let mut judged = second;
        while judged.is_some() {
            judged = shard.apply_policy(judged.as_deref(), now);
        }
        assert_eq!(shard.sessions.len(), 0);
    }
}
