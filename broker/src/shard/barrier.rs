//! How a shard finds out that nothing more is on its way to it that was sent by older routes.
//!
//! It asks all shards of all nodes for a mark. Each puts that on its lane to this shard, behind all that
//! it has sent, so what comes later was routed later. One barrier serves all sessions that wait when it
//! begins, and those that come meanwhile have the next one.

use std::{sync::Arc, time::Instant};

use super::Shard;
use crate::{cluster::word::Word, routes::ShardId};

#[derive(Default)]
pub(super) struct Barriers {
    number: u64,
    /// Shards of this node, and other nodes, whose marks are missing.
    missing: Vec<Missing>,
    /// What waits for this barrier.
    running: Vec<Purpose>,
    /// And for the next one.
    waiting: Vec<Purpose>,
}

/// Whose session waits for a barrier.
pub(super) enum Purpose {
    /// It lives elsewhere; what still comes is forwarded.
    Ghost(Arc<str>),
    /// It has come from elsewhere, by a claim of this time.
    Settling(Arc<str>, u64),
}

struct Missing {
    end: ShardId,
    /// Of a node; as long as that is there.
    life: Option<u64>,
    /// Marks, once it is known how many shards it has.
    left: Option<u16>,
}

impl Barriers {
    pub(super) fn wait(&mut self, purpose: Purpose) {
        self.waiting.push(purpose);
    }

    /// Takes note of a mark; tells whether it was the last.
    fn handle_mark(&mut self, from: ShardId, number: u64, of: u16) -> bool {
        if number != self.number {
            return false;
        }
        self.missing.retain_mut(|missing| {
            if missing.end != from {
                return true;
            }
            let left = missing.left.unwrap_or(of).saturating_sub(1);
            missing.left = Some(left);
            left > 0
        });
        self.missing.is_empty()
    }
}

impl Shard {
    /// Begins a barrier, if there is none and somebody waits for one.
    pub(super) fn start_barrier(&mut self) {
        let barriers = &mut self.clustered.barriers;
        if !barriers.running.is_empty() || barriers.waiting.is_empty() {
            return;
        }
        barriers.number += 1;
        barriers.running = std::mem::take(&mut barriers.waiting);
        let me = self.id;
        let here = (0..self.shared.shards).map(ShardId);
        let here = here.filter(|shard| *shard != me).map(|end| Missing {
            end,
            life: None,
            left: Some(1),
        });
        let there = self.clustered.fellows.iter().map(|fellow| Missing {
            end: fellow.end,
            life: Some(fellow.life),
            left: None,
        });
        barriers.missing = here.chain(there).collect();
        let number = barriers.number;
        let ends: Vec<_> = barriers.missing.iter().map(|missing| missing.end).collect();
        for end in ends {
            let shard = self.id.0;
            self.say(end, &Word::Barrier { shard, number }, false);
        }
        // Somebody has to end it where there is nobody to ask.
        self.outbox_work.notify_one();
    }

    /// Says to another shard that all before is sent.
    pub(super) fn mark(&mut self, to: ShardId, shard: u16, number: u64) {
        let is_here = to.0 < self.shared.shards;
        let of = if is_here { 1 } else { self.shared.shards };
        self.say(to, &Word::Mark { shard, number, of }, false);
    }

    pub(super) fn handle_mark(&mut self, from: ShardId, number: u64, of: u16, now: Instant) {
        if self.clustered.barriers.handle_mark(from, number, of) {
            self.end_barrier(now);
            self.act_on_claims(now);
        }
    }

    /// Does without marks of nodes that are lost.
    pub(super) fn handle_lost_marks(&mut self, now: Instant) {
        let fellows = &self.clustered.fellows;
        let is_there = |missing: &Missing| {
            missing.life.is_none_or(|life| {
                let end = missing.end;
                fellows.contains(&crate::cluster::claims::Fellow { end, life })
            })
        };
        self.clustered.barriers.missing.retain(is_there);
        self.end_barrier(now);
    }

    /// Ends a barrier that has all of its marks, and begins the next one.
    pub(super) fn end_barrier(&mut self, now: Instant) {
        if self.clustered.barriers.missing.is_empty() {
            for purpose in std::mem::take(&mut self.clustered.barriers.running) {
                match purpose {
                    Purpose::Ghost(client_id) => self.end_ghost(&client_id, now),
                    Purpose::Settling(client_id, time) => self.pass_barrier(&client_id, time),
                }
            }
            self.start_barrier();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn barrier_ends_with_the_mark_of_the_last_shard_of_the_last_node() {
        let missing = |end, left| Missing {
            end: ShardId(end),
            life: None,
            left,
        };
        let mut barriers = Barriers {
            number: 7,
            missing: vec![missing(1, Some(1)), missing(2, None)],
            ..Barriers::default()
        };
        assert!(!barriers.handle_mark(ShardId(2), 7, 3));
        assert!(!barriers.handle_mark(ShardId(2), 6, 3));
        assert!(!barriers.handle_mark(ShardId(1), 7, 1));
        assert!(!barriers.handle_mark(ShardId(1), 7, 1));
        assert!(!barriers.handle_mark(ShardId(2), 7, 3));
        assert!(barriers.handle_mark(ShardId(2), 7, 3));
    }
}
