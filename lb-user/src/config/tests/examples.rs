//! The examples that users copy, and the values that a file gives.

use std::time::Duration;

use lb_common::abi::{Balance, Forward};

use super::{RIGHT, changed, right};
use crate::config::model::{Config, LogFormat, MqttVersion, Probe, Protocol, XdpMode};

const EXAMPLES: [(&str, Forward); 3] = [
    (
        include_str!("../../../configs/tidegate-dsr.toml"),
        Forward::Dsr,
    ),
    (
        include_str!("../../../configs/tidegate-nat.toml"),
        Forward::Nat,
    ),
    (
        include_str!("../../../configs/tidegate-tunnel.toml"),
        Forward::Tunnel,
    ),
];

#[test]
fn examples_serve_four_ports_over_both_families() {
    for (text, forward) in EXAMPLES {
        let config = right(text);
        for v4 in [true, false] {
            let of_family = config.services().iter().filter(|s| s.vip().is_ipv4() == v4);
            let ports: Vec<u16> = of_family.map(|service| service.port()).collect();
            assert_eq!(ports, [1883, 8883, 8083, 18083]);
        }
        for service in config.services() {
            assert_eq!(service.forward(), forward);
            assert_eq!(service.backends().len(), 2);
            assert!(service.check().is_some());
        }
    }
}

#[test]
fn examples_differ_in_nothing_but_the_way_of_forwarding() {
    let [dsr, nat, tunnel] = EXAMPLES.map(|(text, _)| right(text));
    assert_eq!(dsr.vips(), nat.vips());
    assert_eq!(dsr.reload_blockers(&nat), []);
    assert_eq!(dsr.vips(), tunnel.vips());
    assert_eq!(dsr.reload_blockers(&tunnel), []);
}

#[test]
fn a_vip_stays_without_backends_unless_it_is_to_be_withdrawn() {
    let is_withdrawn = |line: &str| {
        let text = changed("24/32\"\n", &format!("24/32\"\n{line}\n"));
        let config = right(&text);
        assert!(!config.vips()[1].is_withdrawn_unserved());
        config.vips()[0].is_withdrawn_unserved()
    };
    assert!(!is_withdrawn(""));
    assert!(!is_withdrawn("without_backends = \"stay\""));
    assert!(is_withdrawn("without_backends = \"withdraw\""));
}

#[test]
fn absent_keys_stand_for_the_defaults_of_the_reference() {
    let config = right(RIGHT);
    assert_eq!(config.xdp_mode(), XdpMode::Auto);
    assert_eq!(config.seed(), None);
    assert_eq!(config.log().format(), LogFormat::Text);
    assert_eq!(config.api().mode(), 0o660);
    assert_eq!(config.metrics_listen(), None);
    assert_eq!(
        (config.limits().services, config.limits().backends),
        (32, 1_024)
    );
    assert_eq!(config.tracking_idle(), Duration::from_secs(10_800));
    assert_eq!(
        (config.nat().first_port(), config.nat().last_port()),
        (1_024, 32_767)
    );
    let [service] = config.services() else {
        panic!("one service")
    };
    assert_eq!(
        (service.protocol(), service.balance()),
        (Protocol::Tcp, Balance::Maglev)
    );
    let [backend, _] = service.backends() else {
        panic!("two backends")
    };
    assert_eq!((backend.port(), backend.weight()), (1883, 1));
    assert_eq!(service.check().unwrap().timeout(), Duration::from_secs(1));
}

#[test]
fn given_keys_are_taken() {
    let config = right(FULL);
    assert_eq!(config.seed().unwrap()[..3], [0x00, 0x11, 0x22]);
    assert_eq!(config.xdp_mode(), XdpMode::Generic);
    assert_eq!(config.api().group(), Some("tidegate"));
    assert_eq!(config.metrics_listen().unwrap().to_string(), "[::1]:9463");
    assert!(!config.vips()[0].assign());
    assert_eq!(config.vips()[0].prefix(), 24);
    let service = &config.services()[0];
    assert_eq!(
        (service.balance(), service.forward()),
        (Balance::RoundRobin, Forward::Nat)
    );
    let check = service.check().unwrap();
    assert_eq!((check.fall(), check.rise(), check.jitter()), (1, 5, 0.5));
    assert_eq!(check.port_of(&service.backends()[0]), 1884);
    let Probe::Mqtt(mqtt) = check.probe() else {
        panic!("an MQTT check")
    };
    assert_eq!(mqtt.version(), MqttVersion::V5);
    assert_eq!(mqtt.password().unwrap().expose(), "geheim");
    assert!(!format!("{config:?}").contains("geheim"));
    assert_eq!(service.backends()[0].port(), 2883);
    assert_eq!(service.backends()[0].weight(), 256);
    assert_eq!(service.backends()[0].max_connections(), 20_000);
    assert_eq!(service.slow_start(), Some(Duration::from_secs(60)));
}

#[test]
fn every_way_of_balancing_has_its_names() {
    let balance = |word| {
        let text = FULL.replace("\"round_robin\"", &format!("\"{word}\""));
        right(&text).services()[0].balance()
    };
    assert_eq!(balance("maglev"), Balance::Maglev);
    assert_eq!(balance("source"), Balance::Source);
    assert_eq!(balance("least_conn"), Balance::LeastConn);
    assert_eq!(balance("round_robin"), Balance::RoundRobin);
    assert_eq!(balance("weighted_round_robin"), Balance::RoundRobin);
}

#[test]
fn services_without_a_word_about_checks_are_asked_for_a_connection_if_they_can() {
    let check = "[service.check]\ntype = \"mqtt\"";
    let tcp = right(&changed(check, ""));
    assert_eq!(tcp.services()[0].check().unwrap().probe(), &Probe::Tcp);
    let udp = changed(check, "").replace("forward", "protocol = \"udp\"\nforward");
    assert_eq!(right(&udp).services()[0].check(), None);
}

#[test]
fn equal_files_give_equal_configurations() {
    let config: Config = right(RIGHT);
    assert_eq!(config, right(&format!("# A comment.\n{RIGHT}")));
    assert_ne!(config, right(FULL));
}

const FULL: &str = r#"
interface = "eth0"
xdp_mode = "generic"
seed = "00112233445566778899aabbccddeeff"
state_dir = "/tmp/state"
log = { level = "info,lb_user=debug", format = "json" }
api = { socket = "/tmp/socket", mode = "0600", group = "tidegate" }
metrics.listen = "[::1]:9463"
limits = { services = 1, backends = 1, flows = 10, half_open = 10, fragments = 10 }
tracking.idle = "90m"
nat = { sources = ["172.16.40.22", "fd00:40::22"], ports = "2000-3000" }

[[vip]]
address = "172.16.40.24/24"
assign = false

[[service]]
name = "mqtt"
vip = "172.16.40.24"
port = 1883
protocol = "tcp"
balance = "round_robin"
forward = "nat"
slow_start = "60s"

[service.check]
type = "mqtt"
version = "5"
username = "probe"
password = "geheim"
client_id = "tidegate"
port = 1884
interval = "500ms"
timeout = "500ms"
fall = 1
rise = 5
jitter = 0.5

[[service.backend]]
name = "broker1"
address = "172.16.40.20"
port = 2883
weight = 256
max_connections = 20000
"#;
