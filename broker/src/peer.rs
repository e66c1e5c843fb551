//! Who is at the other end of a connection, as far as the network tells.

use std::{net::SocketAddr, sync::Arc};

use crate::config::NamedBy;

/// The client's end of a connection, known before its CONNECT is read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    /// The client's own address: what a trusted proxy says it is, or else where the connection
    /// comes from.
    pub address: SocketAddr,
    /// The listener that it has come by, as the configuration calls it.
    pub listener: SocketAddr,
    /// What the client showed over TLS; its issuer was checked against the listener's `client_ca`.
    pub certificate: Option<Arc<ClientCertificate>>,
}

impl Peer {
    /// The name in the client's certificate.
    pub fn common_name(&self) -> Option<&str> {
        self.certificate.as_ref()?.common_name.as_deref()
    }

    /// Who the client is by its certificate, where the listener goes by that.
    pub(crate) fn named(&self) -> Option<&Named> {
        self.certificate.as_ref()?.named.as_ref()
    }
}

/// What a client's certificate says about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientCertificate {
    /// Absent too when the subject names several: which one is meant is not ours to guess.
    pub common_name: Option<String>,
    /// Where the listener goes by certificates.
    pub named: Option<Named>,
    /// Absent where that cannot be read.
    pub issued: Option<Issued>,
    /// Who may have vouched for it, in order.
    pub anchors: Box<[Anchor]>,
}

/// What tells an authority that vouches for clients from all others: a digest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Anchor(pub [u8; 32]);

/// Who a client is by its certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Named {
    pub by: NamedBy,
    /// Absent when the certificate has no such name, or several.
    pub user: Option<Arc<str>>,
}

/// What tells a certificate from all others (RFC 5280, 4.1.2.2).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Issued {
    /// A digest of the issuer's name.
    pub issuer: [u8; 32],
    pub serial: Box<[u8]>,
}

#[cfg(test)]
impl Peer {
    pub(crate) fn for_tests() -> Self {
        Self {
            address: ([127, 0, 0, 1], 1).into(),
            listener: ([127, 0, 0, 1], 2).into(),
            certificate: None,
        }
    }
}
