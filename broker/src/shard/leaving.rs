//! How sessions lose their connections, and how they end.

use std::{rc::Rc, sync::atomic::Ordering, time::Instant};

use super::{SessionKey, Shard};
use crate::{
    access::Identity,
    codec::packet::{Connect, reason},
    link::Link,
    metrics::Metric,
    session::{Aftermath, Cause},
    topic::{self, Wanted},
};

impl Shard {
    /// Finds the client's session and frees it from its older connection, if it has one; ends it
    /// when the client wants to start clean. Another user's session ends as well: its messages were
    /// for that user.
    pub(super) fn claim(
        &mut self,
        connect: &Connect,
        identity: &Identity,
        now: Instant,
    ) -> Option<SessionKey> {
        let key = self.sessions.find(&connect.client_id)?;
        let entry = self.sessions.get_mut(key)?;
        let mut aftermath = Aftermath::default();
        let mut orphans = Vec::new();
        if let Some(older) = entry.link.take() {
            older.close(reason::SESSION_TAKEN_OVER);
            self.counters.inc(Metric::ClosedTakenOver);
            self.counters.sub(Metric::SessionsConnected, 1);
            orphans = entry.reclaim_unsent();
            aftermath = entry.session.detach(Cause::Broken, now);
            entry.note_appetite();
        }
        let is_others = !entry.owner.is_same_user(identity);
        if (connect.clean_start || is_others) && !aftermath.ended {
            let waiting = entry.session.end(now);
            aftermath = Aftermath {
                will: aftermath.will.or(waiting.will),
                ended: true,
            };
        }
        let ended = aftermath.ended;
        self.settle(key, aftermath, now);
        self.adopt(orphans, now);
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
        // What a kept session has when the node stops, it still has after the next start.
        let stays = cause == Cause::Shutdown && entry.session.is_kept();
        let orphans = if stays {
            Vec::new()
        } else {
            entry.reclaim_unsent()
        };
        let aftermath = entry.session.detach(cause, now);
        entry.note_appetite();
        self.settle(key, aftermath, now);
        self.adopt(orphans, now);
    }

    /// Does what a session's end or its will leaves to do.
    pub(super) fn settle(&mut self, key: SessionKey, aftermath: Aftermath, now: Instant) {
        let Aftermath { will, ended } = aftermath;
        if ended {
            self.forget(key, now);
        } else {
            self.schedule(key);
        }
        if let Some(will) = will {
            self.publish_will(will, now);
        }
    }

    fn forget(&mut self, key: SessionKey, now: Instant) {
        let Some(mut entry) = self.sessions.remove(key) else {
            return;
        };
        if let Some(deadline) = entry.deadline {
            self.deadlines.remove(&(deadline, key));
        }
        self.shared.sessions.fetch_sub(1, Ordering::AcqRel);
        self.counters.sub(Metric::Sessions, 1);
        self.counters
            .sub(Metric::Subscriptions, entry.session.subscription_count());
        entry.session.keep_no_longer();
        for filter in entry.session.filters() {
            self.filters.remove(filter);
            match topic::parse_filter(filter) {
                Some(Wanted::Share(shared)) => {
                    self.leave_group(key, shared);
                }
                Some(Wanted::All(_)) | None => self.cancel(key, filter),
            }
        }
        let orphans = entry.session.reclaim_unfinished();
        self.adopt(orphans, now);
    }
}
