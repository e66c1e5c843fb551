//! What is known of a host before it is judged. `None`: it could not be read.

use std::{net::IpAddr, path::PathBuf};

use crate::{
    control::Status,
    io::{netlink::Link, segment::Answer},
};

/// All of it.
#[derive(Clone, Debug, Default)]
pub(super) struct Facts {
    /// As in `/proc/sys/kernel/osrelease`.
    pub(super) release: Option<String>,
    /// Whether programs are compiled (`net.core.bpf_jit_enable`).
    pub(super) has_jit: Option<bool>,
    pub(super) capabilities: Option<Capabilities>,
    pub(super) pin_dir: PathBuf,
    /// Whether that is in a BPF file system.
    pub(super) has_bpffs: Option<bool>,
    pub(super) interface: String,
    /// `None`: there is no such interface.
    pub(super) link: Option<Link>,
    /// Absent for virtual interfaces.
    pub(super) driver: Option<String>,
    /// What the attached XDP program is called, if there is one.
    pub(super) program: Option<String>,
    pub(super) cpus: usize,
    /// Whether something keeps the clock right.
    pub(super) is_clock_kept: Option<bool>,
    /// Why `nat` cannot have its ports.
    pub(super) ports: Option<String>,
    /// Settings of the kernel that matter and are wrong.
    pub(super) settings: Vec<String>,
    pub(super) vips: Vec<VipFacts>,
    /// Backends of `dsr`, asked for the VIP itself.
    pub(super) direct: Vec<Direct>,
    /// What the daemon says, or why it does not.
    pub(super) daemon: Option<Result<Status, String>>,
    /// Whom this command has asked, as the daemon does not run.
    pub(super) reached: Vec<Reached>,
}

/// What a process may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Capabilities {
    /// `CapEff` of `/proc/PID/status`.
    pub(super) effective: u64,
    /// Whether they are the daemon's, and not this command's.
    pub(super) is_daemons: bool,
}

/// An address that clients connect to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct VipFacts {
    pub(super) address: IpAddr,
    /// Whether this host has it on the interface.
    pub(super) is_here: bool,
    /// The other hosts that answer for it; `None`: nobody was asked.
    pub(super) answers: Option<Vec<[u8; 6]>>,
}

/// A backend that should take a VIP for its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Direct {
    /// `SERVICE/BACKEND`.
    pub(super) name: String,
    pub(super) vip: IpAddr,
    pub(super) answer: Answer,
}

/// Somebody whom this host has to reach.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Reached {
    pub(super) subject: Subject,
    /// `SERVICE/BACKEND`, or an address.
    pub(super) name: String,
    /// Why it was not, if so.
    pub(super) failure: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Subject {
    Backend,
    Sync,
    Vrrp,
}
