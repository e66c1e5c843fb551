//! Goes on as root, through sudo, once everything is built as the user.

use std::path::Path;
use std::process::Command;

use anyhow::{Result, bail};

use crate::build::{self, Profile, cargo};
use crate::exec::{self, which};
use crate::lab::{BIN_DIR, Binaries};
use crate::setup::{self, Purpose};

/// The programs of a laboratory that is root's. Installs what it lacks, and builds them and these of the
/// tests' programs beside them; then repeats this run through sudo if it is not root's: `None` when that
/// is done.
///
/// # Errors
/// Names what cannot be installed or built; when there is no sudo, or the second run fails.
pub(crate) fn with_programs(helpers: &[&str]) -> Result<Option<Binaries>> {
    let helpers = helpers.iter().map(|helper| ["tests", "--bin", helper]);
    with(&helpers.collect::<Vec<_>>())
}

/// The same with an example of one package.
///
/// # Errors
/// As [`with_programs`].
pub(crate) fn with_example(package: &str, example: &str) -> Result<Option<Binaries>> {
    with(&[[package, "--example", example]])
}

/// Helpers are a package, what kind of target, and its name.
fn with(helpers: &[[&str; 3]]) -> Result<Option<Binaries>> {
    // The second run: everything is built.
    if std::env::var_os(BIN_DIR).is_some() {
        return Binaries::find().map(Some);
    }
    setup::ensure(Purpose::Lab)?;
    for helper in helpers {
        let mut command = cargo();
        command
            .args(["build", "--release", "--package"])
            .args(helper);
        exec::show_run(&mut command)?;
    }
    let programs = build::programs(Profile::Release)?;
    let dir = programs.tidegate.parent().unwrap_or(Path::new("."));
    let is_done = again(Some(dir))?;
    Ok((!is_done).then_some(programs))
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
