//! Events as the outside gets them.

pub use console::events::{EventRecord, EventsPage};
use console::time::rfc3339;
use serde_json::{Map, Value};

use crate::core::event::ring::{Page, Record};

impl From<&Record> for EventRecord {
    fn from(record: &Record) -> Self {
        let Record {
            seq,
            unix_millis,
            event,
        } = record;
        let fields = match serde_json::to_value(event) {
            Ok(Value::Object(fields)) => fields,
            // Events are structs of plain values.
            Ok(_) | Err(_) => Map::new(),
        };
        Self {
            seq: *seq,
            time: rfc3339(*unix_millis),
            kind: event.kind().to_string(),
            severity: event.severity().to_string(),
            message: event.to_string(),
            fields,
        }
    }
}

impl From<Page> for EventsPage {
    fn from(page: Page) -> Self {
        let records = page.records.iter();
        Self {
            events: records.map(|record| EventRecord::from(&**record)).collect(),
            missed: page.missed,
            last: page.last,
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::EventRecord;
    use crate::core::{
        event::{Event, ring::Record},
        vrrp::role::{Cause, Role},
    };

    #[test]
    fn an_event_is_one_flat_object() {
        let record = Record {
            seq: 7,
            unix_millis: 0,
            event: Event::RoleChanged {
                router: "front".to_owned(),
                from: Role::Active,
                to: Role::Backup,
                cause: Cause::Fault,
                priority: 200,
            },
        };
        let told = EventRecord::from(&record);
        let json = serde_json::to_value(&told).unwrap();
        let expected = json!({
            "seq": 7, "time": "1970-01-01T00:00:00.000Z", "kind": "role_changed",
            "severity": "notice", "message": record.event.to_string(),
            "router": "front", "from": "active", "to": "backup", "cause": "fault", "priority": 200,
        });
        assert_eq!(json, expected);
        assert_eq!(serde_json::from_value::<EventRecord>(json).unwrap(), told);
        assert_eq!(told.text("router"), Some("front"));
    }
}
