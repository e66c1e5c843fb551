//! Events as daemons tell them: the JSON of `GET /v1/events`, and the lines of `events`.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::output;

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
}

#[cfg(test)]
mod tests {
    use super::{EventRecord, EventsPage};

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
