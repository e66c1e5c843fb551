//! Keys that a server publishes as a JSON Web Key Set.
//!
//! They are fetched anew from time to time, and when a token comes that none of them has signed. What
//! was fetched last stays in force for as long as the server does not answer.

use std::{
    sync::{
        Arc, PoisonError, RwLock, Weak,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use jsonwebtoken::Algorithm;
use tokio::sync::Mutex;

use super::keys::Keys;
use crate::{
    access::{
        health::Health,
        web::{Server, WebError},
    },
    config::WebServer,
};

/// How often tokens of unknown keys may have the server asked: anybody can send them.
const SPACING: Duration = Duration::from_secs(10);

pub(in crate::access) struct Remote {
    server: Server,
    algorithms: Vec<Algorithm>,
    refresh: Duration,
    keys: RwLock<Option<Arc<Keys>>>,
    /// When the server was last asked; held while it is.
    asked: Mutex<Option<Instant>>,
    is_followed: AtomicBool,
    pub(super) health: Health,
}

impl Remote {
    pub(super) fn new(
        server: &WebServer,
        refresh: Duration,
        algorithms: &[Algorithm],
        known: Option<Arc<Keys>>,
    ) -> Result<Arc<Self>, WebError> {
        Ok(Arc::new(Self {
            server: Server::new(server)?,
            algorithms: algorithms.to_vec(),
            refresh,
            keys: RwLock::new(known),
            asked: Mutex::default(),
            is_followed: AtomicBool::new(false),
            health: Health::default(),
        }))
    }

    /// `None` until the server has answered once.
    pub(super) fn keys(&self) -> Option<Arc<Keys>> {
        let keys = self.keys.read().unwrap_or_else(PoisonError::into_inner);
        keys.clone()
    }

    /// Fetches the keys for as long as somebody goes by them. Has to be called within the runtime.
    pub(super) fn follow(self: &Arc<Self>) {
        if !self.is_followed.swap(true, Ordering::AcqRel) {
            tokio::spawn(follow(Arc::downgrade(self)));
        }
    }

    /// Has the server asked again for a token that no key has signed, unless it just was.
    pub(super) async fn renew(&self) {
        self.fetch(SPACING).await;
    }

    async fn fetch(&self, spacing: Duration) {
        let mut asked = self.asked.lock().await;
        if asked.is_some_and(|asked| asked.elapsed() < spacing) {
            return;
        }
        *asked = Some(Instant::now());
        match self.server.get().await {
            Ok(text) => self.take(&text),
            Err(error) => self.health.note_bad(&error),
        }
    }

    fn take(&self, text: &[u8]) {
        match Keys::of_set(text, &self.algorithms) {
            Ok(keys) => {
                *self.keys.write().unwrap_or_else(PoisonError::into_inner) = Some(Arc::new(keys));
                self.health.note_good();
            }
            Err(error) => self.health.note_bad(&error),
        }
    }
}

async fn follow(remote: Weak<Remote>) {
    loop {
        let Some(current) = remote.upgrade() else {
            return;
        };
        current.fetch(Duration::ZERO).await;
        let rest = if current.health.problem().is_some() {
            current.refresh.min(SPACING)
        } else {
            current.refresh
        };
        drop(current);
        tokio::time::sleep(rest).await;
    }
}
