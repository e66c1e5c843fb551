//! The daemon as its dashboard asks it, and what of the API is to be had there.
//!
//! Not `POST /v1/stop` and `/v1/reload`, nor `/v1/notify/test`: they end the daemon, have it read files as
//! root, and run programs. Who may do that is at the host, with the control socket.

use std::sync::Arc;

use console::output::json;
use dashboard::{Daemon, Door, News, OpenError, Page, Settings, TlsFiles};
use futures_util::{FutureExt as _, future::BoxFuture};
use tokio_util::sync::CancellationToken;

use super::{DAEMON, routes};
use crate::{
    config::model,
    control::{EventRecord, Handle},
    core::event::{Event, ring::Filter},
};

/// Has what the configuration says.
pub(super) async fn open(config: &model::Dashboard) -> Result<Door, OpenError> {
    Door::open(settings(config)).await
}

fn settings(config: &model::Dashboard) -> Settings {
    Settings {
        listen: config.listen().to_vec(),
        accounts: config.accounts().to_owned(),
        tls: tls_files(config),
        names: config.names().to_vec(),
    }
}

/// The files of its certificate, if it has one.
#[must_use]
pub fn tls_files(config: &model::Dashboard) -> Option<TlsFiles> {
    let (certificate, key) = config.tls()?;
    Some(TlsFiles {
        certificate: certificate.to_owned(),
        key: key.to_owned(),
    })
}

/// Serves until `stop`.
pub(super) async fn serve(door: Door, handle: Handle, stop: CancellationToken) {
    let own = routes::page(handle.clone());
    let page: Page = dashboard::BALANCER;
    door.serve(Arc::new(Asked(handle)), page, own, stop).await;
}

/// Who is asked.
struct Asked(Handle);

impl Daemon for Asked {
    fn program(&self) -> &'static str {
        DAEMON.program
    }

    fn status(&self) -> BoxFuture<'_, Option<String>> {
        async {
            let status = self.0.status().await.ok()?;
            json(&status).ok()
        }
        .boxed()
    }

    fn last_event(&self) -> u64 {
        self.0.journal().last()
    }

    fn events(&self, since: u64) -> BoxFuture<'_, Option<News>> {
        async move {
            let journal = self.0.journal();
            let mut news = journal.news();
            // What has happened is told before the end is.
            let seen = news.wait_for(|news| news.last > since || news.is_closing);
            let is_over = seen.await.ok()?.last <= since;
            if is_over {
                return None;
            }
            let page = journal.since(since, &Filter::default());
            let tell = |record: &EventRecord| Some((record.seq, json(record).ok()?));
            let records = page.records.iter().map(|it| EventRecord::from(&**it));
            Some(News {
                last: page.last,
                events: records.filter_map(|record| tell(&record)).collect(),
            })
        }
        .boxed()
    }

    fn tell(&self, occurrence: dashboard::Occurrence) {
        self.0.journal().tell(occurrence.into());
    }
}

impl From<dashboard::Occurrence> for Event {
    fn from(occurrence: dashboard::Occurrence) -> Self {
        use dashboard::Occurrence;

        match occurrence {
            Occurrence::LoggedIn {
                name,
                role,
                address,
            } => Self::Login {
                name,
                role: role.to_string(),
                address,
            },
            Occurrence::LoginFailed {
                name,
                address,
                unsaid,
            } => Self::LoginFailed {
                name,
                address,
                unsaid,
            },
            Occurrence::AccountsRefused { error } => Self::AccountsRefused { error },
            Occurrence::AccountsTaken { accounts, tokens } => {
                Self::AccountsTaken { accounts, tokens }
            }
        }
    }
}

#[cfg(test)]
mod tests;
