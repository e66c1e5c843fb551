//! `tidegate-broker passwd`: adds, changes and deletes users of a password file.

use std::{
    io::{self, BufRead, IsTerminal, Write, stdin, stdout},
    path::PathBuf,
    process::ExitCode,
};

use anyhow::{Context, anyhow, bail};
use console::{
    password,
    terminal::{AskError, ask_secretly},
};
use serde::Serialize;

use crate::{
    access::passwords::{self, Change, PasswordFile},
    secret::Secret,
};

/// What MQTT's length of a password allows.
const MAX_PASSWORD: u64 = 65_535;

const EXAMPLE: &str = "\
Example:
  tidegate-broker passwd /etc/tidegate/passwords alice
  systemctl kill -s HUP tidegate-broker     # a running broker then reads the file again

The file is made if there is none, with mode 0600; it must be readable for the
broker. It is replaced as a whole: a broker that reads it meanwhile gets the
old or the new one. Two changes at a time wait for each other, by FILE.lock.";

#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLE)]
pub(super) struct Args {
    /// Password file of an [[access.authenticator]] with type = "file".
    file: PathBuf,
    /// User to add, change or delete.
    user: String,
    /// Read the password from standard input, one line, rather than ask for it.
    #[arg(long, conflicts_with = "delete")]
    stdin: bool,
    /// Delete the user.
    #[arg(long)]
    delete: bool,
    /// Print the result as JSON.
    #[arg(long)]
    json: bool,
}

/// What was done, for scripts.
#[derive(Serialize)]
struct Done<'a> {
    file: &'a str,
    user: &'a str,
    change: &'static str,
}

pub(super) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let Args {
        file,
        user,
        stdin,
        delete,
        json,
    } = args;
    passwords::check_name(user)?;
    // Before a password is asked for in vain.
    let context = || format!("cannot change {}", file.display());
    PasswordFile::open(file).with_context(context)?;
    let hash = match (delete, stdin) {
        (true, _) => None,
        (false, true) => Some(read_line(io::stdin().lock())?),
        (false, false) => Some(ask(user)?),
    };
    let hash = hash.as_ref().map(password::hash).transpose()?;
    let mut opened = PasswordFile::open(file).with_context(context)?;
    let change = match &hash {
        Some(hash) => Some(opened.set(user, hash)),
        None => opened.delete(user),
    };
    let Some(change) = change else {
        bail!("{} has no user {user:?}", file.display());
    };
    opened.save().with_context(context)?;
    tell(&file.display().to_string(), user, change, *json);
    Ok(ExitCode::SUCCESS)
}

fn tell(file: &str, user: &str, change: Change, json: bool) {
    let change = match change {
        Change::Added => "added",
        Change::Changed => "changed",
        Change::Deleted => "deleted",
    };
    let done = Done { file, user, change };
    // A closed pipe is not a failure: the file is written.
    let _ = if json {
        serde_json::to_string(&done)
            .map_err(io::Error::from)
            .and_then(|line| writeln!(stdout(), "{line}"))
    } else {
        writeln!(stdout(), "{file}: {user:?} {change}")
    };
}

fn ask(user: &str) -> anyhow::Result<Secret> {
    if !stdin().is_terminal() {
        bail!("there is no terminal to ask for the password on: use --stdin");
    }
    let ask = |prompt: &str| {
        ask_secretly(prompt).map_err(|error| match error {
            AskError::Interrupted => anyhow!("interrupted: nothing was changed"),
            AskError::Terminal(_) => error.into(),
        })
    };
    let first = ask(&format!("Password for {user:?}: "))?;
    let second = ask("The same again: ")?;
    if first != second {
        bail!("the two passwords differ: nothing was changed");
    }
    legal(&first)
}

fn read_line(input: impl BufRead) -> anyhow::Result<Secret> {
    let mut line = Vec::new();
    // One byte more tells a password that is too long, and there may be a line's end behind.
    input
        .take(MAX_PASSWORD + 3)
        .read_until(b'\n', &mut line)
        .context("cannot read the password from standard input")?;
    legal(&line)
}

/// The password without its line's end.
fn legal(line: &[u8]) -> anyhow::Result<Secret> {
    let line = line.strip_suffix(b"\n").unwrap_or(line);
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    if line.is_empty() {
        bail!("a password must not be empty");
    }
    if line.len() as u64 > MAX_PASSWORD {
        bail!("a password is longer than MQTT allows, {MAX_PASSWORD} bytes");
    }
    Ok(Secret::new(line))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn password_is_one_line_of_standard_input() {
        for (input, password) in [
            ("sesame\n", "sesame"),
            ("sesame\r\nmore\n", "sesame"),
            (" open sesame ", " open sesame "),
        ] {
            let read = read_line(input.as_bytes()).unwrap();
            assert_eq!(read.expose(), password.as_bytes());
        }
    }

    #[test]
    fn empty_and_endless_passwords_are_refused() {
        let longest = vec![b'x'; 65_535];
        assert!(read_line(&[&longest[..], b"\r\n"].concat()[..]).is_ok());
        assert!(read_line(&[&longest[..], b"x\n"].concat()[..]).is_err());
        assert!(read_line(&b"\n"[..]).is_err());
        assert!(read_line(&b""[..]).is_err());
    }
}
