//! Settings of virtual routers that have no counterpart.

use super::tree::Node;
use crate::import::finding::{Findings, Weight};

/// Statements that have no counterpart.
const OTHERS: [(&[&str], Weight, &str, &str); 9] = [
    (
        &[
            "accept",
            "debug",
            "dont_track_primary",
            "native_ipv6",
            "kernel_rx_buf_size",
        ],
        Weight::Needless,
        "it is about how keepalived runs",
        "",
    ),
    (
        &[
            "garp_master_delay",
            "garp_lower_prio_delay",
            "garp_lower_prio_repeat",
            "garp_master_refresh_repeat",
            "garp_interval",
            "gna_interval",
            "garp_extra_if",
            "lower_prio_no_advert",
            "higher_prio_send_advert",
            "vmac_xmit_base",
            "promote_secondaries",
            "thread_timer_expired",
        ],
        Weight::Needless,
        "announcements have times of their own: see `announce_repeats` and `announce_interval`",
        "",
    ),
    (
        &[
            "skip_check_adv_addr",
            "check_unicast_src",
            "unicast_ttl",
            "ttl_from_unicast",
        ],
        Weight::Needless,
        "adverts are taken from `peers` alone, where there are any; see `other_addresses`",
        "",
    ),
    (
        &["no_accept"],
        Weight::Lost,
        "a host that is Active answers for its VIPs",
        "let its firewall refuse what is for the VIPs themselves",
    ),
    (
        &["virtual_routes", "virtual_rules"],
        Weight::Lost,
        "only addresses move with the role",
        "have a script of a [[notify]] set them",
    ),
    (
        &["use_ipvlan"],
        Weight::Lost,
        "no device is made",
        "see `virtual_mac`",
    ),
    (
        &["track_file", "track_process", "track_bfd"],
        Weight::Lost,
        "a router depends on gateways, scripts and backends",
        "write a script that ends with 0 while it is well, and name it in [[vrrp.track]]",
    ),
    (
        &["lvs_sync_daemon_interface", "lvs_sync_daemon"],
        Weight::Lost,
        "hosts tell each other of their flows over a channel of their own",
        "see `[sync]`",
    ),
    (
        &["down_timer_adverts", "linkbeat_use_polling"],
        Weight::Lost,
        "a peer is given up after three intervals, as RFC 9568 has it",
        "",
    ),
];

/// Tells of a setting that no one reads.
pub(super) fn other(node: &Node, findings: &mut Findings) {
    let word = node.word(0);
    let known = OTHERS.iter().find(|(words, ..)| words.contains(&word));
    if let Some((_, weight, why, instead)) = known {
        let (why, instead) = ((*why).to_owned(), (*instead).to_owned());
        findings.add(*weight, node.line, word.to_owned(), why, instead);
    } else {
        findings.lost(
            node.line,
            format!("vrrp_instance: {word}"),
            "it is not known",
            "",
        );
    }
}
