//! `tidegate reload`: has the daemon read its configuration again.

use serde::{Deserialize, Serialize};

use super::{
    Failure, Target,
    client::{Client, DAEMON},
    output,
};

/// Has the daemon read its configuration again; a file with mistakes changes nothing.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Example:\n  tidegate check --config /etc/tidegate/tidegate.toml && tidegate reload"
)]
pub(super) struct Args {
    #[command(flatten)]
    target: Target,
    /// Print the daemon's answer as JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Serialize, Deserialize)]
struct Reloaded {
    generation: u64,
}

pub(super) fn run(args: &Args) -> Result<(), Failure> {
    let client = Client::new(DAEMON, &args.target.socket)?;
    let reloaded: Reloaded = client.post("/v1/reload", None)?;
    let text = if args.json {
        output::json(&reloaded)?
    } else {
        format!(
            "reloaded: configuration {} is in force\n",
            reloaded.generation
        )
    };
    output::print(&text)?;
    Ok(())
}
