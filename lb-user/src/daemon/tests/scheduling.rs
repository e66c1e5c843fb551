//! Ramps of backends that return, and counts of flows that walks put right.

use std::time::Duration;

use lb_common::abi::{BackendId, Load};

use super::{CONFIG, FakeMaps, config, key, refuse, succeed, up_with};
use crate::{
    core::{load::Census, settle::Sessions},
    daemon::engine::Engine,
};

fn fail(engine: &mut Engine<FakeMaps>, name: &str) {
    for _ in 0..2 {
        refuse(engine, name);
    }
    engine.reconcile();
}

fn weights(engine: &Engine<FakeMaps>) -> Vec<u16> {
    let backends = engine.maps.backends.values();
    backends.map(lb_common::abi::Backend::weight).collect()
}

#[test]
fn maps_change_with_each_step_of_a_ramp_and_not_between() {
    let text = CONFIG.replace("forward =", "slow_start = \"60s\"\nforward =");
    let mut engine = up_with(config(&text));
    engine.reconcile();
    assert_eq!(weights(&engine), [10, 10]);
    fail(&mut engine, "b");
    succeed(&mut engine, "b");
    engine.reconcile();
    assert_eq!(weights(&engine), [10, 1]);
    let told = |engine: &Engine<FakeMaps>| engine.backend_status(&key("b")).unwrap();
    assert!((told(&engine).effective_weight - 0.1).abs() < 1e-9);
    engine.advance_ramps(Duration::from_secs(7));
    let mut steps = Vec::new();
    for second in 8..80 {
        engine.advance_ramps(Duration::from_secs(second));
        let is_changed = !engine.is_settled();
        engine.reconcile();
        if is_changed {
            steps.push((second, weights(&engine)[1]));
        }
    }
    let expected: Vec<_> = (1..10)
        .map(|step| (7 + 6 * step, step as u16 + 1))
        .collect();
    assert_eq!(steps, expected);
    assert!((told(&engine).share - 0.5).abs() < 0.01);
}

#[test]
fn what_a_walk_has_found_corrects_the_counts_of_who_is_still_there() {
    let text = CONFIG.replace("maglev", "least_conn");
    let mut engine = up_with(config(&text));
    engine.reconcile();
    let census = |live| Census {
        before: Load::new(100, 40),
        after: Load::new(100, 40),
        records: Sessions { live, begun: 0 },
    };
    let image = engine.sights().borrow().image.clone();
    let mut findings = super::draining::walk(&engine, Sessions::default());
    findings.loads = image
        .backends
        .iter()
        .map(|(id, backend)| ((*id, backend.epoch), census(50)))
        .collect();
    engine.handle_findings(findings.clone());
    let corrections = |engine: &Engine<FakeMaps>| {
        let backends = engine.maps.backends.values();
        backends.map(|it| it.correction()).collect::<Vec<_>>()
    };
    assert_eq!(corrections(&engine), [-10, -10]);
    // The walk was by the image of before: whoever had the id then is not who has it now.
    let stale = findings.loads.into_iter();
    let stale = stale.map(|((id, epoch), _)| ((id, epoch + 1), census(0)));
    let mut findings = super::draining::walk(&engine, Sessions::default());
    findings.loads = stale.collect();
    engine.handle_findings(findings);
    assert_eq!(corrections(&engine), [-10, -10]);
    assert!(engine.maps.backends.contains_key(&BackendId(0)));
}

#[test]
fn who_is_full_gets_no_turns_and_keeps_its_slots() {
    let text = CONFIG.replace("maglev", "round_robin");
    let heavy = "name = \"a\", weight = 100, max_connections = 10,";
    let mut engine = up_with(config(&text.replace("name = \"a\",", heavy)));
    let table = |engine: &Engine<FakeMaps>| {
        let service = engine.image.services.values().next().unwrap();
        service.table.clone()
    };
    let before = table(&engine);
    assert_eq!(before.ring.len(), 101);
    let has = |engine: &mut Engine<FakeMaps>, flows| {
        let entry = engine.maps.backends.get_mut(&BackendId(0)).unwrap();
        *entry = entry.with_correction(flows);
        engine.look_for_full();
        let is_changed = !engine.is_settled();
        engine.reconcile();
        is_changed
    };
    assert!(!has(&mut engine, 9));
    assert!(has(&mut engine, 10));
    let now = table(&engine);
    assert_eq!(now.ring, [BackendId(1)]);
    assert_eq!((&now.slots, &now.holds), (&before.slots, &before.holds));
    assert!(!has(&mut engine, 10));
    assert!(has(&mut engine, 9));
    assert_eq!(table(&engine), before);
}
