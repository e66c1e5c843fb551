use serde_json::json;

use super::{Event, Kind, Moved, Severity};
use crate::core::health::HealthState;
use crate::core::presence::Lack;
use crate::core::vrrp::node::{Fault, Handicap};
use crate::core::vrrp::role::{Cause, Role};

fn role_changed() -> Event {
    Event::RoleChanged {
        router: "front".to_owned(),
        from: Role::Backup,
        to: Role::Active,
        cause: Cause::Silence,
        priority: 100,
    }
}

#[test]
fn fields_are_what_scripts_were_promised() {
    let fields = |event: &Event| serde_json::to_value(event).unwrap();
    assert_eq!(
        fields(&role_changed()),
        json!({"router": "front", "from": "backup", "to": "active", "cause": "silence", "priority": 100})
    );
    let health = Event::BackendHealth {
        service: "mqtt".to_owned(),
        backend: "broker1".to_owned(),
        from: HealthState::Up,
        to: HealthState::Down,
        reason: Some("timed out".to_owned()),
    };
    assert_eq!(
        fields(&health),
        json!({
            "service": "mqtt", "backend": "broker1", "from": "up", "to": "down", "reason": "timed out"
        })
    );
    let faults = Event::RouterFaults {
        router: "front".to_owned(),
        faults: vec![Fault::LinkDown],
    };
    assert_eq!(
        fields(&faults),
        json!({"router": "front", "faults": ["link_down"]})
    );
    let withdrawn = Event::VipWithdrawn {
        vip: [172, 16, 40, 24].into(),
        interface: "eth0".to_owned(),
        lack: Lack::SilentBackends,
        left: false,
    };
    assert_eq!(
        fields(&withdrawn),
        json!({
            "vip": "172.16.40.24", "interface": "eth0", "lack": "silent_backends", "left": false
        })
    );
    assert_eq!(withdrawn.severity(), Severity::Warning);
    assert_eq!(
        withdrawn.to_string(),
        "VIP 172.16.40.24 is withdrawn from eth0: no backend of it answers"
    );
    assert_eq!(fields(&Event::Stopping {}), json!({}));
}

#[test]
fn who_asks_for_a_service_is_told_what_is_about_one() {
    let service = || "mqtt".to_owned();
    let events = [
        role_changed(),
        Event::Stopping {},
        Event::BackendsHeard {},
        Event::ServiceDown { service: service() },
        Event::ServiceUp { service: service() },
        Event::BackendDrained {
            service: service(),
            backend: "broker1".to_owned(),
        },
    ];
    for event in events {
        let kind = event.kind();
        assert_eq!(
            kind.is_about_a_service(),
            event.service().is_some(),
            "{kind:?}"
        );
    }
}

#[test]
fn kinds_are_found_by_their_names() {
    for kind in Kind::ALL {
        assert_eq!(Kind::named(kind.label()), Some(*kind));
    }
    assert_eq!(Kind::named("nosuch"), None);
    assert_eq!(Severity::named("warning"), Some(Severity::Warning));
    assert!(Severity::Info < Severity::Notice && Severity::Warning < Severity::Error);
}

#[test]
fn what_is_over_is_less_severe_than_what_began() {
    let faults = |faults| Event::RouterFaults {
        router: "front".to_owned(),
        faults,
    };
    assert_eq!(faults(vec![Fault::LinkDown]).severity(), Severity::Warning);
    assert_eq!(faults(Vec::new()).severity(), Severity::Notice);
    let moved = |what| Event::VipMoved {
        vip: [172, 16, 40, 24].into(),
        interface: "eth0".to_owned(),
        what,
    };
    assert_eq!(moved(Moved::Assigned).severity(), Severity::Info);
    assert_eq!(moved(Moved::Restored).severity(), Severity::Warning);
}

#[test]
fn words_say_who_what_and_why() {
    let said = role_changed().to_string();
    let expected = "virtual router front is Active, was Backup: the Active was not heard any more (priority 100)";
    assert_eq!(said, expected);
    let failed = |name: Option<&str>, unsaid| Event::LoginFailed {
        name: name.map(str::to_owned),
        address: [192, 0, 2, 1].into(),
        unsaid,
    };
    assert_eq!(
        failed(None, 0).to_string(),
        "wrong name at the login from 192.0.2.1"
    );
    assert_eq!(
        failed(Some("alice"), 2).to_string(),
        "wrong password for alice from 192.0.2.1 (2 more since this was last told)"
    );
    let lowered = Event::RouterPriority {
        router: "front".to_owned(),
        priority: 12,
        lowered_by: vec![Handicap::SilentBackends],
    };
    let expected = "virtual router front has a lower priority, 12: silent_backends";
    assert_eq!(lowered.to_string(), expected);
}
