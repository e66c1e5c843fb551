//! `tidegate run`: the daemon.

use std::{io::IsTerminal as _, path::PathBuf, time::Duration};

use anyhow::Context as _;
use tracing::error;
use tracing_subscriber::EnvFilter;

use super::{Cause, Failure};
use crate::{
    config::{
        self,
        model::{Log, LogFormat},
    },
    daemon,
    io::host::PortsOverlap,
};

/// For threads that are in a system call when everything else has ended.
const THREADS_DEADLINE: Duration = Duration::from_secs(1);

/// What libraries may log unless the configuration names them: their debugging is not ours.
const LIBRARIES: &str = "aya=warn,aya_obj=warn,netlink_proto=warn,netlink_sys=warn,rtnetlink=warn,hyper=warn,hyper_util=warn";

/// Runs the balancer in the foreground until SIGTERM or SIGINT; SIGHUP reloads.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  tidegate run --config /etc/tidegate/tidegate.toml")]
pub(super) struct Args {
    /// The configuration file.
    #[arg(long, short, value_name = "FILE")]
    config: PathBuf,
}

pub(super) fn run(args: Args) -> Result<(), Failure> {
    let config =
        config::load(&args.config).map_err(|errors| Failure::Usage(format!("\n{errors}")))?;
    log_to_stderr(config.log())?;
    // What a reload reads must not depend on where the daemon was started.
    let path = std::path::absolute(&args.config).unwrap_or(args.config);
    let runtime = tokio::runtime::Runtime::new().context("cannot start the runtime")?;
    let outcome = runtime.block_on(daemon::run(path, config));
    runtime.shutdown_timeout(THREADS_DEADLINE);
    outcome.map_err(|error| {
        error!(error = format!("{error:#}"), "daemon failed");
        Failure::Logged(if error.is::<PortsOverlap>() {
            Cause::Config
        } else {
            Cause::Runtime
        })
    })
}

fn log_to_stderr(log: &Log) -> Result<(), Failure> {
    let filter = EnvFilter::try_new(format!("{LIBRARIES},{}", log.level()))
        .map_err(|error| Failure::Usage(format!("log.level: {error}")))?;
    let lines = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal());
    match log.format() {
        LogFormat::Text => lines.init(),
        LogFormat::Json => lines.json().init(),
    }
    Ok(())
}
