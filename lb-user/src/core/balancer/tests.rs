//! From events to what is desired.

use std::{net::IpAddr, time::Duration};

use lb_common::abi::{Ip, NatPool, NextHop, Tick};
use proptest::prelude::*;

use super::{Admin, AdminState, BackendKey, Balancer};
use crate::config::{self, model::Config};
use crate::core::health::{HealthState, ProbeOutcome};
use crate::core::image::MapImage;
use crate::core::plan::{self, DesiredBackend, DesiredService, Moment};

const TEXT: &str = r#"
interface = "eth0"
nat.ports = "2000-2999"

[[vip]]
address = "172.16.40.24/32"

[[service]]
name = "mqtt"
vip = "172.16.40.24"
port = 1883
forward = "dsr"

[[service.backend]]
name = "a"
address = "172.16.40.20"

[[service.backend]]
name = "b"
address = "172.16.40.21"
weight = 3

[[service]]
name = "unchecked"
vip = "172.16.40.24"
port = 8883
forward = "nat"
check = { type = "none" }
backend = [{ name = "c", address = "172.16.40.20" }]
"#;

pub(super) fn config(text: &str) -> Config {
    config::parse(text, "test.toml").unwrap_or_else(|errors| panic!("{errors}"))
}

/// The way to a neighbour on interface number `interface`.
pub(super) fn hop(interface: u32) -> NextHop {
    NextHop {
        interface,
        mac: [7; 6],
        source_mac: [1; 6],
    }
}

/// A balancer that knows the way to every address of the tests.
fn balancer() -> Balancer {
    balancer_of(TEXT)
}

/// The same with another configuration.
pub(super) fn balancer_of(text: &str) -> Balancer {
    let mut balancer = Balancer::new(config(text), AdminState::default());
    for host in 20..30 {
        balancer.set_next_hop([172, 16, 40, host].into(), hop(2));
    }
    balancer
}

pub(super) fn a() -> BackendKey {
    BackendKey::new("mqtt", "a")
}

fn b() -> BackendKey {
    BackendKey::new("mqtt", "b")
}

/// A balancer whose backends are all up.
fn all_up() -> Balancer {
    let mut balancer = balancer();
    balancer.observe(&a(), ProbeOutcome::Success);
    balancer.observe(&b(), ProbeOutcome::Success);
    balancer
}

fn failure() -> ProbeOutcome {
    ProbeOutcome::Refusal {
        reason: "timed out".to_owned(),
    }
}

/// The last byte of the address and the weight of every backend of service `at`.
fn desired(balancer: &Balancer, at: usize) -> Vec<(u8, u16)> {
    let last = |backend: &DesiredBackend| backend.address.v4_octets()[3];
    let services = balancer.desired().services;
    services[at]
        .backends
        .iter()
        .map(|backend| (last(backend), backend.weight))
        .collect()
}

#[test]
fn checked_backend_is_used_from_its_first_success_on() {
    let mut balancer = balancer();
    assert_eq!(desired(&balancer, 0), []);
    balancer.observe(&a(), ProbeOutcome::Success);
    assert_eq!(desired(&balancer, 0), [(20, 1)]);
}

#[test]
fn unchecked_backend_is_used_at_once_and_stays_whatever_a_late_probe_says() {
    let mut balancer = balancer();
    let c = BackendKey::new("unchecked", "c");
    assert_eq!(desired(&balancer, 1), [(20, 1)]);
    for _ in 0..5 {
        assert_eq!(balancer.observe(&c, failure()), None);
    }
    assert_eq!(desired(&balancer, 1), [(20, 1)]);
}

#[test]
fn backend_leaves_after_fall_failures_and_says_why() {
    let mut balancer = all_up();
    for _ in 0..2 {
        assert_eq!(balancer.observe(&a(), failure()), None);
    }
    let transition = balancer.observe(&a(), failure()).unwrap();
    assert_eq!(
        (transition.from, transition.to),
        (HealthState::Up, HealthState::Down)
    );
    assert_eq!(desired(&balancer, 0), [(21, 3)]);
    let view = &balancer.view(&MapImage::empty())[0];
    assert_eq!(view.backends[0].reason, Some("timed out"));
}

#[test]
fn draining_backend_stays_with_weight_zero_and_disabled_one_goes() {
    let mut balancer = all_up();
    balancer.set_admin(&a(), Admin::Draining);
    balancer.set_admin(&b(), Admin::Disabled);
    assert_eq!(desired(&balancer, 0), [(20, 0)]);
    balancer.set_admin(&a(), Admin::Enabled);
    balancer.set_admin(&b(), Admin::Enabled);
    assert_eq!(desired(&balancer, 0), [(20, 1), (21, 3)]);
}

#[test]
fn only_what_would_take_flows_if_it_were_up_lends_its_slots() {
    let mut balancer = balancer();
    let lenders = |balancer: &Balancer| -> Vec<(u8, u16)> {
        let lenders = balancer.desired().services[0].lenders.clone();
        let seen = lenders.iter().map(|l| (l.address.v4_octets()[3], l.weight));
        seen.collect()
    };
    balancer.observe(&a(), ProbeOutcome::Success);
    assert_eq!(lenders(&balancer), [(21, 3)]);
    balancer.set_weight(&b(), 9);
    assert_eq!(lenders(&balancer), [(21, 9)]);
    balancer.set_admin(&b(), Admin::Draining);
    assert_eq!(lenders(&balancer), []);
    balancer.set_admin(&b(), Admin::Enabled);
    balancer.set_weight(&b(), 0);
    assert_eq!(lenders(&balancer), []);
}

#[test]
fn configured_weight_ends_an_override() {
    let mut balancer = all_up();
    balancer.set_weight(&b(), 9);
    assert_eq!(desired(&balancer, 0), [(20, 1), (21, 9)]);
    balancer.set_weight(&b(), 3);
    assert_eq!(balancer.admin(), &AdminState::default());
}

#[test]
fn operators_wishes_outlive_a_restart_but_not_the_backend() {
    let mut first = all_up();
    first.set_admin(&a(), Admin::Draining);
    first.set_weight(&b(), 9);
    let kept = serde_json::to_string(first.admin()).unwrap();
    let mut second = Balancer::new(config(TEXT), serde_json::from_str(&kept).unwrap());
    assert_eq!(second.admin(), first.admin());
    second.set_config(config(&TEXT.replace("\"a\"", "\"x\"")));
    assert_eq!(second.admin().admin(&a()), Admin::Enabled);
    assert_eq!(second.admin().weight(&b()), Some(9));
}

#[test]
fn reload_keeps_the_health_of_what_is_still_there_under_any_name() {
    let mut balancer = all_up();
    balancer.set_config(config(
        &TEXT.replace("\"a\"", "\"x\"").replace("\"mqtt\"", "\"m\""),
    ));
    assert_eq!(desired(&balancer, 0), [(20, 1), (21, 3)]);
    balancer.set_config(config(&TEXT.replace("172.16.40.21", "172.16.40.22")));
    assert_eq!(desired(&balancer, 0), [(20, 1)]);
}

#[test]
fn reload_that_moves_a_service_keeps_the_health_of_its_backends() {
    let mut balancer = all_up();
    let moved = TEXT.replace(
        "port = 1883\n",
        "port = 1884\ncheck = { type = \"tcp\", port = 1883 }\n",
    );
    let asked_there = TEXT.replace(
        "port = 1883\n",
        "port = 1883\ncheck = { type = \"tcp\", port = 1883 }\n",
    );
    balancer.set_config(config(&asked_there));
    balancer.set_config(config(&moved));
    assert_eq!(desired(&balancer, 0), [(20, 1), (21, 3)]);
    let elsewhere = moved.replace("port = 1883 }", "port = 1885 }");
    balancer.set_config(config(&elsewhere));
    assert_eq!(
        desired(&balancer, 0),
        [(20, 1), (21, 3)],
        "reached as before"
    );
    balancer.set_config(config(TEXT));
    assert_eq!(
        desired(&balancer, 0),
        [],
        "neither reached nor asked as before"
    );
}

#[test]
fn reload_that_takes_away_the_check_makes_a_backend_up() {
    let mut balancer = balancer();
    let text = TEXT.replace("port = 1883", "port = 1883\ncheck = { type = \"none\" }");
    balancer.set_config(config(&text));
    assert_eq!(desired(&balancer, 0), [(20, 1), (21, 3)]);
    balancer.set_config(config(TEXT));
    assert_eq!(balancer.health(&a()), HealthState::Up);
}

#[test]
fn next_hops_go_to_every_backend_of_an_address() {
    let mut balancer = all_up();
    let address = IpAddr::from([172, 16, 40, 20]);
    balancer.set_next_hop(address, hop(7));
    let expected = [vec![hop(7), hop(2)], vec![hop(7)]];
    assert_eq!(hops(&balancer), expected);
    balancer.set_config(config(TEXT));
    assert_eq!(hops(&balancer), expected);
}

#[test]
fn backend_takes_nothing_before_the_way_to_it_is_known() {
    let mut balancer = Balancer::new(config(TEXT), AdminState::default());
    for key in [a(), b()] {
        balancer.observe(&key, ProbeOutcome::Success);
    }
    balancer.set_next_hop([172, 16, 40, 21].into(), hop(2));
    assert_eq!(desired(&balancer, 0), [(21, 3)]);
    assert_eq!(desired(&balancer, 1), []);
    let lenders = &balancer.desired().services[0].lenders;
    assert_eq!(lenders.len(), 1, "the others keep their slots");
}

/// The next hop of every backend of every service.
fn hops(balancer: &Balancer) -> Vec<Vec<NextHop>> {
    let services = balancer.desired().services;
    let hops_of = |service: &DesiredService| {
        let backends = service.backends.iter();
        backends.filter_map(|backend| backend.next_hop).collect()
    };
    services.iter().map(hops_of).collect()
}

fn pool(sources: &[IpAddr]) -> NatPool {
    let sources: Vec<Ip> = sources.iter().copied().map(Ip::from).collect();
    NatPool::new(&sources, 2000, 2999)
}

#[test]
fn nat_sends_from_one_lasting_source_a_family_unless_told_otherwise() {
    let mut balancer = balancer();
    let own: [IpAddr; 3] =
        ["172.16.40.22", "fd00:40::22", "172.16.40.23"].map(|a| a.parse().unwrap());
    let lacking = |balancer: &Balancer| balancer.without_source().count();
    assert_eq!(lacking(&balancer), 1, "c alone is translated");
    for source in own {
        balancer.add_default_source(source);
    }
    assert_eq!(lacking(&balancer), 0);
    assert_eq!(balancer.desired().nat_pool, pool(&own[..2]));
    balancer.set_config(config(TEXT));
    assert_eq!(balancer.desired().nat_pool, pool(&own[..2]));
    let given = IpAddr::from([172, 16, 40, 99]);
    balancer.set_config(config(&format!("nat.sources = [\"{given}\"]\n{TEXT}")));
    assert_eq!(balancer.desired().nat_pool, pool(&[given, own[1]]));
}

#[test]
fn nat_never_sends_from_a_vip() {
    let mut balancer = balancer();
    balancer.add_default_source([172, 16, 40, 24].into());
    assert_eq!(balancer.desired().nat_pool, pool(&[]));
    assert_eq!(balancer.without_source().count(), 1);
}

#[test]
fn nat_leaves_out_a_backend_whose_replies_come_in_elsewhere() {
    let mut balancer = all_up();
    balancer.set_interface(2, [2; 6]);
    let address = IpAddr::from([172, 16, 40, 20]);
    balancer.set_next_hop(address, hop(3));
    assert_eq!(desired(&balancer, 1), []);
    assert_eq!(desired(&balancer, 0), [(20, 1), (21, 3)], "dsr has none");
    balancer.set_next_hop(address, hop(2));
    assert_eq!(desired(&balancer, 1), [(20, 1)]);
}

#[test]
fn there_is_no_pool_where_nothing_is_translated() {
    let mut balancer = balancer();
    balancer.add_default_source([172, 16, 40, 22].into());
    balancer.set_config(config(&TEXT.replace("\"nat\"", "\"dsr\"")));
    assert_eq!(balancer.desired().nat_pool, NatPool::EMPTY);
}

#[test]
fn names_mean_one_backend_or_an_error() {
    let balancer = balancer();
    assert_eq!(balancer.select("a"), Ok(a()));
    assert_eq!(balancer.select("mqtt/b"), Ok(b()));
    assert!(balancer.select("unchecked/b").is_err());
}

#[test]
fn view_tells_shares_and_weights_as_they_are_in_force() {
    let mut balancer = all_up();
    balancer.set_admin(&a(), Admin::Draining);
    balancer.set_weight(&b(), 9);
    let image = plan::next(&MapImage::empty(), &balancer.desired(), Moment::at(Tick(0)));
    let views = balancer.view(&image);
    let [mqtt, unchecked] = &views[..] else {
        panic!("two services")
    };
    assert!(mqtt.up && unchecked.up);
    let seen: Vec<_> = mqtt
        .backends
        .iter()
        .map(|b| (b.admin, b.weight, b.share))
        .collect();
    assert_eq!(seen, [(Admin::Draining, 1, 0.0), (Admin::Enabled, 9, 1.0)]);
    balancer.set_admin(&b(), Admin::Disabled);
    let image = plan::next(&image, &balancer.desired(), Moment::at(Tick(0)));
    let view = &balancer.view(&image)[0];
    assert!(!view.up);
    assert!(view.backends[1].share < f64::EPSILON);
}

#[derive(Clone, Debug)]
enum Event {
    Probe(bool, bool),
    Admin(bool, Admin),
    Weight(bool, u16),
}

fn event() -> impl Strategy<Value = Event> {
    let admin = prop_oneof![
        Just(Admin::Enabled),
        Just(Admin::Draining),
        Just(Admin::Disabled)
    ];
    prop_oneof![
        any::<(bool, bool)>().prop_map(|(first, success)| Event::Probe(first, success)),
        (any::<bool>(), admin).prop_map(|(first, admin)| Event::Admin(first, admin)),
        (any::<bool>(), 0_u16..5).prop_map(|(first, weight)| Event::Weight(first, weight)),
    ]
}

proptest! {
    #[test]
    fn only_healthy_enabled_backends_take_new_flows(events in prop::collection::vec(event(), 0..40)) {
        let mut balancer = balancer();
        let key = |first| if first { a() } else { b() };
        for event in events {
            match event {
                Event::Probe(first, true) => {
                    balancer.observe(&key(first), ProbeOutcome::Success);
                }
                Event::Probe(first, false) => {
                    balancer.observe(&key(first), failure());
                }
                Event::Admin(first, admin) => balancer.set_admin(&key(first), admin),
                Event::Weight(first, weight) => balancer.set_weight(&key(first), weight),
            }
            let wanted = desired(&balancer, 0);
            for (last, key, configured) in [(20, a(), 1), (21, b(), 3)] {
                let up = balancer.health(&key) == HealthState::Up;
                let weight = balancer.admin().weight(&key).unwrap_or(configured);
                let expected = match balancer.admin().admin(&key) {
                    Admin::Enabled if up => Some(weight),
                    Admin::Draining if up => Some(0),
                    Admin::Enabled | Admin::Draining | Admin::Disabled => None,
                };
                let found = wanted.iter().find(|(found, _)| *found == last);
                prop_assert_eq!(found.map(|(_, weight)| *weight), expected);
            }
        }
    }
}

/// Records of UDP flows that were silent for two minutes are gone, so no longer window finds more.
#[test]
fn slots_learn_their_flows_for_no_longer_than_these_are_remembered() {
    for (protocol, keep_alive, seconds) in [
        ("udp", "20m", 120),
        ("udp", "81s", 120),
        ("udp", "40s", 60),
        ("tcp", "20m", 1_800),
        ("mqtt", "20m", 1_800),
    ] {
        let keys = format!("protocol = \"{protocol}\"\nkeep_alive = \"{keep_alive}\"\n");
        let text = TEXT
            .replacen("port = 1883\n", &format!("port = 1883\n{keys}"), 1)
            .replacen(
                "forward = \"dsr\"\n",
                "forward = \"dsr\"\ncheck.type = \"none\"\n",
                1,
            );
        let mut balancer = balancer_of(&text);
        let before = plan::next(&MapImage::empty(), &balancer.desired(), Moment::at(Tick(1)));
        balancer.set_admin(&a(), Admin::Draining);
        let after = plan::next(&before, &balancer.desired(), Moment::at(Tick(1)));
        let key = balancer.config().services()[0].key();
        let service = &after.services[&key];
        let window = Duration::from_secs(seconds);
        assert_eq!(service.window, window, "{protocol}, {keep_alive}");
        assert_eq!(service.table.holds.until(), Some(Tick(1).after(window)));
    }
}

#[test]
fn a_tunnel_carries_what_its_narrowest_part_does() {
    let tunnel = TEXT.replacen("forward = \"dsr\"", "forward = \"tunnel\"", 1);
    let narrow = format!("tunnel.mtu = 1400\n{tunnel}");
    let dsr = format!("tunnel.mtu = 1400\n{TEXT}");
    for (text, first_hop, expected) in [
        (&tunnel, None, 0),
        (&tunnel, Some(1_500), 1_500),
        (&narrow, None, 1_400),
        (&narrow, Some(1_500), 1_400),
        (&narrow, Some(1_300), 1_300),
        // Nobody puts its packets into others.
        (&dsr, Some(1_500), 1_500),
    ] {
        let mut balancer = balancer_of(text);
        balancer.observe(&a(), ProbeOutcome::Success);
        if let Some(mtu) = first_hop {
            balancer.set_mtu([172, 16, 40, 20].into(), mtu);
        }
        let mtu = balancer.desired().services[0].backends[0].mtu;
        assert_eq!(mtu, expected, "{first_hop:?} in {text}");
    }
}

#[test]
fn a_tunnel_is_narrow_if_clients_over_ipv6_may_send_more() {
    let text = TEXT
        .replacen("forward = \"dsr\"", "forward = \"tunnel\"", 1)
        .replace("172.16.40.24/32", "fd00:40::24/128")
        .replace("vip = \"172.16.40.24\"", "vip = \"fd00:40::24\"")
        .replace("forward = \"nat\"", "forward = \"tunnel\"")
        .replacen("nat.ports", "tunnel.mtu = 1350\nnat.ports", 1);
    let mut balancer = balancer_of(&text);
    let narrow = |balancer: &Balancer| {
        let tunnels = balancer.narrow_tunnels();
        let names =
            tunnels.map(|(service, backend, room)| (BackendKey::of(service, backend), room));
        names.collect::<Vec<_>>()
    };
    assert_eq!(narrow(&balancer), []);
    balancer.set_mtu([172, 16, 40, 21].into(), 1_299);
    assert_eq!(narrow(&balancer), [(b(), 1_279)]);
}
