//! The reference network in network namespaces of one machine: real kernels' stacks, real binaries.
//!
//! ```text
//!  client .100   broker1 .20   broker2 .21   lb1 .22   lb2 .23      172.16.40.0/24 and fd00:40::/64
//!     |             |             |            |         |          one namespace each, interface eth0
//!     +-------------+------ switch (bridge) ---+---------+          the VIP is .24
//! ```
//!
//! [`Topology`] builds it, [`Router`] makes segments of it, [`Host`] runs things inside, [`Process`] holds what runs. All of it is taken down
//! when dropped; [`clean_leftovers`] removes what a killed run left behind.

mod binaries;
mod config;
mod host;
mod ledger;
mod netns;
mod pass;
mod pinger;
mod process;
mod router;
mod sys;
mod topology;
mod wait;
mod workdir;

pub use binaries::{BIN_DIR, Binaries};
pub use config::{ConfigText, Example};
pub use host::Host;
pub use netns::{Door, NetNs};
pub(crate) use pinger::raw_socket;
pub use pinger::{Answer, Answers, PING_PERIOD, Pinger, Record};
pub use process::{Process, cpu_seconds_of, memory_of};
pub use router::Router;
pub use sys::{interrupted, note_interrupts, run_first, ticks_per_second};
pub use topology::{Family, Switch, Topology};
pub use wait::{Expired, wait_until};
pub use workdir::WorkDir;

/// Names of everything the laboratory makes start with this, then the owner's pid.
const PREFIX: &str = "tg-";

/// Removes namespaces, directories and ledgers of runs whose process is gone, and ends what still runs.
///
/// # Errors
/// When a namespace or a directory of a dead run cannot be removed.
pub fn clean_leftovers() -> anyhow::Result<()> {
    netns::clean_leftovers()?;
    ledger::clean_leftovers();
    workdir::clean_leftovers()
}

/// The pid inside a name of ours, if its process is gone.
fn dead_owner(name: &str) -> Option<u32> {
    let pid: u32 = name.strip_prefix(PREFIX)?.split('-').next()?.parse().ok()?;
    (!is_alive(pid)).then_some(pid)
}

/// One that ended and was not waited for is dead, too.
fn is_alive(pid: u32) -> bool {
    let Ok(stat) = std::fs::read_to_string(format!("/proc/{pid}/stat")) else {
        return false;
    };
    // The state stands behind the name in brackets, which may hold anything.
    stat.rsplit_once(')')
        .is_some_and(|(_, rest)| !rest.trim_start().starts_with(['Z', 'X']))
}

/// `PREFIX`, pid and a number: unique on this machine.
fn unique_name() -> String {
    use std::sync::atomic::{AtomicU32, Ordering};
    static COUNTER: AtomicU32 = AtomicU32::new(0);
    let number = COUNTER.fetch_add(1, Ordering::Relaxed);
    format!("{PREFIX}{}-{number}", std::process::id())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_running_owner_keeps_its_things() {
        assert_eq!(dead_owner(&unique_name()), None);
    }

    #[test]
    fn names_of_others_are_nobodys() {
        for name in ["tg-", "tg-client", "docker-1", "tg-0x1-client"] {
            assert_eq!(dead_owner(name), None, "{name}");
        }
    }

    #[test]
    fn a_dead_owner_is_named() {
        // Above any pid that Linux gives out.
        assert_eq!(dead_owner("tg-4194305-0-client"), Some(4_194_305));
    }
}
