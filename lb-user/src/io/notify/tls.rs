//! TLS to servers that a certificate authority of the host's, or of the operator's, vouches for.

use std::sync::Arc;

use console::https::{self, TrustError};
use rustls::ClientConfig;
use tokio::task::{self, JoinError};

use crate::config::model::Authorities;

/// Why there can be no TLS.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    #[error(transparent)]
    Trust(#[from] TrustError),
    #[error("the certificate authorities were not read: {0}")]
    NotRead(#[from] JoinError),
}

/// How to talk to servers; without `authorities` those of the host are trusted.
pub(super) async fn client(
    authorities: Option<&Authorities>,
) -> Result<Arc<ClientConfig>, TlsError> {
    let authorities = authorities.cloned();
    let trusted = aside(move || https::trust(authorities.as_ref().map(Authorities::certificates)));
    Ok(trusted.await??)
}

/// Has a thread of its own read the host's authorities, which are hundreds of files.
pub(super) async fn aside<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, TlsError> {
    Ok(task::spawn_blocking(work).await?)
}
