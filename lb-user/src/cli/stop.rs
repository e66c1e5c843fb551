//! `tidegate stop`: ends the daemon, or traffic as well.

use std::{
    fs,
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use anyhow::anyhow;

use super::{
    Failure, Target,
    client::{Client, ClientError, DAEMON},
    output,
};
use crate::{
    config,
    control::Leaving,
    daemon::{self, Left},
};

/// Longer than all that a daemon does to stop.
const PATIENCE: Duration = Duration::from_secs(30);

/// How often the process is looked for.
const LOOK: Duration = Duration::from_millis(50);

/// Stops the daemon. Its program goes on forwarding by the tables as they are; the next start goes on
/// from there.
///
/// With --detach the program is taken off the interface, after the addresses, and all that it kept is
/// forgotten: traffic ends. If no daemon runs, --config says whose program to take off.
///
/// With --orphans no daemon may run, and nothing happens where its program forwards; where none does,
/// the addresses that it has left are taken off, so that clients are not answered by this host itself.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  tidegate stop\n  tidegate stop --detach\n  \
    tidegate stop --detach --config /etc/tidegate/tidegate.toml\n  \
    tidegate stop --orphans --config /etc/tidegate/tidegate.toml"
)]
pub(super) struct Args {
    #[command(flatten)]
    target: Target,
    /// End traffic as well.
    #[arg(long, group = "what")]
    detach: bool,
    /// The configuration of the daemon, whether it runs or not.
    #[arg(long, short, value_name = "FILE", requires = "what")]
    config: Option<PathBuf>,
    /// Take off addresses that a daemon has left and no program serves.
    #[arg(long, group = "what", requires = "config")]
    orphans: bool,
}

pub(super) fn run(args: &Args) -> Result<(), Failure> {
    let Some(path) = &args.config else {
        return stop(&args.target.socket, args.detach).map_err(Failure::from);
    };
    let config = config::load(path).map_err(|errors| Failure::Usage(format!("\n{errors}")))?;
    if args.orphans {
        let client = Client::new(DAEMON, config.api().socket())?;
        let left = client.block_on(daemon::take_off_orphans(&config))?;
        output::print(match left {
            Left::Forwarding => "no daemon runs; the program goes on forwarding\n",
            Left::Nothing => "no daemon runs; no address of its own is left on the interface\n",
        })?;
        return Ok(());
    }
    match stop(config.api().socket(), args.detach) {
        Err(Unstopped::Client(ClientError::NotRunning { .. })) => {
            let client = Client::new(DAEMON, config.api().socket())?;
            let was_there = client.block_on(daemon::take_off(&config))?;
            output::print(if was_there {
                "no daemon ran; the program is taken off\n"
            } else {
                "no daemon ran, and there was no program of its own to take off\n"
            })?;
            Ok(())
        }
        outcome => outcome.map_err(Failure::from),
    }
}

/// Why the daemon did not stop.
enum Unstopped {
    Client(ClientError),
    Other(anyhow::Error),
}

impl From<Unstopped> for Failure {
    fn from(unstopped: Unstopped) -> Self {
        match unstopped {
            Unstopped::Client(error) => error.into(),
            Unstopped::Other(error) => error.into(),
        }
    }
}

/// Whether a process has not ended; one that nobody has asked for its end yet has.
fn runs(pid: u32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // The state stands behind the name in brackets, which may hold anything.
    stat.rsplit_once(')')
        .is_some_and(|(_, rest)| !rest.trim_start().starts_with(['Z', 'X']))
}

fn stop(socket: &Path, detach: bool) -> Result<(), Unstopped> {
    let client = Client::new(DAEMON, socket).map_err(Unstopped::Other)?;
    let route = if detach {
        "/v1/stop?detach=true"
    } else {
        "/v1/stop"
    };
    let Leaving { pid, forwards } = client.post(route, None).map_err(Unstopped::Client)?;
    let deadline = Instant::now() + PATIENCE;
    while runs(pid) {
        if Instant::now() > deadline {
            let late = anyhow!("process {pid} has not ended in {PATIENCE:?}: see its log");
            return Err(Unstopped::Other(late));
        }
        thread::sleep(LOOK);
    }
    let text = if forwards {
        "stopped; the program goes on forwarding\n"
    } else {
        "stopped; the program is taken off\n"
    };
    output::print(text).map_err(Unstopped::Other)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::runs;
    use crate::cli::Cli;

    #[test]
    fn orphans_are_looked_for_by_a_configuration_and_nothing_else_is_asked() {
        let parse = |line: &str| Cli::try_parse_from(line.split(' ')).is_ok();
        assert!(parse("tidegate stop --orphans --config a.toml"));
        assert!(parse("tidegate stop --detach --config a.toml"));
        assert!(!parse("tidegate stop --orphans"));
        assert!(!parse("tidegate stop --config a.toml"));
        assert!(!parse("tidegate stop --orphans --detach --config a.toml"));
    }

    #[test]
    fn a_process_that_is_not_there_has_ended() {
        assert!(runs(std::process::id()));
        // Above any pid that Linux gives out.
        assert!(!runs(4_194_305));
    }
}
