//! Who may connect, and as whom.
//!
//! ```text
//! listener -> Access::admit -> Policy: the client's certificate, where its listener goes by that;
//!               else its authenticators in order, until one answers
//!               Allow (as this user) | Deny | Ignore (ask the next)
//! SIGHUP   -> Access::prepare, exchange -> another Policy, the whole of it or none
//!          or a key of tokens is withdrawn -> the same Policy again
//!               -> each shard closes the connections that it would not have let in
//! ```
//!
//! `acl` says what those may do who were let in: each session holds what is about its client.
//! `policy` decides, `authenticator` asks; `passwords` is the file of users, `hashing` bounds what
//! checking a password costs, `jwt` checks signed tokens, `http` asks a server.

mod acl;
mod authenticator;
mod client_ids;
mod counts;
pub(crate) mod hashing;
mod health;
mod http;
mod identity;
pub(crate) mod jwt;
pub(crate) mod passwords;
mod policy;
pub(crate) mod web;

use std::{
    io,
    path::PathBuf,
    sync::{Arc, PoisonError, RwLock},
    time::Instant,
};

use thiserror::Error;
use tokio::sync::watch;
use tracing::{debug, warn};

use crate::{codec::packet::ConnectCode, config, tls::TlsError};
pub use acl::{AclError, Effect};
pub(crate) use acl::{Grants, Permit};
pub use client_ids::{ClientIds, ClientIdsError};
use counts::{Board, Complaints};
use hashing::Hashing;
pub(crate) use identity::{Identity, Login, is_name};
pub use jwt::{JwtError, KeysError};
pub use passwords::PasswordsError;
pub(crate) use policy::{Advice, Policy, Standing};
pub use web::WebError;

/// Why nobody can be let in as the configuration says.
#[derive(Debug, Error)]
pub enum AccessError {
    #[error("certificates of clients")]
    Certificates(#[source] TlsError),
    #[error("access.authenticator[{index}]: cannot use {path}", path = path.display())]
    Passwords {
        index: usize,
        path: PathBuf,
        #[source]
        source: PasswordsError,
    },
    #[error("access.authenticator[{index}]")]
    Jwt {
        index: usize,
        #[source]
        source: JwtError,
    },
    #[error("access.authenticator[{index}]")]
    Http {
        index: usize,
        #[source]
        source: WebError,
    },
    #[error("access.acl: cannot use {path}", path = path.display())]
    Acl {
        path: PathBuf,
        #[source]
        source: AclError,
    },
    #[error("the system gives no random numbers")]
    Random(#[source] io::Error),
}

/// Lets clients in, or does not.
pub(crate) struct Access {
    policy: RwLock<Arc<Policy>>,
    /// Somebody who was let in may not be any more, by another policy or as a key is gone.
    changes: watch::Sender<()>,
    hashing: Hashing,
    board: Board,
    complaints: Complaints,
}

impl Access {
    /// Reads every file that the configuration names. Has to be called within the runtime.
    ///
    /// # Errors
    /// When one cannot be used.
    pub(crate) fn start(config: &config::Access) -> Result<Self, AccessError> {
        let hashing = Hashing::new(config.hash_threads).map_err(AccessError::Random)?;
        let board = Board::default();
        let policy = Policy::load(config, None, &board)?;
        advise(&policy);
        let changes = watch::Sender::default();
        policy.follow(&changes);
        Ok(Self {
            policy: RwLock::new(Arc::new(policy)),
            changes,
            hashing,
            board,
            complaints: Complaints::default(),
        })
    }

    /// Reads every file again.
    ///
    /// # Errors
    /// When one cannot be used.
    pub(crate) fn prepare(&self, config: &config::Access) -> Result<Policy, AccessError> {
        let older = self.policy();
        Policy::load(config, Some(&older), &self.board)
    }

    /// Goes by another policy from then on. Has to be called within the runtime.
    pub(crate) fn exchange(&self, policy: Policy) {
        advise(&policy);
        policy.follow(&self.changes);
        *self.policy.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(policy);
        self.changes.send_replace(());
    }

    /// What is in force.
    pub(crate) fn policy(&self) -> Arc<Policy> {
        Arc::clone(&self.policy.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Hears of every reload, and when the same policy has to be applied again.
    pub(crate) fn changes(&self) -> watch::Receiver<()> {
        self.changes.subscribe()
    }

    /// Finds out who a client is, by the policy that was in force when it was accepted.
    ///
    /// Takes as long as hashing a password does, and the wait for others' passwords before it.
    ///
    /// # Errors
    /// The code to refuse the client with.
    pub(crate) async fn admit(
        &self,
        policy: &Policy,
        login: &Login<'_>,
    ) -> Result<Identity, ConnectCode> {
        let judged = policy.judge(login, &self.hashing).await;
        judged.map_err(|denial| {
            let Login {
                client_id,
                // It may be a token.
                username: _,
                password: _,
                peer: _,
            } = login;
            debug!(client_id, %denial, "access refused");
            if let Some(refused) = self.complaints.note(Instant::now()) {
                warn!(refused, last = %denial, "clients were refused access");
            }
            denial.code()
        })
    }

    /// Appends what is counted in Prometheus's text format.
    pub(crate) fn render(&self, out: &mut String) {
        self.board.render(out);
    }
}

fn advise(policy: &Policy) {
    if let Some(advice) = policy.advice() {
        warn!("{advice}");
    }
}

/// Reads every file that the configuration names, and says what is wrong with them, or may be.
///
/// # Errors
/// As [`Access::start`].
pub(crate) fn check(config: &config::Access) -> Result<Option<Advice>, AccessError> {
    Policy::load(config, None, &Board::default()).map(|policy| policy.advice())
}
