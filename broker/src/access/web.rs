//! Asking a server over HTTP: a few connections that are kept, a bounded wait for one of them, and a
//! time after which there is no answer.

use std::{
    path::PathBuf,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use console::https::{self, ConnectError, TrustError};
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::{
    Method, Request, StatusCode, Uri,
    body::Bytes,
    client::conn::http1::{self, SendRequest},
    header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HOST, HeaderValue, USER_AGENT},
};
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use thiserror::Error;
use tokio::{sync::Semaphore, time};

use crate::{
    config,
    secret::{self, SecretError},
    tls::{self, TlsError},
};

/// Connections that nobody has used for so long are closed: servers do so too, some after a minute.
const IDLE: Duration = Duration::from_secs(30);

/// The longest answer in bytes.
const LONGEST: usize = 256 * 1024;

/// Why a server cannot be asked as the configuration says.
#[derive(Debug, Error)]
pub enum WebError {
    #[error(transparent)]
    Secret(#[from] SecretError),
    #[error("{path} holds no token that a header can have", path = path.display())]
    Token { path: PathBuf },
    #[error(transparent)]
    Authorities(#[from] TlsError),
    #[error(transparent)]
    Trust(#[from] TrustError),
}

/// Why there is no answer. Says nothing of the URL, nor of what was asked.
#[derive(Debug, Error)]
pub(super) enum AskError {
    #[error("too many questions wait for an answer already")]
    Full,
    #[error("no answer within {0:?}")]
    TimedOut(Duration),
    #[error(transparent)]
    Connect(#[from] ConnectError),
    #[error("the question cannot be put: {0}")]
    Request(#[from] hyper::http::Error),
    #[error("the server does not speak HTTP as it should: {0}")]
    Http(#[from] hyper::Error),
    #[error("the server has answered {0}")]
    Status(StatusCode),
    #[error("the answer is longer than {LONGEST} bytes")]
    TooLong,
    #[error("the answer breaks off")]
    Broken,
}

/// A server to ask.
pub(super) struct Server {
    uri: Uri,
    tls: Option<Arc<ClientConfig>>,
    token: Option<HeaderValue>,
    timeout: Duration,
    places: Semaphore,
    waiting: AtomicUsize,
    most_waiting: usize,
    /// Connections with no question under way.
    idle: Mutex<Vec<Idle>>,
}

type Sender = SendRequest<Full<Bytes>>;

struct Idle {
    sender: Sender,
    since: Instant,
}

/// One of those who wait, for as long as it lives.
struct Waiting<'a>(&'a AtomicUsize);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

impl Server {
    /// Reads the files that the settings name.
    pub(super) fn new(settings: &config::WebServer) -> Result<Self, WebError> {
        let config::WebServer {
            url,
            authorities,
            token_file,
            timeout,
            connections,
            waiting,
        } = settings;
        let tls = if https::is_secure(url) {
            let own = authorities.as_deref().map(tls::certificates).transpose()?;
            Some(https::trust(own.as_deref())?)
        } else {
            None
        };
        let token = token_file.as_ref().map(|path| {
            let secret = secret::read(path)?;
            let value = [&b"Bearer "[..], secret.expose()].concat();
            let value = HeaderValue::from_bytes(&value);
            let mut value = value.map_err(|_error| WebError::Token { path: path.clone() })?;
            value.set_sensitive(true);
            Ok::<_, WebError>(value)
        });
        Ok(Self {
            uri: url.clone(),
            tls,
            token: token.transpose()?,
            timeout: *timeout,
            places: Semaphore::new(*connections),
            waiting: AtomicUsize::new(0),
            most_waiting: *waiting,
            idle: Mutex::default(),
        })
    }

    /// Posts JSON, and returns the body of an answer with status 200.
    ///
    /// # Errors
    /// When there is no such answer in time.
    pub(super) async fn post(&self, body: Vec<u8>) -> Result<Bytes, AskError> {
        self.ask(Method::POST, Bytes::from(body)).await
    }

    /// Fetches what is at the URL.
    ///
    /// # Errors
    /// As [`Self::post`].
    pub(super) async fn get(&self) -> Result<Bytes, AskError> {
        self.ask(Method::GET, Bytes::new()).await
    }

    async fn ask(&self, method: Method, body: Bytes) -> Result<Bytes, AskError> {
        let before = self.waiting.fetch_add(1, Ordering::AcqRel);
        let _waiting = Waiting(&self.waiting);
        if before >= self.most_waiting {
            return Err(AskError::Full);
        }
        let answer = time::timeout(self.timeout, self.ask_in_turn(method, body)).await;
        answer.unwrap_or(Err(AskError::TimedOut(self.timeout)))
    }

    async fn ask_in_turn(&self, method: Method, body: Bytes) -> Result<Bytes, AskError> {
        // It is never closed, and if it were, nobody would have a place.
        let _place = self
            .places
            .acquire()
            .await
            .map_err(|_closed| AskError::Full)?;
        if let Some(sender) = self.take_idle() {
            let request = self.request(&method, &body)?;
            // A server may close a connection just as it is used; an answer of whatever kind counts.
            match self.exchange(sender, request).await {
                Err(AskError::Http(_)) => {}
                answered => return answered,
            }
        }
        let request = self.request(&method, &body)?;
        let stream = https::connect(&self.uri, self.tls.clone()).await?;
        let (sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        // It ends with its sender; what goes wrong the sender hears.
        tokio::spawn(connection);
        self.exchange(sender, request).await
    }

    fn request(&self, method: &Method, body: &Bytes) -> Result<Request<Full<Bytes>>, AskError> {
        let path = self.uri.path_and_query().map_or("/", |path| path.as_str());
        let authority = self.uri.authority().map_or("", |it| it.as_str());
        let agent = concat!("tidegate-broker/", env!("CARGO_PKG_VERSION"));
        let mut builder = Request::builder()
            .method(method)
            .uri(path)
            .header(HOST, authority)
            .header(USER_AGENT, agent)
            .header(ACCEPT, "application/json");
        if !body.is_empty() {
            builder = builder.header(CONTENT_TYPE, "application/json");
        }
        if let Some(token) = &self.token {
            builder = builder.header(AUTHORIZATION, token.clone());
        }
        Ok(builder.body(Full::new(body.clone()))?)
    }

    async fn exchange(
        &self,
        mut sender: Sender,
        request: Request<Full<Bytes>>,
    ) -> Result<Bytes, AskError> {
        // One that was just used may still be busy with the end of the last answer.
        sender.ready().await?;
        let answer = sender.send_request(request).await?;
        let status = answer.status();
        let body = Limited::new(answer.into_body(), LONGEST).collect().await;
        let body = body.map_err(|error| {
            if error.is::<LengthLimitError>() {
                AskError::TooLong
            } else {
                AskError::Broken
            }
        })?;
        self.keep(sender);
        if status == StatusCode::OK {
            Ok(body.to_bytes())
        } else {
            Err(AskError::Status(status))
        }
    }

    fn take_idle(&self) -> Option<Sender> {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        idle.retain(|idle| idle.since.elapsed() < IDLE && !idle.sender.is_closed());
        // The last one used is the least likely to be closed by the server.
        idle.pop().map(|idle| idle.sender)
    }

    /// There are never more than there are places.
    fn keep(&self, sender: Sender) {
        if sender.is_closed() {
            return;
        }
        let since = Instant::now();
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        idle.push(Idle { sender, since });
    }
}

#[cfg(test)]
pub(crate) mod tests;
