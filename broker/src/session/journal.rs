//! What a session that is to outlive its process notes of itself.
//!
//! No I/O: each change goes into a list, in the order in which things happened, and the shard hands
//! the list to the store. What a client is told of a change may leave once the store has it.

use std::{
    cell::{Cell, RefCell},
    rc::Rc,
    sync::Arc,
    task::{Context, Poll, Waker},
    time::{Duration, Instant},
};

use super::{Grant, Subscription};
use crate::{
    access::Grants,
    codec::packet::{PacketId, Will},
    message::Message,
    routes::ShardId,
};

/// What one change is taken for in the list's size, without what it holds.
const CHANGE_BYTES: usize = 128;

/// A session's number; never given twice in the life of a store.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SessionId(pub u64);

impl SessionId {
    /// Of sessions that end with their connections. Only their wills are noted, for other nodes.
    pub const BRIEF: u64 = 1 << 63;

    pub fn is_brief(self) -> bool {
        self.0 & Self::BRIEF != 0
    }
}

/// A message's number in its session: higher is later.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Seq(pub u64);

/// Whose a session is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Profile {
    pub client_id: Arc<str>,
    pub user: Option<Arc<str>>,
    /// The broker has given the client id.
    pub is_assigned: bool,
    /// What the client may do by its last login, where that says so.
    pub grants: Option<Arc<Grants>>,
    pub since: Since,
}

impl Profile {
    pub(super) fn held_bytes(&self) -> usize {
        let grants = self.grants.iter().flat_map(|grants| grants.filters());
        let grants = grants.flatten().map(|filter| filter.len());
        let user = self.user.as_ref();
        self.client_id.len() + user.map_or(0, |user| user.len()) + grants.sum::<usize>()
    }
}

/// Since when a session is as it is, by the cluster's clock; zeros where there is none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Since {
    /// Its client has connected.
    pub connected: u64,
    /// The client has wanted no older session.
    pub begun: u64,
}

/// All of a session but its subscriptions and messages.
///
/// One whose expiry is zero is an estate: its session is over, or was its client's will alone, and
/// what is noted in its name is for others until they have it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct State {
    pub profile: Arc<Profile>,
    pub expiry: Duration,
    /// Absent while its client is connected.
    pub ends: Option<Instant>,
    pub will: Option<Will>,
    pub will_due: Option<Instant>,
}

impl State {
    /// What is noted of a session that is over, or of a will that is due.
    pub fn estate(profile: Profile, will: Option<Arc<Message>>) -> Self {
        let will = will.map(|message| Will {
            message,
            expiry: None,
            delay: 0,
        });
        Self {
            profile: Arc::new(profile),
            expiry: Duration::ZERO,
            ends: None,
            will,
            will_due: None,
        }
    }
}

/// How far a message of QoS 1 or 2 is on its way to the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    Waiting,
    /// PUBLISH sent.
    Published(PacketId),
    /// PUBREL sent.
    Released(PacketId),
}

/// How far a QoS 2 message of the client's has got.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Spread {
    /// Its own shard has it, and others may or may not.
    Begun,
    /// As [`Spread::Begun`], when the node had another number of shards: whose sessions have it is
    /// not known.
    Unplaced,
    /// Everybody has it.
    Done,
}

/// A QoS 2 message of a kept session's, as it is known to shards that it is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Origin {
    pub session: SessionId,
    pub id: PacketId,
}

/// What a session notes.
#[derive(Debug, PartialEq, Eq)]
pub enum Change {
    State(State),
    Subscribed(Box<str>, Subscription),
    Unsubscribed(Box<str>),
    /// A message is the session's.
    Taken {
        seq: Seq,
        message: Arc<Message>,
        grant: Grant,
        progress: Progress,
    },
    /// One that waited is on its way.
    Published {
        seq: Seq,
        message: Arc<Message>,
        grant: Grant,
        id: PacketId,
    },
    /// The client has it; the message itself is not needed any more.
    Released {
        seq: Seq,
        id: PacketId,
        /// If it was still there.
        message: Option<Arc<Message>>,
    },
    /// The message is the session's no longer; it is there if it was still needed.
    Done {
        seq: Seq,
        message: Option<Arc<Message>>,
    },
    /// A QoS 2 message of the client's awaits its PUBREL.
    Received(PacketId, Spread),
    /// Another shard has taken it into its sessions.
    Spread(PacketId, ShardId),
    Completed(PacketId),
    Ended(Remains),
}

/// What there was of a session that has ended.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Remains {
    pub filters: Vec<Box<str>>,
    pub messages: Vec<(Seq, Option<Arc<Message>>)>,
    pub received: Vec<PacketId>,
}

/// The changes of all kept sessions of a shard, in order.
#[derive(Clone, Debug, Default)]
pub struct Journal(Rc<Pages>);

#[derive(Debug, Default)]
struct Pages {
    changes: RefCell<Vec<(SessionId, Change)>>,
    bytes: Cell<usize>,
    total: Cell<u64>,
    wanted: Cell<bool>,
    reader: RefCell<Option<Waker>>,
}

impl Journal {
    pub fn note(&self, session: SessionId, change: Change) {
        let Pages { bytes, .. } = &*self.0;
        bytes.set(bytes.get() + CHANGE_BYTES + change.held_bytes());
        self.0.changes.borrow_mut().push((session, change));
        self.touch();
    }

    /// Has the list taken soon, even if there is nothing in it: something was changed that is noted
    /// elsewhere, or somebody waits to hear that all before is stored.
    pub fn touch(&self) {
        let Pages { total, wanted, .. } = &*self.0;
        total.set(total.get() + 1);
        if !wanted.replace(true)
            && let Some(reader) = self.0.reader.borrow_mut().take()
        {
            reader.wake();
        }
    }

    /// How many changes there ever were.
    pub fn total(&self) -> u64 {
        self.0.total.get()
    }

    /// Whether the list is to be taken.
    pub fn is_wanted(&self) -> bool {
        self.0.wanted.get()
    }

    /// About how much memory the list holds.
    pub fn bytes(&self) -> usize {
        self.0.bytes.get()
    }

    /// Takes the list, if it is to be taken.
    pub fn take(&self) -> Option<Vec<(SessionId, Change)>> {
        if !self.0.wanted.replace(false) {
            return None;
        }
        self.0.bytes.set(0);
        Some(self.0.changes.take())
    }

    /// Waits until the list is to be taken.
    pub fn poll_wanted(&self, context: &Context<'_>) -> Poll<()> {
        if self.is_wanted() {
            return Poll::Ready(());
        }
        *self.0.reader.borrow_mut() = Some(context.waker().clone());
        Poll::Pending
    }
}

impl Change {
    /// Whether it notes an estate; briefly kept sessions have no other expiry.
    pub fn is_estate(&self) -> bool {
        matches!(self, Self::State(state) if state.expiry.is_zero())
    }

    /// Bytes that may be held for this change alone, and that a client may have change as often as it
    /// likes.
    fn held_bytes(&self) -> usize {
        match self {
            Self::Taken { message, .. } => message.size(),
            Self::Released { message, .. } | Self::Done { message, .. } => {
                message.as_ref().map_or(0, |message| message.size())
            }
            Self::Ended(Remains {
                filters,
                messages,
                received: _,
            }) => {
                let messages = messages
                    .iter()
                    .filter_map(|(_seq, message)| message.as_ref());
                let filters = filters.iter().map(|filter| filter.len());
                filters.sum::<usize>() + messages.map(|message| message.size()).sum::<usize>()
            }
            Self::State(state) => {
                let will = state.will.as_ref();
                state.profile.held_bytes() + will.map_or(0, |will| will.message.size())
            }
            Self::Subscribed(filter, _) | Self::Unsubscribed(filter) => filter.len(),
            // The session holds the message for as long as it is on its way.
            Self::Published { .. } | Self::Received(..) | Self::Spread(..) | Self::Completed(_) => {
                0
            }
        }
    }
}

/// One session's way into the list; does nothing for a session that is not kept.
#[derive(Clone, Debug, Default)]
pub(super) struct Record(Option<Kept>);

#[derive(Clone, Debug)]
struct Kept {
    journal: Journal,
    session: SessionId,
    profile: Arc<Profile>,
    last: Seq,
    /// The last one of a message that others are to go before.
    held: Seq,
}

/// So many may go before those that are held.
const AHEAD: u64 = 1 << 32;

impl Record {
    pub(super) fn of(journal: Journal, session: SessionId, profile: Profile) -> Self {
        Self(Some(Kept {
            journal,
            session,
            profile: Arc::new(profile),
            last: Seq(0),
            held: Seq(0),
        }))
    }

    /// The number of a kept session.
    pub(super) fn session(&self) -> Option<SessionId> {
        self.number().filter(|session| !session.is_brief())
    }

    /// The number, also of one that is noted for its will alone.
    pub(super) fn number(&self) -> Option<SessionId> {
        self.0.as_ref().map(|kept| kept.session)
    }

    pub(super) fn is_kept(&self) -> bool {
        self.session().is_some()
    }

    pub(super) fn set_profile(&mut self, profile: Profile) {
        if let Some(kept) = &mut self.0
            && *kept.profile != profile
        {
            kept.profile = Arc::new(profile);
        }
    }

    pub(super) fn profile(&self) -> Option<&Arc<Profile>> {
        self.0.as_ref().map(|kept| &kept.profile)
    }

    /// The number of the next message.
    pub(super) fn next_seq(&mut self) -> Seq {
        let Some(kept) = &mut self.0 else {
            return Seq(0);
        };
        kept.last.0 += 1;
        kept.last
    }

    /// The number of a message that others go before which are not there yet.
    pub(super) fn next_held_seq(&mut self) -> Seq {
        let Some(kept) = &mut self.0 else {
            return Seq(0);
        };
        if kept.held <= kept.last {
            kept.held = Seq(kept.last.0 + AHEAD);
        }
        kept.held.0 += 1;
        kept.held
    }

    /// What comes from now on comes behind what was held.
    pub(super) fn end_hold(&mut self) {
        if let Some(kept) = &mut self.0 {
            kept.last = kept.last.max(kept.held);
        }
    }

    /// Places up to this one are taken.
    pub(super) fn skip_to(&mut self, seq: Seq) {
        if let Some(kept) = &mut self.0 {
            kept.last = kept.last.max(seq);
        }
    }

    pub(super) fn note(&self, change: impl FnOnce() -> Change) {
        if let Some(kept) = &self.0 {
            let change = change();
            let is_brief = matches!(change, Change::State(_) | Change::Ended(_));
            if is_brief || !kept.session.is_brief() {
                kept.journal.note(kept.session, change);
            }
        }
    }

    /// Notes nothing from then on.
    pub(super) fn close(&mut self, remains: Remains) {
        self.note(|| Change::Ended(remains));
        self.0 = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::{MessageId, Qos};

    #[test]
    fn what_a_client_may_repeat_is_counted_with_what_it_holds() {
        let filter: Box<str> = "f".repeat(60_000).into();
        let message = Arc::new(Message {
            topic: "t".into(),
            payload: vec![0; 50_000].into(),
            properties: vec![0; 10_000].into(),
            qos: Qos::AtMostOnce,
            retain: false,
            expires: None,
            id: MessageId::NONE,
        });
        let will = Will {
            message: Arc::clone(&message),
            expiry: None,
            delay: 0,
        };
        let state = |client_id: String, user: Option<String>, will| State {
            profile: Arc::new(Profile {
                client_id: client_id.into(),
                user: user.map(Into::into),
                is_assigned: false,
                grants: None,
                since: Since::default(),
            }),
            expiry: Duration::ZERO,
            ends: None,
            will,
            will_due: None,
        };
        let long = || "c".repeat(60_001);
        let subscription = Subscription {
            qos: Qos::AtMostOnce,
            no_local: false,
            retain_as_published: false,
            id: None,
        };
        let changes = [
            Change::State(state("c".into(), None, Some(will))),
            Change::State(state(long(), None, None)),
            Change::State(state("c".into(), Some(long()), None)),
            Change::Subscribed(filter.clone(), subscription),
            Change::Unsubscribed(filter.clone()),
            Change::Released {
                seq: Seq(1),
                id: PacketId::MIN,
                message: Some(Arc::clone(&message)),
            },
            Change::Done {
                seq: Seq(1),
                message: Some(Arc::clone(&message)),
            },
            Change::Ended(Remains {
                filters: vec![filter],
                ..Remains::default()
            }),
            Change::Ended(Remains {
                messages: vec![(Seq(1), Some(message))],
                ..Remains::default()
            }),
        ];
        for change in changes {
            let journal = Journal::default();
            journal.note(SessionId(1), change);
            assert!(journal.bytes() > 60_000, "{}", journal.bytes());
        }
    }
}
