//! What is not carried over as it was: where it stood, why, and what to do.

use serde::Serialize;

/// How much it matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Weight {
    /// It has no counterpart, or none that can be made from here.
    Lost,
    /// It is there, and means something else.
    Changed,
    /// Tidegate does without.
    Needless,
}

/// From what has to be seen to on.
pub const WEIGHTS: [Weight; 3] = [Weight::Lost, Weight::Changed, Weight::Needless];

impl Weight {
    /// As people are told.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Lost => "not carried over",
            Self::Changed => "changed",
            Self::Needless => "not needed",
        }
    }
}

/// One thing that is not carried over as it was.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Finding {
    pub file: String,
    /// From 1.
    pub line: usize,
    pub weight: Weight,
    /// The words of the file that it is about, without secrets.
    pub what: String,
    pub why: String,
    /// What to do; empty if there is nothing.
    pub instead: String,
}

impl std::fmt::Display for Finding {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self {
            file,
            line,
            weight,
            what,
            why,
            instead,
        } = self;
        write!(f, "{file}:{line}: {what}: {}: {why}", weight.label())?;
        if !instead.is_empty() {
            write!(f, "; {instead}")?;
        }
        Ok(())
    }
}

/// Those found so far, and in which file more are looked for.
#[derive(Debug, Default)]
pub(super) struct Findings {
    file: String,
    found: Vec<Finding>,
    has_more: bool,
}

/// Files that are wrong throughout have no use for more.
const MOST: usize = 1_000;
/// What is quoted of a file, in characters.
const QUOTED: usize = 80;

impl Findings {
    /// What comes next is in this file.
    pub(super) fn enter(&mut self, file: &str) {
        file.clone_into(&mut self.file);
    }

    /// The file that is read.
    pub(super) fn file(&self) -> &str {
        &self.file
    }

    pub(super) fn lost(
        &mut self,
        line: usize,
        what: impl Into<String>,
        why: impl Into<String>,
        instead: impl Into<String>,
    ) {
        self.add(Weight::Lost, line, what.into(), why.into(), instead.into());
    }

    pub(super) fn changed(
        &mut self,
        line: usize,
        what: impl Into<String>,
        why: impl Into<String>,
        instead: impl Into<String>,
    ) {
        let weight = Weight::Changed;
        self.add(weight, line, what.into(), why.into(), instead.into());
    }

    pub(super) fn needless(
        &mut self,
        line: usize,
        what: impl Into<String>,
        why: impl Into<String>,
    ) {
        let weight = Weight::Needless;
        self.add(weight, line, what.into(), why.into(), String::new());
    }

    pub(super) fn add(
        &mut self,
        weight: Weight,
        line: usize,
        what: String,
        why: String,
        instead: String,
    ) {
        if self.found.len() >= MOST {
            self.has_more = true;
            return;
        }
        let what = what.chars().take(QUOTED).collect();
        let file = self.file.clone();
        let finding = Finding {
            file,
            line,
            weight,
            what,
            why,
            instead,
        };
        // A `defaults` section is read again for each proxy.
        if !self.found.contains(&finding) {
            self.found.push(finding);
        }
    }

    /// In the order of files and lines.
    pub(super) fn into_sorted(self) -> Vec<Finding> {
        let mut found = self.found;
        found.sort_by(|a, b| (&a.file, a.line).cmp(&(&b.file, b.line)));
        if self.has_more {
            let line = found.last().map_or(1, |last| last.line);
            found.push(Finding {
                file: self.file,
                line,
                weight: Weight::Lost,
                what: "the rest".to_owned(),
                why: format!("more than {MOST} findings are not listed"),
                instead: "see to these, and import again".to_owned(),
            });
        }
        found
    }
}
