//! Writing for people and scripts.

use std::io::{self, Write as _};

/// Whether anybody still reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reader {
    There,
    Gone,
}

/// Writes to stdout. A closed pipe is not an error: the reader has seen enough.
///
/// # Errors
///
/// If stdout fails otherwise.
pub fn print(text: &str) -> anyhow::Result<Reader> {
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
pub fn complain(program: &str, message: &str) {
    drop(writeln!(io::stderr().lock(), "{program}: {message}"));
}

/// One line of JSON.
///
/// # Errors
///
/// If the value has no JSON form.
pub fn json(value: &impl serde::Serialize) -> anyhow::Result<String> {
    Ok(serde_json::to_string(value)? + "\n")
}

/// Text that others have chosen, as a terminal may be shown it: no control characters.
#[must_use]
pub fn printable(text: &str) -> String {
    let printable = |c: char| {
        if c.is_control() {
            c.escape_unicode().to_string()
        } else {
            c.to_string()
        }
    };
    text.chars().map(printable).collect()
}

#[cfg(test)]
mod tests {
    use super::printable;

    #[test]
    fn terminals_are_not_controlled_by_what_clients_call_themselves() {
        assert_eq!(printable("sensor/ä 7"), "sensor/ä 7");
        assert_eq!(printable("\u{1b}[2J\u{9b}x"), "\\u{1b}[2J\\u{9b}x");
    }
}
