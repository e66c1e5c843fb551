//! `tidegate-broker topics`: what is subscribed to, and by how many.

use std::process::ExitCode;

use console::{output::printable, table::Align};

use super::{
    listing::{Listing, Scope},
    target::Target,
};
use crate::control::view::TopicView;

/// List the filters that clients have subscribed to, and how many have each. Shared ones begin with
/// `$share/GROUP/` or `$queue/`.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  tidegate-broker topics --prefix plant/3/\n  \
    tidegate-broker topics --json | jq -s 'sort_by(-.subscribers)[:10]'"
)]
pub(super) struct Args {
    #[command(flatten)]
    target: Target,
    #[command(flatten)]
    scope: Scope,
    /// Stop after so many.
    #[arg(long, short = 'n', value_name = "N")]
    limit: Option<usize>,
    /// Only filters that begin so.
    #[arg(long, value_name = "TEXT")]
    prefix: Option<String>,
}

pub(super) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let mut listing = Listing::scoped("topics", args.scope, args.limit);
    listing.narrow("prefix", args.prefix.as_deref());
    let head = [("FILTER", Align::Left), ("SUBSCRIBERS", Align::Right)];
    listing.print(&args.target, &head, |topic: &TopicView| {
        vec![printable(&topic.filter), topic.subscribers.to_string()]
    })
}
