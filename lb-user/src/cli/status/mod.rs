//! `tidegate status`: how things are, for people or scripts.

mod remarks;
mod routers;
mod sync;
mod view;

use std::{
    io::IsTerminal as _,
    thread,
    time::{Duration, Instant},
};

use super::{
    Failure, Target,
    client::{Client, DAEMON},
    output::{self, Reader},
};
use crate::control::Status;

pub(super) use routers::router_table;
pub(super) use view::{backend_table, sessions_cell};

/// How often `--watch` asks.
const REFRESH: Duration = Duration::from_secs(1);

/// Moves to the top left corner and clears what is below.
const CLEAR: &str = "\x1b[H\x1b[J";

/// Shows VIPs, virtual routers, services, backends and traffic.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  tidegate status\n  tidegate status --watch\n  \
    tidegate status --json | jq '.services[].backends[] | {name, health}'"
)]
pub(super) struct Args {
    #[command(flatten)]
    target: Target,
    /// Print one line of JSON.
    #[arg(long)]
    json: bool,
    /// Ask again each second and show rates, until interrupted.
    #[arg(long, short)]
    watch: bool,
}

pub(super) fn run(args: &Args) -> Result<(), Failure> {
    let client = Client::new(DAEMON, &args.target.socket)?;
    let mut before: Option<(Instant, Status)> = None;
    loop {
        let status: Status = client.get("/v1/status")?;
        let now = Instant::now();
        let text = if args.json {
            output::json(&status)?
        } else {
            let earlier = before
                .as_ref()
                .map(|(then, earlier)| (now - *then, earlier));
            let clear = if args.watch && std::io::stdout().is_terminal() {
                CLEAR
            } else {
                ""
            };
            clear.to_owned() + &view::render(&status, args.watch, earlier)
        };
        if output::print(&text)? == Reader::Gone || !args.watch {
            return Ok(());
        }
        before = Some((now, status));
        thread::sleep(REFRESH);
    }
}
