//! The certificate that the dashboard shows, read again when its files change: those who renew it need
//! not know of any daemon.

use std::{
    path::PathBuf,
    sync::{Arc, PoisonError, RwLock},
};

use console::pem::{self, PemError};
use rustls::{ServerConfig, crypto::ring, server::NoServerSessionStorage};
use tokio::time::{MissedTickBehavior, interval};
use tokio_rustls::TlsAcceptor;
use tracing::{info, warn};

use crate::{
    book::LOOK,
    file::{self, Stamp},
};

/// The files that TLS is made of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsFiles {
    pub certificate: PathBuf,
    pub key: PathBuf,
}

/// Why there can be no TLS.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    #[error(transparent)]
    Pem(#[from] PemError),
    #[error(
        "the key in {key} does not belong to the first certificate in {certificate}",
        key = key.display(),
        certificate = certificate.display()
    )]
    WrongKey { key: PathBuf, certificate: PathBuf },
    #[error("{certificate} and {key} cannot be used: {source}",
        key = key.display(), certificate = certificate.display())]
    Unusable {
        certificate: PathBuf,
        key: PathBuf,
        source: rustls::Error,
    },
    #[error("TLS cannot be set up: {0}")]
    Setup(#[from] rustls::Error),
}

/// Reads the files and says what is wrong with them.
///
/// # Errors
///
/// If they cannot be used.
pub fn check(files: &TlsFiles) -> Result<(), TlsError> {
    load(files).map(drop)
}

fn load(files: &TlsFiles) -> Result<Arc<ServerConfig>, TlsError> {
    let TlsFiles { certificate, key } = files;
    let provider = Arc::new(ring::default_provider());
    let builder = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_no_client_auth();
    let chain = pem::certificates(certificate)?;
    let private = pem::private_key(key)?;
    let mut server = builder.with_single_cert(chain, private).map_err(|source| {
        let (certificate, key) = (certificate.clone(), key.clone());
        if matches!(source, rustls::Error::InconsistentKeys(_)) {
            return TlsError::WrongKey { key, certificate };
        }
        TlsError::Unusable {
            certificate,
            key,
            source,
        }
    })?;
    server.alpn_protocols = vec![b"http/1.1".to_vec()];
    // Tickets, sealed by keys that the next certificate replaces, cost no memory here.
    server.session_storage = Arc::new(NoServerSessionStorage {});
    server.ticketer = ring::Ticketer::new()?;
    server.send_tls13_tickets = 1;
    Ok(Arc::new(server))
}

/// The certificate in force.
pub(crate) struct Tls {
    files: TlsFiles,
    current: RwLock<Arc<ServerConfig>>,
}

impl Tls {
    pub(crate) fn load(files: TlsFiles) -> Result<Self, TlsError> {
        let current = RwLock::new(load(&files)?);
        Ok(Self { files, current })
    }

    pub(crate) fn acceptor(&self) -> TlsAcceptor {
        let current = self.current.read().unwrap_or_else(PoisonError::into_inner);
        TlsAcceptor::from(Arc::clone(&current))
    }

    fn stamps(&self) -> [Option<Stamp>; 2] {
        [
            file::stamp(&self.files.certificate),
            file::stamp(&self.files.key),
        ]
    }

    /// Takes what the files have become. Of the two one is written first: then they do not fit, and the
    /// next look finds them whole.
    fn refresh(&self) {
        match load(&self.files) {
            Ok(config) => {
                *self.current.write().unwrap_or_else(PoisonError::into_inner) = config;
                info!("the dashboard has another certificate");
            }
            Err(error) => {
                warn!(%error, "the dashboard goes on with the certificate that it had");
            }
        }
    }

    /// Looks again and again.
    pub(crate) async fn follow(self: Arc<Self>) {
        let mut looks = interval(LOOK);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut seen = self.stamps();
        loop {
            looks.tick().await;
            let this = Arc::clone(&self);
            let looked = tokio::task::spawn_blocking(move || {
                let found = this.stamps();
                if found != seen {
                    this.refresh();
                }
                found
            });
            let Ok(found) = looked.await else { return };
            seen = found;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests::{Scratch, certificate};

    #[test]
    fn files_that_cannot_be_used_are_named() {
        let scratch = Scratch::new();
        let files = certificate(&scratch, "a");
        let other = certificate(&scratch, "b");
        check(&files).unwrap();
        let swapped = TlsFiles {
            certificate: files.key.clone(),
            key: files.certificate.clone(),
        };
        assert!(matches!(check(&swapped), Err(TlsError::Pem(_))));
        let mixed = TlsFiles {
            certificate: files.certificate.clone(),
            key: other.key,
        };
        assert!(matches!(check(&mixed), Err(TlsError::WrongKey { .. })));
        let gone = TlsFiles {
            certificate: scratch.file("nosuch.pem"),
            key: files.key,
        };
        let error = check(&gone).unwrap_err().to_string();
        assert!(error.contains("nosuch.pem"), "{error}");
    }

    #[test]
    fn another_certificate_is_taken_and_a_bad_one_is_not() {
        let scratch = Scratch::new();
        let (files, other) = (certificate(&scratch, "a"), certificate(&scratch, "b"));
        let tls = Tls::load(files.clone()).unwrap();
        let before = tls.stamps();
        let held = Arc::clone(&tls.current.read().unwrap());
        std::fs::copy(&other.certificate, &files.certificate).unwrap();
        assert_ne!(tls.stamps(), before);
        tls.refresh();
        assert!(Arc::ptr_eq(&held, &tls.current.read().unwrap()));
        std::fs::copy(&other.key, &files.key).unwrap();
        tls.refresh();
        assert!(!Arc::ptr_eq(&held, &tls.current.read().unwrap()));
    }
}
