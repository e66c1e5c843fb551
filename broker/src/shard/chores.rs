//! What one shard does for all of them.

use std::{sync::PoisonError, time::Instant};

use tracing::warn;

use super::Shard;
use crate::routes::ShardId;

impl Shard {
    /// Looks after what belongs to all shards.
    pub(super) fn look_after_all(&mut self, now: Instant) {
        if self.id != ShardId(0) {
            return;
        }
        let retained = &self.shared.retained;
        let readable = retained.read().unwrap_or_else(PoisonError::into_inner);
        let is_due = readable.is_due(now);
        drop(readable);
        if is_due {
            retained
                .write()
                .unwrap_or_else(PoisonError::into_inner)
                .handle_timeout(now);
            self.note_retained();
        }
        if self.shared.stock.ran_out() {
            let bytes = self.shared.stock.bytes();
            warn!(
                bytes,
                "no more messages are queued: limits.node_queue_bytes wait for clients"
            );
        }
    }
}
