//! Goes on as root, through sudo, once everything is built as the user.

use std::path::Path;
use std::process::Command;

use anyhow::{Result, bail};

use crate::exec::{self, which};
use crate::lab::{BIN_DIR, Binaries};

/// Whether this is the run that [`through_sudo`] started: everything is built.
pub(crate) fn is_second_run() -> bool {
    std::env::var_os(BIN_DIR).is_some()
}

/// Repeats this run through sudo if it is not root's; `false` when it is and may go on.
///
/// # Errors
/// When there is no sudo, or the second run fails.
pub(crate) fn through_sudo(programs: &Binaries) -> Result<bool> {
    if rustix::process::geteuid().is_root() {
        return Ok(false);
    }
    if which("sudo").is_none() {
        bail!("network namespaces need root and there is no sudo: run this as root");
    }
    let dir = programs.tidegate.parent().unwrap_or(Path::new("."));
    let mut command = Command::new("sudo");
    command
        .arg(format!("{BIN_DIR}={}", dir.display()))
        .arg(std::env::current_exe()?)
        .args(std::env::args_os().skip(1));
    exec::show_run(&mut command)?;
    Ok(true)
}
