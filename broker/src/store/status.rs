//! How the store is, for shards and for operators.

use std::sync::atomic::{AtomicU64, Ordering};

use serde::{Deserialize, Serialize};

use super::Store;
use crate::metrics::{Histogram, render_head, render_value};

/// Whether the store takes more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[repr(u8)]
pub enum Condition {
    Good,
    /// As much is stored as may be.
    Full,
    /// The file system has too little space left.
    LowSpace,
    /// It cannot be written.
    Failing,
}

impl Condition {
    const ALL: [Self; 4] = [Self::Good, Self::Full, Self::LowSpace, Self::Failing];

    pub(super) fn of(number: u8) -> Self {
        let known = Self::ALL.into_iter().find(|known| *known as u8 == number);
        known.unwrap_or(Self::Failing)
    }

    /// For logs, listings and metrics.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Good => "good",
            Self::Full => "full",
            Self::LowSpace => "low_space",
            Self::Failing => "failing",
        }
    }
}

/// The store, for operators.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoreView {
    pub condition: Condition,
    pub bytes: u64,
    pub max_bytes: u64,
}

/// What is counted.
#[derive(Debug, Default)]
pub(super) struct Stats {
    pub(super) bytes: AtomicU64,
    pub(super) commits: AtomicU64,
    pub(super) records: AtomicU64,
    pub(super) errors: AtomicU64,
    pub(super) commit_times: Histogram,
}

impl Store {
    pub(crate) fn view(&self) -> StoreView {
        StoreView {
            condition: self.condition(),
            bytes: self.stats.bytes.load(Ordering::Relaxed),
            max_bytes: self.max_bytes,
        }
    }

    /// Appends what is counted in Prometheus's text format.
    pub(crate) fn render(&self, out: &mut String) {
        let Stats {
            bytes,
            commits,
            records,
            errors,
            commit_times,
        } = &self.stats;
        let read = |value: &AtomicU64| value.load(Ordering::Relaxed);
        for (name, kind, help, value) in [
            ("store_bytes", "gauge", "Bytes of what is stored.", bytes),
            (
                "store_commits_total",
                "counter",
                "Batches that were stored.",
                commits,
            ),
            (
                "store_records_total",
                "counter",
                "Records in them, written or removed.",
                records,
            ),
            (
                "store_errors_total",
                "counter",
                "Batches that could not be stored, and were tried again.",
                errors,
            ),
        ] {
            render_head(out, name, kind, help);
            render_value(out, name, "", read(value));
        }
        let name = "store_condition";
        let help = "1 for the condition that the store is in; it takes more in \"good\" alone.";
        render_head(out, name, "gauge", help);
        for condition in Condition::ALL {
            let label = format!("condition=\"{}\"", condition.name());
            let is_so = u64::from(condition == self.condition());
            render_value(out, name, &label, is_so);
        }
        commit_times.render(out, "store_commit_seconds", "How long batches took.");
    }
}
