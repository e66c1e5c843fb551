//! Sessions that outlive their connections, and those that outlive the process.

use std::{
    collections::BTreeSet,
    ops::RangeInclusive,
    rc::Rc,
    sync::{Arc, atomic::Ordering, mpsc},
    time::{Duration, Instant},
};

use super::{SessionKey, Shard, account::Account};
use crate::{
    access::Identity,
    codec::packet::{Connect, ConnectCode, reason},
    lanes::frame::Source,
    link::Link,
    message::{Message, Qos},
    metrics::Metric,
    receipts::{Need, Needs},
    replica::hash_of,
    session::{
        Restored, RestoredMessage, Session, Subscription,
        journal::{Change, Origin, Profile},
    },
    store::{Condition, Parcel, Store},
    topic::{self, SharedFilter, Wanted},
    trie::Inserted,
};

/// The store, and a shard's part of what is in it.
pub(crate) struct Inheritance {
    pub(crate) store: Arc<Store>,
    pub(crate) parcels: mpsc::Sender<Parcel>,
    pub(crate) sessions: Vec<Restored>,
    pub(crate) taken: BTreeSet<Origin>,
}

impl Shard {
    pub(super) fn account(&self) -> Option<&Rc<Account>> {
        self.account.as_ref()
    }

    /// How much was noted for the store, for [`Shard::hold_noted`].
    pub(super) fn noted(&self) -> u64 {
        let account = self.account.as_ref();
        account.map_or(0, |account| account.journal().total())
    }

    /// Has what the client is told next wait for what was noted since.
    pub(super) fn hold_noted(&self, since: u64, link: &Rc<Link>) {
        if let Some(account) = &self.account
            && account.journal().total() != since
        {
            account.hold(link);
        }
    }

    /// Adds what was noted since to what a message needs.
    pub(super) fn need_noted(&self, since: u64, needs: &mut Needs) {
        if let Some(account) = &self.account
            && account.journal().total() != since
            && account.is_taken()
        {
            needs.add(Need::Parcel(account.next_parcel()));
        }
    }

    /// Whether an earlier life of this shard has taken a message that came once more, for all of its
    /// subscribers.
    pub(super) fn has_taken(&self, source: Option<Source>) -> bool {
        source.is_some_and(|source| source.is_repeat && self.taken.contains(&source.origin))
    }

    /// Notes that a message was taken for all subscribers, if it was by a session that is kept.
    pub(super) fn note_taken(&self, since: u64, source: Option<Source>) {
        if let (Some(account), Some(source)) = (&self.account, source)
            && account.journal().total() != since
        {
            let Origin { session, id } = source.origin;
            let change = Change::Spread(id, self.id);
            account.journal().note(session, change);
        }
    }

    /// Answers who waited for parcels that are stored.
    pub(super) fn handle_stored(&mut self, parcels: RangeInclusive<u64>) {
        for parcel in parcels {
            self.handle_confirmation(Need::Parcel(parcel));
        }
        self.resume_stalled();
    }

    /// The store cannot be written: whoever waits for an answer might wait in vain.
    pub(super) fn give_up_unanswered(&self) {
        for (_key, link) in self.sessions.connected() {
            if link.unanswered() > 0 {
                link.close(reason::QUOTA_EXCEEDED);
            }
        }
    }

    /// Has what the client is told next wait for all that was noted before.
    pub(super) fn hold(&self, link: &Rc<Link>) {
        if let Some(account) = &self.account {
            account.hold(link);
        }
    }

    /// Has the store take what was noted of retained messages.
    pub(super) fn note_retained(&self) {
        if let Some(account) = &self.account {
            account.journal().touch();
        }
    }

    /// Refuses a client whose session cannot be stored. One that is stored may be taken up again, as
    /// only its client can empty it; but not while its CONNACK would wait in vain.
    pub(super) fn check_store(
        &mut self,
        client_id: &str,
        expiry: Duration,
    ) -> Result<(), ConnectCode> {
        let Some(account) = &self.account else {
            return Ok(());
        };
        let key = self.sessions.find(client_id);
        let entry = key.and_then(|key| self.sessions.get_mut(key));
        let is_stored = entry.is_some_and(|entry| entry.session.is_kept());
        let is_refused = match account.condition() {
            Condition::Good => false,
            Condition::Full | Condition::LowSpace => !expiry.is_zero() && !is_stored,
            Condition::Failing => !expiry.is_zero() || is_stored,
        };
        if is_refused {
            self.counters.inc(Metric::RefusedStore);
            return Err(ConnectCode::QuotaExceeded);
        }
        Ok(())
    }

    /// Whether a message must be refused because what it needs cannot be stored.
    pub(super) fn cannot_store(&self, message: &Message) -> bool {
        let Some(account) = &self.account else {
            return false;
        };
        if account.condition() == Condition::Good {
            return false;
        }
        self.cannot_retain(message)
            || message.qos > Qos::AtMostOnce
                && (!self.shared.kept_routes.matching(&message.topic).is_empty()
                    || self
                        .shared
                        .shares
                        .has_kept(&self.shared.shares.matching(&message.topic)))
    }

    /// Whether what the message would change of what is retained cannot be stored. To forget takes
    /// no room.
    pub(super) fn cannot_retain(&self, message: &Message) -> bool {
        let Some(account) = &self.account else {
            return false;
        };
        message.retain
            && match account.condition() {
                Condition::Good => false,
                Condition::Full | Condition::LowSpace => !message.payload.is_empty(),
                Condition::Failing => true,
            }
    }

    /// How long the client's session outlives its connection.
    pub(super) fn expiry_of(&self, connect: &Connect) -> Duration {
        let longest = self.shared.session_limits.max_expiry;
        if connect.version.is_v5() {
            self.bounded_expiry(connect.session_expiry.unwrap_or(0))
        } else if connect.clean_start {
            Duration::ZERO
        } else {
            longest
        }
    }

    pub(super) fn bounded_expiry(&self, seconds: u32) -> Duration {
        let longest = self.shared.session_limits.max_expiry;
        match seconds {
            u32::MAX => longest,
            seconds => Duration::from_secs(u64::from(seconds)).min(longest),
        }
    }

    /// Opens an account with the store, and takes back what an earlier life of the broker has stored:
    /// before anybody is connected.
    pub(super) fn inherit(&mut self, inheritance: Inheritance, now: Instant) {
        let Inheritance {
            store,
            parcels,
            sessions,
            taken,
        } = inheritance;
        self.taken = taken;
        let (shared, lanes) = (Arc::clone(&self.shared), Rc::clone(&self.outbox_work));
        let account = Account::new(self.id, shared, Some((store, parcels)), lanes);
        self.account = Some(Rc::new(account));
        for restored in sessions {
            if restored.is_estate() {
                self.orphans.inherit(restored);
            } else {
                self.restore_session(restored, now);
            }
        }
    }

    pub(super) fn restore_session(&mut self, mut restored: Restored, now: Instant) {
        let Some(account) = &self.account else { return };
        let Profile {
            client_id,
            user,
            is_assigned,
            grants,
            since,
        } = restored.profile.clone();
        if account.is_copied() {
            let hash = hash_of(&client_id);
            let mut book = account.book().borrow_mut();
            book.register(restored.session, &client_id, hash);
            drop(book);
            account.copy_soon();
        }
        let subscriptions = restored.subscriptions.clone();
        let messages = std::mem::take(&mut restored.messages);
        let session = Session::restore(self.room(), account.journal().clone(), restored, now);
        let key = self
            .sessions
            .insert(&client_id, Identity::of_earlier(user, grants), session);
        // They were let in once, and a limit that is lower by now is for others.
        self.shared.sessions.fetch_add(1, Ordering::AcqRel);
        self.counters.inc(Metric::Sessions);
        self.counters
            .add(Metric::Subscriptions, subscriptions.len());
        for (filter, subscription) in subscriptions {
            self.add_subscriber(key, &filter, subscription);
        }
        let mut messages = messages;
        messages
            .iter_mut()
            .for_each(|message| self.find_group(message));
        let Some(entry) = self.sessions.get_mut(key) else {
            return;
        };
        entry.is_assigned = is_assigned;
        entry.set_since(since);
        // Who comes back is newer, whatever the time of day was taken for.
        if let Some(cluster) = &self.shared.cluster {
            cluster.see_time(since.connected);
        }
        for message in messages {
            entry.session.restore_message(message);
        }
        entry.note_appetite();
        self.schedule(key);
    }

    /// Has a kept session get what its subscription is for.
    pub(super) fn add_subscriber(
        &mut self,
        key: SessionKey,
        filter: &str,
        subscription: Subscription,
    ) {
        self.filters.add(filter);
        match topic::parse_filter(filter) {
            Some(Wanted::Share(shared)) => self.join_group(key, shared, subscription),
            Some(Wanted::All(filter)) => {
                if self.subscribers.insert(filter, key, subscription) == Inserted::NewFilter {
                    self.shared.add_route(filter, self.id);
                }
                self.shared.kept_routes.add(filter, self.id);
            }
            None => {}
        }
    }

    /// Finds the number that the group of a message has in this process.
    pub(super) fn find_group(&self, message: &mut RestoredMessage) {
        if let (Some((_message, grant)), Some((group, filter))) =
            (&mut message.content, &message.group)
        {
            grant.share = self.shared.shares.find(SharedFilter { group, filter });
        }
    }
}
