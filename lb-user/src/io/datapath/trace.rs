//! The verdict of each packet as a line in the log, in builds with the feature `trace`.
//!
//! The program writes into aya-log's ring; a thread reads it. What finds no room in the ring is
//! lost: this is for debugging by hand, not for counting.

use std::{
    io,
    os::fd::AsFd as _,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::Duration,
};

use aya::Ebpf;
use aya_log::EbpfLogger;
use lb_common::verdict::Verdict;
use log::{Log, Metadata, Record};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use tracing::trace;

use super::DatapathError;

/// How long the thread may take to notice that it should end.
const PATIENCE: Duration = Duration::from_millis(200);

/// The thread that reads, ended when dropped.
pub(super) struct Reader {
    over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Reader {
    /// Begins to read. Before programs are loaded: they take the ring from here.
    pub(super) fn start(ebpf: &mut Ebpf) -> Result<Self, DatapathError> {
        let unread = |source| DatapathError::Trace { source };
        let ring = EbpfLogger::init_with_logger(ebpf, Lines);
        let ring = ring.map_err(|error| unread(io::Error::other(error)))?;
        let over = Arc::new(AtomicBool::new(false));
        let is_over = Arc::clone(&over);
        let thread = std::thread::Builder::new()
            .name("trace".to_owned())
            .spawn(move || read(ring, &is_over))
            .map_err(unread)?;
        Ok(Self {
            over,
            thread: Some(thread),
        })
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // One that panicked has said so.
            let _ended = thread.join();
        }
    }
}

fn read(mut ring: EbpfLogger<Lines>, is_over: &AtomicBool) {
    let patience = Timespec::try_from(PATIENCE).ok();
    while !is_over.load(Ordering::Relaxed) {
        let readable = poll(
            &mut [PollFd::from_borrowed_fd(ring.as_fd(), PollFlags::IN)],
            patience.as_ref(),
        );
        match readable {
            Ok(_) | Err(rustix::io::Errno::INTR) => ring.flush(),
            Err(error) => {
                tracing::warn!(%error, "verdicts can no longer be read");
                return;
            }
        }
    }
}

/// Makes lines of what the program writes.
struct Lines;

impl Log for Lines {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &Record<'_>) {
        let text = record.args().to_string();
        match verdict(&text) {
            Some(verdict) => trace!(verdict = verdict.label(), "packet"),
            None => trace!(text, "packet"),
        }
    }

    fn flush(&self) {}
}

/// Reads the one form that the program writes.
fn verdict(text: &str) -> Option<Verdict> {
    let slot: u32 = text.strip_prefix("verdict ")?.parse().ok()?;
    Verdict::ALL
        .iter()
        .copied()
        .find(|verdict| verdict.slot() == slot)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn verdicts_are_named() {
        let text = format!("verdict {}", Verdict::TxDsr.slot());
        assert_eq!(verdict(&text), Some(Verdict::TxDsr));
        assert_eq!(verdict("verdict 100000"), None);
        assert_eq!(verdict("something else"), None);
    }
}
