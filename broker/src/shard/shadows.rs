//! A shard's copies of other nodes' sessions, and what becomes of them when those nodes are gone.
//!
//! All of it comes down the lane of the peer's slot, in order: steps of its sessions, that it is lost,
//! and then what this node had sent it and it had not taken. So a copy is whole when it becomes a
//! session, and is one when those messages come. What other nodes had sent it comes down their lanes,
//! and waits there until all its copies are sessions.

mod owner;
mod promotion;
mod returns;

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

use tracing::{info, warn};

use owner::Owner;
use returns::Returns;

use super::{SessionKey, Shard, sessions::Work};
use crate::{
    lanes::frame::{self, Content},
    message::{Message, MessageId, Qos},
    metrics::{Counters, Metric},
    receipts::Needs,
    replica::{
        Recent, hash_of, memory,
        place::Peer,
        wire::Reader,
        word::{Fate, Word},
    },
    routes::ShardId,
};

/// By the ends of the lanes that their owners' words come by.
pub(super) struct Shadows {
    /// How long messages may come by two ways to sessions whose node is gone: directly, and from those
    /// who had sent them there.
    memory: Duration,
    owners: BTreeMap<ShardId, Owner>,
    /// Copies that have become sessions, lately.
    promoted: BTreeMap<ShardId, Promoted>,
    told: Told,
    returns: Returns,
}

struct Promoted {
    since: Option<Instant>,
    /// With the hashes of their client ids.
    sessions: BTreeMap<SessionKey, u64>,
    recent: Recent,
}

/// What was told of the copies, to tell what has changed.
#[derive(Clone, Copy, Default)]
struct Told {
    copies: usize,
    bytes: usize,
}

impl Promoted {
    fn new(memory: Duration) -> Self {
        Self {
            since: None,
            sessions: BTreeMap::new(),
            recent: Recent::new(memory),
        }
    }
}

impl Shadows {
    /// For a node of a cluster with this lease.
    pub(super) fn new(lease: Option<Duration>) -> Self {
        Self {
            memory: memory(lease.unwrap_or_default()),
            owners: BTreeMap::new(),
            promoted: BTreeMap::new(),
            told: Told::default(),
            returns: Returns::default(),
        }
    }

    /// Whether a session may have a message: if it was a copy, it may have had it already.
    pub(super) fn admits(&mut self, key: SessionKey, id: MessageId, now: Instant) -> bool {
        if self.promoted.is_empty() {
            return true;
        }
        let mut promoted = self.promoted.values_mut();
        promoted.all(|promoted| {
            let client = promoted.sessions.get(&key);
            client.is_none_or(|client| promoted.recent.insert(*client, id, now))
        })
    }

    /// Takes note of a session's end: its key may be another's then.
    pub(super) fn forget(&mut self, key: SessionKey) {
        for promoted in self.promoted.values_mut() {
            promoted.sessions.remove(&key);
        }
    }

    /// Whether a client's session has its copy here, which may go on.
    pub(super) fn has_copy(&self, client_id: &str) -> bool {
        let client = hash_of(client_id);
        let mut owners = self.owners.values();
        owners.any(|owner| !owner.is_apart() && owner.has(client_id, client))
    }

    /// Forgets the copy of a session of an owner's, which has come here.
    pub(super) fn supersede(&mut self, owner: ShardId, client_id: &str) {
        if let Some(owner) = self.owners.get_mut(&owner) {
            while owner.take(client_id).is_some() {}
        }
    }

    /// Takes note of who is there.
    pub(super) fn note_peers(&mut self, peers: &[Peer], now: Instant) {
        self.returns.note_peers(peers, now);
    }

    /// Whether a node that was held for gone has brought back all that it had.
    pub(super) fn has_brought_all(&self, node: u64) -> bool {
        self.returns.is_over(node)
    }

    fn promoted_of(&mut self, owner: ShardId) -> &mut Promoted {
        let promoted = self.promoted.entry(owner);
        promoted.or_insert_with(|| Promoted::new(self.memory))
    }

    /// Begins to tell messages that come by two ways for sessions of an owner's, or goes on: those
    /// that have become sessions before are no less its own.
    fn mourn(&mut self, owner: ShardId, recent: Recent, now: Instant) {
        let promoted = self.promoted_of(owner);
        promoted.since = Some(now);
        promoted.recent.absorb(recent);
    }

    /// Has the copies of an owner that is gone become sessions.
    fn lose(&mut self, from: ShardId, now: Instant) {
        let Some(owner) = self.owners.get_mut(&from) else {
            return;
        };
        owner.is_lost = true;
        let recent = owner.take_recent();
        if owner.copies() > 0 || self.promoted.contains_key(&from) {
            self.mourn(from, recent, now);
        }
    }

    /// Forgets what is over, of nodes of which this is the longest lease.
    fn forget_mourned(&mut self, lease: Duration, now: Instant) {
        self.memory = self.memory.max(memory(lease));
        let memory = self.memory;
        self.owners
            .retain(|_end, owner| !owner.stays_apart(memory, now));
        for owner in self.owners.values_mut() {
            owner.remember_for(memory);
        }
        for promoted in self.promoted.values_mut() {
            promoted.recent.remember_for(self.memory);
        }
        let is_recent = |since: Instant| now.saturating_duration_since(since) < self.memory;
        self.promoted
            .retain(|_end, promoted| promoted.since.is_some_and(is_recent));
    }

    /// Tells how many copies there are.
    pub(super) fn count(&mut self, counters: &Counters) {
        let mut told = Told::default();
        for owner in self.owners.values() {
            told.copies += owner.copies();
            told.bytes += owner.bytes;
        }
        let before = std::mem::replace(&mut self.told, told);
        counters.add(Metric::Copies, told.copies);
        counters.sub(Metric::Copies, before.copies);
        counters.add(Metric::CopyBytes, told.bytes);
        counters.sub(Metric::CopyBytes, before.bytes);
    }
}

impl Shard {
    /// Takes in what was said on the lane of a peer. Who has to have what is handed on is added to
    /// `needs`.
    pub(super) fn handle_copies(
        &mut self,
        from: ShardId,
        bytes: &[u8],
        needs: &mut Needs,
        now: Instant,
    ) {
        match Word::decode(bytes) {
            Some(Word::Steps { life, piece }) => self.apply_steps(from, life, piece, now),
            Some(Word::Lost(fate)) => self.lose_owner(from, fate, now),
            Some(Word::Orphans { of, messages }) => self.adopt_orphans(of, messages, now),
            Some(Word::Regroup(messages)) => self.regroup(messages, needs, now),
            Some(Word::Told { life, shard, of }) => {
                let owner = self.shadows.owners.get_mut(&from);
                let over = owner.map(|owner| owner.handle_told(life, shard, of));
                self.release_claims(&over.unwrap_or_default());
            }
            Some(Word::Strays { .. } | Word::Buried(_)) | None => {
                warn!(lane = from.0, "a word that makes no sense")
            }
        }
    }

    /// Forgets which sessions were copies, when nothing can come by two ways any more.
    pub(super) fn forget_mourned(&mut self, now: Instant) {
        let cluster = self.shared.cluster.as_ref();
        if let Some(lease) = cluster.map(|cluster| cluster.lease()) {
            self.shadows.forget_mourned(lease, now);
        }
        let memory = self.shadows.memory;
        if self.shadows.returns.poll_over(memory, now) {
            for entry in self.sessions.iter_mut() {
                let is_over = |node: u64| self.shadows.has_brought_all(node);
                entry.had.retain(|_id, node| !is_over(*node));
            }
        }
    }

    fn apply_steps(&mut self, from: ShardId, life: u64, piece: &[u8], now: Instant) {
        let memory = self.shadows.memory;
        let owners = &mut self.shadows.owners;
        let owner = owners.entry(from).or_insert_with(|| Owner::new(memory));
        owner.begin_life(life);
        let mut over = Vec::new();
        for step in Reader::new(piece, now) {
            match step {
                Ok((Some(whose), step)) => over.extend(owner.apply(whose, step, now)),
                Ok((None, _)) => {}
                Err(error) => warn!(lane = from.0, %error, "a copy is not whole"),
            }
        }
        self.release_claims(&over);
    }

    /// Answers claims of clients whose sessions have no copy here any more.
    fn release_claims(&mut self, client_ids: &[Arc<str>]) {
        for client_id in client_ids {
            self.clustered.claims.release(client_id);
        }
    }

    fn lose_owner(&mut self, from: ShardId, fate: Fate, now: Instant) {
        // Sessions that were on their way to it or from it are where they belong then.
        self.follow_fellows(now);
        match fate {
            Fate::Dropped => drop(self.shadows.owners.remove(&from)),
            Fate::Promoted => self.shadows.lose(from, now),
            Fate::Renewed => {
                if let Some(owner) = self.shadows.owners.get_mut(&from) {
                    owner.renew();
                }
            }
            Fate::Apart => {
                if let Some(owner) = self.shadows.owners.get_mut(&from) {
                    owner.part(now);
                }
            }
        }
        // Others may wait for what becomes of the copies.
        self.clustered.claims.release_all();
    }

    /// Makes sessions of copies that what is next on a lane may be for, as many as a turn allows; tells
    /// whether there are more. What another node had sent a lost one comes by that other one's lane.
    pub(super) fn promote_before(
        &mut self,
        next: &[u8],
        from: ShardId,
        work: Work,
        now: Instant,
    ) -> bool {
        let of = match frame::first_word(next).and_then(Word::decode) {
            Some(Word::Orphans { of, .. }) => Some(of),
            Some(
                Word::Steps { .. }
                | Word::Lost(_)
                | Word::Strays { .. }
                | Word::Buried(_)
                | Word::Regroup(_)
                | Word::Told { .. },
            )
            | None => None,
        };
        self.promote_some(from, work, now) || of.is_some_and(|of| self.promote_some(of, work, now))
    }

    /// Makes sessions of a lost node's copies, as many as a turn allows; tells whether there are more.
    fn promote_some(&mut self, from: ShardId, work: Work, now: Instant) -> bool {
        loop {
            let owner = self.shadows.owners.get_mut(&from);
            let Some(owner) = owner.filter(|owner| owner.is_lost) else {
                return false;
            };
            let copies = owner.take_some();
            if copies.is_empty() {
                let copies = owner.promoted;
                self.shadows.owners.remove(&from);
                info!(
                    shard = self.id.0,
                    copies, "sessions of a node that is gone go on here"
                );
                return false;
            }
            self.promote_all(from, copies, now);
            if self.is_spent(work) {
                return true;
            }
        }
    }

    /// For a client that has come here: makes a session of the copy of its own, if its node is gone
    /// and the shard has not come to that yet. The others wait for what their node has said before.
    pub(super) fn promote_lost(&mut self, client_id: &str, now: Instant) {
        let Some(cluster) = self.shared.cluster.clone() else {
            return;
        };
        let is_there = |end: ShardId| cluster.peers().any(|peer| peer == end);
        let owners = self.shadows.owners.iter();
        // One that is lost here may be back already.
        let is_lost = |end, owner: &Owner| owner.is_lost || !owner.is_apart() && !is_there(end);
        let lost = owners.filter(|(end, owner)| is_lost(**end, owner));
        for end in lost.map(|(end, _owner)| *end).collect::<Vec<_>>() {
            let Some(owner) = self.shadows.owners.get_mut(&end) else {
                continue;
            };
            let copies: Vec<_> = std::iter::from_fn(|| owner.take(client_id)).collect();
            if !copies.is_empty() {
                let recent = owner.take_recent();
                self.shadows.mourn(end, recent, now);
                self.promote_all(end, copies, now);
            }
        }
    }

    /// Delivers what the peer of a lane had not taken when it was lost, to those of its sessions that
    /// are here by now.
    fn adopt_orphans(&mut self, from: ShardId, mut messages: &[u8], now: Instant) {
        if !self.shadows.promoted.contains_key(&from) {
            return;
        }
        while let Some(content) = frame::read_content(&mut messages, now) {
            let Content::Message(item) = content else {
                continue;
            };
            // What is for groups waits for other members: see `regroup`.
            if item.message.qos > Qos::AtMostOnce && item.seats.is_empty() {
                self.deliver_to_promoted(from, &Arc::new(item.message), now);
            }
        }
    }

    fn deliver_to_promoted(&mut self, from: ShardId, message: &Arc<Message>, now: Instant) {
        let Some(promoted) = self.shadows.promoted.get(&from) else {
            return;
        };
        let mut matches = Vec::new();
        self.subscribers
            .for_each_match(&message.topic, |key, subscription| {
                if promoted.sessions.contains_key(key) {
                    matches.push((*key, *subscription));
                }
            });
        // What is handed on to where a session has gone is not waited for: see `receive_frame`.
        let mut needs = Needs::default();
        self.deliver_to_all(&mut matches, message, &mut needs, now);
    }
}

#[cfg(test)]
mod tests;
