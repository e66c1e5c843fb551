//! Files that hold secrets, changed as a whole: who reads one meanwhile gets the old or the new one.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _, fchown},
    path::{Path, PathBuf},
};

/// A new file is its owner's alone.
const MODE: u32 = 0o600;

/// What an existing file may keep of its mode: it has a group where the daemon is not its owner.
const KEPT_MODE: u32 = 0o640;

/// Where a file really is: what a link points to is replaced, and not the link.
///
/// # Errors
///
/// When that cannot be found out; that there is none yet is no error.
pub fn resolve(path: &Path) -> io::Result<PathBuf> {
    match fs::canonicalize(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(path.to_owned()),
        path => path,
    }
}

/// Writes a new file beside the old one and puts it in its place. Whoever does that holds the file's
/// [lock](crate::lock).
///
/// # Errors
///
/// When that fails; the old file is untouched then.
pub fn write(path: &Path, text: &str) -> io::Result<()> {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".new");
    let beside = path.with_file_name(name);
    let written = write_beside(&beside, path, text).and_then(|()| {
        fs::rename(&beside, path)?;
        File::open(directory_of(path))?.sync_all()
    });
    if written.is_err() {
        // It may not be there at all.
        let _ = fs::remove_file(&beside);
    }
    written
}

fn write_beside(beside: &Path, path: &Path, text: &str) -> io::Result<()> {
    // The lock is ours: one that is there was left by a crash.
    match fs::remove_file(beside) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        Ok(()) | Err(_) => {}
    }
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(MODE)
        .open(beside)?;
    if let Ok(older) = fs::metadata(path) {
        let made = file.metadata()?;
        if (made.uid(), made.gid()) != (older.uid(), older.gid()) {
            fchown(&file, Some(older.uid()), Some(older.gid()))?;
        }
        let mode = older.permissions().mode() & KEPT_MODE;
        file.set_permissions(fs::Permissions::from_mode(mode | MODE))?;
    }
    file.write_all(text.as_bytes())?;
    file.sync_all()
}

fn directory_of(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        Some(_) | None => Path::new("."),
    }
}
