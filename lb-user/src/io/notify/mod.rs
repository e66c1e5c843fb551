//! Ways to tell people and programs of events: a program that is run, a web hook, an e-mail.
//!
//! Each is one attempt with a deadline; what to tell, how often to try and what to do with failures is
//! `daemon/notify.rs`'s business. Secrets are read from their files for each attempt, and kept nowhere.

pub mod email;
pub mod exec;
mod tls;
pub mod webhook;

use std::{fs, io, os::unix::fs::PermissionsExt as _, path::Path};

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
    let mode = fs::metadata(path).map_err(unreadable)?.permissions().mode();
    if mode & 0o007 != 0 {
        return Err(SecretError::Open(file));
    }
    let text = fs::read_to_string(path).map_err(unreadable)?;
    Ok(text.lines().next().unwrap_or_default().to_owned())
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
    }
}
