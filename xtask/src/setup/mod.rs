//! `cargo xtask setup`: installs what is missing, says what it runs, and is silent when nothing is.
//!
//! Every other task calls it for what that task needs. Packages come from the distribution (Debian, Ubuntu and
//! their kin), as root or through sudo; the linker for BPF and the dependency checker are built by cargo into
//! a directory of Tidegate's own; npm puts MQTT.js, which only tests take, among what cargo builds.

mod apt;
mod emulator;
mod kernel;
mod npm;
mod rust;
mod unpack;

pub use emulator::Emulator;
pub use kernel::{Kernel, Machine, ensure_machine, why_no_kernel};
pub use rust::cargo_deny;

use std::{path::Path, process::Command};

use anyhow::{Result, bail};

use crate::exec::{self, which};

/// What the machine is wanted for; each includes the ones before.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Purpose {
    /// Building Tidegate with its XDP programs.
    Build,
    /// Running networks of namespaces.
    Lab,
    /// Running all tests.
    Test,
    /// What the checks before a merge take.
    Ci,
}

/// Programs of the laboratory and the packages they come in.
const LAB: [(&str, &str); 12] = [
    ("ip", "iproute2"),
    ("ethtool", "ethtool"),
    ("mosquitto", "mosquitto"),
    ("mosquitto_sub", "mosquitto-clients"),
    ("haproxy", "haproxy"),
    ("nft", "nftables"),
    ("keepalived", "keepalived"),
    ("bird", "bird2"),
    ("ps", "procps"),
    ("debootstrap", "debootstrap"),
    ("dpkg-shlibdeps", "dpkg-dev"),
    ("strip", "binutils"),
];

/// Programs that run others' MQTT clients in tests of the broker.
const CLIENTS: [(&str, &str); 2] = [("node", "nodejs"), ("npm", "npm")];

/// Modules for Debian's own Python that tests of the broker take.
const MODULES: [(&str, &str); 1] = [(
    "/usr/lib/python3/dist-packages/paho/mqtt/client.py",
    "python3-paho-mqtt",
)];

/// Programs that packages are made with.
const PACKAGERS: [(&str, &str); 3] = [
    ("dpkg-deb", "dpkg"),
    ("dpkg-shlibdeps", "dpkg-dev"),
    ("strip", "binutils"),
];

/// Programs that building and checking take.
const BUILD: [(&str, &str); 2] = [("cc", "gcc"), ("git", "git")];

/// Installs what `purpose` needs and is not there.
///
/// # Errors
/// Says in one sentence what to do when it cannot.
pub fn ensure(purpose: Purpose) -> Result<()> {
    apt::release_services()?;
    let mut wanted: Vec<(&str, &str)> = BUILD.to_vec();
    if purpose >= Purpose::Lab {
        wanted.extend(LAB);
    }
    if purpose >= Purpose::Test {
        wanted.extend(CLIENTS);
    }
    let mut missing = missing_packages(&wanted);
    if purpose >= Purpose::Test {
        let absent = MODULES.iter().filter(|(file, _)| !Path::new(file).exists());
        missing.extend(absent.map(|(_, package)| (*package).to_owned()));
    }
    rust::ensure_compiler(missing)?;
    rust::ensure_linker()?;
    if purpose >= Purpose::Test {
        npm::ensure_mqttjs()?;
    }
    if purpose >= Purpose::Ci {
        rust::ensure_checkers()?;
    }
    Ok(())
}

/// Installs what packages are made with.
///
/// # Errors
/// Says in one sentence what to do when it cannot.
pub fn ensure_packagers() -> Result<()> {
    let missing = missing_packages(&PACKAGERS);
    if missing.is_empty() {
        return Ok(());
    }
    if !apt::is_here() {
        return apt::refuse(&missing);
    }
    apt::update()?;
    apt::install(&missing)
}

fn missing_packages(wanted: &[(&str, &str)]) -> Vec<String> {
    let mut packages: Vec<String> = wanted
        .iter()
        .filter(|(program, _)| which(program).is_none())
        .map(|(_, package)| (*package).to_owned())
        .collect();
    packages.sort();
    packages.dedup();
    packages
}

/// Announces a command and runs it.
fn announce_and_run(command: &mut Command) -> Result<()> {
    eprintln!("setup: {}", exec::show(command));
    exec::show_run(command)
}

/// Announces a command and runs it; what it writes is shown only if it fails.
fn announce_and_run_quietly(command: &mut Command) -> Result<()> {
    eprintln!("setup: {}", exec::show(command));
    exec::run(command)
}

/// A command that runs as root: directly, or through sudo.
fn as_root(program: &str) -> Result<Command> {
    if rustix::process::geteuid().is_root() {
        return Ok(Command::new(program));
    }
    if which("sudo").is_none() {
        bail!("packages are missing and there is no sudo: run `cargo xtask setup` as root once");
    }
    let mut command = Command::new("sudo");
    command.arg(program);
    Ok(command)
}
