//! One node with as many clients as a process may have, for minutes: is every message delivered, and
//! does memory stay as it is?

use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, ensure};
use serde::Serialize;

use crate::lab::{interrupted, wait_until};
use crate::load::{Load, Summary, Times};

use super::{Args, END, READY, Scene};

/// They share what is sent: one alone might be slower than all senders.
const RECEIVERS: u32 = 8;

const TOPIC: &str = "soak/%i";
const SHARE: &str = "$share/soak/soak/+";

/// Receivers end when nothing has come for so long.
const IDLE: &str = "3s";

/// Looks at memory in all, or as many as there are seconds.
const SAMPLES: u32 = 60;

/// Growth over the whole run, by its slope, that is called none: as much as one look differs from the
/// next on a node that does nothing.
const FLAT: f64 = 0.02;

/// Of the rate asked for, what has to be reached for the run to mean anything.
const RATE: f64 = 0.95;

/// What has come out.
#[derive(Debug, Serialize)]
struct Outcome {
    clients: u32,
    seconds: f64,
    rate: u32,
    published: u64,
    acked: u64,
    received: u64,
    gaps: u64,
    duplicates: u64,
    /// Clients that were disconnected.
    lost: u64,
    messages_per_second: f64,
    latency_p50_ms: Option<f64>,
    latency_p99_ms: Option<f64>,
    memory: Memory,
    /// What is wrong; nothing if all is well.
    complaints: Vec<String>,
}

/// What the broker's process had of this machine's memory.
#[derive(Debug, Serialize)]
struct Memory {
    /// Seconds since all clients were connected, and bytes.
    samples: Vec<(f64, u64)>,
    mean: f64,
    /// Of the line that fits best, without the first fifth: buffers take their size there.
    bytes_per_second: f64,
}

/// Sets a node and its clients up, watches them, and prints what came out.
pub(super) fn run(args: &Args, scene: &mut Scene<'_>) -> Result<()> {
    let seconds = args.seconds();
    let share = ["-t", SHARE, "-q", "1", "-i", "1", "--idle", IDLE];
    let mut receiving = scene.load("sub", RECEIVERS, &share)?;
    receiving.wait_ready(READY)?;
    let interval = 1000.0 * f64::from(args.clients) / f64::from(args.rate());
    let interval = interval.to_string();
    let topic = ["-t", TOPIC, "-q", "1", "-s", "256"];
    let pace = ["-i", "0.2", "--wait-all", "-I", &interval];
    let mut sending = scene.load("pub", args.clients, &[topic.as_slice(), &pace].concat())?;
    sending.wait_ready(READY)?;
    let samples = watch(scene, &mut sending, seconds)?;
    let sent = sending.stop()?;
    let received = receiving.finish(END)?;
    let outcome = Outcome::new(args, &sent, &received, samples);
    outcome.print(args.json)?;
    ensure!(
        outcome.complaints.is_empty(),
        "{}",
        outcome.complaints.join("; ")
    );
    Ok(())
}

/// Reads the broker's memory for so long.
fn watch(scene: &Scene<'_>, sending: &mut Load, seconds: u32) -> Result<Vec<(f64, u64)>> {
    let pause = Duration::from_secs(u64::from(seconds.div_ceil(SAMPLES)));
    let length = Duration::from_secs(u64::from(seconds));
    let begin = Instant::now();
    let mut due = Duration::ZERO;
    let mut samples = Vec::new();
    wait_until(length + END, "the end of the soak", || {
        let passed = begin.elapsed();
        if interrupted() {
            return Some(Err(anyhow!("interrupted")));
        }
        if !sending.is_running() {
            return Some(Err(anyhow!("the senders have ended")));
        }
        if passed >= due {
            due = passed + pause;
            match scene.broker.memory() {
                Ok(kib) => samples.push((passed.as_secs_f64(), kib * 1024)),
                Err(error) => return Some(Err(error.context("the broker has gone"))),
            }
        }
        (passed >= length).then_some(Ok(()))
    })??;
    Ok(samples)
}

impl Outcome {
    fn new(args: &Args, sent: &Summary, received: &Summary, samples: Vec<(f64, u64)>) -> Self {
        let memory = Memory::new(samples);
        let latency = |pick: fn(&Times) -> f64| received.latency_ms.as_ref().map(pick);
        let mut outcome = Self {
            clients: args.clients,
            seconds: memory.samples.last().map_or(0.0, |(at, _)| *at),
            rate: args.rate(),
            published: sent.published,
            acked: sent.acked,
            received: received.received,
            gaps: received.gaps,
            duplicates: received.duplicates,
            lost: sent.lost + received.lost,
            messages_per_second: sent.messages_per_second,
            latency_p50_ms: latency(|times| times.p50),
            latency_p99_ms: latency(|times| times.p99),
            memory,
            complaints: Vec::new(),
        };
        outcome.complaints = outcome.judge(sent);
        outcome
    }

    /// Everything that is not as it has to be, each in words.
    fn judge(&self, sent: &Summary) -> Vec<String> {
        let mut complaints = Vec::new();
        let mut complain = |is_wrong: bool, text: String| {
            if is_wrong {
                complaints.push(text);
            }
        };
        let Self {
            published,
            acked,
            received,
            ..
        } = self;
        complain(
            sent.failed > 0,
            format!("{} clients did not get in: {:?}", sent.failed, sent.errors),
        );
        complain(
            self.lost > 0,
            format!("{} clients were cut off: {:?}", self.lost, sent.errors),
        );
        complain(
            acked != published,
            format!("of {published} messages {acked} were acknowledged"),
        );
        complain(
            received != published,
            format!("of {published} messages {received} were received"),
        );
        complain(self.gaps > 0, format!("{} messages are missing", self.gaps));
        complain(
            self.duplicates > 0,
            format!("{} messages came twice", self.duplicates),
        );
        let rate = self.messages_per_second;
        complain(
            rate < f64::from(self.rate) * RATE,
            format!("{rate:.0} messages a second are too few for {}", self.rate),
        );
        complain(
            !self.memory.is_flat(),
            format!(
                "memory grows by {:.0} bytes a second, from {:.0} in the mean",
                self.memory.bytes_per_second, self.memory.mean
            ),
        );
        complaints
    }

    fn print(&self, json: bool) -> Result<()> {
        if json {
            let line = serde_json::to_string(self).context("the outcome is no JSON")?;
            println!("{line}");
            return Ok(());
        }
        let Self {
            clients, seconds, ..
        } = self;
        println!(
            "{clients} clients for {seconds:.0} s, {:.0} messages/s",
            self.messages_per_second
        );
        println!(
            "published {}  acked {}  received {}  gaps {}  duplicates {}  lost clients {}",
            self.published, self.acked, self.received, self.gaps, self.duplicates, self.lost
        );
        if let (Some(p50), Some(p99)) = (self.latency_p50_ms, self.latency_p99_ms) {
            println!("latency ms: p50 {p50:.3}  p99 {p99:.3}");
        }
        let Memory {
            mean,
            bytes_per_second,
            samples,
        } = &self.memory;
        println!(
            "memory: {:.1} MiB in the mean of {} looks, {bytes_per_second:+.0} bytes/s",
            mean / 1_048_576.0,
            samples.len()
        );
        Ok(())
    }
}

impl Memory {
    fn new(samples: Vec<(f64, u64)>) -> Self {
        let steady = steady(&samples);
        let mean = steady.iter().map(|(_, bytes)| *bytes as f64).sum::<f64>();
        Self {
            mean: mean / steady.len().max(1) as f64,
            bytes_per_second: slope(steady),
            samples,
        }
    }

    /// Whether the line through it rises by less than chance over the run; without looks nobody knows.
    fn is_flat(&self) -> bool {
        let steady = steady(&self.samples);
        let (Some((from, _)), Some((to, _))) = (steady.first(), steady.last()) else {
            return false;
        };
        self.bytes_per_second * (to - from) <= self.mean * FLAT
    }
}

/// What comes behind the first fifth.
fn steady(samples: &[(f64, u64)]) -> &[(f64, u64)] {
    samples.get(samples.len().div_ceil(5)..).unwrap_or_default()
}

/// Of the line with the least squares of errors; zero where there is none.
fn slope(points: &[(f64, u64)]) -> f64 {
    let count = points.len() as f64;
    let mean_x = points.iter().map(|(x, _)| x).sum::<f64>() / count;
    let mean_y = points.iter().map(|(_, y)| *y as f64).sum::<f64>() / count;
    let (mut products, mut squares) = (0.0, 0.0);
    for (x, y) in points {
        products += (x - mean_x) * (*y as f64 - mean_y);
        squares += (x - mean_x) * (x - mean_x);
    }
    if squares > 0.0 {
        products / squares
    } else {
        0.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A look a second.
    fn looks(bytes: impl Iterator<Item = u64>) -> Vec<(f64, u64)> {
        bytes
            .enumerate()
            .map(|(second, bytes)| (second as f64, bytes))
            .collect()
    }

    #[test]
    fn memory_that_goes_up_and_down_is_flat() {
        let waves = looks((0..60).map(|second| 100_000_000 + second % 5 * 500_000));
        assert!(Memory::new(waves).is_flat());
    }

    #[test]
    fn what_is_taken_at_the_start_is_no_growth() {
        let start = looks((0..60).map(|second| 1_000_000 * (50 + second.min(10))));
        let memory = Memory::new(start);
        assert_eq!(memory.bytes_per_second, 0.0);
        assert!(memory.is_flat());
    }

    #[test]
    fn memory_that_grows_is_not_flat() {
        let leak = looks((0..60).map(|second| 100_000_000 + second * 100_000));
        let memory = Memory::new(leak);
        assert!((memory.bytes_per_second - 100_000.0).abs() < 1.0);
        assert!(!memory.is_flat());
    }

    #[test]
    fn memory_that_nobody_looked_at_is_not_called_flat() {
        assert!(!Memory::new(Vec::new()).is_flat());
    }
}
