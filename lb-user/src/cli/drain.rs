//! `tidegate backend drain --wait`: looks on until no session is left.

use std::{
    io::{self, IsTerminal as _},
    time::{Duration, Instant},
};

use anyhow::anyhow;
use serde::Serialize;

use super::{Failure, client::Client, output};
use crate::{
    api::BackendEntry,
    control::{BackendStatus, DrainStatus},
};

/// The daemon counts once in so long at most.
const PAUSE: Duration = Duration::from_secs(1);

/// How to wait.
#[derive(Clone, Copy, Debug)]
pub(super) struct Patience {
    pub(super) timeout: Duration,
    pub(super) json: bool,
}

/// How far it is, as told with `--json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
struct Progress<'a> {
    backend: &'a str,
    drained: bool,
    /// Sessions that are known to be left.
    left: u64,
    /// Whether these are all.
    left_exact: bool,
    learning_seconds: u64,
}

/// Asks again and again until `backend` is drained, which `name` stands for at first: a reload may give
/// the name to another one.
pub(super) fn wait(
    client: &Client,
    name: &str,
    backend: &BackendStatus,
    patience: Patience,
) -> Result<(), Failure> {
    let deadline = Instant::now() + patience.timeout;
    let mut screen = Screen::new(patience.json);
    let mut was_leaving = backend.leaving;
    loop {
        let entries: Vec<BackendEntry> = client.get("/v1/backends")?;
        let found = find(&entries, name, backend);
        let drain = match look(found, name, was_leaving) {
            Ok(drain) => drain,
            Err(reason) => {
                screen.finish()?;
                return Err(Failure::Runtime(anyhow!(reason)));
            }
        };
        was_leaving = found.is_some_and(|backend| backend.leaving);
        let progress = Progress::new(name, drain);
        if screen.show(&progress)? == output::Reader::Gone {
            return Ok(());
        }
        if drain.drained {
            screen.finish()?;
            return Ok(());
        }
        let rest = deadline.saturating_duration_since(Instant::now());
        if rest.is_zero() {
            screen.finish()?;
            let sentence = progress.sentence();
            return Err(Failure::Runtime(anyhow!(
                "gave up waiting: {sentence}; it goes on draining"
            )));
        }
        client.block_on(async { tokio::time::sleep(PAUSE.min(rest)).await });
    }
}

/// The backend that a name stood for, where it is reached; its name may have grown since.
fn find<'a>(
    entries: &'a [BackendEntry],
    name: &str,
    backend: &BackendStatus,
) -> Option<&'a BackendStatus> {
    let service = name.split_once('/').map(|(service, _)| service);
    let is_meant = |entry: &&BackendEntry| {
        let (now, then) = (&entry.backend, backend);
        let own = now.name.split('@').next();
        own == then.name.split('@').next()
            && (&now.address, now.port) == (&then.address, then.port)
            && service.is_none_or(|service| entry.service == service)
    };
    entries.iter().find(is_meant).map(|entry| &entry.backend)
}

/// What is left of its sessions, or why nobody can tell. One that was leaving has gone with the last.
fn look(
    found: Option<&BackendStatus>,
    name: &str,
    was_leaving: bool,
) -> Result<DrainStatus, String> {
    match found {
        Some(backend) => backend.drain.ok_or_else(|| {
            let admin = backend.admin;
            format!("somebody stopped draining {name}: it is {admin} now")
        }),
        None if was_leaving => Ok(DrainStatus {
            drained: true,
            left_exact: true,
            ..DrainStatus::default()
        }),
        None => Err(format!("{name} is not configured any more")),
    }
}

impl<'a> Progress<'a> {
    const fn new(backend: &'a str, drain: DrainStatus) -> Self {
        Self {
            backend,
            drained: drain.drained,
            left: drain.left,
            left_exact: drain.left_exact,
            learning_seconds: drain.drain_learning_seconds,
        }
    }

    fn sentence(&self) -> String {
        let Self { backend, left, .. } = self;
        let sessions = if *left == 1 { "session" } else { "sessions" };
        if self.drained {
            format!("{backend}: drained")
        } else if self.left_exact {
            format!("{backend}: {left} {sessions} left")
        } else if self.learning_seconds > 0 {
            let more = self.learning_seconds;
            format!("{backend}: at least {left} {sessions} left, learning {more} s more")
        } else {
            format!("{backend}: at least {left} {sessions} left, counting")
        }
    }

    /// Without what changes with time alone.
    const fn essence(&self) -> (bool, u64, bool, bool) {
        let is_learning = self.learning_seconds > 0;
        (self.drained, self.left, self.left_exact, is_learning)
    }
}

/// Where progress is shown: one line that is written over on a terminal, else a line a change.
struct Screen {
    json: bool,
    is_terminal: bool,
    last: Option<(bool, u64, bool, bool)>,
}

impl Screen {
    fn new(json: bool) -> Self {
        Self {
            json,
            is_terminal: !json && io::stdout().is_terminal(),
            last: None,
        }
    }

    fn show(&mut self, progress: &Progress<'_>) -> anyhow::Result<output::Reader> {
        if self.is_terminal {
            return output::print(&format!("\r\x1b[K{}", progress.sentence()));
        }
        let essence = Some(progress.essence());
        if self.last == essence {
            return Ok(output::Reader::There);
        }
        self.last = essence;
        let line = if self.json {
            output::json(progress)?
        } else {
            progress.sentence() + "\n"
        };
        output::print(&line)
    }

    fn finish(&self) -> anyhow::Result<()> {
        if self.is_terminal {
            output::print("\n")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::{Progress, find, look};
    use crate::{
        api::BackendEntry,
        control::{DrainStatus, example},
    };

    fn entries(drain: Option<DrainStatus>) -> Vec<BackendEntry> {
        let mut backend = example::backend();
        backend.drain = drain;
        vec![BackendEntry {
            service: "mqtt".to_owned(),
            backend,
        }]
    }

    #[test]
    fn backend_is_found_by_either_name_while_it_drains() {
        let drain = DrainStatus::default();
        let draining = entries(Some(drain));
        let backend = example::backend();
        for name in ["mqtt/broker1", "broker1"] {
            let found = find(&draining, name, &backend);
            assert_eq!(look(found, name, false), Ok(drain));
        }
        assert_eq!(find(&draining, "other/broker1", &backend), None);
        let stopped = entries(None);
        let found = find(&stopped, "broker1", &backend);
        let stopped = look(found, "broker1", false).unwrap_err();
        assert!(stopped.contains("enabled now"), "{stopped}");
    }

    #[test]
    fn backend_is_followed_when_another_gets_its_name() {
        let backend = example::backend();
        let mut now = entries(Some(DrainStatus::default()));
        let mut other = now[0].clone();
        other.backend.address = "172.16.40.99".to_owned();
        now[0].backend.name += "@172.16.40.20:1883";
        now.insert(0, other);
        let found = find(&now, "mqtt/broker1", &backend).unwrap();
        assert_eq!(found.address, backend.address);
    }

    #[test]
    fn backend_that_is_gone_is_drained_only_if_it_was_leaving() {
        let gone = look(None, "broker1", false).unwrap_err();
        assert!(gone.contains("not configured"), "{gone}");
        let drained = look(None, "broker1", true).unwrap();
        assert!(drained.drained && drained.left == 0);
    }

    #[test]
    fn sentences_say_no_more_than_is_known() {
        let mut drain = DrainStatus {
            left: 1,
            drain_learning_seconds: 9,
            ..DrainStatus::default()
        };
        let say = |drain| Progress::new("a", drain).sentence();
        assert_eq!(say(drain), "a: at least 1 session left, learning 9 s more");
        drain.drain_learning_seconds = 0;
        assert_eq!(say(drain), "a: at least 1 session left, counting");
        (drain.left, drain.left_exact) = (2, true);
        assert_eq!(say(drain), "a: 2 sessions left");
        (drain.left, drain.drained) = (0, true);
        assert_eq!(say(drain), "a: drained");
    }
}
