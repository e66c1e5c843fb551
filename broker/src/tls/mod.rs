//! TLS of a listener: its files, read and checked as a whole, and the handshake.
//!
//! Nothing here keeps a private key longer than rustls does, or prints one.

mod certificate;
mod trust;

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
    time::SystemTime,
};

use console::pem::{self, PemError, certificates, private_key};
use rustls::{
    RootCertStore, ServerConfig, ServerConnection,
    crypto::{CryptoProvider, ring},
    pki_types::{CertificateDer, CertificateRevocationListDer, pem::PemObject as _},
    server::{
        NoServerSessionStorage, VerifierBuilderError, WebPkiClientVerifier,
        danger::ClientCertVerifier,
    },
};
use thiserror::Error;
use tokio_rustls::{TlsAcceptor, server::TlsStream};

use crate::{
    config::{ClientAuthority, Demand, NamedBy, TlsFiles},
    peer::{ClientCertificate, Named},
    transport::Socket,
};
use certificate::Validity;
use trust::Authorities;
pub(crate) use trust::Trust;

/// Why a listener's files cannot be used.
#[derive(Debug, Error)]
pub enum TlsError {
    #[error(transparent)]
    Pem(#[from] PemError),
    #[error("nothing between BEGIN X509 CRL and END in {path}", path = path.display())]
    NoRevocations { path: PathBuf },
    #[error(
        "the key in {key} does not belong to the first certificate in {certificate}",
        key = key.display(),
        certificate = certificate.display()
    )]
    WrongKey { key: PathBuf, certificate: PathBuf },
    #[error("{path} cannot be used", path = path.display())]
    Unusable {
        path: PathBuf,
        #[source]
        source: rustls::Error,
    },
    #[error("{path} cannot vouch for clients", path = path.display())]
    Authority {
        path: PathBuf,
        #[source]
        source: VerifierBuilderError,
    },
    #[error("the certificate in {path} has expired", path = path.display())]
    Expired { path: PathBuf },
    #[error(
        "the certificate in {path} is not good yet: look at its dates and at this host's clock",
        path = path.display()
    )]
    NotYet { path: PathBuf },
    #[error("TLS cannot be set up")]
    Setup(#[from] rustls::Error),
}

/// What the files of a listener amount to.
pub(crate) struct Identity {
    pub(crate) server: Arc<ServerConfig>,
    /// When clients take the certificate.
    pub(crate) validity: Option<Validity>,
    /// Who vouches for clients.
    authorities: Authorities,
}

impl Identity {
    /// Reads the files and checks that they belong together.
    ///
    /// # Errors
    /// Names the file that cannot be used. One whose time is not now can; see
    /// [`Identity::check_time`].
    pub(crate) fn load(files: &TlsFiles) -> Result<Self, TlsError> {
        let provider = Arc::new(ring::default_provider());
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()?;
        let roots = files.clients.as_ref().map(|it| certificates(&it.file));
        let roots = roots.transpose()?.unwrap_or_default();
        let authorities = Authorities::of(&roots);
        let builder = match &files.clients {
            Some(authority) => {
                builder.with_client_cert_verifier(verifier(authority, roots, provider)?)
            }
            None => builder.with_no_client_auth(),
        };
        let chain = certificates(&files.certificate)?;
        let validity = chain.first().and_then(|first| Validity::of(first));
        let key = private_key(&files.key)?;
        let mut server = builder
            .with_single_cert(chain, key)
            .map_err(|source| refused(source, files))?;
        // Tickets, sealed by keys that a reload replaces, cost no memory here; a cache would.
        server.session_storage = Arc::new(NoServerSessionStorage {});
        if files.clients.is_some() {
            // A ticket would outlive the certificate that it was given for, and holds all of it.
            server.send_tls13_tickets = 0;
        } else {
            server.ticketer = ring::Ticketer::new()?;
            server.send_tls13_tickets = 1;
        }
        Ok(Self {
            server: Arc::new(server),
            validity,
            authorities,
        })
    }

    /// Whether clients that check take the certificate now.
    ///
    /// # Errors
    /// When it has expired, or its time has not begun.
    pub(crate) fn check_time(&self, files: &TlsFiles) -> Result<(), TlsError> {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        let now = now.unwrap_or_default().as_secs();
        let path = || files.certificate.clone();
        match self.validity {
            Some(validity) if validity.not_after < now => Err(TlsError::Expired { path: path() }),
            Some(validity) if validity.not_before > now => Err(TlsError::NotYet { path: path() }),
            Some(_) | None => Ok(()),
        }
    }

    /// Greets a client.
    ///
    /// # Errors
    /// When the client leaves, speaks no TLS, or shows a certificate that is not good; rustls's
    /// error is inside then.
    pub(crate) async fn accept(&self, socket: Socket) -> io::Result<TlsStream<Socket>> {
        TlsAcceptor::from(Arc::clone(&self.server))
            .accept(socket)
            .await
    }

    /// What the client has shown, if it was asked to show something; `names` is what in it tells who
    /// the client is.
    pub(crate) fn client_certificate(
        &self,
        session: &ServerConnection,
        names: Option<NamedBy>,
    ) -> Option<ClientCertificate> {
        let chain = session.peer_certificates()?;
        // What rustls takes and this reader does not tells nobody's name.
        let read = certificate::read(chain.first()?);
        let name = |by| certificate::name(read.as_ref()?, by);
        Some(ClientCertificate {
            common_name: name(NamedBy::CommonName).map(str::to_owned),
            named: names.map(|by| Named {
                by,
                user: name(by).map(Into::into),
            }),
            issued: read.as_ref().map(certificate::issued),
            anchors: self.authorities.behind(chain),
        })
    }
}

/// Reads the files and says what is wrong with them, as an operator would want to know it.
///
/// # Errors
/// When they cannot be used, or clients will not take them.
pub(crate) fn check(files: &TlsFiles) -> Result<(), TlsError> {
    Identity::load(files)?.check_time(files)
}

fn verifier(
    authority: &ClientAuthority,
    certificates: Vec<CertificateDer<'static>>,
    provider: Arc<CryptoProvider>,
) -> Result<Arc<dyn ClientCertVerifier>, TlsError> {
    let ClientAuthority {
        file,
        demand,
        revoked,
        names: _,
    } = authority;
    let mut roots = RootCertStore::empty();
    for certificate in certificates {
        let added = roots.add(certificate);
        added.map_err(|source| TlsError::Unusable {
            path: file.clone(),
            source,
        })?;
    }
    let builder = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
    let builder = match demand {
        Demand::Required => builder,
        Demand::Optional => builder.allow_unauthenticated(),
    };
    let builder = match revoked {
        // One that is past its time still tells what it told.
        Some(revoked) => builder
            .with_crls(revocations(revoked)?)
            .only_check_end_entity_revocation(),
        None => builder,
    };
    builder.build().map_err(|source| TlsError::Authority {
        path: revoked.as_ref().unwrap_or(file).clone(),
        source,
    })
}

fn revocations(path: &Path) -> Result<Vec<CertificateRevocationListDer<'static>>, TlsError> {
    let text = pem::read(path)?;
    let found = CertificateRevocationListDer::pem_slice_iter(&text).collect::<Result<Vec<_>, _>>();
    let path = path.to_owned();
    match found {
        Ok(found) if found.is_empty() => Err(TlsError::NoRevocations { path }),
        Ok(found) => Ok(found),
        Err(error) => Err(pem::refused(path, &error).into()),
    }
}

/// Says which of the files it is that rustls does not take.
fn refused(source: rustls::Error, files: &TlsFiles) -> TlsError {
    if matches!(source, rustls::Error::InconsistentKeys(_)) {
        return TlsError::WrongKey {
            key: files.key.clone(),
            certificate: files.certificate.clone(),
        };
    }
    let is_certificates = matches!(source, rustls::Error::InvalidCertificate(_));
    let path = if is_certificates {
        &files.certificate
    } else {
        &files.key
    };
    TlsError::Unusable {
        path: path.clone(),
        source,
    }
}

#[cfg(test)]
pub(crate) mod tests;
