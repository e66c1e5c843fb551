//! `tidegate-broker bench conn|pub|sub`: the load generator.
//!
//! Thousands of MQTT clients in one process, each a task that waits for its socket or its timer.
//! What a client says when is decided without I/O (`session`, `publisher`, `subscriber`,
//! `window`, `sequence`); `client` and `link` bring bytes and time to it, over `wire`, which knows of
//! TLS and `websocket`; `swarm` starts,
//! watches and ends all clients, `moves` tells some to connect anew; `tally` counts, `live` and
//! `report` tell. It knows nothing of the broker
//! beside it and works against any.

mod args;
mod client;
mod codec;
mod gaps;
mod link;
mod live;
mod moves;
mod payload;
mod plan;
mod publisher;
mod report;
mod sequence;
mod session;
mod subscriber;
mod swarm;
mod tally;
mod template;
#[cfg(test)]
pub(crate) mod tests;
mod tls;
mod websocket;
mod window;
mod wire;

use std::{
    io::{self, Write},
    process::ExitCode,
    time::{SystemTime, UNIX_EPOCH},
};

use anyhow::Context;

pub use args::Args;
use plan::{Plan, PlanError};
use report::Summary;
use swarm::Swarm;

/// Exit code for arguments that make no sense together.
const USAGE: u8 = 64;

/// Runs the load generator on a runtime of its own and prints its summary.
///
/// The exit code is 0 if no client failed and no connection was lost, or with `--allow-loss`;
/// 64 for arguments that cannot work; else 1.
///
/// # Errors
///
/// When the runtime cannot be made, a signal cannot be caught, or the ready file or the summary
/// cannot be written.
pub fn run(args: Args) -> anyhow::Result<ExitCode> {
    // Where the limit cannot be raised, the clients beyond it fail and are counted.
    let _ = crate::open_files::raise_limit();
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    if let Some(threads) = args.kind.common().threads {
        builder.worker_threads(usize::from(threads));
    }
    let runtime = builder
        .enable_all()
        .build()
        .context("cannot start the runtime")?;
    runtime
        .block_on(run_here(args, &mut io::stdout()))
        .map(ExitCode::from)
}

/// Runs on the present runtime and returns the exit code.
async fn run_here(args: Args, out: &mut impl Write) -> anyhow::Result<u8> {
    let plan = match Plan::new(*args.kind, run_number()).await {
        Ok(plan) => plan,
        Err(error @ PlanError::Resolve { .. }) => return Err(error.into()),
        Err(error) => {
            let error = anyhow::Error::from(error);
            drop(writeln!(io::stderr(), "error: {error:#}"));
            return Ok(USAGE);
        }
    };
    let swarm = Swarm::new(plan);
    if swarm.plan.moves {
        moves::listen(&swarm, io::BufReader::new(io::stdin()));
    }
    let up = swarm::run(&swarm).await?;
    swarm.tell_missing();
    let summary = Summary::new(&swarm, up);
    let common = &swarm.plan.common;
    summary
        .print(out, common.json)
        .context("cannot write the summary")?;
    let success = summary.is_clean() || common.allow_loss;
    Ok(u8::from(!success))
}

/// Different for processes that start together and for runs one after the other.
fn run_number() -> u16 {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    let mixed = (since.subsec_nanos() >> 4) ^ std::process::id().wrapping_mul(0x9e37_79b9);
    (mixed ^ mixed >> 16) as u16
}
