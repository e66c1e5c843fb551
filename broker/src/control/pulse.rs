//! The node's pulse: once a second all shards are asked how they are.
//!
//! Rates and loads come from the difference between two beats, so that looking at them costs
//! nothing; a shard that does not answer is not alive.

use std::{
    fmt::Write,
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::{
    sync::watch,
    time::{MissedTickBehavior, interval},
};

use super::{
    shards::{ANSWER_TIMEOUT, Shards},
    view::{Rates, ShardStatus},
};
use crate::{
    metrics::{Histogram, Metric, Metrics, render_head, render_value},
    shard::{Request, Vitals},
};

const BEAT: Duration = Duration::from_secs(1);

/// What one beat found.
#[derive(Clone, Debug)]
pub(crate) struct Pulse {
    pub(crate) at: Instant,
    pub(crate) shards: Vec<ShardStatus>,
    pub(crate) rates: Rates,
}

impl Pulse {
    /// Before the first beat.
    pub(crate) fn none(now: Instant) -> Self {
        Self {
            at: now,
            shards: Vec::new(),
            rates: Rates::default(),
        }
    }

    /// Appends what the shards do in Prometheus's text format.
    pub(crate) fn render(&self, out: &mut String) {
        let name = "shard_connections";
        render_head(out, name, "gauge", "Connections of a shard.");
        for shard in &self.shards {
            let label = format!("shard=\"{}\"", shard.shard);
            render_value(out, name, &label, shard.connections as u64);
        }
        let name = "shard_load_ratio";
        let help = "What a shard used of a core in the last second.";
        render_head(out, name, "gauge", help);
        for ShardStatus { shard, load, .. } in &self.shards {
            // Writing to a String does not fail.
            let _ = writeln!(out, "tidegate_broker_{name}{{shard=\"{shard}\"}} {load:.3}");
        }
    }

    /// The shards that did not answer in time; all of them, if the heart stands still.
    pub(crate) fn stuck(&self, now: Instant) -> Vec<u16> {
        let is_old = now.saturating_duration_since(self.at) > 2 * (BEAT + ANSWER_TIMEOUT);
        let is_stuck = |shard: &&ShardStatus| is_old || shard.answered_in_seconds.is_none();
        let stuck = self.shards.iter().filter(is_stuck);
        stuck.map(|shard| shard.shard).collect()
    }
}

/// What was counted at one beat.
#[derive(Clone, Debug)]
struct Counts {
    at: Instant,
    connects: u64,
    messages_in: u64,
    messages_out: u64,
    messages_dropped: u64,
    bytes_in: u64,
    bytes_out: u64,
    /// What each shard had used of a core; `None` if it did not answer.
    cpu: Vec<Option<Duration>>,
}

impl Counts {
    fn read(metrics: &Metrics, vitals: &[(Option<Vitals>, Duration)], at: Instant) -> Self {
        Self {
            at,
            connects: metrics.get(Metric::Connected),
            messages_in: metrics.get(Metric::MessagesIn),
            messages_out: metrics.get(Metric::MessagesOut),
            messages_dropped: metrics.get(Metric::DroppedQueue),
            bytes_in: metrics.get(Metric::BytesIn),
            bytes_out: metrics.get(Metric::BytesOut),
            cpu: vitals
                .iter()
                .map(|(vitals, _took)| vitals.map(|vitals| vitals.cpu))
                .collect(),
        }
    }

    fn rates(&self, before: &Self) -> Rates {
        let seconds = self.at.saturating_duration_since(before.at).as_secs_f64();
        let rate = |now: u64, before: u64| now.saturating_sub(before) as f64 / seconds;
        if seconds == 0.0 {
            return Rates::default();
        }
        Rates {
            connects: rate(self.connects, before.connects),
            messages_in: rate(self.messages_in, before.messages_in),
            messages_out: rate(self.messages_out, before.messages_out),
            messages_dropped: rate(self.messages_dropped, before.messages_dropped),
            bytes_in: rate(self.bytes_in, before.bytes_in),
            bytes_out: rate(self.bytes_out, before.bytes_out),
        }
    }

    /// What a shard used of a core since then.
    fn load(&self, before: &Self, shard: usize) -> f64 {
        let cpu = |counts: &Self| counts.cpu.get(shard).copied().flatten();
        let seconds = self.at.saturating_duration_since(before.at).as_secs_f64();
        match (cpu(self), cpu(before)) {
            (Some(now), Some(before)) if seconds > 0.0 => {
                now.saturating_sub(before).as_secs_f64() / seconds
            }
            (Some(_) | None, Some(_) | None) => 0.0,
        }
    }
}

/// Beats until it is dropped.
pub(crate) async fn watch_pulse(
    shards: Shards,
    metrics: Metrics,
    answer_times: Arc<Histogram>,
    pulse: watch::Sender<Arc<Pulse>>,
) {
    let mut ticks = interval(BEAT);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut before: Option<Counts> = None;
    loop {
        ticks.tick().await;
        let answers = shards.ask_all(Request::Vitals).await;
        for (_vitals, took) in &answers {
            answer_times.observe(*took);
        }
        let vitals: Vec<_> = answers
            .into_iter()
            .map(|(vitals, took)| (vitals.ok(), took))
            .collect();
        let counts = Counts::read(&metrics, &vitals, Instant::now());
        pulse.send_replace(Arc::new(beat(&vitals, &counts, before.as_ref())));
        before = Some(counts);
    }
}

fn beat(vitals: &[(Option<Vitals>, Duration)], counts: &Counts, before: Option<&Counts>) -> Pulse {
    let shards = vitals.iter().zip(0..).map(|((vitals, took), shard)| {
        let known = vitals.unwrap_or_default();
        ShardStatus {
            shard,
            connections: known.connections,
            sessions: known.sessions,
            load: before.map_or(0.0, |before| counts.load(before, usize::from(shard))),
            answered_in_seconds: vitals.map(|_vitals| took.as_secs_f64()),
        }
    });
    Pulse {
        at: counts.at,
        shards: shards.collect(),
        rates: before
            .map(|before| counts.rates(before))
            .unwrap_or_default(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(at: Instant, messages_in: u64, cpu: &[Option<u64>]) -> Counts {
        let cpu = cpu.iter().map(|millis| millis.map(Duration::from_millis));
        Counts {
            at,
            connects: 0,
            messages_in,
            messages_out: 0,
            messages_dropped: 0,
            bytes_in: 0,
            bytes_out: 0,
            cpu: cpu.collect(),
        }
    }

    #[test]
    fn rates_and_loads_are_differences_over_time() {
        let start = Instant::now();
        let before = counts(start, 100, &[Some(1000), None]);
        let after = counts(
            start + Duration::from_secs(2),
            300,
            &[Some(2500), Some(4000)],
        );
        let vitals = Vitals {
            sessions: 3,
            connections: 2,
            cpu: Duration::ZERO,
        };
        let took = Duration::from_millis(1);
        let pulse = beat(&[(Some(vitals), took), (None, took)], &after, Some(&before));
        assert_eq!(pulse.rates.messages_in, 100.0);
        assert_eq!(pulse.shards[0].load, 0.75);
        assert_eq!((pulse.shards[0].sessions, pulse.shards[1].load), (3, 0.0));
    }

    #[test]
    fn shard_without_an_answer_is_stuck_and_so_are_all_when_nobody_asks() {
        let now = Instant::now();
        let vitals = [
            (Some(Vitals::default()), Duration::ZERO),
            (None, ANSWER_TIMEOUT),
        ];
        let pulse = beat(&vitals, &counts(now, 0, &[None, None]), None);
        assert_eq!(pulse.stuck(now), [1]);
        assert_eq!(pulse.stuck(now + Duration::from_secs(60)), [0, 1]);
        assert!(Pulse::none(now).stuck(now).is_empty());
    }
}
