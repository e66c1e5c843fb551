//! How many threads a node has, and their end.

use std::{thread, time::Duration};

use tokio::sync::oneshot;

use crate::{cluster::PEERS, routes::ShardSet};

/// Waits for threads and tells how many panicked; `None` when one does not end in time.
///
/// On a thread of its own: the runtime would not end before a task of its own that waits.
pub(super) async fn join(
    threads: Vec<thread::JoinHandle<()>>,
    patience: Duration,
) -> Option<usize> {
    let (all_ended, ended) = oneshot::channel();
    let joiner = thread::Builder::new().name("joiner".to_owned());
    joiner
        .spawn(move || {
            let joined = threads.into_iter().map(thread::JoinHandle::join);
            let _ = all_ended.send(joined.filter(Result::is_err).count());
        })
        .ok()?;
    tokio::time::timeout(patience, ended).await.ok()?.ok()
}

/// One shard per core: a shard is a thread that never waits for another.
pub(super) fn shard_count() -> u16 {
    // Other nodes of a cluster are destinations as shards are.
    let most = ShardSet::CAPACITY - PEERS;
    let cores = thread::available_parallelism().map_or(1, usize::from);
    u16::try_from(cores).unwrap_or(most).min(most)
}
