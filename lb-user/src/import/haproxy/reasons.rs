//! Why lines of HAProxy have no counterpart, and what there is instead.

use super::words::Line;
use crate::import::finding::Findings;
use crate::import::finding::Weight::{self, Changed, Lost, Needless};

/// Keywords, weight, why, what to do.
type Reason = (&'static [&'static str], Weight, &'static str, &'static str);

const NO_PROXY: &str = "there is no proxy whose sockets and buffers could run out";
const NO_HTTP: &str = "HTTP is passed on, not read";
const NO_TABLES: &str = "there are no stick tables";
const NO_PAYLOAD: &str = "the backend is chosen with the first packet, before anything is said";
const NO_LOG: &str = "connections are counted, not logged";
const CONNECTIONS: &str =
    "connections are passed on as they are, with all that is asked for in them";
const RESTART: &str = "a restart goes on with the tables, and with what operators have set";
const JOURNAL: &str = "the daemon logs to standard error, for the journal; see `[log]`";

const GLOBAL: [Reason; 17] = [
    (
        &["setenv", "presetenv", "resetenv", "unsetenv"],
        Needless,
        "lines that use a variable are told of",
        "",
    ),
    (
        &["server-state-base", "server-state-file"],
        Needless,
        RESTART,
        "",
    ),
    (
        &["daemon"],
        Needless,
        "the service manager keeps it in the background",
        "",
    ),
    (
        &["master-worker"],
        Needless,
        "a reload changes tables in place",
        "",
    ),
    (
        &["nbproc", "nbthread", "cpu-map", "thread-groups"],
        Needless,
        "the kernel uses all CPUs that the NIC's queues use",
        "",
    ),
    (
        &["user", "group", "uid", "gid"],
        Needless,
        "the service manager says as whom it runs",
        "",
    ),
    (&["chroot"], Needless, "the service manager confines it", ""),
    (
        &["pidfile"],
        Needless,
        "the service manager knows its process",
        "",
    ),
    (&["log"], Changed, JOURNAL, ""),
    (&["log-send-hostname", "log-tag"], Needless, JOURNAL, ""),
    (
        &["stats"],
        Changed,
        "`[api]` has the control socket, and `tidegate status` and `backend` use it",
        "",
    ),
    (&["ulimit-n", "maxpipes", "maxsock"], Needless, NO_PROXY, ""),
    (
        &["spread-checks"],
        Changed,
        "checks come early by a share of the interval",
        "see `jitter`",
    ),
    (
        &["ca-base", "crt-base", "maxsslconn"],
        Needless,
        "TLS is passed on, not ended",
        "",
    ),
    (
        &["maxconnrate"],
        Lost,
        "rates are of a service",
        "see `[service.guard] new_per_second`",
    ),
    (&["hard-stop-after"], Needless, "a stop ends no session", ""),
    (&["description"], Needless, "nobody reads it", ""),
];

const PROXY: [Reason; 23] = [
    (&["load-server-state-from-file"], Needless, RESTART, ""),
    (
        &["use_backend", "use-server"],
        Lost,
        NO_PAYLOAD,
        "give each group of clients a port or VIP of its own",
    ),
    (
        &["acl"],
        Lost,
        "conditions are not decided here",
        "for addresses of clients see `[service.guard]`",
    ),
    (
        &["tcp-request"],
        Lost,
        NO_PAYLOAD,
        "`[service.guard]` has `allow`, `deny`, and rates in all and for each source",
    ),
    (
        &["tcp-response"],
        Lost,
        "what backends say is passed on",
        "",
    ),
    (
        &["stick-table", "stick"],
        Lost,
        NO_TABLES,
        "`balance = \"source\"` keeps a client's address with its backend",
    ),
    (
        &["tcp-check"],
        Lost,
        "no dialogue is written out",
        "use `type = \"mqtt\"`, or \"http\"",
    ),
    (
        &["external-check"],
        Lost,
        "checks run no programs",
        "use `type = \"mqtt\"`, or \"http\"",
    ),
    (
        &["source"],
        Changed,
        "`nat` sends from the host's address",
        "see `[nat] sources`; `dsr` keeps the client's",
    ),
    (
        &["maxconn"],
        Changed,
        "a service has no limit of its own",
        "set `max_connections` of its backends",
    ),
    (&["fullconn"], Needless, "no limit of a backend moves", ""),
    (&["backlog"], Needless, NO_PROXY, ""),
    (
        &["retries"],
        Needless,
        "a client's SYN is sent again by the client, and goes to who is up",
        "",
    ),
    (
        &["retry-on", "unique-id-format", "http-reuse", "errorfile"],
        Needless,
        NO_HTTP,
        "",
    ),
    (
        &["rate-limit"],
        Lost,
        "rates are of the guard",
        "set `[service.guard] new_per_second`",
    ),
    (&["log", "log-format", "log-tag"], Needless, NO_LOG, ""),
    (&["unique-id-header"], Lost, NO_HTTP, ""),
    (
        &["cookie"],
        Lost,
        NO_HTTP,
        "`balance = \"source\"` keeps a client's address with its backend",
    ),
    (
        &[
            "http-request",
            "http-response",
            "http-after-response",
            "redirect",
            "compression",
        ],
        Lost,
        NO_HTTP,
        "let the servers do it",
    ),
    (&["hash-type"], Changed, "hashes are consistent", ""),
    (
        &["email-alert"],
        Lost,
        "mails are of no proxy",
        "see [[notify]] with `type = \"email\"`",
    ),
    (&["filter"], Lost, "what passes is not read", ""),
    (
        &["server-template"],
        Lost,
        "backends have addresses, not names",
        "add each as a [[service.backend]]",
    ),
];

const OPTIONS: [Reason; 10] = [
    (
        &[
            "dontlognull",
            "dontlog-normal",
            "tcplog",
            "httplog",
            "httpslog",
            "logasap",
            "log-separate-errors",
        ],
        Needless,
        NO_LOG,
        "",
    ),
    (
        &["log-health-checks"],
        Needless,
        "`tidegate events` and the log tell of backends",
        "",
    ),
    (
        &["redispatch"],
        Needless,
        "new connections go to who is up",
        "",
    ),
    (
        &["tcpka", "clitcpka", "srvtcpka"],
        Needless,
        "clients and servers have connections of their own; they send keep-alives",
        "",
    ),
    (
        &[
            "splice-auto",
            "splice-request",
            "splice-response",
            "tcp-smart-accept",
            "tcp-smart-connect",
            "nolinger",
            "socket-stats",
            "abortonclose",
            "idle-close-on-response",
        ],
        Needless,
        NO_PROXY,
        "",
    ),
    (
        &["transparent"],
        Lost,
        "`nat` sends from the host's address",
        "`dsr` and `tunnel` keep the client's",
    ),
    (
        &["allbackups"],
        Lost,
        "there are no backups",
        "give servers weights",
    ),
    (
        &[
            "http-server-close",
            "http-keep-alive",
            "httpclose",
            "forceclose",
            "http-tunnel",
            "prefer-last-server",
            "http-no-delay",
            "http-pretend-keepalive",
            "http-buffer-request",
            "http-use-proxy-header",
            "http-ignore-probes",
        ],
        Needless,
        CONNECTIONS,
        "",
    ),
    (
        &["forwardfor", "originalto", "forwarded"],
        Lost,
        "HTTP is passed on, not read, so servers see no header of it",
        "with `dsr` or `tunnel` they see clients' own addresses",
    ),
    (
        &[
            "accept-invalid-http-request",
            "accept-invalid-http-response",
        ],
        Needless,
        NO_HTTP,
        "",
    ),
];

/// Beginnings of options and lines that HAProxy itself does not heed where `mode` is not `http`.
const HTTP: [&str; 7] = [
    "http",
    "forward",
    "originalto",
    "cookie",
    "redirect",
    "compression",
    "errorfile",
];

fn find(table: &[Reason], word: &str) -> Option<Reason> {
    table
        .iter()
        .find(|(keys, ..)| keys.contains(&word))
        .copied()
}

/// Of what no table has.
const fn other(weight: Weight, why: &'static str) -> Reason {
    (&[], weight, why, "")
}

fn tell(line: &Line, what: String, reason: Reason, findings: &mut Findings) {
    let (_, weight, why, instead) = reason;
    findings.add(
        weight,
        line.number,
        what,
        why.to_owned(),
        instead.to_owned(),
    );
}

/// A line of `global`.
pub(super) fn global(line: &Line, findings: &mut Findings) {
    let word = line.word(0);
    let otherwise = if word.starts_with("tune.") || word.starts_with("no") {
        other(Needless, NO_PROXY)
    } else if word.starts_with("ssl-") {
        other(Needless, "TLS is passed on, not ended")
    } else {
        other(Lost, "it is not known")
    };
    let reason = find(&GLOBAL, word).unwrap_or(otherwise);
    tell(line, word.to_owned(), reason, findings);
}

/// A line of a proxy that is not read.
pub(super) fn proxy(line: &Line, is_http: bool, findings: &mut Findings) {
    let (first, second) = (line.word(0), line.word(1));
    let word = if first == "option" { second } else { first };
    let is_about_http = word != "httplog" && HTTP.iter().any(|start| word.starts_with(start));
    if is_about_http && !is_http {
        return;
    }
    match first {
        "option" => {
            let otherwise = if is_about_http {
                other(Lost, NO_HTTP)
            } else {
                other(Lost, "it is not known")
            };
            let reason = find(&OPTIONS, second).unwrap_or(otherwise);
            tell(line, format!("option {second}"), reason, findings);
        }
        // What it takes back has no counterpart either.
        "no" => {}
        _ => {
            let otherwise = other(Lost, "it is not known");
            let reason = find(&PROXY, first).unwrap_or(otherwise);
            tell(line, first.to_owned(), reason, findings);
        }
    }
}

/// What becomes of a time that a connection may take.
pub(super) fn timeout(line: &Line, findings: &mut Findings) {
    let (weight, why) = match line.word(1) {
        "check" => return,
        "client" | "server" | "tunnel" => (
            Changed,
            "no quiet session is cut: one is forgotten when it was silent for one and a half times its keep-alive",
        ),
        "connect" | "queue" | "tarpit" => (
            Needless,
            "clients connect to backends themselves, and nobody waits in a queue",
        ),
        _ => (Needless, "no proxy waits for anybody"),
    };
    let what = format!("timeout {}", line.word(1));
    findings.add(weight, line.number, what, why.to_owned(), String::new());
}
