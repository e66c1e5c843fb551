//! What can be said of a server behind its address, and why some of it has no counterpart.

use std::time::Duration;

use super::server::time;
use crate::import::finding::Findings;
use crate::import::finding::Weight::{self, Changed, Lost, Needless};

/// What `server` and `default-server` say, as far as a configuration can hold it.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Parameters {
    pub(super) is_checked: bool,
    pub(super) is_backup: bool,
    pub(super) is_disabled: bool,
    pub(super) ends_tls: bool,
    pub(super) check_port: Option<u16>,
    pub(super) inter: Duration,
    pub(super) fall: u32,
    pub(super) rise: u32,
    pub(super) weight: u16,
    pub(super) maxconn: Option<u32>,
    pub(super) slowstart: Option<Duration>,
}

/// HAProxy's own defaults.
impl Default for Parameters {
    fn default() -> Self {
        Self {
            is_checked: false,
            is_backup: false,
            is_disabled: false,
            ends_tls: false,
            check_port: None,
            inter: Duration::from_secs(2),
            fall: 3,
            rise: 2,
            weight: 1,
            maxconn: None,
            slowstart: None,
        }
    }
}

/// Parameter, weight, why it is not there as it was, what to do.
type Reason = (&'static str, Weight, &'static str, &'static str);

const PROXY: &str = "packets are passed on as they are, with no header before them";
const PROXY_INSTEAD: &str =
    "tell the servers to expect none; with `dsr` or `tunnel` they see clients' own addresses";
const NO_TLS: &str = "TLS is passed on, not ended";
const NO_TABLES: &str = "there are no stick tables";
const NO_NAMES: &str = "backends have addresses, not names";

/// Parameters without a value.
const FLAGS: [Reason; 11] = [
    ("send-proxy", Lost, PROXY, PROXY_INSTEAD),
    ("send-proxy-v2", Lost, PROXY, PROXY_INSTEAD),
    ("send-proxy-v2-ssl", Lost, PROXY, PROXY_INSTEAD),
    ("send-proxy-v2-ssl-cn", Lost, PROXY, PROXY_INSTEAD),
    (
        "check-send-proxy",
        Lost,
        "checks send no PROXY header",
        PROXY_INSTEAD,
    ),
    (
        "check-ssl",
        Lost,
        "checks speak no TLS",
        "let the check ask another `port`",
    ),
    (
        "agent-check",
        Lost,
        "no agent is asked",
        "use `type = \"http\"` with `drain_on`",
    ),
    ("stick", Needless, NO_TABLES, ""),
    ("non-stick", Needless, NO_TABLES, ""),
    (
        "tfo",
        Needless,
        "clients and servers settle TCP options between them",
        "",
    ),
    ("allow-0rtt", Needless, NO_TLS, ""),
];

const NOT_JUDGED: &str = "traffic is not judged; checks are";
const ONE_INTERVAL: &str = "all checks of a service have one interval, `inter`";

/// Parameters with a value.
const VALUES: [Reason; 16] = [
    (
        "addr",
        Lost,
        "checks ask the backend's own address",
        "use `port`",
    ),
    (
        "cookie",
        Lost,
        "no HTTP is read",
        "use `balance = \"source\"` to keep clients where they are",
    ),
    (
        "source",
        Changed,
        "`nat` sends from the host's address",
        "see `[nat] sources`; `dsr` keeps the client's",
    ),
    ("track", Changed, "each service checks its backends", ""),
    ("observe", Lost, NOT_JUDGED, "use `type = \"mqtt\"`"),
    ("on-error", Lost, NOT_JUDGED, "use `type = \"mqtt\"`"),
    ("error-limit", Lost, NOT_JUDGED, "use `type = \"mqtt\"`"),
    (
        "on-marked-down",
        Changed,
        "sessions of a backend that is down go elsewhere when their clients send",
        "",
    ),
    (
        "on-marked-up",
        Lost,
        "a backend that returns gets new clients, and others keep theirs",
        "move clients by evacuating the backend that had to help out",
    ),
    (
        "maxqueue",
        Changed,
        "nobody waits in a queue; who is full is left out",
        "",
    ),
    (
        "minconn",
        Changed,
        "the limit does not move",
        "see `max_connections`",
    ),
    ("resolvers", Needless, NO_NAMES, ""),
    ("resolve-prefer", Needless, NO_NAMES, ""),
    ("init-addr", Needless, NO_NAMES, ""),
    ("fastinter", Changed, ONE_INTERVAL, ""),
    ("downinter", Changed, ONE_INTERVAL, ""),
];

/// Parameters with a value that mean nothing without what is told of elsewhere.
const SILENT: [&str; 21] = [
    "id",
    "usesrc",
    "agent-inter",
    "agent-port",
    "agent-addr",
    "agent-send",
    "ca-file",
    "crl-file",
    "crt",
    "verify",
    "verifyhost",
    "sni",
    "check-sni",
    "alpn",
    "check-alpn",
    "ciphers",
    "ssl-min-ver",
    "ssl-max-ver",
    "proto",
    "pool-max-conn",
    "pool-purge-delay",
];

fn tell((word, weight, why, instead): Reason, line: usize, findings: &mut Findings) {
    let what = format!("server ... {word}");
    findings.add(weight, line, what, why.to_owned(), instead.to_owned());
}

fn find(table: &[Reason], word: &str) -> Option<Reason> {
    table.iter().find(|(known, ..)| *known == word).copied()
}

impl Parameters {
    /// Takes in what `words` say; what has no counterpart is told once for each line.
    pub(super) fn read(&mut self, words: &[String], line: usize, findings: &mut Findings) {
        let mut words = words.iter().map(String::as_str);
        while let Some(word) = words.next() {
            if self.flag(word) {
                continue;
            }
            if let Some(reason) = find(&FLAGS, word) {
                tell(reason, line, findings);
                continue;
            }
            // What is taken back has no value.
            if word.starts_with("no-") || word.starts_with("force-") {
                continue;
            }
            let value = words.next().unwrap_or_default();
            if SILENT.contains(&word) {
                continue;
            }
            let unknown = (word, Lost, "this parameter is not known", "");
            let unread = (word, Lost, "its value is not understood", "");
            let (what, weight, why, instead) = match find(&VALUES, word) {
                Some(reason) => reason,
                None => match self.value(word, value) {
                    Some(true) => continue,
                    Some(false) => unread,
                    None => unknown,
                },
            };
            let what = format!("server ... {what}");
            findings.add(weight, line, what, why.to_owned(), instead.to_owned());
        }
    }

    /// Whether `word` is a switch that counts here.
    fn flag(&mut self, word: &str) -> bool {
        let (flag, is_on) = match word {
            "check" => (&mut self.is_checked, true),
            "no-check" => (&mut self.is_checked, false),
            "backup" => (&mut self.is_backup, true),
            "no-backup" => (&mut self.is_backup, false),
            "disabled" => (&mut self.is_disabled, true),
            "enabled" => (&mut self.is_disabled, false),
            "ssl" => (&mut self.ends_tls, true),
            "no-ssl" => (&mut self.ends_tls, false),
            _ => return false,
        };
        *flag = is_on;
        true
    }

    /// Whether the value was understood; `None` for a word that is not known.
    fn value(&mut self, word: &str, value: &str) -> Option<bool> {
        fn set<T>(place: &mut T, value: Option<T>) -> bool {
            let is_right = value.is_some();
            if let Some(value) = value {
                *place = value;
            }
            is_right
        }
        let port = value.parse::<u16>().ok().filter(|port| *port != 0);
        let most = value.parse::<u32>().ok().filter(|most| *most <= 50_000_000);
        Some(match word {
            "inter" => set(&mut self.inter, time(value)),
            "fall" => set(&mut self.fall, value.parse().ok()),
            "rise" => set(&mut self.rise, value.parse().ok()),
            "weight" => {
                let weight = value.parse::<u16>().ok();
                set(&mut self.weight, weight.filter(|weight| *weight <= 256))
            }
            "port" => set(&mut self.check_port, port.map(Some)),
            // 0 is no limit.
            "maxconn" => set(
                &mut self.maxconn,
                most.map(|most| (most > 0).then_some(most)),
            ),
            "slowstart" => set(
                &mut self.slowstart,
                time(value).map(|time| (!time.is_zero()).then_some(time)),
            ),
            _ => return None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::Parameters;
    use crate::import::finding::{Finding, Findings, Weight};

    fn read(text: &str) -> (Parameters, Vec<Finding>) {
        let mut findings = Findings::default();
        let words: Vec<String> = text.split_whitespace().map(str::to_owned).collect();
        let mut parameters = Parameters {
            is_checked: true,
            is_disabled: true,
            ..Parameters::default()
        };
        parameters.read(&words, 1, &mut findings);
        (parameters, findings.into_sorted())
    }

    #[test]
    fn a_server_takes_back_what_the_defaults_said() {
        let (parameters, findings) = read("no-check enabled weight 3");
        assert!(!parameters.is_checked && !parameters.is_disabled);
        assert_eq!(parameters.weight, 3);
        assert!(findings.is_empty(), "{findings:?}");
    }

    #[test]
    fn switches_that_are_not_known_swallow_nothing() {
        let (parameters, _) = read("no-check no-tls-tickets force-tlsv12 check weight 7");
        assert!(parameters.is_checked);
        assert_eq!(parameters.weight, 7);
    }

    #[test]
    fn what_matters_is_told_apart_from_what_does_not() {
        let (_, findings) = read("send-proxy tfo fastinter 1s frobnicate 1 weight 300");
        let weights: Vec<_> = findings.iter().map(|it| it.weight).collect();
        let expected = [
            Weight::Lost,
            Weight::Needless,
            Weight::Changed,
            Weight::Lost,
            Weight::Lost,
        ];
        assert_eq!(weights, expected, "{findings:?}");
    }
}
