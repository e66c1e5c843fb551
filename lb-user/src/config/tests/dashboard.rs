//! The dashboard: what may be said of it, and what it comes to.

use std::path::Path;

use super::super::model::Dashboard;
use super::{RIGHT, right, wrong};

fn with(dashboard: &str) -> String {
    format!("{RIGHT}\n[dashboard]\n{dashboard}\n")
}

#[test]
fn address_is_all_that_has_to_be_said() {
    let config = right(&with("listen = \"127.0.0.1:8404\""));
    let dashboard = config.dashboard().unwrap();
    assert_eq!(dashboard.listen(), ["127.0.0.1:8404".parse().unwrap()]);
    assert_eq!(dashboard.accounts(), Path::new(Dashboard::ACCOUNTS));
    assert_eq!(dashboard.tls(), None);
    assert!(dashboard.names().is_empty());
    assert_eq!(right(RIGHT).dashboard(), None);
}

#[test]
fn everything_can_be_said() {
    let config = right(&with(
        "listen = [\"10.0.0.1:8404\", \"[::1]:8404\"]\naccounts = \"/a.toml\"\n\
         certificate = \"/c.pem\"\nkey = \"/k.pem\"\nnames = [\"lb1.example.org\"]",
    ));
    let dashboard = config.dashboard().unwrap();
    assert_eq!(dashboard.listen().len(), 2);
    let files = (Path::new("/c.pem"), Path::new("/k.pem"));
    assert_eq!(dashboard.tls(), Some(files));
    assert_eq!(dashboard.names(), ["lb1.example.org"]);
    right(&with("listen = \"10.0.0.1:8404\"\ninsecure = true"));
}

#[test]
fn every_rule_is_told() {
    let loopback = "listen = \"127.0.0.1:8404\"\n";
    for (text, expected) in [
        (
            "accounts = \"/a\"".to_owned(),
            "dashboard.listen: missing; add listen = \"127.0.0.1:8404\"",
        ),
        (
            "listen = \"127.0.0.1\"".to_owned(),
            "dashboard.listen: \"127.0.0.1\" is not an address and port",
        ),
        (
            "listen = \"127.0.0.1:0\"".to_owned(),
            "is not an address and port",
        ),
        ("listen = []".to_owned(), "is not an address and port"),
        ("listen = 8404".to_owned(), "is not an address and port"),
        (
            "listen = \"0.0.0.0:8404\"".to_owned(),
            "dashboard.listen: 0.0.0.0 is not a loopback address",
        ),
        (
            "listen = [\"127.0.0.1:8404\", \"10.0.0.1:8404\"]\ninsecure = false".to_owned(),
            "10.0.0.1 is not a loopback address",
        ),
        (
            "listen = [\"127.0.0.1:8404\", \"127.0.0.1:8404\"]".to_owned(),
            "give it another port",
        ),
        (
            loopback.to_owned() + "certificate = \"/c\"",
            "dashboard.certificate: `certificate` and `key` go together",
        ),
        (
            loopback.to_owned() + "key = \"/k\"",
            "dashboard.key: `certificate` and `key` go together",
        ),
        (
            loopback.to_owned() + "names = [\"lb1:8404\"]",
            "dashboard.names[0]: \"lb1:8404\" is not the name of a host",
        ),
        (
            loopback.to_owned() + "password = \"x\"",
            "dashboard.password: unknown key",
        ),
        (
            loopback.to_owned() + "[metrics]\nlisten = \"127.0.0.1:8404\"",
            "dashboard.listen: also given at line",
        ),
    ] {
        let told = wrong(&with(&text));
        assert!(told.contains(expected), "{text}: {told}");
    }
}

#[test]
fn change_takes_a_restart() {
    let before = right(&with("listen = \"127.0.0.1:8404\""));
    for after in [RIGHT.to_owned(), with("listen = \"127.0.0.1:8405\"")] {
        let blockers = before.reload_blockers(&right(&after));
        let keys: Vec<_> = blockers.iter().map(|blocker| blocker.key()).collect();
        assert_eq!(keys, ["dashboard"]);
    }
}

#[test]
fn what_users_copy_is_right() {
    let text = include_str!("../../../../docs/dashboard.md");
    let blocks = text.split("```toml\n").skip(1);
    let blocks = blocks.filter_map(|rest| rest.split_once("```"));
    let mut count = 0;
    for (block, _) in blocks.filter(|(block, _)| block.starts_with("[dashboard]")) {
        assert!(right(&format!("{RIGHT}{block}")).dashboard().is_some());
        count += 1;
    }
    assert_eq!(count, 2);
    for example in [
        include_str!("../../../configs/tidegate-dsr.toml"),
        include_str!("../../../configs/tidegate-nat.toml"),
        include_str!("../../../configs/tidegate-tunnel.toml"),
    ] {
        assert_eq!(right(example).dashboard(), None);
        let (_, rest) = example.split_once("# [dashboard]\n").unwrap();
        let lines = rest.lines().take_while(|line| !line.is_empty());
        let lines = lines.filter_map(|line| line.strip_prefix("# "));
        let used: String = lines.map(|line| format!("{line}\n")).collect();
        let config = right(&format!("{RIGHT}[dashboard]\n{used}"));
        let dashboard = config.dashboard().unwrap();
        assert!(dashboard.tls().is_some() && !dashboard.names().is_empty());
    }
}
