//! TLS to servers that a certificate authority of the host's, or of the operator's, vouches for.

use std::{fs, path::Path, sync::Arc};

use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, pem::PemObject as _},
};

/// Why there can be no TLS.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    #[error("{file} has no certificates: {reason}")]
    Authorities { file: String, reason: String },
    #[error("this host has no certificate authorities: install ca-certificates, or give `ca_file`")]
    NoAuthorities,
    #[error("TLS cannot be set up: {0}")]
    Setup(#[from] rustls::Error),
}

/// How to talk to servers; without a file of authorities those of the host are trusted.
pub(super) fn client(ca_file: Option<&Path>) -> Result<Arc<ClientConfig>, TlsError> {
    let mut roots = RootCertStore::empty();
    match ca_file {
        Some(path) => {
            for certificate in certificates(path)? {
                roots.add(certificate)?;
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

/// All certificates of a PEM file.
pub(super) fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let file = path.display().to_string();
    let failed = |reason: String| TlsError::Authorities {
        file: file.clone(),
        reason,
    };
    let text = fs::read(path).map_err(|error| failed(error.to_string()))?;
    let found = CertificateDer::pem_slice_iter(&text).collect::<Result<Vec<_>, _>>();
    let found = found.map_err(|error| failed(error.to_string()))?;
    if found.is_empty() {
        return Err(failed(
            "nothing between BEGIN CERTIFICATE and END".to_owned(),
        ));
    }
    Ok(found)
}
