//! The unix socket that a daemon is controlled by.

use std::{
    fs, io,
    os::unix::fs::{FileTypeExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
};

use tokio::net::{UnixListener, UnixStream};

use crate::Daemon;

/// Why there is no control socket.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    #[error(
        "another {} answers on {}: stop it first, or give this one another path in {}",
        .daemon.program, .path.display(), .daemon.socket_key
    )]
    InUse { path: PathBuf, daemon: Daemon },
    #[error(
        "{} exists and is no socket: remove it or change {}",
        .path.display(), .daemon.socket_key
    )]
    NotASocket { path: PathBuf, daemon: Daemon },
    #[error("cannot make the control socket {}", .path.display())]
    Socket { path: PathBuf, source: io::Error },
}

/// The socket's file, removed with its last user.
#[derive(Debug)]
pub struct SocketFile(PathBuf);

impl Drop for SocketFile {
    fn drop(&mut self) {
        // A file that stays is replaced at the next start.
        drop(fs::remove_file(&self.0));
    }
}

/// Binds the control socket. A file that a dead daemon has left is replaced.
///
/// # Errors
///
/// If a daemon answers there, or the socket cannot be made.
pub async fn bind(
    daemon: Daemon,
    path: &Path,
    mode: u32,
    group: Option<u32>,
) -> Result<(UnixListener, SocketFile), BindError> {
    let failed = |source| BindError::Socket {
        path: path.to_owned(),
        source,
    };
    match fs::symlink_metadata(path) {
        Ok(metadata) if !metadata.file_type().is_socket() => {
            return Err(BindError::NotASocket {
                path: path.to_owned(),
                daemon,
            });
        }
        Ok(_) if UnixStream::connect(path).await.is_ok() => {
            return Err(BindError::InUse {
                path: path.to_owned(),
                daemon,
            });
        }
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let directory = path
                .parent()
                .filter(|parent| !parent.as_os_str().is_empty());
            directory
                .map_or(Ok(()), fs::create_dir_all)
                .map_err(failed)?;
        }
        Err(error) => return Err(failed(error)),
    }
    let listener = listen(path, mode, group).map_err(failed)?;
    Ok((listener, SocketFile(path.to_owned())))
}

/// Makes the socket under another name and moves it into place, so that nobody can connect before
/// its permissions are right.
fn listen(path: &Path, mode: u32, group: Option<u32>) -> io::Result<UnixListener> {
    let mut new = path.as_os_str().to_owned();
    new.push(format!(".{}", std::process::id()));
    let new = PathBuf::from(new);
    drop(fs::remove_file(&new));
    let listener = UnixListener::bind(&new)?;
    let placed = fs::set_permissions(&new, fs::Permissions::from_mode(mode))
        .and_then(|()| std::os::unix::fs::chown(&new, None, group))
        .and_then(|()| fs::rename(&new, path));
    match placed {
        Ok(()) => Ok(listener),
        Err(error) => {
            drop(fs::remove_file(&new));
            Err(error)
        }
    }
}

/// The id of a group by its name or number.
///
/// # Errors
///
/// If the list of groups cannot be read or has no such group.
pub fn group_id(name: &str) -> io::Result<u32> {
    if let Ok(id) = name.parse() {
        return Ok(id);
    }
    let groups = fs::read_to_string("/etc/group")?;
    let id = groups.lines().find_map(|line| {
        let mut fields = line.split(':');
        let found = fields.next()? == name;
        found.then(|| fields.nth(1)?.parse().ok()).flatten()
    });
    id.ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, format!("there is no group {name}")))
}
