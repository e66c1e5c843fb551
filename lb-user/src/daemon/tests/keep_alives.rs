//! What clients claim of their keep-alive: how far it is believed, and who is told.

use super::{draining::walk, *};
use crate::core::settle::Sessions;

const HOUR: Duration = Duration::from_secs(3_600);
/// The most that fits into a CONNECT.
const CLAIM: Duration = Duration::from_secs(65_535);

fn mqtt(more: &str) -> String {
    let protocol = format!("protocol = \"mqtt\"\nport = 1883\n{more}");
    CONFIG.replace("port = 1883", &protocol)
}

/// An engine whose service had a CONNECT that claims this.
fn claimed(text: &str, claim: Duration) -> Engine<FakeMaps> {
    let mut engine = up_with(config(text));
    let id = engine.image.services.values().next().unwrap().id;
    engine.maps.keep_alives.insert(id, claim);
    engine
}

/// The window of a change that is made now.
fn window(engine: &mut Engine<FakeMaps>) -> Duration {
    engine.handle_change(&key("a"), Change::Weight(2));
    engine.reconcile();
    engine.image.services.values().next().unwrap().window
}

#[test]
fn a_claim_widens_windows_up_to_what_the_configuration_allows() {
    for (more, claim, expected) in [
        ("", Duration::from_secs(60), HOUR / 2),
        ("", HOUR / 2, HOUR * 3 / 4),
        // Twice the keep-alive, unless told otherwise.
        ("", CLAIM, HOUR),
        ("keep_alive = \"1h\"", CLAIM, HOUR * 3),
        ("keep_alive_max = \"20m\"", CLAIM, HOUR / 2),
        ("keep_alive_max = \"1h\"", CLAIM, HOUR * 3 / 2),
        ("keep_alive_max = \"1d\"", CLAIM, CLAIM * 3 / 2),
    ] {
        let mut engine = claimed(&mqtt(more), claim);
        assert_eq!(window(&mut engine), expected, "{more} and {claim:?}");
    }
}

#[test]
fn a_claim_means_nothing_to_a_service_whose_payload_is_not_read() {
    let mut engine = claimed(CONFIG, CLAIM);
    assert_eq!(window(&mut engine), HOUR / 2);
}

#[test]
fn a_claim_beyond_that_is_told_once_and_again_when_it_has_doubled() {
    let mut engine = claimed(&mqtt(""), HOUR * 2 / 3);
    let id = engine.image.services.values().next().unwrap().id;
    assert_eq!(engine.new_claims(), []);
    for claim in [HOUR, HOUR * 2, CLAIM] {
        engine.maps.keep_alives.insert(id, claim);
        assert_eq!(engine.new_claims(), [("mqtt".to_owned(), claim)]);
        engine.maps.keep_alives.insert(id, claim * 3 / 2);
        assert_eq!(engine.new_claims(), []);
    }
    engine.maps.keep_alives.insert(id, CLAIM);
    let mqtt = engine.services()[0].mqtt.clone().unwrap();
    assert_eq!(mqtt.keep_alive_max_seconds, Some(2_400));
    assert_eq!(mqtt.excessive_keep_alive_seconds(), Some(65_535));
}

#[test]
fn a_walk_over_the_flow_tables_is_when_claims_are_looked_at() {
    let mut engine = claimed(&mqtt(""), CLAIM);
    let findings = walk(&engine, Sessions::default());
    engine.handle_findings(findings);
    assert_eq!(engine.new_claims(), []);
}

#[test]
fn a_claim_where_no_slot_learns_is_not_told() {
    let nat = mqtt("").replace("\"dsr\"", "\"nat\"");
    let mut engine = claimed(&nat, CLAIM);
    assert_eq!(engine.new_claims(), []);
    let mqtt = engine.services()[0].mqtt.clone().unwrap();
    assert_eq!(mqtt.excessive_keep_alive_seconds(), None);
}

#[test]
fn who_gets_the_id_of_another_service_inherits_no_claim() {
    let text = mqtt("");
    let mut engine = claimed(&text, CLAIM);
    let before = engine.image.services.values().next().unwrap().id;
    assert_eq!(engine.new_claims().len(), 1);
    let other = text.replace("port = 1883", "port = 1884");
    // Ids are given out in turn: with the second move the first is had again.
    for text in [&other, &text] {
        engine.handle_config(config(text));
        engine.reconcile();
        for name in ["a", "b"] {
            succeed(&mut engine, name);
        }
        engine.reconcile();
    }
    assert_eq!(engine.image.services.values().next().unwrap().id, before);
    assert_eq!(engine.new_claims(), []);
    assert_eq!(window(&mut engine), HOUR / 2);
    engine.maps.keep_alives.insert(before, HOUR);
    assert_eq!(engine.new_claims(), [("mqtt".to_owned(), HOUR)]);
}
