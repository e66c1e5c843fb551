//! The unix socket that a daemon is controlled by.

use std::{
    fs, io,
    os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
    time::Duration,
};

use tokio::net::{UnixListener, UnixStream};

use crate::{
    Daemon,
    lock::{self, Lock, LockError},
};

/// How long another daemon that starts with the same path gets to make its socket.
const LOCK_TIMEOUT: Duration = Duration::from_secs(5);

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
    #[error(transparent)]
    Lock(#[from] LockError),
}

/// The socket's file, removed with its last user.
#[derive(Debug)]
pub struct SocketFile {
    path: PathBuf,
    identity: Identity,
}

/// What tells a file from another one of the same path: device and inode.
type Identity = (u64, u64);

impl Drop for SocketFile {
    fn drop(&mut self) {
        // Not what another daemon has put there. A file that stays is replaced at the next start.
        if identity(&self.path).is_ok_and(|found| found == self.identity) {
            drop(fs::remove_file(&self.path));
        }
    }
}

fn identity(path: &Path) -> io::Result<Identity> {
    fs::symlink_metadata(path).map(|metadata| (metadata.dev(), metadata.ino()))
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
    let directory = path
        .parent()
        .filter(|parent| !parent.as_os_str().is_empty())
        .unwrap_or(Path::new("."));
    fs::create_dir_all(directory).map_err(failed)?;
    // Of two daemons that find a dead one's file, the second must see the first one's socket.
    let _lock = lock(path).await?;
    match fs::symlink_metadata(path) {
        Ok(metadata) if !metadata.file_type().is_socket() => {
            return Err(BindError::NotASocket {
                path: path.to_owned(),
                daemon,
            });
        }
        Ok(_) if is_answered(path).await.map_err(failed)? => {
            return Err(BindError::InUse {
                path: path.to_owned(),
                daemon,
            });
        }
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(failed(error)),
    }
    let listener = listen(path, mode, group).map_err(failed)?;
    let identity = identity(path).map_err(failed)?;
    let path = path.to_owned();
    Ok((listener, SocketFile { path, identity }))
}

/// Whether a daemon listens on a socket. One that is too busy to accept does; that one cannot tell
/// is an error, not an answer.
async fn is_answered(path: &Path) -> io::Result<bool> {
    match UnixStream::connect(path).await {
        Ok(_connected) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => Ok(false),
        // Its daemon has just ended, and removed it.
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

/// Keeps other daemons from making the same socket until the result is dropped.
async fn lock(path: &Path) -> Result<Lock, BindError> {
    let owned = path.to_owned();
    let held = tokio::task::spawn_blocking(move || lock::hold(&owned, LOCK_TIMEOUT));
    match held.await {
        Ok(held) => Ok(held?),
        Err(broken) => Err(BindError::Socket {
            path: path.to_owned(),
            source: broken.into(),
        }),
    }
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

#[cfg(test)]
mod tests {
    use std::{
        process,
        sync::{
            Barrier,
            atomic::{AtomicUsize, Ordering},
        },
        thread,
    };

    use rustix::net::{
        AddressFamily, SocketAddrUnix, SocketType, bind as bind_raw, listen, socket,
    };

    use super::*;

    const DAEMON: Daemon = Daemon {
        program: "test",
        socket_key: "socket",
        group_key: "group",
    };

    /// A directory of its own, removed with the test.
    struct Scratch(PathBuf);

    impl Scratch {
        fn new() -> Self {
            static COUNT: AtomicUsize = AtomicUsize::new(0);
            let number = COUNT.fetch_add(1, Ordering::Relaxed);
            let name = format!("tidegate-console-{}-{number}", process::id());
            let path = std::env::temp_dir().join(name);
            fs::create_dir_all(&path).unwrap();
            Self(path)
        }

        fn socket(&self) -> PathBuf {
            self.0.join("control.sock")
        }

        /// Leaves what a daemon leaves that was killed.
        fn leave_stale(&self) {
            drop(std::os::unix::net::UnixListener::bind(self.socket()).unwrap());
        }
    }

    impl Drop for Scratch {
        fn drop(&mut self) {
            drop(fs::remove_dir_all(&self.0));
        }
    }

    #[tokio::test]
    async fn file_that_a_dead_daemon_has_left_is_replaced_and_removed() {
        let scratch = Scratch::new();
        scratch.leave_stale();
        let bound = bind(DAEMON, &scratch.socket(), 0o600, None).await.unwrap();
        let second = bind(DAEMON, &scratch.socket(), 0o600, None).await;
        assert!(matches!(second, Err(BindError::InUse { .. })));
        drop(bound);
        assert!(!scratch.socket().exists());
    }

    #[tokio::test]
    async fn daemon_that_is_too_busy_to_answer_keeps_its_socket() {
        let scratch = Scratch::new();
        let busy = socket(AddressFamily::UNIX, SocketType::STREAM, None).unwrap();
        let address = SocketAddrUnix::new(scratch.socket()).unwrap();
        bind_raw(&busy, &address).unwrap();
        listen(&busy, 0).unwrap();
        let mut waiting = Vec::new();
        while let Ok(one) = UnixStream::connect(scratch.socket()).await {
            waiting.push(one);
        }
        let refused = bind(DAEMON, &scratch.socket(), 0o600, None).await;
        assert!(matches!(refused, Err(BindError::InUse { .. })));
    }

    #[tokio::test]
    async fn who_can_read_the_directory_cannot_keep_the_daemon_from_starting() {
        let scratch = Scratch::new();
        let directory = fs::File::open(&scratch.0).unwrap();
        directory.try_lock().unwrap();
        let path = scratch.socket();
        let bound = bind(DAEMON, &path, 0o600, None);
        tokio::time::timeout(Duration::from_secs(4), bound)
            .await
            .unwrap()
            .unwrap();
    }

    #[tokio::test]
    async fn file_of_another_daemon_is_not_removed() {
        let scratch = Scratch::new();
        let bound = bind(DAEMON, &scratch.socket(), 0o600, None).await.unwrap();
        fs::rename(scratch.socket(), scratch.0.join("away")).unwrap();
        scratch.leave_stale();
        drop(bound);
        assert!(scratch.socket().exists());
    }

    #[test]
    fn of_daemons_that_start_at_once_one_gets_the_socket() {
        const DAEMONS: usize = 8;
        for _ in 0..20 {
            let scratch = Scratch::new();
            scratch.leave_stale();
            let start = Barrier::new(DAEMONS);
            let done = Barrier::new(DAEMONS);
            let bound = AtomicUsize::new(0);
            thread::scope(|scope| {
                for _ in 0..DAEMONS {
                    scope.spawn(|| {
                        let runtime = tokio::runtime::Builder::new_current_thread()
                            .enable_all()
                            .build()
                            .unwrap();
                        start.wait();
                        let result = runtime.block_on(bind(DAEMON, &scratch.socket(), 0o600, None));
                        bound.fetch_add(usize::from(result.is_ok()), Ordering::Relaxed);
                        // All are there until the last has tried.
                        done.wait();
                        drop(result);
                    });
                }
            });
            assert_eq!(bound.load(Ordering::Relaxed), 1);
        }
    }
}
