//! Runs commands, and tells exactly which one failed and what it said.

use std::fmt::Write as _;
use std::io::Write as _;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

use anyhow::{Context, Result, bail};

/// Runs a command to its end, quietly.
///
/// # Errors
/// When it cannot start or fails; the error carries what it wrote.
pub fn run(command: &mut Command) -> Result<()> {
    output(command).map(drop)
}

/// Runs a command to its end and returns its standard output.
///
/// # Errors
/// When it cannot start or fails; the error carries what it wrote.
pub fn output(command: &mut Command) -> Result<String> {
    let output = command
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("cannot run `{}`", show(command)))?;
    check(command, output)
}

/// Runs a command with a text as its standard input.
///
/// # Errors
/// When it cannot start or fails; the error carries what it wrote.
pub fn run_with_input(command: &mut Command, input: &str) -> Result<()> {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot run `{}`", show(command)))?;
    if let Some(mut stdin) = child.stdin.take() {
        // A command that fails early closes its input; its own message says more than ours would.
        let _ = stdin.write_all(input.as_bytes());
    }
    let output = child.wait_with_output()?;
    check(command, output)
        .map(drop)
        .with_context(|| format!("given\n{input}"))
}

/// Runs a command with our own standard output and error.
///
/// # Errors
/// When it cannot start or fails.
pub fn show_run(command: &mut Command) -> Result<()> {
    let status = command
        .stdin(Stdio::null())
        .status()
        .with_context(|| format!("cannot run `{}`", show(command)))?;
    if !status.success() {
        bail!("`{}` failed: {status}", show(command));
    }
    Ok(())
}

/// Finds a program on the PATH and where administrators' programs are.
pub fn which(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/usr/sbin", "/sbin"].map(PathBuf::from))
        .map(|dir| dir.join(program))
        .find(|candidate| candidate.is_file())
}

/// The command as one would type it.
pub fn show(command: &Command) -> String {
    let mut line = String::new();
    for (name, value) in command.get_envs() {
        if let Some(value) = value {
            let _ = write!(line, "{}={} ", name.display(), value.display());
        }
    }
    let _ = write!(line, "{}", command.get_program().display());
    for argument in command.get_args() {
        let _ = write!(line, " {}", argument.display());
    }
    line
}

fn check(command: &Command, output: Output) -> Result<String> {
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    if !output.status.success() {
        let errors = String::from_utf8_lossy(&output.stderr);
        let (line, status) = (show(command), output.status);
        bail!("`{line}` failed: {status}\n{text}{errors}");
    }
    Ok(text)
}
