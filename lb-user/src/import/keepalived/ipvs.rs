//! `virtual_server`: what IPVS balances for keepalived.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use super::tree::Node;
use crate::import::draft::{Backend, Check, CheckKind, Draft, Pick, Service, Speech, Vip, Way};
use crate::import::finding::Findings;
use crate::import::values::{is_host, name, seconds, whole};

/// The statements of each `virtual_server_group`.
pub(super) struct Groups<'a>(BTreeMap<&'a str, &'a [Node]>);

impl<'a> Groups<'a> {
    pub(super) fn read(nodes: &'a [Node]) -> Self {
        let groups = nodes
            .iter()
            .filter(|it| it.word(0) == "virtual_server_group");
        Self(groups.map(|it| (it.word(1), &it.block[..])).collect())
    }
}

/// What the servers of a service are asked, and how often.
#[derive(Debug)]
struct Times {
    interval: Duration,
    timeout: Duration,
    fall: u32,
}

/// Puts the services of `node` into `draft`.
pub(super) fn read(node: &Node, groups: &Groups<'_>, draft: &mut Draft, findings: &mut Findings) {
    let what = format!("virtual_server {} {}", node.word(1), node.word(2));
    let endpoints = match node.word(1) {
        "fwmark" => {
            let why = "packets are told apart by address and port, not by marks";
            let instead = "add a [[service]] for each address and port";
            return findings.lost(node.line, what, why, instead);
        }
        "group" => groups.0.get(node.word(2)).copied().unwrap_or_default(),
        _ => std::slice::from_ref(node),
    };
    let is_group = node.word(1) == "group";
    let mut service = Service {
        file: findings.file().to_owned(),
        line: node.line,
        name: String::new(),
        vip: IpAddr::from([0, 0, 0, 0]),
        port: 0,
        speech: Speech::Tcp,
        // Without `lb_algo` keepalived takes wlc.
        pick: Pick::LeastConn,
        way: Way::Nat,
        keep_alive: None,
        slow_start: None,
        check: Check::NONE,
        backends: Vec::new(),
    };
    // Servers go by what stands beside them, wherever that is.
    let (servers, settings): (Vec<_>, Vec<_>) = node
        .block
        .iter()
        .partition(|it| it.word(0) == "real_server");
    for setting in &settings {
        take(setting, &mut service, findings);
    }
    for server in servers {
        real_server(server, &mut service, findings);
    }
    if !settings.iter().any(|it| it.word(0) == "protocol") {
        let why = "without `protocol` it is taken for TCP, and by keepalived since 2.0 for UDP";
        findings.changed(node.line, &what, why, "set `protocol = \"udp\"` if it is");
    }
    if service.speech == Speech::Udp && service.check.kind != CheckKind::None {
        // Of UDP nothing can be asked without another port.
        if service.check.port.is_none() {
            let why = "checks speak TCP, and there is no port to ask";
            findings.lost(
                node.line,
                format!("{what}: checks"),
                why,
                "set `port` of [service.check]",
            );
            service.check = Check::NONE;
        }
    }
    for endpoint in endpoints {
        let at = usize::from(!is_group);
        let (host, port) = (endpoint.word(at), endpoint.word(at + 1));
        let vip = host.parse::<IpAddr>().ok().filter(|vip| is_host(*vip));
        let port = port.parse::<u16>().ok().filter(|port| *port != 0);
        let (Some(vip), Some(port)) = (vip, port) else {
            let why = "an address and a port make a service; ranges, marks and all ports do not";
            findings.lost(endpoint.line, &what, why, "add a [[service]] for each");
            continue;
        };
        if !draft.has_vip(vip) {
            let why = "no virtual router has this address, so it is declared with `assign = false`";
            let instead = "let Tidegate hold it: take `assign` out, or add it to a [[vrrp]]";
            findings.changed(endpoint.line, &what, why, instead);
            draft.declare(Vip {
                address: vip,
                prefix: whole(vip),
                is_assigned: false,
            });
        }
        let mut own = service.clone();
        own.vip = vip;
        own.port = port;
        own.name = name(&format!("{}-{port}", service.speech.word()));
        for backend in &mut own.backends {
            if backend.port == 0 || own.way != Way::Nat {
                // IPVS changes no ports either where it does not translate.
                backend.port = port;
            }
        }
        if own.speech == Speech::Tcp {
            own.speech = Speech::of(port, &own.backends);
        }
        draft.services.push(own);
    }
    if endpoints.is_empty() {
        findings.lost(
            node.line,
            what,
            "its group has no addresses",
            "add a [[service]]",
        );
    }
}

fn take(node: &Node, service: &mut Service, findings: &mut Findings) {
    let (line, word, value) = (node.line, node.word(0), node.word(1));
    match word {
        "lb_algo" | "lvs_sched" => service.pick = pick(line, value, findings),
        "lb_kind" | "lvs_method" => {
            service.way = match value {
                "DR" => Way::Dsr,
                "TUN" => Way::Tunnel,
                _ => Way::Nat,
            };
        }
        "protocol" => match value {
            "TCP" => service.speech = Speech::Tcp,
            "UDP" => service.speech = Speech::Udp,
            other => {
                findings.lost(
                    line,
                    format!("protocol {other}"),
                    "TCP and UDP are balanced",
                    "",
                );
            }
        },
        "persistence_timeout" => {
            let why = "`source` is used: a client's address stays with its backend, for as long as that is up";
            findings.changed(line, word, why, "");
            service.pick = Pick::Source;
        }
        "delay_loop" | "delay_before_retry" | "retry" | "connect_timeout" => {}
        "sorry_server" => {
            let why = "nobody waits for all others to fail";
            let instead =
                "have it answer for itself: a client that finds no backend is not answered";
            findings.lost(line, word, why, instead);
        }
        "quorum" | "quorum_up" | "quorum_down" | "hysteresis" => {
            let why = "a service is up while one backend is";
            findings.lost(
                line,
                word,
                why,
                "see `backends_up` of [[vrrp.track]], and [[notify]]",
            );
        }
        "alpha" | "omega" | "ha_suspend" | "inhibit_on_failure" | "ops" => {
            let why =
                "a backend counts when it was asked; `without_backends` says what a VIP does alone";
            findings.needless(line, word, why);
        }
        _ => findings.lost(
            line,
            format!("virtual_server: {word}"),
            "it has no counterpart",
            "",
        ),
    }
    if word == "delay_loop"
        && let Some(delay) = seconds(value).filter(|delay| !delay.is_zero())
    {
        service.check.interval = delay;
    }
}

fn pick(line: usize, value: &str, findings: &mut Findings) -> Pick {
    match value {
        "rr" | "wrr" => Pick::RoundRobin,
        "lc" | "wlc" | "sed" | "nq" => Pick::LeastConn,
        "sh" => Pick::Source,
        "mh" => Pick::Maglev,
        _ => {
            let why = "there is no such way to choose; `maglev` is used";
            findings.lost(line, format!("lb_algo {value}"), why, "see `balance`");
            Pick::Maglev
        }
    }
}

fn real_server(node: &Node, service: &mut Service, findings: &mut Findings) {
    let (host, port) = (node.word(1), node.word(2));
    let what = format!("real_server {host} {port}");
    let Ok(address) = host.parse::<IpAddr>() else {
        return findings.lost(
            node.line,
            what,
            "it is no address",
            "add a [[service.backend]]",
        );
    };
    let mut backend = Backend {
        line: node.line,
        name: name(host),
        address,
        // 0 is that of the service.
        port: port.parse().unwrap_or(0),
        weight: 1,
        max_connections: None,
    };
    let mut check = CheckKind::None;
    let (mut check_port, mut times) = (None, None);
    for setting in &node.block {
        let (word, value) = (setting.word(0), setting.word(1));
        match word {
            "weight" => {
                const MOST: u16 = 256;
                let weight: u32 = value.parse().unwrap_or(1);
                backend.weight = u16::try_from(weight).map_or(MOST, |weight| weight.min(MOST));
                if weight > u32::from(MOST) {
                    let why = "weights go up to 256, which it has";
                    let instead = "divide those of all servers of the service";
                    findings.changed(setting.line, format!("weight {weight}"), why, instead);
                }
            }
            "uthreshold" => {
                let most = value.parse::<u32>().ok();
                backend.max_connections = most.filter(|most| (1..=50_000_000).contains(most));
            }
            "TCP_CHECK" => check = CheckKind::Tcp,
            "HTTP_GET" => check = http(setting, findings),
            "inhibit_on_failure" | "lthreshold" => {
                findings.needless(
                    setting.line,
                    word,
                    "sessions of a backend that is down go elsewhere",
                );
            }
            "notify_up" | "notify_down" => {
                let why = "programs are told of all that happens, not of one server";
                findings.lost(setting.line, word, why, "see [[notify]] and its `service`");
            }
            "delay_loop" | "retry" | "delay_before_retry" | "warmup" => {}
            _ if word.ends_with("_CHECK") || word.ends_with("_GET") => {
                let why = "it is only asked for a connection";
                let instead = "set [service.check]: `type = \"mqtt\"` for brokers, or \"http\"";
                findings.lost(setting.line, word, why, instead);
                check = CheckKind::Tcp;
            }
            _ => findings.lost(
                setting.line,
                format!("real_server: {word}"),
                "it has no counterpart",
                "",
            ),
        }
        if word.ends_with("_CHECK") || word.ends_with("_GET") {
            check_port = number(setting, "connect_port").or(check_port);
            times = Some(self::times(setting, service.check.interval));
        }
    }
    let (kind, asked) = (&service.check.kind, service.check.port);
    if service.backends.is_empty() {
        let Times {
            interval,
            timeout,
            fall,
        } = times.unwrap_or(Times {
            interval: service.check.interval,
            timeout: service.check.interval,
            fall: Check::NONE.fall,
        });
        let check = Check {
            kind: check,
            port: check_port.filter(|asked| *asked != backend.port),
            interval,
            timeout,
            fall,
            rise: 1,
        };
        service.check = check.within_bounds();
    } else if *kind != check || asked != check_port.filter(|asked| *asked != backend.port) {
        let why = "a service checks all alike, as its first server says";
        findings.changed(node.line, what, why, "");
    }
    service.backends.push(backend);
}

fn number(node: &Node, word: &str) -> Option<u16> {
    let setting = node.block.iter().find(|it| it.word(0) == word)?;
    setting.word(1).parse().ok().filter(|number| *number != 0)
}

fn times(node: &Node, interval: Duration) -> Times {
    let timeout = node.block.iter().find(|it| it.word(0) == "connect_timeout");
    let timeout = timeout.and_then(|it| seconds(it.word(1)));
    let retries = number(node, "retry").or(number(node, "nb_get_retry"));
    Times {
        interval,
        timeout: timeout.unwrap_or(interval),
        // The first attempt counts, too.
        fall: u32::from(retries.unwrap_or(2)) + 1,
    }
}

/// The first page that is asked for.
fn http(node: &Node, findings: &mut Findings) -> CheckKind {
    let mut urls = node.block.iter().filter(|it| it.word(0) == "url");
    let setting = |url: &Node, word: &str| {
        let found = url.block.iter().find(|it| it.word(0) == word);
        found.map(|it| it.word(1).to_owned())
    };
    let url = urls.next();
    let path = url.and_then(|url| setting(url, "path"));
    let status = url.and_then(|url| setting(url, "status_code"));
    if url.is_some_and(|url| setting(url, "digest").is_some()) {
        let why = "what servers answer is not looked at, but its status";
        findings.lost(node.line, "HTTP_GET: digest", why, "");
    }
    if urls.next().is_some() {
        findings.lost(
            node.line,
            "HTTP_GET: more than one url",
            "one page is asked for",
            "",
        );
    }
    let is_right = |path: &String| {
        let is_text = path.bytes().all(|byte| byte.is_ascii_graphic());
        path.starts_with('/') && path.len() <= 1_024 && is_text
    };
    let status = status.and_then(|status| status.parse::<u16>().ok());
    CheckKind::Http {
        path: path.filter(is_right).unwrap_or_else(|| "/".to_owned()),
        host: None,
        expect: status
            .filter(|status| (100..=599).contains(status))
            .unwrap_or(200),
    }
}
