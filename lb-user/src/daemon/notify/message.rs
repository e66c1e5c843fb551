//! What is told, in the form that each way of telling needs.

use serde_json::{Value, json};

use crate::{control::EventRecord, core::notify::Delivery};

/// Something to tell.
pub(super) enum Message {
    Event(EventRecord),
    HeldBack(u64),
}

impl Message {
    pub(super) fn of(delivery: &Delivery) -> Self {
        match delivery {
            Delivery::Event(record) => Self::Event(EventRecord::from(&**record)),
            Delivery::HeldBack(count) => Self::HeldBack(*count),
        }
    }

    /// One line: the event as `tidegate events --json` has it, and the host that it happened on.
    pub(super) fn json(&self) -> String {
        let mut value = match self {
            Self::Event(event) => json!(event),
            Self::HeldBack(count) => json!({
                "kind": "held_back", "severity": "notice", "count": count, "message": self.sentence(),
            }),
        };
        value["host"] = json!(host());
        value.to_string()
    }

    /// What happened, in words.
    fn sentence(&self) -> String {
        match self {
            Self::Event(event) => event.message.clone(),
            Self::HeldBack(1) => "1 more event was held back, see `tidegate events`".to_owned(),
            Self::HeldBack(count) => {
                format!("{count} more events were held back, see `tidegate events`")
            }
        }
    }

    /// One line, whatever others have put into the sentence.
    pub(super) fn subject(&self) -> String {
        let sentence = self.sentence().replace(char::is_control, " ");
        format!("[tidegate {}] {sentence}", host())
    }

    /// The text of an e-mail.
    pub(super) fn body(&self) -> String {
        let mut text = format!("{}\n\nHost: {}\n", self.sentence(), host());
        if let Self::Event(event) = self {
            let EventRecord {
                seq,
                time,
                kind,
                severity,
                message: _,
                fields,
            } = event;
            text += &format!("Time: {time}\nSeverity: {severity}\nKind: {kind}\nNumber: {seq}\n");
            for (name, value) in fields {
                text += &format!("{name}: {}\n", plain(value));
            }
        }
        text
    }

    /// The variables that a program gets: one for each field.
    pub(super) fn environment(&self) -> Vec<(String, String)> {
        let variable = |name: &str, value: String| {
            // No variable can have a zero in it.
            let value = value.replace('\0', " ");
            (format!("TIDEGATE_{}", name.to_uppercase()), value)
        };
        let mut all = vec![
            variable("host", host()),
            variable("message", self.sentence()),
        ];
        match self {
            Self::Event(event) => {
                all.push(variable("seq", event.seq.to_string()));
                all.push(variable("time", event.time.clone()));
                all.push(variable("kind", event.kind.clone()));
                all.push(variable("severity", event.severity.clone()));
                let fields = event.fields.iter();
                all.extend(fields.map(|(name, value)| variable(name, plain(value))));
                if let Some(state) = self.keepalived_state() {
                    all.push(variable("state", state.to_owned()));
                }
            }
            Self::HeldBack(count) => {
                all.push(variable("kind", "held_back".to_owned()));
                all.push(variable("severity", "notice".to_owned()));
                all.push(variable("count", count.to_string()));
            }
        }
        all
    }

    /// `INSTANCE NAME STATE PRIORITY`; nothing for what is no change of role.
    pub(super) fn keepalived_arguments(&self) -> Vec<String> {
        let Self::Event(event) = self else {
            return Vec::new();
        };
        let parts = (self.keepalived_state(), event.text("router"));
        let (Some(state), Some(router)) = parts else {
            return Vec::new();
        };
        let priority = event.fields.get("priority").map(plain).unwrap_or_default();
        let words = ["INSTANCE", router, state, &priority];
        words.map(str::to_owned).into()
    }

    /// What keepalived calls the role that a router has come to.
    fn keepalived_state(&self) -> Option<&'static str> {
        let Self::Event(event) = self else {
            return None;
        };
        if event.kind != "role_changed" {
            return None;
        }
        match (event.text("to")?, event.text("cause")?) {
            ("active", _) => Some("MASTER"),
            ("backup", "fault") => Some("FAULT"),
            ("backup", _) => Some("BACKUP"),
            _ => Some("STOP"),
        }
    }
}

/// A field as people write it.
fn plain(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Null => String::new(),
        Value::Array(values) => {
            let values: Vec<String> = values.iter().map(plain).collect();
            values.join(" ")
        }
        Value::Bool(_) | Value::Number(_) | Value::Object(_) => value.to_string(),
    }
}

fn host() -> String {
    let name = rustix::system::uname();
    name.nodename().to_string_lossy().into_owned()
}
