//! The control socket and who serves it.

use std::{io, sync::Arc};

use console::socket::{self, SocketFile};
use thiserror::Error;
use tokio::{
    net::UnixListener,
    sync::{mpsc, oneshot},
    task::JoinHandle,
};
use tracing::warn;

use super::{DAEMON, routes, view::Reloaded};
use crate::{config::Control, node::Status, reload::ReloadError};

/// Why there is no control socket.
#[derive(Debug, Error)]
pub enum ControlError {
    #[error(transparent)]
    Bind(#[from] socket::BindError),
    #[error("control.group cannot be used")]
    Group(#[source] io::Error),
}

/// An order to read the configuration again; the result goes back.
pub(crate) type Reload = oneshot::Sender<Result<Reloaded, ReloadError>>;

/// A control socket; whoever connects waits until it is served.
#[derive(Debug)]
pub struct Server {
    listener: UnixListener,
    file: SocketFile,
}

/// Serves as long as it is held.
#[derive(Debug)]
pub(crate) struct Serving {
    task: JoinHandle<()>,
    _file: SocketFile,
}

impl Drop for Serving {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Server {
    /// Makes the socket; `None` if that fails and nobody has asked for one.
    ///
    /// # Errors
    /// When the socket that was configured cannot be had.
    pub async fn bind(config: &Control) -> Result<Option<Self>, ControlError> {
        match Self::open(config).await {
            Ok(server) => Ok(Some(server)),
            Err(error) if config.is_default => {
                warn!(
                    error = &error as &dyn std::error::Error,
                    "no control socket: this broker cannot be looked at; set control.socket"
                );
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    async fn open(config: &Control) -> Result<Self, ControlError> {
        let group = config.group.as_deref().map(socket::group_id).transpose();
        let group = group.map_err(ControlError::Group)?;
        let (listener, file) = socket::bind(DAEMON, &config.socket, config.mode, group).await?;
        Ok(Self { listener, file })
    }

    /// Answers what is asked about a node, and passes on to `reloads` what only its owner can do.
    pub(crate) fn serve(self, status: Arc<Status>, reloads: mpsc::Sender<Reload>) -> Serving {
        let Self { listener, file } = self;
        let task = tokio::spawn(async move {
            if let Err(error) = axum::serve(listener, routes::router(status, reloads)).await {
                warn!(%error, "control socket failed");
            }
        });
        Serving { task, _file: file }
    }
}
