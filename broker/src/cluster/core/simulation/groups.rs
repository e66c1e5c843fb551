//! A group with members on all nodes: each of its messages is for one of them.
//!
//! A publisher's node gives a message to one of its members, or sends it to a node, where the shard
//! that takes it does the same. It is safe there when what was handed on is taken, and the publisher is
//! answered then. What a lost node was sent is given to somebody else.

use std::sync::Arc;

use super::{users::Parcel, *};
use crate::{
    message::Qos,
    routes::ShardId,
    shares::{Appetite, Avoided, HANDED_ON, Presence, Room, Shares},
    topic::SharedFilter,
};

const GROUP: SharedFilter<'static> = SharedFilter {
    group: "g",
    filter: "t",
};

/// Peers are the destinations behind those.
const SHARDS: u16 = 2;

/// From how many nodes to others a message goes at most.
const MOST_HOPS: u8 = 3;

/// Sessions of a node that are members at most.
const MEMBERS: usize = 3;

/// A node's part of the group.
#[derive(Default)]
pub(super) struct Group {
    shares: Shares,
    members: BTreeMap<u32, Arc<Presence>>,
    last: u32,
    /// What the members of others can take, by their slots.
    rooms: BTreeMap<u16, Room>,
    /// Messages of this node's publishers, and the frames that they wait for.
    unanswered: Vec<(usize, u64)>,
    /// In which frame each item of a slot's stream was handed on.
    handed_on: BTreeMap<(u16, u64, u64), u64>,
}

/// A message for the group.
#[derive(Default)]
pub(super) struct Job {
    /// The publisher's node, and its run.
    from: (usize, u64),
    /// Members that were given it.
    takers: u32,
    is_dropped: bool,
    /// It was on its way to a node that was lost.
    was_gone: bool,
    /// It has come over more than one node.
    was_handed_on: bool,
}

/// What has become of a frame with such a message.
#[derive(Clone, Copy)]
pub(super) struct Passed {
    job: usize,
    hops: u8,
    /// Where its node is lost.
    then: Then,
}

#[derive(Clone, Copy)]
enum Then {
    /// Nobody else has it yet.
    Open,
    Placed,
    /// It is in this frame.
    Sent(u64),
}

impl Group {
    /// Takes in what a change of another node's filters says of the group.
    pub(super) fn follow(&mut self, slot: u16, change: &Change) {
        let end = ShardId(SHARDS + slot);
        match change {
            Change::Group(_filter, room) => {
                self.shares.set_room(GROUP, end, Some(*room));
                self.rooms.insert(slot, *room);
            }
            Change::Removed(filter) if **filter == *GROUP.text() => {
                self.shares.set_room(GROUP, end, None);
                self.rooms.remove(&slot);
            }
            Change::Added(_) | Change::Removed(_) => {}
        }
    }

    fn join(&mut self, appetite: Appetite) {
        self.last += 1;
        let presence = Presence::new(appetite);
        let qos = Qos::AtLeastOnce;
        self.shares
            .join(GROUP, ShardId(0), self.last, qos, &presence);
        self.members.insert(self.last, presence);
    }
}

impl Job {
    /// Somebody has it, or nobody could take it.
    fn is_over(&self) -> bool {
        self.takers > 0 || self.is_dropped
    }
}

impl Node {
    fn add_steady_member(&mut self) {
        self.group.join(Appetite::Ready);
        self.note_group();
    }

    /// Has other nodes know what the members can take.
    fn note_group(&mut self) {
        let filter = GROUP.text();
        let had = self.table.room(&filter);
        let room = self.group.shares.room(GROUP);
        self.table.set_group(&filter, room);
        match (had, room) {
            (None, Some(_)) => {
                let version = self.table.version();
                self.added.insert(filter.into(), version);
            }
            (Some(_), None) => {
                self.added.remove(&*filter);
            }
            (Some(_), Some(_)) | (None, None) => {}
        }
    }

    /// What its peer of a slot has said that its members can take.
    pub(super) fn room_of(&self, slot: u16) -> Option<Room> {
        self.group.rooms.get(&slot).copied()
    }

    /// What it has said itself.
    pub(super) fn told_room(&self) -> Option<Room> {
        self.table.room(&GROUP.text())
    }
}

impl World {
    /// The first node has a member that is always there.
    pub(super) fn set_up_group(&mut self, node: usize) {
        if self.nature.has_group && node == 0 {
            self.nodes[node].add_steady_member();
        }
    }

    /// Members come and go, and somebody publishes.
    pub(super) fn act_as_members(&mut self, node: usize) {
        let group = &mut self.nodes[node].group;
        // The first node's first member stays.
        let steady = if node == 0 { 1 } else { 0 };
        let fickle = group
            .members
            .keys()
            .copied()
            .filter(|member| *member > steady);
        let fickle: Vec<_> = fickle.collect();
        let one = usize::try_from(self.dice.roll(MEMBERS as u64)).unwrap();
        let appetite = match self.dice.roll(4) {
            0 => Appetite::Ready,
            1 => Appetite::Busy,
            2 => Appetite::Away,
            _ => Appetite::Full,
        };
        match (self.dice.roll(6), fickle.get(one)) {
            (0, Some(member)) => {
                group.shares.leave(GROUP, ShardId(0), *member);
                group.members.remove(member);
            }
            (1, None) => group.join(appetite),
            (2..4, Some(member)) => group.members[member].set(appetite),
            _ => {}
        }
        group.shares.look(&mut None);
        self.nodes[node].note_group();
        for _ in 0..self.dice.roll(3) {
            self.publish_job(node);
        }
    }

    fn publish_job(&mut self, node: usize) {
        let state = &self.nodes[node];
        let is_full = state.core.peers().any(|(_other, peer)| peer.is_full());
        if is_full || state.group.shares.find(GROUP).is_none() {
            return;
        }
        let job = self.jobs.len();
        self.jobs.push(Job {
            from: (node, state.run),
            ..Job::default()
        });
        if let Some(frame) = self.place(node, job, 0, None) {
            self.nodes[node].group.unanswered.push((job, frame));
        }
    }

    /// Gives a message to a member here, or sends it on; the result is the frame that it is in.
    fn place(&mut self, node: usize, job: usize, hops: u8, from: Option<ShardId>) -> Option<u64> {
        let state = &self.nodes[node];
        let shares = &state.group.shares;
        let share = shares.find(GROUP);
        let avoided = Avoided {
            from,
            ..Avoided::default()
        };
        let choose = |share| shares.choose_but(share, Qos::AtLeastOnce, hops, avoided);
        let Some((end, seat)) = share.and_then(choose) else {
            self.drop_job(node, job, hops);
            return None;
        };
        let Some(slot) = end.0.checked_sub(SHARDS) else {
            let Job {
                takers, was_gone, ..
            } = &mut self.jobs[job];
            *takers += 1;
            assert!(*takers == 1 || *was_gone, "two members have one message");
            return None;
        };
        assert!(seat.hops <= MOST_HOPS, "it goes round");
        self.jobs[job].was_handed_on |= seat.hops > HANDED_ON;
        let parcel = Parcel::of_group(job, seat.hops);
        let frame = self.post(node, slot, parcel, 0);
        self.nodes[node].sent[usize::try_from(frame).unwrap()].passed = Some(Passed {
            job,
            hops: seat.hops,
            then: Then::Open,
        });
        Some(frame)
    }

    /// Nobody can take a message. Not so where a member is known who can.
    fn drop_job(&mut self, node: usize, job: usize, hops: u8) {
        let state = &self.nodes[node];
        let first = state.core.peers.get(&name(0)).map(|peer| peer.slot);
        let knows = first.is_some_and(|slot| state.group.rooms.contains_key(&slot));
        assert_ne!(node, 0, "its own member was there");
        assert!(
            !knows || hops >= MOST_HOPS,
            "dropped, and a member was there"
        );
        self.jobs[job].is_dropped = true;
    }

    /// A shard takes a message of another node's for the group.
    pub(super) fn take_job(&mut self, node: usize, item: (u16, u64, u64), parcel: &Parcel) {
        let Some((job, hops)) = parcel.job() else {
            return;
        };
        let from = (hops > HANDED_ON).then_some(ShardId(SHARDS + item.0));
        if let Some(frame) = self.place(node, job, hops, from) {
            self.nodes[node].group.handed_on.insert(item, frame);
        }
    }

    /// What was delivered of a slot is stored and copied; it is safe if what was handed on of it is taken.
    pub(super) fn make_safe(&mut self, node: usize, slot: u16, epoch: u64, number: u64) {
        let items = (slot, epoch, 0)..=(slot, epoch, number);
        let handed_on = self.nodes[node].group.handed_on.range(items);
        let frames: Vec<_> = handed_on.map(|(item, frame)| (*item, *frame)).collect();
        for (item, frame) in frames {
            let sent = &self.nodes[node].sent[usize::try_from(frame).unwrap()];
            if !sent.is_taken && sent.outcome.is_none() {
                let later = self.now + TICK;
                self.at(later, node, Event::Safe(slot, epoch, number));
                return;
            }
            self.nodes[node].group.handed_on.remove(&item);
        }
        self.nodes[node].core.handle_safe(slot, epoch, number);
    }

    /// Whether a frame is where it cannot be lost, or somebody else has what was in it.
    fn is_done(&self, node: usize, frame: u64) -> bool {
        let sent = &self.nodes[node].sent[usize::try_from(frame).unwrap()];
        match (sent.outcome, sent.passed.map(|passed| passed.then)) {
            (None, _) | (Some(Outcome::Gone), Some(Then::Open)) => false,
            (Some(Outcome::Gone), Some(Then::Sent(next))) => self.is_done(node, next),
            (Some(Outcome::Gone), Some(Then::Placed) | None) | (Some(Outcome::Taken), _) => true,
        }
    }

    /// The node that a frame was for is lost: when it is buried, somebody else gets what was in it.
    pub(super) fn await_burial(&mut self, node: usize, frame: u64) {
        let sent = &self.nodes[node].sent[usize::try_from(frame).unwrap()];
        if let Some(passed) = sent.passed {
            self.jobs[passed.job].was_gone = true;
            self.at(self.now + LEASE, node, Event::Regroup(frame));
        }
    }

    pub(super) fn regroup(&mut self, node: usize, frame: u64) {
        let at = usize::try_from(frame).unwrap();
        let Some(Passed { job, hops, .. }) = self.nodes[node].sent[at].passed else {
            return;
        };
        // It did not come there.
        let frame = self.place(node, job, hops - 1, None);
        let then = frame.map_or(Then::Placed, Then::Sent);
        if let Some(passed) = &mut self.nodes[node].sent[at].passed {
            passed.then = then;
        }
    }

    /// What a publisher's answer says: somebody has the message, or nobody could take it, or nodes have
    /// it that hand it on.
    pub(super) fn check_answers(&mut self, node: usize) {
        let unanswered = std::mem::take(&mut self.nodes[node].group.unanswered);
        for (job, frame) in unanswered {
            if self.is_done(node, frame) {
                let job = &self.jobs[job];
                assert!(job.is_over() || job.was_handed_on, "nobody has it");
            } else {
                self.nodes[node].group.unanswered.push((job, frame));
            }
        }
    }

    /// When all is calm, all publishers are answered, and few messages met nobody.
    pub(super) fn check_jobs(&self) {
        for (number, node) in self.nodes.iter().enumerate() {
            assert!(node.group.unanswered.is_empty(), "{number} waits for ever");
        }
        assert!(self.nature.has_group != self.jobs.is_empty());
        let answers = |job: &&Job| self.nodes[job.from.0].run == job.from.1;
        let mut open = self
            .jobs
            .iter()
            .filter(answers)
            .filter(|job| !job.is_over());
        // One node may have died that had it.
        assert!(open.all(|job| job.was_gone || job.was_handed_on), "lost");
        if self.nature.is_gentle {
            assert!(self.jobs.iter().all(Job::is_over), "lost");
            let dropped = self.jobs.iter().filter(|job| job.is_dropped).count();
            assert!(dropped <= self.jobs.len() / 10, "{dropped} were dropped");
        }
    }
}
