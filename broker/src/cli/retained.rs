//! `tidegate-broker retained`: what waits for new subscribers.

use std::process::ExitCode;

use console::{
    output::printable,
    table::Align,
    units::{duration, size},
};

use super::{
    listing::{self, Listing},
    target::Target,
};
use crate::control::view::RetainedView;

/// Characters of a payload in a table.
const PAYLOAD_WIDTH: usize = 60;

/// List retained messages, by topic.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  tidegate-broker retained 'plant/+/state'\n  \
    tidegate-broker retained plant/3/state --payload --json | jq -r .payload"
)]
pub(super) struct Args {
    /// Only topics that this filter matches.
    #[arg(default_value = "#")]
    filter: String,
    #[command(flatten)]
    target: Target,
    /// Stop after so many.
    #[arg(long, short = 'n', value_name = "N")]
    limit: Option<usize>,
    /// Show payloads too, their first 4096 bytes: as text, or in hexadecimal.
    #[arg(long)]
    payload: bool,
}

pub(super) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let mut listing = Listing::of("retained", args.limit, listing::PAGE);
    listing.narrow("filter", Some(&args.filter));
    listing.narrow("payload", args.payload.then_some("true"));
    let mut head = vec![
        ("TOPIC", Align::Left),
        ("SIZE", Align::Right),
        ("QOS", Align::Right),
        ("AGE", Align::Right),
        ("EXPIRES IN", Align::Right),
    ];
    head.extend(args.payload.then_some(("PAYLOAD", Align::Left)));
    listing.print(&args.target, &head, cells)
}

fn cells(message: &RetainedView) -> Vec<String> {
    let RetainedView {
        topic,
        bytes,
        qos,
        age_seconds,
        expires_in_seconds,
        payload,
        payload_hex,
    } = message;
    let mut cells = vec![
        printable(topic),
        size(*bytes as f64),
        qos.to_string(),
        duration(*age_seconds),
        expires_in_seconds.map(duration).unwrap_or_default(),
    ];
    let hex = payload_hex.as_ref().map(|hex| format!("0x{hex}"));
    cells.extend(payload.as_deref().map(printable).or(hex).map(cut));
    cells
}

fn cut(text: String) -> String {
    if text.chars().count() <= PAYLOAD_WIDTH {
        return text;
    }
    text.chars()
        .take(PAYLOAD_WIDTH - 3)
        .chain("...".chars())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn payloads_fit_into_a_line() {
        let message = RetainedView {
            topic: "t".to_owned(),
            bytes: 2000,
            qos: 1,
            age_seconds: 61,
            expires_in_seconds: None,
            payload: Some("line\n".repeat(100)),
            payload_hex: None,
        };
        let cells = cells(&message);
        assert_eq!(cells[..5], ["t", "2.0 kB", "1", "1 min 1 s", ""]);
        assert!(cells[5].ends_with("...") && !cells[5].contains('\n'));
        assert_eq!(cells[5].chars().count(), PAYLOAD_WIDTH);
    }
}
