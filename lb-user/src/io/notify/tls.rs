//! TLS to servers that a certificate authority of the host's, or of the operator's, vouches for.

use std::sync::Arc;

use rustls::{ClientConfig, RootCertStore};
use tokio::task::{self, JoinError};

use crate::config::model::Authorities;

/// Why there can be no TLS.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    #[error("this host has no certificate authorities: install ca-certificates, or give `ca_file`")]
    NoAuthorities,
    #[error("TLS cannot be set up: {0}")]
    Setup(#[from] rustls::Error),
    #[error("the certificate authorities were not read: {0}")]
    NotRead(#[from] JoinError),
}

/// How to talk to servers; without `authorities` those of the host are trusted.
pub(super) async fn client(
    authorities: Option<&Authorities>,
) -> Result<Arc<ClientConfig>, TlsError> {
    let authorities = authorities.cloned();
    aside(move || build(authorities.as_ref())).await?
}

/// Has a thread of its own read the host's authorities, which are hundreds of files.
pub(super) async fn aside<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, TlsError> {
    Ok(task::spawn_blocking(work).await?)
}

fn build(authorities: Option<&Authorities>) -> Result<Arc<ClientConfig>, TlsError> {
    let mut roots = RootCertStore::empty();
    match authorities {
        Some(authorities) => {
            for certificate in authorities.certificates() {
                roots.add(certificate.clone())?;
            }
        }
        // Whatever of the host's cannot be read or understood vouches for nobody.
        None => {
            let found = rustls_native_certs::load_native_certs();
            roots.add_parsable_certificates(found.certs);
        }
    }
    if roots.is_empty() {
        return Err(TlsError::NoAuthorities);
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(Arc::new(config))
}
