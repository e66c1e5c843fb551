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

/// Repeats this run through sudo, with these programs, if it is not root's; `false` when it is and may go on.
///
/// # Errors
/// When there is no sudo, or the second run fails.
pub(crate) fn through_sudo(programs: &Binaries) -> Result<bool> {
    let dir = programs.tidegate.parent().unwrap_or(Path::new("."));
    again(Some(dir))
}

/// Repeats a run that needs no programs through sudo if it is not root's; `false` when it is and may go on.
///
/// # Errors
/// When there is no sudo, or the second run fails.
pub fn alone_through_sudo() -> Result<bool> {
    again(None)
}

fn again(programs: Option<&Path>) -> Result<bool> {
    if rustix::process::geteuid().is_root() {
        return Ok(false);
    }
    if which("sudo").is_none() {
        bail!("network namespaces need root and there is no sudo: run this as root");
    }
    let mut command = Command::new("sudo");
    if let Some(dir) = programs {
        command.arg(format!("{BIN_DIR}={}", dir.display()));
    }
    command
        .arg(std::env::current_exe()?)
        .args(std::env::args_os().skip(1));
    exec::show_run(&mut command)?;
    Ok(true)
}

/// Makes what this cargo command builds and starts run as root.
///
/// # Errors
/// When rustc does not name this machine.
pub(crate) fn run_as_root(cargo: &mut Command) -> Result<()> {
    if !rustix::process::geteuid().is_root() && which("sudo").is_some() {
        cargo.env(runner_variable()?, "sudo --preserve-env");
    }
    Ok(())
}

/// The variable that tells cargo how to start what it built for this machine.
fn runner_variable() -> Result<String> {
    let text = exec::output(Command::new("rustc").arg("-vV"))?;
    let host = text.lines().find_map(|line| line.strip_prefix("host: "));
    let host = host.unwrap_or_default().replace('-', "_").to_uppercase();
    Ok(format!("CARGO_TARGET_{host}_RUNNER"))
}
