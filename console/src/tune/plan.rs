//! What is, what should be, and what has to be written for that; no file is touched here.

use serde::{Deserialize, Serialize};

use super::catalogue::{Setting, Wanted, Weight};

/// How a setting stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Standing {
    Good,
    /// It should be changed.
    Wrong,
    /// The kernel has it not: its part is not built, not loaded, or not of this network namespace.
    Missing,
    /// It is not for this program to judge.
    Untouched,
}

/// One setting on one host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Reading {
    pub key: &'static str,
    /// As the kernel writes it, with single spaces.
    pub current: Option<String>,
    pub wanted: Wanted,
    pub standing: Standing,
    pub weight: Weight,
    pub why: &'static str,
}

/// A setting that is ours to change back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Change {
    pub key: String,
    pub before: String,
    pub after: String,
}

impl Reading {
    #[must_use]
    pub fn new(setting: &Setting, current: Option<&str>) -> Self {
        let words = current.map(|text| text.split_whitespace().collect::<Vec<_>>().join(" "));
        Self {
            key: setting.key,
            standing: standing(setting.wanted, words.as_deref()),
            current: words,
            wanted: setting.wanted,
            weight: setting.weight,
            why: setting.why,
        }
    }

    /// What has to be written, if anything.
    #[must_use]
    pub fn change(&self) -> Option<Change> {
        let (Wanted::AtLeast(bound) | Wanted::AtMost(bound)) = self.wanted else {
            return None;
        };
        let before = self
            .current
            .as_ref()
            .filter(|_| self.standing == Standing::Wrong)?;
        Some(Change {
            key: self.key.to_owned(),
            before: before.clone(),
            after: bound.to_string(),
        })
    }

    /// Whether it is one of these settings; without any, whether it matters on all hosts of the kind.
    #[must_use]
    pub fn is_meant(&self, only: &[String]) -> bool {
        if only.is_empty() {
            self.weight == Weight::Matters
        } else {
            only.iter().any(|key| key == self.key)
        }
    }
}

fn standing(wanted: Wanted, current: Option<&str>) -> Standing {
    let Some(current) = current else {
        return Standing::Missing;
    };
    // What is no number is none of the settings that are written.
    let number = current.parse::<u64>().ok();
    let is_good = match (wanted, number) {
        (Wanted::AtLeast(bound), Some(number)) => number >= bound,
        (Wanted::AtMost(bound), Some(number)) => number <= bound,
        (Wanted::Untouched, _) | (Wanted::AtLeast(_) | Wanted::AtMost(_), None) => {
            return Standing::Untouched;
        }
    };
    if is_good {
        Standing::Good
    } else {
        Standing::Wrong
    }
}

/// Adds changes to those of earlier times: what a setting was before the first of them stays known.
#[must_use]
pub fn merge(earlier: &[Change], new: &[Change]) -> Vec<Change> {
    let mut all: Vec<_> = earlier
        .iter()
        .filter(|old| new.iter().all(|change| change.key != old.key))
        .cloned()
        .collect();
    all.extend(new.iter().map(|change| {
        let old = earlier.iter().find(|old| old.key == change.key);
        match old {
            Some(old) if old.after == change.before => Change {
                before: old.before.clone(),
                ..change.clone()
            },
            // Somebody else has changed it in between, or a boot.
            Some(_) | None => change.clone(),
        }
    }));
    all
}

#[cfg(test)]
mod tests {
    use super::{Change, Reading, Standing, merge};
    use crate::tune::catalogue::{Setting, Wanted, Weight};

    fn reading(wanted: Wanted, current: Option<&str>) -> Reading {
        let setting = Setting {
            key: "a.b",
            wanted,
            weight: Weight::Matters,
            why: "so",
        };
        Reading::new(&setting, current)
    }

    fn change(key: &str, before: &str, after: &str) -> Change {
        Change {
            key: key.to_owned(),
            before: before.to_owned(),
            after: after.to_owned(),
        }
    }

    #[test]
    fn values_that_are_better_than_wanted_are_left_alone() {
        for current in ["10", "11\n", "9223372036854775807"] {
            let reading = reading(Wanted::AtLeast(10), Some(current));
            assert_eq!(reading.standing, Standing::Good);
            assert_eq!(reading.change(), None);
        }
        assert_eq!(reading(Wanted::AtMost(30), Some("5")).change(), None);
    }

    #[test]
    fn worse_ones_are_changed_to_what_is_wanted() {
        let raised = reading(Wanted::AtLeast(10), Some("9\n")).change();
        assert_eq!(raised, Some(change("a.b", "9", "10")));
        let lowered = reading(Wanted::AtMost(30), Some("120")).change();
        assert_eq!(lowered, Some(change("a.b", "120", "30")));
    }

    #[test]
    fn what_is_missing_or_no_number_is_not_written() {
        let missing = reading(Wanted::AtLeast(10), None);
        assert_eq!(missing.standing, Standing::Missing);
        let words = reading(Wanted::AtLeast(10), Some("1\t2"));
        assert_eq!(words.standing, Standing::Untouched);
        assert_eq!(words.current.as_deref(), Some("1 2"));
        assert_eq!((missing.change(), words.change()), (None, None));
    }

    #[test]
    fn the_value_from_before_the_first_change_is_the_one_to_go_back_to() {
        let earlier = [change("a", "1", "2"), change("b", "1", "2")];
        let again = merge(&earlier, &[change("a", "2", "3")]);
        assert_eq!(again, [change("b", "1", "2"), change("a", "1", "3")]);
        let changed_by_others = merge(&earlier, &[change("a", "7", "9")]);
        assert_eq!(changed_by_others[1], change("a", "7", "9"));
    }
}
