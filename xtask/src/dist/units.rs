//! Units are checked by systemd itself: that it understands all of them, and how open they leave a host.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};

use super::Product;
use crate::exec::{self, which};
use crate::lab::WorkDir;

/// The most that `systemd-analyze security` may find, in tenths.
const EXPOSURE: u32 = 30;

/// Checks the units of a product whose files are below `root`.
pub(super) fn check(product: Product, root: &Path) -> Result<()> {
    if which("systemd-analyze").is_none() {
        eprintln!("there is no systemd-analyze: units are not checked");
        return Ok(());
    }
    let directory = root.join("usr/lib/systemd/system");
    verify(&directory, product.units(), &root.join("usr/bin"))?;
    for unit in product.units() {
        exposure(&directory.join(unit))?;
    }
    Ok(())
}

/// Has systemd read units, with our programs where they are here.
fn verify(directory: &Path, units: &[&str], programs: &Path) -> Result<()> {
    let work = WorkDir::new()?;
    let here = format!("{}/tidegate", programs.display());
    let mut command = Command::new("systemd-analyze");
    command.args(["verify", "--man=no"]);
    for unit in units {
        let path = directory.join(unit);
        let text =
            fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
        let copy = work.path().join(unit);
        fs::write(&copy, text.replace("/usr/bin/tidegate", &here))?;
        command.arg(copy);
    }
    let output = command.output()?;
    // A key that it does not know is a warning, and would be no protection. Units of the machine that
    // this runs on may have worse.
    let said = String::from_utf8_lossy(&output.stderr);
    let is_ours = |line: &&str| units.iter().any(|unit| line.contains(unit));
    let remarks: Vec<_> = said.lines().filter(is_ours).collect();
    if !remarks.is_empty() {
        bail!("{}:\n{}", exec::show(&command), remarks.join("\n"));
    }
    Ok(())
}

fn exposure(unit: &Path) -> Result<()> {
    let mut command = Command::new("systemd-analyze");
    command.args(["security", "--offline=yes", "--no-pager"]);
    command.arg(format!("--threshold={EXPOSURE}"));
    exec::run(command.arg(unit))
        .with_context(|| format!("{} is more open than it may be", unit.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const UNIT: &str = "boat.service";

    /// A unit that starts what is certainly there.
    fn unit(directory: &Path, lines: &str) -> std::path::PathBuf {
        let path = directory.join(UNIT);
        let text = format!("[Service]\nExecStart=/usr/bin/env true\n{lines}");
        fs::write(&path, text).unwrap();
        path
    }

    fn is_there() -> bool {
        let is_there = which("systemd-analyze").is_some();
        if !is_there {
            eprintln!("skipped: there is no systemd-analyze");
        }
        is_there
    }

    #[test]
    fn units_leave_little_open() {
        if is_there() {
            for product in Product::ALL {
                for unit in product.units() {
                    exposure(&product.packaging().join(unit)).unwrap();
                }
            }
        }
    }

    #[test]
    fn a_unit_that_leaves_all_open_is_refused() {
        let work = WorkDir::new().unwrap();
        if is_there() {
            let error = exposure(&unit(work.path(), "")).unwrap_err();
            assert!(error.to_string().contains("more open"), "{error:#}");
        }
    }

    #[test]
    fn a_key_that_systemd_does_not_know_is_refused() {
        let work = WorkDir::new().unwrap();
        if is_there() {
            let verify = || verify(work.path(), &[UNIT], Path::new("/usr/bin"));
            unit(work.path(), "");
            verify().unwrap();
            unit(work.path(), "ProtectEverything=yes\n");
            let error = verify().unwrap_err();
            assert!(error.to_string().contains("ProtectEverything"), "{error:#}");
        }
    }
}
