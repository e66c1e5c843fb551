//! Access lists, in the file and in files of their own.

use std::path::PathBuf;

use lb_common::abi::{Access, Rate, Rates};

use super::{RIGHT, changed, right, wrong};
use crate::config::model::{AccessList, Challenge};

/// A file of prefixes for one test, gone at its end.
struct ListFile(PathBuf);

impl ListFile {
    fn new(name: &str, text: &str) -> Self {
        let name = format!("tidegate-{}-{name}", std::process::id());
        let path = std::env::temp_dir().join(name);
        std::fs::write(&path, text).unwrap();
        Self(path)
    }

    fn path(&self) -> String {
        self.0.display().to_string()
    }
}

impl Drop for ListFile {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

/// The right file with these lines in its guard.
fn guarded(lines: &str) -> String {
    changed(
        "[service.check]",
        &format!("[service.guard]\n{lines}\n[service.check]"),
    )
}

fn shown(list: &AccessList) -> Vec<String> {
    let entries = list.entries().iter();
    entries
        .map(|(prefix, access)| format!("{prefix} {access:?}"))
        .collect()
}

#[test]
fn a_service_without_a_guard_takes_everybody() {
    let config = right(RIGHT);
    let guard = config.services()[0].guard();
    let list = guard.access();
    assert!(list.entries().is_empty() && !list.denies_by_default());
    assert_eq!(guard.rates(), Rates::default());
    assert_eq!(guard.challenge(), Challenge::Auto);
}

#[test]
fn an_allow_list_denies_everybody_else_and_a_deny_list_does_not() {
    let denying = right(&guarded("deny = [\"203.0.113.0/24\"]"));
    let list = denying.services()[0].guard().access();
    assert_eq!(
        (shown(list), list.denies_by_default()),
        (vec!["203.0.113.0/24 Deny".to_owned()], false)
    );
    let allowing = right(&guarded(
        "allow = [\"10.0.0.0/8\", \"10.1.1.1\"]\ndeny = [\"10.1.0.0/16\"]",
    ));
    let list = allowing.services()[0].guard().access();
    assert!(list.denies_by_default());
    assert_eq!(
        shown(list),
        ["10.0.0.0/8 Allow", "10.1.0.0/16 Deny", "10.1.1.1/32 Allow"]
    );
}

#[test]
fn prefixes_of_the_other_family_are_left_out() {
    let config = right(&guarded("allow = [\"2001:db8::/32\"]"));
    let list = config.services()[0].guard().access();
    assert!(list.entries().is_empty() && list.denies_by_default());
}

#[test]
fn files_add_to_what_the_configuration_says() {
    let deny = ListFile::new(
        "deny",
        "# Bad.\n203.0.113.0/24\n2001:db8::/32\n\n192.0.2.1 # One.\n",
    );
    let allow = ListFile::new("allow", "10.0.0.0/8\n");
    let lines = format!(
        "deny = [\"198.51.100.0/24\"]\ndeny_file = {:?}\nallow_file = {:?}",
        deny.path(),
        allow.path()
    );
    let config = right(&guarded(&lines));
    let list = config.services()[0].guard().access();
    assert!(list.denies_by_default());
    let expected = [
        "10.0.0.0/8 Allow",
        "198.51.100.0/24 Deny",
        "203.0.113.0/24 Deny",
        "192.0.2.1/32 Deny",
    ];
    assert_eq!(shown(list), expected);
    let denied = list.entries().values().filter(|a| **a == Access::Deny);
    assert_eq!(denied.count(), 3);
}

#[test]
fn mistakes_in_a_file_are_told_by_its_name_and_line() {
    let deny = ListFile::new("wrong", "10.0.0.0/8\nnonsense\n");
    let message = wrong(&guarded(&format!("deny_file = {:?}", deny.path())));
    let expected = format!(
        "test.toml:17: service[0].guard.deny_file: {}:2: \"nonsense\" is not a prefix",
        deny.path()
    );
    assert!(message.starts_with(&expected), "{message}");
}

#[test]
fn what_a_file_denies_cannot_be_allowed_as_well() {
    let deny = ListFile::new("both", "10.0.0.0/8\n");
    let message = wrong(&guarded(&format!(
        "allow = [\"10.0.0.0/8\"]\ndeny_file = {:?}",
        deny.path()
    )));
    let expected = format!(
        "{}:1: 10.0.0.0/8 is denied here and allowed at line 17",
        deny.path()
    );
    assert!(message.contains(&expected), "{message}");
}

#[test]
fn more_prefixes_than_there_is_room_for_are_refused() {
    let text = guarded("deny = [\"10.0.0.0/8\", \"11.0.0.0/8\"]");
    let message = wrong(&format!("limits.access_entries = 1\n{text}"));
    assert!(
        message.contains("limits.access_entries: 2 are configured"),
        "{message}"
    );
}

#[test]
fn every_rule_is_reported_at_its_key() {
    let broken = [
        (
            "allow = [\"10.0.0.1/8\"]",
            "guard.allow[0]: 10.0.0.1/8 has bits set behind its prefix; write 10.0.0.0/8",
        ),
        (
            "deny = [\"10.0.0.0/33\"]",
            "guard.deny[0]: \"10.0.0.0/33\" is not a prefix",
        ),
        ("deny = [7]", "guard.deny[0]: 7 is not a prefix"),
        (
            "allow = [\"10.0.0.0/8\"]\ndeny = [\"10.0.0.0/8\"]",
            "guard.deny[0]: 10.0.0.0/8 is denied here and allowed at line 17",
        ),
        (
            "deny_file = \"deny.txt\"",
            "guard.deny_file: \"deny.txt\" is not the path of a file, from the root",
        ),
        (
            "allow_file = \"/nowhere/allow.txt\"",
            "guard.allow_file: /nowhere/allow.txt cannot be read",
        ),
        (
            "new_per_second = 0",
            "guard.new_per_second: 0 is not a whole number from 1",
        ),
        (
            "burst = 5",
            "guard.burst: there is no such rate; add `new_per_second`",
        ),
        (
            "burst_per_source = 5",
            "guard.burst_per_source: there is no such rate; add `new_per_second_per_source`",
        ),
        (
            "challenge = \"never\"",
            "guard.challenge: \"never\" is not \"auto\" or \"always\" or \"off\"",
        ),
        (
            "challenge_above = 0",
            "guard.challenge_above: 0 is not a whole number",
        ),
        (
            "denied = []",
            "guard.denied: unknown key; known here: allow,",
        ),
    ];
    for (lines, expected) in broken {
        let message = wrong(&guarded(lines));
        assert!(
            message.contains(expected),
            "{lines}: expected {expected:?} in\n{message}"
        );
        assert_eq!(
            message.lines().count(),
            1,
            "more than one error:\n{message}"
        );
    }
}

#[test]
fn a_burst_is_a_second_unless_told_otherwise() {
    let config = right(&guarded(
        "new_per_second = 5000\nnew_per_second_per_source = 50\nburst_per_source = 100",
    ));
    let expected = Rates {
        service: Rate::new(5_000, 5_000),
        source: Rate::new(50, 100),
    };
    assert_eq!(config.services()[0].guard().rates(), expected);
}

#[test]
fn challenges_are_for_tcp_alone_and_rates_for_flows_that_are_recorded() {
    let udp = |lines: &str| {
        guarded(lines)
            .replace("forward = ", "protocol = \"udp\"\nforward = ")
            .replace("type = \"mqtt\"", "type = \"none\"")
    };
    let config = right(&udp("challenge_above = 7"));
    assert_eq!(config.services()[0].guard().challenge(), Challenge::Never);
    let message = wrong(&udp("challenge = \"always\""));
    assert!(
        message.contains("guard.challenge: only for services with TCP"),
        "{message}"
    );
    let message = wrong(&udp("new_per_second = 5"));
    assert!(
        message.contains("guard.new_per_second: only for services with flows"),
        "{message}"
    );
    let recorded = udp("new_per_second = 5");
    right(&recorded.replace("forward = ", "balance = \"round_robin\"\nforward = "));
}
