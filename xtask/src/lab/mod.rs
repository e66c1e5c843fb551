//! The reference network in network namespaces of one machine: real kernels' stacks, real binaries.
//!
//! ```text
//!  client .100   broker1 .20   broker2 .21   lb1 .22   lb2 .23      172.16.40.0/24 and fd00:40::/64
//!     |             |             |            |         |          one namespace each, interface eth0
//!     +-------------+------ switch (bridge) ---+---------+          the VIP is .24
//! ```
//!
//! [`Topology`] builds it, [`Host`] runs things inside, [`Process`] holds what runs. All of it is taken down
//! when dropped; [`clean_leftovers`] removes what a killed run left behind.

mod binaries;
mod config;
mod host;
mod netns;
mod pass;
mod process;
mod sys;
mod topology;
mod wait;
mod workdir;

pub use binaries::{BIN_DIR, Binaries};
pub use config::{ConfigText, Example};
pub use host::Host;
pub use netns::NetNs;
pub use process::Process;
pub use sys::{interrupted, note_interrupts, ticks_per_second};
pub use topology::{Family, Switch, Topology};
pub use wait::{Expired, wait_until};
pub use workdir::WorkDir;

/// Names of everything the laboratory makes start with this, then the owner's pid.
const PREFIX: &str = "tg-";

/// Removes namespaces and directories of runs whose process is gone, and ends what still runs in them.
///
/// # Errors
/// When a namespace or a directory of a dead run cannot be removed.
pub fn clean_leftovers() -> anyhow::Result<()> {
    netns::clean_leftovers()?;
    workdir::clean_leftovers()
}

/// The pid inside a name of ours, if its process is gone.
fn dead_owner(name: &str) -> Option<u32> {
    let pid: u32 = name.strip_prefix(PREFIX)?.split('-').next()?.parse().ok()?;
    (!std::path::Path::new("/proc").join(pid.to_string()).exists()).then_some(pid)
}

/// `PREFIX`, pid and a number: unique on this machine.
fn unique_name() -> String {
    use std::sync::atomic::{AtomicU32, Ordering};
    static COUNTER: AtomicU32 = AtomicU32::new(0);
    let number = COUNTER.fetch_add(1, Ordering::Relaxed);
    format!("{PREFIX}{}-{number}", std::process::id())
}
