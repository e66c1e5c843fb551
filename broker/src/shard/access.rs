//! What clients may do on a shard, and what becomes of them when that changes.

use std::{collections::BTreeSet, rc::Rc, time::Instant};

use tracing::debug;

use super::{SessionKey, Shard};
use crate::{
    access::{Identity, Permit, Policy},
    codec::packet::{Connect, ConnectCode, reason},
    link::Link,
    metrics::Metric,
    session::Cause,
};

impl Shard {
    /// What a client may do; it may have to go, as the policy in force need not be the one by which
    /// it was found out who the client is.
    pub(super) fn permit(
        &self,
        connect: &Connect,
        identity: &Identity,
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
        if may_have_will && policy.vouches_for(identity) {
            Ok(permit)
        } else {
            self.counters.inc(Metric::RefusedAccess);
            Err(ConnectCode::NotAuthorized)
        }
    }

    /// A session that a user has opened is not for clients that are nobody in particular: who says
    /// nothing of who it is could end every user's by its client id.
    pub(super) fn keep_from_nobody(
        &mut self,
        client_id: &str,
        identity: &Identity,
    ) -> Result<(), ConnectCode> {
        let key = self.sessions.find(client_id);
        let entry = key.and_then(|key| self.sessions.get_mut(key));
        let is_users = entry.is_some_and(|entry| entry.owner.user().is_some());
        if is_users && identity.user().is_none() {
            debug!(client_id, "client id is that of a user's session");
            self.counters.inc(Metric::RefusedAccess);
            return Err(ConnectCode::ClientIdInvalid);
        }
        Ok(())
    }

    /// Closes the connections of clients that a changed policy would not let in, and takes from
    /// sessions what it does not allow.
    pub(crate) fn apply_policy(&mut self, policy: &Policy, now: Instant) {
        for key in self.sessions.keys() {
            let Some(entry) = self.sessions.get_mut(key) else {
                continue;
            };
            let link = entry.link.clone();
            let is_known = policy.vouches_for(&entry.owner);
            self.restrict(key, policy, now);
            if let Some(link) = link
                && !is_known
            {
                self.send_away(key, &link, now);
            }
        }
    }

    fn send_away(&mut self, key: SessionKey, link: &Rc<Link>, now: Instant) {
        self.counters.inc(Metric::ClosedAccess);
        link.close(reason::NOT_AUTHORIZED);
        self.disconnect(key, link, Cause::Broken, now);
    }

    /// Ends the subscriptions, and drops the will, that are not allowed any more.
    fn restrict(&mut self, key: SessionKey, policy: &Policy, now: Instant) {
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
