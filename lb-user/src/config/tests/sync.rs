//! The channel to the other node.

use super::{RIGHT, changed, right, wrong};

const SYNC: &str = "sync = { listen = \"10.0.0.1:9464\", peer = \"10.0.0.2:9464\", \
                    key_file = \"/etc/tidegate/sync.key\" }\ninterface =";

fn with(from: &str, to: &str) -> String {
    changed("interface =", &SYNC.replace(from, to))
}

#[test]
fn the_channel_is_as_given() {
    let config = right(&with("", ""));
    let sync = config.sync().unwrap();
    assert_eq!(sync.listen().to_string(), "10.0.0.1:9464");
    assert_eq!(sync.peer().to_string(), "10.0.0.2:9464");
    assert_eq!(sync.key_file().to_str(), Some("/etc/tidegate/sync.key"));
    assert_eq!(right(RIGHT).sync(), None);
}

#[test]
fn what_is_no_peer_is_reported() {
    for (from, to, expected) in [
        (
            "10.0.0.1:9464",
            "10.0.0.1",
            "sync.listen: \"10.0.0.1\" is not the address of a host",
        ),
        (
            "10.0.0.1:9464",
            "0.0.0.0:9464",
            "sync.listen: \"0.0.0.0:9464\" is not",
        ),
        (
            "10.0.0.2:9464",
            "224.0.0.1:9464",
            "sync.peer: \"224.0.0.1:9464\" is not",
        ),
        (
            "10.0.0.2:9464",
            "10.0.0.2:0",
            "sync.peer: \"10.0.0.2:0\" is not",
        ),
        (
            "10.0.0.2:9464",
            "10.0.0.1:9465",
            "sync.peer: the address of another host",
        ),
        (
            "10.0.0.2",
            "[fd00::2]",
            "sync.peer: the address of another host",
        ),
        (
            "10.0.0.2",
            "172.16.40.24",
            "sync.peer: 172.16.40.24 is a VIP",
        ),
        ("/etc/tidegate/sync.key", "", "sync.key_file: \"\" is not"),
        (
            "key_file = ",
            "keyfile = ",
            "sync.keyfile: unknown key; did you mean `key_file`?",
        ),
    ] {
        let message = wrong(&with(from, to));
        assert!(
            message.contains(expected),
            "{expected:?} is not in {message}"
        );
    }
}

#[test]
fn it_takes_a_restart_to_change() {
    let (without, one) = (right(RIGHT), right(&with("", "")));
    let other = right(&with("10.0.0.2", "10.0.0.3"));
    for (from, to) in [(&without, &one), (&one, &other), (&one, &without)] {
        let blockers = from.reload_blockers(to);
        let keys: Vec<_> = blockers.iter().map(|blocker| blocker.key()).collect();
        assert_eq!(keys, ["sync"]);
    }
}

#[test]
fn nat_may_send_from_a_vip_that_no_service_has() {
    let vip = "[[vip]]\naddress = \"172.16.40.25/32\"\n[[service]]";
    let text = changed(
        "interface =",
        "nat.sources = [\"172.16.40.25\"]\ninterface =",
    );
    let config = right(&text.replacen("[[service]]", vip, 1));
    assert_eq!(config.nat().sources().len(), 1);
}

#[test]
fn the_page_and_the_example_are_right() {
    let page = include_str!("../../../../docs/pair.md");
    let blocks = page.split("```toml\n").skip(1);
    let mut blocks = blocks.filter_map(|rest| rest.split_once("```"));
    let (text, _) = blocks.find(|(text, _)| text.starts_with("[sync]")).unwrap();
    assert!(right(&format!("{RIGHT}{text}")).sync().is_some());

    let example = include_str!("../../../configs/tidegate-vrrp.toml");
    assert_eq!(right(example).sync(), None);
    let used = example.lines().map(|line| {
        let line = line.strip_prefix("# ").filter(|rest| {
            let mut keys = ["[sync]", "listen =", "peer =", "key_file ="].iter();
            keys.any(|key| rest.starts_with(key))
        });
        line.map_or(String::new(), |line| format!("{line}\n"))
    });
    let used: String = used.collect();
    assert!(right(&format!("{RIGHT}{used}")).sync().is_some(), "{used}");
}
