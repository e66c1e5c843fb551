//! The terminal: its size, its keys, and its state, which is put back in the end.

use std::{
    future::pending,
    io::{self, IsTerminal as _, Read as _},
    thread,
};

use rustix::termios::{self, LocalModes, OptionalActions, Termios};
use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    sync::mpsc,
};

use super::screen::Size;
use crate::cli::output::{self, Reader};

/// Another screen, without a cursor, and back.
const ENTER: &str = "\x1b[?1049h\x1b[?25l";
const LEAVE: &str = "\x1b[?25h\x1b[?1049l";
/// To the top left; then from each line's end, and from the last line, nothing is left.
const HOME: &str = "\x1b[H";
const CLEAR_LINE: &str = "\x1b[K\r\n";
const CLEAR_REST: &str = "\x1b[K\x1b[J";

/// Where output goes that is neither a terminal nor says how large it is.
const USUAL: Size = Size {
    columns: 80,
    rows: 24,
};

/// A terminal that shows a screen. Dropping it puts everything back.
pub(super) struct Terminal {
    keys: Option<Keys>,
    ended: Signal,
}

/// What is typed, while the terminal does not echo it.
struct Keys {
    typed: mpsc::Receiver<u8>,
    before: Termios,
}

/// Keys that may wait to be obeyed; who types faster is read later.
const TYPED_AHEAD: usize = 16;

/// What happened while the next status was waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Event {
    Key(u8),
    End,
}

impl Terminal {
    /// Takes the terminal over; `None` if output does not go to one. Within a runtime.
    pub(super) fn take() -> io::Result<Option<Self>> {
        if !io::stdout().is_terminal() {
            return Ok(None);
        }
        let ended = signal(SignalKind::terminate())?;
        let keys = io::stdin().is_terminal().then(Keys::take).transpose()?;
        let terminal = Self { keys, ended };
        drop(output::print(ENTER));
        Ok(Some(terminal))
    }

    /// Shows a screen in place of the one before.
    pub(super) fn show(&self, screen: &str) -> anyhow::Result<Reader> {
        let lines = screen.replace('\n', CLEAR_LINE);
        output::print(&format!("{HOME}{lines}{CLEAR_REST}"))
    }

    /// How large it is.
    pub(super) fn size(&self) -> Size {
        let size = termios::tcgetwinsize(io::stdout());
        match size {
            Ok(size) if size.ws_col > 0 && size.ws_row > 0 => Size {
                columns: size.ws_col.into(),
                rows: size.ws_row.into(),
            },
            _ => USUAL,
        }
    }

    /// Waits for a key, or for being told to end. Nothing is lost if the wait is given up.
    pub(super) async fn event(&mut self) -> Event {
        tokio::select! {
            _ = self.ended.recv() => Event::End,
            key = next_key(self.keys.as_mut()) => key.map_or(Event::End, Event::Key),
        }
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        drop(output::print(LEAVE));
    }
}

async fn next_key(keys: Option<&mut Keys>) -> Option<u8> {
    match keys {
        Some(keys) => keys.typed.recv().await,
        None => pending().await,
    }
}

impl Keys {
    fn take() -> io::Result<Self> {
        let stdin = io::stdin();
        let before = termios::tcgetattr(&stdin)?;
        let mut raw = before.clone();
        // Signals too: an interrupt is a key, so that it ends by the same way as `q`.
        raw.local_modes
            .remove(LocalModes::ICANON | LocalModes::ECHO | LocalModes::ISIG);
        termios::tcsetattr(&stdin, OptionalActions::Now, &raw)?;
        let (sender, typed) = mpsc::channel(TYPED_AHEAD);
        // A thread, as standard input cannot be waited for with a way out; it ends with the process.
        thread::spawn(move || {
            let keys = stdin.lock().bytes().map_while(Result::ok);
            for key in keys {
                if sender.blocking_send(key).is_err() {
                    break;
                }
            }
        });
        Ok(Self { typed, before })
    }
}

impl Drop for Keys {
    fn drop(&mut self) {
        // There is nobody to tell.
        let _: rustix::io::Result<()> =
            termios::tcsetattr(io::stdin(), OptionalActions::Now, &self.before);
    }
}
