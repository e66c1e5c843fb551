//! How sessions lose their connections, and how they end.

use std::{rc::Rc, sync::atomic::Ordering, time::Instant};

use super::{Backlog, SessionKey, Shard};
use crate::{
    access::Identity,
    codec::packet::reason,
    link::Link,
    metrics::Metric,
    session::{Aftermath, Cause, Orphan},
    topic::{self, Wanted},
};

/// Where a session goes on that is taken over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Heir {
    Here,
    Elsewhere,
}

impl Shard {
    /// Whether a session is another user's: its messages are for that one.
    pub(super) fn is_others(&mut self, client_id: &str, identity: &Identity) -> bool {
        let key = self.sessions.find(client_id);
        let entry = key.and_then(|key| self.sessions.get_mut(key));
        entry.is_some_and(|entry| !entry.owner.is_same_user(identity))
    }

    /// Finds a client's session and frees it from its older connection, if it has one; ends it when it
    /// is not to go on.
    pub(super) fn take_over(
        &mut self,
        client_id: &str,
        is_over: bool,
        heir: Heir,
        now: Instant,
    ) -> Option<SessionKey> {
        let key = self.sessions.find(client_id)?;
        self.call_back(key, now);
        let entry = self.sessions.get_mut(key)?;
        let mut aftermath = Aftermath::default();
        let mut orphans = Vec::new();
        let seat = (self.id, key.number());
        if let Some(older) = entry.link.take() {
            older.close(reason::SESSION_TAKEN_OVER);
            self.counters.inc(Metric::ClosedTakenOver);
            self.counters.sub(Metric::SessionsConnected, 1);
            // Members of groups that go elsewhere take along what waits for them.
            if heir == Heir::Here {
                orphans = entry.reclaim_unsent(&self.shared.shares, seat);
            }
            aftermath = entry.session.detach(Cause::Broken, now);
            entry.note_appetite();
        }
        if is_over && !aftermath.ended {
            let waiting = entry.session.end(now);
            aftermath = Aftermath {
                will: aftermath.will.or(waiting.will),
                ended: true,
            };
        }
        let ended = aftermath.ended;
        self.settle(key, aftermath, orphans, now);
        (!ended).then_some(key)
    }

    /// Ends a connection's hold on its session, unless a newer connection has it.
    pub(crate) fn disconnect(
        &mut self,
        key: SessionKey,
        link: &Rc<Link>,
        cause: Cause,
        now: Instant,
    ) {
        let backlog = match cause {
            // What a session has when the node stops, it still has after the next start.
            Cause::Shutdown => Backlog::Stays,
            Cause::Goodbye | Cause::Broken | Cause::Referred => Backlog::HandedOn,
        };
        self.part(key, link, (cause, backlog), now);
    }

    pub(super) fn part(
        &mut self,
        key: SessionKey,
        link: &Rc<Link>,
        (cause, backlog): (Cause, Backlog),
        now: Instant,
    ) {
        let stays = backlog == Backlog::Stays || self.orphans.are_many();
        let Some(entry) = self.sessions.get_mut(key) else {
            return;
        };
        if !entry
            .link
            .as_ref()
            .is_some_and(|current| Rc::ptr_eq(current, link))
        {
            return;
        }
        entry.link = None;
        self.counters.sub(Metric::SessionsConnected, 1);
        let orphans = if stays {
            Vec::new()
        } else {
            entry.reclaim_unsent(&self.shared.shares, (self.id, key.number()))
        };
        let aftermath = entry.session.detach(cause, now);
        entry.note_appetite();
        self.settle(key, aftermath, orphans, now);
    }

    /// Does what a session's end or its will leaves to do. Others get what its groups sent and its
    /// client was not.
    pub(super) fn settle(
        &mut self,
        key: SessionKey,
        aftermath: Aftermath,
        unsent: Vec<Orphan>,
        now: Instant,
    ) {
        let Aftermath { will, ended } = aftermath;
        let entry = self.sessions.get_mut(key);
        let will = will.map(|message| (message, entry.and_then(|entry| entry.kept_profile())));
        if ended {
            self.forget(key, unsent, now);
        } else {
            self.schedule(key);
            self.adopt(unsent, now);
        }
        if let Some((message, owner)) = will {
            self.publish_will(message, owner, now);
        }
    }

    pub(super) fn forget(&mut self, key: SessionKey, unsent: Vec<Orphan>, now: Instant) {
        let Some(mut entry) = self.sessions.remove(key) else {
            return;
        };
        self.forget_transit(&mut entry);
        if let Some(deadline) = entry.deadline {
            self.deadlines.remove(&(deadline, key));
        }
        self.shadows.forget(key);
        self.shared.sessions.fetch_sub(1, Ordering::AcqRel);
        self.counters.sub(Metric::Sessions, 1);
        self.counters
            .sub(Metric::Subscriptions, entry.session.subscription_count());
        let (session, mut orphans) = entry.session.wind_up();
        orphans.extend(unsent);
        if let Some(session) = session {
            self.note_over(session, entry.profile(), &orphans);
        }
        for filter in entry.session.filters() {
            self.filters.remove(filter);
            match topic::parse_filter(filter) {
                Some(Wanted::Share(shared)) => {
                    self.leave_group(key, shared);
                }
                Some(Wanted::All(_)) | None => self.cancel(key, filter),
            }
        }
        self.adopt(orphans, now);
    }
}
