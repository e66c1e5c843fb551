//! What a broker holds, over time: does any of it grow?

use serde::Serialize;
use serde_json::json;

use super::super::verdict::Verdict;

/// Growth over the whole run, by its slope, that is called none: as much as one look differs from the
/// next on a node that does nothing.
const FLAT: f64 = 0.02;

/// Lines of the table.
const LINES: usize = 12;

const MIB: f64 = 1_048_576.0;

/// What was seen at one time; bytes, or how many.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub(super) struct Sample {
    /// Since all clients were connected.
    pub(super) seconds: f64,
    pub(super) memory: u64,
    pub(super) descriptors: u64,
    pub(super) sessions: u64,
    pub(super) subscriptions: u64,
    /// By the broker's account.
    pub(super) stored: Option<u64>,
    /// By that of the file system.
    pub(super) file: Option<u64>,
}

/// Something that has to stay as it is.
struct Level {
    key: &'static str,
    name: &'static str,
    of: fn(&Sample) -> Option<u64>,
    /// Growth that is none where there is little of it: clients that come and go are not always as many.
    slack: f64,
}

const LEVELS: [Level; 6] = [
    Level {
        key: "memory",
        name: "bytes of memory",
        of: |sample| Some(sample.memory),
        slack: 0.0,
    },
    Level {
        key: "descriptors",
        name: "descriptors",
        of: |sample| Some(sample.descriptors),
        slack: 10.0,
    },
    Level {
        key: "sessions",
        name: "sessions",
        of: |sample| Some(sample.sessions),
        slack: 10.0,
    },
    Level {
        key: "subscriptions",
        name: "subscriptions",
        of: |sample| Some(sample.subscriptions),
        slack: 30.0,
    },
    Level {
        key: "stored",
        name: "bytes stored",
        of: |sample| sample.stored,
        slack: 65_536.0,
    },
    Level {
        key: "file",
        name: "bytes of the store's file",
        of: |sample| sample.file,
        // It grows and shrinks by whole regions.
        slack: 4.0 * MIB,
    },
];

/// What was seen, in the order of time.
#[derive(Debug)]
pub(super) struct Levels(Vec<Sample>);

impl Levels {
    pub(super) fn new(samples: Vec<Sample>) -> Self {
        Self(samples)
    }

    /// A table of some of it.
    pub(super) fn print(&self) {
        println!(
            "{:>8}{:>14}{:>14}{:>12}{:>16}{:>14}{:>12}",
            "seconds",
            "memory MiB",
            "descriptors",
            "sessions",
            "subscriptions",
            "stored KiB",
            "file MiB"
        );
        let step = self.0.len().div_ceil(LINES).max(1);
        for sample in self.0.iter().step_by(step) {
            let Sample {
                seconds,
                memory,
                descriptors,
                sessions,
                subscriptions,
                stored,
                file,
            } = sample;
            let scaled = |bytes: Option<u64>, unit: f64| {
                bytes.map_or_else(
                    || "-".to_owned(),
                    |bytes| format!("{:.1}", bytes as f64 / unit),
                )
            };
            println!(
                "{seconds:>8.0}{:>14}{descriptors:>14}{sessions:>12}{subscriptions:>16}{:>14}{:>12}",
                scaled(Some(*memory), MIB),
                scaled(*stored, 1024.0),
                scaled(*file, MIB)
            );
        }
    }

    /// Notes how each level was, and complains of those that rise.
    pub(super) fn judge(&self, verdict: &mut Verdict) {
        verdict.complain_if(self.0.is_empty(), "nobody looked");
        for level in LEVELS {
            let Some(trend) = self.trend(&level) else {
                continue;
            };
            let Level {
                key, name, slack, ..
            } = level;
            let Trend { mean, growth } = trend;
            let value = json!({ "mean": mean, "growth": growth });
            let text = format!("{mean:.0} in the mean, {growth:+.0} over the run");
            verdict.note_as(key, name, text, value);
            verdict.complain_if(
                !trend.is_flat(slack),
                format!("{name} grow by {growth:.0} over the run, from {mean:.0} in the mean"),
            );
        }
        verdict.note_series("samples", json!(self.0));
    }

    /// Without the first fifth: buffers take their size there.
    fn trend(&self, level: &Level) -> Option<Trend> {
        let steady = self.0.get(self.0.len().div_ceil(5)..).unwrap_or_default();
        let points = steady.iter();
        let points: Option<Vec<_>> = points
            .map(|sample| (level.of)(sample).map(|value| (sample.seconds, value as f64)))
            .collect();
        Trend::of(&points?)
    }
}

/// The line with the least squares of errors.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Trend {
    mean: f64,
    /// From the first point to the last.
    growth: f64,
}

impl Trend {
    /// `None` without points.
    fn of(points: &[(f64, f64)]) -> Option<Self> {
        let ((from, _), (to, _)) = (points.first()?, points.last()?);
        let count = points.len() as f64;
        let mean_x = points.iter().map(|(x, _)| x).sum::<f64>() / count;
        let mean = points.iter().map(|(_, y)| y).sum::<f64>() / count;
        let (mut products, mut squares) = (0.0, 0.0);
        for (x, y) in points {
            products += (x - mean_x) * (y - mean);
            squares += (x - mean_x) * (x - mean_x);
        }
        let slope = if squares > 0.0 {
            products / squares
        } else {
            0.0
        };
        let growth = slope * (to - from);
        Some(Self { mean, growth })
    }

    /// Whether it rises by less than chance.
    fn is_flat(self, slack: f64) -> bool {
        self.growth <= (self.mean * FLAT).max(slack)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A look a second.
    fn looks(bytes: impl Iterator<Item = u64>) -> Levels {
        let samples = bytes.enumerate().map(|(second, memory)| Sample {
            seconds: second as f64,
            memory,
            ..Sample::default()
        });
        Levels(samples.collect())
    }

    fn memory(levels: &Levels) -> Option<Trend> {
        levels.trend(&LEVELS[0])
    }

    #[test]
    fn memory_that_goes_up_and_down_is_flat() {
        let waves = looks((0..60).map(|second| 100_000_000 + second % 5 * 500_000));
        assert!(memory(&waves).unwrap().is_flat(0.0));
    }

    #[test]
    fn what_is_taken_at_the_start_is_no_growth() {
        let start = looks((0..60).map(|second| 1_000_000 * (50 + second.min(10))));
        let trend = memory(&start).unwrap();
        assert_eq!(trend.growth, 0.0);
        assert!(trend.is_flat(0.0));
    }

    #[test]
    fn memory_that_grows_is_not_flat() {
        let leak = looks((0..60).map(|second| 100_000_000 + second * 100_000));
        let trend = memory(&leak).unwrap();
        assert!((trend.growth - 4_700_000.0).abs() < 1.0, "{trend:?}");
        assert!(!trend.is_flat(0.0));
        // So little of it may be chance.
        assert!(trend.is_flat(5_000_000.0));
    }

    #[test]
    fn what_nobody_looked_at_is_not_called_flat() {
        let mut verdict = Verdict::default();
        Levels::new(Vec::new()).judge(&mut verdict);
        assert!(verdict.tell(true).is_err());
    }

    #[test]
    fn leak_of_any_level_is_told() {
        for leaking in 0..3 {
            let samples = (0..60).map(|second| {
                let of = |level| {
                    if level == leaking {
                        1000 + second * 10
                    } else {
                        1000
                    }
                };
                Sample {
                    seconds: second as f64,
                    memory: of(0),
                    descriptors: of(1),
                    stored: Some(of(2) * 1_000),
                    ..Sample::default()
                }
            });
            let mut verdict = Verdict::default();
            Levels::new(samples.collect()).judge(&mut verdict);
            let error = verdict.tell(true).unwrap_err().to_string();
            assert_eq!(error.matches("grow by").count(), 1, "{error}");
        }
    }
}
