//! Access lists, in the file and in files of their own.

use std::path::PathBuf;

use lb_common::abi::Access;

use super::{RIGHT, changed, right, wrong};
use crate::config::model::AccessList;

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
    let list = config.services()[0].guard().access();
    assert!(list.entries().is_empty() && !list.denies_by_default());
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
