//! Posts JSON to a URL.

use std::{path::Path, time::Duration};

use console::https::{self, ConnectError};
use http_body_util::Full;
use hyper::{
    Request, StatusCode, Uri,
    body::Bytes,
    client::conn::http1,
    header::{AUTHORIZATION, CONTENT_TYPE, HOST, USER_AGENT},
};
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    time,
};

use super::{
    SecretError, secret,
    tls::{self, TlsError},
};
use crate::config::model::{HookUrl, Webhook};

/// Why a post was not taken.
#[derive(Debug, thiserror::Error)]
pub enum WebhookError {
    #[error("the first line of {0} is no URL of http or https without a password")]
    NoUrl(String),
    #[error(
        "over http the token would travel in the clear: the URL must be one of https, or \
         `allow_plain_token` true"
    )]
    PlainToken,
    #[error(transparent)]
    Secret(#[from] SecretError),
    #[error(transparent)]
    Tls(#[from] TlsError),
    #[error(transparent)]
    Connect(#[from] ConnectError),
    #[error("the request cannot be made: {0}")]
    Request(#[from] hyper::http::Error),
    #[error("the server does not speak HTTP as it should: {0}")]
    Http(#[from] hyper::Error),
    #[error("the server has answered {0}")]
    Status(StatusCode),
    #[error("no answer within {0:?}")]
    TimedOut(Duration),
}

impl WebhookError {
    /// Whether another attempt may go better.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Http(_) | Self::TimedOut(_) => true,
            Self::Connect(error) => error.is_transient(),
            Self::Status(status) => {
                status.is_server_error()
                    || *status == StatusCode::TOO_MANY_REQUESTS
                    || *status == StatusCode::REQUEST_TIMEOUT
            }
            Self::NoUrl(_)
            | Self::PlainToken
            | Self::Secret(_)
            | Self::Tls(_)
            | Self::Request(_) => false,
        }
    }
}

/// Posts `body` once.
///
/// # Errors
///
/// If it was not taken by then, with a status of 200 to 299.
pub async fn post(hook: &Webhook, body: String, limit: Duration) -> Result<(), WebhookError> {
    let attempt = time::timeout(limit, attempt(hook, body)).await;
    attempt.unwrap_or(Err(WebhookError::TimedOut(limit)))
}

async fn attempt(hook: &Webhook, body: String) -> Result<(), WebhookError> {
    let uri = &match hook.url() {
        HookUrl::Given(uri) => uri.clone(),
        HookUrl::File(file) => read(file)?,
    };
    let request = request(hook, uri, body)?;
    let tls = if https::is_secure(uri) {
        Some(tls::client(hook.authorities()).await?)
    } else {
        None
    };
    let status = exchange(https::connect(uri, tls).await?, request).await?;
    if status.is_success() {
        Ok(())
    } else {
        Err(WebhookError::Status(status))
    }
}

fn read(file: &Path) -> Result<Uri, WebhookError> {
    let uri = secret(file)?.trim().parse::<Uri>().ok();
    let uri = uri.filter(HookUrl::is_right);
    uri.ok_or_else(|| WebhookError::NoUrl(file.display().to_string()))
}

fn request(hook: &Webhook, uri: &Uri, body: String) -> Result<Request<Full<Bytes>>, WebhookError> {
    let path = uri.path_and_query().map_or("/", |path| path.as_str());
    let authority = uri.authority().map_or("", |authority| authority.as_str());
    let mut builder = Request::post(path)
        .header(HOST, authority)
        .header(USER_AGENT, concat!("tidegate/", env!("CARGO_PKG_VERSION")))
        .header(CONTENT_TYPE, "application/json");
    for (name, value) in hook.headers() {
        builder = builder.header(name, value);
    }
    if let Some(file) = hook.token_file() {
        // A file may name another URL than the configuration was checked with.
        if HookUrl::is_plain(uri) && !hook.allows_plain_token() {
            return Err(WebhookError::PlainToken);
        }
        builder = builder.header(AUTHORIZATION, format!("Bearer {}", secret(file)?));
    }
    Ok(builder.body(Full::new(Bytes::from(body)))?)
}

async fn exchange(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    request: Request<Full<Bytes>>,
) -> Result<StatusCode, WebhookError> {
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    let mut answer = std::pin::pin!(sender.send_request(request));
    // The connection ends with this future: nobody reads what else it says.
    tokio::select! {
        biased;
        answer = &mut answer => Ok(answer?.status()),
        // The last that came may have been the answer; if not, that says why.
        _ended = connection => Ok(answer.await?.status()),
    }
}

#[cfg(test)]
mod tests;
