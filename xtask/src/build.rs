//! Builds the programs, and says where they are.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use serde::Deserialize;

use crate::exec;
use crate::lab::Binaries;

/// How the programs are built.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Profile {
    /// As the tests are: quick to build.
    Dev,
    /// As users install them.
    Release,
}

impl Profile {
    fn directory(self) -> &'static str {
        match self {
            Self::Dev => "debug",
            Self::Release => "release",
        }
    }
}

/// Builds `tidegate` and `tidegate-broker`.
///
/// # Errors
/// When the compiler refuses them.
pub fn programs(profile: Profile) -> Result<Binaries> {
    let mut command = cargo();
    command.args(["build", "--package", "lb-user", "--package", "broker"]);
    match profile {
        Profile::Dev => {}
        Profile::Release => {
            command.arg("--release");
        }
    }
    exec::show_run(&mut command)?;
    Binaries::inside(&target_dir()?.join(profile.directory()))
}

/// The cargo that runs us, in the workspace.
pub fn cargo() -> Command {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command.current_dir(workspace());
    command
}

/// The root of the source tree.
pub fn workspace() -> &'static Path {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR"));
    dir.parent().unwrap_or(dir)
}

/// Where cargo puts what it builds.
///
/// # Errors
/// When cargo cannot read the workspace.
pub fn target_dir() -> Result<PathBuf> {
    #[derive(Deserialize)]
    struct Metadata {
        target_directory: PathBuf,
    }
    let json = exec::output(cargo().args(["metadata", "--no-deps", "--format-version", "1"]))?;
    let metadata: Metadata =
        serde_json::from_str(&json).context("cargo metadata has changed its form")?;
    Ok(metadata.target_directory)
}
