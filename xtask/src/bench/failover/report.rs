//! What a fail-over looked like from the client, and all of them side by side.

use std::time::{Duration, Instant};

use serde::Serialize;
use serde_json::json;

use super::Case;
use super::nodes::{BACKUP, Speaker, TTLS};
use crate::lab::{PING_PERIOD, Record};

/// One fail-over.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Round {
    /// From the event to the first answer of the other host.
    pub(super) takeover: Option<Duration>,
    /// The longest time between two answers.
    pub(super) silence: Duration,
    /// From the event to the last question that nobody answered.
    pub(super) unsteady: Duration,
    /// Questions that nobody answered.
    pub(super) lost: usize,
    /// After new resolutions, answers of the host whose daemon is dead.
    pub(super) wrong: usize,
}

/// The same case again and again.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Row {
    pub(super) speaker: Speaker,
    pub(super) interval_ms: u64,
    pub(super) case: Case,
    pub(super) rounds: usize,
    /// Rounds beside these that came to no end: nothing of them counts.
    pub(super) failed: usize,
    /// Median and greatest, in milliseconds.
    pub(super) takeover_ms: Option<[f64; 2]>,
    pub(super) silence_ms: [f64; 2],
    pub(super) unsteady_ms: [f64; 2],
    /// Questions that nobody answered, in all rounds.
    pub(super) lost: usize,
    /// How often the VIP answered for good within an interval of the event.
    pub(super) within_interval: usize,
    /// After new resolutions, answers of a host whose daemon is dead, in all rounds.
    pub(super) wrong: usize,
}

impl Round {
    /// Reads it from what was asked and answered around the event.
    pub(super) fn of(record: &Record, event: Instant, until: Instant) -> Self {
        let is_asked = |at: Instant| at + PING_PERIOD >= event && at < until;
        let mut answered = vec![false; record.asked.len()];
        for answer in &record.answers {
            if let Some(slot) = answered.get_mut(answer.number) {
                *slot = true;
            }
        }
        let asked = record.asked.iter().zip(&answered);
        let unanswered = asked.filter(|(at, is_answered)| is_asked(**at) && !**is_answered);
        let unanswered: Vec<Instant> = unanswered.map(|(at, _)| *at).collect();
        let last = unanswered.last().copied();
        let mut others = record.answers.iter().filter(|it| it.at >= event);
        let first = others.find(|it| it.ttl == TTLS[BACKUP]);
        Self {
            takeover: first.map(|it| it.at.duration_since(event)),
            silence: longest_gap(record, event, until),
            unsteady: last.map_or(Duration::ZERO, |at| {
                at.saturating_duration_since(event) + PING_PERIOD
            }),
            lost: unanswered.len(),
            wrong: 0,
        }
    }
}

/// Between two answers, from the last one before the event on.
fn longest_gap(record: &Record, event: Instant, until: Instant) -> Duration {
    let times: Vec<Instant> = record.answers.iter().map(|it| it.at).collect();
    let before = times.iter().rev().find(|at| **at < event);
    let within = times.iter().filter(|at| **at >= event && **at <= until);
    let mut marks: Vec<Instant> = before.into_iter().chain(within).copied().collect();
    // Nobody has answered since the last mark, if that is long ago.
    marks.push(until);
    let gaps = marks.windows(2).map(|pair| pair[1] - pair[0]);
    gaps.max().unwrap_or_default()
}

impl Row {
    /// Sums rounds up, those that came to no end left out.
    pub(super) fn of(
        speaker: Speaker,
        interval: Duration,
        case: Case,
        all: &[Option<Round>],
    ) -> Self {
        let rounds: Vec<Round> = all.iter().flatten().copied().collect();
        let takeovers: Option<Vec<_>> = rounds.iter().map(|round| round.takeover).collect();
        let takeovers = takeovers.filter(|all| case.moves() && !all.is_empty());
        Self {
            speaker,
            interval_ms: u64::try_from(interval.as_millis()).unwrap_or(u64::MAX),
            case,
            rounds: rounds.len(),
            failed: all.len() - rounds.len(),
            takeover_ms: takeovers.map(|all| middle_and_most(all.into_iter())),
            silence_ms: middle_and_most(rounds.iter().map(|round| round.silence)),
            unsteady_ms: middle_and_most(rounds.iter().map(|round| round.unsteady)),
            lost: rounds.iter().map(|round| round.lost).sum(),
            within_interval: rounds
                .iter()
                .filter(|round| round.unsteady <= interval && round.silence <= interval)
                .count(),
            wrong: rounds.iter().map(|round| round.wrong).sum(),
        }
    }

    fn print(&self) {
        let pair = |[middle, most]: [f64; 2]| format!("{middle:.1} ({most:.1})");
        println!(
            "{:<11} {:>6} ms  {:<9} {:>17} {:>17} {:>17} {:>7} {:>5} of {:<3} {:>6} {:>6}",
            format!("{:?}", self.speaker).to_lowercase(),
            self.interval_ms,
            self.case.name(),
            self.takeover_ms.map(pair).unwrap_or_else(|| "-".to_owned()),
            pair(self.silence_ms),
            pair(self.unsteady_ms),
            self.lost,
            self.within_interval,
            self.rounds,
            self.wrong,
            self.failed,
        );
    }
}

/// Median and greatest in milliseconds.
fn middle_and_most(all: impl Iterator<Item = Duration>) -> [f64; 2] {
    let mut all: Vec<f64> = all.map(|it| it.as_secs_f64() * 1_000.0).collect();
    all.sort_by(f64::total_cmp);
    let at = |index: usize| all.get(index).copied().unwrap_or_default();
    [at(all.len() / 2), at(all.len().saturating_sub(1))]
}

/// Prints all of them.
pub(super) fn print(rows: &[Row], failures: &[String], is_json: bool) {
    if is_json {
        println!("{}", json!({ "rows": rows, "missed": failures }));
        return;
    }
    println!(
        "{:<11} {:>9}  {:<9} {:>17} {:>17} {:>17} {:>7} {:>12} {:>6} {:>6}",
        "",
        "adverts",
        "",
        "take-over, ms",
        "silence, ms",
        "unsteady, ms",
        "lost",
        "in time",
        "wrong",
        "failed",
    );
    rows.iter().for_each(Row::print);
    for failure in failures {
        println!("missed: {failure}");
    }
}

/// How well a take-over is known: who answers is asked once in that time.
const RESOLUTION_MS: f64 = PING_PERIOD.as_millis() as f64;

/// What Tidegate's rows fall short of.
pub(super) fn failures(rows: &[Row]) -> Vec<String> {
    let mut failures = Vec::new();
    for row in rows.iter().filter(|row| row.speaker == Speaker::Tidegate) {
        let name = format!("{} at {} ms", row.case.name(), row.interval_ms);
        if row.case.is_planned() && row.lost > 0 {
            failures.push(format!("{name}: {} pings lost", row.lost));
        }
        if row.case == Case::Heal && row.within_interval < row.rounds {
            let (good, all) = (row.within_interval, row.rounds);
            failures.push(format!("{name}: within an interval {good} of {all} times"));
        }
        if row.wrong > 0 {
            failures.push(format!(
                "{name}: {} answers of a dead daemon's host",
                row.wrong
            ));
        }
        let theirs = rows.iter().find(|other| {
            other.speaker == Speaker::Keepalived
                && (other.interval_ms, other.case) == (row.interval_ms, row.case)
        });
        let theirs = theirs.and_then(|row| row.takeover_ms);
        if let (Some([ours, _]), Some([theirs, _])) = (row.takeover_ms, theirs)
            && ours > theirs + RESOLUTION_MS
        {
            failures.push(format!("{name}: {ours:.1} ms, keepalived {theirs:.1} ms"));
        }
    }
    failures
}

#[cfg(test)]
mod tests {
    use super::super::nodes::ACTIVE;
    use super::*;
    use crate::lab::Answer;

    const MS: Duration = Duration::from_millis(1);

    /// Asked each millisecond for a second; `who` answers, at once, by the time in milliseconds.
    fn record(who: impl Fn(u32) -> Option<usize>) -> (Record, Instant) {
        let start = Instant::now();
        let asked: Vec<Instant> = (0..1_000).map(|ms| start + MS * ms).collect();
        let answers = (0..1_000).filter_map(|ms| {
            Some(Answer {
                number: ms as usize,
                at: start + MS * ms,
                ttl: TTLS[who(ms)?],
            })
        });
        let answers = answers.collect();
        (Record { asked, answers }, start)
    }

    #[test]
    fn a_gap_is_silence_and_ends_with_the_other_hosts_answer() {
        let (record, start) = record(|ms| match ms {
            0..500 => Some(ACTIVE),
            500..530 => None,
            _ => Some(BACKUP),
        });
        let event = start + MS * 490;
        let round = Round::of(&record, event, start + MS * 1_000);
        assert_eq!(round.takeover, Some(MS * 40));
        assert_eq!(round.silence, MS * 31);
        assert_eq!(round.lost, 30);
        assert_eq!(round.unsteady, MS * 40);
    }

    #[test]
    fn silence_that_does_not_end_is_as_long_as_one_looks() {
        let (record, start) = record(|ms| (ms < 500).then_some(ACTIVE));
        let round = Round::of(&record, start + MS * 500, start + MS * 900);
        assert_eq!(round.takeover, None);
        assert_eq!(round.silence, MS * 401);
        assert_eq!(round.lost, 400);
    }

    #[test]
    fn rounds_that_came_to_no_end_are_counted_and_nothing_of_them() {
        let (record, start) = record(|ms| Some(if ms < 500 { ACTIVE } else { BACKUP }));
        let round = Round::of(&record, start + MS * 490, start + MS * 900);
        let row = |rounds: &[_]| Row::of(Speaker::Keepalived, MS * 100, Case::Release, rounds);
        let mixed = row(&[None, Some(round)]);
        assert_eq!((mixed.rounds, mixed.failed), (1, 1));
        assert_eq!(mixed.takeover_ms, Some([10.0, 10.0]));
        assert_eq!(row(&[None]).takeover_ms, None);
    }

    #[test]
    fn a_difference_that_pings_cannot_tell_is_none() {
        let row = |speaker, takeover| {
            let (record, start) = record(|ms| Some(if ms < takeover { ACTIVE } else { BACKUP }));
            let round = Round::of(&record, start, start + MS * 900);
            Row::of(speaker, MS * 100, Case::Host, &[Some(round)])
        };
        let told = |ours| {
            let theirs = row(Speaker::Keepalived, 305);
            failures(&[row(Speaker::Tidegate, ours), theirs]).len()
        };
        assert_eq!((told(305), told(306), told(307)), (0, 0, 1));
    }

    #[test]
    fn what_is_lost_long_before_the_event_is_not_its() {
        let (record, start) = record(|ms| (ms != 100).then_some(ACTIVE));
        let round = Round::of(&record, start + MS * 500, start + MS * 900);
        assert_eq!((round.lost, round.unsteady), (0, Duration::ZERO));
        assert_eq!(round.silence, MS);
    }
}
