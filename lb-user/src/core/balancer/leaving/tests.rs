//! Backends that reloads take out, and bring back.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use lb_common::abi::Ip;
use proptest::prelude::*;

use crate::config::model::{Backend, Config, Service};
use crate::core::balancer::tests::{balancer_of, config};
use crate::core::balancer::{Admin, BackendKey, Balancer};
use crate::core::health::ProbeOutcome;

/// One service with the given backends: names and last bytes of addresses.
fn text(backends: &[(&str, u8)]) -> String {
    let mut text = r#"
interface = "eth0"
limits.backends = 4
[[vip]]
address = "172.16.40.24/32"
[[service]]
name = "mqtt"
vip = "172.16.40.24"
port = 1883
forward = "dsr"
"#
    .to_owned();
    for (name, last) in backends {
        let _ = writeln!(
            text,
            "[[service.backend]]\nname = \"{name}\"\naddress = \"172.16.40.{last}\""
        );
    }
    text
}

fn key(name: &str) -> BackendKey {
    BackendKey::new("mqtt", name)
}

/// A balancer whose backends are all up.
fn up(backends: &[(&str, u8)]) -> Balancer {
    let mut balancer = balancer_of(&text(backends));
    all_answer(&mut balancer);
    balancer
}

fn all_answer(balancer: &mut Balancer) {
    let keys: Vec<BackendKey> = keys(balancer.config()).collect();
    for key in keys {
        balancer.observe(&key, ProbeOutcome::Success);
    }
}

fn keys(config: &Config) -> impl Iterator<Item = BackendKey> {
    config
        .backends()
        .map(|(service, backend)| BackendKey::of(service, backend))
}

/// Whether a backend is known to have no session.
fn nobody(_: &Service, _: &Backend) -> bool {
    false
}

fn reload(balancer: &mut Balancer, backends: &[(&str, u8)]) {
    let successor = balancer.successor(config(&text(backends)), nobody).unwrap();
    balancer.set_config(successor);
}

/// Last byte of the address and weight of every backend that packets may be sent to.
fn desired(balancer: &Balancer) -> Vec<(u8, u16)> {
    let backends = balancer.desired().services.remove(0).backends;
    let backends = backends.iter();
    backends
        .map(|backend| (backend.address.v4_octets()[3], backend.weight))
        .collect()
}

#[test]
fn backend_that_is_taken_out_drains_until_it_is_dismissed() {
    let mut balancer = up(&[("a", 20), ("b", 21)]);
    reload(&mut balancer, &[("b", 21)]);
    assert_eq!(desired(&balancer), [(21, 1), (20, 0)]);
    assert!(balancer.is_leaving(&key("a")) && !balancer.is_leaving(&key("b")));
    // Another reload changes nothing about that.
    reload(&mut balancer, &[("b", 21)]);
    assert_eq!(desired(&balancer), [(21, 1), (20, 0)]);
    // Only who leaves can be dismissed.
    balancer.set_config(balancer.without(&[key("a"), key("b")]));
    assert_eq!(desired(&balancer), [(21, 1)]);
    assert_eq!(balancer.leaving().count(), 0);
}

#[test]
fn backend_that_returns_to_the_file_is_one_like_the_others() {
    let mut balancer = up(&[("a", 20), ("b", 21)]);
    reload(&mut balancer, &[("b", 21)]);
    reload(&mut balancer, &[("again", 20), ("b", 21)]);
    assert_eq!(desired(&balancer), [(20, 1), (21, 1)]);
    assert_eq!(balancer.leaving().count(), 0);
}

#[test]
fn name_may_be_given_to_another_address_meanwhile() {
    let mut balancer = up(&[("a", 20), ("b", 21)]);
    reload(&mut balancer, &[("a", 22), ("b", 21)]);
    let names: Vec<String> = keys(balancer.config()).map(|key| key.to_string()).collect();
    assert_eq!(names, ["mqtt/a", "mqtt/b", "mqtt/a@172.16.40.20:1883"]);
    all_answer(&mut balancer);
    assert_eq!(desired(&balancer), [(22, 1), (21, 1), (20, 0)]);
    // The name that it got stays its own.
    reload(&mut balancer, &[("b", 21)]);
    assert!(balancer.is_leaving(&key("a")));
    assert!(balancer.is_leaving(&key("a@172.16.40.20:1883")));
}

#[test]
fn backend_without_sessions_does_not_stay() {
    let mut balancer = balancer_of(&text(&[("a", 20), ("b", 21), ("c", 22)]));
    balancer.observe(&key("b"), ProbeOutcome::Success);
    balancer.observe(&key("c"), ProbeOutcome::Success);
    balancer.set_admin(&key("b"), Admin::Disabled);
    reload(&mut balancer, &[("c", 22)]);
    assert_eq!(balancer.leaving().count(), 0, "neither is sent packets");
}

#[test]
fn operator_may_cut_off_who_leaves() {
    let mut balancer = up(&[("a", 20), ("b", 21)]);
    reload(&mut balancer, &[("b", 21)]);
    balancer.set_admin(&key("a"), Admin::Disabled);
    assert_eq!(desired(&balancer), [(21, 1)]);
}

#[test]
fn what_operators_said_ends_with_the_place_in_the_file() {
    let mut balancer = up(&[("a", 20), ("b", 21), ("c", 22)]);
    balancer.set_admin(&key("a"), Admin::Draining);
    balancer.set_weight(&key("b"), 7);
    reload(&mut balancer, &[("c", 22)]);
    assert_eq!(desired(&balancer), [(22, 1), (20, 0), (21, 0)]);
    reload(&mut balancer, &[("a", 20), ("b", 21), ("c", 22)]);
    assert_eq!(desired(&balancer), [(20, 1), (21, 1), (22, 1)]);
}

#[test]
fn backend_that_is_drained_does_not_stay() {
    let balancer = up(&[("a", 20), ("b", 21)]);
    let new = config(&text(&[("b", 21)]));
    let successor = balancer.successor(new, |_, backend| backend.name() == "a");
    assert_eq!(successor.unwrap().backends().count(), 1);
}

#[test]
fn service_that_forwards_otherwise_keeps_nobody() {
    let balancer = up(&[("a", 20), ("b", 21)]);
    let nat = text(&[("b", 21)]).replace("dsr", "nat");
    let successor = balancer.successor(config(&nat), nobody).unwrap();
    assert_eq!(successor.backends().count(), 1);
    let other = text(&[("b", 21)]).replace("port = 1883", "port = 1884");
    let successor = balancer.successor(config(&other), nobody).unwrap();
    assert_eq!(successor.backends().count(), 1);
}

#[test]
fn reload_that_has_no_room_for_who_leaves_is_refused() {
    let balancer = up(&[("a", 20), ("b", 21), ("c", 22)]);
    let new = config(&text(&[("d", 23), ("e", 25)]));
    let error = balancer.successor(new, nobody).unwrap_err().to_string();
    assert!(
        error.contains("limits.backends: there is room for 4, which 2 configured ones and 3"),
        "{error}"
    );
}

proptest! {
    /// Whatever a reload says, who was sent packets before is sent packets after it, by the same way.
    #[test]
    fn no_reload_cuts_a_backend_off(
        files in prop::collection::vec(
            prop::collection::btree_map(0_usize..5, 25_u8..30, 1..4), 1..8,
        ),
        dies in prop::collection::vec(prop::option::of(0_usize..5), 8),
    ) {
        const NAMES: [&str; 5] = ["a", "b", "c", "d", "e"];
        let mut balancer = up(&[("a", 25)]);
        for (file, dies) in files.iter().zip(dies) {
            let mut seen = BTreeSet::new();
            let backends: Vec<(&str, u8)> = file
                .iter()
                .map(|(name, last)| (NAMES[*name], *last))
                .filter(|(_, last)| seen.insert(*last))
                .collect();
            let before: BTreeSet<Ip> = addresses(&balancer);
            let new = config(&text(&backends).replace("backends = 4", "backends = 64"));
            let successor = balancer.successor(new, nobody).unwrap();
            balancer.set_config(successor);
            let after = addresses(&balancer);
            prop_assert!(before.is_subset(&after), "{:?} became {:?}", before, after);
            let all: Vec<BackendKey> = keys(balancer.config()).collect();
            let names: BTreeSet<&BackendKey> = all.iter().collect();
            prop_assert_eq!(names.len(), all.len(), "names are unique");
            all_answer(&mut balancer);
            if let Some(key) = dies.and_then(|number| all.get(number)) {
                balancer.assume_down(key);
            }
        }
    }
}

fn addresses(balancer: &Balancer) -> BTreeSet<Ip> {
    let backends = balancer.desired().services.remove(0).backends;
    backends.iter().map(|backend| backend.address).collect()
}
