//! `tidegate notify test`: whether those who are told of events can be told.

use anyhow::anyhow;
use clap::Subcommand;

use super::{
    Failure, Target,
    client::{Client, DAEMON, encode},
    output,
};
use crate::control::NotifyTest;

/// Tries the notifications.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  tidegate notify test\n  tidegate notify test ops-mail")]
pub(super) struct Args {
    #[command(subcommand)]
    action: Action,
    #[command(flatten)]
    target: Target,
    /// Print the daemon's answer as JSON.
    #[arg(long, global = true)]
    json: bool,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Sends an event that says that it is a test, once, and says what came of it.
    #[command(after_help = "Example:\n  tidegate notify test ops-mail")]
    Test {
        /// The name of a `[[notify]]`; all of them without it.
        name: Option<String>,
    },
}

pub(super) fn run(args: &Args) -> Result<(), Failure> {
    let client = Client::new(DAEMON, &args.target.socket)?;
    let Action::Test { name } = &args.action;
    let tests: Vec<NotifyTest> = client.post(&route(name.as_deref()), None)?;
    let text = if args.json {
        output::json(&tests)?
    } else if tests.is_empty() {
        "nobody is configured to be told: see [[notify]]\n".to_owned()
    } else {
        tests.iter().map(line).collect()
    };
    output::print(&text)?;
    match tests.iter().filter(|test| test.error.is_some()).count() {
        0 => Ok(()),
        failed => Err(Failure::Runtime(anyhow!(
            "{failed} of {} could not be told",
            tests.len()
        ))),
    }
}

fn route(name: Option<&str>) -> String {
    let name = name.map(|name| format!("?name={}", encode(name)));
    format!("/v1/notify/test{}", name.unwrap_or_default())
}

fn line(test: &NotifyTest) -> String {
    let NotifyTest { name, error } = test;
    match error {
        None => format!("{name}: told\n"),
        Some(error) => format!("{name}: {error}\n"),
    }
}

#[cfg(test)]
mod tests {
    use super::{line, route};
    use crate::control::NotifyTest;

    #[test]
    fn one_or_all_are_tried() {
        assert_eq!(route(None), "/v1/notify/test");
        assert_eq!(route(Some("a&b")), "/v1/notify/test?name=a%26b");
    }

    #[test]
    fn what_failed_has_its_reason() {
        let mut test = NotifyTest {
            name: "ops".to_owned(),
            error: None,
        };
        assert_eq!(line(&test), "ops: told\n");
        test.error = Some("no answer".to_owned());
        assert_eq!(line(&test), "ops: no answer\n");
    }
}
