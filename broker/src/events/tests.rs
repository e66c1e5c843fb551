use super::*;

fn lost(node: &str) -> Event {
    Event::NodeLost {
        node: node.into(),
        cause: "it was silent for too long".to_owned(),
    }
}

fn noise() -> Event {
    Event::StrangerRefused {
        host: IpAddr::from([10, 0, 0, 9]),
        cause: "no".to_owned(),
    }
}

#[test]
fn an_event_is_one_flat_object_with_its_own_fields() {
    let mut ring = Ring::new(7);
    ring.push(&lost("b"), 0);
    let page = ring.since(0, &Wanted::default());
    let json = serde_json::to_value(&page.events[0]).unwrap();
    let expected = serde_json::json!({
        "seq": 7, "time": "1970-01-01T00:00:00.000Z", "kind": "node_lost", "severity": "error",
        "message": "node b is gone: it was silent for too long",
        "node": "b", "cause": "it was silent for too long",
    });
    assert_eq!(json, expected);
    ring.push(&Event::Stopping {}, 0);
    let page = ring.since(page.last, &Wanted::default());
    assert!(page.events[0].fields.is_empty(), "{page:?}");
}

#[test]
fn whoever_asks_too_late_is_told_how_many_are_forgotten() {
    let mut ring = Ring::new(100);
    assert_eq!(ring.since(0, &Wanted::default()).missed, 0);
    for number in 0..DEPTH as u64 + 7 {
        ring.push(&lost("b"), number);
    }
    let page = ring.since(0, &Wanted::default());
    assert_eq!((page.events.len(), page.missed), (DEPTH, 7));
    assert_eq!(page.events[0].seq, 107);
    let recent = Wanted {
        from: DEPTH as u64,
        ..Wanted::default()
    };
    let recent = ring.since(0, &recent);
    assert_eq!((recent.events.len(), recent.missed), (7, 0));
    let next = ring.push(&Event::Stopping {}, 6);
    let rest = ring.since(page.last, &Wanted::default());
    assert_eq!((rest.events.len(), rest.missed), (1, 0));
    assert_eq!((rest.events[0].seq, rest.last), (next, next));
    assert_eq!(ring.since(u64::MAX, &Wanted::default()).missed, 0);
}

#[test]
fn flood_of_what_strangers_cause_pushes_out_nothing_else() {
    let mut ring = Ring::new(1);
    ring.push(&lost("b"), 0);
    for _ in 0..10 * DEPTH {
        ring.push(&noise(), 0);
    }
    let important = Wanted {
        least: Some(Severity::Warning),
        ..Wanted::default()
    };
    assert_eq!(ring.since(0, &important).events[0].kind, "node_lost");
    let all = ring.since(0, &Wanted::default());
    assert_eq!(all.events.len(), 1 + NOISE_DEPTH);
    let kinds = Wanted {
        kinds: vec!["stranger_refused".to_owned()],
        ..Wanted::default()
    };
    assert_eq!(ring.since(0, &kinds).events.len(), NOISE_DEPTH);
}

/// One of each kind.
fn all() -> [Event; KINDS.len()] {
    let host = IpAddr::from([10, 0, 0, 9]);
    let (node, cause) = (|| "b".into(), || "why".to_owned());
    let (clients, rate, sent) = (9, 5, 4);
    [
        Event::Started { version: "1" },
        Event::Stopping {},
        Event::Reloaded {
            needs_restart: vec!["node".to_owned()],
        },
        Event::ReloadRefused { error: cause() },
        Event::NodeJoined {
            node: node(),
            address: "10.0.0.2:7883".to_owned(),
        },
        Event::NodeLeft {
            node: node(),
            cause: cause(),
        },
        lost("b"),
        Event::NodeUnreachable {
            address: "broker2:7883".into(),
            trouble: "why".into(),
        },
        Event::NodeRefused {
            host,
            cause: cause(),
        },
        noise(),
        Event::ClusterLeft {},
        Event::Evacuating { clients, rate },
        Event::Rebalancing {
            clients,
            keep: 5,
            rate,
        },
        Event::Evacuated { sent },
        Event::Rebalanced { sent },
        Event::Welcoming {},
    ]
}

#[test]
fn each_kind_has_its_name_and_a_sentence_and_no_field_of_the_form() {
    let form = ["seq", "time", "kind", "severity", "message"];
    for (event, kind) in all().iter().zip(KINDS) {
        assert_eq!(event.kind(), kind);
        assert!(event.to_string().len() > 10, "{event:?}");
        let fields = serde_json::to_value(event).unwrap();
        let fields = fields.as_object().unwrap();
        assert!(form.iter().all(|name| !fields.contains_key(*name)));
    }
}

#[tokio::test]
async fn those_who_wait_are_woken() {
    let events = Events::default();
    let mut last = events.last();
    let before = *last.borrow_and_update();
    events.tell(&Event::Stopping {});
    last.changed().await.unwrap();
    assert_eq!(*last.borrow(), before + 1);
    assert_eq!(events.since(before, &Wanted::default()).events.len(), 1);
}
