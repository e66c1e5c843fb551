//! `tidegate events`: what has happened, and what happens.

use console::events::{Query, Since};

use super::{
    Failure, Target,
    client::{Client, DAEMON},
    output::{Reader, time},
};
use crate::control::EventsPage;

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

fn since(text: &str) -> Result<Since, String> {
    let number = text.parse().map(Since::Number);
    number.or_else(|_not_a_number| time(text).map(Since::Ago))
}

pub(super) fn run(args: &Args) -> Result<(), Failure> {
    let client = Client::new(DAEMON, &args.target.socket)?;
    let filters = args.filters();
    let query = Query {
        since: args.since,
        filters: &filters,
    };
    let mut page: EventsPage = client.get(&query.first_route())?;
    loop {
        // Of what happened before the daemon was asked for the first time some is always forgotten,
        // but who names a number wants all since.
        if page.print(args.json)? == Reader::Gone || !args.follow {
            return Ok(());
        }
        page = client.get(&query.next_route(page.last))?;
    }
}

impl Args {
    fn filters(&self) -> [(&'static str, Option<&str>); 3] {
        let Self {
            kind,
            severity,
            service,
            ..
        } = self;
        [
            ("kind", kind.as_deref()),
            ("severity", severity.as_deref()),
            ("service", service.as_deref()),
        ]
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use clap::Parser as _;

    use super::{Args, Since, since};

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
    fn all_filters_are_asked_for() {
        let arguments = ["x", "--since", "90s", "--kind", "a,b", "--service", "m/q"];
        let Command { args } = Command::parse_from(arguments);
        assert_eq!(args.since, Some(Since::Ago(Duration::from_secs(90))));
        let asked = [
            ("kind", Some("a,b")),
            ("severity", None),
            ("service", Some("m/q")),
        ];
        assert_eq!(args.filters(), asked);
    }
}
