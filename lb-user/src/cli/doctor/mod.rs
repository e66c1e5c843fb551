//! `tidegate doctor`: looks for what keeps the balancer from working, and changes nothing.
//!
//! `gather` makes facts of the host, `examine` findings of facts, of which `daemon` and `segment` have
//! their parts.

mod daemon;
mod examine;
mod facts;
mod finding;
mod gather;
mod segment;
#[cfg(test)]
mod tests;

use std::path::PathBuf;

use anyhow::Context as _;

use self::{
    examine::examine,
    finding::{Finding, Level},
    gather::gather,
};
use super::{
    EXIT_ERRORS, EXIT_FAILED, Failure,
    check::complaint,
    client::{Client, DAEMON},
    output,
};
use crate::{config, control::Status};

/// Looks for what keeps the balancer from working: kernel, interface, addresses, peers, backends.
///
/// It changes nothing, and says what to do. Hosts of the segment are asked who answers for the VIPs, and
/// backends of `dsr` whether they take clients of the VIP. Exit codes: 0 all is well, 1 there are
/// warnings, 2 there are errors, 64 the configuration is wrong.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  tidegate doctor\n  tidegate doctor --config tidegate.toml --bad\n  \
    tidegate doctor --json | jq -r '.[] | select(.level != \"ok\") | .advice'"
)]
pub(super) struct Args {
    /// The configuration of the daemon, whether it runs or not.
    #[arg(
        long,
        value_name = "FILE",
        default_value = "/etc/tidegate/tidegate.toml"
    )]
    config: PathBuf,
    /// Only tell what is not well.
    #[arg(long)]
    bad: bool,
    /// Print the findings as JSON.
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: &Args) -> Result<(), Failure> {
    let config = config::load(&args.config);
    let config = config.map_err(|errors| Failure::Usage(complaint(&errors)))?;
    let client = Client::new(DAEMON, config.api().socket());
    let status = client
        .map_err(|error| format!("{error:#}"))
        .and_then(|client| {
            let answer = client.get::<Status>("/v1/status");
            answer.map_err(|error| error.to_string())
        });
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the runtime")?;
    let mut findings = examine(&runtime.block_on(gather(&config, status)));
    let worst = findings.iter().map(|finding| finding.level).max();
    findings.retain(|finding| !args.bad || finding.level > Level::Ok);
    output::print(&if args.json {
        output::json(&findings)?
    } else {
        findings.iter().map(line).collect()
    })?;
    match worst {
        Some(Level::Ok) | None => Ok(()),
        Some(Level::Warning) => Err(Failure::Told(EXIT_FAILED)),
        Some(Level::Error) => Err(Failure::Told(EXIT_ERRORS)),
    }
}

fn line(finding: &Finding) -> String {
    let Finding {
        level,
        subject,
        message,
        advice,
    } = finding;
    let level = match level {
        Level::Ok => "ok",
        Level::Warning => "warning",
        Level::Error => "ERROR",
    };
    // Others have a say in it: names, reasons of probes.
    let message = console::output::printable(message);
    let line = format!("{level:<7}  {subject}: {message}\n");
    match advice {
        Some(advice) => format!("{line}         -> {}\n", console::output::printable(advice)),
        None => line,
    }
}
