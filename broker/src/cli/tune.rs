//! `tidegate-broker tune`: the kernel's settings, as a broker needs them.

use std::{path::PathBuf, process::ExitCode};

use console::{
    output,
    tune::{self, Action, Order, catalogue::Role, host::Host},
};

/// Shows which settings of the kernel matter to a broker, what they are and should be, and why.
///
/// It changes nothing without --apply or --undo. A value that is better than wanted is left alone.
/// CHANGE: it matters on each such host; perhaps: on some, as its reason says; leave: on none; missing:
/// this kernel has no such setting.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  tidegate-broker tune\n  tidegate-broker tune --apply --persist\n  \
    tidegate-broker tune --undo\n  tidegate-broker tune --json | jq '.settings[] | select(.standing == \"wrong\")'"
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
        default_value = "/etc/sysctl.d/90-tidegate-broker.conf"
    )]
    sysctl_file: PathBuf,
    /// Where is noted what was before.
    #[arg(
        long,
        value_name = "FILE",
        default_value = "/var/lib/tidegate-broker/tune.json"
    )]
    state: PathBuf,
    /// Print the settings as JSON.
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: &Args) -> anyhow::Result<ExitCode> {
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
        role: Role::Broker,
        host,
        action,
        only: args.only.clone(),
    })?;
    let text = if args.json {
        output::json(&report)?
    } else {
        report.text()
    };
    output::print(&text)?;
    Ok(if report.failed.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}
