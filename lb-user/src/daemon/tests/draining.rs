//! When a draining backend is drained.

use std::collections::BTreeMap;

use lb_common::abi::{BackendId, Tick};

use super::{A, FakeMaps, config, key, running, up_with};
use crate::{
    control::{BackendStatus, Change, TraceError, TraceOrder, WhatIf},
    core::{
        balancer::Admin,
        settle::{Findings, Sessions},
    },
    daemon::engine::Engine,
};

/// What a walk that begins now finds, if so many flows of backend a are there.
pub(super) fn walk(engine: &Engine<FakeMaps>, flows: Sessions) -> Findings {
    let image = engine.sights().borrow().image.clone();
    let sessions: BTreeMap<(BackendId, u16), Sessions> = image
        .backends
        .iter()
        .map(|(id, backend)| {
            let is_a = backend.address == A.into();
            let flows = if is_a { flows } else { Sessions::default() };
            ((*id, backend.epoch), flows)
        })
        .collect();
    Findings {
        loads: BTreeMap::new(),
        image,
        started: engine.maps.now,
        complete: true,
        has_room: true,
        strays: BTreeMap::new(),
        sessions,
    }
}

fn live(live: u64) -> Sessions {
    Sessions { live, begun: 0 }
}

fn a(engine: &Engine<FakeMaps>) -> BackendStatus {
    engine.backend_status(&key("a")).unwrap()
}

fn drain_a(engine: &mut Engine<FakeMaps>) {
    engine.handle_change(&key("a"), Change::Admin(Admin::Draining));
    engine.reconcile();
}

#[test]
fn backend_is_not_drained_while_its_sessions_are_being_learned() {
    let mut engine = running();
    assert_eq!(a(&engine).drain, None);
    drain_a(&mut engine);
    engine.handle_findings(walk(&engine, live(0)));
    let status = a(&engine);
    let drain = status.drain.unwrap();
    assert!(!drain.drained && !drain.left_exact && drain.drain_learning_seconds > 1_500);
    assert!(!status.sessions.exact);
    let slots = engine.services()[0].slots;
    assert!(
        slots.at_risk > 0 && slots.learning_seconds > 1_500,
        "{slots:?}"
    );
    assert_eq!(slots.safe + slots.mixed + slots.at_risk, 65_537);
}

#[test]
fn backend_is_drained_when_a_walk_by_the_table_in_force_finds_nothing_of_it() {
    let mut engine = running();
    drain_a(&mut engine);
    engine.maps.now = Tick(10_000);
    let early = walk(&engine, live(0));
    // It ends the learning window, by which another table comes into force.
    engine.handle_findings(early);
    let drain = a(&engine).drain.unwrap();
    assert!(
        !drain.drained && drain.drain_learning_seconds == 0,
        "{drain:?}"
    );

    engine.handle_findings(walk(&engine, live(2)));
    engine.handle_findings(walk(&engine, live(2)));
    let status = a(&engine);
    assert!(
        status.sessions.exact && status.sessions.count == 2,
        "{status:?}"
    );
    assert!(!status.drain.unwrap().drained);

    let begun = Sessions { live: 0, begun: 1 };
    engine.handle_findings(walk(&engine, begun));
    assert!(!a(&engine).drain.unwrap().drained);

    let mut hasty = walk(&engine, live(0));
    hasty.complete = false;
    engine.handle_findings(hasty);
    assert!(!a(&engine).drain.unwrap().drained);

    engine.handle_findings(walk(&engine, live(0)));
    engine.handle_findings(walk(&engine, live(0)));
    assert!(a(&engine).drain.unwrap().drained);
}

#[test]
fn backend_is_drained_when_none_was_left_and_none_has_come_back_meanwhile() {
    let mut engine = up_with(config(&super::CONFIG.replace("\"dsr\"", "\"nat\"")));
    let entry = |engine: &Engine<FakeMaps>| {
        let mut entries = engine.maps.backends.values();
        *entries.find(|entry| *entry.address() == A.into()).unwrap()
    };
    drain_a(&mut engine);
    engine.handle_findings(walk(&engine, live(1)));
    assert!(!entry(&engine).is_emptied());
    let begun_before = walk(&engine, live(0));
    engine.handle_findings(walk(&engine, live(0)));
    assert!(entry(&engine).is_emptied());
    let drain = a(&engine).drain.unwrap();
    assert!(drain.left_exact && drain.left == 0 && !drain.drained);
    engine.handle_findings(begun_before);
    assert!(!a(&engine).drain.unwrap().drained);
    engine.handle_findings(walk(&engine, live(1)));
    assert!(!a(&engine).drain.unwrap().drained, "one had come back");
    engine.handle_findings(walk(&engine, live(0)));
    assert!(a(&engine).drain.unwrap().drained);

    engine.handle_change(&key("a"), Change::Admin(Admin::Enabled));
    engine.reconcile();
    assert!(!entry(&engine).is_emptied(), "it takes new flows again");
}

#[test]
fn backend_that_is_told_to_drain_is_not_drained_before_the_maps_say_so() {
    let mut engine = running();
    engine.handle_findings(walk(&engine, live(0)));
    engine.handle_change(&key("a"), Change::Admin(Admin::Draining));
    assert!(!a(&engine).drain.unwrap().drained);
    engine.maps.good_steps = Some(0);
    engine.reconcile();
    assert!(!a(&engine).drain.unwrap().drained);
}

#[test]
fn nat_counts_its_sessions_and_learns_nothing() {
    let nat = super::CONFIG.replace("\"dsr\"", "\"nat\"");
    let mut engine = up_with(config(&nat));
    engine.handle_findings(walk(&engine, live(3)));
    let status = a(&engine);
    assert!(
        status.sessions.exact && status.sessions.count == 3,
        "{status:?}"
    );
    drain_a(&mut engine);
    assert!(!a(&engine).drain.unwrap().drained);
    engine.handle_findings(walk(&engine, live(1)));
    let drain = a(&engine).drain.unwrap();
    assert!(
        drain.left_exact && drain.left == 1 && !drain.drained,
        "{drain:?}"
    );
    engine.handle_findings(walk(&engine, live(0)));
    engine.handle_findings(walk(&engine, live(0)));
    assert!(a(&engine).drain.unwrap().drained);
}

/// Backend a is taken out of the configuration.
fn take_out_a(engine: &mut Engine<FakeMaps>) {
    let a = "{ name = \"a\", address = \"172.16.40.20\" }, ";
    let without = config(&super::CONFIG.replace(a, ""));
    let successor = engine.successor(without).unwrap();
    engine.handle_config(successor);
    engine.reconcile();
}

#[test]
fn backend_that_is_taken_out_is_there_until_its_last_session_has_ended() {
    let mut engine = running();
    take_out_a(&mut engine);
    assert!(!engine.dismiss_drained(), "its sessions are not known yet");
    let status = a(&engine);
    assert!(status.leaving && status.drain.is_some(), "{status:?}");
    assert_eq!(status.standing(), "leaving");

    engine.maps.now = Tick(10_000);
    // The first ends the learning window, the second is by the table that then comes into force.
    for left in [2, 2, 1] {
        engine.handle_findings(walk(&engine, live(left)));
        engine.reconcile();
        assert!(!engine.dismiss_drained(), "{left} sessions are left");
    }
    engine.handle_findings(walk(&engine, live(0)));
    assert!(!engine.dismiss_drained(), "one may have come back");
    engine.handle_findings(walk(&engine, live(0)));
    assert!(engine.dismiss_drained());
    engine.reconcile();
    assert!(engine.backend_status(&key("a")).is_none());
    assert_eq!(engine.maps.backends.len(), 1);
    assert!(!engine.dismiss_drained());
}

#[test]
fn backend_that_is_drained_when_it_is_taken_out_is_gone_at_once() {
    let mut engine = running();
    drain_a(&mut engine);
    engine.maps.now = Tick(10_000);
    for _ in 0..4 {
        engine.handle_findings(walk(&engine, live(0)));
    }
    assert!(a(&engine).drain.unwrap().drained);
    take_out_a(&mut engine);
    assert!(engine.backend_status(&key("a")).is_none());
}

#[test]
fn backend_that_dies_while_it_leaves_is_gone() {
    let mut engine = running();
    take_out_a(&mut engine);
    super::fail(&mut engine, "a", 2);
    assert!(engine.dismiss_drained());
    assert!(engine.backend_status(&key("a")).is_none());
}

#[test]
fn backend_that_is_cut_off_while_it_leaves_is_gone() {
    let mut engine = running();
    take_out_a(&mut engine);
    engine.handle_findings(walk(&engine, live(3)));
    assert!(!engine.dismiss_drained());
    engine.handle_change(&key("a"), Change::Admin(Admin::Disabled));
    engine.reconcile();
    assert!(engine.dismiss_drained());
    engine.reconcile();
    assert!(engine.backend_status(&key("a")).is_none());
    // What was said of it does not meet it when it comes back.
    engine.handle_config(config(super::CONFIG));
    engine.reconcile();
    assert_eq!(a(&engine).standing(), "enabled");
}

/// Neither would change anything, and an answer would say that of the change.
#[test]
fn of_who_leaves_it_can_only_be_supposed_that_it_goes_down() {
    let mut engine = running();
    take_out_a(&mut engine);
    let ask = |what_if| {
        let order = TraceOrder {
            client: [10, 0, 0, 1].into(),
            port: Some(40_000),
            service: None,
            what_if: vec![what_if],
        };
        engine.trace(&order, 1)
    };
    let backend = "a".to_owned();
    for what_if in [
        WhatIf::Drained(backend.clone()),
        WhatIf::Weight {
            backend: backend.clone(),
            weight: 3,
        },
    ] {
        let error = ask(what_if).unwrap_err();
        assert!(matches!(error, TraceError::Leaving { .. }), "{error}");
    }
    assert!(ask(WhatIf::Down(backend)).is_ok());
}

#[test]
fn nobody_leaves_while_the_maps_do_not_hold_what_is_wanted() {
    let mut engine = running();
    engine.maps.good_steps = Some(0);
    take_out_a(&mut engine);
    super::fail(&mut engine, "a", 2);
    assert!(!engine.dismiss_drained());
}
