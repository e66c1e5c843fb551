//! `tidegate events`: what has happened, and what happens.

use std::time::Duration;

use super::{
    Failure, Target,
    client::{Client, DAEMON, encode},
    output::{self, Reader, time},
};
use crate::control::EventsPage;

/// How long the daemon is to wait for an event: less than a client waits for any answer.
const WAIT: u64 = 5;

/// Shows what has happened: changes of role with their cause, of health, reloads, and more.
///
/// The daemon remembers the last thousand events. Lines are time, severity, kind, and what happened.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  tidegate events --since 2h --severity warning\n  \
    tidegate events --follow --kind role_changed,backend_health\n  \
    tidegate events --follow --json | jq -r 'select(.kind == \"role_changed\") | .cause'"
)]
pub(super) struct Args {
    #[command(flatten)]
    target: Target,
    /// Go on with what happens, until the daemon stops.
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
    /// Only what is about this service.
    #[arg(long, value_name = "NAME")]
    service: Option<String>,
    /// Print one line of JSON an event.
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Since {
    Number(u64),
    Ago(Duration),
}

fn since(text: &str) -> Result<Since, String> {
    let number = text.parse().map(Since::Number);
    number.or_else(|_not_a_number| time(text).map(Since::Ago))
}

pub(super) fn run(args: &Args) -> Result<(), Failure> {
    let client = Client::new(DAEMON, &args.target.socket)?;
    let mut page: EventsPage = client.get(&first_route(args))?;
    loop {
        // Of what happened before the daemon was asked for the first time some is always forgotten,
        // but who names a number wants all since.
        if show(&page, args.json)? == Reader::Gone || !args.follow {
            return Ok(());
        }
        page = client.get(&next_route(args, page.last))?;
    }
}

fn first_route(args: &Args) -> String {
    let start = match args.since {
        None => String::new(),
        Some(Since::Number(number)) => format!("&since={number}"),
        Some(Since::Ago(ago)) => format!("&seconds={}", ago.as_secs()),
    };
    format!("/v1/events?wait=0{start}{}", filter(args))
}

fn next_route(args: &Args, last: u64) -> String {
    format!("/v1/events?since={last}&wait={WAIT}{}", filter(args))
}

fn filter(args: &Args) -> String {
    let options = [
        ("kind", &args.kind),
        ("severity", &args.severity),
        ("service", &args.service),
    ];
    let given = options
        .into_iter()
        .filter_map(|(name, value)| Some((name, value.as_ref()?)));
    given
        .map(|(name, value)| format!("&{name}={}", encode(value)))
        .collect()
}

fn show(page: &EventsPage, json: bool) -> anyhow::Result<Reader> {
    let text = if json {
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
    use std::time::Duration;

    use clap::Parser as _;

    use super::{Args, Since, first_route, next_route, since};

    #[derive(clap::Parser)]
    struct Command {
        #[command(flatten)]
        args: Args,
    }

    #[test]
    fn a_beginning_is_a_number_or_a_time() {
        assert_eq!(since("17"), Ok(Since::Number(17)));
        assert_eq!(since("2h"), Ok(Since::Ago(Duration::from_secs(7_200))));
        assert!(since("yesterday").is_err());
    }

    #[test]
    fn following_goes_on_where_the_last_answer_ended() {
        let arguments = ["x", "--since", "90s", "--kind", "a,b", "--service", "m/q"];
        let Command { args } = Command::parse_from(arguments);
        let filter = "&kind=a%2Cb&service=m%2Fq";
        let first = format!("/v1/events?wait=0&seconds=90{filter}");
        assert_eq!(first_route(&args), first);
        let next = format!("/v1/events?since=7&wait=5{filter}");
        assert_eq!(next_route(&args, 7), next);
    }
}
