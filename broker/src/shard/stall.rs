//! Connections that wait because lanes, or the store, are full.

use std::task::Waker;

use super::{SessionKey, Shard};
use crate::codec;

impl Shard {
    /// Wakes connections that wait for room, if there is some.
    pub(super) fn resume_stalled(&mut self) {
        self.relief.notify_waiters();
        if self.is_store_congested() || !self.outbox.is_unblocked(self.shared.shards) {
            return;
        }
        let stalled = std::mem::take(&mut self.stalled);
        stalled.into_values().for_each(Waker::wake);
        if !self.held_up.is_empty() && self.outbox.is_relieved() {
            let held_up = std::mem::take(&mut self.held_up);
            held_up.into_values().for_each(Waker::wake);
        }
    }

    pub(super) fn is_store_congested(&self) -> bool {
        let account = self.account.as_ref();
        account.is_some_and(|account| account.is_congested())
    }

    /// Whether the lanes, or the way to the store, are so full that connections should stop reading
    /// before this packet; the task of the session's connection is woken when there is room.
    ///
    /// Another node that does not keep up holds up publishers first: what they send is most of what goes
    /// there. What acknowledgements and subscriptions of kept sessions make this node tell their
    /// copies is bounded as what is to be stored is: by what may be noted and not be safe.
    pub(crate) fn stall(&mut self, key: SessionKey, packet: &[u8], waker: &Waker) -> bool {
        if self.is_store_congested() || self.outbox.is_blocked(self.shared.shards) {
            self.stalled.insert(key, waker.clone());
            return true;
        }
        let is_held_up = codec::is_publish(packet) && self.outbox.is_congested();
        if is_held_up {
            self.held_up.insert(key, waker.clone());
        }
        is_held_up
    }

    /// Whether the lanes, or the way to the store, are full.
    pub(super) fn is_congested(&self) -> bool {
        self.outbox.is_congested() || self.is_store_congested()
    }
}

#[cfg(test)]
mod tests {
    use std::{sync::Arc, time::Instant};

    use super::*;
    use crate::{
        access::Identity, lanes::Outbox, message::Qos, metrics::Counters, routes::ShardId,
        session::Session, shard::Shared, testing,
    };

    const PING: &[u8] = b"\xc0\0";
    const PUBLISH: &[u8] = b"\x32\x05\0\x01t\0\x01";

    #[test]
    fn connection_that_is_polled_again_while_it_is_stalled_waits_once() {
        let mut shard = Shard::new(
            ShardId(0),
            Shared::for_tests("", 2),
            Arc::new(Counters::default()),
        );
        let session = Session::new(shard.room());
        let key = shard.sessions.insert("c", Identity::ANONYMOUS, session);
        assert!(!shard.stall(key, PING, Waker::noop()));
        let message = testing::message(vec![0; 1024 * 1024], Qos::AtMostOnce);
        for _ in 0..3 {
            shard.outbox.push(ShardId(1), &message, &[], Instant::now());
        }
        for _ in 0..3 {
            assert!(shard.stall(key, PING, Waker::noop()));
        }
        assert_eq!(shard.stalled.len(), 1);
    }

    #[test]
    fn node_that_does_not_keep_up_stalls_nobody_but_publishers() {
        let shared = Shared::for_tests("", 1);
        let mut shard = Shard::new(ShardId(0), Arc::clone(&shared), Arc::default());
        // A lane behind those of the shards.
        shard.outbox = Outbox::new(ShardId(0), 2, Arc::clone(&shared.lanes));
        let session = Session::new(shard.room());
        let key = shard.sessions.insert("c", Identity::ANONYMOUS, session);
        let message = testing::message(vec![0; 3 * 1024 * 1024], Qos::AtMostOnce);
        shard.outbox.push(ShardId(1), &message, &[], Instant::now());
        assert!(!shard.stall(key, PING, Waker::noop()));
        assert!(shard.stall(key, PUBLISH, Waker::noop()));
        shard.resume_stalled();
        assert_eq!(shard.held_up.len(), 1);
        // There is an end to what others bring about, too.
        for _ in 0..5 {
            shard.outbox.push(ShardId(1), &message, &[], Instant::now());
        }
        assert!(shard.stall(key, PING, Waker::noop()));
        shard.resume_stalled();
        assert_eq!((shard.stalled.len(), shard.held_up.len()), (1, 1));
        shard.outbox = Outbox::new(ShardId(0), 2, Arc::clone(&shared.lanes));
        shard.resume_stalled();
        assert!(shard.stalled.is_empty() && shard.held_up.is_empty());
    }
}
