//! Disks that tests have fail.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::File,
    io,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    sync::{Arc, Condvar, Mutex, MutexGuard},
};

use rustix::io::Errno;

static DISKS: Mutex<BTreeMap<PathBuf, Arc<Faults>>> = Mutex::new(BTreeMap::new());

/// What is wrong with the disk under a store.
#[derive(Debug, Default)]
pub(crate) struct Faults {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    is_full: bool,
    hangs: bool,
    /// A write has come and waits.
    holds_write: bool,
    /// Syncs that succeed before one fails.
    good_syncs: Option<usize>,
    platter: Option<Platter>,
}

/// What the disk itself has, as opposed to the kernel's memory: what was written before a sync that
/// succeeded. A sync that fails leaves out what it was for, and so does the next one.
#[derive(Debug)]
struct Platter {
    bytes: Vec<u8>,
    /// What the kernel means to write: offset and length.
    dirty: BTreeSet<(u64, usize)>,
}

/// The disk under the store in this directory.
pub(crate) fn of(directory: &Path) -> Arc<Faults> {
    let mut disks = DISKS.lock().unwrap();
    Arc::clone(disks.entry(directory.to_owned()).or_default())
}

/// Has every write fail to a store in this directory.
pub(crate) fn begin(directory: &Path) {
    of(directory).lock().is_full = true;
}

/// Has every write wait.
pub(crate) fn hang(directory: &Path) {
    of(directory).lock().hangs = true;
}

pub(crate) fn end(directory: &Path) {
    let faults = of(directory);
    let mut state = faults.lock();
    (state.is_full, state.hangs) = (false, false);
    drop(state);
    faults.changed.notify_all();
}

impl Faults {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    /// Whether a write waits since the disk hangs.
    pub(crate) fn holds_write(&self) -> bool {
        self.lock().holds_write
    }

    /// Follows what the disk has from then on, all of which is written.
    pub(super) fn follow(&self, file: &Path) {
        self.lock().platter = Some(Platter {
            bytes: std::fs::read(file).unwrap(),
            dirty: BTreeSet::new(),
        });
    }

    /// What would be there if the power had failed.
    pub(super) fn platter(&self) -> Vec<u8> {
        self.lock().platter.as_ref().unwrap().bytes.clone()
    }

    /// Has one sync fail, after so many that succeed.
    pub(super) fn fail_sync(&self, after: usize) {
        self.lock().good_syncs = Some(after);
    }

    /// Whether the sync that was to fail has.
    pub(super) fn has_failed(&self) -> bool {
        self.lock().good_syncs.is_none()
    }

    pub(super) fn write(&self, offset: u64, length: usize) -> io::Result<()> {
        let mut state = self.lock();
        state.holds_write = state.hangs;
        let mut state = self.changed.wait_while(state, |it| it.hangs).unwrap();
        state.holds_write = false;
        if state.is_full {
            return Err(io::ErrorKind::StorageFull.into());
        }
        if let Some(platter) = &mut state.platter {
            platter.dirty.insert((offset, length));
        }
        Ok(())
    }

    pub(super) fn sync(&self, file: &File) -> io::Result<()> {
        let mut state = self.lock();
        let State {
            good_syncs,
            platter,
            ..
        } = &mut *state;
        if *good_syncs == Some(0) {
            *good_syncs = None;
            if let Some(platter) = platter {
                platter.dirty.clear();
            }
            return Err(Errno::IO.into());
        }
        *good_syncs = good_syncs.map(|left| left - 1);
        if let Some(platter) = platter {
            platter.take(file);
        }
        Ok(())
    }
}

impl Platter {
    fn take(&mut self, file: &File) {
        let length = usize::try_from(file.metadata().unwrap().len()).unwrap();
        self.bytes.resize(length, 0);
        for (offset, length) in std::mem::take(&mut self.dirty) {
            let start = usize::try_from(offset).unwrap();
            let end = self.bytes.len().min(start + length);
            if let Some(bytes) = self.bytes.get_mut(start..end) {
                file.read_exact_at(bytes, offset).unwrap();
            }
        }
    }
}
