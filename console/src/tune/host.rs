//! The host's settings: read, written, and put back from a file of what was before.

use std::{
    fs, io,
    io::Write as _,
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

use serde::Serialize;

use super::plan::{Change, merge};

/// The first line of a file in /etc/sysctl.d that is ours to overwrite and to remove.
const MARK: &str = "# Written by tune --apply; tune --undo removes it.";

/// Why the settings are not as they were asked to be.
#[derive(Debug, thiserror::Error)]
pub enum TuneError {
    #[error("cannot read {}", path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error("cannot write {} (settings of the kernel take root)", path.display())]
    Write { path: PathBuf, source: io::Error },
    #[error("{} is not a file of what was before: look at it, and remove it", path.display())]
    Damaged {
        path: PathBuf,
        source: serde_json::Error,
    },
    #[error("{} was made by somebody else, and is left as it is: name another file", path.display())]
    Foreign { path: PathBuf },
    #[error("{key} is no name of a setting: look at the state file, and remove it")]
    BadKey { key: String },
    #[error("{key} is none of the settings that are judged; without options all of them are shown")]
    Unknown { key: String },
}

impl TuneError {
    /// Whether who asked can correct it.
    #[must_use]
    pub const fn is_usage(&self) -> bool {
        matches!(self, Self::Unknown { .. })
    }
}

/// Where settings are, and where is noted what they were.
#[derive(Clone, Debug)]
pub struct Host {
    /// `/proc/sys`, but in tests.
    pub settings: PathBuf,
    pub state: PathBuf,
}

/// What became of a setting that was to be put back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Undone {
    Restored(Change),
    /// Somebody has changed it since, or it is gone.
    Left(Change),
}

/// A setting that the kernel does not take.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Failed {
    pub key: String,
    pub why: String,
}

impl Failed {
    fn new(change: &Change, error: &TuneError) -> Self {
        let source = std::error::Error::source(error);
        let cause = source.map_or_else(String::new, |source| format!(": {source}"));
        Self {
            key: change.key.clone(),
            why: format!("{error}{cause}"),
        }
    }
}

impl Host {
    /// What the kernel says of a setting; `None` if it has none of that name.
    ///
    /// # Errors
    ///
    /// If it cannot be read.
    pub fn read(&self, key: &str) -> Result<Option<String>, TuneError> {
        let path = self.path(key)?;
        match fs::read_to_string(&path) {
            Ok(text) => Ok(Some(text)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(TuneError::Read { path, source }),
        }
    }

    /// Notes what was before, then writes: what was written, and what the kernel did not take.
    ///
    /// # Errors
    ///
    /// If what was before cannot be noted; then nothing is written.
    pub fn apply(&self, changes: &[Change]) -> Result<(Vec<Change>, Vec<Failed>), TuneError> {
        let (mut applied, mut failed) = (Vec::new(), Vec::new());
        if changes.is_empty() {
            return Ok((applied, failed));
        }
        let before = self.noted()?;
        self.note(&merge(&before, changes))?;
        for change in changes {
            match self.write(change, &change.after) {
                Ok(()) => applied.push(change.clone()),
                Err(error) => failed.push(Failed::new(change, &error)),
            }
        }
        if !failed.is_empty() {
            self.note(&merge(&before, &applied))?;
        }
        Ok((applied, failed))
    }

    /// Puts back what was before, the newest first, but where somebody has changed it since; only these
    /// settings, if any are given.
    ///
    /// # Errors
    ///
    /// If what is noted cannot be read or written.
    pub fn undo(&self, only: &[String]) -> Result<(Vec<Undone>, Vec<Failed>), TuneError> {
        let (mut undone, mut failed) = (Vec::new(), Vec::new());
        let noted = self.noted()?;
        let mut left = noted.clone();
        for change in noted.into_iter().rev() {
            if !only.is_empty() && !only.contains(&change.key) {
                continue;
            }
            let current = self.read(&change.key)?;
            let is_ours = current.is_some_and(|current| current.trim() == change.after);
            if is_ours && let Err(error) = self.write(&change, &change.before) {
                failed.push(Failed::new(&change, &error));
                continue;
            }
            left.retain(|it| *it != change);
            self.note(&left)?;
            undone.push(if is_ours {
                Undone::Restored(change)
            } else {
                Undone::Left(change)
            });
        }
        Ok((undone, failed))
    }

    /// All changes that can be undone.
    ///
    /// # Errors
    ///
    /// If the state file is there and cannot be read.
    pub fn noted(&self) -> Result<Vec<Change>, TuneError> {
        let path = self.state.clone();
        match fs::read(&path) {
            Ok(text) => {
                serde_json::from_slice(&text).map_err(|source| TuneError::Damaged { path, source })
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
            Err(source) => Err(TuneError::Read { path, source }),
        }
    }

    /// Written beside and moved over, so that no crash leaves half of it; removed if nothing is left.
    fn note(&self, changes: &[Change]) -> Result<(), TuneError> {
        let failed = |source| TuneError::Write {
            path: self.state.clone(),
            source,
        };
        if changes.is_empty() {
            return match fs::remove_file(&self.state) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => Err(failed(error)),
                Ok(()) | Err(_) => Ok(()),
            };
        }
        if let Some(directory) = self.state.parent() {
            fs::create_dir_all(directory).map_err(failed)?;
        }
        let text = serde_json::to_vec_pretty(changes).map_err(|error| failed(error.into()))?;
        let new = self.state.with_extension("new");
        let mut file = fs::OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&new)
            .map_err(failed)?;
        file.write_all(&text).map_err(failed)?;
        file.sync_all().map_err(failed)?;
        fs::rename(&new, &self.state).map_err(failed)
    }

    fn write(&self, change: &Change, value: &str) -> Result<(), TuneError> {
        let path = self.path(&change.key)?;
        // Never creates a file: settings are there or not.
        let file = fs::OpenOptions::new()
            .write(true)
            .truncate(true)
            .open(&path);
        file.and_then(|mut file| file.write_all(value.as_bytes()))
            .map_err(|source| TuneError::Write { path, source })
    }

    fn path(&self, key: &str) -> Result<PathBuf, TuneError> {
        let is_name = |part: &str| {
            let is_known = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
            !part.is_empty() && part.chars().all(is_known)
        };
        if key.split('.').all(is_name) {
            Ok(self.settings.join(key.replace('.', "/")))
        } else {
            Err(TuneError::BadKey {
                key: key.to_owned(),
            })
        }
    }
}

/// Writes a file for the next boot, over one of ours or none; whether there is anything to be in it.
///
/// # Errors
///
/// If there is somebody else's, or it cannot be written.
pub fn persist(path: &Path, changes: &[Change]) -> Result<bool, TuneError> {
    if changes.is_empty() {
        return Ok(false);
    }
    if !is_ours(path)? && path.exists() {
        return Err(TuneError::Foreign {
            path: path.to_owned(),
        });
    }
    let lines = changes
        .iter()
        .map(|change| format!("{} = {}\n", change.key, change.after));
    let text = format!("{MARK}\n{}", lines.collect::<String>());
    fs::write(path, text).map_err(|source| TuneError::Write {
        path: path.to_owned(),
        source,
    })?;
    Ok(true)
}

/// The same for a file of ours that is there; whether there is one.
///
/// # Errors
///
/// If it cannot be written.
pub fn rewrite(path: &Path, changes: &[Change]) -> Result<bool, TuneError> {
    Ok(is_ours(path)? && persist(path, changes)?)
}

/// Removes such a file; says whether there was one.
///
/// # Errors
///
/// If it cannot be removed.
pub fn forget(path: &Path) -> Result<bool, TuneError> {
    if !is_ours(path)? {
        return Ok(false);
    }
    let removed = fs::remove_file(path).map(|()| true);
    removed.map_err(|source| TuneError::Write {
        path: path.to_owned(),
        source,
    })
}

fn is_ours(path: &Path) -> Result<bool, TuneError> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(text.starts_with(MARK)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(source) => Err(TuneError::Read {
            path: path.to_owned(),
            source,
        }),
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::{fs, path::PathBuf};

    use super::{Host, TuneError, Undone, forget, persist};
    use crate::tune::plan::Change;

    /// A directory that stands for a host's settings and files.
    pub(in crate::tune) struct Dir(PathBuf);

    impl Dir {
        pub(in crate::tune) fn new(name: &str) -> Self {
            let name = format!("tidegate-tune-{}-{name}", std::process::id());
            let path = std::env::temp_dir().join(name);
            fs::create_dir_all(path.join("sys")).unwrap();
            Self(path)
        }

        pub(in crate::tune) fn host(&self) -> Host {
            Host {
                settings: self.0.join("sys"),
                state: self.0.join("lib/tune.json"),
            }
        }

        pub(in crate::tune) fn path(&self, name: &str) -> PathBuf {
            self.0.join(name)
        }

        pub(in crate::tune) fn set(&self, key: &str, value: &str) {
            let path = self.0.join("sys").join(key.replace('.', "/"));
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, value).unwrap();
        }

        pub(in crate::tune) fn get(&self, key: &str) -> String {
            fs::read_to_string(self.0.join("sys").join(key.replace('.', "/"))).unwrap()
        }
    }

    impl Drop for Dir {
        fn drop(&mut self) {
            drop(fs::remove_dir_all(&self.0));
        }
    }

    fn change(before: &str, after: &str) -> Change {
        Change {
            key: "a.b".to_owned(),
            before: before.to_owned(),
            after: after.to_owned(),
        }
    }

    #[test]
    fn what_was_before_comes_back_once() {
        let dir = Dir::new("back");
        let host = dir.host();
        dir.set("a.b", "1\n");
        host.apply(&[change("1", "5")]).unwrap();
        host.apply(&[change("5", "9")]).unwrap();
        assert_eq!(dir.get("a.b"), "9");
        let (undone, failed) = host.undo(&[]).unwrap();
        assert_eq!(undone, [Undone::Restored(change("1", "9"))]);
        assert!(failed.is_empty());
        assert_eq!(dir.get("a.b"), "1");
        assert!(!host.state.exists());
        assert!(host.undo(&[]).unwrap().0.is_empty());
    }

    #[test]
    fn what_others_have_set_since_is_left() {
        let dir = Dir::new("left");
        let host = dir.host();
        dir.set("a.b", "1");
        host.apply(&[change("1", "5")]).unwrap();
        dir.set("a.b", "7");
        assert_eq!(host.undo(&[]).unwrap().0, [Undone::Left(change("1", "5"))]);
        assert_eq!(dir.get("a.b"), "7");
    }

    #[test]
    fn what_the_kernel_does_not_take_is_told_and_not_noted() {
        let dir = Dir::new("refused");
        let host = dir.host();
        dir.set("a.b", "1");
        let gone = Change {
            key: "a.gone".to_owned(),
            ..change("1", "5")
        };
        let (applied, failed) = host.apply(&[gone, change("1", "5")]).unwrap();
        assert_eq!(applied, [change("1", "5")]);
        assert_eq!(failed.len(), 1);
        assert!(failed[0].why.contains("a/gone"), "{failed:?}");
        assert_eq!(host.noted().unwrap(), applied);
        // Settings are there or not: none is made.
        assert_eq!(host.read("a.gone").unwrap(), None);
    }

    #[test]
    fn names_of_settings_lead_nowhere_else() {
        let dir = Dir::new("names");
        for key in ["a/../b", "..b", ""] {
            let refused = dir.host().read(key);
            assert!(matches!(refused, Err(TuneError::BadKey { .. })), "{key}");
        }
    }

    #[test]
    fn files_of_others_are_neither_overwritten_nor_removed() {
        let dir = Dir::new("conf");
        let path = dir.path("90.conf");
        assert!(persist(&path, &[change("1", "5")]).unwrap());
        assert!(fs::read_to_string(&path).unwrap().ends_with("a.b = 5\n"));
        persist(&path, &[change("1", "6")]).unwrap();
        assert!(forget(&path).unwrap() && !forget(&path).unwrap());
        fs::write(&path, "a.b = 1\n").unwrap();
        let refused = persist(&path, &[change("1", "5")]);
        assert!(matches!(refused, Err(TuneError::Foreign { .. })));
        assert!(!forget(&path).unwrap() && path.exists());
    }

    #[test]
    fn a_state_that_is_not_whole_is_not_taken_for_none() {
        let dir = Dir::new("damaged");
        let host = dir.host();
        dir.set("a.b", "1");
        fs::create_dir_all(host.state.parent().unwrap()).unwrap();
        fs::write(&host.state, "[{").unwrap();
        let refused = host.apply(&[change("1", "5")]);
        assert!(
            matches!(refused, Err(TuneError::Damaged { .. })),
            "{refused:?}"
        );
        assert_eq!(dir.get("a.b"), "1");
    }
}
