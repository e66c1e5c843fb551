//! Asking for something that is not to be seen on the screen.

use std::{
    fs::File,
    io::{self, BufRead, BufReader, Write},
    os::fd::AsFd,
};

use anyhow::Context;
use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcsetattr};

/// Asks on the process's terminal; what is typed is not shown.
///
/// # Errors
/// When there is no terminal.
pub(super) fn ask_secretly(prompt: &str) -> anyhow::Result<Vec<u8>> {
    let context = "cannot ask on the terminal";
    let terminal = File::options()
        .read(true)
        .write(true)
        .open("/dev/tty")
        .context(context)?;
    let quiet = Quiet::start(&terminal).context(context)?;
    (&terminal).write_all(prompt.as_bytes()).context(context)?;
    let mut line = Vec::new();
    let read = BufReader::new(&terminal).read_until(b'\n', &mut line);
    drop(quiet);
    // The line's end was not shown either.
    (&terminal).write_all(b"\n").context(context)?;
    read.context(context)?;
    Ok(line)
}

/// A terminal that does not show what is typed, until it is dropped.
struct Quiet<'a> {
    terminal: &'a File,
    before: Termios,
}

impl<'a> Quiet<'a> {
    fn start(terminal: &'a File) -> io::Result<Self> {
        let before = tcgetattr(terminal.as_fd())?;
        let mut modes = before.clone();
        modes.local_modes.remove(LocalModes::ECHO);
        // What was typed before it was asked for is thrown away: it is on the screen.
        tcsetattr(terminal.as_fd(), OptionalActions::Flush, &modes)?;
        Ok(Self { terminal, before })
    }
}

impl Drop for Quiet<'_> {
    fn drop(&mut self) {
        // Nothing can be done about a terminal that is gone.
        let _ = tcsetattr(self.terminal.as_fd(), OptionalActions::Now, &self.before);
    }
}
