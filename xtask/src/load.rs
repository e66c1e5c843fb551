//! Clients: `tidegate-broker bench` on the client host, as many processes as their number takes.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, ensure};
use rustix::process::Signal;
use serde::Deserialize;

use crate::lab::{Host, Process, interrupted, wait_until};

/// Clients of one process: below the usual hard limit of 20,000 open files.
const PER_PROCESS: u32 = 15_000;

/// How long a load generator may take to end and sum up.
const END: Duration = Duration::from_secs(30);

/// A running load.
#[derive(Debug)]
pub struct Load {
    parts: Vec<Part>,
}

#[derive(Debug)]
struct Part {
    process: Process,
    ready: PathBuf,
}

/// What the load generator writes into its ready file.
#[derive(Debug, Deserialize)]
struct Up {
    failed: u64,
}

/// A connection that ended by itself after it was up: an event of `--events`.
#[derive(Clone, Debug, Deserialize)]
pub struct Loss {
    /// The client's number.
    pub client: u32,
    /// Its own end of the connection.
    pub source: Option<SocketAddr>,
    /// When it was noticed: Unix time in seconds.
    pub at: f64,
    /// How long the broker had said nothing by then.
    pub silent_ms: u64,
    /// What the client saw.
    pub reason: String,
}

/// What the load generator says in the end; figures that a kind does not have are zero.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Summary {
    /// Clients asked for.
    pub clients: u64,
    /// Connects that succeeded, those of clients that came back included.
    pub connected: u64,
    /// Connects that did not.
    pub failed: u64,
    /// Connections that dropped after being up.
    pub lost: u64,
    /// Lost clients that came back.
    pub reconnected: u64,
    /// Clients that were told to connect anew and did.
    pub moved: u64,
    /// Clients that were up when the end began.
    pub up: u64,
    /// Messages sent.
    pub published: u64,
    /// Messages sent and acknowledged.
    pub acked: u64,
    /// Messages that arrived.
    pub received: u64,
    /// Messages missing in a stream that went on.
    pub gaps: u64,
    /// Messages that arrived twice.
    pub duplicates: u64,
    /// Connects a second.
    pub connects_per_second: f64,
    /// Messages a second.
    pub messages_per_second: f64,
    /// PINGREQ to PINGRESP.
    pub rtt_ms: Option<Times>,
    /// From sender to receiver, or to the acknowledgement.
    pub latency_ms: Option<Times>,
    /// What went wrong, and how often.
    pub errors: BTreeMap<String, u64>,
}

/// A distribution in milliseconds.
#[derive(Clone, Copy, Debug, Deserialize)]
pub struct Times {
    /// Median.
    pub p50: f64,
    /// 99 of 100 are below.
    pub p99: f64,
    /// 999 of 1,000 are below.
    pub p999: f64,
    /// The longest.
    pub max: f64,
}

impl Load {
    /// Starts `count` clients; `name` tells the loads of one host apart.
    ///
    /// # Errors
    /// When it cannot start.
    pub fn start(
        host: &Host,
        program: &std::path::Path,
        name: &str,
        kind: &str,
        count: u32,
        arguments: &[&str],
    ) -> Result<Self> {
        let mut parts = Vec::new();
        for first in (0..count).step_by(PER_PROCESS as usize) {
            let number = PER_PROCESS.min(count - first);
            let ready = host.work_dir().join(format!("{name}-{first}.ready"));
            // Left by a load of the same name before.
            let _ = std::fs::remove_file(&ready);
            let mut command = host.command(program)?;
            command
                .args(["bench", kind, "--json", "--quiet", "--allow-loss"])
                .args(["-c", &number.to_string(), "-n", &first.to_string()])
                .arg("--ready-file")
                .arg(&ready)
                .args(arguments);
            let log = format!("{name}-{first}");
            let process = if arguments.contains(&"--moves") {
                host.spawn_listening(&log, command)?
            } else {
                host.spawn(&log, command)?
            };
            parts.push(Part { process, ready });
        }
        Ok(Self { parts })
    }

    /// Waits until every client is up.
    ///
    /// # Errors
    /// When a client or the load generator fails, it takes longer, or somebody interrupts us.
    pub fn wait_ready(&mut self, within: Duration) -> Result<()> {
        for part in &mut self.parts {
            let text = wait_until(within, "all clients having connected", || part.look())
                .map_err(anyhow::Error::from)
                .and_then(|found| found)
                .with_context(|| part.process.tail())?;
            let Up { failed } = serde_json::from_str(&text)
                .with_context(|| format!("no word of the clients being up: {text}"))?;
            ensure!(failed == 0, "{failed} clients failed to connect");
        }
        Ok(())
    }

    /// Tells clients of a load with `--moves` to connect anew.
    ///
    /// # Errors
    /// When the load has ended.
    pub fn move_clients(&mut self, numbers: &[u32]) -> Result<()> {
        let text: String = numbers.iter().map(|number| format!("{number}\n")).collect();
        // Each part knows its own and ignores the others'.
        self.parts
            .iter_mut()
            .try_for_each(|part| part.process.tell(&text))
    }

    /// What a load with `--events` has lost so far.
    pub fn losses(&self) -> Vec<Loss> {
        let texts: Vec<String> = self
            .parts
            .iter()
            .map(|part| part.process.stdout())
            .collect();
        let lines = texts.iter().flat_map(|text| text.lines());
        // The summary at the end is another line, and no event.
        lines
            .filter_map(|line| serde_json::from_str(line).ok())
            .collect()
    }

    /// Ends the load and sums up.
    ///
    /// # Errors
    /// When it ended before or does not end.
    pub fn stop(mut self) -> Result<Summary> {
        for part in &mut self.parts {
            part.process.signal(Signal::INT)?;
        }
        self.sum_up()
    }

    /// Waits for the load's own end and sums up.
    ///
    /// # Errors
    /// When it takes longer than `within`, its summary cannot be read, or somebody interrupts us.
    pub fn finish(mut self, within: Duration) -> Result<Summary> {
        wait_until(within, "the end of all clients", || {
            (interrupted() || !self.is_any_running()).then_some(())
        })?;
        ensure!(!interrupted(), "interrupted");
        self.sum_up()
    }

    fn sum_up(mut self) -> Result<Summary> {
        let mut sum = Summary::default();
        for part in &mut self.parts {
            let text = part.process.finish(END)?;
            let line = text.lines().last().unwrap_or_default();
            let summary: Summary = serde_json::from_str(line)
                .with_context(|| format!("no summary of the clients: {text}"))?;
            sum.add(&summary);
        }
        Ok(sum)
    }

    fn is_any_running(&mut self) -> bool {
        self.parts.iter_mut().any(|part| part.process.is_running())
    }

    /// Whether it goes on.
    pub fn is_running(&mut self) -> bool {
        self.parts.iter_mut().all(|part| part.process.is_running())
    }

    /// Ids of its processes.
    pub fn pids(&self) -> Vec<u32> {
        self.parts.iter().map(|part| part.process.pid()).collect()
    }
}

impl Part {
    /// The ready file, or why there will be none.
    fn look(&mut self) -> Option<Result<String>> {
        if interrupted() {
            return Some(Err(anyhow!("interrupted")));
        }
        // In this order: a file that was written before the end is there.
        let is_running = self.process.is_running();
        match std::fs::read_to_string(&self.ready) {
            Ok(text) => Some(Ok(text)),
            Err(_) if is_running => None,
            Err(_) => Some(Err(anyhow!("it ended before its clients were up"))),
        }
    }
}

impl Summary {
    /// Fails unless every client connected.
    ///
    /// # Errors
    /// Says how many did not, and why.
    pub fn all_connected(&self) -> Result<()> {
        let (failed, errors) = (self.failed, &self.errors);
        ensure!(
            failed == 0,
            "{failed} clients failed to connect: {errors:?}"
        );
        Ok(())
    }

    /// Adds another process's figures; of times the slower ones stay.
    fn add(&mut self, other: &Self) {
        self.clients += other.clients;
        self.connected += other.connected;
        self.failed += other.failed;
        self.lost += other.lost;
        self.reconnected += other.reconnected;
        self.moved += other.moved;
        self.up += other.up;
        self.published += other.published;
        self.acked += other.acked;
        self.received += other.received;
        self.gaps += other.gaps;
        self.duplicates += other.duplicates;
        self.connects_per_second += other.connects_per_second;
        self.messages_per_second += other.messages_per_second;
        for (error, count) in &other.errors {
            *self.errors.entry(error.clone()).or_default() += count;
        }
        self.rtt_ms = slower(self.rtt_ms, other.rtt_ms);
        self.latency_ms = slower(self.latency_ms, other.latency_ms);
    }
}

fn slower(one: Option<Times>, other: Option<Times>) -> Option<Times> {
    match (one, other) {
        (Some(one), Some(other)) if one.p50 >= other.p50 => Some(one),
        (one, other) => other.or(one),
    }
}
