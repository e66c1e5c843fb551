//! The whole of it, by requests. What single parts do is tested beside them.

mod live;
mod login;
mod roles;
mod sockets;

use std::{
    fs,
    net::IpAddr,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
};

use axum::{
    Extension, Router,
    body::Body,
    http::{HeaderMap, Method, Request, StatusCode, header},
    response::Response,
    routing::{get, post},
};
use futures_util::{FutureExt as _, future::BoxFuture};
use http_body_util::BodyExt as _;
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt as _;

use crate::{
    Asset, Daemon, DashboardStatus, News, Occurrence, Page, Role, TlsFiles, Who,
    accounts::{Account, Accounts, Token},
    counters::Counters,
    random::Digest,
    router::{Channel, Peer, Shared, router},
};

/// A hash as cheap as Argon2 allows.
pub(crate) fn cheap(password: &str) -> String {
    use argon2::{Algorithm, Argon2, Params, PasswordHasher as _, Version};

    let params = Params::new(8, 1, 1, None).unwrap();
    let argon2 = Argon2::new(Algorithm::Argon2id, Version::V0x13, params);
    let salt = argon2::password_hash::SaltString::encode_b64(b"saltsalt").unwrap();
    let hash = argon2.hash_password(password.as_bytes(), &salt).unwrap();
    hash.to_string()
}

/// A directory of its own, removed with the test.
pub(crate) struct Scratch(PathBuf);

impl Scratch {
    pub(crate) fn new() -> Self {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("tidegate-dashboard-{}-{number}", std::process::id());
        let path = std::env::temp_dir().join(name);
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        drop(fs::remove_dir_all(&self.0));
    }
}

/// A certificate for localhost that nobody vouches for.
pub(crate) fn certificate(scratch: &Scratch, name: &str) -> TlsFiles {
    let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    let files = TlsFiles {
        certificate: scratch.file(&format!("{name}.pem")),
        key: scratch.file(&format!("{name}.key")),
    };
    fs::write(&files.certificate, made.cert.pem()).unwrap();
    fs::write(&files.key, made.signing_key.serialize_pem()).unwrap();
    files
}

/// A daemon that counts how often it is asked, and tells what it is told.
pub(crate) struct Fake {
    asked: AtomicU64,
    told: Mutex<Vec<Occurrence>>,
    events: watch::Sender<u64>,
}

impl Fake {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self {
            asked: AtomicU64::new(0),
            told: Mutex::default(),
            events: watch::Sender::new(100),
        })
    }

    pub(crate) fn asked(&self) -> u64 {
        self.asked.load(Ordering::Relaxed)
    }

    pub(crate) fn told(&self) -> Vec<Occurrence> {
        std::mem::take(&mut self.told.lock().unwrap())
    }

    pub(crate) fn happen(&self) {
        self.events.send_modify(|last| *last += 1);
    }
}

impl Daemon for Fake {
    fn program(&self) -> &'static str {
        "tidegate"
    }

    fn status(&self) -> BoxFuture<'_, Option<String>> {
        let asked = self.asked.fetch_add(1, Ordering::Relaxed) + 1;
        async move { Some(format!("{{\"asked\":{asked}}}")) }.boxed()
    }

    fn last_event(&self) -> u64 {
        *self.events.borrow()
    }

    fn events(&self, since: u64) -> BoxFuture<'_, Option<News>> {
        let mut events = self.events.subscribe();
        async move {
            let last = *events.wait_for(|last| *last > since).await.ok()?;
            let events = (since + 1..=last).map(|n| (n, format!("{{\"seq\":{n}}}")));
            Some(News {
                last,
                events: events.collect(),
            })
        }
        .boxed()
    }

    fn tell(&self, occurrence: Occurrence) {
        self.told.lock().unwrap().push(occurrence);
    }
}

const PAGE: Page = Page {
    index: "page/index.html",
    files: &[
        Asset {
            name: "page/index.html",
            bytes: b"<!doctype html>",
        },
        Asset {
            name: "page/app.js",
            bytes: b"'use strict';",
        },
    ],
};

/// Routes as a daemon has them.
fn own() -> Router {
    let who = async |Extension(who): Extension<Who>| format!("{} {}", who.name, who.role);
    Router::new()
        .route("/v1/status", get(who))
        .route("/v1/drain", post(who).put(who).delete(who))
}

/// The accounts of all tests, of which the passwords are the names and "'s password".
pub(crate) fn accounts() -> Accounts {
    let mut accounts = Accounts::default();
    for (name, role) in [("alice", Role::Operator), ("victor", Role::Viewer)] {
        let password = cheap(&format!("{name}'s password")).into();
        let account = Account { role, password };
        accounts.accounts.insert(name.to_owned(), account);
    }
    for (name, role) in [("robot", Role::Operator), ("grafana", Role::Viewer)] {
        let hash = Digest::of(format!("{name}'s token").as_bytes());
        accounts
            .tokens
            .insert(name.to_owned(), Token { role, hash });
    }
    accounts
}

/// A dashboard without sockets.
pub(crate) struct Desk {
    pub(crate) daemon: Arc<Fake>,
    pub(crate) shared: Arc<Shared>,
    router: Router,
    pub(crate) stop: CancellationToken,
}

/// What was answered.
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) text: String,
}

impl Answer {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_default()
    }

    pub(crate) fn header(&self, name: impl header::AsHeaderName) -> &str {
        let value = self.headers.get(name);
        value.map_or("", |value| value.to_str().unwrap())
    }
}

/// Somebody who is logged in.
#[derive(Clone)]
pub(crate) struct Login {
    pub(crate) cookie: String,
    pub(crate) csrf: String,
}

/// A request to be made.
pub(crate) struct Ask {
    method: Method,
    route: String,
    headers: Vec<(String, String)>,
    body: String,
    from: IpAddr,
}

impl Ask {
    pub(crate) fn new(method: &str, route: &str) -> Self {
        Self {
            method: method.parse().unwrap(),
            route: route.to_owned(),
            headers: vec![("host".to_owned(), "127.0.0.1:8404".to_owned())],
            body: String::new(),
            from: [192, 0, 2, 1].into(),
        }
    }

    pub(crate) fn get(route: &str) -> Self {
        Self::new("GET", route)
    }

    pub(crate) fn post(route: &str) -> Self {
        Self::new("POST", route)
    }

    pub(crate) fn login(name: &str, password: &str) -> Self {
        let body = json!({ "name": name, "password": password });
        Self::post("/session").json(&body.to_string())
    }

    pub(crate) fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    pub(crate) fn host(mut self, host: &str) -> Self {
        self.headers.retain(|(name, _)| name != "host");
        self.header("host", host)
    }

    pub(crate) fn json(mut self, body: &str) -> Self {
        self.body = body.to_owned();
        self.header("content-type", "application/json")
    }

    pub(crate) fn from(mut self, address: &str) -> Self {
        self.from = address.parse().unwrap();
        self
    }

    pub(crate) fn with(self, login: &Login) -> Self {
        let csrf = login.csrf.clone();
        self.cookie(login).header("x-csrf-token", &csrf)
    }

    pub(crate) fn cookie(self, login: &Login) -> Self {
        self.header("cookie", &login.cookie)
    }

    pub(crate) fn token(self, token: &str) -> Self {
        self.header("authorization", &format!("Bearer {token}"))
    }
}

impl Desk {
    pub(crate) fn new() -> Self {
        Self::over(Channel::Plain)
    }

    pub(crate) fn over(channel: Channel) -> Self {
        let (daemon, stop) = (Fake::new(), CancellationToken::new());
        let names = ["lb1.example.org".to_owned()];
        let counters = Arc::new(Counters::default());
        let shared = Shared::new(
            Arc::clone(&daemon) as Arc<dyn Daemon>,
            PAGE,
            channel,
            &names,
            counters,
            stop.clone(),
        );
        shared.book.set(accounts());
        let shared = Arc::new(shared);
        Self {
            router: router(&shared, own()),
            daemon,
            shared,
            stop,
        }
    }

    /// The answer, of which the body has not been read.
    pub(crate) async fn open(&self, ask: Ask) -> Response {
        let mut request = Request::builder().method(ask.method).uri(ask.route);
        for (name, value) in ask.headers {
            request = request.header(name, value);
        }
        let request = request.extension(Peer(ask.from));
        let request = request.body(Body::from(ask.body)).unwrap();
        self.router.clone().oneshot(request).await.unwrap()
    }

    pub(crate) async fn ask(&self, ask: Ask) -> Answer {
        let response = self.open(ask).await;
        let (parts, body) = response.into_parts();
        let bytes = body.collect().await.unwrap().to_bytes();
        Answer {
            status: parts.status,
            headers: parts.headers,
            text: String::from_utf8(bytes.to_vec()).unwrap(),
        }
    }

    /// Logs in as one of the accounts of all tests.
    pub(crate) async fn log_in(&self, name: &str) -> Login {
        let answer = self
            .ask(Ask::login(name, &format!("{name}'s password")))
            .await;
        assert_eq!(answer.status, StatusCode::OK, "{}", answer.text);
        let cookie = answer.header("set-cookie");
        let cookie = cookie.split(';').next().unwrap().to_owned();
        let csrf = answer.json()["csrf"].as_str().unwrap().to_owned();
        Login { cookie, csrf }
    }

    pub(crate) fn status(&self) -> DashboardStatus {
        self.shared.counters.status()
    }

    /// How many requests were refused for that.
    pub(crate) fn refused(&self, reason: &str) -> u64 {
        self.status().refused[reason]
    }
}

#[tokio::test]
async fn page_is_for_all_and_asked_for_again_each_time() {
    let desk = Desk::new();
    let page = desk.ask(Ask::get("/")).await;
    assert_eq!(
        (page.status, page.text.as_str()),
        (StatusCode::OK, "<!doctype html>")
    );
    assert_eq!(page.header("content-type"), "text/html; charset=utf-8");
    assert_eq!(page.header("cache-control"), "no-cache");
    let script = desk.ask(Ask::get("/assets/page/app.js")).await;
    assert_eq!(
        script.header("content-type"),
        "text/javascript; charset=utf-8"
    );
    let tag = script.header("etag").to_owned();
    let same = desk
        .ask(Ask::get("/assets/page/app.js").header("if-none-match", &tag))
        .await;
    assert_eq!(
        (same.status, same.text.as_str()),
        (StatusCode::NOT_MODIFIED, "")
    );
    assert_eq!(same.header("etag"), tag);
    let head = desk.ask(Ask::new("HEAD", "/")).await;
    assert_eq!((head.status, head.text.as_str()), (StatusCode::OK, ""));
    for missing in [
        "/assets/nosuch.js",
        "/assets/..%2f..%2fetc%2fpasswd",
        "/nosuch",
        "/v2/status",
    ] {
        let answer = desk.ask(Ask::get(missing)).await;
        assert_eq!(answer.status, StatusCode::NOT_FOUND, "{missing}");
        assert!(!answer.json()["hint"].as_str().unwrap().is_empty());
    }
    let health = desk.ask(Ask::get("/healthz")).await;
    assert_eq!(
        (health.status, health.text.as_str()),
        (StatusCode::OK, "ok\n")
    );
}

#[tokio::test]
async fn every_answer_says_what_the_page_may_do() {
    let desk = Desk::new();
    for ask in [
        Ask::get("/"),
        Ask::get("/assets/page/app.js"),
        Ask::get("/session"),
        Ask::get("/v1/status"),
        Ask::get("/nosuch"),
        Ask::get("/").host("evil.example"),
        Ask::new("PATCH", "/"),
    ] {
        let route = format!("{} {}", ask.method, ask.route);
        let answer = desk.ask(ask).await;
        let policy = answer.header("content-security-policy");
        assert!(
            policy.starts_with("default-src 'none'; script-src 'self';"),
            "{route}"
        );
        assert!(policy.ends_with("frame-ancestors 'none'") && !policy.contains("unsafe"));
        assert_eq!(
            answer.header("x-content-type-options"),
            "nosniff",
            "{route}"
        );
        assert_eq!(answer.header("referrer-policy"), "no-referrer", "{route}");
        assert_ne!(answer.header("cache-control"), "", "{route}");
    }
}

#[tokio::test]
async fn host_that_is_not_ours_is_refused_everywhere() {
    let desk = Desk::new();
    for route in ["/", "/session", "/v1/status", "/healthz", "/v1/live"] {
        let answer = desk.ask(Ask::get(route).host("evil.example")).await;
        assert_eq!(answer.status, StatusCode::MISDIRECTED_REQUEST, "{route}");
        assert!(
            answer.json()["hint"]
                .as_str()
                .unwrap()
                .contains("dashboard.names")
        );
    }
    assert_eq!(desk.refused("host"), 5);
    for host in ["lb1.example.org:8404", "localhost", "[::1]:8404"] {
        let answer = desk.ask(Ask::get("/").host(host)).await;
        assert_eq!(answer.status, StatusCode::OK, "{host}");
    }
}

#[tokio::test]
async fn body_has_its_bound() {
    let desk = Desk::new();
    let longest = "x".repeat(crate::guard::LONGEST_BODY);
    let fits = desk.ask(Ask::post("/session").json(&longest)).await;
    assert_eq!(fits.status, StatusCode::BAD_REQUEST);
    let more = longest + "x";
    for ask in [
        Ask::post("/session").json(&more),
        Ask::post("/v1/drain").json(&more),
    ] {
        assert_eq!(desk.ask(ask).await.status, StatusCode::PAYLOAD_TOO_LARGE);
    }
    assert_eq!(desk.refused("body"), 2);
}

#[tokio::test(start_paused = true)]
async fn body_that_does_not_come_is_not_waited_for() {
    let desk = Desk::new();
    let body = Body::from_stream(futures_util::stream::pending::<
        Result<Vec<u8>, std::io::Error>,
    >());
    let request = Request::post("/session").header("host", "localhost");
    let request = request.extension(Peer([192, 0, 2, 1].into()));
    let response = desk.router.clone().oneshot(request.body(body).unwrap());
    assert_eq!(
        response.await.unwrap().status(),
        StatusCode::REQUEST_TIMEOUT
    );
    assert_eq!(desk.refused("time"), 1);
}
