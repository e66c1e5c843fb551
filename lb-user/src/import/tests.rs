//! Whole files of the old stack, and what becomes of them: each result passes the program's own check.

use std::time::Duration;

use lb_common::abi::{Balance, Forward};
use proptest::prelude::*;

use super::{ImportError, Imported, Options, Source, Weight, import};
use crate::config::{self, model};

const CLASSIC: [&str; 2] = [
    include_str!("tests/classic-haproxy.cfg"),
    include_str!("tests/classic-keepalived.conf"),
];
const FAMILIES: [&str; 2] = [
    include_str!("tests/families-haproxy.cfg"),
    include_str!("tests/families-keepalived.conf"),
];
const IPVS: &str = include_str!("tests/ipvs-keepalived.conf");

fn imported(texts: &[&str]) -> Imported {
    let names = ["a.cfg", "b.conf"];
    let sources = texts.iter().zip(names);
    let sources: Vec<_> = sources.map(|(text, name)| Source { name, text }).collect();
    import(&sources, &Options::default()).unwrap_or_else(|error| panic!("{error}"))
}

/// The configuration, which is right, and the findings.
fn made(texts: &[&str]) -> (model::Config, Imported) {
    let imported = imported(texts);
    let config = config::parse(&imported.config, "made.toml");
    let config = config.unwrap_or_else(|errors| panic!("{errors}\n{}", imported.config));
    (config, imported)
}

/// Whether something of `weight` is told of `what` at `line` of `file`.
fn tells(imported: &Imported, weight: Weight, file: &str, line: usize, what: &str) -> bool {
    imported.findings.iter().any(|it| {
        it.weight == weight && it.file == file && it.line == line && it.what.contains(what)
    })
}

/// The line of `text` that begins with `start`, from 1.
fn line(text: &str, start: &str) -> usize {
    let at = text
        .lines()
        .position(|line| line.trim_start().starts_with(start));
    at.unwrap_or_else(|| panic!("no line begins with {start}")) + 1
}

fn router<'a>(config: &'a model::Config, name: &str) -> &'a model::Vrrp {
    let mut routers = config.vrrps().iter();
    let found = routers.find(|router| router.name() == name);
    found.unwrap_or_else(|| panic!("no router is called {name}"))
}

#[test]
fn the_classic_pair_is_carried_over_without_a_loss() {
    let (config, imported) = made(&CLASSIC);
    assert!(!imported.has_lost(), "{:#?}", imported.findings);
    assert_eq!(config.interface(), "eth0");
    assert_eq!(config.limits().flows, 2_000_000);
    let services = config.services().iter();
    let services: Vec<_> = services
        .map(|it| (it.name(), it.vip().to_string(), it.port()))
        .collect();
    let vip = "172.16.40.24".to_owned();
    assert_eq!(
        services,
        [("mqtt-in", vip.clone(), 1_883), ("dashboard", vip, 18_083)]
    );
    let mqtt = &config.services()[0];
    assert_eq!(mqtt.protocol(), model::Protocol::Mqtt);
    assert_eq!(
        (mqtt.balance(), mqtt.forward()),
        (Balance::RoundRobin, Forward::Nat)
    );
    let check = mqtt.check().unwrap();
    assert_eq!((check.fall(), check.rise()), (2, 5));
    assert_eq!(check.interval(), Duration::from_secs(10));
    assert_eq!(check.timeout(), Duration::from_secs(10));
    let model::Probe::Http(http) = config.services()[1].check().unwrap().probe() else {
        panic!("the dashboard is asked by HTTP")
    };
    assert_eq!(http.path(), "/status");
}

#[test]
fn the_classic_router_can_run_beside_keepalived() {
    let (config, imported) = made(&CLASSIC);
    let router = router(&config, "VI_1");
    assert_eq!(router.version(), model::VrrpVersion::V2);
    assert_eq!((router.vrid().get(), router.priority().get()), (51, 100));
    assert_eq!(router.source(), Some("172.16.40.22".parse().unwrap()));
    // What keepalived sends of a longer one.
    assert_eq!(
        router.password().map(model::Secret::expose),
        Some("1111secr")
    );
    let [disk] = router.tracks() else {
        panic!("HAProxy is not asked for")
    };
    assert_eq!(
        (disk.name(), disk.cost().map(u8::from)),
        ("chk_disk", Some(30))
    );
    assert_eq!(config.vips()[0].prefix(), 24);
    let at = line(CLASSIC[1], "auth_type");
    assert!(tells(
        &imported,
        Weight::Changed,
        "b.conf",
        at,
        "authentication"
    ));
    let names: Vec<_> = config.notifies().iter().map(model::Notify::name).collect();
    assert_eq!(names, ["VI_1-notify_master", "VI_1-notify", "mail"]);
}

/// One router with these settings beside its address.
fn instance(globals: &str, settings: &str) -> String {
    format!(
        "global_defs {{\n{globals}\n}}\nvrrp_instance VI_1 {{\n interface eth0\n virtual_router_id 51\n \
         virtual_ipaddress {{ 172.16.40.24/24 }}\n{settings}\n}}\n"
    )
}

#[test]
fn a_strict_keepalived_sends_no_password_so_none_is_carried_over() {
    const PASSWORD: &str = "authentication {\n auth_type PASS\n auth_pass 1111\n}";
    let password = |globals: &str, settings: &str| {
        let (config, _) = made(&[&instance(globals, settings)]);
        let found = config.vrrps()[0].password();
        found.map(|password| password.expose().to_owned())
    };
    assert_eq!(password("", PASSWORD).as_deref(), Some("1111"));
    assert_eq!(password("vrrp_strict", PASSWORD), None);
    assert_eq!(password("", &format!("{PASSWORD}\nstrict_mode")), None);
    let lenient = format!("{PASSWORD}\nstrict_mode off");
    assert_eq!(password("vrrp_strict", &lenient).as_deref(), Some("1111"));
}

#[test]
fn a_master_without_a_priority_is_told_of_what_keepalived_makes_of_it() {
    let (config, imported) = made(&[&instance("", "state MASTER\nnopreempt")]);
    assert_eq!(config.vrrps()[0].priority().get(), 255);
    assert!(tells(
        &imported,
        Weight::Changed,
        "a.cfg",
        4,
        "vrrp_instance VI_1"
    ));
    assert!(tells(&imported, Weight::Changed, "a.cfg", 9, "nopreempt"));
    let (config, _) = made(&[&instance("", "state BACKUP")]);
    assert_eq!(config.vrrps()[0].priority().get(), 100);
}

#[test]
fn mails_that_keepalived_would_not_send_are_told_of() {
    const MAIL: &str = "notification_email {\n ops@example.org\n}\nnotification_email_from lb@example.org\n\
                        smtp_server 172.16.40.5";
    let (config, silent) = made(&[&instance(MAIL, "")]);
    assert_eq!(config.notifies().len(), 1);
    assert!(tells(
        &silent,
        Weight::Changed,
        "a.cfg",
        2,
        "notification_email"
    ));
    for text in [
        instance(MAIL, "smtp_alert"),
        instance(&format!("{MAIL}\nsmtp_alert on"), ""),
    ] {
        let (_, alerting) = made(&[&text]);
        assert!(!tells(
            &alerting,
            Weight::Changed,
            "a.cfg",
            2,
            "notification_email"
        ));
    }
}

#[test]
fn what_is_about_http_is_told_of_where_http_is_spoken() {
    let text = |mode: &str| {
        format!(
            "listen web\n bind 172.16.40.24:80\n option forwardfor\n cookie a insert\n option httplog\n \
             mode {mode}\n server a 172.16.40.20\n"
        )
    };
    let (_, http) = made(&[&text("http")]);
    assert!(tells(&http, Weight::Lost, "a.cfg", 3, "option forwardfor"));
    assert!(tells(&http, Weight::Lost, "a.cfg", 4, "cookie"));
    let (_, tcp) = made(&[&text("tcp")]);
    assert!(!tcp.has_lost(), "{:#?}", tcp.findings);
    assert!(tells(&tcp, Weight::Needless, "a.cfg", 5, "option httplog"));
}

#[test]
fn a_check_has_the_host_that_is_written_behind_its_version() {
    let text = "listen web\n bind 172.16.40.24:8884\n option httpchk GET /up HTTP/1.1\\r\\nHost:\\ a.example\n \
                server a 172.16.40.20:1883 check\n";
    let (config, _) = made(&[text]);
    let service = &config.services()[0];
    let model::Probe::Http(http) = service.check().unwrap().probe() else {
        panic!("it is asked by HTTP")
    };
    assert_eq!((http.path(), http.host()), ("/up", Some("a.example")));
    // What is behind the port of MQTT speaks it.
    assert_eq!(service.protocol(), model::Protocol::Mqtt);
}

#[test]
fn findings_without_end_are_cut_and_that_is_a_loss() {
    let lines: String = (0..1_500)
        .map(|number| format!(" tune.x{number} 1\n"))
        .collect();
    let (_, imported) = made(&[&format!("global\n{lines}")]);
    assert!(imported.has_lost());
    assert_eq!(
        imported.findings.last().map(|it| it.what.as_str()),
        Some("the rest")
    );
}

#[test]
fn no_finding_repeats_a_secret() {
    let (_, imported) = made(&CLASSIC);
    for finding in &imported.findings {
        let text = finding.to_string();
        assert!(
            !text.contains("hunter2") && !text.contains("1111"),
            "{text}"
        );
    }
}

#[test]
fn both_families_excluded_addresses_and_groups_become_routers() {
    let (config, imported) = made(&FAMILIES);
    let front = router(&config, "front4");
    assert_eq!(front.version(), model::VrrpVersion::V3);
    assert_eq!(front.advert_interval(), Duration::from_millis(250));
    assert_eq!(front.preempt_after(), None);
    assert_eq!(
        front.peers(),
        ["172.16.40.23".parse::<std::net::IpAddr>().unwrap()]
    );
    // A script that raised the priority lowers it when it fails.
    assert_eq!(front.priority().get(), 150);
    assert_eq!(front.tracks()[0].cost().map(u8::from), Some(50));
    let more = router(&config, "front4-more");
    assert_eq!(more.vrid().get(), 52);
    let v6 = router(&config, "front4-v6");
    assert_eq!(v6.vips().len(), 2);
    let front6 = router(&config, "front6");
    assert_eq!(front6.vips()[0].to_string(), "fe80::200:5eff:fe00:23c");
    for router in [front, more, v6, front6] {
        assert_eq!(router.group(), Some("both"), "{}", router.name());
    }
    let at = line(FAMILIES[1], "10.1.0.1/24");
    assert!(tells(&imported, Weight::Lost, "b.conf", at, "10.1.0.1"));
    assert!(
        config
            .vips()
            .iter()
            .all(|vip| vip.address().to_string() != "10.1.0.1")
    );
}

#[test]
fn what_cannot_be_carried_over_is_told_with_its_line() {
    let (config, imported) = made(&FAMILIES);
    let lost = [
        ("stick-table", "stick-table"),
        ("stick on", "stick"),
        ("tcp-request", "tcp-request"),
        ("bind *:8883", "bind *:8883"),
        ("server gone", "server gone"),
        ("server crypt", "server crypt"),
        ("server c4", "backup"),
        ("server a 172.16.40.20 send", "send-proxy-v2"),
    ];
    for (start, what) in lost {
        let at = line(FAMILIES[0], start);
        assert!(
            tells(&imported, Weight::Lost, "a.cfg", at, what),
            "{what}: {imported:#?}"
        );
    }
    let mqtt = &config.services()[0];
    assert_eq!(mqtt.balance(), Balance::LeastConn);
    // Two hours of silence are one and a half times this.
    assert_eq!(mqtt.keep_alive(), Duration::from_secs(80 * 60));
    let backends = mqtt.backends().iter();
    let backends: Vec<_> = backends
        .map(|it| (it.name(), it.port(), it.weight(), it.max_connections()))
        .collect();
    let expected = [
        ("a4", 1_883, 3, 20_000),
        ("b4", 1_883, 0, 20_000),
        ("c4", 1_884, 0, 20_000),
    ];
    assert_eq!(backends, expected);
    let sticky = config
        .services()
        .iter()
        .find(|it| it.name() == "sticky")
        .unwrap();
    assert_eq!(sticky.check().unwrap().port(), Some(1_883));
    assert_eq!(sticky.backends()[0].port(), 1_884);
}

#[test]
fn services_of_ipvs_keep_their_way_and_their_checks() {
    let (config, imported) = made(&[IPVS]);
    let [mqtt, web] = config.services() else {
        panic!("two services: {}", imported.config)
    };
    assert_eq!(
        (mqtt.forward(), mqtt.balance()),
        (Forward::Dsr, Balance::LeastConn)
    );
    assert_eq!(mqtt.backends()[0].max_connections(), 30_000);
    assert_eq!(mqtt.backends()[0].weight(), 2);
    let check = mqtt.check().unwrap();
    assert_eq!(
        (check.interval(), check.fall()),
        (Duration::from_secs(6), 4)
    );
    assert_eq!(check.timeout(), Duration::from_secs(3));
    assert_eq!(
        (web.forward(), web.balance()),
        (Forward::Nat, Balance::Source)
    );
    let lines = [
        ("sorry_server", "sorry_server"),
        ("virtual_server fwmark", "fwmark"),
    ];
    for (start, what) in lines {
        let at = line(IPVS, start);
        assert!(tells(&imported, Weight::Lost, "a.cfg", at, what), "{what}");
    }
}

#[test]
fn a_front_end_on_all_addresses_needs_vips_from_somewhere() {
    let text = "listen mqtt\n bind *:1883\n server a 172.16.40.20:1883 check\n";
    let source = Source {
        name: "a.cfg",
        text,
    };
    let (_, alone) = made(&[text]);
    assert!(tells(&alone, Weight::Lost, "a.cfg", 2, "bind *:1883"));
    let options = Options {
        interface: Some("ens3".to_owned()),
        vips: vec![("172.16.40.24".parse().unwrap(), 32)],
        ..Options::default()
    };
    let imported = import(&[source], &options).unwrap();
    assert!(!imported.has_lost(), "{:#?}", imported.findings);
    let config = config::parse(&imported.config, "made.toml").unwrap();
    assert_eq!(config.interface(), "ens3");
    assert_eq!(config.services()[0].port(), 1_883);
}

#[test]
fn a_file_of_neither_program_is_refused() {
    let refused = |text: &str| {
        let source = Source { name: "x", text };
        import(&[source], &Options::default()).unwrap_err()
    };
    assert_eq!(
        refused("interface = \"eth0\"\n"),
        ImportError::UnknownFormat("x".to_owned())
    );
    assert_eq!(refused(""), ImportError::UnknownFormat("x".to_owned()));
    let long = "global\n".repeat(1 << 20);
    assert_eq!(refused(&long), ImportError::TooLong("x".to_owned()));
}

#[test]
fn other_files_are_not_followed() {
    let text = "global_defs {\n}\ninclude /etc/keepalived/conf.d/*.conf\n";
    let (_, imported) = made(&[text]);
    assert!(tells(&imported, Weight::Lost, "a.cfg", 3, "include"));
}

/// Words that mean something to the parsers, in any order.
fn soup() -> impl Strategy<Value = String> {
    const WORDS: &str = "global defaults frontend backend listen bind *:1883 [::]:1883 :1-70000 server a \
        172.16.40.20:1883 172.16.40.24 fd00::1 127.0.0.1 check inter 0 fall 99999 rise weight 300 port \
        maxconn backup disabled ssl default-server slowstart 400d balance source timeout client 9999d \
        option httpchk http-check expect status send uri hdr mode http stats default_backend from \
        vrrp_instance vrrp_script global_defs { } virtual_ipaddress virtual_ipaddress_excluded interface \
        eth0 eth1 dev virtual_router_id 51 255 priority 254 advert_int 0.001 1e9 nopreempt use_vmac \
        authentication auth_type PASS AH auth_pass x unicast_peer unicast_src_ip track_script weight -300 \
        script /bin/a notify notify_master vrrp_sync_group group virtual_server real_server lb_kind DR TUN \
        protocol UDP TCP_CHECK HTTP_GET url path digest fwmark fe80::1 224.0.0.18 ::ffff:1.2.3.4 é";
    let words: Vec<&str> = WORDS
        .split_whitespace()
        .chain(["\n", "\n", "\"", "'", "\\", "#"])
        .collect();
    let some = prop::collection::vec(prop::sample::select(words), 0..120);
    some.prop_map(|words| words.join(" "))
}

/// Whatever becomes of it, it is a configuration that the program takes.
fn is_taken(texts: &[&str]) -> Result<(), TestCaseError> {
    let sources: Vec<_> = texts
        .iter()
        .map(|text| Source { name: "x", text })
        .collect();
    if let Ok(imported) = import(&sources, &Options::default()) {
        let made = config::parse(&imported.config, "made.toml");
        let errors = made.err().map(|errors| errors.to_string());
        prop_assert_eq!(errors, None, "{}", imported.config);
    }
    Ok(())
}

proptest! {
    #[test]
    fn no_text_makes_the_parsers_panic(text in "\\PC{0,200}") {
        is_taken(&[&format!("global\n{text}"), &format!("global_defs {{\n}}\n{text}")])?;
    }

    #[test]
    fn no_words_make_the_parsers_panic(one in soup(), other in soup()) {
        let keepalived = format!("global_defs {{\n}}\nvrrp_instance a {{\n{other}");
        is_taken(&[&format!("global\nlisten a\n{one}"), &keepalived])?;
    }

    #[test]
    fn no_change_of_a_file_makes_a_wrong_configuration(
        which in 0_usize..5,
        at in 0_usize..2_000,
        cut in 0_usize..60,
        put in "[a-z0-9:.{}\"'\n /#*-]{0,20}",
    ) {
        let texts = [CLASSIC[0], CLASSIC[1], FAMILIES[0], FAMILIES[1], IPVS];
        let text = texts[which];
        let at = at.min(text.len());
        let end = (at + cut).min(text.len());
        let changed = format!("{}{put}{}", &text[..at], &text[end..]);
        let beside = if which % 2 == 0 { CLASSIC[1] } else { CLASSIC[0] };
        is_taken(&[&changed, beside])?;
    }
}
