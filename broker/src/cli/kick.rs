//! `tidegate-broker kick`: sends a client away.

use std::process::ExitCode;

use console::output::{self, printable};

use super::target::Target;
use crate::control::view::{KickOrder, Kicked};

/// Close a client's connection; its will is published. It may connect again at once. In a cluster the
/// client is found on whichever node it is.
///
/// MQTT 5 clients are told 0x98, administrative action.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  tidegate-broker kick sensor-7\n  \
    tidegate-broker kick sensor-7 --end-session   # and forget its subscriptions and messages")]
pub(super) struct Args {
    /// The client's id, as `clients` and `sessions` list it.
    #[arg(value_name = "CLIENT")]
    client_id: String,
    /// End the client's session as well, also if the client is away.
    #[arg(long)]
    end_session: bool,
    #[command(flatten)]
    target: Target,
}

pub(super) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let order = KickOrder {
        client_id: args.client_id.clone(),
        end_session: args.end_session,
    };
    let body = output::json(&order)?;
    let kicked: Kicked = args.target.client()?.post("/v1/kick", Some(body))?;
    let text = if args.target.json {
        output::json(&kicked)?
    } else {
        format!("{} {}\n", printable(&args.client_id), sentence(&kicked))
    };
    output::print(&text)?;
    Ok(ExitCode::SUCCESS)
}

fn sentence(kicked: &Kicked) -> String {
    let what = match (kicked.was_connected, kicked.session_ended) {
        (true, true) => "was sent away, and nothing is kept for it",
        (true, false) => "was sent away; its session is kept",
        (false, true) => "was not connected; its session has ended",
        (false, false) => "is not connected; its session is kept (--end-session ends it)",
    };
    match &kicked.node {
        Some(node) => format!("{what} ({})", printable(node)),
        None => what.to_owned(),
    }
}
