//! Keeping the kernel from asking for neighbours in the name of a VIP that is at a virtual MAC address:
//! with the question it would tell them the interface's own.
//!
//! What the setting was before is noted, as a process that is killed cannot put it back. The note names
//! the boot too: the next one begins with settings of its own.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

/// Where settings of IPv4 are, by interface.
const SETTINGS: &str = "/proc/sys/net/ipv4/conf";
const BOOT: &str = "/proc/sys/kernel/random/boot_id";

/// Of `arp_announce`: the best address of the interface, whatever the packet is from.
const BEST: &str = "2";

/// The setting of one interface, which goes back to what it was with this value.
pub struct Discretion {
    setting: PathBuf,
    note: PathBuf,
    /// What it was, if it had to be changed.
    before: Option<String>,
}

impl Discretion {
    /// For an interface of this namespace, with notes in that directory.
    ///
    /// # Errors
    ///
    /// If the setting cannot be read, noted or written.
    pub fn new(interface: &str, notes: &Path) -> io::Result<Self> {
        Self::of(setting(interface), notes, interface)
    }

    fn of(setting: PathBuf, notes: &Path, interface: &str) -> io::Result<Self> {
        let note = place(notes);
        let found = fs::read_to_string(&setting)?;
        let found = found.trim();
        let before = if found == BEST {
            read(&note, interface)
        } else {
            fs::write(&note, format!("{} {interface} {found}\n", boot()))?;
            fs::write(&setting, BEST)?;
            Some(found.to_owned())
        };
        Ok(Self {
            setting,
            note,
            before,
        })
    }

    /// Puts back what an earlier process has changed and noted, if it could not do so itself.
    pub fn undo(interface: &str, notes: &Path) {
        Self::undo_at(setting(interface), notes, interface);
    }

    fn undo_at(setting: PathBuf, notes: &Path, interface: &str) {
        let note = place(notes);
        let before = read(&note, interface);
        let found = fs::read_to_string(&setting).unwrap_or_default();
        // What somebody has set since is right.
        let before = before.filter(|_| found.trim() == BEST);
        drop(Self {
            setting,
            note,
            before,
        });
    }
}

impl Drop for Discretion {
    fn drop(&mut self) {
        if let Some(before) = &self.before {
            // An interface that is gone has taken it along.
            drop(fs::write(&self.setting, before));
        }
        drop(fs::remove_file(&self.note));
    }
}

fn setting(interface: &str) -> PathBuf {
    Path::new(SETTINGS).join(interface).join("arp_announce")
}

fn place(notes: &Path) -> PathBuf {
    notes.join("arp_announce")
}

/// What a note of this boot says of an interface.
fn read(note: &Path, interface: &str) -> Option<String> {
    let text = fs::read_to_string(note).ok()?;
    let words: Vec<&str> = text.split_whitespace().collect();
    match words[..] {
        [noted, its, before] if noted == boot() && its == interface => Some(before.to_owned()),
        _ => None,
    }
}

fn boot() -> String {
    let boot = fs::read_to_string(BOOT).unwrap_or_default();
    boot.trim().to_owned()
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::PathBuf;

    use super::{Discretion, place};

    /// A directory with a setting.
    fn bench(name: &str, value: &str) -> (PathBuf, PathBuf) {
        let name = format!("tidegate-{name}-{}", std::process::id());
        let directory = std::env::temp_dir().join(name);
        fs::create_dir_all(&directory).unwrap();
        let setting = directory.join("setting");
        fs::write(&setting, value).unwrap();
        (directory, setting)
    }

    fn value(setting: &PathBuf) -> String {
        fs::read_to_string(setting).unwrap().trim().to_owned()
    }

    #[test]
    fn the_setting_goes_back_to_what_it_was_also_after_a_kill() {
        let (notes, setting) = bench("discretion", "1\n");
        let take = || Discretion::of(setting.clone(), &notes, "eth0").unwrap();
        drop(take());
        assert_eq!(value(&setting), "1");

        std::mem::forget(take());
        let next = take();
        assert_eq!(value(&setting), "2");
        drop(next);
        assert_eq!(value(&setting), "1");
        assert!(!place(&notes).exists());

        // The next process has no virtual MAC address.
        std::mem::forget(take());
        Discretion::undo_at(setting.clone(), &notes, "eth0");
        assert_eq!(value(&setting), "1");
        fs::remove_dir_all(notes).unwrap();
    }

    #[test]
    fn what_an_operator_has_set_stays() {
        let (notes, setting) = bench("discretion-set", "2\n");
        let take = || Discretion::of(setting.clone(), &notes, "eth0").unwrap();
        drop(take());
        assert_eq!(value(&setting), "2");

        // A note of another boot or interface tells nothing of this one.
        for note in [
            "another-boot eth0 0\n".to_owned(),
            format!("{} eth1 0\n", super::boot()),
        ] {
            fs::write(place(&notes), note).unwrap();
            drop(take());
            assert_eq!(value(&setting), "2");
        }
        fs::write(&setting, "0").unwrap();
        std::mem::forget(take());
        fs::write(&setting, "1").unwrap();
        Discretion::undo_at(setting.clone(), &notes, "eth0");
        assert_eq!(value(&setting), "1");
        fs::remove_dir_all(notes).unwrap();
    }
}
