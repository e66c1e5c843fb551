//! Events as daemons tell them: the JSON of `GET /v1/events` and how it is asked for, and the lines of
//! `events`.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::{
    client::encode,
    output::{self, Reader},
};

/// Seconds for which a daemon is to wait for an event: less than a client waits for any answer.
const WAIT: u64 = 5;

/// After what events are wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Since {
    /// The event of that number.
    Number(u64),
    /// A moment.
    Ago(Duration),
}

/// What is asked of a daemon.
#[derive(Clone, Copy, Debug)]
pub struct Query<'a> {
    /// Absent, all that is remembered.
    pub since: Option<Since>,
    /// By the names of the route's options.
    pub filters: &'a [(&'a str, Option<&'a str>)],
}

impl Query<'_> {
    /// The route to what there is.
    #[must_use]
    pub fn first_route(&self) -> String {
        let start = match self.since {
            None => String::new(),
            Some(Since::Number(number)) => format!("&since={number}"),
            Some(Since::Ago(ago)) => format!("&seconds={}", ago.as_secs()),
        };
        format!("/v1/events?wait=0{start}{}", self.filter())
    }

    /// The route to what comes after an event.
    #[must_use]
    pub fn next_route(&self, last: u64) -> String {
        format!("/v1/events?since={last}&wait={WAIT}{}", self.filter())
    }

    fn filter(&self) -> String {
        let given = self.filters.iter();
        let given = given.filter_map(|(name, value)| Some((name, (*value)?)));
        given
            .map(|(name, value)| format!("&{name}={}", encode(value)))
            .collect()
    }
}

/// One event.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EventRecord {
    /// Its number: each is greater than the one before, those of earlier daemons among them.
    pub seq: u64,
    /// When it happened, in UTC (RFC 3339).
    pub time: String,
    pub kind: String,
    /// `info`, `notice`, `warning` or `error`.
    pub severity: String,
    /// The same in words, which may change between versions.
    pub message: String,
    /// What it is about, by kind.
    #[serde(flatten)]
    pub fields: Map<String, Value>,
}

/// Events since a number.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct EventsPage {
    pub events: Vec<EventRecord>,
    /// How many of the daemon's events, of whatever kind, are not remembered any more.
    pub missed: u64,
    /// What to ask for next.
    pub last: u64,
}

/// What stands for events that are not remembered.
#[derive(Serialize)]
struct Gap {
    missed: u64,
}

impl EventRecord {
    /// The field of that name as text.
    #[must_use]
    pub fn text(&self, field: &str) -> Option<&str> {
        self.fields.get(field)?.as_str()
    }

    fn line(&self) -> String {
        let Self {
            seq: _,
            time,
            kind,
            severity,
            message,
            fields: _,
        } = self;
        // Some of it may be what a server or a program has said.
        let message = message.replace(char::is_control, " ");
        format!("{time}  {severity:7}  {kind:18}  {message}\n")
    }
}

impl EventsPage {
    /// A line for each event.
    #[must_use]
    pub fn lines(&self) -> String {
        let missed = match self.missed {
            0 => String::new(),
            missed => format!("({missed} events are not remembered any more)\n"),
        };
        let lines = self.events.iter().map(EventRecord::line);
        std::iter::once(missed).chain(lines).collect()
    }

    /// The same as JSON.
    ///
    /// # Errors
    ///
    /// If a value has no JSON form.
    pub fn json_lines(&self) -> anyhow::Result<String> {
        let mut text = String::new();
        if self.missed > 0 {
            let missed = self.missed;
            text += &output::json(&Gap { missed })?;
        }
        for event in &self.events {
            text += &output::json(event)?;
        }
        Ok(text)
    }

    /// Writes them to stdout, as lines or JSON.
    ///
    /// # Errors
    ///
    /// If that fails, or a value has no JSON form.
    pub fn print(&self, is_json: bool) -> anyhow::Result<Reader> {
        let text = if is_json {
            self.json_lines()?
        } else {
            self.lines()
        };
        if text.is_empty() {
            return Ok(Reader::There);
        }
        output::print(&text)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{EventRecord, EventsPage, Query, Since};

    #[test]
    fn following_goes_on_where_the_last_answer_ended() {
        let filters = [
            ("kind", Some("a,b")),
            ("severity", None),
            ("service", Some("m/q")),
        ];
        let query = Query {
            since: Some(Since::Ago(Duration::from_secs(90))),
            filters: &filters,
        };
        let filter = "&kind=a%2Cb&service=m%2Fq";
        let first = format!("/v1/events?wait=0&seconds=90{filter}");
        assert_eq!(query.first_route(), first);
        let next = format!("/v1/events?since=7&wait=5{filter}");
        assert_eq!(query.next_route(7), next);
    }

    #[test]
    fn an_event_is_one_line_and_what_is_forgotten_another() {
        let event = EventRecord {
            seq: 1,
            time: "2026-11-27T11:41:04.000Z".to_owned(),
            kind: "stopping".to_owned(),
            severity: "notice".to_owned(),
            message: "tidegate\nstops".to_owned(),
            fields: serde_json::Map::new(),
        };
        let mut page = EventsPage {
            events: vec![event],
            missed: 0,
            last: 1,
        };
        let line = "2026-11-27T11:41:04.000Z  notice   stopping            tidegate stops\n";
        assert_eq!(page.lines(), line);
        page.missed = 7;
        let expected = format!("(7 events are not remembered any more)\n{line}");
        assert_eq!(page.lines(), expected);
        let json = page.json_lines().unwrap();
        assert!(json.starts_with("{\"missed\":7}\n{\"seq\":1,"), "{json}");
    }
}
