//! What becomes of the tables of a node that stands by for a peer.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
    time::Duration,
};

use lb_common::abi::{BackendId, Tick};

use super::{A, B, FakeMaps, config, fail, id_of, next_hop, succeed};
use crate::{
    core::{
        admin::AdminState,
        settle::Findings,
        slots::{Holds, State},
        sync::record::{BackendName, SlotTable},
    },
    daemon::engine::{Engine, Told},
    journal::Journal,
};

const SYNC: &str = "[sync]\nlisten = \"172.16.40.22:9464\"\npeer = \"172.16.40.23:9464\"\n\
                    key_file = \"/nowhere\"\n[[service]]";

fn vip() -> IpAddr {
    IpAddr::from([172, 16, 40, 24])
}

/// A node that stands by, with both backends up.
fn standby() -> Engine<FakeMaps> {
    let text = super::CONFIG.replace("[[service]]", SYNC);
    let mut engine = Engine::new(
        config(&text),
        AdminState::default(),
        FakeMaps::default(),
        Journal::default(),
    );
    engine.handle_absent([vip()].into());
    for (name, address) in [("a", A), ("b", B)] {
        succeed(&mut engine, name);
        engine.handle_next_hop(address, next_hop(1), 1500);
    }
    engine.reconcile();
    engine
}

/// What a peer says whose slots are all one backend's, in one state.
fn told(engine: &Engine<FakeMaps>, owner: IpAddr, state: State) -> Told {
    let (key, service) = engine.image.services.first_key_value().unwrap();
    let count = service.table.slots.len();
    let owners = vec![BackendId(0); count];
    let slots = (0..).take(count).map(|slot| (slot, state));
    let holds: Holds = slots.collect();
    let name = |id: BackendId| {
        let address = if id == BackendId(0) { owner } else { B };
        Some(BackendName {
            address,
            port: 1883,
        })
    };
    Told::Slots(*key, Arc::new(SlotTable::new(&owners, &holds, name)))
}

/// The owner and state of every slot.
fn slots(engine: &Engine<FakeMaps>) -> Vec<(BackendId, State)> {
    let service = engine.image.services.values().next().unwrap();
    let states = (0..).map(|slot| service.table.holds.get(slot));
    service.table.slots.iter().copied().zip(states).collect()
}

fn take_over(engine: &mut Engine<FakeMaps>, now: u32) {
    engine.maps.now = Tick(now);
    engine.handle_absent(BTreeSet::new());
    engine.reconcile();
}

fn findings(engine: &Engine<FakeMaps>) -> Findings {
    Findings {
        image: Arc::clone(&engine.sights().borrow().image),
        started: engine.maps.now,
        complete: true,
        has_room: true,
        strays: BTreeMap::new(),
        sessions: BTreeMap::new(),
        loads: BTreeMap::new(),
    }
}

#[test]
fn slots_of_the_peers_sessions_are_held_and_the_others_are_safe() {
    let mut engine = standby();
    let before = slots(&engine);
    engine.handle_told(told(&engine, A, State::Safe));
    engine.reconcile();
    let a = id_of(&engine, A);
    for ((owner, state), (own, _)) in slots(&engine).into_iter().zip(before) {
        assert_eq!(owner, own, "new flows go where this node has them go");
        let expected = if owner == a {
            State::Safe
        } else {
            let until = Tick(u32::MAX);
            State::AtRisk { previous: a, until }
        };
        assert_eq!(state, expected);
    }
}

#[test]
fn what_the_peer_learns_is_learned_here_from_the_take_over_on() {
    let mut engine = standby();
    let b = id_of(&engine, B);
    let at_risk = State::AtRisk {
        previous: BackendId(1),
        until: Tick(3),
    };
    engine.handle_told(told(&engine, A, at_risk));
    engine.reconcile();
    let is_held = |state| matches!(state, State::AtRisk { previous, .. } if previous == b);
    let held = |engine: &Engine<FakeMaps>| {
        let all = slots(engine).into_iter();
        all.filter(|(_, state)| is_held(*state)).count()
    };
    let count = held(&engine);
    assert!(count > 0);
    // The peer's flows of the new owner are recorded.
    assert!(
        slots(&engine)
            .iter()
            .all(|(owner, state)| *owner != b || *state == State::Mixed)
    );

    // However long that takes.
    engine.maps.now = Tick(1_000_000);
    engine.handle_findings(findings(&engine));
    assert_eq!(held(&engine), count);
    assert_eq!(engine.services()[0].slots.learning_seconds, 0);

    take_over(&mut engine, 1_000_001);
    assert_eq!(held(&engine), count);
    assert!(engine.services()[0].slots.learning_seconds > 60);
    let window = engine.image.services.values().next().unwrap().window;
    engine.maps.now = Tick(1_000_001).after(window);
    engine.handle_findings(findings(&engine));
    assert_eq!(held(&engine), 0);
}

#[test]
fn who_is_not_there_has_no_slots_to_hold() {
    let mut engine = standby();
    engine.handle_told(told(&engine, IpAddr::from([172, 16, 40, 99]), State::Safe));
    engine.reconcile();
    assert!(
        slots(&engine)
            .iter()
            .all(|(_, state)| *state == State::Safe)
    );
}

#[test]
fn a_backend_that_dies_here_takes_nothing_over_from_the_peer() {
    let mut engine = standby();
    engine.handle_told(told(&engine, A, State::Safe));
    engine.reconcile();
    fail(&mut engine, "a", 2);
    engine.reconcile();
    let b = id_of(&engine, B);
    assert!(
        slots(&engine)
            .iter()
            .all(|(owner, state)| (*owner, *state) == (b, State::Safe))
    );
}

#[test]
fn what_this_node_has_itself_is_not_the_peers_to_say() {
    let mut engine = standby();
    take_over(&mut engine, 5);
    let before = slots(&engine);
    engine.handle_told(told(&engine, A, State::Safe));
    engine.reconcile();
    assert_eq!(slots(&engine), before);
    // Nor is what the peer once said of use when this node stands by again.
    engine.handle_absent([vip()].into());
    engine.reconcile();
    assert_eq!(slots(&engine), before);
}

#[test]
fn a_keep_alive_that_the_peer_has_seen_counts() {
    let mut engine = standby();
    let (key, id) = {
        let (key, service) = engine.image.services.first_key_value().unwrap();
        (*key, service.id)
    };
    for (seconds, seen) in [(100, 100), (50, 100), (200, 200)] {
        engine.handle_told(Told::KeepAlive(key, Duration::from_secs(seconds)));
        assert_eq!(engine.maps.keep_alives[&id], Duration::from_secs(seen));
    }
}

#[test]
fn a_restarted_node_stands_by_for_what_it_stood_by_for() {
    let mut engine = standby();
    let at_risk = State::AtRisk {
        previous: BackendId(1),
        until: Tick(3),
    };
    engine.handle_told(told(&engine, A, at_risk));
    engine.reconcile();
    let before = slots(&engine);
    let mut next = Engine::new(
        config(&super::CONFIG.replace("[[service]]", SYNC)),
        AdminState::default(),
        std::mem::take(&mut engine.maps),
        Journal::default(),
    );
    assert_eq!(next.stood_by(), BTreeSet::new());
    next.balancer.adopt(&engine.image);
    next.go_on_with(engine.image.clone(), true);
    let stood_by = next.stood_by();
    assert_eq!(stood_by, [vip()].into());
    next.handle_absent(stood_by);
    for (address, last) in [(A, 1), (B, 2)] {
        next.handle_next_hop(address, next_hop(last), 1500);
    }
    next.reconcile();
    assert_eq!(slots(&next), before);
}
