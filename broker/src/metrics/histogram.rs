//! Times in Prometheus's histograms, for all threads to add to.

use std::{
    array,
    fmt::Write,
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use super::render_head;

/// Upper bounds in seconds: from what a call within the process takes to what clients give up at.
const BOUNDS: [f64; 13] = [
    0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 1.0, 5.0,
];

/// How often something took how long.
#[derive(Debug)]
pub(crate) struct Histogram {
    /// By bucket; the last one has no bound.
    counts: [AtomicU64; BOUNDS.len() + 1],
    /// In nanoseconds: enough for five hundred years.
    sum: AtomicU64,
}

impl Default for Histogram {
    fn default() -> Self {
        Self {
            counts: array::from_fn(|_bucket| AtomicU64::new(0)),
            sum: AtomicU64::new(0),
        }
    }
}

impl Histogram {
    pub(crate) fn observe(&self, took: Duration) {
        let seconds = took.as_secs_f64();
        let bucket = BOUNDS.partition_point(|bound| *bound < seconds);
        self.counts[bucket].fetch_add(1, Ordering::Relaxed);
        let nanos = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        self.sum.fetch_add(nanos, Ordering::Relaxed);
    }

    /// Appends all of it in Prometheus's text format.
    pub(crate) fn render(&self, out: &mut String, name: &str, help: &str) {
        render_head(out, name, "histogram", help);
        let mut below = 0;
        let bounds = BOUNDS.iter().map(f64::to_string);
        for (count, bound) in self.counts.iter().zip(bounds.chain(["+Inf".to_owned()])) {
            below += count.load(Ordering::Relaxed);
            // Writing to a String does not fail.
            let _ = writeln!(
                out,
                "tidegate_broker_{name}_bucket{{le=\"{bound}\"}} {below}"
            );
        }
        let sum = Duration::from_nanos(self.sum.load(Ordering::Relaxed)).as_secs_f64();
        let _ = writeln!(out, "tidegate_broker_{name}_sum {sum}");
        let _ = writeln!(out, "tidegate_broker_{name}_count {below}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_hold_all_that_took_no_longer() {
        let histogram = Histogram::default();
        for micros in [50, 100, 101, 7_000_000] {
            histogram.observe(Duration::from_micros(micros));
        }
        let mut text = String::new();
        histogram.render(&mut text, "x_seconds", "Why.");
        for line in [
            "# TYPE tidegate_broker_x_seconds histogram",
            "tidegate_broker_x_seconds_bucket{le=\"0.0001\"} 2",
            "tidegate_broker_x_seconds_bucket{le=\"0.00025\"} 3",
            "tidegate_broker_x_seconds_bucket{le=\"5\"} 3",
            "tidegate_broker_x_seconds_bucket{le=\"+Inf\"} 4",
            "tidegate_broker_x_seconds_sum 7.000251",
            "tidegate_broker_x_seconds_count 4",
        ] {
            assert!(
                text.lines().any(|written| written == line),
                "{line}\n{text}"
            );
        }
    }
}
