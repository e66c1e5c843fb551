//! The store's file: a redb database, in which a batch is there as a whole or not at all.
//!
//! What lies under the database is ours, so that it is up to us what a commit waits for: redb writes
//! what it changed beside what is there, then the root, with checksums. Without a sync that is in
//! the kernel's hands, in that order.

#[cfg(test)]
pub(crate) mod faults;
mod file;
mod rows;

use std::{
    fs::{DirBuilder, File},
    io,
    ops::RangeInclusive,
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
};

use redb::{Database, Key, ReadableDatabase, Table, TableDefinition, TableError};

use self::file::{StoreFile, Unsynced};
use super::{
    StoreError,
    batch::{Batch, Cell},
    record::{BodyId, FORMAT},
};
use crate::{
    config::{Persistence, Sync},
    session::journal::{Seq, SessionId},
};

const META: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("meta");
const SESSIONS: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("sessions");
const SUBSCRIPTIONS: TableDefinition<'_, (u64, &str), &[u8]> =
    TableDefinition::new("subscriptions");
const ENTRIES: TableDefinition<'_, (u64, u64), &[u8]> = TableDefinition::new("entries");
const BODIES: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("bodies");
const RECEIVED: TableDefinition<'_, (u64, u16), &[u8]> = TableDefinition::new("received");
const SPREAD: TableDefinition<'_, (u64, u16, u16), &[u8]> = TableDefinition::new("spread");
const RETAINED: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("retained");

/// The formats that this version reads.
const READABLE: RangeInclusive<u32> = 1..=FORMAT;

/// In [`META`]: [`FORMAT`], and whose store it is.
const FORMAT_KEY: &str = "format";
const NODE_KEY: &str = "node";
/// How many shards the node had, so that what is said of one is of the same sessions.
const SHARDS_KEY: &str = "shards";

/// Pages that are kept in memory. Little of what is written is read again.
const CACHE_BYTES: usize = 32 * 1024 * 1024;

/// Why a batch was not written.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub(super) struct WriteError(Box<redb::Error>);

impl<E: Into<redb::Error>> From<E> for WriteError {
    fn from(error: E) -> Self {
        Self(Box::new(error.into()))
    }
}

/// Where batches are written; for tests also what fails on purpose.
pub(super) trait Medium: Send {
    /// Writes all of a batch or nothing, and waits for as long as it has to.
    fn write(&mut self, batch: &Batch) -> Result<(), WriteError>;

    /// Bytes of what is stored.
    fn bytes(&self) -> u64;

    /// Bytes that the file system has left; `None` if it does not say.
    fn free_bytes(&self) -> Option<u64>;
}

/// What a table's rows are given to, a key and a value at a time.
pub(super) trait Reader<E = StoreError> {
    fn session(&mut self, session: u64, value: &[u8]) -> Result<(), E>;
    fn subscription(&mut self, session: u64, filter: &str, value: &[u8]) -> Result<(), E>;
    fn body(&mut self, body: u64, value: &[u8]) -> Result<(), E>;
    fn entry(&mut self, session: u64, seq: u64, value: &[u8]) -> Result<(), E>;
    fn received(&mut self, session: u64, id: u16, value: &[u8]) -> Result<(), E>;
    fn spread(&mut self, session: u64, id: u16, shard: u16) -> Result<(), E>;
    fn retained(&mut self, topic: &str, value: &[u8]) -> Result<(), E>;
}

/// A database on disk.
pub(super) struct Disk {
    directory: PathBuf,
    sync: Sync,
    /// Not there after a failure: it is opened anew, which repairs what has to be.
    database: Option<Database>,
    unsynced: Unsynced,
    bytes: u64,
    shards_before: Option<u16>,
}

impl Disk {
    /// Opens the node's database, or makes one.
    ///
    /// # Errors
    /// When the directory or file cannot be used, or is not this node's.
    pub(super) fn open(config: &Persistence, node: &str, shards: u16) -> Result<Self, StoreError> {
        let directory = config.directory.clone();
        let unsynced = Unsynced::default();
        let database = open(&directory, config.sync, &unsynced)
            .map_err(|error| StoreError::open(&directory, *error.0))?;
        let mut disk = Self {
            directory,
            sync: config.sync,
            database: Some(database),
            unsynced,
            bytes: 0,
            shards_before: None,
        };
        disk.check_owner(node, shards)?;
        Ok(disk)
    }

    /// How many shards the node had, by the file; as many as it has if that is new.
    pub(super) fn shards_before(&self) -> Option<u16> {
        self.shards_before
    }

    /// Makes the directory, for its owner alone.
    ///
    /// # Errors
    /// When it can neither be had nor be made.
    pub(super) fn make_directory(directory: &Path, sync: Sync) -> io::Result<()> {
        make(directory, &mut |parent| match sync {
            Sync::Disk => sync_entries(parent),
            Sync::Process => Ok(()),
        })
    }

    fn check_owner(&mut self, node: &str, shards: u16) -> Result<(), StoreError> {
        let Some(database) = &self.database else {
            return Ok(());
        };
        let failed = |error: WriteError| StoreError::open(&self.directory, *error.0);
        let Some(Signature {
            format,
            node: owner,
            shards: before,
        }) = signature(database).map_err(failed)?
        else {
            self.shards_before = Some(shards);
            return sign(database, node, shards).map_err(failed);
        };
        let found = <[u8; 4]>::try_from(&*format).map_or(0, u32::from_be_bytes);
        if !READABLE.contains(&found) {
            return Err(StoreError::Format {
                directory: self.directory.clone(),
                found,
            });
        }
        if owner != node.as_bytes() {
            return Err(StoreError::OtherNode {
                directory: self.directory.clone(),
                owner: String::from_utf8_lossy(&owner).into_owned(),
            });
        }
        self.shards_before = <[u8; 2]>::try_from(&*before).ok().map(u16::from_be_bytes);
        if found != FORMAT {
            // Before there is a row that the version before cannot read.
            write_meta(database, &[(FORMAT_KEY, &FORMAT.to_be_bytes())]).map_err(failed)?;
        }
        Ok(())
    }

    /// Notes that there are so many shards from now on, together with what that makes of rows: they
    /// would be believed otherwise, if the broker ended in between.
    ///
    /// # Errors
    /// When it cannot be written.
    pub(super) fn settle(&mut self, shards: u16, outdated: &Batch) -> Result<(), StoreError> {
        let Some(database) = &self.database else {
            return Ok(());
        };
        let change = commit(database, outdated, Some(shards))
            .map_err(|error| StoreError::open(&self.directory, *error.0))?;
        self.bytes = self.bytes.saturating_add_signed(change);
        Ok(())
    }

    /// Reads everything: messages before what refers to them, and sessions before what is theirs.
    ///
    /// # Errors
    /// When the file cannot be read, or the reader does not understand a row.
    pub(super) fn read(&mut self, reader: &mut impl Reader) -> Result<(), StoreError> {
        if let Some(database) = &self.database {
            let failed = |error: WriteError| StoreError::open(&self.directory, *error.0);
            self.bytes = rows::read(database, reader, failed)?;
        }
        Ok(())
    }

    /// Opens the database after a failure. Whether what failed has taken place after all is not
    /// known, so what there is is counted anew.
    fn reopen(&mut self) -> Result<Database, WriteError> {
        let database = open(&self.directory, self.sync, &self.unsynced)?;
        self.bytes = rows::count(&database)?;
        Ok(database)
    }
}

/// Makes a directory and those above it that are missing; each parent is told of when it has a new
/// entry.
fn make(directory: &Path, is_made: &mut impl FnMut(&Path) -> io::Result<()>) -> io::Result<()> {
    if directory.is_dir() {
        return Ok(());
    }
    let parent = match directory.parent() {
        Some(parent) if parent.as_os_str().is_empty() => Path::new("."),
        Some(parent) => parent,
        None => return Err(io::ErrorKind::NotFound.into()),
    };
    make(parent, is_made)?;
    match DirBuilder::new().mode(0o700).create(directory) {
        // Somebody else has made it meanwhile.
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists && directory.is_dir() => Ok(()),
        Err(error) => Err(error),
        Ok(()) => is_made(parent),
    }
}

/// Has the disk know what there is in a directory: a file is synced in vain if the way to it is lost.
fn sync_entries(directory: &Path) -> io::Result<()> {
    match File::open(directory) {
        Ok(directory) => directory.sync_all(),
        // To make something in it takes no right to read it.
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Ok(()),
        Err(error) => Err(error),
    }
}

/// What a file says of itself.
struct Signature {
    format: Vec<u8>,
    node: Vec<u8>,
    shards: Vec<u8>,
}

/// What the file says of itself, if it is not new.
fn signature(database: &Database) -> Result<Option<Signature>, WriteError> {
    let transaction = database.begin_read()?;
    let table = match transaction.open_table(META) {
        Ok(table) => table,
        Err(TableError::TableDoesNotExist(_)) => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    let read = |key| -> Result<Vec<u8>, WriteError> {
        let value = table.get(key)?;
        Ok(value.map_or_else(Vec::new, |value| value.value().to_vec()))
    };
    Ok(Some(Signature {
        format: read(FORMAT_KEY)?,
        node: read(NODE_KEY)?,
        shards: read(SHARDS_KEY)?,
    }))
}

fn sign(database: &Database, node: &str, shards: u16) -> Result<(), WriteError> {
    let rows: [(&str, &[u8]); 3] = [
        (FORMAT_KEY, &FORMAT.to_be_bytes()),
        (NODE_KEY, node.as_bytes()),
        (SHARDS_KEY, &shards.to_be_bytes()),
    ];
    write_meta(database, &rows)
}

fn write_meta(database: &Database, rows: &[(&str, &[u8])]) -> Result<(), WriteError> {
    let transaction = database.begin_write()?;
    let mut table = transaction.open_table(META)?;
    for (key, value) in rows {
        table.insert(*key, *value)?;
    }
    drop(table);
    transaction.commit()?;
    Ok(())
}

fn open(directory: &Path, sync: Sync, unsynced: &Unsynced) -> Result<Database, WriteError> {
    let file = StoreFile::open(directory, sync, unsynced)?;
    let database = Database::builder()
        .set_cache_size(CACHE_BYTES)
        // All of it is read anyway, and damage is found before anything rests on it.
        .set_check_integrity_on_open(true)
        .create_with_backend(file)?;
    Ok(database)
}

impl Medium for Disk {
    fn write(&mut self, batch: &Batch) -> Result<(), WriteError> {
        let database = match self.database.take() {
            Some(database) => database,
            None => self.reopen()?,
        };
        let change = commit(&database, batch, None)?;
        self.bytes = self.bytes.saturating_add_signed(change);
        self.database = Some(database);
        Ok(())
    }

    fn bytes(&self) -> u64 {
        self.bytes
    }

    fn free_bytes(&self) -> Option<u64> {
        let there = rustix::fs::statvfs(&self.directory).ok()?;
        Some(there.f_bavail.saturating_mul(there.f_frsize))
    }
}

/// Writes a batch, and how many shards there are if that has changed; tells by how much what is
/// stored has grown.
fn commit(database: &Database, batch: &Batch, shards: Option<u16>) -> Result<i64, WriteError> {
    let Batch {
        sessions,
        subscriptions,
        entries,
        bodies,
        received,
        spread,
        retained,
        fresh: _,
        is_uncertain: _,
    } = batch;
    let transaction = database.begin_write()?;
    if let Some(shards) = shards {
        let mut table = transaction.open_table(META)?;
        table.insert(SHARDS_KEY, shards.to_be_bytes().as_slice())?;
    }
    let mut change = 0;
    macro_rules! put_all {
        ($table:expr, $cells:expr, $key:expr) => {
            if !$cells.is_empty() {
                let mut table = transaction.open_table($table)?;
                for (key, cell) in $cells {
                    let (key, length) = $key(key);
                    change += put(&mut table, key, length, cell)?;
                }
            }
        };
    }
    put_all!(BODIES, bodies, |key: &BodyId| (key.0, 8));
    put_all!(SESSIONS, sessions, |key: &SessionId| (key.0, 8));
    put_all!(SUBSCRIPTIONS, subscriptions, subscription_key);
    put_all!(ENTRIES, entries, |key: &(SessionId, Seq)| (
        (key.0.0, key.1.0),
        16
    ));
    put_all!(RECEIVED, received, |key: &(SessionId, u16)| (
        (key.0.0, key.1),
        10
    ));
    put_all!(SPREAD, spread, |key: &(SessionId, u16, u16)| (
        (key.0.0, key.1, key.2),
        12
    ));
    put_all!(RETAINED, retained, retained_key);
    transaction.commit()?;
    Ok(change)
}

fn subscription_key((session, filter): &(SessionId, Box<str>)) -> ((u64, &str), usize) {
    ((session.0, &**filter), 8 + filter.len())
}

/// What a map of topics lends.
#[expect(clippy::borrowed_box, reason = "so are the keys of the map")]
fn retained_key(topic: &Box<str>) -> (&str, usize) {
    (topic, topic.len())
}

fn put<'k, K: Key + 'static>(
    table: &mut Table<'_, K, &'static [u8]>,
    key: K::SelfType<'k>,
    key_bytes: usize,
    cell: &Cell,
) -> Result<i64, redb::StorageError> {
    let row = |value: usize| i64::try_from(key_bytes + value).unwrap_or(i64::MAX);
    let (added, before) = match cell {
        Some(value) => (row(value.len()), table.insert(key, value.as_slice())?),
        None => (0, table.remove(key)?),
    };
    Ok(added - before.map_or(0, |before| row(before.value().len())))
}

#[cfg(test)]
mod tests;
