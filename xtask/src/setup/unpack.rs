//! Packages unpacked into a directory of ours: nothing on the system changes.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

use super::announce_and_run_quietly;

/// Fetches packages and unpacks them all into `root`, whole or not at all, in place of what is there.
pub(super) fn packages(packages: &[String], root: &Path) -> Result<()> {
    let mut unfinished = root.as_os_str().to_owned();
    unfinished.push(".unfinished");
    let unfinished = PathBuf::from(unfinished);
    if unfinished.exists() {
        fs::remove_dir_all(&unfinished)?;
    }
    let archives = unfinished.join("archives");
    fs::create_dir_all(&archives)?;
    announce_and_run_quietly(
        Command::new("apt-get")
            .current_dir(&archives)
            .args(["-qq", "download"])
            .args(packages),
    )?;
    let fetched = files(&archives)?;
    ensure!(!fetched.is_empty(), "nothing was fetched");
    for archive in fetched {
        announce_and_run_quietly(
            Command::new("dpkg-deb")
                .arg("--extract")
                .args([&archive, &unfinished]),
        )?;
    }
    fs::remove_dir_all(&archives)?;
    if root.exists() {
        fs::remove_dir_all(root)?;
    }
    fs::rename(&unfinished, root)
        .with_context(|| format!("cannot move what was unpacked to {}", root.display()))
}

fn files(dir: &Path) -> Result<Vec<PathBuf>> {
    let entries = fs::read_dir(dir)?.map(|entry| Ok(entry?.path()));
    entries.collect()
}
