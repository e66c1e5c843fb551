//! `tidegate-broker events`: what has happened, and what happens.

use std::{process::ExitCode, time::Duration};

use console::{
    client::encode,
    events::EventsPage,
    output::{self, Reader},
};

use super::target::Target;

/// How long the broker is to wait for an event: less than a client waits for any answer.
const WAIT: u64 = 5;

/// Show what has happened: nodes that come, go or are refused, evacuations, reloads.
///
/// The broker remembers the last thousand events of its run. Lines are time, severity, kind, and what
/// happened.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  tidegate-broker events --since 2h --severity warning\n  \
    tidegate-broker events --follow --kind node_lost,node_joined\n  \
    tidegate-broker events --follow --json | jq -r 'select(.kind == \"node_lost\") | .cause'"
)]
pub(super) struct Args {
    #[command(flatten)]
    target: Target,
    /// Go on with what happens, until the broker stops.
    #[arg(long, short)]
    follow: bool,
    /// Only what happened in the last so long, or after the event of that number.
    #[arg(long, value_name = "TIME|NUMBER", value_parser = since)]
    since: Option<Since>,
    /// Only these kinds, with commas between them.
    #[arg(long, value_name = "KINDS")]
    kind: Option<String>,
    /// Only what matters as much: info, notice, warning or error.
    #[arg(long, value_name = "SEVERITY")]
    severity: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Since {
    Number(u64),
    Ago(Duration),
}

fn since(text: &str) -> Result<Since, &'static str> {
    if let Ok(number) = text.parse() {
        return Ok(Since::Number(number));
    }
    let ago = crate::duration::parse(text).map(Since::Ago);
    ago.ok_or("expected a duration, such as 90s or 2h, or an event's number")
}

pub(super) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let client = args.target.client()?;
    let mut page: EventsPage = client.get(&args.first_route())?;
    loop {
        if show(&page, args.target.json)? == Reader::Gone || !args.follow {
            return Ok(ExitCode::SUCCESS);
        }
        page = client.get(&args.next_route(page.last))?;
    }
}

impl Args {
    fn first_route(&self) -> String {
        let start = match self.since {
            None => String::new(),
            Some(Since::Number(number)) => format!("&since={number}"),
            Some(Since::Ago(ago)) => format!("&seconds={}", ago.as_secs()),
        };
        format!("/v1/events?wait=0{start}{}", self.filter())
    }

    fn next_route(&self, last: u64) -> String {
        format!("/v1/events?since={last}&wait={WAIT}{}", self.filter())
    }

    fn filter(&self) -> String {
        let options = [("kind", &self.kind), ("severity", &self.severity)];
        let option = |(name, value): (&str, &Option<String>)| {
            let value = value.as_deref()?;
            Some(format!("&{name}={}", encode(value)))
        };
        options.into_iter().filter_map(option).collect()
    }
}

fn show(page: &EventsPage, is_json: bool) -> anyhow::Result<Reader> {
    let text = if is_json {
        page.json_lines()?
    } else {
        page.lines()
    };
    if text.is_empty() {
        return Ok(Reader::There);
    }
    output::print(&text)
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;

    #[derive(Debug, clap::Parser)]
    struct Command {
        #[command(flatten)]
        args: Args,
    }

    #[test]
    fn a_beginning_is_a_number_or_a_time() {
        assert_eq!(since("17"), Ok(Since::Number(17)));
        assert_eq!(since("2h"), Ok(Since::Ago(Duration::from_secs(7200))));
        assert!(since("yesterday").is_err());
    }

    #[test]
    fn following_goes_on_where_the_last_answer_ended() {
        let line = [
            "x",
            "--since",
            "90s",
            "--kind",
            "a,b",
            "--severity",
            "error",
        ];
        let Command { args } = Command::parse_from(line);
        let filter = "&kind=a%2Cb&severity=error";
        let first = format!("/v1/events?wait=0&seconds=90{filter}");
        assert_eq!(args.first_route(), first);
        let next = format!("/v1/events?since=7&wait=5{filter}");
        assert_eq!(args.next_route(7), next);
    }
}
