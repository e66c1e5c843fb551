//! `tidegate-broker subscriptions`: who wants what.

use std::process::ExitCode;

use console::{output::printable, table::Align};

use super::{
    listing::{Listing, Scope, Selection},
    target::Target,
};
use crate::control::view::SubscriptionView;

/// List subscriptions, by client id and filter.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  tidegate-broker subscriptions --client sensor-7\n  \
    tidegate-broker subscriptions --topic plant/3/alarm   # who would get it"
)]
pub(super) struct Args {
    #[command(flatten)]
    target: Target,
    #[command(flatten)]
    scope: Scope,
    #[command(flatten)]
    selection: Selection,
    /// Only those of this client.
    #[arg(long, value_name = "ID")]
    client: Option<String>,
    /// Only those with exactly this filter.
    #[arg(long, value_name = "FILTER")]
    filter: Option<String>,
    /// Only those that match this topic.
    #[arg(long, value_name = "TOPIC")]
    topic: Option<String>,
}

pub(super) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let mut listing = Listing::new("subscriptions", args.scope, &args.selection);
    listing.narrow("client", args.client.as_deref());
    listing.narrow("filter", args.filter.as_deref());
    listing.narrow("topic", args.topic.as_deref());
    let head = [
        ("CLIENT", Align::Left),
        ("FILTER", Align::Left),
        ("QOS", Align::Right),
        ("OPTIONS", Align::Left),
    ];
    listing.print(&args.target, &head, cells)
}

fn cells(subscription: &SubscriptionView) -> Vec<String> {
    let SubscriptionView {
        client_id,
        filter,
        qos,
        no_local,
        retain_as_published,
        subscription_id,
    } = subscription;
    let options = [
        no_local.then(|| "no-local".to_owned()),
        retain_as_published.then(|| "retain-as-published".to_owned()),
        subscription_id.map(|id| format!("id {id}")),
    ];
    vec![
        printable(client_id),
        printable(filter),
        qos.to_string(),
        options.into_iter().flatten().collect::<Vec<_>>().join(", "),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_named_and_terminals_spared() {
        let cells = cells(&SubscriptionView {
            client_id: "a\u{1b}".to_owned(),
            filter: "b/#".to_owned(),
            qos: 1,
            no_local: true,
            retain_as_published: false,
            subscription_id: Some(3),
        });
        assert_eq!(cells, ["a\\u{1b}", "b/#", "1", "no-local, id 3"]);
    }
}
