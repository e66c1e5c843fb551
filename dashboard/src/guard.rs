//! What every request has to pass, and what every answer has to say.

use std::{sync::Arc, time::Duration};

use axum::{
    body::{self, Body},
    extract::{Request, State},
    http::{HeaderMap, HeaderValue, header},
    middleware::Next,
    response::Response,
};
use tokio::time::timeout;
use tracing::info;

use crate::{
    hosts,
    identity::is_change,
    refusal::Reason,
    router::{Shared, SharedState},
};

/// No request has more to say.
pub(crate) const LONGEST_BODY: usize = 64 * 1024;

/// For a body to arrive.
pub(crate) const BODY_TIMEOUT: Duration = Duration::from_secs(10);

/// For an answer to begin: who waits for events may do so for a minute.
pub(crate) const ANSWER_TIMEOUT: Duration = Duration::from_secs(75);

/// What the page may do: use its own files, and talk to where they came from. Nothing on it is ever
/// framed, sent by a form, or taken from elsewhere.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; \
                      connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// The first and the last that sees a request.
pub(crate) async fn guard(State(shared): SharedState, request: Request, next: Next) -> Response {
    let mut response = match admit(&shared, request).await {
        Ok(request) => {
            let answered = timeout(ANSWER_TIMEOUT, next.run(request)).await;
            answered.unwrap_or_else(|_elapsed| shared.refuse(Reason::Time))
        }
        Err(reason) => shared.refuse(reason),
    };
    harden(response.headers_mut());
    response
}

/// Takes a request for this host, from a page of ours, with the whole of its body.
async fn admit(shared: &Arc<Shared>, request: Request) -> Result<Request, Reason> {
    if !shared.hosts.admit(request.uri(), request.headers()) {
        return Err(Reason::Host);
    }
    if is_change(request.method()) && !hosts::is_own_origin(request.headers()) {
        return Err(Reason::Origin);
    }
    let (parts, body) = request.into_parts();
    let read = timeout(BODY_TIMEOUT, body::to_bytes(body, LONGEST_BODY)).await;
    let bytes = read.map_err(|_elapsed| Reason::Time)?;
    let bytes = bytes.map_err(|_too_long| Reason::Body)?;
    Ok(Request::from_parts(parts, Body::from(bytes)))
}

fn harden(headers: &mut HeaderMap) {
    let fixed = [
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::X_FRAME_OPTIONS, "DENY"),
        (header::REFERRER_POLICY, "no-referrer"),
    ];
    for (name, value) in fixed {
        headers.insert(name, HeaderValue::from_static(value));
    }
    // What only those who are logged in may see stays in no cache.
    headers
        .entry(header::CACHE_CONTROL)
        .or_insert(HeaderValue::from_static("no-store"));
}

/// Lets those in who are known and may do what they ask for.
pub(crate) async fn authorize(
    State(shared): SharedState,
    mut request: Request,
    next: Next,
) -> Response {
    let who = match shared.identify(request.headers()) {
        Ok(who) => who,
        Err(reason) => return shared.refuse(reason),
    };
    if let Err(reason) = who.check(request.method(), request.headers()) {
        return shared.refuse(reason);
    }
    let change = is_change(request.method());
    let change = change.then(|| (request.method().clone(), request.uri().clone()));
    let name = who.name.clone();
    request.extensions_mut().insert(who);
    let response = next.run(request).await;
    if let Some((method, uri)) = change {
        let (path, status) = (uri.path(), response.status().as_u16());
        info!(name, %method, path, status, "changed from the dashboard");
    }
    response
}
