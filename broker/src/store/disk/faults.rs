//! Disks that tests have fail.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    sync::Mutex,
};

static FAILING: Mutex<BTreeSet<PathBuf>> = Mutex::new(BTreeSet::new());

/// Has every write fail to a store in this directory.
pub(crate) fn begin(directory: &Path) {
    FAILING.lock().unwrap().insert(directory.to_owned());
}

pub(crate) fn end(directory: &Path) {
    FAILING.lock().unwrap().remove(directory);
}

pub(super) fn fails(directory: &Path) -> bool {
    FAILING.lock().unwrap().contains(directory)
}
