//! `tidegate-broker sessions`: what is kept for whom.

use std::process::ExitCode;

use console::{output::printable, table::Align, units::duration};

use super::{
    listing::{Listing, Scope, Selection},
    target::Target,
};
use crate::control::view::SessionView;

/// List the sessions of all clients, connected or not, by client id.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  tidegate-broker sessions --limit 20\n  \
    tidegate-broker sessions --json | jq 'select(.connected | not)'")]
pub(super) struct Args {
    #[command(flatten)]
    target: Target,
    #[command(flatten)]
    scope: Scope,
    #[command(flatten)]
    selection: Selection,
}

pub(super) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let head = [
        ("CLIENT", Align::Left),
        ("CLIENT IS", Align::Left),
        ("KEPT FOR", Align::Right),
        ("ENDS IN", Align::Right),
        ("FILTERS", Align::Right),
        ("QUEUED", Align::Right),
        ("IN FLIGHT", Align::Right),
        ("LOST", Align::Right),
    ];
    Listing::new("sessions", args.scope, &args.selection).print(&args.target, &head, cells)
}

fn cells(session: &SessionView) -> Vec<String> {
    let SessionView {
        client_id,
        connected,
        expiry_seconds,
        ends_in_seconds,
        subscriptions,
        queued,
        inflight,
        dropped_messages,
    } = session;
    vec![
        printable(client_id),
        if *connected { "connected" } else { "away" }.to_owned(),
        duration(*expiry_seconds),
        ends_in_seconds.map(duration).unwrap_or_default(),
        subscriptions.to_string(),
        queued.to_string(),
        inflight.to_string(),
        dropped_messages.to_string(),
    ]
}
