//! Files that break one rule, and what is said about them.

use proptest::prelude::*;

use super::{RIGHT, changed, parse, wrong};

/// Line of `service[0].port` in the right file.
const PORT_LINE: usize = 13;

#[test]
fn every_rule_is_reported_at_its_key() {
    for (from, to, expected) in BROKEN {
        let message = wrong(&changed(from, to));
        assert!(
            message.contains(expected),
            "{from} -> {to}: expected {expected:?} in\n{message}"
        );
        assert!(message.starts_with("test.toml:"), "{message}");
        assert_eq!(
            message.lines().count(),
            1,
            "more than one error:\n{message}"
        );
    }
}

/// What to change in the right file, to what, and what is said about it.
const BROKEN: &[(&str, &str, &str)] = &[
    (
        "interface = \"eth0\"",
        "",
        "1: interface: missing; add interface = \"eth0\"",
    ),
    (
        "\"eth0\"",
        "\"\"",
        "2: interface: \"\" is not the name of an interface",
    ),
    ("\"eth0\"", "\"a-name-too-long-for-linux\"", "interface: "),
    ("\"eth0\"", "7", "interface: 7 is not"),
    (
        "24/32\"",
        "24/32\"\nwithout_backends = \"release\"",
        "vip[0].without_backends: \"release\" is not \"stay\" or",
    ),
    (
        "24/32\"",
        "24/32\"\nassign = false\nwithout_backends = \"withdraw\"",
        "vip[0].without_backends: 172.16.40.24 is assigned by somebody else",
    ),
    (
        "interface =",
        "xdp_mode = \"fast\"\ninterface =",
        "xdp_mode: \"fast\" is not \"auto\" or",
    ),
    (
        "interface =",
        "seed = \"12\"\ninterface =",
        "seed: the value is not 32 hexadecimal digits",
    ),
    (
        "interface =",
        "state_dir = \"\"\ninterface =",
        "state_dir: \"\" is not",
    ),
    (
        "interface =",
        "log.level = \"lb=loud\"\ninterface =",
        "log.level: ",
    ),
    (
        "interface =",
        "log.format = \"xml\"\ninterface =",
        "log.format: \"xml\" is not \"text\" or",
    ),
    (
        "interface =",
        "api.mode = \"888\"\ninterface =",
        "api.mode: \"888\" is not permission bits",
    ),
    (
        "interface =",
        "api.mode = \"1777\"\ninterface =",
        "api.mode: ",
    ),
    (
        "interface =",
        "api.socket = \"\"\ninterface =",
        "api.socket: ",
    ),
    (
        "interface =",
        "metrics = {}\ninterface =",
        "2: metrics.listen: missing; add listen =",
    ),
    (
        "interface =",
        "metrics.listen = \"0.0.0.0:1\"\ninterface =",
        "0.0.0.0 is not a loopback",
    ),
    (
        "interface =",
        "metrics.listen = \"127.0.0.1\"\ninterface =",
        "is not an address and port",
    ),
    (
        "interface =",
        "limits.services = 0\ninterface =",
        "a whole number from 1 to 1024",
    ),
    (
        "interface =",
        "limits.backends = 1\ninterface =",
        "limits.backends: 2 are configured",
    ),
    (
        "interface =",
        "limits.flows = -1\ninterface =",
        "limits.flows: -1 is not",
    ),
    (
        "interface =",
        "tracking.idle = \"0s\"\ninterface =",
        "tracking.idle: \"0s\" is not a duration",
    ),
    (
        "interface =",
        "nat.ports = \"9-8\"\ninterface =",
        "nat.ports: the range is empty",
    ),
    (
        "interface =",
        "nat.ports = \"0-8\"\ninterface =",
        "nat.ports: \"0-8\" is not a range of ports",
    ),
    (
        "interface =",
        "nat.sources = [\"::1\"]\ninterface =",
        "nat.sources[0]: ::1 is a loopback",
    ),
    (
        "interface =",
        "nat.sources = \"10.0.0.1\"\ninterface =",
        "nat.sources: \"10.0.0.1\" is not an array",
    ),
    (
        "interface =",
        "nat.sources = [\"172.16.40.24\"]\ninterface =",
        "172.16.40.24 is a VIP",
    ),
    (
        "interface =",
        "nat.sources = [\"10.0.0.1\", \"10.0.0.1\"]\ninterface =",
        "nat.sources[1]: also given at line 2; remove one",
    ),
    (
        "interface =",
        "nat.sources = [\"10.0.0.1\", \"10.0.0.2\", \"10.0.0.3\", \"10.0.0.4\", \"10.0.0.5\", \
         \"10.0.0.6\", \"10.0.0.7\", \"10.0.0.8\", \"10.0.0.9\"]\ninterface =",
        "nat.sources[8]: more than 8 addresses of one family",
    ),
    (
        "interface =",
        "vips = 3\ninterface =",
        "2: vips: unknown key; did you mean `vip`?",
    ),
    (
        "fd00:40::24/128",
        "172.16.40.24",
        "vip[1].address: also given at line 5; remove one",
    ),
    (
        "fd00:40::24/128",
        "fd00:40::24/129",
        "vip[1].address: \"fd00:40::24/129\" is not an address",
    ),
    ("fd00:40::24/128", "fd00:40::24/0", "vip[1].address: "),
    (
        "fd00:40::24/128",
        "224.0.0.1/32",
        "vip[1].address: 224.0.0.1 is a multicast address",
    ),
    (
        "fd00:40::24/128",
        "0.0.0.0/32",
        "vip[1].address: 0.0.0.0 is the unspecified address",
    ),
    (
        "fd00:40::24/128",
        "::ffff:1.2.3.4/128",
        "is an IPv4 address in IPv6 form",
    ),
    (
        "fd00:40::24/128",
        "255.255.255.255/32",
        "is the broadcast address",
    ),
    ("name = \"mqtt\"", "", "10: service[0].name: missing"),
    (
        "name = \"mqtt\"",
        "name = \"a/b\"",
        "service[0].name: `a/b` is not a name",
    ),
    (
        "name = \"mqtt\"",
        "nme = \"x\"\nname = \"mqtt\"",
        "service[0].nme: unknown key; did you mean `name`?",
    ),
    (
        "vip = \"172.16.40.24\"",
        "vip = \"172.16.40.25\"",
        "service[0].vip: 172.16.40.25 is not declared",
    ),
    (
        "port = 1883",
        "port = 0",
        "13: service[0].port: 0 is not a whole number from 1 to 65535",
    ),
    (
        "port = 1883",
        "port = 65536",
        "service[0].port: 65536 is not",
    ),
    (
        "port = 1883",
        "port = \"1883\"",
        "service[0].port: \"1883\" is not a whole number",
    ),
    (
        "port = 1883",
        "port = 1883\nprotocol = \"sctp\"",
        "protocol: \"sctp\" is not \"tcp\" or \"udp\" or \"mqtt\"",
    ),
    (
        "port = 1883",
        "port = 1883\nbalance = \"random\"",
        "balance: \"random\" is not \"maglev\" or",
    ),
    ("forward = \"dsr\"", "", "service[0].forward: missing"),
    (
        "forward = \"dsr\"",
        "forward = \"pigeon\"",
        "forward: \"pigeon\" is not \"dsr\" or \"nat\" or \"tunnel\"",
    ),
    (
        "port = 1883",
        "port = 1883\nprotocol = \"udp\"",
        "service[0].check.type: checks speak TCP",
    ),
    ("type = \"mqtt\"", "", "service[0].check.type: missing"),
    (
        "type = \"mqtt\"",
        "type = \"ping\"",
        "service[0].check.type: \"ping\" is not \"mqtt\" or",
    ),
    (
        "type = \"mqtt\"",
        "type = \"mqtt\"\ninterval = \"2\"",
        "check.interval: \"2\" is not a duration",
    ),
    (
        "type = \"mqtt\"",
        "type = \"mqtt\"\ninterval = 2",
        "check.interval: 2 is not a duration",
    ),
    (
        "type = \"mqtt\"",
        "type = \"mqtt\"\ninterval = \"0ms\"",
        "check.interval: \"0ms\" is not",
    ),
    (
        "type = \"mqtt\"",
        "type = \"mqtt\"\ntimeout = \"3s\"",
        "check.timeout: longer than the interval; make it 2s",
    ),
    (
        "type = \"mqtt\"",
        "type = \"mqtt\"\nfall = 0",
        "check.fall: 0 is not",
    ),
    (
        "type = \"mqtt\"",
        "type = \"mqtt\"\nrise = 0",
        "check.rise: 0 is not",
    ),
    (
        "type = \"mqtt\"",
        "type = \"mqtt\"\njitter = 0.6",
        "check.jitter: 0.6 is not a number from 0 to 0.5",
    ),
    (
        "type = \"mqtt\"",
        "type = \"mqtt\"\njitter = nan",
        "check.jitter: nan is not",
    ),
    (
        "type = \"mqtt\"",
        "type = \"mqtt\"\nport = 0",
        "check.port: 0 is not",
    ),
    (
        "type = \"mqtt\"",
        "type = \"mqtt\"\nversion = \"4\"",
        "check.version: \"4\" is not \"3.1.1\" or \"5\"",
    ),
    (
        "type = \"mqtt\"",
        "type = \"mqtt\"\npassword = \"x\"",
        "check.password: MQTT 3.1.1 allows no password",
    ),
    (
        "type = \"mqtt\"",
        "type = \"mqtt\"\npassword = 7",
        "check.password: the value is not a password",
    ),
    (
        "type = \"mqtt\"",
        "type = \"mqtt\"\npath = \"/\"",
        "check.path: only for checks of type http",
    ),
    (
        "type = \"mqtt\"",
        "type = \"tcp\"\nusername = \"x\"",
        "check.username: only for checks of type mqtt",
    ),
    (
        "type = \"mqtt\"",
        "type = \"none\"\nfall = 2",
        "check.fall: only for checks of type mqtt, tcp or http",
    ),
    (
        "type = \"mqtt\"",
        "type = \"http\"\npath = \"x\"",
        "check.path: \"x\" is not a path",
    ),
    (
        "type = \"mqtt\"",
        "type = \"http\"\nhost = \"a b\"",
        "check.host: \"a b\" is not the name of a host",
    ),
    (
        "type = \"mqtt\"",
        "type = \"http\"\nexpect = 99",
        "check.expect: 99 is not",
    ),
    (
        "name = \"b\"",
        "name = \"a\"",
        "service[0].backend[1].name: also given at line 20",
    ),
    (
        "\"172.16.40.21\"",
        "\"172.16.40.20\"",
        "backend[1].address: also given at line 21; a service uses",
    ),
    (
        "\"172.16.40.21\"",
        "\"172.16.40.24\"",
        "backend[1].address: 172.16.40.24 is a VIP",
    ),
    (
        "\"172.16.40.21\"",
        "\"fd00:40::21\"",
        "must both be IPv4 or both be IPv6",
    ),
    (
        "\"172.16.40.21\"",
        "\"broker2\"",
        "backend[1].address: \"broker2\" is not an IPv4 or IPv6",
    ),
    (
        "\"172.16.40.21\"",
        "\"172.16.40.21\"\nport = 1884",
        "backend[1].port: dsr cannot change ports",
    ),
    (
        "\"172.16.40.21\"",
        "\"172.16.40.21\"\nweight = 257",
        "backend[1].weight: 257 is not",
    ),
    (
        "\"172.16.40.21\"",
        "\"172.16.40.21\"\nweight = 1.5",
        "backend[1].weight: 1.5 is not",
    ),
    (
        "\"172.16.40.21\"",
        "\"172.16.40.21\"\nmax_connections = 10",
        "backend[1].max_connections: nobody counts flows that are not recorded: set `balance = ",
    ),
    (
        "\"172.16.40.21\"",
        "\"172.16.40.21\"\nmax_connections = -1",
        "backend[1].max_connections: -1 is not",
    ),
];

#[test]
fn all_mistakes_are_reported_together_in_the_order_of_lines() {
    let text = changed("port = 1883", "port = 0")
        .replace("eth0", "")
        .replace("172.16.40.21", "fd00:40::21")
        .replace("type = \"mqtt\"", "type = \"mqtt\"\nfoo = 1");
    let errors = parse(&text).unwrap_err();
    let found: Vec<(&str, Option<usize>)> = errors.iter().map(|e| (e.path(), e.line())).collect();
    assert_eq!(
        found,
        [
            ("interface", Some(2)),
            ("service[0].port", Some(PORT_LINE)),
            ("service[0].check.foo", Some(18)),
            ("service[0].backend[1].address", Some(26)),
        ]
    );
}

#[test]
fn services_that_clash_are_reported_at_the_later_one() {
    let (_, service) = RIGHT.split_once("[[service]]").unwrap();
    let message = wrong(&format!("{RIGHT}[[service]]{service}"));
    assert!(message.contains("service[1].name: also given at line 11; choose another name"));
    assert!(message.contains("service[1].port: also given at line 13; each VIP, port"));
    let other_port = service
        .replace("\"mqtt\"\nvip", "\"mqtt2\"\nvip")
        .replace("1883", "1884");
    super::right(&format!("{RIGHT}[[service]]{other_port}"));
    let other_protocol = service
        .replace("\"mqtt\"\nvip", "\"mqtt2\"\nvip")
        .replace("forward", "protocol = \"udp\"\nforward")
        .replace("type = \"mqtt\"", "type = \"mqtt\"\nport = 1883");
    super::right(&format!("{RIGHT}[[service]]{other_protocol}"));
}

#[test]
fn one_mistake_makes_one_error() {
    let message = wrong(&changed("172.16.40.24/32", "172.16.40.24/33"));
    assert_eq!(message.lines().count(), 1, "{message}");
    let message = wrong(&format!("foo = 1{RIGHT}"));
    assert!(
        message.contains("1: foo: unknown key; known here: api, dashboard, interface,"),
        "{message}"
    );
}

#[test]
fn service_without_backends_is_refused() {
    let (text, _) = RIGHT.split_once("[[service.backend]]").unwrap();
    assert!(wrong(text).contains("10: service[0]: no backends; add a [[service.backend]]"));
}

#[test]
fn service_with_more_backends_than_turns_is_refused() {
    let mut text = format!("limits.backends = 2000{RIGHT}");
    for n in 0..1_023 {
        let (high, low) = (n / 256, n % 256);
        text += &format!("[[service.backend]]\nname = \"x{n}\"\naddress = \"10.0.{high}.{low}\"\n");
    }
    assert!(wrong(&text).contains("service[0]: 1025 backends are too many"));
}

#[test]
fn syntax_errors_name_their_lines() {
    let message = wrong(&changed("port = 1883", "port = = 1883"));
    assert!(
        message.starts_with(&format!("test.toml:{PORT_LINE}: not TOML: ")),
        "{message}"
    );
    let message = wrong(&changed("port = 1883", "port = 1883\nport = 1884"));
    assert!(message.starts_with("test.toml:14: not TOML: "), "{message}");
}

#[test]
fn missing_file_is_reported_by_its_name() {
    let errors = crate::config::load("/nonexistent/tidegate.toml".as_ref()).unwrap_err();
    assert!(
        errors
            .to_string()
            .starts_with("/nonexistent/tidegate.toml: cannot be read: ")
    );
}

proptest! {
    #[test]
    fn no_text_makes_the_reader_panic(text in "\\PC*") {
        let _ = parse(&text);
    }

    #[test]
    fn no_change_of_a_right_file_makes_the_reader_panic(
        at in 0..RIGHT.len(),
        cut in 0_usize..30,
        put in "[\\[\\]a-z0-9=\"\\.\n/:{}-]{0,12}",
    ) {
        let end = (at + cut).min(RIGHT.len());
        let _ = parse(&format!("{}{put}{}", &RIGHT[..at], &RIGHT[end..]));
    }
}
