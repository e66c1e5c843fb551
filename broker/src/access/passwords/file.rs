//! Changing a password file: its other lines stay as they are, and it is replaced as a whole.

use std::{
    fs, io,
    path::{Path, PathBuf},
    time::Duration,
};

use console::{
    lock::{self, Lock},
    replace,
};

use super::{Passwords, PasswordsError, split_line};

/// What was done to a user.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Change {
    Added,
    Changed,
    Deleted,
}

/// A password file that nobody else changes meanwhile.
pub(crate) struct PasswordFile {
    path: PathBuf,
    lines: Vec<String>,
    /// Held until this is dropped.
    _lock: Lock,
}

/// How long another change gets to be done. Nobody types a password meanwhile.
const LOCK_TIMEOUT: Duration = Duration::from_secs(5);

impl PasswordFile {
    /// Reads the file, if there is one.
    ///
    /// # Errors
    /// When it cannot be read, has a line that is no user's, or is being changed for too long.
    pub(crate) fn open(path: &Path) -> Result<Self, PasswordsError> {
        let path = replace::resolve(path).map_err(PasswordsError::Read)?;
        let lock = lock::hold(&path, LOCK_TIMEOUT)?;
        let text = match fs::read_to_string(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
            text => text.map_err(PasswordsError::Read)?,
        };
        // A file that the broker would refuse is not made longer.
        Passwords::parse(&text)?;
        Ok(Self {
            path,
            lines: text.lines().map(str::to_owned).collect(),
            _lock: lock,
        })
    }

    /// Gives a user this hash.
    pub(crate) fn set(&mut self, user: &str, hash: &str) -> Change {
        let line = format!("{user}:{hash}");
        match self.position(user) {
            Some(position) => {
                self.lines[position] = line;
                Change::Changed
            }
            None => {
                self.lines.push(line);
                Change::Added
            }
        }
    }

    /// Deletes a user; `None` if there is no such user.
    pub(crate) fn delete(&mut self, user: &str) -> Option<Change> {
        let position = self.position(user)?;
        self.lines.remove(position);
        Some(Change::Deleted)
    }

    fn position(&self, user: &str) -> Option<usize> {
        self.lines.iter().position(
            |line| matches!(split_line(line), Ok(Some((listed, _hash))) if listed == user),
        )
    }

    /// Puts a new file in the place of the old one.
    ///
    /// # Errors
    /// When that fails; the old file is untouched then.
    pub(crate) fn save(&self) -> io::Result<()> {
        let lines = self.lines.iter().flat_map(|line| [line.as_str(), "\n"]);
        replace::write(&self.path, &lines.collect::<String>())
    }
}

#[cfg(test)]
mod tests {
    use std::{fs::File, os::unix::fs::PermissionsExt as _};

    use super::*;
    use crate::{access::hashing::cheap, testing::Dir};

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o7777
    }

    fn change(path: &Path, change: impl FnOnce(&mut PasswordFile)) {
        let mut file = PasswordFile::open(path).unwrap();
        change(&mut file);
        file.save().unwrap();
    }

    #[test]
    fn new_file_is_its_owners_alone_and_other_lines_stay() {
        let dir = Dir::new();
        let path = dir.path("passwords");
        let (first, second) = (cheap("sesame"), cheap("open"));
        change(&path, |file| {
            assert_eq!(file.set("alice", &first), Change::Added);
        });
        assert_eq!(mode(&path), 0o600);
        let text = fs::read_to_string(&path).unwrap();
        fs::write(&path, format!("# people\n\n{text}bob:{first}\n")).unwrap();
        change(&path, |file| {
            assert_eq!(file.set("alice", &second), Change::Changed);
            assert_eq!(file.delete("carol"), None);
        });
        let text = fs::read_to_string(&path).unwrap();
        assert_eq!(text, format!("# people\n\nalice:{second}\nbob:{first}\n"));
        change(&path, |file| {
            assert_eq!(file.delete("alice"), Some(Change::Deleted));
        });
        let text = fs::read_to_string(&path).unwrap();
        assert_eq!(text, format!("# people\n\nbob:{first}\n"));
        assert!(!dir.path("passwords.new").exists());
    }

    #[test]
    fn group_may_go_on_reading_and_nobody_else() {
        let dir = Dir::new();
        let path = dir.write("passwords", "");
        for (before, after) in [
            (0o640, 0o640),
            (0o644, 0o640),
            (0o666, 0o640),
            (0o400, 0o600),
        ] {
            fs::set_permissions(&path, fs::Permissions::from_mode(before)).unwrap();
            change(&path, |file| {
                file.set("alice", &cheap("sesame"));
            });
            assert_eq!(mode(&path), after, "{before:o}");
        }
    }

    #[test]
    fn link_stays_a_link_and_what_a_crash_left_is_no_hindrance() {
        let dir = Dir::new();
        let (real, link) = (dir.write("real", ""), dir.path("link"));
        std::os::unix::fs::symlink(&real, &link).unwrap();
        dir.write("real.new", "half a li");
        change(&link, |file| {
            file.set("alice", &cheap("sesame"));
        });
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
        assert!(
            fs::read_to_string(&real)
                .unwrap()
                .starts_with("alice:$argon2id$")
        );
    }

    #[test]
    fn changes_wait_for_each_other_and_for_nobody_who_may_only_read() {
        let dir = Dir::new();
        let path = dir.path("passwords");
        let directory = File::open(path.parent().unwrap()).unwrap();
        directory.try_lock().unwrap();
        std::thread::scope(|scope| {
            for user in 0..8 {
                let path = &path;
                scope.spawn(move || {
                    change(path, |file| {
                        file.set(&format!("user{user}"), &cheap("sesame"));
                    });
                });
            }
        });
        let text = fs::read_to_string(&path).unwrap();
        assert_eq!(text.lines().count(), 8);
        assert!(!dir.path("passwords.lock").exists());
    }

    #[test]
    fn file_that_is_none_of_users_is_left_alone() {
        let dir = Dir::new();
        let path = dir.write("passwd", "root:x:0:0:root:/root:/bin/bash\n");
        assert!(matches!(
            PasswordFile::open(&path),
            Err(PasswordsError::Line { line: 1, .. })
        ));
    }
}
