//! The file that the database lies in, and what of it the disk may not have.
//!
//! A sync that failed cannot be repeated. The kernel reports the error once, and from then on holds
//! for written what is not: the next sync would succeed, and what it left out would be missed when
//! the power fails. So what was written since the last good sync is remembered here, and written
//! again, the same bytes in the same places, before the database is opened again and rests on them.

use std::{
    collections::BTreeMap,
    fs::{File, OpenOptions},
    io,
    os::unix::fs::{FileExt, OpenOptionsExt},
    path::Path,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use redb::StorageBackend;
use rustix::fs::{Advice, fadvise};

#[cfg(test)]
use super::faults::{self, Faults};
use crate::config::Sync;

const FILE_NAME: &str = "store.redb";

/// What is read at a time to be written again.
const PIECE: usize = 64 * 1024;

/// What was written since the last sync that succeeded: lengths by offset. Survives that the file is
/// closed and opened again.
#[derive(Clone, Debug, Default)]
pub(super) struct Unsynced(Arc<Mutex<BTreeMap<u64, usize>>>);

impl Unsynced {
    fn note(&self, offset: u64, length: usize) {
        let mut written = self.lock();
        let longest = written.entry(offset).or_default();
        *longest = length.max(*longest);
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<u64, usize>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// An open file.
#[derive(Debug)]
pub(super) struct StoreFile {
    file: File,
    sync: Sync,
    unsynced: Unsynced,
    #[cfg(test)]
    faults: Arc<Faults>,
}

impl StoreFile {
    /// Opens the file, or makes it.
    ///
    /// # Errors
    /// When it cannot be had, or the disk does not take what it may have missed.
    pub(super) fn open(directory: &Path, sync: Sync, unsynced: &Unsynced) -> io::Result<Self> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(directory.join(FILE_NAME))?;
        let file = Self {
            file,
            sync,
            unsynced: unsynced.clone(),
            #[cfg(test)]
            faults: faults::of(directory),
        };
        if sync == Sync::Disk {
            // That there is such a file.
            File::open(directory)?.sync_all()?;
            file.write_again()?;
            file.sync_data()?;
            file.forget();
        }
        Ok(file)
    }

    /// What the kernel still has of it, or an older state that it has read from the disk since: the
    /// database tells by its checksums which of the two that is.
    fn write_again(&self) -> io::Result<()> {
        let written = self.unsynced.lock().clone();
        let end = self.len()?;
        for (start, length) in written {
            let end = end.min(start.saturating_add(length as u64));
            let mut offset = start;
            while offset < end {
                let left = usize::try_from(end - offset).unwrap_or(PIECE);
                let mut piece = vec![0; left.min(PIECE)];
                self.read(offset, &mut piece)?;
                self.write(offset, &piece)?;
                offset += piece.len() as u64;
            }
        }
        Ok(())
    }

    /// Has the kernel forget what it has of the file in memory, as far as the disk has it too: what is
    /// read then is what the disk has. An earlier process may have ended after a sync that failed.
    fn forget(&self) {
        // Where the kernel cannot, there is nothing to be done.
        let _ = fadvise(&self.file, 0, None, Advice::DontNeed);
    }
}

impl StorageBackend for StoreFile {
    fn len(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.file.read_exact_at(out, offset)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.file.set_len(len)
    }

    fn sync_data(&self) -> io::Result<()> {
        if self.sync == Sync::Process {
            return Ok(());
        }
        #[cfg(test)]
        self.faults.sync(&self.file)?;
        self.file.sync_data()?;
        self.unsynced.lock().clear();
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        if self.sync == Sync::Disk {
            self.unsynced.note(offset, data.len());
        }
        #[cfg(test)]
        self.faults.write(offset, data.len())?;
        self.file.write_all_at(data, offset)
    }
}
