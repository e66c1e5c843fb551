//! What the node tells about itself on its loopback port, and what balancers elsewhere may ask.
//!
//! ```text
//! GET /metrics   Prometheus text; not on the port for balancers
//! GET /healthz   200 while every shard and the router answer, 503 otherwise
//! GET /readyz    200 while new clients are welcome, 503 otherwise
//! GET /api/v5/load_rebalance/availability_check
//!                the same by the name that EMQX has for it, so that balancers need not be changed
//! ```

use std::{net::SocketAddr, sync::Arc};

use axum::{Router, extract::State, http::StatusCode, routing::get};
use tokio::net::TcpListener;
use tracing::warn;

use crate::node::{NodeError, Status};

/// Listens on the port, if there is to be one.
///
/// # Errors
/// When its address is taken.
pub(crate) async fn bind(address: Option<SocketAddr>) -> Result<Option<TcpListener>, NodeError> {
    let Some(address) = address else {
        return Ok(None);
    };
    TcpListener::bind(address)
        .await
        .map(Some)
        .map_err(|source| NodeError::Http { address, source })
}

/// Where it listens, with the port that the kernel chose.
pub(crate) fn address(socket: Option<&TcpListener>) -> Option<SocketAddr> {
    socket?.local_addr().ok()
}

/// Answers for as long as it can; that it ends is the node's end.
pub(crate) async fn serve(socket: TcpListener, routes: Router) {
    if let Err(error) = axum::serve(socket, routes).await {
        warn!(%error, "the port for metrics or health failed");
    }
}

/// Builds the routes.
pub(crate) fn router(status: Arc<Status>) -> Router {
    Router::new()
        .route("/metrics", get(metrics))
        .with_state(Arc::clone(&status))
        .merge(health_router(status))
}

/// Those that tell a stranger no more than whether to send clients here.
pub(crate) fn health_router(status: Arc<Status>) -> Router {
    Router::new()
        .route("/healthz", get(healthy))
        .route("/readyz", get(ready))
        .route("/api/v5/load_rebalance/availability_check", get(ready))
        .with_state(status)
}

async fn metrics(State(status): State<Arc<Status>>) -> String {
    let mut text = String::new();
    status.render(&mut text);
    text
}

async fn healthy(State(status): State<Arc<Status>>) -> (StatusCode, String) {
    let stuck = status.stuck();
    if !stuck.is_empty() {
        let text = format!("shards do not answer: {stuck:?}\n");
        (StatusCode::SERVICE_UNAVAILABLE, text)
    } else if !status.router().answers {
        let text = "the router between the shards does not answer\n".to_owned();
        (StatusCode::SERVICE_UNAVAILABLE, text)
    } else {
        (StatusCode::OK, "ok\n".to_owned())
    }
}

async fn ready(State(status): State<Arc<Status>>) -> (StatusCode, &'static str) {
    if status.is_ready() {
        (StatusCode::OK, "ready\n")
    } else if status.is_evacuating() {
        (StatusCode::SERVICE_UNAVAILABLE, "evacuating\n")
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, "not ready\n")
    }
}
