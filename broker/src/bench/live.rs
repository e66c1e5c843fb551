//! What a run tells its user on stderr while it lasts.

use std::{
    io::{self, Write},
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use serde::Serialize;

use super::{plan::Task, swarm::Swarm, tally::Tally};

const SECOND: Duration = Duration::from_secs(1);

/// The line that tells scripts that every client has come up or failed.
pub(super) fn up_event(tally: &Tally) -> String {
    let (connected, failed) = (tally.connected.get(), tally.failed.get());
    format!(r#"{{"event":"up","connected":{connected},"failed":{failed}}}"#)
}

/// A connection that ended by itself after it was up.
#[derive(Debug, Serialize)]
pub(super) struct Lost<'a> {
    /// The client's number.
    pub(super) client: u32,
    /// Its own end of the connection.
    pub(super) source: Option<SocketAddr>,
    /// How long the server had said nothing.
    pub(super) silent_ms: u64,
    pub(super) reason: &'a str,
}

impl Lost<'_> {
    /// Tells scripts of it on standard output.
    pub(super) fn tell(&self) {
        #[derive(Serialize)]
        struct Event<'a> {
            event: &'static str,
            /// Unix time in seconds.
            at: f64,
            #[serde(flatten)]
            lost: &'a Lost<'a>,
        }
        let since = SystemTime::now().duration_since(UNIX_EPOCH);
        let event = Event {
            event: "lost",
            at: since.unwrap_or_default().as_secs_f64(),
            lost: self,
        };
        // A reader that has gone away must not end a run, and these values always serialise.
        if let Ok(line) = serde_json::to_string(&event) {
            drop(writeln!(io::stdout(), "{line}"));
        }
    }
}

/// The live rates, one line a second.
pub(super) struct Live {
    swarm: Arc<Swarm>,
    last: Instant,
    before: Sample,
}

#[derive(Clone, Copy, Default)]
struct Sample {
    connected: u64,
    published: u64,
    acked: u64,
    received: u64,
}

impl Live {
    pub(super) fn new(swarm: &Arc<Swarm>) -> Self {
        Self {
            swarm: Arc::clone(swarm),
            last: swarm.tally.start(),
            before: Sample::default(),
        }
    }

    /// Prints a line if a second has passed since the last.
    pub(super) fn poll(&mut self, now: Instant) {
        let passed = now.duration_since(self.last);
        if passed < SECOND {
            return;
        }
        let tally = &self.swarm.tally;
        let sample = Sample {
            connected: tally.connected.get() + tally.reconnected.get(),
            published: tally.published.get(),
            acked: tally.acked.get(),
            received: tally.received.get(),
        };
        if !self.swarm.plan.common.quiet {
            let rates = sample.rates(&self.before, passed);
            let elapsed = now.duration_since(tally.start()).as_secs();
            // A closed stderr must not end a run.
            drop(writeln!(io::stderr(), "{}", self.line(elapsed, rates)));
        }
        (self.last, self.before) = (now, sample);
    }

    fn line(&self, elapsed: u64, rates: Sample) -> String {
        let Swarm { plan, tally, .. } = &*self.swarm;
        let (up, failed, lost) = (tally.up.get(), tally.failed.get(), tally.lost.get());
        let Sample {
            connected,
            published,
            acked,
            received,
        } = rates;
        if plan.common.json {
            return format!(
                r#"{{"event":"rate","elapsed":{elapsed},"up":{up},"failed":{failed},"lost":{lost},"connects":{connected},"published":{published},"acked":{acked},"received":{received}}}"#
            );
        }
        let count = plan.common.count;
        let head = format!("{elapsed:>5}s  up {up}/{count}  failed {failed}  lost {lost}");
        let tail = match &plan.task {
            Task::Hold => format!("{connected} connects/s"),
            Task::Publish(_) => format!(
                "{connected} connects/s  {published} published/s  {acked} acked/s  {} in all",
                tally.published.get()
            ),
            Task::Subscribe(_) => format!(
                "{received} received/s  {} in all  {} gaps  {} duplicates",
                tally.received.get(),
                tally.gaps.get(),
                tally.duplicates.get()
            ),
        };
        format!("{head}  {tail}")
    }
}

impl Sample {
    fn rates(&self, before: &Self, passed: Duration) -> Self {
        let rate =
            |now: u64, then: u64| ((now - then) as f64 / passed.as_secs_f64()).round() as u64;
        Self {
            connected: rate(self.connected, before.connected),
            published: rate(self.published, before.published),
            acked: rate(self.acked, before.acked),
            received: rate(self.received, before.received),
        }
    }
}
