//! What a lease did, written down before it is done.
//!
//! One small JSON file per network namespace and interface, locked while a lease is held: the
//! lock goes with the process, the file stays after a crash and tells the next one what to undo.

use std::{
    collections::BTreeSet,
    fs::{self, File, OpenOptions},
    io::{self, Read, Seek, Write},
    net::IpAddr,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use rustix::fs::{FlockOperation, flock};
use serde::{Deserialize, Serialize};
use tracing::warn;

use super::{VipError, sysctl::Raised};

/// What has to be undone.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Record {
    pub(super) added: BTreeSet<IpAddr>,
    pub(super) raised: Vec<Raised>,
}

/// The locked file.
#[derive(Debug)]
pub(super) struct Ledger {
    path: PathBuf,
    file: File,
}

impl Ledger {
    /// Locks the ledger of this network namespace's `interface`, and reads what a crashed
    /// process left in it.
    pub(super) fn open(dir: &Path, interface: &str) -> Result<(Self, Record), VipError> {
        fs::create_dir_all(dir).map_err(|source| failed(dir, source))?;
        let path = dir.join(format!("vip-{}-{interface}.json", namespace()?));
        let mut file = lock(&path, interface)?;
        let mut text = String::new();
        file.read_to_string(&mut text)
            .map_err(|source| failed(&path, source))?;
        let record = if text.is_empty() {
            Record::default()
        } else {
            serde_json::from_str(&text).unwrap_or_else(|e| {
                warn!(path = %path.display(), error = %e, "ledger is not readable; ignored");
                Record::default()
            })
        };
        Ok((Self { path, file }, record))
    }

    pub(super) fn write(&self, record: &Record) -> Result<(), VipError> {
        let write = || {
            let text = serde_json::to_string(record)?;
            let mut file = &self.file;
            file.rewind()?;
            file.write_all(text.as_bytes())?;
            file.set_len(text.len() as u64)
        };
        write().map_err(|source| failed(&self.path, source))
    }

    /// There is nothing left to undo.
    pub(super) fn remove(self) -> Result<(), VipError> {
        fs::remove_file(&self.path).map_err(|source| failed(&self.path, source))
    }
}

fn lock(path: &Path, interface: &str) -> Result<File, VipError> {
    loop {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(path)
            .map_err(|source| failed(path, source))?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(rustix::io::Errno::WOULDBLOCK) => {
                let (interface, path) = (interface.to_owned(), path.to_owned());
                return Err(VipError::Held { interface, path });
            }
            Err(errno) => return Err(failed(path, errno.into())),
        }
        // The last holder may have removed the file between our opening and locking it.
        let locked = file.metadata().map_err(|source| failed(path, source))?;
        match fs::metadata(path) {
            Ok(named) if (named.dev(), named.ino()) == (locked.dev(), locked.ino()) => {
                return Ok(file);
            }
            Ok(_) => {}
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            Err(source) => return Err(failed(path, source)),
        }
    }
}

/// The number of this thread's network namespace. Namespaces share `/run`, and an interface
/// `lo` is in each of them.
fn namespace() -> Result<u64, VipError> {
    let path = Path::new("/proc/thread-self/ns/net");
    fs::metadata(path)
        .map(|file| file.ino())
        .map_err(|source| failed(path, source))
}

fn failed(path: &Path, source: io::Error) -> VipError {
    VipError::Ledger {
        path: path.to_owned(),
        source,
    }
}
