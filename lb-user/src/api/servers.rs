//! The listening sockets and the tasks that serve them.

use std::{
    fs, io,
    net::SocketAddr,
    os::unix::fs::{FileTypeExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
};

use axum::{Router, serve::Listener};
use tokio::{
    net::{TcpListener, UnixListener, UnixStream},
    task::JoinSet,
};
use tokio_util::sync::CancellationToken;

use super::routes;
use crate::control::Handle;

/// Why there is no listening socket.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    #[error(
        "another tidegate answers on {}: stop it first, or give this one an api.socket of its own",
        .path.display()
    )]
    InUse { path: PathBuf },
    #[error("{} exists and is no socket: remove it or change api.socket", .path.display())]
    NotASocket { path: PathBuf },
    #[error("cannot make the control socket {}", .path.display())]
    Socket { path: PathBuf, source: io::Error },
    #[error("cannot listen on {address} for metrics (metrics.listen)")]
    Metrics {
        address: SocketAddr,
        source: io::Error,
    },
}

/// Sockets that listen, whoever connects to them waits.
#[derive(Debug)]
pub struct Servers {
    control: UnixListener,
    file: SocketFile,
    metrics: Option<TcpListener>,
}

/// The socket's file, removed with its last user.
#[derive(Debug)]
struct SocketFile(PathBuf);

impl Drop for SocketFile {
    fn drop(&mut self) {
        // A file that stays is replaced at the next start.
        drop(fs::remove_file(&self.0));
    }
}

impl Servers {
    /// Binds the control socket. A file that a dead daemon has left is replaced.
    ///
    /// # Errors
    ///
    /// If a daemon answers there, or the socket cannot be made.
    pub async fn bind(path: &Path, mode: u32, group: Option<u32>) -> Result<Self, BindError> {
        let failed = |source| BindError::Socket {
            path: path.to_owned(),
            source,
        };
        match fs::symlink_metadata(path) {
            Ok(metadata) if !metadata.file_type().is_socket() => {
                return Err(BindError::NotASocket {
                    path: path.to_owned(),
                });
            }
            Ok(_) if UnixStream::connect(path).await.is_ok() => {
                return Err(BindError::InUse {
                    path: path.to_owned(),
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
        let control = listen(path, mode, group).map_err(failed)?;
        Ok(Self {
            control,
            file: SocketFile(path.to_owned()),
            metrics: None,
        })
    }

    /// Binds the metrics port as well.
    ///
    /// # Errors
    ///
    /// If the address cannot be had.
    pub async fn bind_metrics(&mut self, address: SocketAddr) -> Result<(), BindError> {
        let listener = TcpListener::bind(address).await;
        let failed = |source| BindError::Metrics { address, source };
        self.metrics = Some(listener.map_err(failed)?);
        Ok(())
    }

    /// Serves until `stop`, as tasks of `tasks`.
    pub fn spawn(
        self,
        handle: &Handle,
        stop: &CancellationToken,
        tasks: &mut JoinSet<(&'static str, anyhow::Result<()>)>,
    ) {
        let Self {
            control,
            file,
            metrics,
        } = self;
        let served = serve(control, routes::control(handle.clone()), stop.clone());
        tasks.spawn(async move {
            let outcome = served.await;
            drop(file);
            ("api", outcome.map_err(Into::into))
        });
        if let Some(listener) = metrics {
            let served = serve(listener, routes::observation(handle.clone()), stop.clone());
            tasks.spawn(async move { ("metrics", served.await.map_err(Into::into)) });
        }
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

async fn serve<L>(listener: L, router: Router, stop: CancellationToken) -> io::Result<()>
where
    L: Listener,
    L::Addr: std::fmt::Debug,
{
    axum::serve(listener, router)
        .with_graceful_shutdown(stop.cancelled_owned())
        .await
}
