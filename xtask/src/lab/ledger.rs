//! What brokers that were killed wrote down about their network namespace, once that is gone.
//!
//! The kernel uses the numbers of namespaces again: a later broker would take a stranger's notes for its own.

use std::collections::BTreeSet;
use std::fs::File;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use super::netns::NAMES;

/// Where `tidegate-broker` keeps them.
const DIR: &str = "/run/tidegate-broker";

/// Removes the ledgers that no process holds and whose namespace is gone.
pub(super) fn clean_leftovers() {
    let Ok(entries) = std::fs::read_dir(DIR) else {
        return;
    };
    let living = living_namespaces();
    for entry in entries.flatten() {
        let is_left = namespace_of(&entry.file_name().to_string_lossy())
            .is_some_and(|namespace| !living.contains(&namespace));
        if is_left {
            remove_unless_held(&entry.path());
        }
    }
}

/// One that cannot be removed is no obstacle to anybody yet; the next run tries again.
fn remove_unless_held(ledger: &Path) {
    let Ok(file) = File::open(ledger) else { return };
    if file.try_lock().is_ok() {
        let _ = std::fs::remove_file(ledger);
    }
}

/// The number in `vip-NUMBER-INTERFACE.json`.
fn namespace_of(name: &str) -> Option<u64> {
    let (number, _) = name
        .strip_prefix("vip-")?
        .strip_suffix(".json")?
        .split_once('-')?;
    number.parse().ok()
}

/// Those with a name or a process.
fn living_namespaces() -> BTreeSet<u64> {
    let list = |dir: &str| std::fs::read_dir(dir).into_iter().flatten().flatten();
    let named = list(NAMES).map(|entry| entry.path());
    let used = list("/proc").map(|entry| entry.path().join("ns/net"));
    named
        .chain(used)
        .filter_map(|path| Some(std::fs::metadata(path).ok()?.ino()))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ledger_names_its_namespace() {
        assert_eq!(namespace_of("vip-4026532177-lo.json"), Some(4_026_532_177));
        assert_eq!(namespace_of("vip-1-eth0-1.json"), Some(1));
        for other in ["vip-x-lo.json", "vip-1.json", "vip-1-lo.json.new", "other"] {
            assert_eq!(namespace_of(other), None, "{other}");
        }
    }

    #[test]
    fn our_own_namespace_lives() {
        let ours = std::fs::metadata("/proc/self/ns/net").unwrap().ino();
        assert!(living_namespaces().contains(&ours));
    }
}
