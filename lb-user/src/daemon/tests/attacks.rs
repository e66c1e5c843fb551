//! Floods of SYNs, access lists, and what the maps hold of them.

use std::time::Duration;

use super::{CONFIG, Engine, FakeMaps, config, running};

/// The test's configuration, with these lines in its service's guard.
fn guarded(lines: &str) -> String {
    CONFIG.replacen("balance =", &format!("guard = {{ {lines} }}\nbalance ="), 1)
}

/// Whether the service's entry in the maps says that clients are challenged.
fn challenges(engine: &Engine<FakeMaps>) -> bool {
    let mut services = engine.maps.services.values();
    services.any(|service| service.challenges())
}

fn look(engine: &mut Engine<FakeMaps>, second: u64, syns: u64) {
    engine.maps.guard.syns += syns;
    engine.look_for_attacks(Duration::from_secs(second));
    engine.reconcile();
}

#[test]
fn a_flood_sets_the_flag_and_its_end_clears_it() {
    let mut engine = running();
    look(&mut engine, 0, 1_000_000);
    look(&mut engine, 1, 100);
    assert!(!challenges(&engine));
    look(&mut engine, 2, 50_000);
    assert!(challenges(&engine));
    assert!(engine.services()[0].guard.is_challenging);
    for second in 3..12 {
        look(&mut engine, second, 100);
        assert!(challenges(&engine), "after {second} s");
    }
    look(&mut engine, 12, 100);
    assert!(!challenges(&engine));
}

#[test]
fn a_reload_can_end_challenges_and_begin_them() {
    let mut engine = running();
    look(&mut engine, 0, 0);
    look(&mut engine, 1, 50_000);
    engine.handle_config(config(&guarded("challenge = \"off\"")));
    engine.reconcile();
    look(&mut engine, 2, 50_000);
    assert!(!challenges(&engine));
    engine.handle_config(config(&guarded("challenge = \"always\"")));
    engine.reconcile();
    look(&mut engine, 3, 0);
    assert!(challenges(&engine));
    engine.handle_config(config(CONFIG));
    engine.reconcile();
    look(&mut engine, 4, 0);
    assert!(!challenges(&engine), "an attack of long ago");
}

#[test]
fn an_access_list_that_failed_half_way_leaves_nothing_behind() {
    for steps in 0..8 {
        let mut engine = running();
        engine.maps.good_steps = Some(steps);
        let first = guarded("deny = [\"10.0.0.0/8\", \"10.1.0.0/16\"], allow = [\"10.2.0.0/16\"]");
        engine.handle_config(config(&first));
        engine.reconcile();
        engine.handle_config(config(&guarded("deny = [\"11.0.0.0/8\"]")));
        engine.reconcile();
        engine.maps.good_steps = None;
        engine.handle_config(config(&guarded("deny = [\"12.0.0.0/8\"]")));
        engine.reconcile();
        let held = engine
            .maps
            .access
            .iter()
            .map(|(_, prefix)| prefix.to_string());
        assert_eq!(Vec::from_iter(held), ["12.0.0.0/8"], "after {steps} steps");
    }
}
