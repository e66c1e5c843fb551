//! Reads keepalived's configuration: virtual routers, who is told, and the services of IPVS.

mod addresses;
mod ipvs;
mod notify;
mod others;
mod tracks;
mod tree;
mod vrrp;

use self::tracks::Scripts;
use self::tree::Node;
use super::draft::Draft;
use super::finding::{Findings, Weight};
use super::values::seconds;

/// What all virtual routers go by.
#[derive(Debug, Default)]
struct Globals {
    /// The version of VRRP, where an instance does not say.
    version: Option<u8>,
    startup_delay: Option<std::time::Duration>,
    /// Without authentication, whatever instances say.
    is_strict: bool,
    mail: notify::Mail,
}

/// Statements of `global_defs` and of the file that need no counterpart, or have none.
const OTHERS: [(&[&str], Weight, &str, &str); 8] = [
    (
        &[
            "notify_fifo",
            "notify_fifo_script",
            "vrrp_notify_fifo",
            "vrrp_notify_fifo_script",
        ],
        Weight::Lost,
        "nothing is written into a pipe",
        "see [[notify]], and `tidegate events --follow --json`",
    ),
    (
        &[
            "max_auto_priority",
            "min_auto_priority_delay",
            "dynamic_interfaces",
            "allow_if_changes",
            "vrrp_iptables",
            "vrrp_ipsets",
            "nftables",
            "nftables_counters",
            "nftables_ifindex",
            "iptables",
            "no_email_faults",
            "use_pid_dir",
            "child_wait_time",
        ],
        Weight::Needless,
        "it is about how keepalived runs",
        "",
    ),
    (
        &[
            "router_id",
            "lvs_id",
            "instance",
            "process_names",
            "bfd_process_name",
        ],
        Weight::Needless,
        "events and mails have the host's name",
        "",
    ),
    (
        &["vrrp_skip_check_adv_addr", "checker_log_all_failures"],
        Weight::Needless,
        "see `other_addresses` for adverts with other addresses",
        "",
    ),
    (
        &["enable_script_security", "script_user"],
        Weight::Changed,
        "scripts run as the user of the daemon",
        "let the service manager give it the user and the rights that it needs",
    ),
    (
        &[
            "static_ipaddress",
            "static_routes",
            "static_rules",
            "static_track_group",
        ],
        Weight::Lost,
        "what is on the host at all times is the host's own to configure",
        "put it into the network's configuration",
    ),
    (
        &[
            "vrrp_track_process",
            "vrrp_track_file",
            "track_file",
            "bfd_instance",
        ],
        Weight::Lost,
        "a router depends on gateways, scripts and backends",
        "write a script that ends with 0 while it is well, and name it in [[vrrp.track]]",
    ),
    (
        &[
            "ssl",
            "garp_group",
            "net_namespace",
            "linkbeat_use_polling",
            "enable_snmp_vrrp",
        ],
        Weight::Lost,
        "it has no counterpart",
        "",
    ),
];

/// Beginnings of names in `global_defs` that are about how keepalived itself runs.
const TUNING: [&str; 9] = [
    "vrrp_garp",
    "vrrp_gna",
    "vrrp_rx",
    "vrrp_rt",
    "vrrp_priority",
    "vrrp_no_swap",
    "checker_",
    "lvs_",
    "enable_",
];

/// Puts what `text` says into `draft`.
pub(super) fn read(text: &str, draft: &mut Draft, findings: &mut Findings) {
    let nodes = tree::read(text, findings);
    let mut globals = Globals::default();
    let mut scripts = Scripts::default();
    let groups = ipvs::Groups::read(&nodes);
    for node in &nodes {
        match node.word(0) {
            "global_defs" => globals.read(node, findings),
            "vrrp_script" => scripts.add(node, findings),
            _ => {}
        }
    }
    let instances = nodes.iter().filter(|it| it.word(0) == "vrrp_instance");
    let instances: Vec<&Node> = instances.collect();
    let settings = instances.iter().flat_map(|it| &it.block);
    let numbers = settings.filter(|it| it.word(0) == "virtual_router_id");
    let mut context = vrrp::Context {
        globals: &globals,
        scripts: &scripts,
        numbers: numbers.filter_map(|it| it.word(1).parse().ok()).collect(),
        is_one: instances.len() == 1,
    };
    for node in &instances {
        vrrp::read(node, &mut context, draft, findings);
    }
    // Services come when all addresses are known, and groups when all routers are.
    for node in &nodes {
        match node.word(0) {
            "global_defs" | "vrrp_script" | "virtual_server_group" | "vrrp_instance" => {}
            "vrrp_sync_group" => vrrp::read_group(node, draft, findings),
            "virtual_server" => ipvs::read(node, &groups, draft, findings),
            _ => other(node, findings),
        }
    }
    let groups = nodes.iter().filter(|it| it.word(0) == "vrrp_sync_group");
    let mut settings = instances.into_iter().chain(groups).flat_map(|it| &it.block);
    let is_alerting = settings.any(|it| it.word(0) == "smtp_alert" && is_on(it));
    globals.mail.settle(is_alerting, draft, findings);
}

/// Whether a statement that may have a value switches something on.
fn is_on(node: &Node) -> bool {
    !matches!(node.word(1), "off" | "false" | "no")
}

impl Globals {
    fn read(&mut self, node: &Node, findings: &mut Findings) {
        for node in &node.block {
            let value = node.word(1);
            match node.word(0) {
                "vrrp_version" => self.version = vrrp::version(value),
                "vrrp_startup_delay" => {
                    self.startup_delay = seconds(value).filter(|delay| !delay.is_zero());
                }
                "vrrp_mcast_group4" | "vrrp_mcast_group6" => {
                    let why = "adverts go to the group of the RFC, or to peers";
                    findings.lost(node.line, node.word(0), why, "give `peers`");
                }
                "vrrp_strict" => {
                    self.is_strict = true;
                    let why = "adverts are those of the RFC, and authentication is none of it";
                    findings.needless(node.line, node.word(0), why);
                }
                _ if self.mail.take(node, findings) => {}
                _ => other(node, findings),
            }
        }
    }
}

/// A statement that no one reads.
fn other(node: &Node, findings: &mut Findings) {
    let word = node.word(0);
    let known = OTHERS.iter().find(|(words, ..)| words.contains(&word));
    if let Some((_, weight, why, instead)) = known {
        let (why, instead) = ((*why).to_owned(), (*instead).to_owned());
        findings.add(*weight, node.line, word.to_owned(), why, instead);
    } else if TUNING.iter().any(|start| word.starts_with(start)) {
        findings.needless(node.line, word, "it is about how keepalived runs");
    } else {
        findings.lost(node.line, word, "it is not known", "");
    }
}
