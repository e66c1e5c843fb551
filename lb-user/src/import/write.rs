//! Writes a [`Draft`] as the file that people go on with.

use std::fmt::Write as _;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use super::draft::{Check, CheckKind, Draft, Means, Notify, Router, Service, Speech};
use crate::config::format_duration;

/// What a configuration has room for unless it says otherwise (`config/model/defaults.rs`).
const SERVICES: usize = 32;
const BACKENDS: usize = 1_024;

/// As in docs/pair.md.
const SYNC_PORT: u16 = 9_464;

const SYNC: &str = "
# What the host that is Active tells the other: without it, a take-over ends the sessions of `nat`,
# `round_robin` and `least_conn`. On the other host the two addresses are the other way round.
# `tidegate sync key FILE` makes the key. With `nat`, see `[nat] sources` as well.
";

/// What a pair of hosts needs for sessions to live through a take-over, with the addresses that they
/// speak with to each other, where these are known.
fn sync(text: &mut String, routers: &[Router]) {
    let mut pairs = routers
        .iter()
        .map(|it| (it.source, it.peers.first().copied()));
    let known = pairs.find(|(source, peer)| source.is_some() || peer.is_some());
    let (own, peer) = known.unwrap_or_default();
    let socket = |address: Option<IpAddr>, example: [u8; 4]| {
        SocketAddr::new(address.unwrap_or_else(|| IpAddr::from(example)), SYNC_PORT)
    };
    let listen = socket(own, [192, 0, 2, 1]);
    let peer = socket(peer, [192, 0, 2, 2]);
    put(
        text,
        format_args!(
            "{SYNC}# [sync]\n# listen = \"{listen}\"\n# peer = \"{peer}\"\n\
             # key_file = \"/etc/tidegate/sync.key\"\n"
        ),
    );
}

/// The whole file.
pub(super) fn config(draft: &Draft) -> String {
    let mut text = String::from(
        "# Made by `tidegate import`. Read it, then check it: `tidegate check --config FILE`.\n\
         # The other host of a pair has the same file, with another `priority` and its own `source`.\n\n",
    );
    let interface = draft.interface.as_deref();
    let given = quoted(interface.unwrap_or("eth0"));
    let remark = if interface.is_none() {
        "   # to be set: no file names it"
    } else {
        ""
    };
    put(&mut text, format_args!("interface = {given}{remark}\n"));
    text.push_str(
        "\n# The same on both hosts of a pair, and secret: make one with `openssl rand -hex 16`.\n\
         # seed = \"...\"\n",
    );
    limits(&mut text, draft);
    for vip in &draft.vips {
        let (address, prefix) = (vip.address, vip.prefix);
        put(
            &mut text,
            format_args!("\n[[vip]]\naddress = \"{address}/{prefix}\"\n"),
        );
        if !vip.is_assigned {
            text.push_str(
                "assign = false                      # somebody else puts it on the interface\n",
            );
        }
    }
    for router in &draft.routers {
        self::router(&mut text, router);
    }
    if !draft.routers.is_empty() {
        sync(&mut text, &draft.routers);
    }
    for notify in &draft.notifies {
        self::notify(&mut text, notify);
    }
    for service in &draft.services {
        self::service(&mut text, service);
    }
    text
}

/// Writing to a string does not fail.
fn put(text: &mut String, line: std::fmt::Arguments<'_>) {
    let _ = text.write_fmt(line);
}

fn limits(text: &mut String, draft: &Draft) {
    let services = draft.services.len();
    let backends: usize = draft.services.iter().map(|it| it.backends.len()).sum();
    let lines = [
        (services > SERVICES).then(|| format!("services = {services}\n")),
        (backends > BACKENDS).then(|| format!("backends = {backends}\n")),
        draft.flows.map(|flows| format!("flows = {flows}\n")),
    ];
    let lines: String = lines.into_iter().flatten().collect();
    if !lines.is_empty() {
        put(text, format_args!("\n[limits]\n{lines}"));
    }
}

fn router(text: &mut String, router: &Router) {
    let Router {
        file: _,
        line: _,
        instance: _,
        name,
        interface,
        vrid,
        version,
        priority,
        interval,
        source,
        peers,
        password,
        preempts,
        preempt_delay,
        startup_delay,
        vips,
        group,
        announce_repeats,
        announce_refresh,
        has_virtual_mac,
        tracks,
    } = router;
    put(text, format_args!("\n[[vrrp]]\nname = {}\n", quoted(name)));
    if let Some(own) = interface {
        put(text, format_args!("interface = {}\n", quoted(own)));
    }
    put(
        text,
        format_args!("vrid = {vrid}\nvips = {}\n", hosts(vips)),
    );
    if let Some(group) = group {
        put(text, format_args!("group = {}\n", quoted(group)));
    }
    let interval = time(*interval);
    put(
        text,
        format_args!("version = {version}\npriority = {priority}\nadvert_interval = {interval}\n"),
    );
    if let Some(source) = source {
        put(text, format_args!("source = \"{source}\"\n"));
    }
    if !peers.is_empty() {
        put(text, format_args!("peers = {}\n", hosts(peers)));
    }
    if let Some(password) = password {
        put(text, format_args!("password = {}\n", quoted(password)));
    }
    if !preempts {
        text.push_str("preempt = false\n");
    }
    let times = [
        ("preempt_delay", preempt_delay.filter(|_| *preempts)),
        ("startup_delay", *startup_delay),
        ("announce_refresh", *announce_refresh),
    ];
    for (key, value) in times {
        if let Some(value) = value {
            put(text, format_args!("{key} = {}\n", time(value)));
        }
    }
    if let Some(repeats) = announce_repeats {
        put(text, format_args!("announce_repeats = {repeats}\n"));
    }
    if *has_virtual_mac {
        text.push_str("virtual_mac = true\n");
    }
    for track in tracks {
        let (name, script) = (quoted(&track.name), words(&track.script));
        let (interval, timeout) = (time(track.interval), time(track.timeout));
        let (fall, rise) = (track.fall, track.rise);
        put(
            text,
            format_args!(
                "\n[[vrrp.track]]\nname = {name}\nscript = {script}\ninterval = {interval}\n\
                 timeout = {timeout}\nfall = {fall}\nrise = {rise}\n"
            ),
        );
        if let Some(cost) = track.cost {
            put(text, format_args!("weight = -{cost}\n"));
        }
    }
}

fn notify(text: &mut String, notify: &Notify) {
    put(
        text,
        format_args!("\n[[notify]]\nname = {}\n", quoted(&notify.name)),
    );
    match &notify.means {
        Means::Exec(command) => {
            let command = words(command);
            put(
                text,
                format_args!("type = \"exec\"\ncommand = {command}\nkeepalived_arguments = true\n"),
            );
        }
        Means::Email {
            server,
            port,
            from,
            to,
            timeout,
        } => {
            let (server, from, to) = (quoted(server), quoted(from), words(to));
            put(
                text,
                format_args!(
                    "type = \"email\"\nserver = {server}\nport = {port}\n\
                     tls = \"none\"                        # as keepalived: better \"starttls\", on 587\n\
                     from = {from}\nto = {to}\n"
                ),
            );
            if let Some(timeout) = timeout {
                put(text, format_args!("timeout = {}\n", time(*timeout)));
            }
        }
    }
}

fn service(text: &mut String, service: &Service) {
    let Service {
        file: _,
        line: _,
        name,
        vip,
        port,
        speech,
        pick,
        way,
        keep_alive,
        slow_start,
        check,
        backends,
    } = service;
    let (name, speech_word) = (quoted(name), speech.word());
    let (pick, way) = (pick.word(), way.word());
    put(
        text,
        format_args!(
            "\n[[service]]\nname = {name}\nvip = \"{vip}\"\nport = {port}\n\
             protocol = \"{speech_word}\"\nbalance = \"{pick}\"\nforward = \"{way}\"\n"
        ),
    );
    for (key, value) in [("keep_alive", keep_alive), ("slow_start", slow_start)] {
        if let Some(value) = value {
            put(text, format_args!("{key} = {}\n", time(*value)));
        }
    }
    self::check(text, check, *speech);
    for backend in backends {
        let (name, address) = (quoted(&backend.name), backend.address);
        put(
            text,
            format_args!("\n[[service.backend]]\nname = {name}\naddress = \"{address}\"\n"),
        );
        if backend.port != *port {
            put(text, format_args!("port = {}\n", backend.port));
        }
        if backend.weight != 1 {
            put(text, format_args!("weight = {}\n", backend.weight));
        }
        if let Some(most) = backend.max_connections {
            put(text, format_args!("max_connections = {most}\n"));
        }
    }
}

fn check(text: &mut String, check: &Check, speech: Speech) {
    text.push_str("\n[service.check]\n");
    match &check.kind {
        CheckKind::None => return text.push_str("type = \"none\"\n"),
        CheckKind::Tcp => {
            let remark = match speech {
                Speech::Mqtt => "                        # better \"mqtt\": asks for a session",
                Speech::Tcp | Speech::Udp => "",
            };
            put(text, format_args!("type = \"tcp\"{remark}\n"));
        }
        CheckKind::Http { path, host, expect } => {
            let path = quoted(path);
            put(
                text,
                format_args!("type = \"http\"\npath = {path}\nexpect = {expect}\n"),
            );
            if let Some(host) = host {
                put(text, format_args!("host = {}\n", quoted(host)));
            }
        }
    }
    if let Some(port) = check.port {
        put(text, format_args!("port = {port}\n"));
    }
    let (interval, timeout) = (time(check.interval), time(check.timeout));
    let (fall, rise) = (check.fall, check.rise);
    put(
        text,
        format_args!("interval = {interval}\ntimeout = {timeout}\nfall = {fall}\nrise = {rise}\n"),
    );
}

fn time(duration: Duration) -> String {
    format!("\"{}\"", format_duration(duration))
}

fn hosts(addresses: &[IpAddr]) -> String {
    let all: Vec<String> = addresses.iter().map(|it| format!("\"{it}\"")).collect();
    format!("[{}]", all.join(", "))
}

fn words(all: &[String]) -> String {
    let all: Vec<String> = all.iter().map(|word| quoted(word)).collect();
    format!("[{}]", all.join(", "))
}

/// A basic string of TOML.
fn quoted(text: &str) -> String {
    let mut quoted = String::from("\"");
    for c in text.chars() {
        match c {
            '"' => quoted.push_str("\\\""),
            '\\' => quoted.push_str("\\\\"),
            c if c.is_control() => put(&mut quoted, format_args!("\\u{:04X}", u32::from(c))),
            c => quoted.push(c),
        }
    }
    quoted.push('"');
    quoted
}
