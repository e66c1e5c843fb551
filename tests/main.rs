//! Privileged tests, one module for each part of Tidegate's behaviour.
//!
//! `datapath` needs root and nothing else; the others run the real programs in networks of
//! namespaces. `cargo xtask test` prepares and runs all of them.

mod capacity;
mod churn;
mod dashboard;
mod datapath;
mod doctor;
mod draining;
mod ecmp;
mod evacuating;
mod events;
mod forwarding;
mod guard;
mod health;
mod insight;
mod link;
mod migration;
mod notify;
mod packages;
mod path_mtu;
mod reload;
mod restart;
mod routed;
mod scheduling;
mod shutdown;
mod sync;
mod takeover;
mod tuning;
mod vrrp;
mod vrrp_faults;
mod vrrp_kill;
mod vrrp_mac;
mod vrrp_peers;
mod vrrp_pings;
mod vrrp_sockets;
