//! Every setting that guides to large numbers of connections name, and what is left of it.
//!
//! The reasons are those of the kernel's documentation (`networking/ip-sysctl`,
//! `networking/nf_conntrack-sysctl`, `admin-guide/sysctl/{fs,net,kernel}`), and of `tcp_conn_request` in
//! `net/ipv4/tcp_input.c`, where SYNs are refused.

use serde::Serialize;

/// What a host is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    Balancer,
    Broker,
}

/// The value that a setting should have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Wanted {
    /// This much or more: a greater value is left alone.
    AtLeast(u64),
    /// This much or less: a smaller value is left alone.
    AtMost(u64),
    /// As it is: it makes no difference, or a worse one.
    Untouched,
}

/// Where the setting still makes a difference.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Weight {
    /// Without it the host does not hold what it should.
    Matters,
    /// On some hosts, of which its reason tells.
    Sometimes,
    /// Nowhere, as far as this program goes.
    Obsolete,
}

/// One setting, as one kind of host needs it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Setting {
    /// As sysctl names it.
    pub key: &'static str,
    pub wanted: Wanted,
    pub weight: Weight,
    pub why: &'static str,
}

/// Files that one process may have open, and with that the clients of a broker.
pub const OPEN_FILES: u64 = 1_048_576;

const fn matters(key: &'static str, wanted: Wanted, why: &'static str) -> Setting {
    Setting {
        key,
        wanted,
        weight: Weight::Matters,
        why,
    }
}

const fn sometimes(key: &'static str, wanted: Wanted, why: &'static str) -> Setting {
    Setting {
        key,
        wanted,
        weight: Weight::Sometimes,
        why,
    }
}

const fn obsolete(key: &'static str, why: &'static str) -> Setting {
    Setting {
        key,
        wanted: Wanted::Untouched,
        weight: Weight::Obsolete,
        why,
    }
}

const BROKER: &[Setting] = &[
    matters(
        "fs.nr_open",
        Wanted::AtLeast(OPEN_FILES),
        "no process can be allowed more open files than this, and every client is one",
    ),
    matters(
        "fs.file-max",
        Wanted::AtLeast(2_097_152),
        "the open files of all processes together; systemd raises it as far as it goes at boot, others do \
         not",
    ),
    matters(
        "net.core.somaxconn",
        Wanted::AtLeast(8_192),
        "caps the queue of connections that wait to be accepted, for which the broker asks for 8192: all \
         clients may come back at once. Taken when it starts to listen, so restart it. The kernel's own \
         is 4096 since Linux 5.4, and was 128",
    ),
    matters(
        "net.ipv4.tcp_syncookies",
        Wanted::AtLeast(1),
        "without them a full queue of SYNs refuses clients; on by default",
    ),
    matters(
        "net.netfilter.nf_conntrack_max",
        Wanted::AtLeast(1_000_000),
        "a firewall that tracks connections has an entry for every client, and drops packets when it has \
         no more; where it is not loaded there is no such limit",
    ),
    sometimes(
        "net.ipv4.tcp_max_syn_backlog",
        Wanted::AtLeast(16_384),
        "half-open connections of a listener, where SYN cookies are off; where they are on, somaxconn is \
         that limit",
    ),
    sometimes(
        "net.core.netdev_max_backlog",
        Wanted::AtLeast(16_384),
        "packets that wait for a CPU after RPS and on virtual interfaces; drivers of network cards poll, \
         and do without. Look for drops in the second column of /proc/net/softnet_stat",
    ),
    sometimes(
        "net.netfilter.nf_conntrack_tcp_timeout_time_wait",
        Wanted::AtMost(30),
        "how long an entry outlives its connection, 120 s by default; where nf_conntrack_max is too few \
         and memory too",
    ),
    sometimes(
        "net.ipv4.tcp_max_tw_buckets",
        Wanted::AtLeast(1_048_576),
        "connections in TIME_WAIT, which are on the side that closed first: the broker, when it evacuates. \
         Beyond, they are ended at once. The kernel's own goes by memory, and is not to be lowered",
    ),
    obsolete(
        "net.ipv4.ip_local_port_range",
        "the broker takes its clients in at one port, and connects to peers and servers of logins alone; \
         who needs a wide range is a proxy or a load generator",
    ),
    obsolete(
        "net.core.rmem_default",
        "of other protocols: TCP goes by net.ipv4.tcp_rmem, and adapts each buffer to its connection",
    ),
    obsolete(
        "net.core.wmem_default",
        "of other protocols: TCP goes by net.ipv4.tcp_wmem, and adapts each buffer to its connection",
    ),
    obsolete(
        "net.core.rmem_max",
        "bounds what a program asks for with SO_RCVBUF, which ends the adapting; the broker asks for nothing",
    ),
    obsolete(
        "net.core.wmem_max",
        "bounds what a program asks for with SO_SNDBUF, which ends the adapting; the broker asks for nothing",
    ),
    obsolete(
        "net.core.optmem_max",
        "what is sent beside data, such as open files, and filters of a socket; a client's has none",
    ),
    obsolete(
        "net.ipv4.tcp_fin_timeout",
        "how long a closed connection waits for the client to close, too (FIN_WAIT_2); it never shortened \
         TIME_WAIT",
    ),
    obsolete(
        "net.ipv4.tcp_tw_reuse",
        "for connections that the host opens, and a broker's are opened by its clients",
    ),
];

/// Why a balancer in XDP has no use for what a proxy needed.
const NO_SOCKETS: &str =
    "the balancer has no sockets for clients: packets pass in XDP, before TCP sees them";

const NO_CONNTRACK: &str =
    "XDP comes before connection tracking, which has no entries for balanced flows";

const BALANCER: &[Setting] = &[
    matters(
        "net.core.bpf_jit_enable",
        Wanted::AtLeast(1),
        "without it the program is interpreted for every packet; many kernels have no other way but 1",
    ),
    sometimes(
        "kernel.bpf_stats_enabled",
        Wanted::AtMost(0),
        "measures every run of every BPF program, which takes its time at each packet; leave it for as long \
         as somebody measures",
    ),
    sometimes(
        "net.core.netdev_max_backlog",
        Wanted::AtLeast(16_384),
        "packets that wait for a CPU after RPS and on virtual interfaces, where XDP is generic; native XDP \
         comes before it. Look for drops in the second column of /proc/net/softnet_stat",
    ),
    obsolete(
        "net.ipv4.ip_local_port_range",
        "nat has ports of its own ([nat] ports), which must not overlap this range: leave it as the kernel \
         has it, 32768 to 60999, and put it back if it was widened for a proxy",
    ),
    obsolete("fs.file-max", NO_SOCKETS),
    obsolete("fs.nr_open", NO_SOCKETS),
    obsolete("net.core.somaxconn", NO_SOCKETS),
    obsolete("net.ipv4.tcp_max_syn_backlog", NO_SOCKETS),
    obsolete("net.ipv4.tcp_syncookies", NO_SOCKETS),
    obsolete("net.core.rmem_default", NO_SOCKETS),
    obsolete("net.core.wmem_default", NO_SOCKETS),
    obsolete("net.core.rmem_max", NO_SOCKETS),
    obsolete("net.core.wmem_max", NO_SOCKETS),
    obsolete("net.core.optmem_max", NO_SOCKETS),
    obsolete("net.ipv4.tcp_max_tw_buckets", NO_SOCKETS),
    obsolete("net.ipv4.tcp_fin_timeout", NO_SOCKETS),
    obsolete("net.ipv4.tcp_tw_reuse", NO_SOCKETS),
    obsolete("net.netfilter.nf_conntrack_max", NO_CONNTRACK),
    obsolete(
        "net.netfilter.nf_conntrack_tcp_timeout_time_wait",
        NO_CONNTRACK,
    ),
];

/// All settings that a host of that kind is told of, what matters first.
#[must_use]
pub const fn settings(role: Role) -> &'static [Setting] {
    match role {
        Role::Balancer => BALANCER,
        Role::Broker => BROKER,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::{Role, Wanted, Weight, settings};

    /// What the guides that people follow set.
    const OLD: [&str; 17] = [
        "fs.file-max",
        "fs.nr_open",
        "net.core.netdev_max_backlog",
        "net.core.optmem_max",
        "net.core.rmem_default",
        "net.core.rmem_max",
        "net.core.somaxconn",
        "net.core.wmem_default",
        "net.core.wmem_max",
        "net.ipv4.ip_local_port_range",
        "net.ipv4.tcp_fin_timeout",
        "net.ipv4.tcp_max_syn_backlog",
        "net.ipv4.tcp_max_tw_buckets",
        "net.ipv4.tcp_syncookies",
        "net.ipv4.tcp_tw_reuse",
        "net.netfilter.nf_conntrack_max",
        "net.netfilter.nf_conntrack_tcp_timeout_time_wait",
    ];

    #[test]
    fn every_old_setting_is_judged_for_both_kinds_of_hosts_once() {
        for role in [Role::Balancer, Role::Broker] {
            let keys: BTreeSet<_> = settings(role).iter().map(|setting| setting.key).collect();
            assert_eq!(keys.len(), settings(role).len(), "{role:?}");
            for key in OLD {
                assert!(keys.contains(key), "{role:?}: {key}");
            }
        }
    }

    #[test]
    fn what_is_obsolete_and_nothing_else_is_left_untouched() {
        for setting in [Role::Balancer, Role::Broker]
            .into_iter()
            .flat_map(settings)
        {
            let is_untouched = setting.wanted == Wanted::Untouched;
            assert_eq!(
                is_untouched,
                setting.weight == Weight::Obsolete,
                "{}",
                setting.key
            );
        }
    }
}
