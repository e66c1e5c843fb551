//! What a node knows of another one.

use std::{
    net::{IpAddr, SocketAddr},
    time::{Duration, Instant},
};

use bytes::Bytes;
use thiserror::Error;

use super::{
    core::{LinkId, Mutant},
    pair::{Incoming, Outgoing, Token},
    promises::{Owed, Promised},
    routes::{Remote, Table},
    sized,
    telling::Telling,
    view::Tally,
    wire::Item,
};
use crate::{
    replica::word::{self, Fate},
    retained::{Buckets, Sums},
};

/// Bytes of a copy, of filters or retained messages, that may wait for a peer.
const COPY_ROOM: usize = sized(512 * 1024);

/// Bytes of those and of changes that may wait. A peer that does not keep up with changes is sent a copy
/// of what they have come to, so that what waits for it is bounded. Well above the room for a copy:
/// changes go between its pages, and if they found no room it would begin anew.
pub(super) const CHANGE_ROOM: usize = 4 * COPY_ROOM;

/// Bytes that wait for a peer before no more is taken for it: publishers then wait until it takes some,
/// or is held for gone.
pub(super) const FULL: usize = sized(64 * 1024 * 1024);

/// As [`FULL`], for what it has taken and not made safe.
const UNSAFE_FULL: usize = 64 * 1024 * 1024;

/// How old what is read from a lane may be, and more; at least, and in leases.
const STALE: (Duration, u32) = (Duration::from_secs(20), 10);

/// Why a node is held for gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub(crate) enum Loss {
    #[error("it was silent for too long")]
    Silent,
    #[error("it takes no messages")]
    Stuck,
    #[error("it has started again")]
    Restarted,
    #[error("it has stopped")]
    Farewell,
    #[error("it has left the cluster")]
    Parted,
    #[error("its view of what was sent differs")]
    OutOfStep,
    #[error("this node has left the cluster")]
    Left,
    #[error("this node has not taken in what it has passed on")]
    Choked,
}

impl Loss {
    /// What becomes of the copies of the lost node's sessions.
    pub(super) fn fate(self) -> Fate {
        match self {
            // Its sessions go on without this node.
            Self::Left | Self::Parted => Fate::Dropped,
            Self::Choked => Fate::Apart,
            Self::Silent | Self::Stuck | Self::Restarted | Self::Farewell | Self::OutOfStep => {
                Fate::Promoted
            }
        }
    }
}

/// How a node is with regard to another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Standing {
    /// It has never been there yet.
    Joining,
    Alive,
    Gone(Loss),
}

#[derive(Debug)]
pub(super) struct Peer {
    /// Its place among the destinations of this node's shards.
    pub(super) slot: u16,
    pub(super) incarnation: u64,
    /// How long it waits for who is silent.
    pub(super) lease: Duration,
    pub(super) host: IpAddr,
    pub(super) port: u16,
    pub(super) link: Option<LinkId>,
    pub(super) standing: Standing,
    /// Since when it stands so.
    pub(super) since: Instant,
    pub(super) heard: Instant,
    /// When it last took something, or there was nothing to take.
    pub(super) progress: Instant,
    /// Another number whenever one of the two has lost the other: what each had said of copies of its
    /// sessions is void then.
    pub(super) life: u64,
    /// Since when it is this number.
    born: Instant,
    pub(super) out: Outgoing,
    pub(super) inc: Incoming,
    pub(super) promised: Promised,
    pub(super) owed: Owed,
    pub(super) routes: Remote,
    /// What it has said of itself last.
    pub(super) tally: Option<Tally>,
    /// It waits for retained messages itself.
    pub(super) began_with_nothing: bool,
    copy: Copy,
    /// What is to follow the copy.
    behind_copy: Vec<Bytes>,
    pub(super) telling: Telling,
    /// The version of this node's filters that it has; `None` until it has a copy of them.
    knows: Option<u64>,
}

/// How far a copy of this node's filters was put into the stream.
#[derive(Debug)]
enum Copy {
    Behind(Option<Box<str>>),
    Done,
}

impl Peer {
    pub(super) fn new(slot: u16, incarnation: u64, stream: u64, now: Instant) -> Self {
        Self {
            slot,
            incarnation,
            lease: Duration::ZERO,
            host: IpAddr::from([0, 0, 0, 0]),
            port: 0,
            link: None,
            standing: Standing::Joining,
            since: now,
            heard: now,
            progress: now,
            life: stream,
            born: now,
            out: Outgoing::new(stream),
            inc: Incoming::default(),
            promised: Promised::default(),
            owed: Owed::default(),
            routes: Remote::default(),
            tally: None,
            began_with_nothing: false,
            copy: Copy::Behind(None),
            behind_copy: Vec::new(),
            telling: Telling::default(),
            knows: None,
        }
    }

    pub(super) fn address(&self) -> SocketAddr {
        SocketAddr::new(self.host, self.port)
    }

    pub(super) fn is_alive(&self) -> bool {
        self.standing == Standing::Alive
    }

    /// Whether it is gone for this node alone, and has its sessions still.
    pub(super) fn is_elsewhere(&self) -> bool {
        matches!(self.standing, Standing::Gone(loss) if loss.fate() != Fate::Promoted)
    }

    pub(super) fn set_standing(&mut self, standing: Standing, now: Instant) {
        self.standing = standing;
        self.since = now;
    }

    /// Whether another node may have its place.
    pub(super) fn is_replaceable(&self) -> bool {
        !self.is_alive() && self.link.is_none()
    }

    /// Forgets all of a run of the node that is over.
    pub(super) fn forget_run(&mut self, incarnation: u64) {
        self.incarnation = incarnation;
        self.inc.forget();
        self.routes = Remote::default();
        self.tally = None;
    }

    pub(super) fn begin_life(&mut self, life: u64, now: Instant) {
        self.life = life;
        self.born = now;
    }

    /// Ends the stream to it; the result is what it has not taken.
    pub(super) fn restart_stream(&mut self, stream: u64) -> Vec<Token> {
        self.copy = Copy::Behind(None);
        self.behind_copy.clear();
        self.telling = Telling::default();
        self.knows = None;
        self.out.restart(stream)
    }

    /// What of a frame's messages is for it as it is: the frame may have been made when its place was
    /// another node's, or before it was lost.
    pub(super) fn without_stale(&self, messages: Bytes, lease: Duration, now: Instant) -> Bytes {
        let (least, leases) = STALE;
        if now.saturating_duration_since(self.since.max(self.born)) < least.max(leases * lease) {
            word::without_stale(messages, self.life, now)
        } else {
            messages
        }
    }

    /// Whether so much waits for it that no more should be taken.
    pub(super) fn is_full(&self) -> bool {
        self.out.bytes() > FULL || self.promised.bytes() > UNSAFE_FULL
    }

    /// Whether it has gone so far without taking anything.
    pub(super) fn is_stuck(&self, patience: Duration, now: Instant) -> bool {
        self.out.is_waiting() && now.saturating_duration_since(self.progress) > patience
    }

    /// How long it has not taken what there is for it.
    pub(super) fn lag(&self, now: Instant) -> Duration {
        if self.is_alive() && self.out.is_waiting() {
            now.saturating_duration_since(self.progress)
        } else {
            Duration::ZERO
        }
    }

    /// Tells it changes of the filters, an item each, or of so many that they are `None`.
    pub(super) fn push_changes(&mut self, changes: Option<&[Bytes]>, version: u64) {
        // What is not copied yet will be copied with the changes.
        if matches!(self.copy, Copy::Behind(None)) || changes.is_some_and(<[Bytes]>::is_empty) {
            return;
        }
        let has_room = self.out.told_bytes() < CHANGE_ROOM;
        let Some(changes) = changes.filter(|_changes| has_room) else {
            if !Mutant::DropsChanges.is_on() {
                self.copy = Copy::Behind(None);
            }
            return;
        };
        for (index, item) in changes.iter().enumerate() {
            // Before a copy is whole, the last change does not make it so.
            let is_all = matches!(self.copy, Copy::Done) && index + 1 == changes.len();
            let token = if is_all {
                Token::Routes(version)
            } else {
                Token::None
            };
            self.out.push_told(item, token);
            if Mutant::KnowsEarly.is_on() {
                self.note_known(token);
            }
        }
    }

    /// Goes on with the copy of the filters, as far as there is room.
    pub(super) fn push_pages(&mut self, table: &Table) {
        while let Copy::Behind(after) = &self.copy
            && self.out.told_bytes() < COPY_ROOM
        {
            let page = table.page(after.as_deref());
            let (next, token) = if page.is_last {
                (Copy::Done, Token::Synced(table.version()))
            } else {
                let last = page.filters.last();
                let last = last.map(|(filter, _room)| filter.clone());
                (Copy::Behind(last), Token::None)
            };
            self.copy = next;
            self.out.push(&Item::Page(page), token);
        }
        self.push_what_follows();
    }

    /// Puts messages into the stream behind all filters that this node has.
    pub(super) fn push_behind_filters(&mut self, messages: Bytes) {
        self.behind_copy.push(messages);
        self.push_what_follows();
    }

    fn push_what_follows(&mut self) {
        if matches!(self.copy, Copy::Done) {
            for messages in std::mem::take(&mut self.behind_copy) {
                self.out.push(&Item::Messages(messages), Token::None);
            }
        }
    }

    /// Whether there is room for a copy behind that of the filters.
    fn has_copy_room(&self) -> bool {
        self.out.told_bytes() < COPY_ROOM && matches!(self.copy, Copy::Done)
    }

    /// Whether the sums of what is retained are to be read, for [`Peer::push_sums`].
    pub(super) fn poll_sums(&mut self, now: Instant) -> bool {
        self.has_copy_room() && self.telling.poll_sums(now)
    }

    pub(super) fn push_sums(&mut self, sums: &Sums) {
        if let Some(turn) = self.telling.handle_sums() {
            self.out.push(&Item::Sums(turn, sums.clone()), Token::None);
        }
    }

    /// Says where all is told that was to be, without reading anything.
    pub(super) fn push_ends(&mut self) {
        while self.has_copy_room() && self.telling.poll_end() {
            let item = Item::Retained {
                messages: Bytes::new(),
                is_last: true,
            };
            self.out.push(&item, Token::None);
        }
    }

    /// Which page of retained messages is to be read, for [`Peer::push_retained`].
    pub(super) fn poll_retained(&mut self) -> Option<(Buckets, Option<Box<str>>)> {
        self.has_copy_room().then(|| self.telling.poll_page())?
    }

    /// Puts a page of retained messages into the stream; `next` is where the next one begins.
    pub(super) fn push_retained(&mut self, messages: Bytes, next: Option<Box<str>>) {
        let is_last = next.is_none();
        // The stream may be another one than that for which the page was read.
        if self.telling.handle_page(next) && (is_last || !messages.is_empty()) {
            let item = Item::Retained { messages, is_last };
            self.out.push(&item, Token::None);
        }
    }

    /// Takes note of what it knows of this node's filters.
    pub(super) fn note_known(&mut self, token: Token) {
        match token {
            Token::Routes(version) | Token::Synced(version) => {
                self.knows = self.knows.max(Some(version));
            }
            Token::Frame(_) | Token::None => {}
        }
    }

    pub(super) fn known(&self) -> u64 {
        self.knows.unwrap_or(0)
    }

    /// Whether it has all of this node's filters.
    pub(super) fn is_synced(&self) -> bool {
        self.knows.is_some()
    }
}
