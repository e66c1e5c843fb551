//! What a run has come to: a table for humans, one line of JSON for scripts.

use std::{
    collections::BTreeMap,
    io::{self, Write},
};

use hdrhistogram::Histogram;
use serde::Serialize;

use super::{gaps::Account, plan::Task, swarm::Swarm, tally::Timer};

/// The summary; its fields are what `--json` prints.
#[derive(Debug, Serialize)]
pub(super) struct Summary {
    kind: &'static str,
    clients: u32,
    connected: u64,
    failed: u64,
    lost: u64,
    reconnected: u64,
    /// Clients that were told to connect anew and did.
    moved: u64,
    /// Clients that were up when the end began.
    up: u64,
    #[serde(flatten)]
    result: Outcome,
    connect_ms: Option<Times>,
    rtt_ms: Option<Times>,
    /// How long clients that came back had been without a connection.
    outage_ms: Option<Times>,
    errors: BTreeMap<String, u64>,
}

#[derive(Debug, Serialize)]
#[serde(untagged)]
enum Outcome {
    Hold {
        seconds: f64,
        connects_per_second: f64,
    },
    Publish {
        published: u64,
        acked: u64,
        refused: u64,
        seconds: f64,
        messages_per_second: f64,
        latency_ms: Option<Times>,
    },
    Subscribe {
        received: u64,
        gaps: u64,
        /// Which messages are missing.
        missing: Account,
        duplicates: u64,
        seconds: f64,
        messages_per_second: f64,
        latency_ms: Option<Times>,
    },
}

/// A histogram in milliseconds.
#[derive(Debug, Serialize)]
struct Times {
    count: u64,
    mean: f64,
    p50: f64,
    p90: f64,
    p99: f64,
    p999: f64,
    max: f64,
}

impl Summary {
    /// Takes the state at the end; `up` is how many clients were up before they were ended.
    pub(super) fn new(swarm: &Swarm, up: u64) -> Self {
        let tally = &swarm.tally;
        Self {
            kind: swarm.plan.kind(),
            clients: swarm.plan.common.count,
            connected: tally.connected.get(),
            failed: tally.failed.get(),
            lost: tally.lost.get(),
            reconnected: tally.reconnected.get(),
            moved: tally.moved.get(),
            up,
            result: outcome(swarm),
            connect_ms: Times::of(&tally.connect),
            rtt_ms: Times::of(&tally.round_trip),
            outage_ms: Times::of(&tally.outage),
            errors: tally.errors(),
        }
    }

    /// Whether no client failed and no connection was lost.
    pub(super) fn is_clean(&self) -> bool {
        self.failed == 0 && self.lost == 0
    }

    /// Prints to `out`; a reader that has gone away is not an error.
    pub(super) fn print(&self, out: &mut impl Write, json: bool) -> io::Result<()> {
        let text = if json {
            serde_json::to_string(self)? + "\n"
        } else {
            self.table()
        };
        match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
            Err(e) if e.kind() == io::ErrorKind::BrokenPipe => Ok(()),
            result => result,
        }
    }

    fn table(&self) -> String {
        let mut table = Table::default();
        table.row("clients", self.clients);
        table.row("connected", self.connected);
        table.row("failed", self.failed);
        table.row("lost", self.lost);
        if self.reconnected > 0 {
            table.row("reconnected", self.reconnected);
        }
        if self.moved > 0 {
            table.row("moved", self.moved);
        }
        match &self.result {
            Outcome::Hold {
                seconds,
                connects_per_second,
            } => {
                table.row("seconds", format_args!("{seconds:.3}"));
                table.row("connects/s", format_args!("{connects_per_second:.0}"));
            }
            Outcome::Publish {
                published,
                acked,
                refused,
                seconds,
                messages_per_second,
                ..
            } => {
                table.row("published", published);
                table.row("acked", acked);
                if *refused > 0 {
                    table.row("refused", refused);
                }
                table.row("seconds", format_args!("{seconds:.3}"));
                table.row("messages/s", format_args!("{messages_per_second:.0}"));
            }
            Outcome::Subscribe {
                received,
                gaps,
                missing,
                duplicates,
                seconds,
                messages_per_second,
                ..
            } => {
                table.row("received", received);
                table.row("gaps", gaps);
                for lack in &missing.worst {
                    table.row("missing", lack);
                }
                if missing.streams > missing.worst.len() {
                    let more = missing.streams - missing.worst.len();
                    table.row(
                        "missing",
                        format_args!("and more from {more} other publishers"),
                    );
                }
                table.row("duplicates", duplicates);
                table.row("seconds", format_args!("{seconds:.3}"));
                table.row("messages/s", format_args!("{messages_per_second:.0}"));
            }
        }
        let latency = match &self.result {
            Outcome::Hold { .. } => None,
            Outcome::Publish { latency_ms, .. } | Outcome::Subscribe { latency_ms, .. } => {
                latency_ms.as_ref()
            }
        };
        table.times("latency", latency);
        table.times("connect", self.connect_ms.as_ref());
        table.times("ping", self.rtt_ms.as_ref());
        table.times("outage", self.outage_ms.as_ref());
        for (reason, count) in &self.errors {
            table.row("error", format_args!("{count} x {reason}"));
        }
        table.0
    }
}

fn outcome(swarm: &Swarm) -> Outcome {
    let tally = &swarm.tally;
    let seconds = tally.messages.seconds();
    match &swarm.plan.task {
        Task::Hold => Outcome::Hold {
            seconds: tally.connecting.seconds(),
            connects_per_second: rate(tally.connected.get(), tally.connecting.seconds()),
        },
        Task::Publish(_) => Outcome::Publish {
            published: tally.published.get(),
            acked: tally.acked.get(),
            refused: tally.refused.get(),
            seconds,
            messages_per_second: rate(tally.published.get(), seconds),
            latency_ms: Times::of(&tally.latency),
        },
        Task::Subscribe(_) => Outcome::Subscribe {
            received: tally.received.get(),
            gaps: tally.gaps.get(),
            missing: tally.missing.account(),
            duplicates: tally.duplicates.get(),
            seconds,
            messages_per_second: rate(tally.received.get(), seconds),
            latency_ms: Times::of(&tally.latency),
        },
    }
}

fn rate(count: u64, seconds: f64) -> f64 {
    if seconds > 0.0 {
        round(count as f64 / seconds)
    } else {
        0.0
    }
}

/// Three digits after the point: to a microsecond, when the unit is milliseconds.
fn round(value: f64) -> f64 {
    (value * 1000.0).round() / 1000.0
}

impl Times {
    fn of(timer: &Timer) -> Option<Self> {
        timer.merged().map(|histogram| Self::new(&histogram))
    }

    fn new(histogram: &Histogram<u64>) -> Self {
        let at = |quantile| milliseconds(histogram.value_at_quantile(quantile) as f64);
        Self {
            count: histogram.len(),
            mean: milliseconds(histogram.mean()),
            p50: at(0.5),
            p90: at(0.9),
            p99: at(0.99),
            p999: at(0.999),
            max: milliseconds(histogram.max() as f64),
        }
    }
}

fn milliseconds(nanoseconds: f64) -> f64 {
    round(nanoseconds / 1e6)
}

/// Lines of a name and a value.
#[derive(Default)]
struct Table(String);

impl Table {
    fn row(&mut self, name: &str, value: impl std::fmt::Display) {
        self.0.push_str(&format!("{name:<12}{value}\n"));
    }

    fn times(&mut self, name: &str, times: Option<&Times>) {
        let Some(Times {
            mean,
            p50,
            p90,
            p99,
            p999,
            max,
            ..
        }) = times
        else {
            return;
        };
        self.row(
            name,
            format_args!(
                "ms: mean {mean:.3}  p50 {p50:.3}  p90 {p90:.3}  p99 {p99:.3}  p99.9 {p999:.3}  \
                 max {max:.3}"
            ),
        );
    }
}
