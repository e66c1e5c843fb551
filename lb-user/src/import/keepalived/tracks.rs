//! `vrrp_script`: what virtual routers depend on.

use std::collections::BTreeMap;
use std::time::Duration;

use super::tree::Node;
use crate::import::draft::Track;
use crate::import::finding::Findings;
use crate::import::values::{command, name, seconds};

/// The scripts of a file, by name.
#[derive(Debug, Default)]
pub(super) struct Scripts(BTreeMap<String, Script>);

#[derive(Clone, Debug)]
struct Script {
    command: Vec<String>,
    interval: Duration,
    timeout: Option<Duration>,
    fall: u32,
    rise: u32,
    weight: i32,
    is_reverse: bool,
}

/// What becomes of a script that a router names.
pub(super) enum Named {
    Track(Track),
    /// While it is well the priority is greater by so much: the router begins with that.
    Bonus(Track, u8),
    /// It was told why not.
    Nothing,
}

impl Scripts {
    pub(super) fn add(&mut self, node: &Node, findings: &mut Findings) {
        let mut script = Script {
            command: Vec::new(),
            interval: Duration::from_secs(1),
            timeout: None,
            fall: 1,
            rise: 1,
            weight: 0,
            is_reverse: false,
        };
        let count = |text: &str| text.parse::<u32>().unwrap_or(1).clamp(1, 1_000);
        for node in &node.block {
            let value = node.word(1);
            match node.word(0) {
                "script" => script.command = words(node.rest()),
                "interval" => {
                    script.interval = seconds(value).unwrap_or(script.interval);
                }
                "timeout" => script.timeout = seconds(value),
                "fall" => script.fall = count(value),
                "rise" => script.rise = count(value),
                "weight" => {
                    script.weight = value.parse().unwrap_or(0);
                    script.is_reverse = node.word(2) == "reverse";
                }
                "user" => {
                    let why = "scripts run as the user of the daemon";
                    findings.changed(node.line, "vrrp_script: user", why, "");
                }
                "init_fail" => {
                    let why = "no router becomes Active before each was tried";
                    findings.needless(node.line, "vrrp_script: init_fail", why);
                }
                other => {
                    findings.lost(
                        node.line,
                        format!("vrrp_script: {other}"),
                        "it is not known",
                        "",
                    );
                }
            }
        }
        self.0.insert(node.word(1).to_owned(), script);
    }

    /// The track of a router that names a script in `node`.
    pub(super) fn named(&self, node: &Node, findings: &mut Findings) -> Named {
        let wanted = node.word(0);
        let what = format!("track_script {wanted}");
        let Some(script) = self
            .0
            .get(wanted)
            .filter(|script| !script.command.is_empty())
        else {
            findings.lost(node.line, what, "there is no script of this name", "");
            return Named::Nothing;
        };
        let about_haproxy = script.command.iter().any(|word| {
            let word = word.to_ascii_lowercase();
            word.contains("haproxy")
        });
        if about_haproxy {
            let why = "it asks whether HAProxy is well, which will not be there";
            let instead = "a host whose own parts fail gives its role up by itself";
            findings.changed(node.line, what, why, instead);
            return Named::Nothing;
        }
        let given = node.words.iter().position(|word| word == "weight");
        let weight = given.map_or(script.weight, |at| node.word(at + 1).parse().unwrap_or(0));
        let is_reverse = script.is_reverse || node.words.iter().any(|word| word == "reverse");
        if is_reverse {
            let why = "a script that fails never makes a priority greater";
            findings.lost(node.line, what, why, "turn its exit code round");
            return Named::Nothing;
        }
        let magnitude = u8::try_from(weight.unsigned_abs().min(254)).unwrap_or(254);
        let track = script.track(wanted, (magnitude > 0).then_some(magnitude));
        if weight > 0 {
            Named::Bonus(track, magnitude)
        } else {
            Named::Track(track)
        }
    }
}

impl Script {
    fn track(&self, wanted: &str, cost: Option<u8>) -> Track {
        const LEAST: Duration = Duration::from_millis(1);
        const MOST: Duration = Duration::from_secs(3_600);
        let interval = self.interval.clamp(LEAST, MOST);
        Track {
            name: name(wanted),
            script: self.command.clone(),
            interval,
            timeout: self.timeout.unwrap_or(interval).clamp(LEAST, MOST),
            fall: self.fall,
            rise: self.rise,
            cost,
        }
    }
}

/// The words of a command: quoted as a whole, or each for itself.
pub(super) fn words(given: &[String]) -> Vec<String> {
    let words = match given {
        [text] => command(text),
        _ => given.to_vec(),
    };
    // A configuration takes no empty ones.
    words.into_iter().filter(|word| !word.is_empty()).collect()
}
