//! Writing for people and scripts, and reading what both write alike.

use std::{
    io::{self, Write as _},
    time::Duration,
};

use crate::config::parse_duration;

/// Whether anybody still reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reader {
    There,
    Gone,
}

/// Writes to stdout. A closed pipe is not an error: the reader has seen enough.
///
/// # Errors
///
/// If stdout fails otherwise.
pub(super) fn print(text: &str) -> anyhow::Result<Reader> {
    let mut stdout = io::stdout().lock();
    match stdout
        .write_all(text.as_bytes())
        .and_then(|()| stdout.flush())
    {
        Ok(()) => Ok(Reader::There),
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(Reader::Gone),
        Err(error) => Err(error.into()),
    }
}

/// Says on stderr what went wrong; there is nobody else to tell if that fails.
pub(super) fn complain(message: &str) {
    drop(writeln!(io::stderr().lock(), "tidegate: {message}"));
}

/// One line of JSON.
///
/// # Errors
///
/// If the value has no JSON form.
pub(super) fn json(value: &impl serde::Serialize) -> anyhow::Result<String> {
    Ok(serde_json::to_string(value)? + "\n")
}

/// A time as in the configuration.
pub(super) fn time(text: &str) -> Result<Duration, String> {
    const LONGEST: Duration = Duration::from_secs(365 * 86_400);
    parse_duration(text)
        .filter(|time| *time <= LONGEST)
        .ok_or_else(|| "write a number and a unit, such as 90s, 30m or 2h".to_owned())
}
