//! Who keepalived tells: programs of an instance, and people by mail.

use std::time::Duration;

use lettre::message::Mailbox;

use super::is_on;
use super::tracks::words;
use super::tree::Node;
use crate::import::draft::{Draft, Means, Notify};
use crate::import::finding::Findings;
use crate::import::values::{name, seconds, shell};

/// What keepalived calls a role, by the statement that names a program for it.
const STATES: [(&str, &str); 4] = [
    ("notify_master", "MASTER"),
    ("notify_backup", "BACKUP"),
    ("notify_fault", "FAULT"),
    ("notify_stop", "STOP"),
];

fn state(node: &Node) -> Option<&'static str> {
    let found = STATES.iter().find(|(word, _)| *word == node.word(0));
    found.map(|(_, state)| *state)
}

/// Whether a setting of an instance is about who is told.
pub(super) fn is_setting(node: &Node) -> bool {
    state(node).is_some() || matches!(node.word(0), "notify" | "smtp_alert")
}

/// Has the programs of an instance told, whose router is called `router`.
///
/// All programs are told of all routers: a shell sees to it that each hears of its own, and of the role
/// that it is for. Behind its name come INSTANCE, the router, the role and the priority.
pub(super) fn read(node: &Node, router: &str, is_alone: bool, draft: &mut Draft) {
    for setting in node.block.iter().filter(|it| is_setting(it)) {
        let program = words(setting.rest());
        if program.is_empty() || setting.word(0) == "smtp_alert" {
            continue;
        }
        let command = match state(setting) {
            None if is_alone => program,
            None => filtered(
                format!("[ \"$2\" = {router} ]"),
                &format!("{} \"$@\"", shell(&program)),
            ),
            Some(state) => {
                let test = format!("[ \"$2\" = {router} ] && [ \"$3\" = {state} ]");
                filtered(test, &shell(&program))
            }
        };
        draft.notifies.push(Notify {
            name: name(&format!("{router}-{}", setting.word(0))),
            means: Means::Exec(command),
        });
    }
}

fn filtered(test: String, program: &str) -> Vec<String> {
    let script = format!("{test} || exit 0; exec {program}");
    ["/bin/sh", "-c", &script, "notify"]
        .map(str::to_owned)
        .into()
}

/// What `global_defs` says of mails.
#[derive(Debug, Default)]
pub(super) struct Mail {
    line: usize,
    server: Option<(String, u16)>,
    from: Option<String>,
    to: Vec<String>,
    timeout: Option<Duration>,
    /// Whether changes of all instances are mailed, if they do not say otherwise.
    is_alerting: bool,
}

impl Mail {
    /// Takes in a statement; whether it is about mails.
    pub(super) fn take(&mut self, node: &Node, findings: &mut Findings) -> bool {
        let value = node.word(1);
        match node.word(0) {
            "notification_email" => {
                self.line = node.line;
                for node in &node.block {
                    let address = node.word(0);
                    if address.parse::<Mailbox>().is_ok() {
                        self.to.push(address.to_owned());
                    } else {
                        let why = "it is no mail address";
                        findings.lost(node.line, format!("notification_email {address}"), why, "");
                    }
                }
            }
            "notification_email_from" => {
                let is_right = value.parse::<Mailbox>().is_ok();
                self.from = is_right.then(|| value.to_owned());
            }
            "smtp_server" => {
                let is_part = |c: char| c.is_ascii_alphanumeric() || ".-:".contains(c);
                let is_right = !value.is_empty() && value.chars().all(is_part);
                let port = node.word(2).parse().ok().filter(|port: &u16| *port != 0);
                self.server = is_right.then(|| (value.to_owned(), port.unwrap_or(25)));
            }
            "smtp_connect_timeout" => {
                const LONGEST: Duration = Duration::from_secs(600);
                let timeout = seconds(value).map(|timeout| timeout.min(LONGEST));
                self.timeout = timeout.filter(|timeout| !timeout.is_zero());
            }
            "smtp_alert" | "smtp_alert_vrrp" => self.is_alerting = is_on(node),
            "smtp_helo_name" | "smtp_alert_checker" => {}
            _ => return false,
        }
        true
    }

    /// Has people told, if it was said whom and through whom.
    ///
    /// Without `smtp_alert` keepalived mails nothing of its routers, though it knows whom.
    pub(super) fn settle(self, is_alerting: bool, draft: &mut Draft, findings: &mut Findings) {
        if self.to.is_empty() {
            return;
        }
        let (Some((server, port)), Some(from)) = (self.server, self.from) else {
            let why = "no smtp_server that could be used, or no notification_email_from, is given";
            let instead = "add a [[notify]] with `type = \"email\"`";
            return findings.lost(self.line, "notification_email", why, instead);
        };
        if !self.is_alerting && !is_alerting {
            let why =
                "without `smtp_alert` keepalived mails no change of a router, and Tidegate does";
            let instead = "see that the server is there, or take the [[notify]] out";
            findings.changed(self.line, "notification_email", why, instead);
        }
        draft.notifies.push(Notify {
            name: "mail".to_owned(),
            means: Means::Email {
                server,
                port,
                from,
                to: self.to,
                timeout: self.timeout,
            },
        });
    }
}
