//! `tidegate-broker events`: what has happened, and what happens.

use std::process::ExitCode;

use console::{
    events::{EventsPage, Query, Since},
    output::Reader,
};

use super::target::Target;

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

fn since(text: &str) -> Result<Since, &'static str> {
    if let Ok(number) = text.parse() {
        return Ok(Since::Number(number));
    }
    let ago = crate::duration::parse(text).map(Since::Ago);
    ago.ok_or("expected a duration, such as 90s or 2h, or an event's number")
}

pub(super) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let client = args.target.client()?;
    let filters = args.filters();
    let query = Query {
        since: args.since,
        filters: &filters,
    };
    let mut page: EventsPage = client.get(&query.first_route())?;
    loop {
        if page.print(args.target.json)? == Reader::Gone || !args.follow {
            return Ok(ExitCode::SUCCESS);
        }
        page = client.get(&query.next_route(page.last))?;
    }
}

impl Args {
    fn filters(&self) -> [(&'static str, Option<&str>); 2] {
        let Self { kind, severity, .. } = self;
        [("kind", kind.as_deref()), ("severity", severity.as_deref())]
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

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
    fn all_filters_are_asked_for() {
        let line = ["x", "--kind", "a,b", "--severity", "error"];
        let Command { args } = Command::parse_from(line);
        let asked = [("kind", Some("a,b")), ("severity", Some("error"))];
        assert_eq!(args.filters(), asked);
    }
}
