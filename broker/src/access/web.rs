//! Asking a server over HTTP: a few connections that are kept, a bounded wait for one of them, and a
//! time after which there is no answer.
//!
//! A question that was put goes on to its answer or its time, whoever waits for it: its server goes on
//! with it too. Whoever gives up before has put none. So there are never more questions at a server
//! than there are places, however fast clients come and go.

use std::{
    io,
    net::{SocketAddr, ToSocketAddrs},
    path::PathBuf,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use console::{
    https::{self, ConnectError, Stream, TrustError},
    pem::{self, PemError},
};
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::{
    Method, Request, StatusCode, Uri,
    body::Bytes,
    client::conn::http1::{self, SendRequest},
    header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HOST, HeaderValue, USER_AGENT},
};
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use socket2::{SockRef, TcpKeepalive};
use thiserror::Error;
use tokio::{
    net::TcpStream,
    sync::{OwnedSemaphorePermit, Semaphore, oneshot},
    time,
};

use super::authenticator::warn_if_writable;
use crate::{
    config,
    secret::{self, SecretError},
};

/// Connections that nobody has used for so long are closed: servers do so too, some after a minute.
const IDLE: Duration = Duration::from_secs(30);

/// How a kept connection is found to be dead that has ended without a word, as behind a balancer that
/// forgets: before it is used, if it can be.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(5);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(2);
const KEEPALIVE_RETRIES: u32 = 2;

/// Names that are looked up at a time. Such a look-up is a thread that cannot be told to stop, of
/// those that check passwords too.
const LOOKUPS: usize = 4;

/// The longest answer in bytes.
const LONGEST: usize = 256 * 1024;

/// Why a server cannot be asked as the configuration says.
#[derive(Debug, Error)]
pub enum WebError {
    #[error(transparent)]
    Secret(#[from] SecretError),
    #[error("the first line of {path} is no token that a header can have", path = path.display())]
    Token { path: PathBuf },
    #[error(transparent)]
    Authorities(#[from] PemError),
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
pub(super) struct Server(Arc<Core>);

struct Core {
    uri: Uri,
    tls: Option<Arc<ClientConfig>>,
    token: Option<HeaderValue>,
    timeout: Duration,
    places: Arc<Semaphore>,
    lookups: Arc<Semaphore>,
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
struct Waiting(Arc<Core>);

impl Drop for Waiting {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, Ordering::AcqRel);
    }
}

/// A question that may be put.
struct Turn {
    waiting: Waiting,
    place: OwnedSemaphorePermit,
    deadline: time::Instant,
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
            if let Some(path) = authorities {
                warn_if_writable(path);
            }
            let own = authorities.as_deref().map(pem::certificates).transpose()?;
            Some(https::trust(own.as_deref())?)
        } else {
            None
        };
        let token = token_file.as_ref().map(|path| {
            warn_if_writable(path);
            let no_token = || WebError::Token { path: path.clone() };
            let secret = secret::read(path)?;
            let secret = secret.expose().trim_ascii();
            if secret.is_empty() {
                return Err(no_token());
            }
            let value = HeaderValue::from_bytes(&[b"Bearer ", secret].concat());
            let mut value = value.map_err(|_error| no_token())?;
            value.set_sensitive(true);
            Ok::<_, WebError>(value)
        });
        Ok(Self(Arc::new(Core {
            uri: url.clone(),
            tls,
            token: token.transpose()?,
            timeout: *timeout,
            places: Arc::new(Semaphore::new(*connections)),
            lookups: Arc::new(Semaphore::new(LOOKUPS)),
            waiting: AtomicUsize::new(0),
            most_waiting: *waiting,
            idle: Mutex::default(),
        })))
    }

    /// Posts JSON, which is written when its turn has come, and returns the body of an answer with
    /// status 200.
    ///
    /// # Errors
    /// When there is no such answer in time.
    pub(super) async fn post(&self, write: impl FnOnce() -> Vec<u8>) -> Result<Bytes, AskError> {
        let turn = self.0.wait_for_turn().await?;
        turn.ask(Method::POST, write().into()).await
    }

    /// Fetches what is at the URL.
    ///
    /// # Errors
    /// As [`Self::post`].
    pub(super) async fn get(&self) -> Result<Bytes, AskError> {
        let turn = self.0.wait_for_turn().await?;
        turn.ask(Method::GET, Bytes::new()).await
    }
}

impl Turn {
    async fn ask(self, method: Method, body: Bytes) -> Result<Bytes, AskError> {
        let (answer, answered) = oneshot::channel();
        tokio::spawn(async move {
            let Self {
                waiting,
                place,
                deadline,
            } = self;
            let core = &waiting.0;
            let told = time::timeout_at(deadline, core.put(&method, &body)).await;
            // Whoever has asked may be gone.
            let _ = answer.send(told.unwrap_or(Err(AskError::TimedOut(core.timeout))));
            drop(place);
        });
        // Its task ends without a word only when all do.
        answered.await.unwrap_or(Err(AskError::Broken))
    }
}

impl Core {
    async fn wait_for_turn(self: &Arc<Self>) -> Result<Turn, AskError> {
        let before = self.waiting.fetch_add(1, Ordering::AcqRel);
        let waiting = Waiting(Arc::clone(self));
        if before >= self.most_waiting {
            return Err(AskError::Full);
        }
        let deadline = time::Instant::now() + self.timeout;
        let places = Arc::clone(&self.places);
        let place = time::timeout_at(deadline, places.acquire_owned()).await;
        let place = place.map_err(|_elapsed| AskError::TimedOut(self.timeout))?;
        Ok(Turn {
            waiting,
            // They are never closed, and if they were, nobody would have a place.
            place: place.map_err(|_closed| AskError::Full)?,
            deadline,
        })
    }

    async fn put(&self, method: &Method, body: &Bytes) -> Result<Bytes, AskError> {
        if let Some(sender) = self.take_idle() {
            let request = self.request(method, body)?;
            // A server may close a connection just as it is used; an answer of whatever kind counts.
            match self.exchange(sender, request).await {
                Err(AskError::Http(_)) => {}
                answered => return answered,
            }
        }
        let request = self.request(method, body)?;
        let stream = self.connect().await?;
        let (sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        // It ends with its sender; what goes wrong the sender hears.
        tokio::spawn(connection);
        self.exchange(sender, request).await
    }

    async fn connect(&self) -> Result<Box<dyn Stream>, ConnectError> {
        let addresses = self.look_up().await.map_err(ConnectError::Connect)?;
        let stream = TcpStream::connect(&addresses[..]).await;
        let stream = stream.map_err(ConnectError::Connect)?;
        self.tune(&stream).map_err(ConnectError::Connect)?;
        https::greet(&self.uri, stream, self.tls.clone()).await
    }

    async fn look_up(&self) -> io::Result<Vec<SocketAddr>> {
        let (host, port) = https::endpoint(&self.uri).ok_or(io::ErrorKind::InvalidInput)?;
        if let Ok(address) = host.parse() {
            return Ok(vec![SocketAddr::new(address, port)]);
        }
        let lookups = Arc::clone(&self.lookups);
        let place = lookups.acquire_owned().await.map_err(io::Error::other)?;
        let name = host.to_owned();
        let found = tokio::task::spawn_blocking(move || {
            let found = (name.as_str(), port).to_socket_addrs();
            // Here and not in the caller, who may give up while the thread goes on.
            drop(place);
            found.map(Iterator::collect)
        });
        found.await.map_err(io::Error::other)?
    }

    /// A connection that nobody is at the other end of any more must not cost those who wait their
    /// time: half of it, at most.
    fn tune(&self, stream: &TcpStream) -> io::Result<()> {
        let socket = SockRef::from(stream);
        socket.set_tcp_user_timeout(Some(self.timeout / 2))?;
        let keepalive = TcpKeepalive::new()
            .with_time(KEEPALIVE_IDLE)
            .with_interval(KEEPALIVE_INTERVAL)
            .with_retries(KEEPALIVE_RETRIES);
        socket.set_tcp_keepalive(&keepalive)
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
