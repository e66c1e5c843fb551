//! Logging in and out.

use std::{
    net::IpAddr,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use axum::{
    Extension, Json,
    extract::{State, rejection::JsonRejection},
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse as _, Response},
};
use console::{api::ApiError, secret::Secret};
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use crate::{
    Occurrence,
    accounts::Role,
    check::Busy,
    counters::Attempted,
    identity::Proof,
    random,
    refusal::Reason,
    router::{Channel, Peer, Shared, SharedState},
    sessions::{Found, LONGEST},
};

/// Failures are told of so often at most; those in between are counted.
const TELL_EVERY: Duration = Duration::from_secs(1);

/// What somebody who logs in sends. It has no `Debug`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Credentials {
    name: String,
    password: String,
}

/// What somebody who is logged in is told.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionBody {
    pub name: String,
    pub role: Role,
    /// To be sent as `X-CSRF-Token` with each change.
    pub csrf: String,
    /// When the session ends, however it is used.
    pub expires_seconds: u64,
}

/// When a failure was told of, and how many have not been since.
#[derive(Default)]
pub(crate) struct Failures(Mutex<(Option<Instant>, u64)>);

impl Failures {
    /// How many were not told of, if this one is to be.
    fn next(&self, now: Instant) -> Option<u64> {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (last, unsaid) = &mut *state;
        if last.is_some_and(|last| now.duration_since(last) < TELL_EVERY) {
            *unsaid += 1;
            return None;
        }
        *last = Some(now);
        Some(std::mem::take(unsaid))
    }
}

pub(crate) async fn log_in(
    State(shared): SharedState,
    Extension(Peer(address)): Extension<Peer>,
    headers: HeaderMap,
    body: Result<Json<Credentials>, JsonRejection>,
) -> Response {
    let Ok(Json(Credentials { name, password })) = body else {
        let hint =
            r#"the body is JSON, {"name": "...", "password": "..."}, of type application/json"#;
        let error = "that is no name and password".to_owned();
        return ApiError::new(StatusCode::BAD_REQUEST, error, hint).into_response();
    };
    if shared.book.known().is_empty() {
        return shared.refuse_without_accounts();
    }
    let now = Instant::now();
    let attempt = match shared.throttle().begin(address, &name, now) {
        Ok(attempt) => attempt,
        Err(wait) => {
            shared.counters.count_login(Attempted::Throttled);
            let error = "too many wrong passwords";
            return later(StatusCode::TOO_MANY_REQUESTS, error, wait);
        }
    };
    let known = shared.book.known();
    let account = known.account(&name).cloned();
    let hash = account.as_ref().map(|account| &account.password);
    let hash = hash.unwrap_or_else(|| known.nobody()).clone();
    let secret = Secret::new(password.as_bytes());
    match (shared.checker.fits(hash, secret).await, account) {
        (Ok(true), Some(account)) => {
            shared.throttle().succeed(&attempt);
            shared.counters.count_login(Attempted::Ok);
            begin(&shared, &headers, name, account.password, address)
        }
        (Err(Busy), _) => {
            shared.throttle().give_back(&attempt);
            shared.counters.count_login(Attempted::Busy);
            let error = "too many are logging in";
            later(
                StatusCode::SERVICE_UNAVAILABLE,
                error,
                Duration::from_secs(1),
            )
        }
        (Ok(_), account) => {
            shared.counters.count_login(Attempted::Failed);
            let name = account.map(|_| name);
            shared.tell_failure(name, address);
            shared.deny()
        }
    }
}

fn begin(
    shared: &Shared,
    headers: &HeaderMap,
    name: String,
    password: std::sync::Arc<str>,
    address: IpAddr,
) -> Response {
    let (Ok(secret), Ok(csrf)) = (random::secret(), random::secret()) else {
        let error = "the system gives no random numbers".to_owned();
        let hint = "see the host";
        return ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, error, hint).into_response();
    };
    let now = Instant::now();
    // Who logs in once more is not there twice.
    let before = shared.find_session(headers);
    let known = shared.book.known();
    let found = {
        let mut sessions = shared.sessions();
        if let Some(before) = before {
            sessions.end(before.key);
        }
        sessions.begin(&secret, csrf, &name, password, now);
        sessions.find(&secret, &known, now)
    };
    let Some(found) = found else {
        // The account has just gone, or got another password.
        return shared.deny();
    };
    let role = found.role;
    shared.daemon.tell(Occurrence::LoggedIn {
        name,
        role,
        address,
    });
    let cookie = set_cookie(shared.channel, &secret);
    (
        [(header::SET_COOKIE, cookie)],
        Json(SessionBody::from(found)),
    )
        .into_response()
}

pub(crate) async fn show(State(shared): SharedState, headers: HeaderMap) -> Response {
    match shared.find_session(&headers) {
        Some(found) => Json(SessionBody::from(found)).into_response(),
        None if shared.book.known().is_empty() => shared.refuse_without_accounts(),
        // Every page begins like that: nobody was refused anything.
        None => shared.say_who(),
    }
}

pub(crate) async fn log_out(State(shared): SharedState, headers: HeaderMap) -> Response {
    let who = match shared.identify(&headers) {
        Ok(who) => who,
        Err(reason) => return shared.refuse(reason),
    };
    if let Err(reason) = who.check_page(&headers) {
        return shared.refuse(reason);
    }
    let Proof::Session { key, csrf: _ } = who.proof else {
        return shared.refuse(Reason::Session);
    };
    shared.sessions().end(key);
    let gone = set_cookie(shared.channel, "") + "; Max-Age=0";
    (StatusCode::NO_CONTENT, [(header::SET_COOKIE, gone)]).into_response()
}

impl Shared {
    fn tell_failure(&self, name: Option<String>, address: IpAddr) {
        if let Some(unsaid) = self.failures.next(Instant::now()) {
            self.daemon.tell(Occurrence::LoginFailed {
                name,
                address,
                unsaid,
            });
        }
    }

    /// The same words whether it is the name or the password.
    fn deny(&self) -> Response {
        let program = self.daemon.program();
        let hint = format!("`{program} account list` on the host shows the names");
        let error = "the name or the password is wrong".to_owned();
        let mut response = ApiError::new(StatusCode::UNAUTHORIZED, error, &hint).into_response();
        self.challenge(&mut response);
        response
    }
}

impl From<Found> for SessionBody {
    fn from(found: Found) -> Self {
        let Found {
            key: _,
            name,
            role,
            csrf,
            left,
        } = found;
        Self {
            name,
            role,
            csrf: csrf.to_string(),
            expires_seconds: left.min(LONGEST).as_secs(),
        }
    }
}

/// No script gets to see it, no other site has it sent, and it ends with the browser.
fn set_cookie(channel: Channel, secret: &str) -> String {
    let name = channel.cookie();
    let secure = match channel {
        Channel::Plain => "",
        Channel::Tls => "; Secure",
    };
    format!("{name}={secret}; Path=/; HttpOnly; SameSite=Strict{secure}")
}

/// Not now: `wait` says when.
fn later(status: StatusCode, error: &str, wait: Duration) -> Response {
    let seconds = wait.as_millis().div_ceil(1_000).max(1);
    let hint = format!("try again in {seconds} s");
    let refusal = ApiError::new(status, error.to_owned(), &hint);
    ([(header::RETRY_AFTER, seconds.to_string())], refusal).into_response()
}
