//! What HAProxy asks of servers, as one check for the whole service.

use std::time::Duration;

use super::parameters::Parameters;
use super::server::Server;
use super::words::Line;
use crate::import::draft::{Check, CheckKind};
use crate::import::finding::Findings;

/// What a proxy's lines say of its checks.
#[derive(Clone, Debug, Default)]
pub(super) struct Wish {
    http: Option<Http>,
    timeout: Option<Duration>,
}

#[derive(Clone, Debug)]
struct Http {
    line: usize,
    path: String,
    host: Option<String>,
    expect: Option<u16>,
}

/// Whether a configuration takes it in the head of a request.
fn is_header_text(text: &str) -> bool {
    (1..=1_024).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic())
}

impl Wish {
    /// `timeout check`.
    pub(super) fn set_timeout(&mut self, timeout: Duration) {
        self.timeout = Some(timeout);
    }

    /// Takes in an `option` that is about checks; whether it is one.
    pub(super) fn option(&mut self, line: &Line, findings: &mut Findings) -> bool {
        match line.word(1) {
            "httpchk" => {
                let (method, path) = match line.words.get(2..).unwrap_or_default() {
                    [] => ("OPTIONS", "/"),
                    [path] => ("OPTIONS", path.as_str()),
                    [method, path, ..] => (method.as_str(), path.as_str()),
                };
                self.http = Some(Http {
                    line: line.number,
                    path: "/".to_owned(),
                    host: None,
                    expect: None,
                });
                self.ask(line.number, method, path, findings);
                self.hidden(line.number, line.word(4), findings);
            }
            "tcp-check" => self.http = None,
            kind if kind.ends_with("-check") || kind.ends_with("chk") => {
                self.http = None;
                findings.lost(
                    line.number,
                    format!("option {kind}"),
                    "this protocol is not spoken by checks, so they only connect",
                    "use `type = \"mqtt\"` for brokers, or \"http\"",
                );
            }
            _ => return false,
        }
        true
    }

    /// Headers that are written behind the version, as was done before `http-check send`.
    fn hidden(&mut self, line: usize, version: &str, findings: &mut Findings) {
        for header in version.split(['\r', '\n']).skip(1) {
            let (key, value) = header.split_once(':').unwrap_or((header, ""));
            let value = value.trim();
            match &mut self.http {
                _ if header.is_empty() => {}
                Some(http) if key.eq_ignore_ascii_case("host") && is_header_text(value) => {
                    http.host = Some(value.to_owned());
                }
                Some(_) | None => {
                    let why = "checks send no headers but Host, and no body";
                    findings.lost(line, format!("httpchk ... {key}"), why, "");
                }
            }
        }
    }

    fn ask(&mut self, line: usize, method: &str, path: &str, findings: &mut Findings) {
        if method != "GET" {
            let why = "checks ask with GET";
            findings.changed(
                line,
                format!("httpchk {method}"),
                why,
                "see that servers answer it",
            );
        }
        let Some(http) = &mut self.http else {
            return;
        };
        if path.starts_with('/') && is_header_text(path) {
            path.clone_into(&mut http.path);
        } else {
            findings.lost(
                line,
                "httpchk",
                "what it asks for is no path",
                "\"/\" is asked for",
            );
        }
    }

    /// `http-check`.
    pub(super) fn http_check(&mut self, line: &Line, findings: &mut Findings) {
        let number = line.number;
        let words: Vec<&str> = line.words.iter().map(String::as_str).collect();
        let status = |text: &str| {
            let status = text.parse::<u16>().ok();
            status.filter(|status| (100..=599).contains(status))
        };
        match &words[..] {
            [_, "expect", "status", text] if status(text).is_some() => {
                if let Some(http) = &mut self.http {
                    http.expect = status(text);
                }
            }
            [_, "expect", "status", text] => {
                let why = "one status means healthy";
                findings.changed(
                    number,
                    format!("http-check expect status {text}"),
                    why,
                    "set `expect`",
                );
            }
            [_, "send", rest @ ..] => self.send(number, rest, findings),
            [_, "disable-on-404"] => {
                let why = "a status that means so is configured";
                findings.lost(
                    number,
                    "http-check disable-on-404",
                    why,
                    "set `drain_on = 404`",
                );
            }
            [_, second, ..] => {
                let why = "one request is made, and its status counts";
                let instead = "set `path`, `host` and `expect` of [service.check]";
                findings.lost(number, format!("http-check {second}"), why, instead);
            }
            _ => {}
        }
    }

    fn send(&mut self, line: usize, words: &[&str], findings: &mut Findings) {
        let value = |key: &str| {
            let at = words.iter().position(|word| *word == key)?;
            words.get(at + 1).copied()
        };
        let method = value("meth").unwrap_or("GET");
        let path = value("uri").unwrap_or("/");
        self.ask(line, method, path, findings);
        for (at, word) in words.iter().enumerate() {
            let header = || words.get(at + 1).copied().unwrap_or_default();
            if *word == "hdr" && header().eq_ignore_ascii_case("host") {
                let host = words.get(at + 2).filter(|host| is_header_text(host));
                if let Some(http) = &mut self.http {
                    http.host = host.map(|host| (*host).to_owned());
                }
            } else if matches!(*word, "hdr" | "body" | "body-lf") {
                let why = "checks send no headers but Host, and no body";
                findings.lost(line, format!("http-check send {word}"), why, "");
            }
        }
    }

    /// The check of a service with these servers.
    pub(super) fn settle(&self, servers: &[Server], findings: &mut Findings) -> Check {
        let mut checked = servers.iter().filter(|server| server.parameters.is_checked);
        let Some(first) = checked.next() else {
            return Check::NONE;
        };
        let times = |it: &Parameters| (it.inter, it.fall, it.rise, it.check_port);
        for server in servers {
            let what = format!("server {}", server.name);
            if !server.parameters.is_checked {
                let why =
                    "a service checks all of its backends or none, so this one is checked, too";
                findings.changed(server.line, what, why, "");
            } else if times(&server.parameters) != times(&first.parameters) {
                let why = format!(
                    "a service checks all alike: inter, fall, rise and port are those of {}",
                    first.name
                );
                findings.changed(server.line, what, why, "");
            }
        }
        let kind = match &self.http {
            None => CheckKind::Tcp,
            Some(http) => {
                if http.expect.is_none() {
                    let why = "one status means healthy, where HAProxy takes all of 2xx and 3xx";
                    let instead = "200 is expected; set `expect` if servers say another";
                    findings.changed(http.line, "option httpchk", why, instead);
                }
                CheckKind::Http {
                    path: http.path.clone(),
                    host: http.host.clone(),
                    expect: http.expect.unwrap_or(200),
                }
            }
        };
        let Parameters {
            inter,
            fall,
            rise,
            check_port,
            ..
        } = first.parameters;
        let check = Check {
            kind,
            port: check_port,
            interval: inter,
            timeout: self.timeout.unwrap_or(inter),
            fall,
            rise,
        };
        check.within_bounds()
    }
}
