//! The accounts in force, and what keeps them as the file has them.

use std::{
    path::{Path, PathBuf},
    sync::{Arc, PoisonError, RwLock},
    time::Duration,
};

use tokio::time::{MissedTickBehavior, interval};
use tracing::warn;

use crate::{
    Occurrence,
    accounts::{Accounts, AccountsError, Known},
    file::{self, Stamp},
    router::Shared,
};

/// How often files are looked at: whoever is removed is out after that.
pub(crate) const LOOK: Duration = Duration::from_secs(1);

/// The accounts.
#[derive(Default)]
pub(crate) struct Book(RwLock<Arc<Known>>);

impl Book {
    pub(crate) fn known(&self) -> Arc<Known> {
        let known = self.0.read().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(&known)
    }

    pub(crate) fn set(&self, accounts: Accounts) {
        let known = Arc::new(Known::from(accounts));
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = known;
    }
}

/// Reads the file of accounts when it is another than before.
pub(crate) struct Reader {
    path: PathBuf,
    /// What was read last; `None` if nothing was.
    seen: Option<Option<Stamp>>,
    is_refused: bool,
}

impl Reader {
    pub(crate) const fn new(path: PathBuf) -> Self {
        Self {
            path,
            seen: None,
            is_refused: false,
        }
    }

    /// What has become of the file, if anything has.
    fn look(&mut self) -> Option<Result<Accounts, AccountsError>> {
        let stamp = file::stamp(&self.path);
        if self.seen == Some(stamp) {
            return None;
        }
        // Before it is read: what changes meanwhile is seen the next time.
        self.seen = Some(stamp);
        Some(file::read(&self.path))
    }

    /// Looks, and has `shared` know what there is.
    pub(crate) fn refresh(&mut self, shared: &Shared) {
        let Some(read) = self.look() else {
            return;
        };
        match read {
            Ok(accounts) => {
                shared.book.set(accounts);
                let (accounts, tokens) = shared.book.known().counts();
                shared.counters.set_accounts((accounts, tokens), None);
                if self.is_refused {
                    self.is_refused = false;
                    let taken = Occurrence::AccountsTaken { accounts, tokens };
                    shared.daemon.tell(taken);
                }
            }
            Err(error) => {
                self.is_refused = true;
                let error = refusal(&self.path, &error);
                let counts = shared.book.known().counts();
                shared.counters.set_accounts(counts, Some(error.clone()));
                shared.daemon.tell(Occurrence::AccountsRefused { error });
            }
        }
    }

    /// Looks again and again.
    pub(crate) async fn follow(mut self, shared: Arc<Shared>) {
        let mut looks = interval(LOOK);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            looks.tick().await;
            let shared = Arc::clone(&shared);
            // The file may be on a disk that hangs.
            let looked = tokio::task::spawn_blocking(move || {
                self.refresh(&shared);
                self
            });
            match looked.await {
                Ok(reader) => self = reader,
                Err(error) => {
                    warn!(%error, "accounts are not read again");
                    return;
                }
            }
        }
    }
}

fn refusal(path: &Path, error: &AccountsError) -> String {
    format!("{}: {error}", path.display())
}
