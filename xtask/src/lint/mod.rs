//! `cargo xtask lint`: what a reviewer should never have to say.

mod prose;
mod tidy;

use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::build::{cargo, target_dir, workspace};
use crate::exec;
use crate::setup::{self, Purpose, cargo_deny};
use crate::steps::Steps;
use crate::toolchain::Toolchain;

/// All of the workspace that is built for the host.
const HOST: [&str; 3] = ["--workspace", "--exclude", "lb-ebpf"];

/// The fuzz targets, a workspace of their own.
const FUZZ: &str = "lb-common/fuzz/Cargo.toml";

/// Runs all checks.
///
/// # Errors
/// Names the check that failed.
pub fn run() -> Result<()> {
    let mut steps = Steps::default();
    steps.step("setup", || setup::ensure(Purpose::Ci))?;
    steps.step("tidy", || tidy::check(workspace()))?;
    steps.step("documentation", || prose::check(workspace()))?;
    steps.step("format", || {
        exec::show_run(cargo().args(["fmt", "--all", "--check"]))
    })?;
    steps.step("XDP programs without warnings", xdp_without_warnings)?;
    steps.step("clippy", || {
        let mut clippy = cargo();
        clippy.arg("clippy").args(HOST).arg("--all-targets");
        exec::show_run(clippy.args(["--", "-D", "warnings"]))
    })?;
    steps.step("clippy with traces of packets", || {
        let mut clippy = cargo();
        // All packages as before: alone, one needs other features of what it builds on.
        clippy.arg("clippy").args(HOST).arg("--all-targets");
        clippy.args(["--features", "lb-user/trace"]);
        exec::show_run(clippy.args(["--", "-D", "warnings"]))
    })?;
    steps.step("rustdoc", || {
        let mut doc = cargo();
        doc.arg("doc").args(HOST).arg("--no-deps");
        exec::show_run(doc.env("RUSTDOCFLAGS", "-D warnings"))
    })?;
    steps.step("dependencies", dependencies)?;
    if workspace().join(FUZZ).exists() {
        steps.step("fuzz targets compile", || {
            let target = target_dir()?.join("fuzz");
            let mut check = cargo();
            check.args(["check", "--manifest-path", FUZZ, "--target-dir"]);
            // Nothing is linked, so the fuzzer's own C++ need not be built.
            check.env("CUSTOM_LIBFUZZER_PATH", target.join("libFuzzer.a"));
            exec::show_run(check.arg(target))
        })?;
    }
    steps.summary();
    Ok(())
}

/// The inner cargo repeats the warnings of what it has built before, so nothing is built twice.
fn xdp_without_warnings() -> Result<()> {
    let toolchain = Toolchain::find()?;
    let target = target_dir()?.join("bpf");
    let output = toolchain.command(workspace(), &target).output()?;
    let text = String::from_utf8_lossy(&output.stderr);
    if !output.status.success() || text.contains("warning:") {
        bail!("built by {toolchain}:\n{text}");
    }
    Ok(())
}

fn dependencies() -> Result<()> {
    let deny = cargo_deny().context("cargo-deny was not installed")?;
    let run = |arguments: &[&str]| {
        let mut command = Command::new(&deny);
        command.current_dir(workspace()).args(arguments);
        exec::show_run(&mut command)
    };
    run(&["--all-features", "check", "bans", "licenses", "sources"])?;
    if run(&["fetch", "db"]).is_err() {
        eprintln!("the database of advisories cannot be reached: not checked");
        return Ok(());
    }
    // Advisories appear without a change of ours: they are to be read, and fail nobody's work.
    if run(&["check", "--disable-fetch", "advisories"]).is_err() {
        eprintln!("warning: there are advisories against dependencies, see above");
    }
    Ok(())
}
