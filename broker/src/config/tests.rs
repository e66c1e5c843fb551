use std::time::Duration;

use super::*;
use crate::rate::Rate;

const SMALLEST: &str =
    "node = \"n\"\naccess.anonymous = true\n[[listener]]\naddress = \"127.0.0.1:0\"\n";

fn problems(text: &str) -> Vec<Problem> {
    match Config::parse(text) {
        Err(ConfigError::Invalid(problems)) => problems,
        other => panic!("expected broken rules, got {other:?}"),
    }
}

#[test]
fn example_configuration_is_valid() {
    let config = Config::parse(include_str!("../../configs/tidegate-broker.toml")).unwrap();
    assert_eq!(config.node(), "broker1");
    assert_eq!(config.listeners().len(), 2);
    assert_eq!(config.vip().unwrap().interface, "lo");
    assert_eq!(config.session().max_expiry, Duration::from_hours(7 * 24));
}

#[test]
fn listeners_that_the_example_only_shows_are_valid() {
    let example = include_str!("../../configs/tidegate-broker.toml");
    let shown = example.split("\n# [[listener]]").skip(1).map(|rest| {
        let (shown, _after) = rest.split_once("\n\n").unwrap();
        format!("[[listener]]{}\n", shown.replace("\n# ", "\n"))
    });
    let shown: String = shown.collect();
    let text = format!("node = \"n\"\naccess.anonymous = true\n{shown}");
    let config = Config::parse(&text).unwrap();
    let [tls, websocket] = config.listeners() else {
        panic!("two listeners");
    };
    assert!(!tls.proxies.is_empty());
    assert!(tls.tls.as_ref().unwrap().clients.is_some());
    assert!(matches!(websocket.protocol, Protocol::WebSocket(_)));
}

#[test]
fn persistence_that_the_example_only_shows_is_the_default() {
    let example = include_str!("../../configs/tidegate-broker.toml");
    let (_before, shown) = example.split_once("[persistence]\n").unwrap();
    let (shown, _after) = shown.split_once("\n\n").unwrap();
    let shown = shown.replace("# ", "");
    let parse = |shown: &str| {
        let text = format!(
            "node = \"n\"\naccess.anonymous = true\n[[listener]]\naddress = \"127.0.0.1:0\"\n\
             [persistence]\n{shown}"
        );
        Config::parse(&text)
    };
    let keys: Vec<_> = shown
        .lines()
        .map(|line| line.split_once("  ").map_or(line, |(key, _comment)| key))
        .collect();
    let shown = parse(&keys.join("\n")).unwrap();
    let by_default = parse(keys[0]).unwrap();
    assert_eq!(shown.persistence(), by_default.persistence());
    assert_eq!(by_default.persistence().unwrap().sync, Sync::Disk);
    assert_eq!(parse("").unwrap().persistence(), None);
    for (wrong, key) in [
        ("directory = \"here\"", "persistence.directory"),
        ("directory = \"/x\"\nsync = \"maybe\"", "persistence.sync"),
        ("directory = \"/x\"\nmax_bytes = 1", "persistence.max_bytes"),
        ("sync = \"disk\"", "persistence.sync"),
        ("min_free_bytes = 0", "persistence.min_free_bytes"),
        ("patience = \"10s\"", "persistence.patience"),
        (
            "directory = \"/x\"\npatience = \"500ms\"",
            "persistence.patience",
        ),
        (
            "directory = \"/x\"\npatience = \"1h\"",
            "persistence.patience",
        ),
    ] {
        let refused = parse(wrong).unwrap_err().to_string();
        assert!(refused.contains(key), "{refused}");
    }
}

#[test]
fn access_that_the_example_only_shows_is_valid() {
    let example = include_str!("../../configs/tidegate-broker.toml");
    let (_before, shown) = example.split_once("[access]").unwrap();
    let (shown, _after) = shown.split_once("\n[").unwrap();
    let keys = shown.lines().filter_map(|line| {
        let line = line.strip_prefix("# ").unwrap_or(line);
        let key = line.split_once(" = ").map(|(key, _value)| key);
        let is_key = key.is_some_and(|key| !key.contains(' '));
        (line.starts_with('[') || is_key).then_some(line)
    });
    let keys: Vec<_> = keys.collect();
    let text = format!(
        "node = \"n\"\n[[listener]]\naddress = \"127.0.0.1:0\"\n[access]\n{}\n",
        keys.join("\n")
    );
    let config = Config::parse(&text).unwrap();
    let access = config.access();
    assert!(access.acl.is_some() && access.client_ids.is_some());
    assert_eq!(access.authenticators.len(), 3);
}

#[test]
fn absent_sections_take_the_defaults() {
    let config = Config::parse(SMALLEST).unwrap();
    assert_eq!(config.limits().inflight, 100);
    assert_eq!(config.limits().packet_bytes, 1_048_576);
    assert_eq!((config.metrics(), config.health()), (None, None));
    assert_eq!(config.vip(), None);
    assert_eq!(config.log().format, LogFormat::Text);
    assert_eq!(config.stop().grace, Duration::ZERO);
    let control = config.control();
    assert!(control.is_default && control.mode == 0o660);
    assert!(control.socket.ends_with("tidegate-broker/control.sock"));
}

#[test]
fn health_may_be_asked_for_from_anywhere() {
    let parse = |listen| Config::parse(&format!("{SMALLEST}[health]\nlisten = {listen:?}\n"));
    let config = parse("0.0.0.0:18080").unwrap();
    assert_eq!(config.health(), Some(([0, 0, 0, 0], 18080).into()));
    let refused = parse("broker1").unwrap_err().to_string();
    assert!(refused.contains("line 6: health.listen"), "{refused}");
}

#[test]
fn control_socket_and_grace_are_read() {
    let text = format!(
        "{SMALLEST}[control]\nsocket = \"/tmp/b.sock\"\nmode = \"0600\"\ngroup = \"mqtt\"\n\
         [stop]\ngrace = \"20s\"\nrate = 100\n"
    );
    let config = Config::parse(&text).unwrap();
    let control = Control {
        socket: "/tmp/b.sock".into(),
        mode: 0o600,
        group: Some("mqtt".to_owned()),
        is_default: false,
    };
    assert_eq!(*config.control(), control);
    assert_eq!(config.stop().grace, Duration::from_secs(20));
    assert_eq!(config.stop().rate.map(u32::from), Some(100));
}

#[test]
fn unknown_key_is_refused_with_its_line() {
    let text = format!("{SMALLEST}[limits]\ninflght = 3\n");
    let error = Config::parse(&text).unwrap_err().to_string();
    assert!(
        error.contains("inflght") && error.contains("line 6"),
        "{error}"
    );
}

#[test]
fn every_broken_rule_is_reported_with_key_and_line() {
    let text = r#"node = ""
[[listener]]
address = "nowhere"
[vip]
addresses = ["172.16.40.24/33"]
interface = ""
[limits]
connections = 0
packet_bytes = 1
connect_timeout = "soon"
inflight = 70000
queue_messages = -1
sessions = 0
subscriptions = 0
retained = -1
[access]
hash_threads = 0
client_id = "%c"
acl = { path = "acl", default = "no" }
[[access.authenticator]]
type = "oracle"
[[access.authenticator]]
type = "file"
[[access.authenticator]]
type = "file"
path = "passwords"
[session]
max_expiry = "1y"
[metrics]
listen = "192.0.2.1:9464"
[log]
level = "a=b=c"
format = "xml"
[control]
socket = ""
mode = "1777"
group = ""
[stop]
grace = "2h"
"#;
    let problems = problems(text);
    let found: Vec<_> = problems
        .iter()
        .map(|problem| (problem.line, problem.key.as_str()))
        .collect();
    assert_eq!(
        found,
        [
            (1, "node"),
            (3, "listener[0].address"),
            (5, "vip.addresses[0]"),
            (6, "vip.interface"),
            (8, "limits.connections"),
            (9, "limits.packet_bytes"),
            (10, "limits.connect_timeout"),
            (11, "limits.inflight"),
            (12, "limits.queue_messages"),
            (13, "limits.sessions"),
            (14, "limits.subscriptions"),
            (15, "limits.retained"),
            (17, "access.hash_threads"),
            (18, "access.client_id"),
            (19, "access.acl.default"),
            (19, "access.acl.path"),
            (21, "access.authenticator[0].type"),
            (23, "access.authenticator[1].path"),
            (26, "access.authenticator[2].path"),
            (28, "session.max_expiry"),
            (30, "metrics.listen"),
            (32, "log.level"),
            (33, "log.format"),
            (35, "control.socket"),
            (36, "control.mode"),
            (37, "control.group"),
            (39, "stop.grace"),
        ]
    );
}

#[test]
fn configuration_without_listener_is_refused() {
    let text = "node = \"n\"\naccess.anonymous = true\n";
    assert_eq!(problems(text)[0].key, "listener");
}

#[test]
fn listener_listed_twice_is_refused() {
    let again = "[[listener]]\naddress = \"[::]:1883\"\n".repeat(2);
    let text = format!("{SMALLEST}{again}");
    assert_eq!(problems(&text)[0].key, "listener[2].address");
}

#[test]
fn zero_connect_timeout_is_refused() {
    let text = format!("{SMALLEST}[limits]\nconnect_timeout = \"0s\"\n");
    assert_eq!(problems(&text)[0].message, "must not be zero");
}

const TUNNEL: &str = "[vip]\naddresses = [\"192.0.2.1/32\"]\n[tunnel]\ninterface = \"eth0\"\n";

#[test]
fn tunnels_are_taken_from_whom_the_file_says() {
    let text = format!("{SMALLEST}{TUNNEL}from = [\"10.9.0.0/24\", \"fd00:9::1\"]\nmss = 1400\n");
    let config = Config::parse(&text).unwrap();
    let tunnel = config.tunnel().unwrap();
    let from: Vec<_> = tunnel.from.iter().map(ToString::to_string).collect();
    assert_eq!(from, ["10.9.0.0/24", "fd00:9::1/128"]);
    assert_eq!((tunnel.port, tunnel.mss), (6080, Some(1400)));
    assert!(Config::parse(SMALLEST).unwrap().tunnel().is_none());
}

#[test]
fn tunnels_without_senders_or_addresses_are_refused() {
    let keys = |text: &str| -> Vec<_> {
        let problems = problems(text).into_iter();
        problems.map(|problem| problem.key).collect()
    };
    let text = format!("{SMALLEST}{TUNNEL}from = []\nport = 0\nmode = \"fast\"\nmss = 87\n");
    let all = ["tunnel.from", "tunnel.port", "tunnel.mode", "tunnel.mss"];
    assert_eq!(keys(&text), all);
    let alone = "[tunnel]\ninterface = \"eth0\"\nfrom = [\"10.9.0.7/24\"]\n";
    assert_eq!(
        keys(&format!("{SMALLEST}{alone}")),
        ["tunnel", "tunnel.from[0]"]
    );
}

#[test]
fn listeners_may_speak_tls_and_know_proxies() {
    let text = r#"node = "n"
[[listener]]
address = "127.0.0.1:8883"
proxy_protocol = ["10.0.0.0/8", "fd00::7"]
[listener.tls]
certificate = "/etc/broker.pem"
key = "/etc/broker.key"
client_ca = "/etc/clients.pem"
[[listener]]
address = "127.0.0.1:8884"
[listener.tls]
certificate = "/etc/broker.pem"
key = "/etc/broker.key"
client_ca = "/etc/clients.pem"
client_certificates = "optional"
identity = "email"
[access]
anonymous = true
"#;
    let config = Config::parse(text).unwrap();
    let [required, optional] = config.listeners() else {
        panic!("two listeners");
    };
    let proxies: Vec<_> = required.proxies.iter().map(ToString::to_string).collect();
    assert_eq!(proxies, ["10.0.0.0/8", "fd00::7/128"]);
    let demand = |listener: &Listener| {
        let clients = listener.tls.as_ref().unwrap().clients.as_ref();
        clients.map(|clients| clients.demand)
    };
    assert_eq!(demand(required), Some(Demand::Required));
    assert_eq!(demand(optional), Some(Demand::Optional));
    assert!(optional.proxies.is_empty());
    let certified = Certified {
        listener: optional.address,
        by: NamedBy::Email,
    };
    assert_eq!(config.access().certified, [certified]);
}

#[test]
fn broken_rules_of_listeners_are_reported() {
    let text = r#"node = "n"
[[listener]]
address = "127.0.0.1:8883"
proxy_protocol = []
[listener.tls]
certificate = "broker.pem"
key = "/etc/broker.key"
client_certificates = "optional"
client_crl = "/etc/crl.pem"
identity = "dns"
[[listener]]
address = "127.0.0.1:8884"
proxy_protocol = ["10.0.0.1/8"]
[listener.tls]
certificate = "/etc/broker.pem"
key = "broker.key"
client_ca = "clients.pem"
client_certificates = "sometimes"
identity = "serial"
[access]
anonymous = true
"#;
    let found: Vec<_> = problems(text)
        .into_iter()
        .map(|problem| (problem.line, problem.key))
        .collect();
    let expected = [
        (4, "listener[0].proxy_protocol"),
        (6, "listener[0].tls.certificate"),
        (8, "listener[0].tls.client_certificates"),
        (9, "listener[0].tls.client_crl"),
        (10, "listener[0].tls.identity"),
        (13, "listener[1].proxy_protocol[0]"),
        (16, "listener[1].tls.key"),
        (17, "listener[1].tls.client_ca"),
        (18, "listener[1].tls.client_certificates"),
        (19, "listener[1].tls.identity"),
    ];
    assert_eq!(found, expected.map(|(line, key)| (line, key.to_owned())));
}

#[test]
fn listeners_of_websocket_have_a_path() {
    let protocol = |rest: &str| {
        let config = Config::parse(&format!("{SMALLEST}{rest}")).unwrap();
        config.listeners()[0].protocol.clone()
    };
    let websocket = |path: &str| {
        Protocol::WebSocket(Door {
            path: path.into(),
            origins: None,
        })
    };
    assert_eq!(protocol(""), Protocol::Mqtt);
    assert_eq!(protocol("protocol = \"mqtt\"\n"), Protocol::Mqtt);
    assert_eq!(protocol("protocol = \"ws\"\n"), websocket("/mqtt"));
    assert_eq!(
        protocol("protocol = \"ws\"\npath = \"/\"\n"),
        websocket("/")
    );
    let key = |rest: &str| problems(&format!("{SMALLEST}{rest}")).remove(0).key;
    assert_eq!(key("protocol = \"wss\"\n"), "listener[0].protocol");
    for lines in [
        "path = \"/\"",
        "protocol = \"ws\"\npath = \"mqtt\"",
        "protocol = \"ws\"\npath = \"/?\"",
    ] {
        assert_eq!(key(lines), "listener[0].path");
    }
    let origins = "protocol = \"ws\"\norigins = [\"https://a.example\", \"http://b:81\"]\n";
    let Protocol::WebSocket(door) = protocol(origins) else {
        panic!("no WebSocket");
    };
    assert_eq!(door.origins.unwrap(), ["https://a.example", "http://b:81"]);
    for lines in [
        "origins = []",
        "protocol = \"ws\"\norigins = [\"a.example\"]",
        "protocol = \"ws\"\norigins = [\"https://a.example/\"]",
        "protocol = \"ws\"\norigins = [\"https://*.example\"]",
    ] {
        assert_eq!(key(lines), "listener[0].origins");
    }
}

#[test]
fn rates_and_overload_have_bounds() {
    let config = Config::parse(SMALLEST).unwrap();
    assert_eq!(config.limits().connect_rate, None);
    assert_eq!(config.limits().publish_rate, None);
    assert_eq!(config.overload().lag, Duration::from_secs(1));
    assert_eq!(config.overload().memory, None);
    let text = "[limits]\nconnect_rate = 500\nconnect_burst = 2000\npublish_rate = 10\n\
                [overload]\nmemory_mib = 100\n";
    let config = Config::parse(&format!("{SMALLEST}{text}")).unwrap();
    let numbers = |rate: Option<Rate>| rate.map(|rate| (rate.per_second.get(), rate.burst.get()));
    assert_eq!(numbers(config.limits().connect_rate), Some((500, 2000)));
    assert_eq!(numbers(config.limits().publish_rate), Some((10, 10)));
    assert_eq!(config.overload().memory, Some(100 * 1024 * 1024));
    let text = "[limits]\nconnect_bytes = 1\nconnecting = 0\nconnect_burst = 5\n\
                publish_rate = 0\npublish_bytes_rate = -1\n\
                [overload]\nlag = \"0s\"\nmemory_mib = 0\n";
    let keys: Vec<_> = problems(&format!("{SMALLEST}{text}"))
        .into_iter()
        .map(|problem| problem.key)
        .collect();
    let expected = [
        "limits.connect_bytes",
        "limits.connecting",
        "limits.connect_burst",
        "limits.publish_rate",
        "limits.publish_bytes_rate",
        "overload.lag",
        "overload.memory_mib",
    ];
    assert_eq!(keys, expected);
}

#[test]
fn file_must_say_who_may_connect() {
    let listener = "node = \"n\"\n[[listener]]\naddress = \"127.0.0.1:0\"\n";
    for access in ["", "[access]\n", "[access]\nanonymous = false\n"] {
        let problems = problems(&format!("{listener}{access}"));
        assert_eq!(problems[0].key, "access");
        assert!(problems[0].message.contains("anonymous = true"));
    }
    let tls = "[listener.tls]\ncertificate = \"/c\"\nkey = \"/k\"\nclient_ca = \"/a\"\n";
    assert_eq!(problems(&format!("{listener}{tls}"))[0].key, "access");
    let named = format!("{listener}{tls}identity = \"common_name\"\n");
    assert!(Config::parse(&named).is_ok());
    let file = "[[access.authenticator]]\ntype = \"file\"\npath = \"/p\"\n";
    let config = Config::parse(&format!("{listener}{file}")).unwrap();
    let access = config.access();
    assert!(!access.anonymous);
    let path = "/p".into();
    assert_eq!(access.authenticators, [Authenticator::File { path }]);
}

#[test]
fn limits_in_bytes_have_defaults_and_are_not_zero() {
    let config = Config::parse(SMALLEST).unwrap();
    let Limits {
        queue_bytes,
        node_queue_bytes,
        subscription_bytes,
        retained_bytes,
        ..
    } = config.limits();
    assert_eq!([queue_bytes, subscription_bytes], [64 << 20; 2]);
    assert_eq!([node_queue_bytes, retained_bytes], [1 << 30; 2]);
    let keys = [
        "queue_bytes",
        "node_queue_bytes",
        "subscription_bytes",
        "retained_bytes",
    ];
    let text: String = keys.map(|key| format!("{key} = 0\n")).concat();
    let problems = problems(&format!("{SMALLEST}[limits]\n{text}"));
    let found = problems.iter().map(|problem| problem.key.clone());
    assert_eq!(
        found.collect::<Vec<_>>(),
        keys.map(|key| format!("limits.{key}"))
    );
}
