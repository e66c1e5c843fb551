//! Asking for something that is not to be seen on the screen.

use std::{
    fs::File,
    future::poll_fn,
    io::{self, BufRead, BufReader, Write},
    os::fd::AsFd,
    task::Poll,
    thread,
};

use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcsetattr};
use thiserror::Error;
use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    sync::oneshot,
};

/// Why there is no answer.
#[derive(Debug, Error)]
pub enum AskError {
    #[error("cannot ask on the terminal")]
    Terminal(#[from] io::Error),
    #[error("interrupted")]
    Interrupted,
}

/// Asks on the process's terminal; what is typed is not shown.
///
/// # Errors
/// When there is no terminal, or somebody wants the process to end.
pub fn ask_secretly(prompt: &str) -> Result<Vec<u8>, AskError> {
    let terminal = File::options().read(true).write(true).open("/dev/tty")?;
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?
        .block_on(async { ask(&terminal, prompt, Interruptions::watch()?).await })
}

/// A signal does not end the process while it is asking: the terminal has to show again what is
/// typed, and would not.
async fn ask(
    terminal: &File,
    prompt: &str,
    mut interruptions: Interruptions,
) -> Result<Vec<u8>, AskError> {
    let (answer, answered) = oneshot::channel();
    let reader = terminal.try_clone()?;
    let quiet = Quiet::start(terminal)?;
    let mut writer = terminal;
    writer.write_all(prompt.as_bytes())?;
    // After an interruption it waits on, until the process ends.
    thread::spawn(move || {
        let mut line = Vec::new();
        let read = BufReader::new(reader).read_until(b'\n', &mut line);
        let _ = answer.send(read.map(|_bytes| line));
    });
    let answer = tokio::select! {
        line = answered => match line {
            Ok(line) => line.map_err(AskError::from),
            Err(_panicked) => Err(AskError::Interrupted),
        },
        () = interruptions.next() => Err(AskError::Interrupted),
    };
    drop(quiet);
    // The line's end was not shown either.
    writer.write_all(b"\n")?;
    answer
}

/// The signals by which a user, or the terminal that is gone, ends a process.
struct Interruptions(Vec<Signal>);

impl Interruptions {
    fn watch() -> io::Result<Self> {
        let kinds = [
            SignalKind::interrupt(),
            SignalKind::terminate(),
            SignalKind::hangup(),
            SignalKind::quit(),
        ];
        let signals: io::Result<_> = kinds.into_iter().map(signal).collect();
        signals.map(Self)
    }

    async fn next(&mut self) {
        poll_fn(|context| {
            let mut signals = self.0.iter_mut();
            if signals.any(|signal| signal.poll_recv(context).is_ready()) {
                Poll::Ready(())
            } else {
                Poll::Pending
            }
        })
        .await;
    }
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

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use rustix::{
        fs::{self, Mode, OFlags},
        process::{self, getpid, kill_process},
        pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt},
    };

    use super::*;

    /// The two ends of a terminal, that of the user first.
    fn terminal() -> (File, File) {
        let user = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
        grantpt(&user).unwrap();
        unlockpt(&user).unwrap();
        let name = ptsname(&user, Vec::new()).unwrap();
        // It must not become the terminal of the tests.
        let flags = OFlags::RDWR | OFlags::NOCTTY;
        let program = fs::open(name.as_c_str(), flags, Mode::empty()).unwrap();
        (File::from(user), File::from(program))
    }

    fn shows(terminal: &File) -> bool {
        let modes = tcgetattr(terminal.as_fd()).unwrap();
        modes.local_modes.contains(LocalModes::ECHO)
    }

    async fn until_quiet(terminal: &File) {
        let quiet = async {
            while shows(terminal) {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        let quiet = tokio::time::timeout(Duration::from_secs(20), quiet).await;
        quiet.expect("a quiet terminal");
    }

    #[tokio::test]
    async fn terminal_shows_again_what_is_typed_behind_the_answer() {
        let (mut user, program) = terminal();
        let seen = program.try_clone().unwrap();
        // The other tests of this process send themselves signals.
        let none = Interruptions(Vec::new());
        let asked = tokio::spawn(async move { ask(&program, "Password: ", none).await });
        until_quiet(&seen).await;
        user.write_all(b"sesame\n").unwrap();
        assert_eq!(asked.await.unwrap().unwrap(), b"sesame\n");
        assert!(shows(&seen));
    }

    #[tokio::test]
    async fn terminal_shows_again_what_is_typed_behind_an_interruption() {
        let (_user, program) = terminal();
        let seen = program.try_clone().unwrap();
        let signals = Interruptions::watch().unwrap();
        let asked = tokio::spawn(async move { ask(&program, "Password: ", signals).await });
        until_quiet(&seen).await;
        // One that no other test of this process is about.
        kill_process(getpid(), process::Signal::QUIT).unwrap();
        let error = asked.await.unwrap().unwrap_err();
        assert!(matches!(error, AskError::Interrupted), "{error}");
        assert!(shows(&seen));
    }
}
