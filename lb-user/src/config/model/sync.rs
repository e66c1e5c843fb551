//! The channel to the other node of a pair, as configured.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

/// How this node and its peer keep each other up to date.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sync {
    pub(super) listen: SocketAddr,
    pub(super) peer: SocketAddr,
    pub(super) key_file: PathBuf,
}

impl Sync {
    /// Where the peer calls, and what it is called from.
    #[must_use]
    pub const fn listen(&self) -> SocketAddr {
        self.listen
    }

    /// Where the peer is called.
    #[must_use]
    pub const fn peer(&self) -> SocketAddr {
        self.peer
    }

    /// The file with the key that both nodes have.
    #[must_use]
    pub fn key_file(&self) -> &Path {
        &self.key_file
    }
}
