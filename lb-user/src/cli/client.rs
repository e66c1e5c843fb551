//! A client of the daemon's API: one request, one connection.

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

use crate::api::ErrorBody;

/// A reload may take the time of its slowest kernel requests; nothing takes longer.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Why the daemon did not do as asked.
#[derive(Debug, thiserror::Error)]
pub(super) enum ClientError {
    #[error(
        "no daemon answers on {}: start it with `tidegate run --config FILE`, or give its socket with --socket",
        .socket.display()
    )]
    NotRunning { socket: PathBuf },
    #[error("{} may not be used by this user: use root, or a user of the group in api.group", .socket.display())]
    Denied { socket: PathBuf },
    #[error("{}\n{}", .body.error, .body.hint)]
    Refused { status: StatusCode, body: ErrorBody },
    #[error("the daemon on {} did not answer in {TIMEOUT:?}: see its log", .socket.display())]
    TimedOut { socket: PathBuf },
    #[error("cannot talk to the daemon")]
    Protocol(#[source] anyhow::Error),
}

impl ClientError {
    /// Whether the one who asked can correct it.
    pub(super) fn is_usage(&self) -> bool {
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
pub(super) struct Client {
    socket: PathBuf,
    runtime: Runtime,
}

impl Client {
    pub(super) fn new(socket: &Path) -> anyhow::Result<Self> {
        let mut builder = tokio::runtime::Builder::new_current_thread();
        let runtime = builder
            .enable_all()
            .build()
            .context("cannot start the runtime")?;
        Ok(Self {
            socket: socket.to_owned(),
            runtime,
        })
    }

    /// Runs something of another kind on the client's runtime.
    pub(super) fn block_on<F: Future>(&self, future: F) -> F::Output {
        self.runtime.block_on(future)
    }

    pub(super) fn get<T: DeserializeOwned>(&self, route: &str) -> Result<T, ClientError> {
        self.ask(Method::GET, route, None)
    }

    pub(super) fn post<T: DeserializeOwned>(
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
                .header(HOST, "tidegate")
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
            let (kind, socket) = (error.kind(), self.socket.clone());
            if kind == ErrorKind::NotFound || kind == ErrorKind::ConnectionRefused {
                ClientError::NotRunning { socket }
            } else if kind == ErrorKind::PermissionDenied {
                ClientError::Denied { socket }
            } else {
                ClientError::Protocol(error.into())
            }
        })
    }
}

/// Percent-encodes a segment of a path: all but the unreserved characters of RFC 3986, 2.3.
pub(super) fn encode(segment: &str) -> String {
    let encode = |byte: u8| match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
            char::from(byte).to_string()
        }
        _ => format!("%{byte:02X}"),
    };
    segment.bytes().map(encode).collect()
}

#[cfg(test)]
mod tests {
    use std::{os::unix::fs::PermissionsExt as _, path::PathBuf};

    use tokio::{runtime::Runtime, task::JoinSet};
    use tokio_util::sync::CancellationToken;

    use super::{Client, ClientError};
    use crate::{
        api::{BindError, Servers},
        control::{self, Request, Status, example},
        journal::Journal,
    };

    fn socket(name: &str) -> PathBuf {
        std::env::temp_dir().join(format!("tidegate-{}-{name}.sock", std::process::id()))
    }

    #[test]
    fn status_comes_through_the_socket() {
        let (path, runtime) = (socket("status"), Runtime::new().unwrap());
        let servers = runtime.block_on(Servers::bind(&path, 0o600, None)).unwrap();
        let mode = std::fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let (handle, mut requests) = control::channel(Journal::default());
        let (stop, mut tasks) = (CancellationToken::new(), JoinSet::new());
        runtime.block_on(async { servers.spawn(&handle, &stop, &mut tasks) });
        runtime.spawn(async move {
            while let Some(request) = requests.receiver.recv().await {
                if let Request::Status(answer) = request {
                    drop(answer.send(example::status()));
                }
            }
        });

        let client = Client::new(&path).unwrap();
        assert_eq!(
            client.get::<Status>("/v1/status").unwrap(),
            example::status()
        );
        let refusal = client.get::<Status>("/v1/nosuch").unwrap_err();
        assert!(
            refusal.is_usage() && refusal.to_string().contains("no such route"),
            "{refusal}"
        );
        let second = runtime
            .block_on(Servers::bind(&path, 0o600, None))
            .unwrap_err();
        assert!(matches!(second, BindError::InUse { .. }), "{second}");

        stop.cancel();
        runtime.block_on(async { while tasks.join_next().await.is_some() {} });
        assert!(!path.exists(), "the socket goes with its server");
        let error = client.get::<Status>("/v1/status").unwrap_err();
        assert!(matches!(error, ClientError::NotRunning { .. }), "{error}");
    }

    #[test]
    fn socket_of_a_dead_daemon_is_replaced_and_no_other_file_is() {
        let (path, runtime) = (socket("stale"), Runtime::new().unwrap());
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        let servers = runtime.block_on(Servers::bind(&path, 0o660, None)).unwrap();
        drop(servers);
        std::fs::write(&path, "precious").unwrap();
        let refusal = runtime
            .block_on(Servers::bind(&path, 0o660, None))
            .unwrap_err();
        assert!(matches!(refusal, BindError::NotASocket { .. }), "{refusal}");
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "precious");
        std::fs::remove_file(&path).unwrap();
    }
}
