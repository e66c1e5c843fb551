//! Why there is no node, or none as a new configuration says.

use std::{io, net::SocketAddr};

use thiserror::Error;

use crate::{
    access::AccessError, cluster::ClusterError, lanes::LaneError, listener::ListenError, service,
    shard::WorkerError, store::StoreError, tls::TlsError, tunnel::TunnelError,
};

/// Why a node cannot start.
#[derive(Debug, Error)]
pub enum NodeError {
    #[error(transparent)]
    Listen(#[from] ListenError),
    #[error(transparent)]
    Tls(#[from] TlsError),
    #[error(transparent)]
    Access(#[from] AccessError),
    #[error("cannot listen on {address}, for metrics or for health")]
    Http {
        address: SocketAddr,
        #[source]
        source: io::Error,
    },
    #[error("cannot start the router")]
    Lanes(#[from] LaneError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Shard(#[from] WorkerError),
    #[error("a shard ended while it took back what was stored")]
    Restore,
    #[error(transparent)]
    Tunnel(#[from] TunnelError),
    #[error(transparent)]
    Cluster(#[from] ClusterError),
}

/// A part of the node that cannot be as a new configuration says.
#[derive(Debug, Error)]
pub enum Unusable {
    #[error(transparent)]
    Listener(#[from] service::Unusable),
    #[error(transparent)]
    Access(#[from] AccessError),
}

/// All that keeps a reload from taking place. A listener's file that says who its clients are is
/// read for their access too, and is told once.
pub(super) fn unusable(
    listeners: Vec<service::Unusable>,
    access: Option<AccessError>,
) -> Vec<Unusable> {
    let is_told = |error: &AccessError| {
        matches!(error, AccessError::Certificates(_)) && !listeners.is_empty()
    };
    let access = access.filter(|error| !is_told(error));
    let listeners = listeners.into_iter().map(Unusable::from);
    listeners.chain(access.map(Unusable::from)).collect()
}
