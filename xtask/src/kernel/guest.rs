//! What the guest finds in memory when it boots: the tests, a shell, and what both are linked with.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use super::cpio::Archive;
use crate::exec::{self, which};
use crate::setup::Kernel;

/// Begins the line that says how the tests ended; a status follows.
pub(super) const END: &str = "tidegate-tests-ended ";

/// Where the tests are in the guest.
const TESTS: &str = "/tests";

/// Programs of this machine that the guest runs.
const PROGRAMS: [&str; 4] = ["sh", "mount", "insmod", "ip"];

/// Modules that tests take: those with two interfaces.
const MODULES: [&str; 1] = ["drivers/net/veth.ko"];

/// The guest's first file system, which is its only one.
///
/// # Errors
/// When a program or one of its libraries cannot be read.
pub(super) fn file_system(tests: &Path, arguments: &[&str], kernel: &Kernel) -> Result<Vec<u8>> {
    let mut archive = Archive::default();
    for directory in ["dev", "proc", "sys", "tmp", "run", "var/run", "root"] {
        archive.directory(directory)?;
    }
    let mut libraries = libraries_of(tests)?;
    archive.program(TESTS, &read(tests)?)?;
    for name in PROGRAMS {
        let program = which(name).with_context(|| format!("there is no {name} here"))?;
        libraries.extend(libraries_of(&program)?);
        archive.program(&format!("/bin/{name}"), &read(&program)?)?;
    }
    for library in libraries {
        let path = library.to_str().context("a path is not UTF-8")?;
        archive.program(path, &read(&library)?)?;
    }
    for module in MODULES {
        let path = kernel.module(module);
        let name = path.file_name().unwrap_or_default().display();
        archive.program(&format!("/modules/{name}"), &read(&path)?)?;
    }
    archive.program("/init", init(arguments).as_bytes())?;
    archive.finish()
}

/// The guest's first process: mounts, runs the tests, says how they ended, switches off.
fn init(arguments: &[&str]) -> String {
    let arguments: Vec<String> = arguments.iter().map(|text| quoted(text)).collect();
    let arguments = arguments.join(" ");
    format!(
        "#!/bin/sh
export PATH=/bin HOME=/root
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
mount -t bpf bpf /sys/fs/bpf
mount -t tmpfs tmp /tmp
for module in /modules/*; do insmod \"$module\"; done
read -r _ _ release _ </proc/version
echo \"Linux $release\"
{TESTS} {arguments}
echo \"{END}$?\"
echo o >/proc/sysrq-trigger
while :; do read -r _ </dev/null; done
"
    )
}

/// As one word for a shell.
fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', "'\\''"))
}

fn read(path: &Path) -> Result<Vec<u8>> {
    fs::read(path).with_context(|| format!("cannot read {}", path.display()))
}

/// The shared libraries of a program, the loader among them.
fn libraries_of(program: &Path) -> Result<BTreeSet<PathBuf>> {
    let text = exec::output(Command::new("ldd").arg(program))?;
    let paths = text.lines().filter_map(|line| {
        let path = line.split_whitespace().find(|word| word.starts_with('/'))?;
        Some(PathBuf::from(path))
    });
    Ok(paths.collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_reach_the_tests_as_they_are() {
        let script = init(&["datapath::", "it's"]);
        assert!(
            script.contains("/tests 'datapath::' 'it'\\''s'\n"),
            "{script}"
        );
    }
}
