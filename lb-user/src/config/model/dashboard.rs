//! The dashboard, as configured.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

/// Where browsers find the dashboard, and how it knows who they are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dashboard {
    pub(super) listen: Vec<SocketAddr>,
    pub(super) accounts: PathBuf,
    pub(super) tls: Option<(PathBuf, PathBuf)>,
    pub(super) names: Vec<String>,
}

impl Dashboard {
    /// The file of accounts that is meant if none is named.
    pub const ACCOUNTS: &'static str = "/etc/tidegate/accounts.toml";

    /// The addresses that it listens on.
    #[must_use]
    pub fn listen(&self) -> &[SocketAddr] {
        &self.listen
    }

    /// The file of accounts.
    #[must_use]
    pub fn accounts(&self) -> &Path {
        &self.accounts
    }

    /// The files of the certificate and of its key, where it speaks TLS.
    #[must_use]
    pub fn tls(&self) -> Option<(&Path, &Path)> {
        let (certificate, key) = self.tls.as_ref()?;
        Some((certificate, key))
    }

    /// The names that it may be asked for by, other than addresses.
    #[must_use]
    pub fn names(&self) -> &[String] {
        &self.names
    }
}
