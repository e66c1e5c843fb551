//! The cluster's routes.

use std::{sync::Arc, time::Duration};

use axum::{
    Json,
    extract::{State, rejection::JsonRejection},
    http::StatusCode,
};
use console::api::ApiError;

use crate::{
    cluster::{
        Cluster, Order,
        view::{ClusterStatus, JoinOrder, Joined},
    },
    config,
    node::Status,
};

/// How long a node that is called may take to answer.
const PATIENCE: Duration = Duration::from_secs(5);

pub(super) async fn status(
    State(status): State<Arc<Status>>,
) -> Result<Json<ClusterStatus>, ApiError> {
    let view = cluster(&status)?.view();
    let view = view.borrow().clone();
    Ok(Json(view))
}

pub(super) async fn join(
    State(status): State<Arc<Status>>,
    order: Result<Json<JoinOrder>, JsonRejection>,
) -> Result<Json<Joined>, ApiError> {
    let Json(JoinOrder { address }) = order.map_err(|error| {
        let hint = r#"the body is JSON, such as {"address": "broker2:7883"}"#;
        ApiError::new(StatusCode::BAD_REQUEST, error.body_text(), hint)
    })?;
    if !config::is_address(&address) {
        let error = format!("{address:?} is not a host and port");
        let hint = "name the other node's `cluster.listen`, such as broker2:7883";
        return Err(ApiError::new(StatusCode::BAD_REQUEST, error, hint));
    }
    let cluster = cluster(&status)?;
    let mut view = cluster.view();
    view.mark_unchanged();
    if !cluster
        .order(|done| Order::Join(address.as_str().into(), done))
        .await
    {
        return Err(ended());
    }
    let outcome = async {
        loop {
            if view.changed().await.is_err() {
                return Err(ended());
            }
            let view = view.borrow_and_update();
            let met = view.met.iter().find(|met| *met.address == address);
            if let Some(met) = met
                && view
                    .members
                    .iter()
                    .any(|member| member.node == met.node && member.alive)
            {
                return Ok(Joined {
                    node: met.node.clone(),
                });
            }
            let trouble = view
                .troubles
                .iter()
                .find(|trouble| trouble.address == address);
            if let Some(trouble) = trouble {
                return Err(refused(&address, &trouble.trouble));
            }
        }
    };
    let outcome = tokio::time::timeout(PATIENCE, outcome).await;
    outcome
        .unwrap_or_else(|_elapsed| Err(refused(&address, "nobody has answered yet")))
        .map(Json)
}

pub(super) async fn leave(
    State(status): State<Arc<Status>>,
) -> Result<Json<ClusterStatus>, ApiError> {
    let cluster = cluster(&status)?;
    if !cluster.order(Order::Leave).await {
        return Err(ended());
    }
    let view = cluster.view();
    let view = view.borrow().clone();
    Ok(Json(view))
}

pub(super) fn cluster(status: &Status) -> Result<&Cluster, ApiError> {
    status.cluster().ok_or_else(|| {
        let error = "this broker is not configured for a cluster".to_owned();
        let hint = "give it a [cluster] section and start it again";
        ApiError::new(StatusCode::BAD_REQUEST, error, hint)
    })
}

fn refused(address: &str, trouble: &str) -> ApiError {
    let error = format!("no connection to {address}: {trouble}");
    let hint = "it is called again and again; `tidegate-broker cluster status` tells how it goes";
    ApiError::new(StatusCode::BAD_GATEWAY, error, hint)
}

fn ended() -> ApiError {
    let error = "the broker is stopping".to_owned();
    let hint = "start it again";
    ApiError::new(StatusCode::SERVICE_UNAVAILABLE, error, hint)
}
