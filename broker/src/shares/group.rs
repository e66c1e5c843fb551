//! One group: its members here, what those of other nodes can take, and whose turn it is.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{
        Arc,
        atomic::{AtomicU8, AtomicU64, AtomicUsize, Ordering},
    },
};

use super::{
    Appetite, Presence,
    rooms::{Class, Room, Side, Way, pick},
};
use crate::{message::Qos, routes::ShardId};

/// Members that are looked at before one is taken that is merely not full: a message must not cost
/// what a large group has members.
pub(super) const LOOKED_AT: usize = 256;

/// Members that are looked at before it is given up to find one that takes the message: many may be
/// away. The next message's look goes on there.
pub(super) const MOST_LOOKED_AT: usize = 4096;

#[derive(Debug, Default)]
pub(super) struct Group {
    /// What other nodes know it by.
    pub(super) tag: u64,
    pub(super) members: Vec<Member>,
    /// Where in `members` each is.
    places: HashMap<(ShardId, u32), usize>,
    turn: AtomicUsize,
    /// The place of the member that took the last message: in a large group of which most are away,
    /// the few that are there are not to be sought by each message.
    taker: AtomicUsize,
    /// What the members could take at the last look.
    pub(super) room: Room,
    /// Looks since one member had no queue.
    slow_looks: AtomicU8,
    /// What the members of other nodes can take, by the places of these.
    pub(super) others: BTreeMap<ShardId, Room>,
    /// The node's turn.
    node_turn: AtomicU64,
}

/// Who gets a message.
pub(super) enum Choice<'a> {
    Member(&'a Member),
    Node(ShardId),
}

#[derive(Debug)]
pub(super) struct Member {
    pub(super) shard: ShardId,
    pub(super) session: u32,
    qos: Qos,
    pub(super) presence: Arc<Presence>,
    /// As what it was counted at the last look, or when it joined.
    counted: Option<Class>,
}

impl Group {
    pub(super) fn new(tag: u64) -> Self {
        Self {
            tag,
            ..Self::default()
        }
    }

    pub(super) fn join(&mut self, member: Member) {
        let next = self.members.len();
        let place = *self.places.entry(member.name()).or_insert(next);
        self.room.add(member.counted);
        match self.members.get_mut(place) {
            Some(seated) => {
                self.room.remove(seated.counted);
                *seated = member;
            }
            None => self.members.push(member),
        }
    }

    /// Tells whether it was a member.
    pub(super) fn leave(&mut self, name: (ShardId, u32)) -> bool {
        let Some(place) = self.places.remove(&name) else {
            return false;
        };
        let member = self.members.swap_remove(place);
        self.room.remove(member.counted);
        if let Some(moved) = self.members.get(place) {
            self.places.insert(moved.name(), place);
        }
        true
    }

    /// Whether members can take other than was noted. That nobody was without a queue is remembered.
    pub(super) fn look(&self) -> bool {
        let mut appetites = self.members.iter().map(|member| member.presence.get());
        let looks = if appetites.any(|appetite| appetite == Appetite::Ready) {
            0
        } else {
            self.slow_looks.load(Ordering::Relaxed).saturating_add(1)
        };
        self.slow_looks.store(looks, Ordering::Relaxed);
        let is_other = |member: &Member| member.class() != member.counted;
        self.is_slow() != self.room.is_slow || self.members.iter().any(is_other)
    }

    /// Notes what the members can take.
    pub(super) fn count(&mut self) {
        let mut room = Room::default();
        for member in &mut self.members {
            member.counted = member.class();
            room.add(member.counted);
        }
        self.room = room;
        self.room.is_slow = self.is_slow();
    }

    fn is_slow(&self) -> bool {
        self.room.open > 0 && self.slow_looks.load(Ordering::Relaxed) > Room::PATIENCE
    }

    /// Whose turn it is, here or on another node.
    pub(super) fn choose_anywhere(&self, qos: Qos, way: Way) -> Option<Choice<'_>> {
        if self.others.is_empty() {
            return self.choose(qos).map(Choice::Member);
        }
        // What has come from another node stays where anybody may have it, absent or not: who is open
        // elsewhere may be gone by now, and nobody would come back for this one.
        let came = way.hops > 0;
        if let Some(member) = came.then(|| self.choose(qos)).flatten() {
            return Some(Choice::Member(member));
        }
        let turn = self.node_turn.fetch_add(1, Ordering::Relaxed);
        let mut own = self.room;
        for class in way.classes(qos) {
            match pick(own, &self.others, *class, way, turn) {
                Some(Side::Node(node)) => return Some(Choice::Node(node)),
                Some(Side::Own) => {
                    let member = self.choose(qos);
                    let is_meant = |member: &&Member| class.admits(member.appetite(qos));
                    if let Some(member) = member.filter(is_meant) {
                        return Some(Choice::Member(member));
                    }
                    // The last look is out of date.
                    own.forget(*class);
                    if let Some(Side::Node(node)) = pick(own, &self.others, *class, way, turn) {
                        return Some(Choice::Node(node));
                    }
                }
                None => {}
            }
        }
        self.choose(qos).map(Choice::Member)
    }

    /// Whose turn it is on another node.
    pub(super) fn choose_node(&self, qos: Qos, way: Way) -> Option<Choice<'_>> {
        let turn = self.node_turn.fetch_add(1, Ordering::Relaxed);
        let nobody = Room::default();
        let mut sides = way
            .classes(qos)
            .iter()
            .filter_map(|class| pick(nobody, &self.others, *class, way, turn));
        match sides.next()? {
            Side::Node(node) => Some(Choice::Node(node)),
            Side::Own => None,
        }
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
    pub(super) fn new(shard: ShardId, session: u32, qos: Qos, presence: &Arc<Presence>) -> Self {
        let mut member = Self {
            shard,
            session,
            qos,
            presence: Arc::clone(presence),
            counted: None,
        };
        member.counted = member.class();
        member
    }

    /// With regard to messages that may wait.
    fn class(&self) -> Option<Class> {
        Class::of(self.appetite(Qos::ExactlyOnce))
    }

    pub(super) fn name(&self) -> (ShardId, u32) {
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
