//! `tidegate-broker clients`: who is connected.

use std::process::ExitCode;

use console::{
    output::printable,
    table::Align,
    units::{duration, size},
};

use super::{
    listing::{Listing, Scope, Selection},
    target::Target,
};
use crate::control::view::ClientView;

/// List the clients that are connected, by client id.
///
/// QUEUED are messages that wait for the client, IN FLIGHT those that it has not acknowledged,
/// LOST those that it did not get because too many waited.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  tidegate-broker clients --prefix sensor-\n  \
    tidegate-broker clients --slow\n  \
    tidegate-broker clients --cluster --prefix sensor-   # of all nodes\n  \
    tidegate-broker clients --json | jq 'select(.queued > 100) | .client_id'"
)]
pub(super) struct Args {
    #[command(flatten)]
    target: Target,
    #[command(flatten)]
    scope: Scope,
    #[command(flatten)]
    selection: Selection,
    /// Only clients that do not keep up with what is published for them.
    #[arg(long)]
    slow: bool,
}

pub(super) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let mut listing = Listing::new("clients", args.scope, &args.selection);
    listing.narrow("slow", args.slow.then_some("true"));
    listing.print(&args.target, HEAD, cells)
}

const HEAD: &[(&str, Align)] = &[
    ("CLIENT", Align::Left),
    ("USER", Align::Left),
    ("ADDRESS", Align::Left),
    ("MQTT", Align::Left),
    ("KEEP-ALIVE", Align::Right),
    ("CLEAN", Align::Left),
    ("CONNECTED", Align::Right),
    ("FILTERS", Align::Right),
    ("QUEUED", Align::Right),
    ("IN FLIGHT", Align::Right),
    ("MSGS IN", Align::Right),
    ("MSGS OUT", Align::Right),
    ("IN", Align::Right),
    ("OUT", Align::Right),
    ("LOST", Align::Right),
    ("", Align::Left),
];

fn cells(client: &ClientView) -> Vec<String> {
    let ClientView {
        client_id,
        user,
        address,
        certificate: _,
        version,
        keep_alive_seconds,
        clean_start,
        connected_seconds,
        subscriptions,
        queued,
        inflight,
        unsent_bytes: _,
        messages_in,
        messages_out,
        bytes_in,
        bytes_out,
        dropped_messages,
        dropped_bytes: _,
        slow,
    } = client;
    vec![
        printable(client_id),
        user.as_deref().map_or_else(String::new, printable),
        address.clone(),
        version.to_string(),
        format!("{keep_alive_seconds} s"),
        if *clean_start { "yes" } else { "no" }.to_owned(),
        duration(*connected_seconds),
        subscriptions.to_string(),
        queued.to_string(),
        inflight.to_string(),
        messages_in.to_string(),
        messages_out.to_string(),
        size(*bytes_in as f64),
        size(*bytes_out as f64),
        dropped_messages.to_string(),
        if *slow { "slow" } else { "" }.to_owned(),
    ]
}
