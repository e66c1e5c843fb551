//! Listings of what a shard has, a piece at a time.
//!
//! Rows come in the order of their keys, and a piece says how far it has come: the next one goes on
//! there. What is added or taken away between two pieces is listed or not, as its key lies ahead or
//! behind.

use std::{ops::Bound, time::Instant};

use super::{Entry, Query, Selection, Shard};
use crate::{
    codec::packet::Version,
    control::view::{ClientView, SessionView, SubscriptionView, TopicView},
    message::Qos,
    session::Subscription,
    topic::{self, Wanted},
};

/// How many sessions or subscriptions one piece looks at: some tens of microseconds.
const LOOKS: usize = 512;

/// How many bytes of client ids and filters one piece holds, and one row more: each may be 64 KB.
const PIECE_BYTES: usize = 256 * 1024;

/// Some rows of a listing.
#[derive(Debug)]
pub(crate) struct Piece<T> {
    pub(crate) rows: Vec<T>,
    /// The key that the piece has come to; `None` if there is nothing behind it.
    pub(crate) reached: Option<Box<str>>,
}

impl Shard {
    pub(super) fn clients(&self, query: &Query, now: Instant) -> Piece<ClientView> {
        self.rows(query, now, |id, entry| client_view(id, entry, now))
    }

    /// Sessions with and without a connection.
    pub(super) fn kept_sessions(&self, query: &Query, now: Instant) -> Piece<SessionView> {
        self.rows(query, now, |id, entry| Some(session_view(id, entry, now)))
    }

    /// One row a session at most.
    fn rows<T>(
        &self,
        query: &Query,
        now: Instant,
        row: impl Fn(&str, &Entry) -> Option<T>,
    ) -> Piece<T> {
        let mut walk = Walk::new(query.limit);
        let after = query.after.as_deref();
        for (client_id, entry) in self.sessions.range(start(after, query.filter.first())) {
            if !query.filter.admits(client_id) {
                break;
            }
            if walk.is_over() {
                return walk.pause();
            }
            // One that has left is on another node's list.
            let wanted = !entry.is_leaving() && (!query.filter.slow || entry.is_slow(now));
            let row = wanted.then(|| row(client_id, entry)).flatten();
            walk.look((client_id, None), row);
        }
        walk.end()
    }

    pub(super) fn subscriptions(&self, query: &Query) -> Piece<SubscriptionView> {
        let mut walk = Walk::new(query.limit);
        let after = query.after.as_deref().map(SubscriptionView::split_key);
        // The session of the last row may have more.
        let from = match after {
            Some((client_id, Some(_filter))) => Bound::Included(client_id),
            Some((client_id, None)) => Bound::Excluded(client_id),
            None => start(None, query.filter.first()),
        };
        for (client_id, entry) in self.sessions.range(from) {
            if !query.filter.admits(client_id) {
                break;
            }
            let resumed = after.and_then(|(id, filter)| filter.filter(|_filter| id == client_id));
            for (filter, subscription) in entry.session.subscriptions_after(resumed) {
                if walk.is_over() {
                    return walk.pause();
                }
                let view = || subscription_view(client_id, filter, subscription);
                let is_wanted = query.filter.takes(filter) && !entry.is_leaving();
                let row = is_wanted.then(view);
                walk.look((client_id, Some(filter)), row);
            }
            // A session without subscriptions is a look, too.
            if walk.is_over() {
                return walk.pause();
            }
            walk.look((client_id, None), None);
        }
        walk.end()
    }

    /// Filters, with how many sessions have each.
    pub(super) fn topics(&self, query: &Query) -> Piece<TopicView> {
        let mut walk = Walk::new(query.limit);
        let prefix = &*query.filter.prefix;
        for (filter, count) in self.filters.range(start(query.after.as_deref(), prefix)) {
            if !filter.starts_with(prefix) {
                break;
            }
            if walk.is_over() {
                return walk.pause();
            }
            let view = TopicView {
                filter: filter.to_owned(),
                subscribers: count as u64,
            };
            walk.look((filter, None), Some(view));
        }
        walk.end()
    }
}

/// A piece in the making.
struct Walk<'a, T> {
    rows: Vec<T>,
    limit: usize,
    looks_left: usize,
    /// Of the rows' keys: those may be long.
    bytes: usize,
    last: Option<(&'a str, Option<&'a str>)>,
}

impl<'a, T> Walk<'a, T> {
    fn new(limit: usize) -> Self {
        Self {
            rows: Vec::new(),
            limit,
            looks_left: LOOKS,
            bytes: 0,
            last: None,
        }
    }

    fn is_over(&self) -> bool {
        self.looks_left == 0 || self.rows.len() >= self.limit || self.bytes >= PIECE_BYTES
    }

    /// Looks at a client's session, or at one of its filters.
    fn look(&mut self, key: (&'a str, Option<&'a str>), row: Option<T>) {
        self.looks_left -= 1;
        self.last = Some(key);
        if let Some(row) = row {
            self.bytes += key.0.len() + key.1.map_or(0, str::len);
            self.rows.push(row);
        }
    }

    fn pause(self) -> Piece<T> {
        Piece {
            rows: self.rows,
            reached: self.last.map(|(client_id, filter)| match filter {
                Some(filter) => SubscriptionView::key_of(client_id, filter).into(),
                None => client_id.into(),
            }),
        }
    }

    fn end(self) -> Piece<T> {
        Piece {
            rows: self.rows,
            reached: None,
        }
    }
}

/// Where a listing by client id, or by filter, begins.
fn start<'a>(after: Option<&'a str>, first: &'a str) -> Bound<&'a str> {
    match after {
        Some(after) if after >= first => Bound::Excluded(after),
        Some(_) | None => Bound::Included(first),
    }
}

impl Selection {
    /// The client id that none comes before.
    fn first(&self) -> &str {
        self.client.as_deref().unwrap_or(&self.prefix)
    }

    /// Whether a client's rows can be wanted; of those behind one whose cannot, none are.
    fn admits(&self, client_id: &str) -> bool {
        let is_it = |wanted: &str| wanted == client_id;
        client_id.starts_with(&*self.prefix) && self.client.as_deref().is_none_or(is_it)
    }

    fn takes(&self, filter: &str) -> bool {
        let is_it = |wanted: &str| wanted == filter;
        let matches = |name: &str| match topic::parse_filter(filter) {
            Some(Wanted::Share(shared)) => topic::matches(shared.filter, name),
            Some(Wanted::All(filter)) => topic::matches(filter, name),
            None => false,
        };
        self.filter.as_deref().is_none_or(is_it) && self.topic.as_deref().is_none_or(matches)
    }
}

fn client_view(client_id: &str, entry: &Entry, now: Instant) -> Option<ClientView> {
    let link = entry.link.as_ref()?;
    let (opening, traffic) = (link.opening(), link.traffic());
    Some(ClientView {
        client_id: client_id.to_owned(),
        address: link.peer().address.to_string(),
        user: entry.owner.user().map(str::to_owned),
        certificate: link.peer().common_name().map(str::to_owned),
        version: match link.version() {
            Version::V31 => "3.1",
            Version::V311 => "3.1.1",
            Version::V5 => "5",
        }
        .into(),
        keep_alive_seconds: opening.keep_alive,
        clean_start: opening.clean_start,
        connected_seconds: now.saturating_duration_since(opening.at).as_secs(),
        subscriptions: entry.session.subscription_count(),
        queued: entry.session.queue_len(),
        inflight: entry.session.inflight_len(),
        unsent_bytes: link.output_len(),
        messages_in: traffic.messages_in.get(),
        messages_out: traffic.messages_out.get(),
        bytes_in: traffic.bytes_in.get(),
        bytes_out: traffic.bytes_out.get(),
        dropped_messages: entry.losses.as_ref().map_or(0, |losses| losses.messages),
        dropped_bytes: entry.losses.as_ref().map_or(0, |losses| losses.bytes),
        slow: entry.is_slow(now),
    })
}

fn session_view(client_id: &str, entry: &Entry, now: Instant) -> SessionView {
    let left = |ends: Instant| ends.saturating_duration_since(now).as_secs();
    let is_absent = entry.link.is_none();
    SessionView {
        client_id: client_id.to_owned(),
        connected: !is_absent,
        expiry_seconds: entry.session.expiry().as_secs(),
        ends_in_seconds: entry.session.ends().filter(|_| is_absent).map(left),
        subscriptions: entry.session.subscription_count(),
        queued: entry.session.queue_len(),
        inflight: entry.session.inflight_len(),
        dropped_messages: entry.losses.as_ref().map_or(0, |losses| losses.messages),
    }
}

fn subscription_view(
    client_id: &str,
    filter: &str,
    subscription: &Subscription,
) -> SubscriptionView {
    let Subscription {
        qos,
        no_local,
        retain_as_published,
        id,
    } = *subscription;
    SubscriptionView {
        client_id: client_id.to_owned(),
        filter: filter.to_owned(),
        qos: match qos {
            Qos::AtMostOnce => 0,
            Qos::AtLeastOnce => 1,
            Qos::ExactlyOnce => 2,
        },
        no_local,
        retain_as_published,
        subscription_id: id,
    }
}
