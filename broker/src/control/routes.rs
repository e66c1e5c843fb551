//! The handlers: extract, ask the shards, render.

use std::{sync::Arc, time::Instant};

use axum::{
    Json, Router,
    extract::{
        Query, State,
        rejection::{JsonRejection, QueryRejection},
    },
    http::StatusCode,
    routing::{get, post},
};
use console::api::ApiError;
use serde::Deserialize;
use tokio::sync::{mpsc, oneshot};

use super::{
    Reload, cluster, events, node,
    retained::{self, Payloads},
    shards::Unanswered,
    view::{
        ClientView, KickOrder, Kicked, NodeStatus, Page, Reloaded, RetainedView, SessionView,
        SubscriptionView, TopicView,
    },
    wide,
};
use crate::{
    http,
    node::Status,
    shard::{self, Kick, Request, Selection},
    topic,
};

/// Rows of a page unless asked for fewer or more.
const PAGE: usize = 500;

/// The most rows of a page: what is held for one answer has a bound.
const LONGEST_PAGE: usize = 10_000;

/// Which rows are wanted.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Options {
    after: Option<Box<str>>,
    limit: Option<usize>,
    #[serde(default)]
    prefix: Box<str>,
    client: Option<Box<str>>,
    #[serde(default)]
    slow: bool,
    filter: Option<Box<str>>,
    topic: Option<Box<str>>,
    #[serde(default)]
    payload: bool,
    /// Nodes that need not be asked.
    #[serde(default)]
    skip: Box<str>,
}

impl Options {
    pub(super) fn skip(&self) -> &str {
        &self.skip
    }

    pub(super) fn query(self) -> Result<shard::Query, ApiError> {
        let Self {
            after,
            limit,
            prefix,
            client,
            slow,
            filter,
            topic,
            payload: _,
            skip: _,
        } = self;
        let limit = limit.unwrap_or(PAGE);
        if !(1..=LONGEST_PAGE).contains(&limit) {
            let error = format!("limit is {limit}, and must be 1 to {LONGEST_PAGE}");
            let hint = "ask for the rest with `after`, which the answer calls `next`";
            return Err(ApiError::new(StatusCode::BAD_REQUEST, error, hint));
        }
        Ok(shard::Query {
            after,
            limit,
            filter: Selection {
                prefix,
                client,
                slow,
                filter,
                topic,
            },
        })
    }
}

pub(super) type Asked = Result<Query<Options>, QueryRejection>;

/// Builds the routes.
pub(super) fn router(status: Arc<Status>, reloads: mpsc::Sender<Reload>) -> Router {
    let orders = Router::new()
        .route("/v1/reload", post(reload))
        .with_state(reloads);
    Router::new()
        .route("/v1/status", get(node_status))
        .route("/v1/clients", get(clients))
        .route("/v1/sessions", get(sessions))
        .route("/v1/subscriptions", get(subscriptions))
        .route("/v1/topics", get(filters))
        .route("/v1/retained", get(retained_messages))
        .route("/v1/events", get(events::list))
        .route("/v1/cluster", get(cluster::status))
        .route("/v1/cluster/nodes", get(wide::nodes))
        .route("/v1/cluster/clients", get(wide::clients))
        .route("/v1/cluster/sessions", get(wide::sessions))
        .route("/v1/cluster/subscriptions", get(wide::subscriptions))
        .route("/v1/cluster/topics", get(wide::topics))
        .route("/v1/cluster/join", post(cluster::join))
        .route("/v1/cluster/leave", post(cluster::leave))
        .route("/v1/node/evacuate", post(node::evacuate))
        .route("/v1/node/rebalance", post(node::rebalance))
        .route("/v1/node/serve", post(node::serve))
        .route("/v1/kick", post(kick))
        .fallback(not_found)
        .method_not_allowed_fallback(not_allowed)
        .with_state(Arc::clone(&status))
        .merge(orders)
        .merge(http::router(status))
}

async fn node_status(State(status): State<Arc<Status>>) -> Json<NodeStatus> {
    Json(status.view())
}

async fn clients(
    State(status): State<Arc<Status>>,
    asked: Asked,
) -> Result<Json<Page<ClientView>>, ApiError> {
    let query = query(asked)?;
    Ok(Json(status.shards().list(&query, Request::Clients).await?))
}

async fn sessions(
    State(status): State<Arc<Status>>,
    asked: Asked,
) -> Result<Json<Page<SessionView>>, ApiError> {
    let query = query(asked)?;
    Ok(Json(status.shards().list(&query, Request::Sessions).await?))
}

async fn subscriptions(
    State(status): State<Arc<Status>>,
    asked: Asked,
) -> Result<Json<Page<SubscriptionView>>, ApiError> {
    let query = query(asked)?;
    let shards = status.shards();
    Ok(Json(shards.list(&query, Request::Subscriptions).await?))
}

async fn filters(
    State(status): State<Arc<Status>>,
    asked: Asked,
) -> Result<Json<Page<TopicView>>, ApiError> {
    let query = query(asked)?;
    Ok(Json(status.shards().list(&query, Request::Topics).await?))
}

async fn retained_messages(
    State(status): State<Arc<Status>>,
    asked: Asked,
) -> Result<Json<Page<RetainedView>>, ApiError> {
    let options = options(asked)?;
    let payloads = if options.payload {
        Payloads::Shown
    } else {
        Payloads::Hidden
    };
    let query = options.query()?;
    let filter = query.filter.filter.unwrap_or_else(|| "#".into());
    if !topic::is_valid_filter(&filter) {
        let error = format!("{filter:?} is no topic filter");
        let hint = "write one as for a subscription, such as plant/+/state or plant/#";
        return Err(ApiError::new(StatusCode::BAD_REQUEST, error, hint));
    }
    let shared = status.shards().shared();
    let limit = query.limit;
    let now = Instant::now();
    let page = retained::list(shared, &filter, query.after, limit, payloads, now).await;
    Ok(Json(page))
}

pub(super) fn options(asked: Asked) -> Result<Options, ApiError> {
    let Query(options) = asked.map_err(|error| {
        let hint = "options are after, limit, prefix, client, slow, filter, topic, payload, skip";
        ApiError::new(StatusCode::BAD_REQUEST, error.body_text(), hint)
    })?;
    Ok(options)
}

fn query(asked: Asked) -> Result<shard::Query, ApiError> {
    options(asked)?.query()
}

async fn kick(
    State(status): State<Arc<Status>>,
    order: Result<Json<KickOrder>, JsonRejection>,
) -> Result<Json<Kicked>, ApiError> {
    let Json(KickOrder {
        client_id,
        end_session,
    }) = order.map_err(|error| {
        let hint = r#"the body is JSON, such as {"client_id": "sensor-7", "end_session": false}"#;
        ApiError::new(StatusCode::BAD_REQUEST, error.body_text(), hint)
    })?;
    let shards = status.shards();
    let kick = Kick {
        client_id: client_id.as_str().into(),
        end_session,
    };
    let shard = shards.of(&client_id);
    let kicked = shards.ask(shard, |answer| Request::Kick(kick.clone(), answer));
    let kicked = match (kicked.await?, status.cluster()) {
        (Some(kicked), cluster) => Some(Kicked {
            node: cluster.map(|_cluster| shards.shared().node.to_string()),
            ..kicked
        }),
        (None, Some(cluster)) => wide::kick_elsewhere(cluster, &kick).await?,
        (None, None) => None,
    };
    kicked.map(Json).ok_or_else(|| {
        let place = status.cluster().map_or("here", |_cluster| "in the cluster");
        let error = format!("there is no client {client_id:?} {place}");
        let hint = "`tidegate-broker sessions` lists all, also those that are not connected";
        ApiError::new(StatusCode::NOT_FOUND, error, hint)
    })
}

async fn reload(State(reloads): State<mpsc::Sender<Reload>>) -> Result<Json<Reloaded>, ApiError> {
    let (answer, answered) = oneshot::channel();
    let asked = reloads.send(answer).await;
    let outcome = if asked.is_ok() {
        answered.await.ok()
    } else {
        None
    };
    match outcome {
        Some(Ok(reloaded)) => Ok(Json(reloaded)),
        Some(Err(error)) => {
            let error = format!("the configuration was not taken:\n{error}");
            let hint = "nothing was changed: correct that and reload again";
            Err(ApiError::new(StatusCode::BAD_REQUEST, error, hint))
        }
        None => {
            let error = "the broker is stopping".to_owned();
            let hint = "it reads its configuration when it starts again";
            Err(ApiError::new(StatusCode::SERVICE_UNAVAILABLE, error, hint))
        }
    }
}

impl From<Unanswered> for ApiError {
    fn from(error: Unanswered) -> Self {
        let hint = "see the broker's log; if it stays so, restart the broker";
        Self::new(StatusCode::SERVICE_UNAVAILABLE, error.to_string(), hint)
    }
}

async fn not_found() -> ApiError {
    let hint = "is the program as new as the broker? `tidegate-broker --version` says what it is";
    ApiError::not_found(hint)
}

async fn not_allowed() -> ApiError {
    ApiError::not_allowed()
}
