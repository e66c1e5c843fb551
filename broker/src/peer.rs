//! Who is at the other end of a connection, as far as the network tells.

use std::{net::SocketAddr, sync::Arc};

/// The client's end of a connection, known before its CONNECT is read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    /// The client's own address: what a trusted proxy says it is, or else where the connection
    /// comes from.
    pub address: SocketAddr,
    /// What the client showed over TLS; its issuer was checked against the listener's `client_ca`.
    pub certificate: Option<Arc<ClientCertificate>>,
}

impl Peer {
    /// The name in the client's certificate.
    pub fn common_name(&self) -> Option<&str> {
        self.certificate.as_ref()?.common_name.as_deref()
    }
}

/// What a client's certificate says about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientCertificate {
    /// Absent too when the subject names several: which one is meant is not ours to guess.
    pub common_name: Option<String>,
}

#[cfg(test)]
impl Peer {
    pub(crate) fn for_tests() -> Self {
        Self {
            address: ([127, 0, 0, 1], 1).into(),
            certificate: None,
        }
    }
}
