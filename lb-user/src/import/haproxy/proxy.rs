//! Makes services of a `listen`, or of a `frontend` and the `backend` that it names.

use std::net::IpAddr;
use std::time::Duration;

use super::check::Wish;
use super::parameters::Parameters;
use super::server::{self, Server, time};
use super::words::Line;
use super::{Kind, Section, bind, reasons};
use crate::import::draft::{Backend, Draft, Pick, Service, Speech, Way};
use crate::import::finding::Findings;
use crate::import::values::name;

/// Sessions may be silent for one and a half times the default `keep_alive`, 20 minutes.
const SILENCE: Duration = Duration::from_secs(30 * 60);
const DAY: Duration = Duration::from_secs(86_400);

/// What the lines of a section say.
#[derive(Debug, Default)]
struct Settings {
    endpoints: Vec<(IpAddr, u16)>,
    backend: Option<String>,
    is_http: bool,
    is_disabled: bool,
    /// The line of a status page.
    stats: Option<usize>,
    pick: Option<Pick>,
    wish: Wish,
    /// How long clients may be silent.
    silence: Duration,
    defaults: Parameters,
    servers: Vec<Server>,
}

/// Makes services of `section`, a front end.
pub(super) fn read(
    section: &Section,
    sections: &[Section],
    way: Way,
    draft: &mut Draft,
    findings: &mut Findings,
) {
    let front = settings(section, draft, findings);
    let what = match section.kind {
        Kind::Listen => format!("listen {}", section.name),
        Kind::Global | Kind::Defaults | Kind::Frontend | Kind::Backend => {
            format!("frontend {}", section.name)
        }
    };
    if front.is_disabled {
        return findings.lost(section.line, what, "it is disabled", "");
    }
    let named = front.backend.as_ref().and_then(|name| {
        let is_back = |it: &&Section| matches!(it.kind, Kind::Backend | Kind::Listen);
        let mut backs = sections.iter().filter(is_back);
        backs.find(|it| it.name == *name)
    });
    let back = match (named, front.servers.is_empty(), front.stats) {
        (Some(named), true, _) => settings(named, draft, findings),
        (None, true, Some(line)) => {
            let why = "`tidegate status`, `tidegate top` and the metrics tell it, and `tidegate backend` acts";
            return findings.needless(line, format!("{what}: stats"), why);
        }
        (None, true, None) => {
            let instead = "add a [[service]] with its backends";
            return findings.lost(section.line, what, "it has no servers", instead);
        }
        (_, false, _) => Settings::default(),
    };
    let silence = front.silence.max(back.silence);
    let back = if front.servers.is_empty() {
        &back
    } else {
        &front
    };
    if front.is_http || back.is_http {
        let why = "HTTP is passed on as it is: connections are spread, not requests, and no header is added";
        findings.changed(section.line, format!("{what}: mode http"), why, "");
    }
    let check = back.wish.settle(&back.servers, findings);
    for &(vip, port) in &front.endpoints {
        let backends = backends(&back.servers, port, findings);
        let speech = if front.is_http {
            Speech::Tcp
        } else {
            Speech::of(port, &backends)
        };
        draft.services.push(Service {
            file: findings.file().to_owned(),
            line: section.line,
            name: name(&section.name),
            vip,
            port,
            speech,
            pick: back.pick.unwrap_or(Pick::RoundRobin),
            way,
            keep_alive: keep_alive(silence),
            slow_start: slow_start(&back.servers),
            check: check.clone(),
            backends,
        });
    }
    if front.endpoints.is_empty() {
        let instead = "add a [[service]] with the address that clients connect to";
        findings.lost(
            section.line,
            what,
            "it listens nowhere that could be a VIP",
            instead,
        );
    }
}

fn settings(section: &Section, draft: &mut Draft, findings: &mut Findings) -> Settings {
    let mut modes = section.lines.iter().filter(|line| line.word(0) == "mode");
    let mut settings = Settings {
        // Other lines mean something or nothing by it, wherever it stands.
        is_http: modes.next_back().is_some_and(|line| line.word(1) == "http"),
        ..Settings::default()
    };
    for line in &section.lines {
        settings.take(line, section.kind, draft, findings);
    }
    settings
}

impl Settings {
    fn take(&mut self, line: &Line, kind: Kind, draft: &mut Draft, findings: &mut Findings) {
        let number = line.number;
        match line.word(0) {
            // Where it is a back end's, its own front end is read elsewhere.
            "bind" if kind == Kind::Backend => {}
            "bind" => self.endpoints.extend(bind::read(line, draft, findings)),
            "mode" => {
                let mode = line.word(1);
                if !matches!(mode, "tcp" | "http") {
                    let why = "packets of TCP and UDP are balanced";
                    findings.lost(number, format!("mode {mode}"), why, "");
                }
            }
            "balance" => self.balance(line, findings),
            "server" => self
                .servers
                .extend(server::read(line, &self.defaults, findings)),
            "default-server" => {
                let words = line.words.get(1..).unwrap_or_default();
                self.defaults.read(words, number, findings);
            }
            "default_backend" => self.backend = Some(line.word(1).to_owned()),
            // Without a condition it is the same.
            "use_backend" if line.words.len() == 2 => self.backend = Some(line.word(1).to_owned()),
            "timeout" => self.timeout(line, findings),
            "option" if self.wish.option(line, findings) => {}
            "http-check" => self.wish.http_check(line, findings),
            "disabled" => self.is_disabled = true,
            "enabled" => self.is_disabled = false,
            "stats" => {
                self.stats.get_or_insert(number);
            }
            "id" | "description" => {}
            _ => reasons::proxy(line, self.is_http, findings),
        }
    }

    fn balance(&mut self, line: &Line, findings: &mut Findings) {
        let (number, word) = (line.number, line.word(1));
        let what = || format!("balance {word}");
        self.pick = Some(match word {
            "roundrobin" | "static-rr" => Pick::RoundRobin,
            "leastconn" => Pick::LeastConn,
            "source" => Pick::Source,
            "random" => {
                let why = "`least_conn` takes the best of four drawn at random";
                findings.changed(number, what(), why, "");
                Pick::LeastConn
            }
            "first" => {
                let why = "servers are not filled one after the other";
                findings.lost(number, what(), why, "`round_robin` is used");
                Pick::RoundRobin
            }
            _ => {
                let why = "what clients send decides nothing: the backend is chosen with the first packet";
                let instead = "`source` is used: a client's address stays with its backend";
                findings.lost(number, what(), why, instead);
                Pick::Source
            }
        });
    }

    fn timeout(&mut self, line: &Line, findings: &mut Findings) {
        let Some(value) = time(line.word(2)) else {
            let what = format!("timeout {}", line.word(1));
            return findings.lost(line.number, what, "its value is not understood", "");
        };
        match line.word(1) {
            "check" => self.wish.set_timeout(value),
            "client" | "server" | "tunnel" => self.silence = self.silence.max(value),
            _ => {}
        }
        reasons::timeout(line, findings);
    }
}

/// Only who may be silent for longer than by default has to be told of.
fn keep_alive(silence: Duration) -> Option<Duration> {
    const MINUTE: u64 = 60;
    // In whole minutes, rounded up; half a day, as what a CONNECT may ask for is twice that.
    let minutes = (silence.as_secs() * 2 / 3).div_ceil(MINUTE);
    let keep_alive = Duration::from_secs(minutes.saturating_mul(MINUTE)).min(DAY / 2);
    (silence > SILENCE).then_some(keep_alive)
}

/// All backends of a service return alike.
fn slow_start(servers: &[Server]) -> Option<Duration> {
    let times = servers.iter().filter_map(|it| it.parameters.slowstart);
    times.max().map(|longest| longest.min(DAY))
}

fn backends(servers: &[Server], port: u16, findings: &mut Findings) -> Vec<Backend> {
    let mut backends = Vec::new();
    for server in servers {
        let Parameters {
            is_backup,
            is_disabled,
            weight,
            maxconn,
            ..
        } = server.parameters;
        let what = format!("server {}", server.name);
        let Some(own) = server.port.of(port) else {
            findings.lost(server.line, what, "with its offset there is no port", "");
            continue;
        };
        if is_backup {
            let why =
                "nobody waits for others to fail: it is there with weight 0, and gets no clients";
            let instead = "give it a weight, or one at need: `tidegate backend weight`";
            findings.lost(server.line, format!("{what} ... backup"), why, instead);
        } else if is_disabled {
            let why = "it is there with weight 0, and gets no clients";
            let instead = "give it a weight when it is to get some";
            findings.changed(server.line, format!("{what} ... disabled"), why, instead);
        }
        backends.push(Backend {
            line: server.line,
            name: name(&server.name),
            address: server.address,
            port: own,
            weight: if is_backup || is_disabled { 0 } else { weight },
            max_connections: maxconn,
        });
    }
    backends
}
