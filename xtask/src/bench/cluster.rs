//! Nodes of a cluster: what a node more costs, and what becomes of clients that go from one to another.
//!
//! All nodes and the load generator share this machine: ratios say more than figures.

mod join;
mod kill;
mod nodes;
mod pairs;
mod roam;
mod scale;
mod subscribe;
mod takeover;

use anyhow::{Context, Result};
use clap::Subcommand;

use crate::elevate;
use crate::lab::{clean_leftovers, note_interrupts};

/// What to measure; without a case, what a node more costs.
#[derive(Clone, Debug, clap::Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct Args {
    #[command(subcommand)]
    case: Option<Case>,
    #[command(flatten)]
    scale: scale::Args,
}

/// A measurement of its own.
#[derive(Clone, Debug, Subcommand)]
enum Case {
    /// How long a client takes to connect to one node while its session is on the other.
    Takeover(takeover::Args),
    /// Clients that go from node to node under traffic: is one connected twice, is anything lost?
    Roam(roam::Args),
    /// Messages published on one node as soon as another one has confirmed a subscription to them.
    Subscribe(subscribe::Args),
    /// One of two nodes dies or freezes under load, again and again: what is lost, for how long?
    Kill(kill::Args),
    /// A node with many filters joins two that have as many: how long, what memory, what latency?
    Join(join::Args),
}

/// Sets up, builds, measures and prints.
pub(super) fn run(args: &Args) -> Result<()> {
    let Some(programs) = elevate::with_programs(&[])? else {
        return Ok(());
    };
    note_interrupts();
    clean_leftovers().context("cannot remove what an earlier run left")?;
    match &args.case {
        None => scale::run(&args.scale, &programs),
        Some(Case::Takeover(args)) => takeover::run(args, &programs),
        Some(Case::Roam(args)) => roam::run(args, &programs),
        Some(Case::Subscribe(args)) => subscribe::run(args, &programs),
        Some(Case::Kill(args)) => kill::run(args, &programs),
        Some(Case::Join(args)) => join::run(args, &programs),
    }
}
