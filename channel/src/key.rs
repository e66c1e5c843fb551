//! The key that both nodes have, in a file of its own.

use std::{
    fmt,
    fs::{self, File, OpenOptions},
    io::{self, Read as _, Write as _},
    os::unix::fs::{MetadataExt as _, OpenOptionsExt as _},
    path::Path,
};

/// Bytes of a key.
const LENGTH: usize = 32;

/// The longest file that is read: a key, and a line's end or two.
const LONGEST: u64 = 256;

/// What a key is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Purpose {
    /// What both ends must agree on besides: handshakes for other purposes with the same key fail.
    pub prologue: &'static str,
    /// The command that makes a key, as users type it.
    pub command: &'static str,
}

/// What the nodes know and nobody else. Not shown, not even when debugging.
#[derive(Clone, PartialEq, Eq)]
pub struct Key {
    bytes: [u8; LENGTH],
    purpose: Purpose,
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Key(..)")
    }
}

/// Why there is no key.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    #[error("{file}: {cause}; `{command} FILE` makes one, all nodes need the same")]
    Unreadable {
        file: String,
        command: &'static str,
        #[source]
        cause: io::Error,
    },
    #[error("{file} can be read by others (mode {mode:o}): chmod 600 it, or make a new one")]
    Exposed { file: String, mode: u32 },
    #[error("{file} is not 64 hex digits: `{command} FILE` makes a key")]
    Malformed { file: String, command: &'static str },
    #[error("{file} cannot be written: {cause}")]
    Unwritable {
        file: String,
        #[source]
        cause: io::Error,
    },
}

impl Key {
    /// The key in a file that nobody else can read.
    ///
    /// # Errors
    /// If there is none, or somebody else can.
    pub fn load(path: &Path, purpose: Purpose) -> Result<Self, KeyError> {
        let file = || path.display().to_string();
        let command = purpose.command;
        let unreadable = |cause| KeyError::Unreadable {
            file: file(),
            command,
            cause,
        };
        // The mode is that of what is read, whatever the path leads to by then.
        let opened = File::open(path).map_err(unreadable)?;
        let mode = opened.metadata().map_err(unreadable)?.mode() & 0o777;
        if mode & 0o077 != 0 {
            return Err(KeyError::Exposed { file: file(), mode });
        }
        let mut text = String::new();
        let read = opened.take(LONGEST).read_to_string(&mut text);
        read.map_err(unreadable)?;
        let bytes = parse(text.trim()).ok_or_else(|| KeyError::Malformed {
            file: file(),
            command,
        })?;
        Ok(Self { bytes, purpose })
    }

    /// Makes a key in a new file.
    ///
    /// # Errors
    /// If there is such a file, or it cannot be made.
    pub fn create(path: &Path) -> Result<(), KeyError> {
        let unwritable = |cause| KeyError::Unwritable {
            file: path.display().to_string(),
            cause,
        };
        let mut key = [0; LENGTH];
        let random = File::open("/dev/urandom");
        let read = random.and_then(|mut random| random.read_exact(&mut key));
        read.map_err(unwritable)?;
        let digits: String = key.iter().map(|byte| format!("{byte:02x}")).collect();
        let mut options = OpenOptions::new();
        options.write(true).create_new(true).mode(0o600);
        let mut file = options.open(path).map_err(unwritable)?;
        let written = writeln!(file, "{digits}").and_then(|()| file.sync_all());
        written.map_err(|cause| {
            drop(fs::remove_file(path));
            unwritable(cause)
        })
    }

    pub(super) const fn bytes(&self) -> &[u8; LENGTH] {
        &self.bytes
    }

    pub(super) const fn purpose(&self) -> Purpose {
        self.purpose
    }
}

fn parse(digits: &str) -> Option<[u8; LENGTH]> {
    let mut key = [0; LENGTH];
    if digits.len() != 2 * LENGTH || !digits.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    for (at, byte) in key.iter_mut().enumerate() {
        *byte = u8::from_str_radix(digits.get(2 * at..2 * at + 2)?, 16).ok()?;
    }
    Some(key)
}

#[cfg(test)]
pub(super) const fn of(byte: u8) -> Key {
    Key {
        bytes: [byte; LENGTH],
        purpose: TESTS,
    }
}

#[cfg(test)]
const TESTS: Purpose = Purpose {
    prologue: "tests",
    command: "tidegate sync key",
};

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::PermissionsExt as _, path::PathBuf};

    use super::{Key, KeyError, TESTS};

    struct Directory(PathBuf);

    impl Directory {
        fn new(name: &str) -> Self {
            let name = format!("tidegate-key-{name}-{}", std::process::id());
            let path = std::env::temp_dir().join(name);
            fs::create_dir_all(&path).unwrap();
            Self(path)
        }
    }

    impl Drop for Directory {
        fn drop(&mut self) {
            drop(fs::remove_dir_all(&self.0));
        }
    }

    #[test]
    fn a_new_key_can_be_read_and_is_never_replaced() {
        let directory = Directory::new("new");
        let (one, other) = (directory.0.join("one"), directory.0.join("other"));
        Key::create(&one).unwrap();
        Key::create(&other).unwrap();
        let key = Key::load(&one, TESTS).unwrap();
        assert_ne!(key, Key::load(&other, TESTS).unwrap());
        assert!(matches!(
            Key::create(&one),
            Err(KeyError::Unwritable { .. })
        ));
        assert_eq!(Key::load(&one, TESTS).unwrap(), key);
        assert_eq!(format!("{key:?}"), "Key(..)");
    }

    #[test]
    fn a_key_that_others_can_read_is_none() {
        let directory = Directory::new("exposed");
        let path = directory.0.join("key");
        Key::create(&path).unwrap();
        for mode in [0o640, 0o604, 0o666] {
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            let error = Key::load(&path, TESTS).unwrap_err();
            assert!(error.to_string().contains("chmod 600"), "{error}");
        }
    }

    #[test]
    fn what_is_no_key_is_named() {
        let directory = Directory::new("malformed");
        let path = directory.0.join("key");
        let missing = Key::load(&path, TESTS).unwrap_err().to_string();
        assert!(missing.contains("tidegate sync key"), "{missing}");
        Key::create(&path).unwrap();
        for text in ["", "00", &"0".repeat(63), &"+1".repeat(32), &"0".repeat(66)] {
            fs::write(&path, text).unwrap();
            assert!(matches!(
                Key::load(&path, TESTS),
                Err(KeyError::Malformed { .. })
            ));
        }
    }
}
