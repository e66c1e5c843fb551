//! The listening sockets and the tasks that serve them.

use std::{io, net::SocketAddr, path::Path, sync::Arc};

use axum::{Router, serve::Listener};
use console::socket::{self, SocketFile};
use dashboard::{Counters, Door, OpenError};
use tokio::{
    net::{TcpListener, UnixListener},
    task::JoinSet,
};
use tokio_util::sync::CancellationToken;

use super::{DAEMON, page, routes};
use crate::{config::model, control::Handle};

/// Why there is no listening socket.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    #[error(transparent)]
    Control(#[from] socket::BindError),
    #[error("cannot listen on {address} for metrics (metrics.listen)")]
    Metrics {
        address: SocketAddr,
        source: io::Error,
    },
    #[error(transparent)]
    Dashboard(#[from] OpenError),
}

/// Sockets that listen, whoever connects to them waits.
#[derive(Debug)]
pub struct Servers {
    control: UnixListener,
    file: SocketFile,
    metrics: Option<TcpListener>,
    dashboard: Option<Door>,
}

impl Servers {
    /// Binds the control socket. A file that a dead daemon has left is replaced.
    ///
    /// # Errors
    ///
    /// If a daemon answers there, or the socket cannot be made.
    pub async fn bind(path: &Path, mode: u32, group: Option<u32>) -> Result<Self, BindError> {
        let (control, file) = socket::bind(DAEMON, path, mode, group).await?;
        Ok(Self {
            control,
            file,
            metrics: None,
            dashboard: None,
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

    /// Has all that the dashboard needs as well.
    ///
    /// # Errors
    ///
    /// If an address, or the certificate, cannot be had.
    pub async fn open_dashboard(&mut self, config: &model::Dashboard) -> Result<(), BindError> {
        self.dashboard = Some(page::open(config).await?);
        Ok(())
    }

    /// What happens at the dashboard, if there is one.
    #[must_use]
    pub fn dashboard_counters(&self) -> Option<Arc<Counters>> {
        self.dashboard.as_ref().map(Door::counters)
    }

    /// Where the dashboard listens.
    pub fn dashboard_addresses(&self) -> impl Iterator<Item = SocketAddr> {
        self.dashboard.iter().flat_map(Door::addresses)
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
            dashboard,
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
        if let Some(door) = dashboard {
            let served = page::serve(door, handle.clone(), stop.clone());
            tasks.spawn(async move {
                served.await;
                ("dashboard", Ok(()))
            });
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
