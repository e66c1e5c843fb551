//! What a measurement that can fail has come to: what was found, and what is wrong with it.

use std::time::Duration;

use anyhow::{Result, bail};
use serde_json::{Map, Value, json};

use crate::load::Times;

/// Room for what a row is about.
const TITLE_WIDTH: usize = 46;

/// Findings in the order in which they were made.
#[derive(Debug, Default)]
pub(super) struct Verdict {
    /// Of no case.
    rows: Vec<Row>,
    cases: Vec<(String, Vec<Row>)>,
    complaints: Vec<String>,
}

#[derive(Debug)]
struct Row {
    /// Its name in JSON.
    key: &'static str,
    title: &'static str,
    text: String,
    value: Value,
}

impl Verdict {
    /// What is noted from here on is of a case with this name.
    pub(super) fn begin(&mut self, case: impl Into<String>) {
        self.cases.push((case.into(), Vec::new()));
    }

    /// Notes a figure under its name in JSON and its title in the table.
    pub(super) fn note(&mut self, key: &'static str, title: &'static str, value: impl Into<Value>) {
        let value = value.into();
        let text = match value.as_f64().filter(|_number| value.is_f64()) {
            Some(number) => format!("{number:.2}"),
            None => value.to_string().trim_matches('"').to_owned(),
        };
        self.note_as(key, title, text, value);
    }

    /// Notes how times are distributed, in milliseconds.
    pub(super) fn note_times(&mut self, key: &'static str, title: &'static str, times: &Samples) {
        let [p50, p99, max] = [0.5, 0.99, 1.0].map(|share| times.milliseconds(share));
        let text = match (p50, p99, max) {
            (Some(p50), Some(p99), Some(max)) => {
                let count = times.0.len();
                format!("p50 {p50:.2}  p99 {p99:.2}  max {max:.2} ms, of {count}")
            }
            _ => "none".to_owned(),
        };
        let value = json!({ "count": times.0.len(), "p50": p50, "p99": p99, "max": max });
        self.note_as(key, title, text, value);
    }

    /// The same of what the load generator has measured.
    pub(super) fn note_latency(&mut self, key: &'static str, title: &'static str, times: Times) {
        let Times {
            p50,
            p99,
            p999,
            max,
        } = times;
        let text = format!("p50 {p50:.2}  p99 {p99:.2}  p99.9 {p999:.2}  max {max:.2} ms");
        let value = json!({ "p50": p50, "p99": p99, "p999": p999, "max": max });
        self.note_as(key, title, text, value);
    }

    /// Notes a figure that is told in other words than in JSON.
    pub(super) fn note_as(
        &mut self,
        key: &'static str,
        title: &'static str,
        text: String,
        value: Value,
    ) {
        let rows = self.cases.last_mut().map(|(_name, rows)| rows);
        rows.unwrap_or(&mut self.rows).push(Row {
            key,
            title,
            text,
            value,
        });
    }

    /// Notes what only JSON has.
    pub(super) fn note_series(&mut self, key: &'static str, value: Value) {
        self.note_as(key, "", String::new(), value);
    }

    /// Says what is wrong, if it is.
    pub(super) fn complain_if(&mut self, is_wrong: bool, text: impl Into<String>) {
        if is_wrong {
            self.complaints.push(text.into());
        }
    }

    /// Prints what was found, and fails if something is wrong.
    ///
    /// # Errors
    /// Everything that is wrong, each in words.
    pub(super) fn tell(self, json: bool) -> Result<()> {
        let Self {
            rows,
            cases,
            complaints,
        } = self;
        if json {
            let mut line = object(rows);
            let cases = cases.into_iter();
            line.extend(cases.map(|(name, rows)| (name, Value::Object(object(rows)))));
            line.insert("complaints".to_owned(), json!(complaints));
            println!("{}", Value::Object(line));
        } else {
            print_rows(&rows);
            for (name, rows) in &cases {
                println!("{name}");
                print_rows(rows);
            }
        }
        if complaints.is_empty() {
            return Ok(());
        }
        bail!("{}", complaints.join("; "))
    }
}

fn object(rows: Vec<Row>) -> Map<String, Value> {
    let rows = rows.into_iter();
    rows.map(|row| (row.key.to_owned(), row.value)).collect()
}

fn print_rows(rows: &[Row]) {
    let told = rows.iter().filter(|row| !row.title.is_empty());
    for Row { title, text, .. } in told {
        println!("{title:<TITLE_WIDTH$}{text}");
    }
}

/// How long something took, each time.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Samples(Vec<Duration>);

impl Samples {
    pub(super) fn push(&mut self, time: Duration) {
        self.0.push(time);
    }

    pub(super) fn extend(&mut self, others: &Self) {
        self.0.extend_from_slice(&others.0);
    }

    /// Below which this share of them is, all with 1; `None` without any.
    fn milliseconds(&self, share: f64) -> Option<f64> {
        let mut sorted = self.0.clone();
        sorted.sort_unstable();
        let at = (sorted.len() as f64 * share).ceil() as usize;
        let time = sorted.get(at.max(1) - 1)?;
        Some(time.as_secs_f64() * 1_000.0)
    }
}

impl FromIterator<Duration> for Samples {
    fn from_iter<T: IntoIterator<Item = Duration>>(times: T) -> Self {
        Self(times.into_iter().collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_those_of_the_sorted_times() {
        let times: Samples = (1..=200).rev().map(Duration::from_millis).collect();
        let shares = [0.5, 0.99, 1.0].map(|share| times.milliseconds(share));
        assert_eq!(shares, [Some(100.0), Some(198.0), Some(200.0)]);
        assert_eq!(Samples::default().milliseconds(0.5), None);
    }

    #[test]
    fn what_is_wrong_is_an_error_and_nothing_else_is() {
        let mut verdict = Verdict::default();
        verdict.note("lost", "messages lost", 0);
        verdict.complain_if(false, "not so");
        assert!(verdict.complaints.is_empty());
        verdict.complain_if(true, "2 are lost");
        verdict.complain_if(true, "3 came twice");
        let error = verdict.tell(true).unwrap_err();
        assert_eq!(error.to_string(), "2 are lost; 3 came twice");
    }
}
