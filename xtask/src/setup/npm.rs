//! MQTT.js, which the broker's tests talk to: fetched by npm as its lock file says, to the byte, and
//! put beside what cargo builds. No package runs a script of its own.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};

use super::announce_and_run_quietly;
use crate::build::{target_dir, workspace};

/// Where the tests have what npm needs to know.
const SOURCE: &str = "broker/src/node/tests/mqttjs";

/// Below cargo's directory; the tests look for it there.
const PLACE: &str = "mqttjs";

const PACKAGE: &str = "package.json";
const LOCK: &str = "package-lock.json";

/// Without a network npm would wait for more than a minute before it says so.
const RETRIES: [&str; 2] = [
    "--fetch-retry-mintimeout=1000",
    "--fetch-retry-maxtimeout=5000",
];

/// Installs it unless it is there in the versions of the lock file.
pub(super) fn ensure_mqttjs() -> Result<()> {
    let source = workspace().join(SOURCE);
    let target = target_dir()?;
    if is_current(&source, &target.join(PLACE)) {
        return Ok(());
    }
    install(&source, &target).context(
        "MQTT.js, which tests of the broker take, could not be installed: npm needs a network, or \
         a cache that has it; then run `cargo xtask setup` again",
    )
}

/// What is there was made whole, from this lock file.
fn is_current(source: &Path, installed: &Path) -> bool {
    let lock = |dir: &Path| fs::read(dir.join(LOCK));
    let known = lock(source).ok();
    known.is_some() && known == lock(installed).ok() && installed.join("node_modules/mqtt").is_dir()
}

/// Installs it whole or not at all, in place of what is there.
fn install(source: &Path, target: &Path) -> Result<()> {
    let unfinished = target.join(format!("{PLACE}.unfinished"));
    if unfinished.exists() {
        fs::remove_dir_all(&unfinished)?;
    }
    fs::create_dir_all(&unfinished)?;
    for file in [PACKAGE, LOCK] {
        fs::copy(source.join(file), unfinished.join(file))
            .with_context(|| format!("cannot copy {file}"))?;
    }
    announce_and_run_quietly(
        Command::new("npm")
            .current_dir(&unfinished)
            .args(["ci", "--ignore-scripts", "--no-audit", "--no-fund"])
            .args(RETRIES),
    )?;
    let place = target.join(PLACE);
    if place.exists() {
        fs::remove_dir_all(&place)?;
    }
    fs::rename(&unfinished, &place)
        .with_context(|| format!("cannot move what was installed to {}", place.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_package_is_locked_by_its_digest_and_comes_from_whatever_registry_npm_is_set_to() {
        let text = fs::read_to_string(workspace().join(SOURCE).join(LOCK)).unwrap();
        let lock: serde_json::Value = serde_json::from_str(&text).unwrap();
        let packages = lock["packages"].as_object().unwrap();
        assert!(packages.contains_key("node_modules/mqtt"));
        for (name, package) in packages.iter().filter(|(name, _)| !name.is_empty()) {
            let digest = package["integrity"].as_str().unwrap_or_default();
            assert!(digest.starts_with("sha512-"), "{name}: {digest:?}");
        }
        assert!(!text.contains("\"resolved\""));
    }
}
