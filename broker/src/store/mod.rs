//! What outlives the process: kept sessions and retained messages.
//!
//! ```text
//! session -> journal (a list of changes, per shard)
//!   -> account: a parcel of changes, numbered -> the store's thread (worker)
//!        scribe: changes -> batch of rows; all parcels that wait are one batch
//!        disk:   batch -> one transaction of a redb database, one sync
//!   <- the number of the last parcel that is stored: what waits for it may leave the sockets
//! ```
//!
//! Memory goes ahead and the store follows: it holds what was true at some moment, a beginning of
//! all that has happened. Nothing that a client is told rests on more than that: see
//! [`crate::output`]. When a write fails it is tried again until it succeeds, with what has come
//! meanwhile, and until then what would need the store is refused. So it is while a write hangs
//! (`watch`).

mod batch;
mod clock;
mod disk;
mod load;
pub(crate) mod record;
mod scribe;
mod status;
mod watch;
mod worker;

use std::{
    io,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU8, AtomicU64, Ordering},
        mpsc,
    },
    thread,
    time::{Duration, Instant},
};

use console::lock::{self, LockError};
use thiserror::Error;
use tokio::sync::Notify;
use tracing::{info, warn};

pub(crate) use self::clock::Clock;
use self::{disk::Disk, load::Loader, record::FORMAT, scribe::Scribe};
use crate::{
    config::Persistence,
    retained::{Note, Notes},
    routes::ShardId,
    session::journal::{Change, SessionId},
    shares::Shares,
};
#[cfg(test)]
pub(crate) use disk::faults;
pub(crate) use load::Saved;
use status::Stats;
pub use status::{Condition, StoreView};
use watch::Watch;

/// How long a predecessor that is about to end may still have the store.
const LOCK_PATIENCE: Duration = Duration::from_secs(10);

/// Bytes of retained messages that may wait for the store before shards stop reading from clients.
const NOTED_BOUND: usize = 8 * 1024 * 1024;

/// Why there is no store.
#[derive(Debug, Error)]
pub enum StoreError {
    #[error("persistence: cannot use the directory {path}", path = directory.display())]
    Directory {
        directory: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("persistence: another broker uses {path}", path = directory.display())]
    Lock {
        directory: PathBuf,
        #[source]
        source: LockError,
    },
    #[error(
        "persistence: no room to open the store in {path}: make some on its file system; nothing of \
         what is stored is lost",
        path = directory.display()
    )]
    NoRoom {
        directory: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error(
        "persistence: cannot read and write the store in {path}; what is stored may be whole, so \
         leave the file where it is, and see to the disk",
        path = directory.display()
    )]
    Io {
        directory: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error(
        "persistence: cannot open the store in {path}; if the file is damaged, move it away, and \
         the broker starts without what was stored",
        path = directory.display()
    )]
    Open {
        directory: PathBuf,
        #[source]
        source: Box<redb::Error>,
    },
    #[error(
        "persistence: {path} holds the store of node {owner:?}; give this node a directory of its \
         own",
        path = directory.display()
    )]
    OtherNode { directory: PathBuf, owner: String },
    #[error(
        "persistence: the store in {path} is of format {found}, and this version reads those up to \
         {FORMAT}: use the version that wrote it, or another directory",
        path = directory.display()
    )]
    Format { directory: PathBuf, found: u32 },
    #[error(
        "persistence: the store in {path} has a row that makes no sense, {key:?} of {table}; move \
         the file away, and the broker starts without what was stored",
        path = directory.display()
    )]
    Damaged {
        directory: PathBuf,
        table: &'static str,
        key: String,
    },
    #[error("persistence: cannot start the store's thread")]
    Thread(#[source] io::Error),
}

impl StoreError {
    /// What is to be done about it depends on what it is: only what is damaged is lost.
    fn open(directory: &Path, source: redb::Error) -> Self {
        use io::ErrorKind::{InvalidData, QuotaExceeded, StorageFull, UnexpectedEof};
        let directory = directory.to_owned();
        let redb::Error::Io(source) = source else {
            let source = Box::new(source);
            return Self::Open { directory, source };
        };
        let kind = source.kind();
        if matches!(kind, StorageFull | QuotaExceeded) {
            Self::NoRoom { directory, source }
        } else if matches!(kind, InvalidData | UnexpectedEof) {
            // Too short, or another kind of file.
            let source = Box::new(redb::Error::Io(source));
            Self::Open { directory, source }
        } else {
            Self::Io { directory, source }
        }
    }
}

/// Changes of one shard, to be stored.
pub(crate) struct Parcel {
    pub(crate) shard: ShardId,
    /// Consecutive, beginning with 1.
    pub(crate) number: u64,
    pub(crate) changes: Vec<(SessionId, Change)>,
}

/// What the shards know of the store.
#[derive(Debug)]
pub(crate) struct Store {
    last_session: AtomicU64,
    /// The last one is the cluster's thread, which has no sessions and notes what is retained.
    shards: Vec<Progress>,
    condition: AtomicU8,
    /// What is retained, and not taken to be stored.
    notes: Notes,
    stats: Stats,
    max_bytes: u64,
}

/// How far one shard's changes are stored.
#[derive(Debug, Default)]
struct Progress {
    stored: AtomicU64,
    /// More is stored, or the store's condition is another.
    changed: Notify,
}

/// A store that has been opened, and all that comes with it.
pub(crate) struct Opened {
    pub(crate) store: Arc<Store>,
    pub(crate) saved: Saved,
    /// Where retained messages are noted.
    pub(crate) notes: Notes,
    /// Where parcels go; the thread ends when nobody has this any more.
    pub(crate) parcels: mpsc::Sender<Parcel>,
    pub(crate) thread: thread::JoinHandle<()>,
}

impl Store {
    /// Opens the node's store, reads everything in it, and starts its thread, which drops `alive`
    /// when it ends.
    ///
    /// # Errors
    /// When directory or file cannot be used, or are not this node's.
    pub(crate) fn open(
        config: &Persistence,
        node: &str,
        shards: u16,
        shares: Arc<Shares>,
        alive: impl Send + 'static,
    ) -> Result<Opened, StoreError> {
        let began = Instant::now();
        let directory = &config.directory;
        let made = Disk::make_directory(directory, config.sync);
        made.map_err(|source| StoreError::Directory {
            directory: directory.clone(),
            source,
        })?;
        let lock = lock::hold(&directory.join("store"), LOCK_PATIENCE);
        let lock = lock.map_err(|source| StoreError::Lock {
            directory: directory.clone(),
            source,
        })?;
        let mut disk = Disk::open(config, node, shards)?;
        let has_same_shards = disk.shards_before() == Some(shards);
        let mut loader = Loader::new(directory, has_same_shards, Clock::read());
        disk.read(&mut loader)?;
        if !has_same_shards {
            disk.settle(shards, &loader.outdated)?;
        }
        let saved = loader.finish();
        let (last_session, last_body) = loader.last();
        let mut scribe = Scribe::new(shares, last_body);
        for (message, body) in loader.references.drain(..) {
            scribe.adopt(&message, body);
        }
        for origin in &loader.begun {
            scribe.adopt_begun(*origin);
        }
        for (shard, origin) in &saved.taken {
            scribe.adopt_spread(*origin, *shard);
        }
        if !loader.strays.is_empty() {
            let rows = loader.strays.len();
            warn!(
                rows,
                "the store has rows that belong to nothing; they are removed"
            );
            scribe.remove(std::mem::take(&mut loader.strays));
        }
        let load::Counts {
            sessions,
            subscriptions,
            messages,
            retained,
        } = loader.counts;
        info!(
            directory = %directory.display(),
            sessions,
            subscriptions,
            messages,
            retained,
            took = ?began.elapsed(),
            "store read"
        );
        let store = Arc::new(Self::new(shards, last_session, config));
        let watch = Arc::new(Watch::new(Arc::clone(&store), config.patience));
        let notes = store.notes.clone();
        let (parcels, arriving) = mpsc::channel();
        let worker = worker::Worker::new(
            Arc::clone(&store),
            scribe,
            Box::new(disk),
            Arc::clone(&watch),
            config,
        );
        let (end, over) = mpsc::channel();
        thread::Builder::new()
            .name("store-watch".to_owned())
            .spawn(move || watch.run(&over))
            .map_err(StoreError::Thread)?;
        let thread = thread::Builder::new().name("store".to_owned());
        let thread = thread
            .spawn(move || {
                let (_alive, _end) = (alive, end);
                worker.run(&arriving);
                drop(lock);
            })
            .map_err(StoreError::Thread)?;
        Ok(Opened {
            store,
            saved,
            notes,
            parcels,
            thread,
        })
    }

    fn new(shards: u16, last_session: SessionId, config: &Persistence) -> Self {
        Self {
            last_session: AtomicU64::new(last_session.0),
            shards: (0..=shards).map(|_shard| Progress::default()).collect(),
            condition: AtomicU8::new(Condition::Good as u8),
            notes: Notes::default(),
            stats: Stats::default(),
            max_bytes: config.max_bytes,
        }
    }

    /// One of so many shards that nobody writes.
    #[cfg(test)]
    pub(crate) fn for_tests(shards: u16) -> Self {
        let config = Persistence {
            directory: "/nowhere".into(),
            sync: crate::config::Sync::Process,
            max_bytes: u64::MAX,
            min_free_bytes: 0,
            patience: Duration::MAX,
        };
        Self::new(shards, SessionId(0), &config)
    }

    /// The number of another session.
    pub(crate) fn next_session(&self) -> SessionId {
        SessionId(self.last_session.fetch_add(1, Ordering::Relaxed) + 1)
    }

    /// Whose parcels those of the cluster's thread are.
    pub(crate) fn cluster(&self) -> ShardId {
        let shards = self.shards.len().saturating_sub(1);
        ShardId(u16::try_from(shards).unwrap_or(u16::MAX))
    }

    /// The last parcel of a shard that is stored.
    pub(crate) fn stored(&self, shard: ShardId) -> u64 {
        self.shards
            .get(usize::from(shard.0))
            .map_or(0, |progress| progress.stored.load(Ordering::Acquire))
    }

    /// Waits until more of a shard is stored, or the store's condition changes.
    pub(crate) async fn changed(&self, shard: ShardId) {
        match self.shards.get(usize::from(shard.0)) {
            Some(progress) => progress.changed.notified().await,
            None => std::future::pending().await,
        }
    }

    pub(crate) fn condition(&self) -> Condition {
        Condition::of(self.condition.load(Ordering::Acquire))
    }

    /// Whether so much that is retained waits for the store that no more should be taken.
    pub(crate) fn has_many_notes(&self) -> bool {
        self.notes.bytes() > NOTED_BOUND
    }

    /// Takes what became of retained messages.
    fn take_notes(&self) -> Vec<Note> {
        let were_many = self.has_many_notes();
        let notes = self.notes.take();
        if were_many {
            self.rouse();
        }
        notes
    }

    /// Has all shards look how the store is.
    fn rouse(&self) {
        for progress in &self.shards {
            progress.changed.notify_one();
        }
    }

    fn set_stored(&self, shard: ShardId, number: u64) {
        if let Some(progress) = self.shards.get(usize::from(shard.0)) {
            progress.stored.store(number, Ordering::Release);
            progress.changed.notify_one();
        }
    }

    /// Tells what it was before.
    pub(crate) fn set_condition(&self, condition: Condition) -> Condition {
        let before = self.condition.swap(condition as u8, Ordering::AcqRel);
        let before = Condition::of(before);
        if before != condition {
            self.rouse();
        }
        before
    }
}
