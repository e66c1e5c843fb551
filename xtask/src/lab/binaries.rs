//! Where the built programs are.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

/// Names the directory with the programs, when they are not beside the running one.
pub const BIN_DIR: &str = "TIDEGATE_BIN_DIR";

/// The programs under test.
#[derive(Clone, Debug)]
pub struct Binaries {
    /// The balancer.
    pub tidegate: PathBuf,
    /// The broker and load generator.
    pub broker: PathBuf,
}

impl Binaries {
    /// Finds the programs in the directory that `TIDEGATE_BIN_DIR` names, or in the target directory of the
    /// running program's own profile.
    ///
    /// # Errors
    /// When they are not built.
    pub fn find() -> Result<Self> {
        if let Some(dir) = std::env::var_os(BIN_DIR) {
            return Self::inside(Path::new(&dir));
        }
        let exe = std::env::current_exe().context("cannot find the running program")?;
        let dirs = exe.ancestors().skip(1);
        for dir in dirs.take(3) {
            if let Ok(found) = Self::inside(dir) {
                return Ok(found);
            }
        }
        bail!("tidegate and tidegate-broker are not built: run `cargo xtask build`")
    }

    /// Takes the programs from a directory.
    ///
    /// # Errors
    /// When they are not there.
    pub fn inside(dir: &Path) -> Result<Self> {
        let program = |name: &str| {
            let path = dir.join(name);
            if !path.is_file() {
                bail!("{} is not built: run `cargo xtask build`", path.display());
            }
            Ok(path)
        };
        Ok(Self {
            tidegate: program("tidegate")?,
            broker: program("tidegate-broker")?,
        })
    }
}
