//! The end of a node's threads.

use std::{thread, time::Duration};

use tokio::sync::oneshot;

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
