//! What becomes of learning windows when there was no room to record flows for a while.

use super::{draining::walk, *};
use crate::core::{
    settle::{Findings, Sessions},
    slots::State,
};

/// A walk that finds room, or none.
fn look(engine: &mut Engine<FakeMaps>, now: u32, has_room: bool) {
    engine.maps.now = Tick(now);
    let found = walk(engine, Sessions::default());
    engine.handle_findings(Findings { has_room, ..found });
    engine.reconcile();
}

fn until(engine: &Engine<FakeMaps>) -> Option<Tick> {
    let service = engine.image.services.values().next().unwrap();
    service.table.holds.until()
}

fn window(engine: &Engine<FakeMaps>) -> Duration {
    engine.image.services.values().next().unwrap().window
}

/// An engine at 100 whose slots are at risk until some moment, and which then had no room.
fn full() -> (Engine<FakeMaps>, Tick) {
    let mut engine = running();
    engine.maps.now = Tick(100);
    engine.handle_change(&key("a"), Change::Weight(3));
    engine.reconcile();
    let end = until(&engine).expect("slots at risk");
    assert_eq!(end, Tick(100).after(window(&engine)));
    look(&mut engine, 101, false);
    (engine, end)
}

#[test]
fn windows_do_not_end_without_room_and_begin_once_more_with_it() {
    let (mut engine, end) = full();
    look(&mut engine, end.0 + 7, false);
    assert_eq!(until(&engine), Some(end));
    let returned = end.0 + 20;
    look(&mut engine, returned, true);
    let begun = Tick(returned).after(window(&engine));
    assert_eq!(until(&engine), Some(begun));
    look(&mut engine, begun.0 - 1, true);
    assert_eq!(until(&engine), Some(begun));
    look(&mut engine, begun.0, true);
    assert_eq!(until(&engine), None);
}

#[test]
fn another_process_goes_on_with_the_windows_that_have_begun() {
    let (mut engine, _) = full();
    look(&mut engine, 150, true);
    let begun = Tick(150).after(window(&engine));
    let mut other = running();
    other.maps = std::mem::take(&mut engine.maps);
    other.go_on_with(engine.image.clone(), true);
    look(&mut other, begun.0 - 1, true);
    assert_eq!(until(&other), Some(begun));
}

#[test]
fn there_is_no_room_before_the_windows_have_begun() {
    let (mut engine, end) = full();
    engine.maps.good_steps = Some(0);
    look(&mut engine, end.0 + 1, true);
    assert_eq!(until(&engine), Some(end));
    engine.maps.good_steps = None;
    engine.reconcile();
    let returned = end.0 + 2;
    look(&mut engine, returned, true);
    assert_eq!(until(&engine), Some(Tick(returned).after(window(&engine))));
}

#[test]
fn a_window_that_ends_later_anyway_stays_as_it_is() {
    let (mut engine, end) = full();
    look(&mut engine, 100, true);
    assert_eq!(until(&engine), Some(end));
    let service = engine.image.services.values().next().unwrap();
    let mut states = service.table.holds.iter();
    assert!(states.any(|(_, state)| matches!(state, State::AtRisk { .. })));
}
