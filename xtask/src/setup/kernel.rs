//! A Linux 6.1 to run in an emulator: unpacked into a directory of ours, never installed.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, bail};

use super::emulator::{self, Emulator};
use super::{BUILD, LAB, apt, missing_packages, unpack};
use crate::exec;
use crate::toolchain::tools_root;

/// Debian's kernels of this series: the small builds for virtual machines.
const PREFIX: &str = "linux-image-6.1.0-";
const SUFFIX: &str = "-cloud-amd64";

/// What the guest runs, and the package it comes in.
const PROGRAMS: [(&str, &str); 1] = [("insmod", "kmod")];

/// A kernel and what runs it.
#[derive(Debug)]
pub struct Machine {
    pub kernel: Kernel,
    pub emulator: Emulator,
}

/// An unpacked kernel.
#[derive(Debug)]
pub struct Kernel {
    /// The directory of the unpacked package.
    root: PathBuf,
    release: String,
}

impl Kernel {
    /// What a boot loader loads.
    #[must_use]
    pub fn image(&self) -> PathBuf {
        self.root
            .join("boot")
            .join(format!("vmlinuz-{}", self.release))
    }

    /// A module by its path below the kernel's modules.
    #[must_use]
    pub fn module(&self, path: &str) -> PathBuf {
        let modules = self.root.join("lib/modules").join(&self.release);
        modules.join("kernel").join(path)
    }

    /// As `uname -r` says it.
    #[must_use]
    pub fn release(&self) -> &str {
        &self.release
    }
}

/// Says why no 6.1 kernel can be run here; `None` if one can.
#[must_use]
pub fn why_no_kernel() -> Option<String> {
    if !cfg!(target_arch = "x86_64") {
        return Some("it takes an x86-64 machine".to_owned());
    }
    if newest_unpacked().is_some() {
        return None;
    }
    if !apt::is_here() || newest_offered().is_none() {
        let package = format!("{PREFIX}*{SUFFIX}");
        return Some(format!("no package {package} is to be had here"));
    }
    None
}

/// Installs or unpacks the emulator and a 6.1 kernel, whichever is missing.
///
/// # Errors
/// Says in one sentence what to do when it cannot.
pub fn ensure_machine() -> Result<Machine> {
    let wanted: Vec<_> = BUILD.iter().chain(&LAB).chain(&PROGRAMS).copied().collect();
    let missing = missing_packages(&wanted);
    let (unpacked, emulator) = (newest_unpacked(), Emulator::find());
    if !missing.is_empty() || unpacked.is_none() || emulator.is_none() {
        if !apt::is_here() {
            let qemu = emulator.is_none().then(|| emulator::PACKAGE.to_owned());
            apt::refuse(&missing.iter().cloned().chain(qemu).collect::<Vec<_>>())?;
        }
        apt::update()?;
        apt::install(&missing)?;
    }
    Ok(Machine {
        kernel: unpacked.map_or_else(unpack_kernel, Ok)?,
        emulator: emulator.map_or_else(emulator::install, Ok)?,
    })
}

/// Fetches the newest package and unpacks it.
fn unpack_kernel() -> Result<Kernel> {
    let Some(package) = newest_offered() else {
        bail!("no package {PREFIX}*{SUFFIX} is to be had here");
    };
    let release = release_of(&package)?;
    let root = kernels()?.join(&release);
    unpack::packages(&[package], &root)?;
    Ok(Kernel { root, release })
}

fn kernels() -> Result<PathBuf> {
    let tools = tools_root().context("there is no home directory to unpack a kernel into")?;
    Ok(tools.join("kernels"))
}

/// The newest kernel that an earlier run has unpacked.
fn newest_unpacked() -> Option<Kernel> {
    let entries = fs::read_dir(kernels().ok()?).ok()?.flatten();
    entries
        .filter_map(|entry| {
            let release = entry.file_name().into_string().ok()?;
            let root = entry.path();
            let kernel = Kernel { root, release };
            kernel.image().is_file().then_some(kernel)
        })
        .max_by_key(|kernel| build_of(&format!("linux-image-{}", kernel.release)))
}

/// The package with the newest kernel.
fn newest_offered() -> Option<String> {
    let list = exec::output(Command::new("apt-cache").args(["pkgnames", PREFIX])).ok()?;
    list.lines()
        .filter(|package| build_of(package).is_some())
        .max_by_key(|package| build_of(package))
        .map(str::to_owned)
}

/// The number that Debian counts builds of one series by; `None` for other packages.
fn build_of(package: &str) -> Option<u32> {
    let number = package.strip_prefix(PREFIX)?.strip_suffix(SUFFIX)?;
    number.parse().ok()
}

fn release_of(package: &str) -> Result<String> {
    let release = package.strip_prefix("linux-image-");
    Ok(release.context("not a kernel's package")?.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_small_kernels_of_the_series_count() {
        assert_eq!(build_of("linux-image-6.1.0-56-cloud-amd64"), Some(56));
        for other in [
            "linux-image-6.1.0-56-amd64",
            "linux-image-6.1.0-56-cloud-amd64-dbg",
            "linux-image-6.10.0-1-cloud-amd64",
        ] {
            assert_eq!(build_of(other), None, "{other}");
        }
    }
}
