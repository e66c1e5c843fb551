//! `GET /v1/events`: what has happened, and what happens while the asker waits.
//!
//! | option | what |
//! |---|---|
//! | `since` | only events of higher numbers |
//! | `seconds` | only those of the last so many seconds |
//! | `kind`, `severity`, `service` | only these: kinds with commas between them, the least severity |
//! | `wait` | if there is none, wait so many seconds for one, at most [`LONGEST_WAIT`] |

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use axum::{
    Json,
    extract::{Query, State},
    http::StatusCode,
};
use serde::Deserialize;
use tokio::time::{Instant, timeout_at};

use super::error::ApiError;
use crate::{
    control::{EventsPage, Handle},
    core::event::{Kind, Severity, ring::Filter},
};

/// A stop waits for no asker, and an asker that has gone is noticed by then.
const LONGEST_WAIT: Duration = Duration::from_secs(60);

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Options {
    #[serde(default)]
    since: u64,
    seconds: Option<u64>,
    kind: Option<String>,
    severity: Option<String>,
    service: Option<String>,
    #[serde(default)]
    wait: u64,
}

impl Options {
    fn filter(&self) -> Result<Filter, ApiError> {
        let kinds = self.kind.iter().flat_map(|kinds| kinds.split(','));
        let kinds = kinds.map(|name| {
            let known: Vec<_> = Kind::ALL.iter().map(|kind| kind.label()).collect();
            Kind::named(name).ok_or_else(|| unknown("kind", name, &known))
        });
        let least = self.severity.as_ref().map(|name| {
            let known: Vec<_> = Severity::ALL.iter().map(|it| it.label()).collect();
            Severity::named(name).ok_or_else(|| unknown("severity", name, &known))
        });
        Ok(Filter {
            kinds: kinds.collect::<Result<_, _>>()?,
            least: least.transpose()?,
            service: self.service.clone(),
        })
    }
}

fn unknown(what: &str, name: &str, known: &[&str]) -> ApiError {
    let error = format!("there is no {what} named {name}");
    ApiError::new(
        StatusCode::BAD_REQUEST,
        error,
        &format!("known: {}", known.join(", ")),
    )
}

pub(super) async fn list(
    State(handle): State<Handle>,
    Query(options): Query<Options>,
) -> Result<Json<EventsPage>, ApiError> {
    let filter = options.filter()?;
    let deadline = Instant::now() + Duration::from_secs(options.wait).min(LONGEST_WAIT);
    let journal = handle.journal();
    let mut news = journal.news();
    let mut since = options.since;
    loop {
        let mut page = journal.since(since, &filter);
        if let Some(seconds) = options.seconds {
            let oldest = unix_millis().saturating_sub(seconds.saturating_mul(1_000));
            let all = journal.since(since, &Filter::default()).records;
            // What is forgotten is older than what is remembered.
            if all.first().is_some_and(|first| first.unix_millis < oldest) {
                page.missed = 0;
            }
            page.records.retain(|record| record.unix_millis >= oldest);
        }
        let found = !page.records.is_empty() || page.missed > 0;
        let last = page.last;
        if found || news.borrow().is_closing {
            return Ok(Json(page.into()));
        }
        since = since.max(last);
        // Where the ring ends, and not where the asker stood: others may have happened meanwhile.
        let more = news.wait_for(|news| news.last > since || news.is_closing);
        if timeout_at(deadline, more).await.is_err() {
            return Ok(Json(page.into()));
        }
    }
}

fn unix_millis() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    u64::try_from(since.unwrap_or_default().as_millis()).unwrap_or(u64::MAX)
}
