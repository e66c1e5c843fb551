//! `GET /v1/events`: what has happened, and what happens while the asker waits.
//!
//! | option | what |
//! |---|---|
//! | `since` | only events of higher numbers |
//! | `seconds` | only those of the last so many seconds |
//! | `kind`, `severity` | only these: kinds with commas between them, the least severity |
//! | `wait` | if there is none, wait so many seconds for one, at most [`LONGEST_WAIT`] |

use std::{
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use axum::{
    Json,
    extract::{Query, State, rejection::QueryRejection},
    http::StatusCode,
};
use console::{api::ApiError, events::EventsPage};
use serde::Deserialize;
use tokio::time::{Instant, timeout_at};

use crate::{
    events::{KINDS, Severity, Wanted},
    node::Status,
};

/// An asker that has gone is noticed by then.
const LONGEST_WAIT: Duration = Duration::from_secs(60);

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Options {
    #[serde(default)]
    since: u64,
    seconds: Option<u64>,
    kind: Option<String>,
    severity: Option<String>,
    #[serde(default)]
    wait: u64,
}

impl Options {
    fn wanted(&self, now_millis: u64) -> Result<Wanted, ApiError> {
        let kinds = self.kind.iter().flat_map(|kinds| kinds.split(','));
        let kinds = kinds.map(|kind| {
            let is_known = KINDS.contains(&kind);
            is_known
                .then(|| kind.to_owned())
                .ok_or_else(|| unknown("kind", kind, &KINDS))
        });
        let least = self.severity.as_deref().map(|name| {
            let mut all = Severity::ALL.into_iter();
            let found = all.find(|severity| severity.label() == name);
            found.ok_or_else(|| unknown("severity", name, &Severity::ALL.map(Severity::label)))
        });
        let past = |seconds: u64| now_millis.saturating_sub(seconds.saturating_mul(1000));
        Ok(Wanted {
            kinds: kinds.collect::<Result<_, _>>()?,
            least: least.transpose()?,
            from: self.seconds.map_or(0, past),
        })
    }
}

pub(super) async fn list(
    State(status): State<Arc<Status>>,
    asked: Result<Query<Options>, QueryRejection>,
) -> Result<Json<EventsPage>, ApiError> {
    let Query(options) = asked.map_err(|error| {
        let hint = "options are since, seconds, kind, severity, wait";
        ApiError::new(StatusCode::BAD_REQUEST, error.body_text(), hint)
    })?;
    let wanted = options.wanted(unix_millis())?;
    let deadline = Instant::now() + Duration::from_secs(options.wait).min(LONGEST_WAIT);
    let events = status.events();
    let mut last = events.last();
    let mut since = options.since;
    loop {
        let page = events.since(since, &wanted);
        if !page.events.is_empty() || page.missed > 0 {
            return Ok(Json(page));
        }
        // Where the memory ends, and not where the asker stood: others may have happened meanwhile.
        since = since.max(page.last);
        let more = last.wait_for(|last| *last > since);
        if timeout_at(deadline, more).await.is_err() {
            return Ok(Json(page));
        }
    }
}

fn unknown(what: &str, name: &str, known: &[&str]) -> ApiError {
    let error = format!("there is no {what} named {name:?}");
    let hint = format!("known: {}", known.join(", "));
    ApiError::new(StatusCode::BAD_REQUEST, error, &hint)
}

fn unix_millis() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    u64::try_from(since.unwrap_or_default().as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_checked_and_times_counted_back() {
        let options = Options {
            seconds: Some(3),
            kind: Some("node_lost,node_joined".to_owned()),
            severity: Some("warning".to_owned()),
            ..Options::default()
        };
        let wanted = options.wanted(10_000).unwrap();
        assert_eq!(wanted.kinds, ["node_lost", "node_joined"]);
        assert_eq!((wanted.least, wanted.from), (Some(Severity::Warning), 7000));
        for (kind, severity) in [(Some("x"), None), (None, Some("x"))] {
            let options = Options {
                kind: kind.map(str::to_owned),
                severity: severity.map(str::to_owned),
                ..Options::default()
            };
            assert!(options.wanted(0).is_err());
        }
        assert_eq!(Options::default().wanted(9).unwrap(), Wanted::default());
    }
}
