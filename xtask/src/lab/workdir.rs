//! Directories for configs, logs and sockets of one run, removed with it.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use rustix::mount::{UnmountFlags, unmount};

use super::{dead_owner, unique_name};

/// Set to keep the logs of a run.
const KEEP: &str = "TIDEGATE_KEEP_LOGS";

/// A directory of this run's own, removed when dropped unless `TIDEGATE_KEEP_LOGS` is set.
#[derive(Debug)]
pub struct WorkDir(PathBuf);

impl WorkDir {
    /// Makes an empty directory.
    ///
    /// # Errors
    /// When the temporary directory is not writable.
    pub fn new() -> Result<Self> {
        let path = std::env::temp_dir().join(unique_name());
        std::fs::create_dir_all(&path)
            .with_context(|| format!("cannot make {}", path.display()))?;
        Ok(Self(path))
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for WorkDir {
    fn drop(&mut self) {
        unmount_below(&self.0);
        if std::env::var_os(KEEP).is_none() {
            // A directory that stays is found by `clean_leftovers`.
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }
}

/// Unmounts the BPF file systems that balancers have mounted in a directory: with its file system goes
/// what is pinned there, and with that the program from its interface.
fn unmount_below(directory: &Path) {
    let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    let targets = mounts.lines().filter_map(|line| line.split(' ').nth(1));
    for target in targets.filter(|target| Path::new(target).starts_with(directory)) {
        // One that stays is found by `clean_leftovers`.
        let _ = unmount(target, UnmountFlags::DETACH);
    }
}

pub(super) fn clean_leftovers() -> Result<()> {
    if std::env::var_os(KEEP).is_some() {
        return Ok(());
    }
    let Ok(entries) = std::fs::read_dir(std::env::temp_dir()) else {
        return Ok(());
    };
    for entry in entries.flatten() {
        if dead_owner(&entry.file_name().to_string_lossy()).is_some() {
            let path = entry.path();
            unmount_below(&path);
            let removed = std::fs::remove_dir_all(&path);
            // Another run may have been quicker.
            if path.exists() {
                removed.with_context(|| format!("cannot remove {}", path.display()))?;
            }
        }
    }
    Ok(())
}
