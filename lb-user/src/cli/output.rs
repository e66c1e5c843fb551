//! Writing for people and scripts, and reading what both write alike.

use std::time::Duration;

pub(super) use console::output::{Reader, json, print};

use crate::{api::DAEMON, config::parse_duration};

/// Says on stderr what went wrong.
pub(super) fn complain(message: &str) {
    console::output::complain(DAEMON.program, message);
}

/// A time as in the configuration.
pub(super) fn time(text: &str) -> Result<Duration, String> {
    const LONGEST: Duration = Duration::from_secs(365 * 86_400);
    parse_duration(text)
        .filter(|time| *time <= LONGEST)
        .ok_or_else(|| "write a number and a unit, such as 90s, 30m or 2h".to_owned())
}

/// So many of something.
pub(super) fn count(number: usize, what: &str) -> String {
    let plural = if number == 1 { "" } else { "s" };
    format!("{number} {what}{plural}")
}
