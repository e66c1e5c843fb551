//! What becomes of the tables of a node that has no clients.

use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv4Addr},
};

use super::{A, B, FakeMaps, config, fail, next_hop, succeed};
use crate::{
    config::model::Config, core::admin::AdminState, daemon::engine::Engine, journal::Journal,
};

const C: IpAddr = IpAddr::V4(Ipv4Addr::new(172, 16, 40, 22));

fn vip() -> IpAddr {
    IpAddr::from([172, 16, 40, 24])
}

fn come(engine: &mut Engine<FakeMaps>, name: &str, address: IpAddr) {
    for _ in 0..2 {
        succeed(engine, name);
    }
    engine.handle_next_hop(address, next_hop(1), 1500);
    engine.reconcile();
}

/// A node whose backends come one after the other, which has the address or not.
fn started(absent: BTreeSet<IpAddr>) -> Engine<FakeMaps> {
    let config = config(super::CONFIG);
    let mut engine = Engine::new(
        config,
        AdminState::default(),
        FakeMaps::default(),
        Journal::default(),
    );
    engine.handle_absent(absent);
    come(&mut engine, "a", A);
    come(&mut engine, "b", B);
    engine
}

fn at_risk(engine: &Engine<FakeMaps>) -> u64 {
    engine.services()[0].slots.at_risk
}

#[test]
fn backends_that_come_one_after_the_other_are_as_if_all_had_been_there() {
    let fresh = started([vip()].into());
    assert_eq!(at_risk(&fresh), 0);
    let mut both = Engine::new(
        config(super::CONFIG),
        AdminState::default(),
        FakeMaps::default(),
        Journal::default(),
    );
    both.handle_next_hop(A, next_hop(1), 1500);
    both.handle_next_hop(B, next_hop(1), 1500);
    for name in ["a", "b"] {
        succeed(&mut both, name);
    }
    both.reconcile();
    let table = |engine: &Engine<FakeMaps>| {
        let service = engine.image.services.values().next().unwrap();
        service.table.slots.clone()
    };
    assert_eq!(table(&fresh), table(&both));
}

#[test]
fn a_node_is_fresh_until_each_backend_was_found_up_or_down() {
    let mut engine = Engine::new(
        config(super::CONFIG),
        AdminState::default(),
        FakeMaps::default(),
        Journal::default(),
    );
    engine.handle_absent([vip()].into());
    come(&mut engine, "a", A);
    assert!(engine.is_fresh(vip()), "b may be up for others");
    fail(&mut engine, "b", 2);
    engine.reconcile();
    assert!(!engine.is_fresh(vip()), "b is down");
    assert!(!engine.is_fresh(IpAddr::from([172, 16, 40, 25])));
}

#[test]
fn sessions_of_a_node_that_has_the_address_are_learned() {
    assert_ne!(at_risk(&started(BTreeSet::new())), 0);
}

#[test]
fn who_once_had_the_address_learns_until_all_backends_were_gone() {
    let mut engine = started(BTreeSet::new());
    engine.handle_absent([vip()].into());
    fail(&mut engine, "a", 2);
    come(&mut engine, "a", A);
    assert_ne!(at_risk(&engine), 0, "its sessions may be there");
    fail(&mut engine, "a", 2);
    fail(&mut engine, "b", 2);
    come(&mut engine, "a", A);
    come(&mut engine, "b", B);
    assert_eq!(at_risk(&engine), 0);
}

/// The usual configuration with a third backend.
fn with_c() -> Config {
    let (b, c) = (
        "172.16.40.21\" }",
        "{ name = \"c\", address = \"172.16.40.22\" }",
    );
    config(&super::CONFIG.replace(b, &format!("{b}, {c}")))
}

/// Its peer, which has the clients, does the same.
#[test]
fn a_backend_that_is_added_to_a_backup_is_learned_as_usual() {
    let mut engine = started([vip()].into());
    engine.handle_config(with_c());
    engine.reconcile();
    come(&mut engine, "c", C);
    assert_ne!(at_risk(&engine), 0);
}

#[test]
fn one_that_is_down_from_the_start_is_waited_for_until_it_is_found_so() {
    let start = |refusals| {
        let mut engine = Engine::new(
            with_c(),
            AdminState::default(),
            FakeMaps::default(),
            Journal::default(),
        );
        engine.handle_absent([vip()].into());
        come(&mut engine, "a", A);
        come(&mut engine, "b", B);
        fail(&mut engine, "c", refusals);
        come(&mut engine, "c", C);
        engine
    };
    assert_eq!(at_risk(&start(1)), 0, "nothing was said of it yet");
    assert_ne!(at_risk(&start(2)), 0);
}

#[test]
fn those_that_all_were_gone_may_return_one_after_the_other() {
    let start = |refusals| {
        let mut engine = started([vip()].into());
        fail(&mut engine, "a", 2);
        fail(&mut engine, "b", 2);
        come(&mut engine, "a", A);
        fail(&mut engine, "b", refusals);
        come(&mut engine, "b", B);
        engine
    };
    assert_eq!(at_risk(&start(0)), 0);
    assert_ne!(at_risk(&start(1)), 0, "its peer has seen that too");
}

/// It was Active for a while in which nothing changed.
#[test]
fn who_had_the_address_in_between_learns_when_it_is_a_backup_again() {
    let mut engine = started([vip()].into());
    engine.handle_absent(BTreeSet::new());
    engine.handle_absent([vip()].into());
    fail(&mut engine, "a", 2);
    come(&mut engine, "a", A);
    assert_ne!(at_risk(&engine), 0, "its sessions may be there");
}

#[test]
fn who_takes_over_learns_from_then_on() {
    let mut engine = started([vip()].into());
    engine.handle_absent(BTreeSet::new());
    fail(&mut engine, "a", 2);
    come(&mut engine, "a", A);
    assert_ne!(at_risk(&engine), 0);
}
