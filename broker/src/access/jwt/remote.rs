//! Keys that a server publishes as a JSON Web Key Set.
//!
//! A task fetches them anew from time to time, and when a token comes that none of them has signed.
//! What was fetched last stays in force for as long as the server does not answer. What it answers
//! counts, also when it is that there are no keys any more.

use std::{
    sync::{Arc, OnceLock, PoisonError, RwLock},
    time::{Duration, Instant},
};

use jsonwebtoken::Algorithm;
use tokio::sync::{Notify, watch};
use tokio_util::task::AbortOnDropHandle;

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

/// The keys of a server.
pub(in crate::access) struct Remote {
    fetcher: Arc<Fetcher>,
    /// Fetches for as long as somebody goes by the keys. Not the clients whose tokens they are: they
    /// may leave in the midst of it, and others wait for the same.
    task: OnceLock<AbortOnDropHandle<()>>,
}

struct Fetcher {
    server: Server,
    algorithms: Vec<Algorithm>,
    refresh: Duration,
    spacing: Duration,
    keys: RwLock<Option<Arc<Keys>>>,
    rounds: watch::Sender<Rounds>,
    /// A token has come that no key has signed.
    wanted: Notify,
    health: Health,
}

/// How often the server was asked.
#[derive(Clone, Copy, Debug, Default)]
struct Rounds {
    is_under_way: bool,
    over: u64,
    ended: Option<Instant>,
}

impl Remote {
    pub(super) fn new(
        server: &WebServer,
        refresh: Duration,
        algorithms: &[Algorithm],
        known: Option<Arc<Keys>>,
    ) -> Result<Self, WebError> {
        Self::spaced(server, refresh, SPACING, algorithms, known)
    }

    fn spaced(
        server: &WebServer,
        refresh: Duration,
        spacing: Duration,
        algorithms: &[Algorithm],
        known: Option<Arc<Keys>>,
    ) -> Result<Self, WebError> {
        let fetcher = Fetcher {
            server: Server::new(server)?,
            algorithms: algorithms.to_vec(),
            refresh,
            spacing,
            keys: RwLock::new(known),
            rounds: watch::Sender::default(),
            wanted: Notify::new(),
            health: Health::default(),
        };
        Ok(Self {
            fetcher: Arc::new(fetcher),
            task: OnceLock::new(),
        })
    }

    /// `None` until the server has answered once.
    pub(super) fn keys(&self) -> Option<Arc<Keys>> {
        self.fetcher.keys()
    }

    pub(super) fn health(&self) -> &Health {
        &self.fetcher.health
    }

    /// Begins to fetch the keys; `withdrawn` hears when one of them is gone. Has to be called within
    /// the runtime.
    pub(super) fn follow(&self, withdrawn: &watch::Sender<()>) {
        self.task.get_or_init(|| {
            let (fetcher, withdrawn) = (Arc::clone(&self.fetcher), withdrawn.clone());
            let task = tokio::spawn(async move { fetcher.follow(&withdrawn).await });
            AbortOnDropHandle::new(task)
        });
    }

    /// Has the server asked again for a token that no key has signed, unless it just was, and waits
    /// until it has been.
    pub(super) async fn renew(&self) {
        let Fetcher { rounds, wanted, .. } = &*self.fetcher;
        let mut rounds = rounds.subscribe();
        let before = *rounds.borrow_and_update();
        if !before.is_under_way {
            if self.fetcher.was_just_asked() {
                return;
            }
            wanted.notify_one();
        }
        // It is this one's own sender.
        let _ = rounds.wait_for(|rounds| rounds.over > before.over).await;
    }
}

impl Fetcher {
    fn keys(&self) -> Option<Arc<Keys>> {
        let keys = self.keys.read().unwrap_or_else(PoisonError::into_inner);
        keys.clone()
    }

    async fn follow(&self, withdrawn: &watch::Sender<()>) {
        loop {
            self.fetch(withdrawn).await;
            let rest = if self.health.problem().is_some() {
                self.refresh.min(self.spacing)
            } else {
                self.refresh
            };
            // At the latest.
            let _rested = tokio::time::timeout(rest, self.wait_for_want()).await;
        }
    }

    async fn wait_for_want(&self) {
        loop {
            self.wanted.notified().await;
            // It may have been wanted while it was under way.
            if !self.was_just_asked() {
                break;
            }
        }
    }

    fn was_just_asked(&self) -> bool {
        let ended = self.rounds.borrow().ended;
        ended.is_some_and(|ended| ended.elapsed() < self.spacing)
    }

    async fn fetch(&self, withdrawn: &watch::Sender<()>) {
        self.rounds.send_modify(|rounds| rounds.is_under_way = true);
        match self.server.get().await {
            Ok(text) => self.take(&text, withdrawn),
            Err(error) => self.health.note_bad(&error),
        }
        self.rounds.send_modify(|rounds| {
            *rounds = Rounds {
                is_under_way: false,
                over: rounds.over + 1,
                ended: Some(Instant::now()),
            }
        });
    }

    fn take(&self, text: &[u8], withdrawn: &watch::Sender<()>) {
        let (keys, problem) = match Keys::of_answer(text, &self.algorithms) {
            Ok(answer) => answer,
            // Of something that is no set nobody can say what it withdraws.
            Err(error) => return self.health.note_bad(&error),
        };
        let mut current = self.keys.write().unwrap_or_else(PoisonError::into_inner);
        let lacks_one = current
            .as_ref()
            .is_some_and(|current| !keys.has_all_of(current));
        *current = Some(Arc::new(keys));
        drop(current);
        match problem {
            None => self.health.note_good(),
            Some(problem) => self.health.note_bad(&problem),
        }
        if lacks_one {
            withdrawn.send_replace(());
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;
    use serde_json::json;

    use super::*;
    use crate::access::{
        jwt::tests::Issuer,
        web::tests::{Reply, TestServer},
    };

    const PATIENCE: Duration = Duration::from_secs(20);

    fn set_of(issuers: &[&Issuer]) -> Reply {
        let keys: Vec<_> = issuers.iter().map(|issuer| issuer.jwk("k")).collect();
        Reply::Json(json!({ "keys": keys }).to_string())
    }

    fn remote(server: &TestServer, spacing: Duration) -> Remote {
        let settings = WebServer {
            url: server.url.parse().unwrap(),
            authorities: None,
            token_file: None,
            timeout: PATIENCE,
            connections: 1,
            waiting: 10,
        };
        let hour = Duration::from_hours(1);
        Remote::spaced(&settings, hour, spacing, &[Algorithm::ES256], None).unwrap()
    }

    async fn within<T>(future: impl Future<Output = T>) -> T {
        tokio::time::timeout(PATIENCE, future).await.unwrap()
    }

    /// Has the keys fetched until it is so.
    async fn renew_until(remote: &Remote, is_so: impl Fn(&Remote) -> bool) {
        // One that is under way may have been answered before.
        let renewed = async {
            while !is_so(remote) {
                remote.renew().await;
            }
        };
        within(renewed).await;
    }

    fn count(remote: &Remote) -> usize {
        remote.keys().map_or(0, |keys| keys.count())
    }

    #[tokio::test]
    async fn who_hangs_up_leaves_the_keys_to_be_fetched_for_others() {
        let (first, second) = (Issuer::new("ES256"), Issuer::new("ES256"));
        let server = TestServer::start(set_of(&[&first])).await;
        let remote = remote(&server, Duration::from_millis(300));
        remote.follow(&watch::Sender::default());
        within(remote.renew()).await;
        assert_eq!(count(&remote), 1);
        let rested = async {
            while remote.fetcher.was_just_asked() {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        within(rested).await;
        server.answer(set_of(&[&first, &second]));
        for _ in 0..3 {
            assert!(remote.renew().now_or_never().is_none());
        }
        within(remote.renew()).await;
        assert_eq!(count(&remote), 2);
    }

    #[tokio::test]
    async fn server_that_was_just_asked_is_not_asked_again() {
        let issuer = Issuer::new("ES256");
        let mut server = TestServer::start(set_of(&[&issuer])).await;
        let remote = remote(&server, Duration::from_hours(1));
        remote.follow(&watch::Sender::default());
        for _ in 0..3 {
            within(remote.renew()).await;
        }
        assert!(server.asked.recv().await.is_some());
        assert!(server.asked.try_recv().is_err());
    }

    #[tokio::test]
    async fn answer_without_keys_withdraws_them_and_no_answer_does_not() {
        let (first, second) = (Issuer::new("ES256"), Issuer::new("ES256"));
        let server = TestServer::start(set_of(&[&first, &second])).await;
        let remote = remote(&server, Duration::ZERO);
        let withdrawn = watch::Sender::default();
        remote.follow(&withdrawn);
        let mut withdrawn = withdrawn.subscribe();
        for reply in [Reply::Status(503), Reply::Json("<html>".to_owned())] {
            server.answer(set_of(&[&first, &second]));
            renew_until(&remote, |it| {
                count(it) == 2 && it.health().problem().is_none()
            })
            .await;
            server.answer(reply);
            renew_until(&remote, |it| it.health().problem().is_some()).await;
            assert_eq!(count(&remote), 2);
        }
        server.answer(set_of(&[&first]));
        renew_until(&remote, |it| count(it) == 1).await;
        within(withdrawn.changed()).await.unwrap();
        server.answer(set_of(&[]));
        renew_until(&remote, |it| count(it) == 0).await;
        within(withdrawn.changed()).await.unwrap();
        renew_until(&remote, |it| it.health().problem().is_some()).await;
        assert!(remote.keys().is_some(), "the server has answered");
    }
}
