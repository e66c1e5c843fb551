//! What a reload may change and what it may not.

use super::{RIGHT, changed, right};

#[test]
fn settings_that_are_fixed_at_start_block_a_reload() {
    let changes = [
        ("interface", changed("eth0", "eth1")),
        ("xdp_mode", format!("xdp_mode = \"native\"{RIGHT}")),
        (
            "seed",
            format!("seed = \"00112233445566778899aabbccddeeff\"{RIGHT}"),
        ),
        ("pin_dir", format!("pin_dir = \"/tmp\"{RIGHT}")),
        ("state_dir", format!("state_dir = \"/tmp\"{RIGHT}")),
        ("log", format!("log.level = \"debug\"{RIGHT}")),
        ("api.socket", format!("api.socket = \"/tmp/socket\"{RIGHT}")),
        ("api.mode", format!("api.mode = \"0600\"{RIGHT}")),
        ("api.group", format!("api.group = \"tidegate\"{RIGHT}")),
        (
            "metrics.listen",
            format!("metrics.listen = \"127.0.0.1:9463\"{RIGHT}"),
        ),
        ("limits", format!("limits.flows = 7{RIGHT}")),
    ];
    for (key, text) in changes {
        let blockers = right(RIGHT).reload_blockers(&right(&text));
        let keys: Vec<&str> = blockers.iter().map(|blocker| blocker.key()).collect();
        assert_eq!(keys, [key]);
        assert!(blockers[0].to_string().contains(key));
    }
}

#[test]
fn sources_of_live_flows_cannot_be_reloaded() {
    let nat = changed("\"dsr\"", "\"nat\"");
    let other = format!("nat.sources = [\"172.16.40.99\"]{nat}");
    let blockers = right(&nat).reload_blockers(&right(&other));
    let keys: Vec<&str> = blockers.iter().map(|blocker| blocker.key()).collect();
    assert_eq!(keys, ["nat"]);
}

#[test]
fn services_vips_and_tracking_can_be_reloaded() {
    let texts = [
        changed("172.16.40.21", "172.16.40.22"),
        changed("name = \"mqtt\"", "name = \"other\""),
        changed("172.16.40.24/32", "172.16.40.24/24"),
        format!("tracking.idle = \"1h\"{RIGHT}"),
        format!("nat.ports = \"2000-3000\"{RIGHT}"),
    ];
    for text in texts {
        assert_eq!(right(RIGHT).reload_blockers(&right(&text)), []);
    }
}
