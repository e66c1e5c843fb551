//! Files of BPF file systems.

use std::{
    fs,
    io::{self, ErrorKind},
    path::Path,
};

use rustix::{
    fs::statfs,
    mount::{MountFlags, mount as mount_file_system},
};

use super::PinError;

/// `BPF_FS_MAGIC` (linux/magic.h).
const MAGIC: u32 = 0xcafe_4a11;

/// Where everybody expects the BPF file system; the kernel makes the directory.
const USUAL: &str = "/sys/fs/bpf";

/// Sees to it that `directory` is in a BPF file system, or can be made in one.
pub(super) fn mount(directory: &Path) -> Result<(), PinError> {
    if is_inside(directory) {
        return Ok(());
    }
    let usual = Path::new(USUAL);
    let place = if directory.starts_with(usual) {
        usual
    } else {
        directory
    };
    let mounted = fs::create_dir_all(place).and_then(|()| {
        if is_apart() {
            let reason = "this process has mounts of its own, which end with it (a container?): \
                          give it the host's";
            return Err(io::Error::other(reason));
        }
        // What somebody keeps there would be hidden.
        if fs::read_dir(place)?.next().is_some() {
            return Err(ErrorKind::DirectoryNotEmpty.into());
        }
        let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
        mount_file_system("bpf", place, "bpf", flags, Some(c"mode=0700")).map_err(io::Error::from)
    });
    mounted.map_err(|source| PinError::NoFileSystem {
        path: place.to_owned(),
        source,
    })
}

/// Whether this process, and what comes of it, sees mounts that the host does not: what is pinned there
/// goes with the last of them, under traffic. As far as that can be known.
fn is_apart() -> bool {
    let namespace = |process| fs::read_link(format!("/proc/{process}/ns/mnt"));
    matches!((namespace("self"), namespace("1")), (Ok(own), Ok(first)) if own != first)
}

/// Whether `directory`, or what there is on the way to it, is in a BPF file system.
pub(super) fn is_inside(directory: &Path) -> bool {
    let there = directory.ancestors().find(|path| path.exists());
    let found = there.and_then(|path| statfs(path).ok());
    found.is_some_and(|found| found.f_type as u32 == MAGIC)
}

/// The names in a directory.
pub(super) fn names(directory: &Path) -> io::Result<Vec<String>> {
    let entries = fs::read_dir(directory)?;
    entries
        .map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()))
        .collect()
}

/// Removes a file, if it is there.
pub(super) fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        other => other,
    }
}
