//! Ways to tell people and programs of events: a program that is run, a web hook, an e-mail.
//!
//! Each is one attempt with a deadline; what to tell, how often to try and what to do with failures is
//! `daemon/notify.rs`'s business. Secrets are read from their files for each attempt, and kept nowhere.

#[cfg(test)]
mod authority;
pub mod email;
pub mod exec;
mod tls;
pub mod webhook;

use std::{
    fs::OpenOptions,
    io::{self, Read as _},
    os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _},
    path::Path,
};

/// How much of what others say is told: it becomes part of a sentence.
const SAID: usize = 400;

/// The longest secret that is read.
const LONGEST_SECRET: u64 = 8_192;

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
}

/// The first line of a file that not everybody may read.
fn secret(path: &Path) -> Result<String, SecretError> {
    let file = path.display().to_string();
    let unreadable = |cause| SecretError::Unreadable {
        file: file.clone(),
        cause,
    };
    // A pipe would wait for somebody to write to it.
    let mut options = OpenOptions::new();
    options.read(true).custom_flags(libc::O_NONBLOCK);
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
    let read = opened.take(LONGEST_SECRET).read_to_string(&mut text);
    read.map_err(unreadable)?;
    Ok(text.lines().next().unwrap_or_default().to_owned())
}

/// What others have said, without anything that moves a cursor or begins a line.
fn one_line(text: &str) -> String {
    let is_space = |c: char| c.is_whitespace() || c.is_control();
    let words: Vec<_> = text.split(is_space).filter(|it| !it.is_empty()).collect();
    words.join(" ")
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::PermissionsExt as _};

    use super::{SecretError, secret};

    #[test]
    fn a_secret_that_everybody_may_read_is_none() {
        let path = std::env::temp_dir().join(format!("tidegate-secret-{}", std::process::id()));
        fs::write(&path, "open sesame\n").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        assert!(matches!(secret(&path), Err(SecretError::Open(_))));
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        assert_eq!(secret(&path).unwrap(), "open sesame");
        fs::remove_file(&path).unwrap();
        assert!(matches!(secret(&path), Err(SecretError::Unreadable { .. })));
        let endless = secret("/dev/zero".as_ref()).unwrap_err();
        assert!(endless.to_string().contains("not a regular file"));
    }
}
