//! The picture that a balancer makes itself of the maps that it finds.

use lb_common::abi::Tick;

use crate::config::model::NoRoomToLeave;
use crate::core::balancer::tests::{a, balancer_of, config, hop};
use crate::core::balancer::{Admin, AdminState, BackendKey, Balancer, adopt};
use crate::core::health::{HealthState, ProbeOutcome, Question};
use crate::core::image::MapImage;
use crate::core::plan::{self, Moment};

const TEXT: &str = r#"
interface = "eth0"
limits.backends = 3
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
"#;

fn without_b() -> String {
    TEXT.replace(
        "[[service.backend]]\nname = \"b\"\naddress = \"172.16.40.21\"\n",
        "",
    )
}

fn b() -> BackendKey {
    BackendKey::new("mqtt", "b")
}

/// What the maps hold under a configuration whose backends are all up.
fn image_of(text: &str) -> MapImage {
    let mut balancer = balancer_of(text);
    let backends = balancer.config().backends();
    let keys: Vec<BackendKey> = backends
        .map(|(service, backend)| BackendKey::of(service, backend))
        .collect();
    for key in keys {
        balancer.observe(&key, ProbeOutcome::Success);
    }
    let moment = Moment::at(Tick(1));
    plan::next(&MapImage::empty(), &balancer.desired(), moment)
}

/// A balancer that has seen nothing but the maps.
fn adopting(text: &str, image: &MapImage) -> Balancer {
    let config = config(text);
    let remnants = adopt::remnants(&config, image);
    let config = config.with_remnants(remnants).unwrap();
    let mut balancer = Balancer::new(config, AdminState::default());
    balancer.adopt(image);
    balancer
}

/// Last byte of the address and weight of every backend that packets may be sent to.
fn desired(balancer: &Balancer) -> Vec<(u8, u16)> {
    let service = balancer.desired().services.remove(0);
    let backends = service.backends.iter();
    backends
        .map(|backend| (backend.address.v4_octets()[3], backend.weight))
        .collect()
}

#[test]
fn the_same_configuration_wants_what_is_there() {
    let image = image_of(TEXT);
    let balancer = adopting(TEXT, &image);
    let next = plan::next(&image, &balancer.desired(), Moment::at(Tick(9)));
    assert_eq!(next, image);
    assert_eq!(balancer.next_hop([172, 16, 40, 20].into()), Some(hop(2)));
}

#[test]
fn one_probe_without_an_answer_takes_nobody_out() {
    let mut balancer = adopting(TEXT, &image_of(TEXT));
    let silence = ProbeOutcome::Silence {
        reason: "timed out".to_owned(),
        question: Question::default(),
    };
    assert_eq!(balancer.observe(&a(), silence), None);
    assert_eq!(balancer.health(&a()), HealthState::Up);
    assert_eq!(desired(&balancer), [(20, 1), (21, 1)]);
}

#[test]
fn who_was_evacuated_gets_nothing_before_it_has_answered() {
    let text = TEXT.replace(
        "forward = \"dsr\"\n",
        "forward = \"dsr\"\ncheck = { type = \"http\", drain_on = 503, fall = 1 }\n",
    );
    let mut before = balancer_of(&text);
    let drain = || ProbeOutcome::Drain {
        reason: "HTTP status 503".to_owned(),
    };
    before.observe(&a(), drain());
    before.observe(&b(), ProbeOutcome::Success);
    let moment = Moment::at(Tick(1));
    let image = plan::next(&MapImage::empty(), &before.desired(), moment);

    let mut balancer = adopting(&text, &image);
    assert_eq!(desired(&balancer), [(20, 0), (21, 1)]);
    balancer.observe(&a(), drain());
    assert_eq!(desired(&balancer), [(20, 0), (21, 1)]);
    let mut balancer = adopting(&text, &image);
    balancer.observe(&a(), ProbeOutcome::Success);
    assert_eq!(desired(&balancer), [(20, 1), (21, 1)]);
    // Who cannot say so cannot take it back.
    assert_eq!(desired(&adopting(TEXT, &image)), [(20, 1), (21, 1)]);
}

#[test]
fn who_was_down_is_unknown() {
    let balancer = adopting(TEXT, &image_of(&without_b()));
    assert_eq!(balancer.health(&b()), HealthState::Unknown);
    assert_eq!(desired(&balancer), [(20, 1)]);
}

#[test]
fn who_is_not_in_the_file_leaves() {
    let image = image_of(TEXT);
    let config = config(&without_b());
    let mut remnants = adopt::remnants(&config, &image);
    assert_eq!(remnants.len(), 1);
    assert_eq!(remnants[0].place(), "172.16.40.24:1883/6 172.16.40.21:1883");
    let names = super::super::tests::config(TEXT).names();
    remnants[0].name = names.get(&remnants[0].place()).cloned();
    let mut balancer = Balancer::new(
        config.with_remnants(remnants).unwrap(),
        AdminState::default(),
    );
    balancer.adopt(&image);
    assert!(balancer.is_leaving(&b()));
    assert_eq!(desired(&balancer), [(20, 1), (21, 0)]);
    balancer.set_admin(&b(), Admin::Disabled);
    assert_eq!(desired(&balancer), [(20, 1)]);
}

#[test]
fn whose_name_nobody_knows_is_called_by_its_address() {
    let balancer = adopting(&without_b(), &image_of(TEXT));
    let leaving: Vec<&str> = balancer.leaving().map(|(_, it)| it.name()).collect();
    assert_eq!(leaving, ["172.16.40.21:1883"]);
}

#[test]
fn who_is_reached_another_way_does_not_stay() {
    let other = without_b().replace("\"dsr\"", "\"nat\"");
    assert_eq!(adopt::remnants(&config(&other), &image_of(TEXT)), []);
}

#[test]
fn there_must_be_room_for_all() {
    let image = image_of(TEXT);
    let text = TEXT
        .replace("172.16.40.20", "172.16.40.22")
        .replace("172.16.40.21", "172.16.40.23");
    let config = config(&text);
    let refused: Result<_, NoRoomToLeave> = config
        .clone()
        .with_remnants(adopt::remnants(&config, &image));
    assert!(refused.unwrap_err().to_string().contains("limits.backends"));
}

#[test]
fn nat_goes_on_from_where_it_was() {
    let nat = TEXT.replace("\"dsr\"", "\"nat\"");
    let given = format!("nat.sources = [\"172.16.40.22\"]\n{nat}");
    let image = image_of(&given);
    // What the file does not say any more stays as it was.
    let balancer = adopting(&nat, &image);
    assert_eq!(balancer.desired().nat_pool, image.nat_pool);
    assert!(balancer.keeps_sources(&image));
    let more = format!("nat.sources = [\"172.16.40.22\", \"172.16.40.23\"]\n{nat}");
    assert!(adopting(&more, &image).keeps_sources(&image));
    let other = format!("nat.sources = [\"172.16.40.23\", \"172.16.40.22\"]\n{nat}");
    assert!(!adopting(&other, &image).keeps_sources(&image));
    assert!(
        adopting(TEXT, &image).keeps_sources(&image),
        "nothing is translated"
    );
}
