//! Packages of Debian, Ubuntu and their kin.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};

use super::{announce_and_run_quietly, as_root};
use crate::exec::{self, which};

/// Asked by Debian's packages whether their service may start.
const POLICY: &str = "/usr/sbin/policy-rc.d";

/// Packages whose service would start, at once and at every boot: the laboratory starts its own.
const DAEMONS: [&str; 3] = ["haproxy", "keepalived", "mosquitto"];

/// Whether this system has apt.
pub(super) fn is_here() -> bool {
    which("apt-get").is_some()
}

/// Fetches the lists of packages.
pub(super) fn update() -> Result<()> {
    if let Err(error) = announce_and_run_quietly(as_root("apt-get")?.args(["-qq", "update"])) {
        // One broken source among many fails it; what is needed may be known all the same.
        eprintln!("setup: the lists of packages may be old: {error:#}");
    }
    Ok(())
}

/// The version that would be installed, if the package exists.
pub(super) fn candidate(package: &str) -> Option<String> {
    let text = exec::output(Command::new("apt-cache").args(["policy", package])).ok()?;
    let version = text
        .lines()
        .find_map(|line| line.trim().strip_prefix("Candidate: "))?;
    (version != "(none)").then(|| version.to_owned())
}

/// Installs packages without removing any other, and without starting or enabling any service of theirs.
pub(super) fn install(packages: &[String]) -> Result<()> {
    if packages.is_empty() {
        return Ok(());
    }
    let daemons: Vec<&str> = DAEMONS
        .into_iter()
        .filter(|daemon| packages.iter().any(|package| package == daemon))
        .collect();
    let hold = !daemons.is_empty() && !Path::new(POLICY).exists();
    if hold {
        eprintln!("setup: {POLICY} keeps the services of these packages from starting, meanwhile");
        hold_services()?;
    }
    let installed = announce_and_run_quietly(
        as_root("env")?
            .args(["DEBIAN_FRONTEND=noninteractive", "apt-get", "-qq", "-y"])
            .args(["install", "--no-remove", "--no-install-recommends"])
            .args(packages),
    );
    if hold {
        exec::run(as_root("rm")?.arg(POLICY))?;
    }
    installed.context("the packages could not be installed: install them by hand")?;
    if !daemons.is_empty() && which("systemctl").is_some() {
        announce_and_run_quietly(as_root("systemctl")?.arg("disable").args(&daemons))?;
    }
    Ok(())
}

fn hold_services() -> Result<()> {
    let script = format!("printf '#!/bin/sh\\nexit 101\\n' > {POLICY} && chmod 755 {POLICY}");
    exec::run(as_root("sh")?.args(["-c", &script]))
}

/// Says what to install, where there is no apt.
pub(super) fn refuse(packages: &[String]) -> Result<()> {
    bail!(
        "this system has no apt-get: install what Debian calls {} by hand",
        packages.join(", ")
    )
}
