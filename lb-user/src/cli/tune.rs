//! `tidegate tune`: the kernel's settings, as a balancer needs them.

use std::path::PathBuf;

use console::tune::{self, Action, Order, catalogue::Role, host::Host};

use super::{EXIT_FAILED, Failure, output};

/// Shows which settings of the kernel matter to a balancer, what they are and should be, and why.
///
/// It changes nothing without --apply or --undo. A value that is better than wanted is left alone.
/// CHANGE: it matters on each such host; perhaps: on some, as its reason says; leave: on none; missing:
/// this kernel has no such setting.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  tidegate tune\n  tidegate tune --apply --persist\n  \
    tidegate tune --undo\n  tidegate tune --json | jq '.settings[] | select(.standing == \"wrong\")'"
)]
pub(super) struct Args {
    /// Write what matters and is wrong, after noting what it was.
    #[arg(long, conflicts_with = "undo")]
    apply: bool,
    /// Only show, apply or undo this setting, whether it matters or does perhaps; may be repeated.
    #[arg(long, value_name = "SETTING")]
    only: Vec<String>,
    /// Have it so after the next boot as well, by the file of --sysctl-file.
    #[arg(long, requires = "apply", conflicts_with = "undo")]
    persist: bool,
    /// Put back what was before --apply, but what others have changed since; remove the file.
    #[arg(long)]
    undo: bool,
    /// The file for the next boot.
    #[arg(
        long,
        value_name = "FILE",
        default_value = "/etc/sysctl.d/90-tidegate.conf"
    )]
    sysctl_file: PathBuf,
    /// Where is noted what was before.
    #[arg(
        long,
        value_name = "FILE",
        default_value = "/var/lib/tidegate/tune.json"
    )]
    state: PathBuf,
    /// Print the settings as JSON.
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: &Args) -> Result<(), Failure> {
    let host = Host {
        settings: PathBuf::from("/proc/sys"),
        state: args.state.clone(),
    };
    let action = if args.undo {
        Action::Undo(args.sysctl_file.clone())
    } else if args.apply {
        Action::Apply(args.persist.then(|| args.sysctl_file.clone()))
    } else {
        Action::Show
    };
    let report = tune::run(&Order {
        role: Role::Balancer,
        host,
        action,
        only: args.only.clone(),
    })
    .map_err(|error| {
        if error.is_usage() {
            Failure::Usage(error.to_string())
        } else {
            Failure::Runtime(error.into())
        }
    })?;
    let text = if args.json {
        output::json(&report)?
    } else {
        report.text()
    };
    output::print(&text)?;
    if !report.failed.is_empty() {
        return Err(Failure::Told(EXIT_FAILED));
    }
    Ok(())
}
