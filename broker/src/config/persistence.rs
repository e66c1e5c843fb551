//! The rules of `[persistence]`.

use std::{path::PathBuf, time::Duration};

use toml::Spanned;

use super::{check::Check, file};

const MIB: i64 = 1024 * 1024;

/// Longer than a disk takes that has much to do, and shorter than clients usually wait.
const PATIENCE: Duration = Duration::from_secs(10);
const LEAST_PATIENCE: Duration = Duration::from_secs(1);
const MOST_PATIENCE: Duration = Duration::from_mins(10);

/// How sessions and retained messages outlive the process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Persistence {
    pub directory: PathBuf,
    pub sync: Sync,
    /// Bytes of records from which on nothing more is taken.
    pub max_bytes: u64,
    /// Free bytes of the file system below which nothing more is taken.
    pub min_free_bytes: u64,
    /// How long a write may take before it is held for one that fails.
    pub patience: Duration,
}

/// What has to be survived by what was acknowledged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sync {
    /// Loss of power.
    Disk,
    /// The end of the process.
    Process,
}

impl Check<'_> {
    pub(super) fn persistence(&mut self, raw: file::Persistence) -> Option<Persistence> {
        let file::Persistence {
            directory,
            sync,
            max_bytes,
            min_free_bytes,
            patience,
        } = raw;
        let patience = patience.map(|raw| (raw.span(), self.patience(raw)));
        let sync = sync.map(|sync| (self.sync(&sync), sync.span()));
        let numbers = [
            ("persistence.max_bytes", &max_bytes),
            ("persistence.min_free_bytes", &min_free_bytes),
        ];
        let Some(directory) = directory else {
            let given = numbers
                .into_iter()
                .filter_map(|(key, number)| Some((key, number.as_ref()?.span())));
            let sync = sync.map(|(_sync, span)| ("persistence.sync", span));
            let patience = patience.map(|(span, _patience)| ("persistence.patience", span));
            for (key, span) in sync.into_iter().chain(patience).chain(given) {
                self.refuse(key, span, "of no use without persistence.directory");
            }
            return None;
        };
        if !directory.get_ref().starts_with('/') {
            let key = "persistence.directory";
            self.refuse(key, directory.span(), "must be an absolute path");
        }
        let wide = |value: i64| u64::try_from(value).unwrap_or_default();
        Some(Persistence {
            directory: directory.into_inner().into(),
            sync: sync.map_or(Sync::Disk, |(sync, _span)| sync),
            max_bytes: wide(self.number(
                "persistence.max_bytes",
                max_bytes,
                1024 * MIB,
                MIB..i64::MAX,
            )),
            min_free_bytes: wide(self.number(
                "persistence.min_free_bytes",
                min_free_bytes,
                64 * MIB,
                0..i64::MAX,
            )),
            patience: patience.map_or(PATIENCE, |(_span, patience)| patience),
        })
    }

    fn patience(&mut self, raw: Spanned<String>) -> Duration {
        let (key, span) = ("persistence.patience", raw.span());
        let patience = self.duration(key, Some(raw), PATIENCE);
        if !(LEAST_PATIENCE..=MOST_PATIENCE).contains(&patience) {
            self.refuse(key, span, "must be one second to ten minutes");
        }
        patience
    }

    fn sync(&mut self, raw: &Spanned<String>) -> Sync {
        match raw.get_ref().as_str() {
            "disk" => Sync::Disk,
            "process" => Sync::Process,
            _ => {
                let message = "must be \"disk\" or \"process\"";
                self.refuse("persistence.sync", raw.span(), message);
                Sync::Disk
            }
        }
    }
}
