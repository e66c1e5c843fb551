//! qemu: the distribution's, or, where apt would remove another package for it, the same packages
//! unpacked into a directory of ours.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use super::{apt, unpack};
use crate::exec::{self, which};
use crate::toolchain::tools_root;

const PROGRAM: &str = "qemu-system-x86_64";
pub(super) const PACKAGE: &str = "qemu-system-x86";

/// Where Debian has shared libraries on the one architecture that kernels are emulated of.
const LIBRARIES: [&str; 2] = ["usr/lib/x86_64-linux-gnu", "lib/x86_64-linux-gnu"];
/// Where qemu has parts of its own.
const MODULES: &str = "usr/lib/x86_64-linux-gnu/qemu";

/// Where firmware is, in the order in which it is looked for.
const FIRMWARE: [&str; 3] = ["usr/share/qemu", "usr/share/seabios", "usr/lib/ipxe/qemu"];

/// An emulator of x86-64 machines.
#[derive(Debug)]
pub struct Emulator {
    program: PathBuf,
    /// Where it was unpacked, if it is not installed.
    root: Option<PathBuf>,
}

impl Emulator {
    /// The one that is installed, or that an earlier run has unpacked.
    pub(super) fn find() -> Option<Self> {
        if let Some(program) = which(PROGRAM) {
            let root = None;
            return Some(Self { program, root });
        }
        Self::unpacked(&root().ok()?)
    }

    fn unpacked(root: &Path) -> Option<Self> {
        let program = root.join("usr/bin").join(PROGRAM);
        let root = Some(root.to_owned());
        let emulator = Self { program, root };
        // A library that it takes from the system may have gone since it was unpacked.
        let starts = exec::run(emulator.command().arg("--version")).is_ok();
        starts.then_some(emulator)
    }

    /// A command that runs it.
    #[must_use]
    pub fn command(&self) -> Command {
        let mut command = Command::new(&self.program);
        if let Some(root) = &self.root {
            let libraries = LIBRARIES.map(|dir| root.join(dir).display().to_string());
            command.env("QEMU_MODULE_DIR", root.join(MODULES));
            command.env("LD_LIBRARY_PATH", libraries.join(":"));
            for firmware in FIRMWARE {
                command.arg("-L").arg(root.join(firmware));
            }
        }
        command
    }
}

/// Installs it, or unpacks it if that would cost another package.
///
/// # Errors
/// Says in one sentence what to do when it cannot.
pub(super) fn install() -> Result<Emulator> {
    let package = PACKAGE.to_owned();
    let plan = apt::plan(&package)?;
    if plan.removes.is_empty() {
        apt::install(&[package])?;
    } else {
        eprintln!(
            "setup: {PACKAGE} would replace {}, so it is unpacked beside it",
            plan.removes.join(", ")
        );
        unpack::packages(&plan.installs, &root()?)?;
    }
    Emulator::find().with_context(|| format!("{PACKAGE} is there, and {PROGRAM} does not start"))
}

fn root() -> Result<PathBuf> {
    let tools = tools_root().context("there is no home directory to unpack an emulator into")?;
    Ok(tools.join("emulator"))
}
