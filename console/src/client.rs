//! A client of a daemon's API: one request, one connection.

use std::{
    io::ErrorKind,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::Context as _;
use http_body_util::{BodyExt as _, Full};
use hyper::{
    Method, Request, StatusCode,
    body::Bytes,
    client::conn::http1,
    header::{CONTENT_TYPE, HOST},
};
use hyper_util::rt::TokioIo;
use serde::de::DeserializeOwned;
use tokio::{net::UnixStream, runtime::Runtime, time};

use crate::{Daemon, api::ErrorBody};

/// A reload may take the time of its slowest kernel requests; nothing takes longer.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Why the daemon did not do as asked.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    #[error(
        "no daemon answers on {}: start it with `{} run --config FILE`, or give its socket with --socket",
        .socket.display(), .daemon.program
    )]
    NotRunning { socket: PathBuf, daemon: Daemon },
    #[error(
        "{} may not be used by this user: use root, or a user of the group in {}",
        .socket.display(), .daemon.group_key
    )]
    Denied { socket: PathBuf, daemon: Daemon },
    #[error("{}\n{}", .body.error, .body.hint)]
    Refused { status: StatusCode, body: ErrorBody },
    #[error("the daemon on {} did not answer in {TIMEOUT:?}: see its log", .socket.display())]
    TimedOut { socket: PathBuf },
    #[error("cannot talk to the daemon")]
    Protocol(#[source] anyhow::Error),
}

impl ClientError {
    /// Whether the one who asked can correct it.
    #[must_use]
    pub fn is_usage(&self) -> bool {
        match self {
            Self::Refused { status, .. } => status.is_client_error(),
            Self::NotRunning { .. }
            | Self::Denied { .. }
            | Self::TimedOut { .. }
            | Self::Protocol(_) => false,
        }
    }
}

/// Asks the daemon on one socket.
#[derive(Debug)]
pub struct Client {
    daemon: Daemon,
    socket: PathBuf,
    runtime: Runtime,
}

impl Client {
    /// Connects with the first request.
    ///
    /// # Errors
    ///
    /// If the system gives it no way to wait for answers.
    pub fn new(daemon: Daemon, socket: &Path) -> anyhow::Result<Self> {
        let mut builder = tokio::runtime::Builder::new_current_thread();
        let runtime = builder
            .enable_all()
            .build()
            .context("cannot start the runtime")?;
        Ok(Self {
            daemon,
            socket: socket.to_owned(),
            runtime,
        })
    }

    /// Runs something of another kind on the client's runtime.
    pub fn block_on<F: Future>(&self, future: F) -> F::Output {
        self.runtime.block_on(future)
    }

    /// Asks for what a route shows.
    ///
    /// # Errors
    ///
    /// If the daemon cannot be asked, or refuses.
    pub fn get<T: DeserializeOwned>(&self, route: &str) -> Result<T, ClientError> {
        self.ask(Method::GET, route, None)
    }

    /// Has the daemon do what a route stands for.
    ///
    /// # Errors
    ///
    /// If the daemon cannot be asked, or refuses.
    pub fn post<T: DeserializeOwned>(
        &self,
        route: &str,
        body: Option<String>,
    ) -> Result<T, ClientError> {
        self.ask(Method::POST, route, body)
    }

    fn ask<T: DeserializeOwned>(
        &self,
        method: Method,
        route: &str,
        body: Option<String>,
    ) -> Result<T, ClientError> {
        let exchange = self.exchange(method, route, body);
        let (status, text) = self
            .runtime
            .block_on(async { time::timeout(TIMEOUT, exchange).await })
            .map_err(|_elapsed| ClientError::TimedOut {
                socket: self.socket.clone(),
            })??;
        let unreadable = |error: serde_json::Error| ClientError::Protocol(error.into());
        if status.is_success() {
            serde_json::from_slice(&text).map_err(unreadable)
        } else {
            let body = serde_json::from_slice(&text).map_err(unreadable)?;
            Err(ClientError::Refused { status, body })
        }
    }

    async fn exchange(
        &self,
        method: Method,
        route: &str,
        body: Option<String>,
    ) -> Result<(StatusCode, Bytes), ClientError> {
        let stream = self.connect().await?;
        let talk = async {
            let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
            let connection = tokio::spawn(connection);
            let request = Request::builder()
                .method(method)
                .uri(route)
                .header(HOST, self.daemon.program)
                .header(CONTENT_TYPE, "application/json")
                .body(Full::new(Bytes::from(body.unwrap_or_default())))?;
            let response = sender.send_request(request).await?;
            let status = response.status();
            let text = response.into_body().collect().await?.to_bytes();
            connection.abort();
            anyhow::Ok((status, text))
        };
        talk.await.map_err(ClientError::Protocol)
    }

    async fn connect(&self) -> Result<UnixStream, ClientError> {
        UnixStream::connect(&self.socket).await.map_err(|error| {
            let (kind, socket, daemon) = (error.kind(), self.socket.clone(), self.daemon);
            if kind == ErrorKind::NotFound || kind == ErrorKind::ConnectionRefused {
                ClientError::NotRunning { socket, daemon }
            } else if kind == ErrorKind::PermissionDenied {
                ClientError::Denied { socket, daemon }
            } else {
                ClientError::Protocol(error.into())
            }
        })
    }
}

/// Percent-encodes a segment of a path: all but the unreserved characters of RFC 3986, 2.3.
#[must_use]
pub fn encode(segment: &str) -> String {
    let encode = |byte: u8| match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
            char::from(byte).to_string()
        }
        _ => format!("%{byte:02X}"),
    };
    segment.bytes().map(encode).collect()
}
