//! The file of accounts: read by daemons, which trust it only if nobody else can have read or written it,
//! and changed by commands.

use std::{
    fs::OpenOptions,
    io::{self, Read as _},
    os::unix::fs::{MetadataExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
    time::Duration,
};

use console::{
    lock::{self, Lock},
    replace,
};
use rustix::{fs::OFlags, process::geteuid};

use crate::accounts::{Accounts, AccountsError};

/// More than the most entries take.
const LARGEST: u64 = 4 * 1024 * 1024;

/// The bits that its mode may have.
const MODE: u32 = 0o640;

/// How long another change gets to be done. Nobody types a password meanwhile.
const LOCK_TIMEOUT: Duration = Duration::from_secs(5);

/// What tells one state of a file from the next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stamp {
    inode: (u64, u64),
    bytes: u64,
    /// Of its last change, its mode's included.
    changed: (i64, i64),
}

/// The state that a file is in; `None` if there is none.
pub(crate) fn stamp(path: &Path) -> Option<Stamp> {
    let about = std::fs::metadata(path).ok()?;
    Some(Stamp {
        inode: (about.dev(), about.ino()),
        bytes: about.len(),
        changed: (about.ctime(), about.ctime_nsec()),
    })
}

/// What a daemon takes from it. That there is no file is no mistake: then nobody may log in.
pub(crate) fn read(path: &Path) -> Result<Accounts, AccountsError> {
    // A pipe would wait for somebody to write to it.
    let flags = i32::try_from(OFlags::NONBLOCK.bits()).unwrap_or(0);
    let mut options = OpenOptions::new();
    let file = match options.read(true).custom_flags(flags).open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Accounts::default()),
        file => file.map_err(AccountsError::Read)?,
    };
    // Of what was opened, whatever the path leads to by then.
    let about = file.metadata().map_err(AccountsError::Read)?;
    if !about.is_file() {
        let error = io::Error::other("not a regular file");
        return Err(AccountsError::Read(error));
    }
    let mode = about.mode() & 0o7777;
    if mode & !MODE != 0 {
        return Err(AccountsError::Mode { mode });
    }
    let uid = about.uid();
    if uid != 0 && uid != geteuid().as_raw() {
        return Err(AccountsError::Owner { uid });
    }
    let mut text = String::new();
    let read = file.take(LARGEST + 1).read_to_string(&mut text);
    read.map_err(AccountsError::Read)?;
    if text.len() as u64 > LARGEST {
        let error = io::Error::other("larger than 4 MiB");
        return Err(AccountsError::Read(error));
    }
    Accounts::parse(&text)
}

/// A file that nobody else changes meanwhile.
pub(crate) struct AccountsFile {
    path: PathBuf,
    pub(crate) accounts: Accounts,
    /// Held until this is dropped.
    _lock: Lock,
}

impl AccountsFile {
    /// Reads the file, if there is one. One that others can read is the command's to put right.
    pub(crate) fn open(path: &Path) -> Result<Self, AccountsError> {
        let path = replace::resolve(path).map_err(AccountsError::Read)?;
        let lock = lock::hold(&path, LOCK_TIMEOUT)?;
        let accounts = match std::fs::read_to_string(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Accounts::default(),
            text => Accounts::parse(&text.map_err(AccountsError::Read)?)?,
        };
        Ok(Self {
            path,
            accounts,
            _lock: lock,
        })
    }

    /// Puts a new file in the place of the old one.
    pub(crate) fn save(&self) -> Result<(), AccountsError> {
        let text = self.accounts.render();
        // A file that daemons would not read is not written.
        Accounts::parse(&text)?;
        replace::write(&self.path, &text).map_err(AccountsError::Write)
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::PermissionsExt as _};

    use super::*;
    use crate::{
        accounts::{Account, Role},
        tests::{Scratch, cheap},
    };

    fn chmod(path: &Path, mode: u32) {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    }

    #[test]
    fn file_that_others_can_read_or_write_is_refused() {
        let scratch = Scratch::new();
        let path = scratch.file("accounts.toml");
        assert!(read(&path).unwrap() == Accounts::default());
        fs::write(&path, "").unwrap();
        for mode in [0o600, 0o640, 0o400] {
            chmod(&path, mode);
            assert!(read(&path).is_ok(), "{mode:o}");
        }
        for mode in [0o644, 0o604, 0o660, 0o602, 0o755] {
            chmod(&path, mode);
            let error = read(&path).err().unwrap();
            assert!(matches!(error, AccountsError::Mode { .. }), "{error}");
        }
        assert!(matches!(
            read(Path::new("/dev/null")),
            Err(AccountsError::Read(_))
        ));
    }

    #[test]
    fn commands_put_the_mode_right_and_daemons_see_a_change() {
        let scratch = Scratch::new();
        let path = scratch.file("accounts.toml");
        fs::write(&path, "# people\n").unwrap();
        chmod(&path, 0o644);
        let before = stamp(&path).unwrap();
        let mut file = AccountsFile::open(&path).unwrap();
        let (role, password) = (Role::Viewer, cheap("sesame").into());
        let account = Account { role, password };
        file.accounts.accounts.insert("alice".to_owned(), account);
        file.save().unwrap();
        assert_ne!(stamp(&path), Some(before));
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o7777, 0o640);
        assert!(read(&path).unwrap() == file.accounts);
        drop(file);
        let before = stamp(&path).unwrap();
        chmod(&path, 0o644);
        assert_ne!(stamp(&path), Some(before));
        let names: Vec<_> = fs::read_dir(scratch.path()).unwrap().collect();
        assert_eq!(names.len(), 1, "neither a lock nor half a file is left");
    }

    #[test]
    fn file_that_is_none_of_accounts_is_left_alone() {
        let scratch = Scratch::new();
        let path = scratch.file("passwd");
        fs::write(&path, "root:x:0:0:root:/root:/bin/bash\n").unwrap();
        assert!(matches!(
            AccountsFile::open(&path),
            Err(AccountsError::Entry { line: 1, .. })
        ));
    }
}
