//! Locks between processes: a file beside what one guards, which its owner alone may open.
//!
//! Not what is guarded itself, or its directory: whoever may read these may lock them too.

use std::{
    fs::{self, File, OpenOptions},
    io,
    os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, fchown},
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use rustix::{
    fs::{FlockOperation, OFlags, flock},
    io::Errno,
};

/// How often it is looked whether a lock is free.
const LOOK: Duration = Duration::from_millis(10);

/// Why something cannot be locked.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    #[error("another process has locked {path} for too long: `fuser {path}` names it", path = .0.display())]
    Held(PathBuf),
    #[error("cannot lock {}", .path.display())]
    File { path: PathBuf, source: io::Error },
}

/// A lock that is held; the file goes with it.
#[derive(Debug)]
pub struct Lock {
    /// Locked as long as it is open.
    _file: File,
    path: PathBuf,
}

impl Drop for Lock {
    fn drop(&mut self) {
        // One that stays is used again.
        let _ = fs::remove_file(&self.path);
    }
}

/// Keeps other processes that do the same away from a file until the result is dropped.
///
/// # Errors
///
/// If another one does not let go of it in time, or the file for the lock cannot be made.
pub fn hold(guarded: &Path, patience: Duration) -> Result<Lock, LockError> {
    let mut path = guarded.as_os_str().to_owned();
    path.push(".lock");
    let path = PathBuf::from(path);
    let deadline = Instant::now() + patience;
    loop {
        match try_lock(&path, guarded) {
            Ok(Some(file)) => return Ok(Lock { _file: file, path }),
            Ok(None) if Instant::now() < deadline => thread::sleep(LOOK),
            Ok(None) => return Err(LockError::Held(path)),
            Err(source) => return Err(LockError::File { path, source }),
        }
    }
}

/// Makes and locks the file; `None` while another process has it.
fn try_lock(path: &Path, guarded: &Path) -> io::Result<Option<File>> {
    let Some(file) = open(path, guarded)? else {
        return Ok(None);
    };
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => {}
        Err(Errno::WOULDBLOCK | Errno::INTR) => return Ok(None),
        Err(error) => return Err(error.into()),
    }
    // Who had it may have removed it between the two: then it keeps nobody away.
    let is_there = match fs::symlink_metadata(path) {
        Ok(there) => {
            let ours = file.metadata()?;
            (there.dev(), there.ino()) == (ours.dev(), ours.ino())
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => false,
        Err(error) => return Err(error),
    };
    Ok(is_there.then_some(file))
}

/// `None` when it was there and has just been removed.
fn open(path: &Path, guarded: &Path) -> io::Result<Option<File>> {
    let made = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path);
    match made {
        Ok(file) => {
            // Root may work on what is another user's, who has to be able to do so too. Others
            // cannot give files away, and need not.
            if let Ok(guarded) = fs::metadata(guarded) {
                let _ = fchown(&file, Some(guarded.uid()), None);
            }
            return Ok(Some(file));
        }
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        Err(error) => return Err(error),
    }
    let found = OpenOptions::new()
        .read(true)
        .custom_flags((OFlags::NOFOLLOW | OFlags::NONBLOCK).bits().cast_signed())
        .open(path);
    match found {
        Ok(file) => Ok(Some(file)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn lock_is_its_owners_alone_and_waited_for_in_vain_while_it_is_held() {
        let name = format!("tidegate-lock-{}", std::process::id());
        let directory = std::env::temp_dir().join(name);
        fs::create_dir(&directory).unwrap();
        let guarded = directory.join("file");
        let held = hold(&guarded, Duration::ZERO).unwrap();
        let lock = directory.join("file.lock");
        let mode = fs::metadata(&lock).unwrap().permissions().mode();
        assert_eq!(mode & 0o7777, 0o600);
        let refused = hold(&guarded, Duration::from_millis(20)).unwrap_err();
        assert!(refused.to_string().contains("file.lock"), "{refused}");
        assert!(matches!(refused, LockError::Held(_)));
        drop(held);
        assert!(!lock.exists());
        // One that a crash has left.
        fs::write(&lock, "").unwrap();
        drop(hold(&guarded, Duration::ZERO).unwrap());
        assert!(!lock.exists());
        std::os::unix::fs::symlink(directory.join("elsewhere"), &lock).unwrap();
        let refused = hold(&guarded, Duration::ZERO).unwrap_err();
        assert!(matches!(refused, LockError::File { .. }));
        assert!(!directory.join("elsewhere").exists());
        fs::remove_dir_all(&directory).unwrap();
    }
}
