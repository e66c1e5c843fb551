//! The routes, and what their handlers share.

use std::{
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use axum::{Router, extract::State, middleware, response::Response, routing::get};
use console::api::ApiError;
use tokio_util::sync::CancellationToken;

use crate::{
    Daemon, Page,
    assets::{self, Assets},
    book::Book,
    check::Checker,
    counters::Counters,
    guard,
    hosts::Hosts,
    live::{self, Feed},
    login::{self, Failures},
    refusal::Reason,
    sessions::Sessions,
    throttle::Throttle,
};

/// Whom a request's connection is from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Peer(pub(crate) IpAddr);

/// What is spoken on the way here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Channel {
    Plain,
    Tls,
}

impl Channel {
    /// The cookie's name. One of that prefix browsers take, and send, over TLS only, and from this very
    /// host (RFC 6265bis, 4.1.3.2).
    pub(crate) const fn cookie(self) -> &'static str {
        match self {
            Self::Plain => "tidegate",
            Self::Tls => "__Host-tidegate",
        }
    }
}

/// What the handlers share. No lock is held while anything is waited for.
pub(crate) struct Shared {
    pub(crate) daemon: Arc<dyn Daemon>,
    pub(crate) channel: Channel,
    pub(crate) hosts: Hosts,
    pub(crate) assets: Assets,
    pub(crate) book: Book,
    pub(crate) counters: Arc<Counters>,
    pub(crate) checker: Checker,
    pub(crate) feed: Feed,
    pub(crate) failures: Failures,
    pub(crate) stop: CancellationToken,
    sessions: Mutex<Sessions>,
    throttle: Mutex<Throttle>,
}

/// How handlers get it.
pub(crate) type SharedState = State<Arc<Shared>>;

impl Shared {
    pub(crate) fn new(
        daemon: Arc<dyn Daemon>,
        page: Page,
        channel: Channel,
        names: &[String],
        counters: Arc<Counters>,
        stop: CancellationToken,
    ) -> Self {
        Self {
            daemon,
            channel,
            hosts: Hosts::new(names),
            assets: page.prepare(),
            book: Book::default(),
            checker: Checker::default(),
            feed: Feed::default(),
            failures: Failures::default(),
            stop,
            sessions: Mutex::new(Sessions::new(Arc::clone(&counters.sessions))),
            throttle: Mutex::default(),
            counters,
        }
    }

    pub(crate) fn sessions(&self) -> MutexGuard<'_, Sessions> {
        self.sessions.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn throttle(&self) -> MutexGuard<'_, Throttle> {
        self.throttle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// All routes; `own` are the daemon's, which only who is known gets to.
pub(crate) fn router(shared: &Arc<Shared>, own: Router) -> Router {
    let state = Arc::clone(shared);
    let known = Router::new()
        .route("/v1/live", get(live::live))
        .with_state(Arc::clone(shared))
        .merge(own)
        .method_not_allowed_fallback(async || ApiError::not_allowed())
        .layer(middleware::from_fn_with_state(
            Arc::clone(shared),
            guard::authorize,
        ));
    let session = get(login::show).post(login::log_in).delete(login::log_out);
    Router::new()
        .route("/", get(assets::index))
        .route("/assets/{*name}", get(assets::asset))
        .route("/healthz", get(async || "ok\n"))
        .route("/session", session)
        .fallback(no_route)
        .method_not_allowed_fallback(async || ApiError::not_allowed())
        .with_state(Arc::clone(shared))
        .merge(known)
        .layer(middleware::from_fn_with_state(state, guard::guard))
}

async fn no_route(State(shared): SharedState) -> Response {
    shared.refuse(Reason::Route)
}
