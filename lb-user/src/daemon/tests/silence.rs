//! Backends that say nothing: because they are dead, or because this host hears nobody.

use std::{collections::BTreeMap, time::Duration};

use lb_common::{
    abi::{BackendId, Flow, FlowKey, FlowState, Ip, KeepAlive, PROTOCOL_TCP, Tick},
    flow::HashKeys,
};

use super::{CONFIG, FakeMaps, config, fail, key, refuse, running, succeed, up_with};
use crate::{
    control::{BackendStatus, Change, Health},
    core::{
        balancer::Admin,
        flows::{Fate, Judge, Place},
        health::Question,
        vrrp::node::Backing,
    },
    daemon::engine::Engine,
    io::probe::{ProbeFailure, Stage},
};

fn fall_silent(engine: &mut Engine<FakeMaps>, name: &str, number: u64, answered: u64) {
    let timed_out = ProbeFailure::TimedOut {
        after: Duration::from_secs(1),
        stage: Stage::Connect,
    };
    let question = Question { number, answered };
    engine.handle_probe(&key(name), question, Err(timed_out));
    engine.reconcile();
}

fn status(engine: &Engine<FakeMaps>, name: &str) -> BackendStatus {
    engine.backend_status(&key(name)).unwrap()
}

/// The ids in use and their epochs.
fn epochs(engine: &Engine<FakeMaps>) -> BTreeMap<BackendId, u16> {
    let backends = engine.maps.backends.iter();
    backends
        .map(|(id, backend)| (*id, backend.epoch()))
        .collect()
}

#[test]
fn silence_of_all_changes_nothing_however_long_it_lasts() {
    let mut engine = up_with(config(&CONFIG.replace("\"dsr\"", "\"nat\"")));
    let before = engine.image.clone();
    let epoch = epochs(&engine)[&BackendId(0)];
    for number in 0..20 {
        for name in ["a", "b"] {
            fall_silent(&mut engine, name, 10 + number, 5);
            assert_eq!(engine.image, before);
        }
    }
    for name in ["a", "b"] {
        let BackendStatus {
            held,
            health,
            reason,
            ..
        } = status(&engine, name);
        assert_eq!((held, health), (true, Health::Up));
        assert_eq!(reason.as_deref(), Some("timed out after 1s in connect"));
    }
    assert_eq!(engine.services_down().count(), 0);
    engine.maps.now = Tick(1_000);
    assert_eq!(fate(&engine, epoch), Fate::Stays);
    for name in ["a", "b"] {
        succeed(&mut engine, name);
        engine.reconcile();
    }
    assert_eq!(engine.image, before);
    assert!(!status(&engine, "a").held);
}

/// What stands behind the address, as virtual routers are told.
fn backing(engine: &Engine<FakeMaps>) -> Backing {
    engine.backing().into_values().next().unwrap()
}

#[test]
fn who_hears_nobody_has_silent_backends_until_one_answers() {
    let mut engine = running();
    assert_eq!(backing(&engine), Backing::Sound);
    for number in 0..5 {
        fall_silent(&mut engine, "a", 10 + number, 5);
    }
    assert_eq!(backing(&engine), Backing::Sound, "b has not been asked");
    for number in 0..5 {
        fall_silent(&mut engine, "b", 20 + number, 5);
    }
    assert_eq!(backing(&engine), Backing::Silent);
    succeed(&mut engine, "a");
    assert_eq!(backing(&engine), Backing::Sound);
}

#[test]
fn one_that_is_held_beside_others_that_are_down_is_silent_and_one_alone_is_too() {
    let mut engine = running();
    fail(&mut engine, "a", 2);
    assert_eq!(backing(&engine), Backing::Sound);
    for number in 0..5 {
        fall_silent(&mut engine, "b", 10 + number, 5);
    }
    assert_eq!(backing(&engine), Backing::Silent);
    fail(&mut engine, "b", 2);
    assert_eq!(backing(&engine), Backing::Nobody);
}

#[test]
fn a_router_is_told_of_the_share_of_its_backends_that_is_up() {
    let router = "[[vrrp]]\nname = \"front\"\nvrid = 51\nvips = [\"172.16.40.24\"]\n\
                  track = [{ name = \"share\", backends_up = 50, weight = -9 }]\n";
    assert!(running().shares().is_empty(), "nobody depends on it");
    let mut engine = up_with(config(&format!("{CONFIG}\n{router}")));
    let share = |engine: &Engine<FakeMaps>| {
        let share = engine.shares()["front"];
        [share.up, share.down, share.unknown]
    };
    assert_eq!(share(&engine), [2, 0, 0]);
    fail(&mut engine, "a", 2);
    assert_eq!(share(&engine), [1, 1, 0]);
    // Silence is told otherwise.
    for number in 0..5 {
        fall_silent(&mut engine, "b", 10 + number, 5);
    }
    assert_eq!(share(&engine), [1, 1, 0]);
    engine.handle_change(&key("a"), Change::Admin(Admin::Draining));
    assert_eq!(share(&engine), [1, 0, 0]);
    let other = format!("{CONFIG}\n{router}").replace("172.16.40.21", "172.16.40.22");
    engine.handle_config(config(&other));
    assert_eq!(share(&engine), [0, 0, 1]);
}

#[test]
fn who_is_not_asked_is_not_silent() {
    let check = CONFIG.lines().find(|line| line.starts_with("check"));
    let unasked = CONFIG.replace(check.unwrap(), "check = { type = \"none\" }");
    assert_eq!(backing(&up_with(config(&unasked))), Backing::Sound);
}

#[test]
fn silent_backend_goes_down_among_others_that_answer_be_it_with_a_refusal() {
    let mut engine = running();
    fall_silent(&mut engine, "a", 10, 9);
    refuse(&mut engine, "b");
    fall_silent(&mut engine, "a", 12, 11);
    assert!(!status(&engine, "a").held);
    succeed(&mut engine, "b");
    fall_silent(&mut engine, "a", 14, 13);
    assert_eq!(status(&engine, "a").health, Health::Down);
    assert_eq!(status(&engine, "b").health, Health::Up);
    assert_eq!(epochs(&engine).len(), 1);
}

#[test]
fn refusals_take_a_backend_down_while_others_are_held() {
    let mut engine = running();
    for number in 0..5 {
        fall_silent(&mut engine, "b", 10 + number, 5);
    }
    assert!(status(&engine, "b").held);
    fail(&mut engine, "a", 2);
    assert_eq!(status(&engine, "a").health, Health::Down);
    assert!(status(&engine, "b").held);
}

#[test]
fn backend_that_returns_within_a_minute_is_who_it_was() {
    let mut engine = up_with(config(&CONFIG.replace("\"dsr\"", "\"nat\"")));
    let before = epochs(&engine);
    let fate = |engine: &Engine<FakeMaps>| fate(engine, before[&BackendId(0)]);
    assert_eq!(fate(&engine), Fate::Stays);
    fail(&mut engine, "a", 2);
    assert_eq!(epochs(&engine).len(), 1);
    engine.maps.now = Tick(50);
    assert_eq!(fate(&engine), Fate::Stays);
    succeed(&mut engine, "a");
    engine.reconcile();
    assert_eq!(
        (epochs(&engine), fate(&engine)),
        (before.clone(), Fate::Stays)
    );

    fail(&mut engine, "a", 2);
    engine.maps.now = Tick(150);
    assert_eq!(fate(&engine), Fate::Over);
    succeed(&mut engine, "a");
    engine.reconcile();
    assert_ne!(epochs(&engine), before);
}

#[test]
fn backend_that_is_disabled_gives_up_its_records_at_once() {
    let mut engine = running();
    let before = epochs(&engine);
    for admin in [Admin::Disabled, Admin::Enabled] {
        engine.handle_change(&key("a"), Change::Admin(admin));
        engine.reconcile();
    }
    assert_ne!(epochs(&engine), before);
}

/// What a walk says of a flow that was recorded for backend 0 of that epoch at tick 0.
fn fate(engine: &Engine<FakeMaps>, epoch: u16) -> Fate {
    let sight = engine.sights().borrow().clone();
    let judge = Judge::new(&sight, HashKeys::zero(), engine.maps.now, true);
    judge.fate(Place::Established, &client(), &record(epoch)).0
}

fn client() -> FlowKey {
    let (client, vip) = (Ip::from_v4([10, 1, 0, 1]), Ip::from_v4([172, 16, 40, 24]));
    FlowKey::new(client, vip, 40_000, 1883, PROTOCOL_TCP)
}

fn record(epoch: u16) -> Flow {
    Flow {
        backend: 0,
        epoch,
        seen: 0,
        middle: [0; 4],
        nat_source: 0,
        state: FlowState::Established as u8,
        keep_alive: KeepAlive::NONE,
    }
}

#[test]
fn held_backend_that_is_taken_off_the_configuration_is_forgotten() {
    let mut engine = up_with(config(CONFIG));
    for number in 0..5 {
        fall_silent(&mut engine, "b", 10 + number, 5);
    }
    let other = CONFIG.replace("172.16.40.21", "172.16.40.22");
    engine.handle_config(config(&other));
    engine.reconcile();
    assert!(!status(&engine, "b").held);
    assert_eq!(status(&engine, "b").health, Health::Unknown);
}
