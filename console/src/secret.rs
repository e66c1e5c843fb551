//! Secrets in files that not everybody may read.

use std::{
    fmt,
    fs::OpenOptions,
    io::{self, Read as _},
    os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _},
    path::Path,
};

use rustix::fs::OFlags;

/// The longest secret that is read.
const LONGEST: u64 = 8_192;

/// Bytes that `Debug` does not show.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Box<[u8]>);

impl Secret {
    #[must_use]
    pub fn new(bytes: &[u8]) -> Self {
        Self(bytes.into())
    }

    /// The bytes themselves, for those who check or hash them.
    #[must_use]
    pub fn expose(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret")
    }
}

/// Why there is no secret.
#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    #[error("{file} cannot be read: {cause}")]
    Unreadable {
        file: String,
        #[source]
        cause: io::Error,
    },
    #[error("{0} can be read by everybody: take that right away (chmod o-rwx)")]
    Open(String),
    #[error("the first line of {0} is longer than {LONGEST} bytes: that is no secret")]
    TooLong(String),
}

/// The first line of a file that not everybody may read.
///
/// # Errors
///
/// If everybody may, or it cannot be read, or is too long to be one.
pub fn read(path: &Path) -> Result<String, SecretError> {
    let file = path.display().to_string();
    let unreadable = |cause| SecretError::Unreadable {
        file: file.clone(),
        cause,
    };
    // A pipe would wait for somebody to write to it.
    let flags = i32::try_from(OFlags::NONBLOCK.bits()).unwrap_or(0);
    let mut options = OpenOptions::new();
    options.read(true).custom_flags(flags);
    // The mode is that of what is read, whatever the path leads to by then.
    let opened = options.open(path).map_err(unreadable)?;
    let about = opened.metadata().map_err(unreadable)?;
    if !about.is_file() {
        return Err(unreadable(io::Error::other("not a regular file")));
    }
    if about.permissions().mode() & 0o007 != 0 {
        return Err(SecretError::Open(file));
    }
    let mut text = String::new();
    let read = opened.take(LONGEST + 1).read_to_string(&mut text);
    read.map_err(unreadable)?;
    let line = text.lines().next().unwrap_or_default();
    if line.len() as u64 > LONGEST {
        return Err(SecretError::TooLong(file));
    }
    Ok(line.to_owned())
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::PermissionsExt as _};

    use super::{Secret, SecretError, read};

    #[test]
    fn debug_output_says_nothing() {
        assert_eq!(format!("{:?}", Secret::new(b"sesame")), "Secret");
    }

    #[test]
    fn a_secret_that_everybody_may_read_is_none() {
        let path = std::env::temp_dir().join(format!("tidegate-secret-{}", std::process::id()));
        fs::write(&path, "open sesame\n").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        assert!(matches!(read(&path), Err(SecretError::Open(_))));
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        assert_eq!(read(&path).unwrap(), "open sesame");
        let longest = "x".repeat(8_192);
        fs::write(&path, format!("{longest}\nmore")).unwrap();
        assert_eq!(read(&path).unwrap(), longest);
        fs::write(&path, format!("{longest}x\n")).unwrap();
        assert!(matches!(read(&path), Err(SecretError::TooLong(_))));
        fs::remove_file(&path).unwrap();
        assert!(matches!(read(&path), Err(SecretError::Unreadable { .. })));
        let endless = read("/dev/zero".as_ref()).unwrap_err();
        assert!(endless.to_string().contains("not a regular file"));
    }
}
