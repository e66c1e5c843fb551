//! The files of a package for hosts that are no Debian: to unpack at the root.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Result;

use super::{Product, Release, VERSION};
use crate::exec;

/// Packs all below `root`, under one directory that `tar --strip-components=1` takes off.
pub(super) fn pack(
    product: Product,
    release: &Release,
    root: &Path,
    out: &Path,
) -> Result<PathBuf> {
    let stem = format!("{}-{VERSION}-{}", product.name(), release.architecture);
    let path = out.join(format!("{stem}.tar.gz"));
    let mut tar = Command::new("tar");
    tar.arg("--create").arg("--file").arg(&path);
    tar.args(["--use-compress-program=gzip -9n", "--format=gnu"]);
    tar.args(["--sort=name", "--numeric-owner", "--owner=0", "--group=0"]);
    tar.arg(format!("--mtime=@{}", release.epoch));
    // Links are named by what they point to, which is not to change.
    tar.arg(format!("--transform=flags=rSH;s,^\\.,{stem},"));
    exec::run(tar.arg("--directory").arg(root).arg("."))?;
    Ok(path)
}
