//! What the node tells about itself on its loopback port.
//!
//! ```text
//! GET /metrics   Prometheus text
//! GET /healthz   200 while every shard and the router answer, 503 otherwise
//! GET /readyz    200 while clients are accepted, 503 otherwise
//! ```

use std::{net::SocketAddr, sync::Arc};

use axum::{Router, extract::State, http::StatusCode, routing::get};
use tokio::net::TcpListener;

use crate::node::{NodeError, Status};

/// Listens on the metrics port, if there is to be one.
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
        .map_err(|source| NodeError::Metrics { address, source })
}

/// Builds the routes.
pub(crate) fn router(status: Arc<Status>) -> Router {
    Router::new()
        .route("/metrics", get(metrics))
        .route("/healthz", get(healthy))
        .route("/readyz", get(ready))
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
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, "not ready\n")
    }
}
