//! Connections to servers of HTTP, plain or over TLS, that a certificate authority of the host's, or of
//! the operator's, vouches for.

use std::{io, sync::Arc};

use hyper::Uri;
use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, InvalidDnsNameError, ServerName},
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
};
use tokio_rustls::TlsConnector;

/// Why there can be no TLS.
#[derive(Debug, thiserror::Error)]
pub enum TrustError {
    #[error("this host has no certificate authorities: install ca-certificates, or give `ca_file`")]
    NoAuthorities,
    #[error("TLS cannot be set up: {0}")]
    Setup(#[from] rustls::Error),
}

/// Why there is no connection to a server.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    #[error("the URL names no host")]
    NoHost,
    #[error("the name of the server is none that a certificate can have: {0}")]
    Name(#[from] InvalidDnsNameError),
    #[error("the server cannot be reached: {0}")]
    Connect(#[source] io::Error),
    #[error("no TLS with the server: {0}")]
    Handshake(#[source] io::Error),
}

impl ConnectError {
    /// Whether another attempt may go better.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Connect(_) => true,
            // Of that kind is what TLS itself complains about, as of a certificate.
            Self::Handshake(error) => error.kind() != io::ErrorKind::InvalidData,
            Self::NoHost | Self::Name(_) => false,
        }
    }
}

/// How to talk to servers; without `authorities` those of the host are trusted, which are hundreds of
/// files to read.
///
/// # Errors
///
/// If there is nobody to trust.
pub fn trust(
    authorities: Option<&[CertificateDer<'static>]>,
) -> Result<Arc<ClientConfig>, TrustError> {
    let mut roots = RootCertStore::empty();
    match authorities {
        Some(authorities) => {
            for certificate in authorities {
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
        return Err(TrustError::NoAuthorities);
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(Arc::new(config))
}

/// Bytes to and from a server.
pub trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}

impl<S: AsyncRead + AsyncWrite + Unpin + Send> Stream for S {}

/// Whether a URL asks for TLS.
#[must_use]
pub fn is_secure(uri: &Uri) -> bool {
    uri.scheme_str() == Some("https")
}

/// Connects to the server of a URL, over TLS if `tls` is there.
///
/// # Errors
///
/// If the server cannot be reached, or cannot prove that it is the one.
pub async fn connect(
    uri: &Uri,
    tls: Option<Arc<ClientConfig>>,
) -> Result<Box<dyn Stream>, ConnectError> {
    let (host, port) = endpoint(uri).ok_or(ConnectError::NoHost)?;
    let connected = TcpStream::connect((host, port)).await;
    let stream = connected.map_err(ConnectError::Connect)?;
    greet(uri, stream, tls).await
}

/// The host of a URL, as others than URLs write it, and its port.
#[must_use]
pub fn endpoint(uri: &Uri) -> Option<(&str, u16)> {
    // As an IPv6 address stands in a URL.
    let host = uri.host()?.trim_start_matches('[').trim_end_matches(']');
    let usual = if is_secure(uri) { 443 } else { 80 };
    Some((host, uri.port_u16().unwrap_or(usual)))
}

/// Begins to talk to the server of a URL over a connection that is there.
///
/// # Errors
///
/// If the server cannot prove that it is the one.
pub async fn greet(
    uri: &Uri,
    stream: TcpStream,
    tls: Option<Arc<ClientConfig>>,
) -> Result<Box<dyn Stream>, ConnectError> {
    let Some(tls) = tls else {
        return Ok(Box::new(stream));
    };
    let (host, _port) = endpoint(uri).ok_or(ConnectError::NoHost)?;
    let name = ServerName::try_from(host.to_owned())?;
    let stream = TlsConnector::from(tls).connect(name, stream).await;
    Ok(Box::new(stream.map_err(ConnectError::Handshake)?))
}
