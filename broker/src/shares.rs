//! Shared subscriptions: which member of a group gets a message (MQTT 5, 4.8.2).
//!
//! Groups are the node's, with members on all of its shards. The shard of the publisher chooses
//! the member and addresses the message to its seat, so that each message is balanced over all
//! members once, wherever they are. Between nodes it is the same in two steps: a node with members
//! is chosen first, and that node chooses among its own.

use std::{
    collections::HashMap,
    sync::{
        Arc, PoisonError, RwLock,
        atomic::{AtomicBool, AtomicU8, AtomicUsize, Ordering},
    },
};

use crate::{
    message::Qos,
    routes::ShardId,
    topic::SharedFilter,
    trie::{Inserted, Trie},
};

/// Members that are looked at before one is taken that is merely not full: a message must not cost
/// what a large group has members.
const LOOKED_AT: usize = 256;

/// Members that are looked at before it is given up to find one that takes the message: many may be
/// away. The next message's look goes on there.
const MOST_LOOKED_AT: usize = 4096;

/// A group and its filter. Never given twice in the life of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ShareId(pub u64);

/// One session's membership in a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seat {
    pub share: ShareId,
    /// The session's number in its shard.
    pub session: u32,
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
    book: RwLock<Book>,
}

#[derive(Debug, Default)]
struct Book {
    last: u64,
    by_name: HashMap<Name, ShareId>,
    names: HashMap<ShareId, Name>,
    by_filter: Trie<ShareId, ()>,
    groups: HashMap<ShareId, Group>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Name {
    group: Box<str>,
    filter: Box<str>,
}

#[derive(Debug, Default)]
struct Group {
    members: Vec<Member>,
    /// Where in `members` each is.
    places: HashMap<(ShardId, u32), usize>,
    turn: AtomicUsize,
    /// The place of the member that took the last message: in a large group of which most are away,
    /// the few that are there are not to be sought by each message.
    taker: AtomicUsize,
}

#[derive(Debug)]
struct Member {
    shard: ShardId,
    session: u32,
    qos: Qos,
    presence: Arc<Presence>,
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
        let member = Member {
            shard,
            session,
            qos,
            presence: Arc::clone(presence),
        };
        book.groups.entry(share).or_default().join(member);
        self.groups.store(book.groups.len(), Ordering::Release);
        share
    }

    /// Takes a session's seat away, if it has one; the group ends with its last member.
    pub fn leave(&self, shared: SharedFilter<'_>, shard: ShardId, session: u32) -> Option<ShareId> {
        let mut book = self.book.write().unwrap_or_else(PoisonError::into_inner);
        let name = Name::from(shared);
        let share = *book.by_name.get(&name)?;
        let group = book.groups.get_mut(&share)?;
        let was_seated = group.leave((shard, session));
        if group.members.is_empty() {
            book.groups.remove(&share);
            book.by_name.remove(&name);
            book.names.remove(&share);
            book.by_filter.remove(shared.filter, &share);
        }
        self.groups.store(book.groups.len(), Ordering::Release);
        was_seated.then_some(share)
    }

    /// How many branches and names there are.
    #[cfg(test)]
    pub(crate) fn nodes(&self) -> usize {
        let book = self.book.read().unwrap();
        book.by_filter.nodes() + book.by_name.len() + book.groups.len()
    }

    /// A group and its filter, for whoever cannot know it by a number of this process.
    pub fn name(&self, share: ShareId) -> Option<(Box<str>, Box<str>)> {
        let book = self.book.read().unwrap_or_else(PoisonError::into_inner);
        let Name { group, filter } = book.names.get(&share)?.clone();
        Some((group, filter))
    }

    /// The group of this name, if it has members.
    pub fn find(&self, shared: SharedFilter<'_>) -> Option<ShareId> {
        let book = self.book.read().unwrap_or_else(PoisonError::into_inner);
        book.by_name.get(&Name::from(shared)).copied()
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
        let members = book.groups.get(&share).map(|group| group.members.iter());
        let mut members = members.into_iter().flatten();
        let is_there =
            |member: &Member| member.name() != seat && member.presence.get() < Appetite::Away;
        // Of more than that it is supposed.
        members.by_ref().take(LOOKED_AT).any(is_there) || members.next().is_some()
    }

    /// Whose turn it is to get a message of the group; `None` when nobody can take it.
    pub fn choose(&self, share: ShareId, qos: Qos) -> Option<(ShardId, Seat)> {
        let book = self.book.read().unwrap_or_else(PoisonError::into_inner);
        let member = book.groups.get(&share)?.choose(qos)?;
        let seat = Seat {
            share,
            session: member.session,
        };
        Some((member.shard, seat))
    }
}

impl Book {
    fn find_or_open(&mut self, shared: SharedFilter<'_>) -> ShareId {
        let name = Name::from(shared);
        if let Some(share) = self.by_name.get(&name) {
            return *share;
        }
        self.last += 1;
        let share = ShareId(self.last);
        self.names.insert(share, name.clone());
        self.by_name.insert(name, share);
        let (Inserted::NewFilter | Inserted::NewSubscriber | Inserted::Replaced) =
            self.by_filter.insert(shared.filter, share, ());
        share
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

impl Group {
    fn join(&mut self, member: Member) {
        let next = self.members.len();
        let place = *self.places.entry(member.name()).or_insert(next);
        match self.members.get_mut(place) {
            Some(seated) => *seated = member,
            None => self.members.push(member),
        }
    }

    /// Tells whether it was a member.
    fn leave(&mut self, name: (ShardId, u32)) -> bool {
        let Some(place) = self.places.remove(&name) else {
            return false;
        };
        self.members.swap_remove(place);
        if let Some(moved) = self.members.get(place) {
            self.places.insert(moved.name(), place);
        }
        true
    }

    /// The next in turn among those that take the message most readily. In a large group these are
    /// sought among the next few, and among some more if none of them takes it; if none of those
    /// does either, it is for the one that took the last message.
    fn choose(&self, qos: Qos) -> Option<&Member> {
        let turn = self.turn.fetch_add(1, Ordering::Relaxed);
        let first = turn.checked_rem(self.members.len())?;
        let (before, from) = self.members.split_at_checked(first)?;
        let mut best: Option<(Appetite, usize)> = None;
        let next = from.iter().chain(before).take(MOST_LOOKED_AT);
        for (looked_at, member) in next.enumerate() {
            if looked_at >= LOOKED_AT && best.is_some() {
                break;
            }
            let appetite = member.appetite(qos);
            if appetite < best.map_or(Appetite::Full, |(best, _looked_at)| best) {
                best = Some((appetite, looked_at));
            }
            if appetite == Appetite::Ready {
                break;
            }
        }
        let Some((_appetite, looked_at)) = best else {
            if self.members.len() > MOST_LOOKED_AT {
                // One was counted already.
                self.turn.fetch_add(MOST_LOOKED_AT - 1, Ordering::Relaxed);
            }
            let taker = self.members.get(self.taker.load(Ordering::Relaxed))?;
            return (taker.appetite(qos) < Appetite::Full).then_some(taker);
        };
        let place = (first + looked_at) % self.members.len();
        self.taker.store(place, Ordering::Relaxed);
        self.members.get(place)
    }
}

impl Member {
    fn name(&self) -> (ShardId, u32) {
        (self.shard, self.session)
    }

    fn appetite(&self, qos: Qos) -> Appetite {
        let appetite = self.presence.get();
        // QoS 0 does not wait for a client that is away.
        if appetite == Appetite::Away && qos.min(self.qos) == Qos::AtMostOnce {
            Appetite::Full
        } else {
            appetite
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use Appetite::{Away, Busy, Full, Ready};

    const JOBS: SharedFilter<'static> = SharedFilter {
        group: "g",
        filter: "jobs/#",
    };

    /// A group whose members are the sessions 0, 1, … of alternating shards.
    fn group(appetites: &[Appetite]) -> (Shares, ShareId, Vec<Arc<Presence>>) {
        let shares = Shares::default();
        let mut share = ShareId(0);
        let mut presences = Vec::new();
        for (session, appetite) in (0..).zip(appetites) {
            let presence = Presence::new(*appetite);
            let shard = ShardId(u16::try_from(session % 2).unwrap());
            share = shares.join(JOBS, shard, session, Qos::AtLeastOnce, &presence);
            presences.push(presence);
        }
        (shares, share, presences)
    }

    fn choose(shares: &Shares, share: ShareId, qos: Qos) -> Option<u32> {
        shares.choose(share, qos).map(|(_shard, seat)| seat.session)
    }

    fn turns(shares: &Shares, share: ShareId, count: usize) -> Vec<u32> {
        (0..count)
            .filter_map(|_turn| choose(shares, share, Qos::AtLeastOnce))
            .collect()
    }

    #[test]
    fn members_take_turns_whatever_shard_they_are_on() {
        let (shares, share, _presences) = group(&[Ready; 3]);
        assert_eq!(turns(&shares, share, 7), [0, 1, 2, 0, 1, 2, 0]);
        let (shard, seat) = shares.choose(share, Qos::AtMostOnce).unwrap();
        assert_eq!((shard, seat.session, seat.share), (ShardId(1), 1, share));
    }

    #[test]
    fn those_that_can_take_more_go_first() {
        let (shares, share, presences) = group(&[Busy, Ready, Away, Full]);
        assert_eq!(turns(&shares, share, 4), [1; 4]);
        presences[1].set(Full);
        assert_eq!(turns(&shares, share, 4), [0; 4]);
        presences[0].set(Full);
        assert_eq!(turns(&shares, share, 4), [2; 4]);
        presences[2].set(Full);
        assert!(turns(&shares, share, 4).is_empty());
    }

    #[test]
    fn large_group_is_not_looked_through_for_each_message_unless_it_must() {
        let mut appetites = vec![Busy; LOOKED_AT + 2];
        appetites.push(Ready);
        let (shares, share, presences) = group(&appetites);
        // The first look ends before the one that is ready, the third one reaches it.
        let ready = u32::try_from(LOOKED_AT + 2).unwrap();
        assert_eq!(turns(&shares, share, 4), [0, 1, 2, ready]);
        for presence in &presences[..LOOKED_AT + 2] {
            presence.set(Full);
        }
        assert_eq!(turns(&shares, share, 2), [ready; 2]);
    }

    #[test]
    fn the_few_of_a_large_group_that_are_there_are_found_in_the_end() {
        let mut appetites = vec![Away; 3 * MOST_LOOKED_AT];
        let place = 2 * MOST_LOOKED_AT + 7;
        appetites[place] = Ready;
        let (shares, share, presences) = group(&appetites);
        let next = || choose(&shares, share, Qos::AtMostOnce);
        let there = u32::try_from(place).ok();
        // Each look ends after some, and the next one goes on behind them.
        assert_eq!([next(), next()], [None, None]);
        for _ in 0..10 {
            assert_eq!(next(), there);
        }
        presences[place].set(Away);
        for _ in 0..10 {
            assert_eq!(next(), None);
        }
    }

    #[test]
    fn members_keep_their_places_when_others_leave() {
        let (shares, share, _presences) = group(&[Ready; 4]);
        for session in [0, 2] {
            assert_eq!(shares.leave(JOBS, ShardId(0), session), Some(share));
            assert_eq!(shares.leave(JOBS, ShardId(0), session), None);
        }
        let mut left = turns(&shares, share, 2);
        left.sort_unstable();
        assert_eq!(left, [1, 3]);
        // A seat is taken once, also when its member has moved.
        let presence = Presence::new(Full);
        shares.join(JOBS, ShardId(1), 3, Qos::AtLeastOnce, &presence);
        assert_eq!(turns(&shares, share, 2), [1, 1]);
    }

    #[test]
    fn others_are_there_if_they_are_connected_and_take_messages() {
        let (shares, share, presences) = group(&[Ready, Away, Full]);
        let seat = (ShardId(0), 0);
        assert!(!shares.has_others(share, seat));
        assert!(shares.has_others(share, (ShardId(1), 1)));
        presences[2].set(Busy);
        assert!(shares.has_others(share, seat));
        assert!(!shares.has_others(ShareId(9), seat));
    }

    #[test]
    fn qos0_does_not_wait_for_absent_members() {
        let (shares, share, _presences) = group(&[Away]);
        assert_eq!(choose(&shares, share, Qos::AtMostOnce), None);
        assert_eq!(choose(&shares, share, Qos::ExactlyOnce), Some(0));
        let absent = Presence::new(Away);
        shares.join(JOBS, ShardId(0), 0, Qos::AtMostOnce, &absent);
        assert_eq!(choose(&shares, share, Qos::ExactlyOnce), None);
    }

    #[test]
    fn groups_end_with_their_last_member() {
        let (shares, share, _presences) = group(&[Ready; 2]);
        assert_eq!(shares.matching("jobs/1"), [share]);
        assert!(shares.matching("job").is_empty());
        assert_eq!(shares.leave(JOBS, ShardId(0), 0), Some(share));
        // A seat of another shard is another one.
        assert_eq!(shares.leave(JOBS, ShardId(0), 1), None);
        assert_eq!(turns(&shares, share, 2), [1, 1]);
        assert_eq!(shares.leave(JOBS, ShardId(1), 1), Some(share));
        assert!(shares.matching("jobs/1").is_empty());
        assert_eq!(shares.choose(share, Qos::AtMostOnce), None);
        assert_eq!(shares.leave(JOBS, ShardId(1), 1), None);
        let ready = Presence::new(Ready);
        let next = shares.join(JOBS, ShardId(0), 0, Qos::AtMostOnce, &ready);
        assert_ne!(next, share);
    }

    #[test]
    fn groups_of_one_filter_get_a_copy_each() {
        let (shares, share, presences) = group(&[Ready]);
        let other = SharedFilter {
            group: "h",
            filter: "jobs/#",
        };
        let other = shares.join(other, ShardId(0), 0, Qos::AtMostOnce, &presences[0]);
        let mut matching = shares.matching("jobs/1");
        matching.sort();
        assert_eq!(matching, [share, other]);
    }
}
