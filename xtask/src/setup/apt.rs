//! Packages of Debian, Ubuntu and their kin.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};

use super::{announce_and_run_quietly, as_root};
use crate::exec::{self, which};

/// Asked by Debian's packages whether their service may start.
const POLICY: &str = "/usr/sbin/policy-rc.d";

/// Tells our [`POLICY`] from an administrator's.
const MARK: &str = "# Made by `cargo xtask setup` of Tidegate, which removes it.";

/// Packages whose service would start, at once and at every boot, and the service's name: the
/// laboratory starts its own.
const DAEMONS: [(&str, &str); 4] = [
    ("bird2", "bird"),
    ("haproxy", "haproxy"),
    ("keepalived", "keepalived"),
    ("mosquitto", "mosquitto"),
];

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

/// What an installation would do.
#[derive(Debug, Default, Eq, PartialEq)]
pub(super) struct Plan {
    /// Packages that would come, by name.
    pub(super) installs: Vec<String>,
    /// Packages that would go.
    pub(super) removes: Vec<String>,
}

impl Plan {
    /// Reads what apt prints when it simulates.
    fn parse(text: &str) -> Self {
        let named = |action: &str| {
            text.lines()
                .filter_map(|line| line.strip_prefix(action)?.split_whitespace().next())
                .map(str::to_owned)
                .collect()
        };
        Self {
            installs: named("Inst "),
            removes: named("Remv "),
        }
    }
}

/// What it would take to install a package.
pub(super) fn plan(package: &str) -> Result<Plan> {
    let text = exec::output(Command::new("apt-get").env("LC_ALL", "C").args([
        "--simulate",
        "install",
        "--no-install-recommends",
        package,
    ]))?;
    Ok(Plan::parse(&text))
}

/// Installs packages without removing any other, and without starting or enabling any service of theirs.
pub(super) fn install(packages: &[String]) -> Result<()> {
    if packages.is_empty() {
        return Ok(());
    }
    let daemons: Vec<&str> = DAEMONS
        .into_iter()
        .filter(|(daemon, _)| packages.iter().any(|package| package == daemon))
        .map(|(_, service)| service)
        .collect();
    let hold = !daemons.is_empty() && !Path::new(POLICY).exists();
    if hold {
        hold_services()?;
    }
    let installed = announce_and_run_quietly(
        as_root("env")?
            .args(["DEBIAN_FRONTEND=noninteractive", "apt-get", "-qq", "-y"])
            .args(["install", "--no-remove", "--no-install-recommends"])
            .args(packages),
    );
    release_services()?;
    installed.context("the packages could not be installed: install them by hand")?;
    if !daemons.is_empty() && which("systemctl").is_some() {
        announce_and_run_quietly(as_root("systemctl")?.arg("disable").args(&daemons))?;
    }
    Ok(())
}

/// Keeps the services of new packages from starting.
fn hold_services() -> Result<()> {
    let lines = format!("'#!/bin/sh' '{MARK}' 'exit 101'");
    let script = format!("printf '%s\\n' {lines} > {POLICY} && chmod 755 {POLICY}");
    announce_and_run_quietly(as_root("sh")?.args(["-c", &script]))
}

/// Lets the services of new packages start again, also after a run that was interrupted.
pub(super) fn release_services() -> Result<()> {
    if !std::fs::read_to_string(POLICY).is_ok_and(|text| text.contains(MARK)) {
        return Ok(());
    }
    announce_and_run_quietly(as_root("rm")?.arg(POLICY))
}

/// Says what to install, where there is no apt.
pub(super) fn refuse(packages: &[String]) -> Result<()> {
    bail!(
        "this system has no apt-get: install what Debian calls {} by hand",
        packages.join(", ")
    )
}

#[cfg(test)]
mod tests {
    use super::Plan;

    #[test]
    fn a_simulation_says_what_comes_and_what_goes() {
        let text = "Reading package lists...\n\
                    Remv qemu-utils [1:10.0.2]\n\
                    Inst seabios (1.16.2-1 Debian:12.15/oldstable [all])\n\
                    Inst qemu-system-x86 (1:7.2 Debian:12.15/oldstable [amd64])\n\
                    Conf seabios (1.16.2-1 Debian:12.15/oldstable [all])\n";
        let plan = Plan::parse(text);
        assert_eq!(plan.installs, ["seabios", "qemu-system-x86"]);
        assert_eq!(plan.removes, ["qemu-utils"]);
        assert_eq!(Plan::parse("nothing to do\n"), Plan::default());
    }
}
