//! The packet tests in a Linux 6.1, in an emulated machine: an older verifier than this machine's.
//!
//! The guest has no disk and no network: kernel, shell and tests are handed to it in memory, and
//! its serial line brings back what the tests say.

mod cpio;
mod guest;
mod machine;

use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::{Context, Result};
use serde::Deserialize;

use crate::build::{cargo, target_dir};
use crate::exec;
use crate::setup::Machine;

/// Runs tests of the `tests` package in the guest; `arguments` are for them.
///
/// # Errors
/// When they cannot be built or run, or fail.
pub fn test(machine: &Machine, arguments: &[&str]) -> Result<()> {
    let tests = build_tests()?;
    let file_system = guest::file_system(&tests, arguments, &machine.kernel)?;
    machine::run(machine, &file_system, &target_dir()?.join("kernel"))
}

/// Builds the privileged tests, and says where they are.
fn build_tests() -> Result<PathBuf> {
    #[derive(Deserialize)]
    struct Message {
        executable: Option<PathBuf>,
        target: Target,
    }
    #[derive(Deserialize)]
    struct Target {
        kind: Vec<String>,
    }
    let mut command: Command = cargo();
    command
        .args(["test", "--package", "tests", "--test", "tests", "--no-run"])
        .args(["--message-format", "json-render-diagnostics"])
        .stderr(Stdio::inherit());
    let output = command.output()?;
    anyhow::ensure!(output.status.success(), "`{}` failed", exec::show(&command));
    let messages = String::from_utf8_lossy(&output.stdout);
    messages
        .lines()
        .filter_map(|line| {
            let Message { executable, target } = serde_json::from_str(line).ok()?;
            executable.filter(|_| target.kind == ["test"])
        })
        .next_back()
        .context("cargo named no test program")
}
