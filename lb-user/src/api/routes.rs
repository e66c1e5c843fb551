//! The handlers: extract, ask the daemon, render.

use axum::{
    Json, Router,
    extract::{Path, Query, State, rejection::JsonRejection},
    http::{StatusCode, header},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use serde::{Deserialize, Serialize};

use super::{error::ApiError, events, metrics};
use crate::{
    control::{
        BackendStatus, Change, Departure, Handle, Lasting, Leaving, NotifyTest, Order, Reloaded,
        RouterChange, RouterOrder, Status, Trace, TraceOrder, VrrpStatus,
    },
    core::balancer::Admin,
};

/// The body of a weight's change.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Weight {
    pub weight: u16,
}

/// A backend in the list of all.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct BackendEntry {
    pub service: String,
    #[serde(flatten)]
    pub backend: BackendStatus,
}

#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Options {
    #[serde(default)]
    temporary: bool,
}

impl Options {
    const fn lasting(self) -> Lasting {
        if self.temporary {
            Lasting::Temporary
        } else {
            Lasting::Kept
        }
    }
}

#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct StopOptions {
    #[serde(default)]
    detach: bool,
}

/// What a reload answers.
#[derive(Serialize)]
struct ReloadedBody {
    generation: u64,
}

/// All that the unix socket offers.
pub(super) fn control(handle: Handle) -> Router {
    balancing_routes()
        .route("/v1/reload", post(reload))
        .route("/v1/stop", post(stop))
        .route("/v1/notify/test", post(test_notification))
        .merge(observation_routes())
        .fallback(not_found)
        .method_not_allowed_fallback(not_allowed)
        .with_state(handle)
}

/// What the dashboard offers to those whom it knows: nothing that is about the host.
pub(super) fn page(handle: Handle) -> Router {
    balancing_routes().with_state(handle)
}

fn balancing_routes() -> Router<Handle> {
    Router::new()
        .route("/v1/status", get(status))
        .route("/v1/trace", post(trace))
        .route("/v1/backends", get(backends))
        .route("/v1/backends/{service}/{name}/drain", post(drain))
        .route("/v1/backends/{service}/{name}/enable", post(enable))
        .route("/v1/backends/{service}/{name}/disable", post(disable))
        .route("/v1/backends/{service}/{name}/weight", post(weight))
        .route("/v1/events", get(events::list))
        .route("/v1/vrrp", get(vrrp))
        .route("/v1/vrrp/{name}/release", post(release))
        .route("/v1/vrrp/{name}/resume", post(resume))
}

/// What the loopback port offers: nothing that changes anything.
pub(super) fn observation(handle: Handle) -> Router {
    observation_routes().fallback(not_found).with_state(handle)
}

fn observation_routes() -> Router<Handle> {
    Router::new()
        .route("/metrics", get(metrics_page))
        .route("/healthz", get(async || "ok\n"))
        .route("/readyz", get(ready))
}

async fn status(State(handle): State<Handle>) -> Result<Json<Status>, ApiError> {
    Ok(Json(handle.status().await?))
}

async fn reload(State(handle): State<Handle>) -> Result<Json<ReloadedBody>, ApiError> {
    let Reloaded { generation } = handle.reload().await??;
    Ok(Json(ReloadedBody { generation }))
}

async fn stop(
    State(handle): State<Handle>,
    Query(options): Query<StopOptions>,
) -> Result<Json<Leaving>, ApiError> {
    let departure = if options.detach {
        Departure::Detach
    } else {
        Departure::Keep
    };
    Ok(Json(handle.stop(departure).await?))
}

async fn backends(State(handle): State<Handle>) -> Result<Json<Vec<BackendEntry>>, ApiError> {
    let status = handle.status().await?;
    let entries = status.services.into_iter().flat_map(|service| {
        let name = service.name;
        let backends = service.backends.into_iter();
        backends.map(move |backend| BackendEntry {
            service: name.clone(),
            backend,
        })
    });
    Ok(Json(entries.collect()))
}

async fn trace(
    State(handle): State<Handle>,
    body: Result<Json<TraceOrder>, JsonRejection>,
) -> Result<Json<Trace>, ApiError> {
    let Json(order) = body.map_err(|error| {
        let hint = r#"the body is JSON, such as {"client": "192.0.2.7", "port": 40000}"#;
        ApiError::new(StatusCode::BAD_REQUEST, error.body_text(), hint)
    })?;
    Ok(Json(handle.trace(order).await??))
}

type Changed = Result<Json<BackendStatus>, ApiError>;

async fn drain(
    State(handle): State<Handle>,
    Path(names): Path<(String, String)>,
    Query(options): Query<Options>,
) -> Changed {
    change(&handle, names, options, Change::Admin(Admin::Draining)).await
}

async fn enable(
    State(handle): State<Handle>,
    Path(names): Path<(String, String)>,
    Query(options): Query<Options>,
) -> Changed {
    change(&handle, names, options, Change::Admin(Admin::Enabled)).await
}

async fn disable(
    State(handle): State<Handle>,
    Path(names): Path<(String, String)>,
    Query(options): Query<Options>,
) -> Changed {
    change(&handle, names, options, Change::Admin(Admin::Disabled)).await
}

async fn weight(
    State(handle): State<Handle>,
    Path(names): Path<(String, String)>,
    Query(options): Query<Options>,
    body: Result<Json<Weight>, JsonRejection>,
) -> Changed {
    let Json(Weight { weight }) = body.map_err(|error| {
        let hint = r#"the body is JSON: {"weight": 0..=256}, of type application/json"#;
        ApiError::new(StatusCode::BAD_REQUEST, error.body_text(), hint)
    })?;
    change(&handle, names, options, Change::Weight(weight)).await
}

async fn change(
    handle: &Handle,
    (service, name): (String, String),
    options: Options,
    change: Change,
) -> Changed {
    let backend = if service == "-" {
        name
    } else {
        format!("{service}/{name}")
    };
    let order = Order {
        backend,
        change,
        lasting: options.lasting(),
    };
    Ok(Json(handle.change(order).await??))
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct NotifyOptions {
    name: Option<String>,
}

async fn test_notification(
    State(handle): State<Handle>,
    Query(options): Query<NotifyOptions>,
) -> Result<Json<Vec<NotifyTest>>, ApiError> {
    Ok(Json(handle.test_notification(options.name).await??))
}

async fn vrrp(State(handle): State<Handle>) -> Result<Json<VrrpStatus>, ApiError> {
    Ok(Json(handle.status().await?.vrrp))
}

async fn release(
    State(handle): State<Handle>,
    Path(name): Path<String>,
) -> Result<Json<VrrpStatus>, ApiError> {
    let change = RouterChange::Release;
    Ok(Json(handle.router(RouterOrder { name, change }).await??))
}

async fn resume(
    State(handle): State<Handle>,
    Path(name): Path<String>,
) -> Result<Json<VrrpStatus>, ApiError> {
    let change = RouterChange::Resume;
    Ok(Json(handle.router(RouterOrder { name, change }).await??))
}

async fn metrics_page(State(handle): State<Handle>) -> Result<Response, ApiError> {
    let text = metrics::render(&handle.status().await?);
    let kind = [(header::CONTENT_TYPE, metrics::CONTENT_TYPE)];
    Ok((kind, text).into_response())
}

async fn ready(State(handle): State<Handle>) -> Response {
    if handle.is_ready() {
        "ready\n".into_response()
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, "not ready\n").into_response()
    }
}

async fn not_found() -> ApiError {
    let hint = "is the path right? All begin with /v1/, apart from /metrics, /healthz and /readyz";
    ApiError::not_found(hint)
}

async fn not_allowed() -> ApiError {
    ApiError::not_allowed()
}
