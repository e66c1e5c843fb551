//! Ramps by the clock that is passed in.

use std::time::Duration;

use lb_common::abi::Tick;

use super::STEPS;
use crate::core::balancer::tests::{a, balancer_of, config};
use crate::core::balancer::{Admin, BackendKey, Balancer};
use crate::core::health::ProbeOutcome;
use crate::core::image::MapImage;
use crate::core::plan::{self, Moment};

const TEXT: &str = r#"
interface = "eth0"
[[vip]]
address = "172.16.40.24/32"
[[service]]
name = "mqtt"
vip = "172.16.40.24"
port = 1883
forward = "dsr"
slow_start = "60s"
[[service.backend]]
name = "a"
address = "172.16.40.20"
[[service.backend]]
name = "b"
address = "172.16.40.21"
weight = 3
"#;

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn b() -> BackendKey {
    BackendKey::new("mqtt", "b")
}

/// A balancer with both backends up, right after the start.
fn up() -> Balancer {
    let mut balancer = balancer_of(TEXT);
    for key in [a(), b()] {
        balancer.observe(&key, ProbeOutcome::Success);
    }
    balancer
}

fn fail(balancer: &mut Balancer, key: &BackendKey) {
    for _ in 0..3 {
        let reason = "refused".to_owned();
        balancer.observe(key, ProbeOutcome::Refusal { reason });
    }
}

fn succeed(balancer: &mut Balancer, key: &BackendKey) {
    for _ in 0..2 {
        balancer.observe(key, ProbeOutcome::Success);
    }
}

/// The weights of those that take packets, as parts of one.
fn weights(balancer: &Balancer) -> Vec<f64> {
    let desired = balancer.desired();
    let backends = desired.services[0].backends.iter();
    backends
        .map(|backend| f64::from(backend.weight) / f64::from(STEPS))
        .collect()
}

#[test]
fn at_the_start_nobody_is_slowed() {
    let mut balancer = up();
    assert_eq!(weights(&balancer), [1.0, 3.0]);
    assert!(!balancer.has_ramps() && !balancer.advance_ramps(seconds(1)));
}

#[test]
fn a_backend_that_comes_back_takes_more_with_each_step() {
    let mut balancer = up();
    fail(&mut balancer, &a());
    assert!(!balancer.advance_ramps(seconds(100)));
    succeed(&mut balancer, &a());
    assert_eq!(weights(&balancer), [0.1, 3.0]);
    assert!(!balancer.advance_ramps(seconds(200)), "its time begins");
    let mut changes = Vec::new();
    for second in 200..=270 {
        if balancer.advance_ramps(seconds(second)) {
            changes.push((second, weights(&balancer)[0]));
        }
    }
    let expected: Vec<_> = (1..10)
        .map(|step| (200 + 6 * step, f64::from(step as u32 + 1) / 10.0))
        .collect();
    assert_eq!(changes, expected);
    assert!(!balancer.has_ramps());
    assert_eq!(weights(&balancer), [1.0, 3.0]);
}

#[test]
fn a_backend_that_fails_on_its_way_begins_again() {
    let mut balancer = up();
    fail(&mut balancer, &b());
    succeed(&mut balancer, &b());
    balancer.advance_ramps(seconds(10));
    balancer.advance_ramps(seconds(50));
    assert!(weights(&balancer)[1] > 2.0);
    fail(&mut balancer, &b());
    succeed(&mut balancer, &b());
    assert_eq!(weights(&balancer), [1.0, 0.3]);
}

#[test]
fn what_is_enabled_after_it_was_disabled_is_slowed_and_what_was_drained_is_not() {
    let mut balancer = up();
    for (admin, weight) in [(Admin::Draining, 1.0), (Admin::Disabled, 0.1)] {
        balancer.set_admin(&a(), admin);
        balancer.set_admin(&a(), Admin::Enabled);
        assert_eq!(weights(&balancer), [weight, 3.0]);
    }
}

#[test]
fn a_backend_that_a_reload_adds_is_slowed_and_the_others_stay_as_they_are() {
    let mut balancer = up();
    fail(&mut balancer, &a());
    succeed(&mut balancer, &a());
    balancer.advance_ramps(seconds(10));
    balancer.advance_ramps(seconds(40));
    let added = "[[service.backend]]\nname = \"c\"\naddress = \"172.16.40.22\"\n";
    balancer.set_config(config(&format!("{TEXT}{added}")));
    balancer.observe(&BackendKey::new("mqtt", "c"), ProbeOutcome::Success);
    assert_eq!(weights(&balancer), [0.6, 3.0, 0.1]);
    balancer.set_config(config(&TEXT.replace("slow_start = \"60s\"\n", "")));
    assert!(!balancer.has_ramps());
}

#[test]
fn the_weight_that_is_told_is_that_of_the_ramp() {
    let mut balancer = up();
    let service = |balancer: &Balancer| balancer.config().services()[0].clone();
    let told = |balancer: &Balancer| {
        let service = service(balancer);
        let backends = service.backends().iter();
        backends
            .map(|backend| balancer.effective_weight(&service, backend))
            .collect::<Vec<_>>()
    };
    fail(&mut balancer, &b());
    assert_eq!(told(&balancer), [1.0, 0.0]);
    succeed(&mut balancer, &b());
    assert!((told(&balancer)[1] - 0.3).abs() < 1e-9);
    balancer.set_admin(&a(), Admin::Draining);
    assert_eq!(told(&balancer)[0], 0.0);
}

#[test]
fn without_ramps_tables_are_those_of_a_service_that_has_none() {
    let mut plain = balancer_of(&TEXT.replace("slow_start = \"60s\"\n", ""));
    for key in [a(), b()] {
        plain.observe(&key, ProbeOutcome::Success);
    }
    let slots = |balancer: &Balancer| {
        let image = plan::next(&MapImage::empty(), &balancer.desired(), Moment::at(Tick(0)));
        let service = image.services.values().next().unwrap();
        (service.table.slots.clone(), service.table.ring.clone())
    };
    assert_eq!(slots(&plain), slots(&up()));
}
