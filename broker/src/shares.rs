//! Shared subscriptions: which member of a group gets a message (MQTT 5, 4.8.2).
//!
//! Groups are the node's, with members on all of its shards. The shard of the publisher chooses
//! the member and addresses the message to its seat, so that each message is balanced over all
//! members once, wherever they are. Between nodes it is the same in two steps: a node with members
//! is chosen first (`rooms`), and that node chooses among its own. What nodes know of each other's
//! members is a little old, so a node that has nobody for a message hands it on, a few times at most.

mod group;
mod rooms;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    ops::Bound,
    sync::{
        Arc, PoisonError, RwLock,
        atomic::{AtomicBool, AtomicU8, AtomicUsize, Ordering},
    },
};

use group::{Choice, Group, LOOKED_AT, MOST_LOOKED_AT, Member};
use rooms::Way;
pub use rooms::{Avoided, HANDED_ON, LEFT, Room};

use crate::{
    message::Qos,
    replica::hash_of,
    routes::ShardId,
    topic::{self, SharedFilter},
    trie::{Inserted, Trie},
};

/// Groups and members that one look at what they can take has time for. The next one goes on there.
const LOOK: usize = 20_000;

/// A group and its filter. Never given twice in the life of a node. Other nodes know it by its tag.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ShareId(pub u64);

/// One session's membership in a group, or that of a whole node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seat {
    /// Where it is a node's, the group's tag: numbers are of one process.
    pub share: ShareId,
    /// The session's number in its shard.
    pub session: u32,
    /// From how many nodes to others the message has come, and maybe [`LEFT`].
    pub hops: u8,
}

impl Seat {
    /// What a session's number is where no session is meant.
    pub const NOBODY: u32 = u32::MAX;
}

/// How much a session can take. The order is that of preference.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Appetite {
    /// Connected, and nothing waits for it.
    Ready,
    /// Connected, with a queue before it.
    Busy,
    /// Not connected: what is to be kept waits for it.
    Away,
    /// Its queue takes nothing more.
    Full,
}

/// A session's appetite, told by its shard and read by all.
#[derive(Debug)]
pub struct Presence {
    appetite: AtomicU8,
    /// What it is given has to be stored.
    is_kept: AtomicBool,
}

/// All groups of a node.
#[derive(Debug, Default)]
pub struct Shares {
    /// How many groups there are: most messages need not ask further.
    groups: AtomicUsize,
    /// Own members get what is published here, as long as they can.
    prefers_own: bool,
    book: RwLock<Book>,
}

#[derive(Debug, Default)]
struct Book {
    last: u64,
    by_name: HashMap<Name, ShareId>,
    /// Two may have one tag, though that is most unlikely.
    by_tag: BTreeSet<(u64, ShareId)>,
    names: BTreeMap<ShareId, Name>,
    by_filter: Trie<ShareId, ()>,
    groups: HashMap<ShareId, Group>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Name {
    group: Box<str>,
    filter: Box<str>,
}

impl Presence {
    pub fn new(appetite: Appetite) -> Arc<Self> {
        Arc::new(Self {
            appetite: AtomicU8::new(appetite as u8),
            is_kept: AtomicBool::new(false),
        })
    }

    pub fn set(&self, appetite: Appetite) {
        self.appetite.store(appetite as u8, Ordering::Release);
    }

    pub fn set_kept(&self, is_kept: bool) {
        self.is_kept.store(is_kept, Ordering::Release);
    }

    fn get(&self) -> Appetite {
        match self.appetite.load(Ordering::Acquire) {
            0 => Appetite::Ready,
            1 => Appetite::Busy,
            2 => Appetite::Away,
            _ => Appetite::Full,
        }
    }
}

impl Shares {
    /// Without groups; `prefers_own` is whether a node's own members come before those of others.
    pub fn new(prefers_own: bool) -> Self {
        Self {
            prefers_own,
            ..Self::default()
        }
    }

    /// Gives a session a seat, or changes what it takes.
    pub fn join(
        &self,
        shared: SharedFilter<'_>,
        shard: ShardId,
        session: u32,
        qos: Qos,
        presence: &Arc<Presence>,
    ) -> ShareId {
        let mut book = self.book.write().unwrap_or_else(PoisonError::into_inner);
        let share = book.find_or_open(shared);
        let member = Member::new(shard, session, qos, presence);
        if let Some(group) = book.groups.get_mut(&share) {
            group.join(member);
        }
        self.groups.store(book.groups.len(), Ordering::Release);
        share
    }

    /// Takes a session's seat away, if it has one; the group ends with its last member.
    pub fn leave(&self, shared: SharedFilter<'_>, shard: ShardId, session: u32) -> Option<ShareId> {
        let mut book = self.book.write().unwrap_or_else(PoisonError::into_inner);
        let name = Name::from(shared);
        let share = *book.by_name.get(&name)?;
        let was_seated = book.groups.get_mut(&share)?.leave((shard, session));
        book.close_if_empty(share, &name);
        self.groups.store(book.groups.len(), Ordering::Release);
        was_seated.then_some(share)
    }

    /// Takes note of what the members on another node can take; `None` when it has none.
    pub fn set_room(&self, shared: SharedFilter<'_>, node: ShardId, room: Option<Room>) {
        let mut book = self.book.write().unwrap_or_else(PoisonError::into_inner);
        let name = Name::from(shared);
        match room {
            Some(room) => {
                let share = book.find_or_open(shared);
                if let Some(group) = book.groups.get_mut(&share) {
                    group.others.insert(node, room);
                }
            }
            None => {
                let Some(share) = book.by_name.get(&name).copied() else {
                    return;
                };
                if let Some(group) = book.groups.get_mut(&share) {
                    group.others.remove(&node);
                }
                book.close_if_empty(share, &name);
            }
        }
        self.groups.store(book.groups.len(), Ordering::Release);
    }

    /// Takes note that a node with members is lost: what nobody else can take waits for who has its
    /// sessions then.
    pub fn lose_room(&self, shared: SharedFilter<'_>, node: ShardId) {
        let mut book = self.book.write().unwrap_or_else(PoisonError::into_inner);
        let share = book.by_name.get(&Name::from(shared)).copied();
        let group = share.and_then(|share| book.groups.get_mut(&share));
        if let Some(room) = group.and_then(|group| group.others.get_mut(&node)) {
            *room = room.lost();
        }
    }

    /// What the members on this node can take; `None` when it has none.
    pub fn room(&self, shared: SharedFilter<'_>) -> Option<Room> {
        let book = self.book.read().unwrap_or_else(PoisonError::into_inner);
        let share = book.by_name.get(&Name::from(shared))?;
        let group = book.groups.get(share)?;
        (!group.members.is_empty()).then_some(group.room)
    }

    /// Looks again at what members can take; the result is the groups for which that has changed. The
    /// next look goes on where this one ends.
    pub fn look(&self, place: &mut Option<ShareId>) -> Vec<(Box<str>, Box<str>)> {
        let seen = self.look_behind(place);
        self.take_in(&seen)
    }

    /// Counts the members of groups anew for which that has changed.
    fn take_in(&self, seen: &[ShareId]) -> Vec<(Box<str>, Box<str>)> {
        let mut changed = Vec::new();
        if seen.is_empty() {
            return changed;
        }
        let book = &mut *self.book.write().unwrap_or_else(PoisonError::into_inner);
        for share in seen {
            let group = book.groups.get_mut(share);
            if let Some(group) = group.filter(|group| !group.members.is_empty())
                && let Some(Name {
                    group: name,
                    filter,
                }) = book.names.get(share)
            {
                // Somebody may have joined since, and must not be forgotten.
                group.count();
                changed.push((name.clone(), filter.clone()));
            }
        }
        changed
    }

    fn look_behind(&self, place: &mut Option<ShareId>) -> Vec<ShareId> {
        let book = self.book.read().unwrap_or_else(PoisonError::into_inner);
        let first = place.take().map_or(Bound::Unbounded, Bound::Excluded);
        let mut seen = Vec::new();
        let mut looked_at = 0;
        for (share, _name) in book.names.range((first, Bound::Unbounded)) {
            let Some(group) = book.groups.get(share) else {
                continue;
            };
            looked_at += 1 + group.members.len();
            if group.look() {
                seen.push(*share);
            }
            if looked_at >= LOOK {
                *place = Some(*share);
                break;
            }
        }
        seen
    }

    /// How many branches and names there are.
    #[cfg(test)]
    pub(crate) fn nodes(&self) -> usize {
        let book = self.book.read().unwrap();
        let names = book.by_name.len() + book.names.len() + book.by_tag.len();
        book.by_filter.nodes() + names + book.groups.len()
    }

    /// A group and its filter, for whoever cannot know it by a number of this process.
    pub fn name(&self, share: ShareId) -> Option<(Box<str>, Box<str>)> {
        let book = self.book.read().unwrap_or_else(PoisonError::into_inner);
        let Name { group, filter } = book.names.get(&share)?.clone();
        Some((group, filter))
    }

    /// What other nodes know a group by.
    pub fn tag(&self, share: ShareId) -> Option<u64> {
        let book = self.book.read().unwrap_or_else(PoisonError::into_inner);
        Some(book.groups.get(&share)?.tag)
    }

    /// The group of this name, if it has members.
    pub fn find(&self, shared: SharedFilter<'_>) -> Option<ShareId> {
        let book = self.book.read().unwrap_or_else(PoisonError::into_inner);
        book.by_name.get(&Name::from(shared)).copied()
    }

    /// The group that other nodes know by this tag, if it gets messages of this topic.
    pub fn find_tagged(&self, tag: ShareId, topic: &str) -> Option<ShareId> {
        let book = self.book.read().unwrap_or_else(PoisonError::into_inner);
        let tagged = book.by_tag.range((tag.0, ShareId(0))..);
        let mut shares = tagged
            .take_while(|(other, _share)| *other == tag.0)
            .map(|(_tag, share)| *share);
        // Tags are hashes, and names are made up by clients.
        let is_meant = |share: &ShareId| {
            let name = book.names.get(share);
            name.is_some_and(|name| topic::matches(&name.filter, topic))
        };
        shares.find(is_meant)
    }

    /// The groups that get a message of this topic.
    pub fn matching(&self, topic: &str) -> Vec<ShareId> {
        let mut shares = Vec::new();
        if self.groups.load(Ordering::Acquire) > 0 {
            self.book
                .read()
                .unwrap_or_else(PoisonError::into_inner)
                .by_filter
                .for_each_match(topic, |share, ()| shares.push(*share));
        }
        shares
    }

    /// Whether what one of these groups is given may have to be stored.
    pub fn has_kept(&self, shares: &[ShareId]) -> bool {
        let book = self.book.read().unwrap_or_else(PoisonError::into_inner);
        let groups = shares.iter().filter_map(|share| book.groups.get(share));
        let mut members = groups.flat_map(|group| &group.members);
        let is_kept = |member: &Member| member.presence.is_kept.load(Ordering::Acquire);
        // Of more than that it is supposed.
        members.by_ref().take(MOST_LOOKED_AT).any(is_kept) || members.next().is_some()
    }

    /// Whether another member of the group is connected and takes messages.
    pub fn has_others(&self, share: ShareId, seat: (ShardId, u32)) -> bool {
        let book = self.book.read().unwrap_or_else(PoisonError::into_inner);
        let Some(group) = book.groups.get(&share) else {
            return false;
        };
        if group.others.values().any(|room| room.open > 0) {
            return true;
        }
        let mut members = group.members.iter();
        let is_there =
            |member: &Member| member.name() != seat && member.presence.get() < Appetite::Away;
        // Of more than that it is supposed.
        members.by_ref().take(LOOKED_AT).any(is_there) || members.next().is_some()
    }

    /// Whose turn it is to get a message of the group that has come over so many nodes; `None` when
    /// nobody can take it.
    pub fn choose(&self, share: ShareId, qos: Qos, hops: u8) -> Option<(ShardId, Seat)> {
        self.choose_but(share, qos, hops, Avoided::default())
    }

    /// As [`Shares::choose`], and none of these nodes.
    pub fn choose_but(
        &self,
        share: ShareId,
        qos: Qos,
        hops: u8,
        avoided: Avoided,
    ) -> Option<(ShardId, Seat)> {
        self.choose_by(share, hops, avoided, |group, way| {
            group.choose_anywhere(qos, way)
        })
    }

    /// As [`Shares::choose_but`], where members here were found to take nothing.
    pub fn choose_node(
        &self,
        share: ShareId,
        qos: Qos,
        hops: u8,
        avoided: Avoided,
    ) -> Option<(ShardId, Seat)> {
        self.choose_by(share, hops, avoided, |group, way| {
            group.choose_node(qos, way)
        })
    }

    fn choose_by(
        &self,
        share: ShareId,
        hops: u8,
        avoided: Avoided,
        choose: impl for<'a> Fn(&'a Group, Way) -> Option<Choice<'a>>,
    ) -> Option<(ShardId, Seat)> {
        let way = |avoided| Way {
            hops: hops & !LEFT,
            prefers_own: self.prefers_own || hops & LEFT != 0,
            avoided,
        };
        let book = self.book.read().unwrap_or_else(PoisonError::into_inner);
        let group = book.groups.get(&share)?;
        let choice = choose(group, way(avoided.all()));
        let again = || {
            avoided.from?;
            choose(group, way(avoided.full))
        };
        Some(match choice.or_else(again)? {
            Choice::Member(member) => {
                let session = member.session;
                let seat = Seat {
                    share,
                    session,
                    hops,
                };
                (member.shard, seat)
            }
            Choice::Node(node) => {
                let seat = Seat {
                    share: ShareId(group.tag),
                    session: Seat::NOBODY,
                    hops: (hops & !LEFT).saturating_add(1),
                };
                (node, seat)
            }
        })
    }
}

impl Book {
    fn find_or_open(&mut self, shared: SharedFilter<'_>) -> ShareId {
        let name = Name::from(shared);
        if let Some(share) = self.by_name.get(&name) {
            return *share;
        }
        self.open(name, hash_of(&shared.text()))
    }

    fn open(&mut self, name: Name, tag: u64) -> ShareId {
        self.last += 1;
        let share = ShareId(self.last);
        self.groups.insert(share, Group::new(tag));
        self.by_tag.insert((tag, share));
        self.names.insert(share, name.clone());
        let (Inserted::NewFilter | Inserted::NewSubscriber | Inserted::Replaced) =
            self.by_filter.insert(&name.filter, share, ());
        self.by_name.insert(name, share);
        share
    }

    /// Ends a group that has no members anywhere.
    fn close_if_empty(&mut self, share: ShareId, name: &Name) {
        let is_empty = |group: &Group| group.members.is_empty() && group.others.is_empty();
        if !self.groups.get(&share).is_some_and(is_empty) {
            return;
        }
        if let Some(Group { tag, .. }) = self.groups.remove(&share) {
            self.by_tag.remove(&(tag, share));
        }
        self.by_name.remove(name);
        self.names.remove(&share);
        self.by_filter.remove(&name.filter, &share);
    }
}

impl From<SharedFilter<'_>> for Name {
    fn from(shared: SharedFilter<'_>) -> Self {
        Self {
            group: shared.group.into(),
            filter: shared.filter.into(),
        }
    }
}

#[cfg(test)]
mod tests;
