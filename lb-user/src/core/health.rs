//! Whether a backend is up, judged by what its probes said.
//!
//! ```text
//!              1 success            `fall` failures in a row
//!   Unknown ---------------> Up --------------------------> Down
//!      |                      ^                              |
//!      |                      |   `rise` successes in a row  |
//!      |                      +------------------------------+
//!      |                   `fall` failures in a row          ^
//!      +-----------------------------------------------------+
//! ```
//! A backend that was never judged comes up at its first success, so that a start is as quick as one
//! probe; only a backend that has failed has to prove itself `rise` times. Time is not known here:
//! the prober decides when to ask, and says what came of it.

use std::fmt;

/// What came of one probe.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ProbeOutcome {
    /// The backend answered as it should.
    Success,
    /// It did not; `reason` tells an operator why.
    Failure { reason: String },
}

/// What is known of a backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum HealthState {
    /// Not judged yet.
    Unknown,
    Up,
    Down,
}

impl fmt::Display for HealthState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Unknown => "unknown",
            Self::Up => "up",
            Self::Down => "down",
        })
    }
}

/// A change of judgement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Transition {
    pub from: HealthState,
    pub to: HealthState,
}

/// How many probes in a row change the judgement; 0 counts as 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Thresholds {
    /// Failures that take a backend down.
    pub fall: u32,
    /// Successes that bring it up again.
    pub rise: u32,
}

/// The health of one backend.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Health {
    state: HealthState,
    /// Probes in a row that spoke against `state`.
    against: u32,
    reason: Option<String>,
}

impl Health {
    /// A backend of which nothing is known.
    #[must_use]
    pub const fn unknown() -> Self {
        Self {
            state: HealthState::Unknown,
            against: 0,
            reason: None,
        }
    }

    /// A backend that counts as up because nobody asks.
    #[must_use]
    pub const fn assumed_up() -> Self {
        Self {
            state: HealthState::Up,
            against: 0,
            reason: None,
        }
    }

    /// A backend that is supposed to have failed.
    #[must_use]
    pub const fn assumed_down() -> Self {
        Self {
            state: HealthState::Down,
            against: 0,
            reason: None,
        }
    }

    /// The judgement.
    #[must_use]
    pub const fn state(&self) -> HealthState {
        self.state
    }

    /// Why the last probe failed, if it did.
    #[must_use]
    pub fn reason(&self) -> Option<&str> {
        self.reason.as_deref()
    }

    /// Takes in what came of a probe; tells of it if that changes the judgement.
    pub fn observe(&mut self, outcome: ProbeOutcome, thresholds: Thresholds) -> Option<Transition> {
        let (verdict, needed) = match (&outcome, self.state) {
            (ProbeOutcome::Success, HealthState::Unknown) => (HealthState::Up, 1),
            (ProbeOutcome::Success, HealthState::Up | HealthState::Down) => {
                (HealthState::Up, thresholds.rise)
            }
            (ProbeOutcome::Failure { .. }, _) => (HealthState::Down, thresholds.fall),
        };
        self.reason = match outcome {
            ProbeOutcome::Success => None,
            ProbeOutcome::Failure { reason } => Some(reason),
        };
        if verdict == self.state {
            self.against = 0;
            return None;
        }
        self.against += 1;
        if self.against < needed {
            return None;
        }
        self.against = 0;
        let from = std::mem::replace(&mut self.state, verdict);
        Some(Transition { from, to: verdict })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{Health, HealthState, ProbeOutcome, Thresholds, Transition};

    const THRESHOLDS: Thresholds = Thresholds { fall: 3, rise: 2 };

    fn outcome(success: bool) -> ProbeOutcome {
        if success {
            ProbeOutcome::Success
        } else {
            ProbeOutcome::Failure {
                reason: "connection refused".to_owned(),
            }
        }
    }

    fn run(health: &mut Health, outcomes: &[bool]) -> Vec<Option<Transition>> {
        let observe = |&success| health.observe(outcome(success), THRESHOLDS);
        outcomes.iter().map(observe).collect()
    }

    fn transition(from: HealthState, to: HealthState) -> Option<Transition> {
        Some(Transition { from, to })
    }

    #[test]
    fn first_success_brings_an_unknown_backend_up() {
        let mut health = Health::unknown();
        let seen = run(&mut health, &[true]);
        assert_eq!(seen, [transition(HealthState::Unknown, HealthState::Up)]);
    }

    #[test]
    fn unknown_backend_comes_up_although_it_failed_first() {
        let mut health = Health::unknown();
        run(&mut health, &[false, false, true]);
        assert_eq!(health.state(), HealthState::Up);
    }

    #[test]
    fn unknown_backend_goes_down_after_fall_failures() {
        let mut health = Health::unknown();
        let seen = run(&mut health, &[false, false, false]);
        let down = transition(HealthState::Unknown, HealthState::Down);
        assert_eq!(seen, [None, None, down]);
        assert_eq!(health.reason(), Some("connection refused"));
    }

    #[test]
    fn one_success_between_failures_keeps_a_backend_up() {
        let mut health = Health::assumed_up();
        run(&mut health, &[false, false, true, false, false]);
        assert_eq!(health.state(), HealthState::Up);
    }

    #[test]
    fn backend_that_was_down_needs_rise_successes_in_a_row() {
        let mut health = Health::assumed_up();
        run(&mut health, &[false, false, false, true, false, true]);
        assert_eq!(health.state(), HealthState::Down);
        let seen = run(&mut health, &[true]);
        assert_eq!(seen, [transition(HealthState::Down, HealthState::Up)]);
        assert_eq!(health.reason(), None);
    }

    proptest! {
        #[test]
        fn state_only_changes_after_enough_outcomes_in_a_row(
            outcomes in prop::collection::vec(any::<bool>(), 0..60),
        ) {
            let mut health = Health::unknown();
            for at in 0..outcomes.len() {
                let before = health.state();
                let change = run(&mut health, &outcomes[at..=at])[0];
                let needed = match (before, outcomes[at]) {
                    (HealthState::Unknown, true) => 1,
                    (_, true) => 2,
                    (_, false) => 3,
                };
                let row = outcomes[..=at].iter().rev().take_while(|&&o| o == outcomes[at]).count();
                if let Some(Transition { from, to }) = change {
                    prop_assert!(from == before && to == health.state() && from != to);
                    prop_assert!(row >= needed);
                } else {
                    prop_assert_eq!(health.state(), before);
                    let settled = (before == HealthState::Up) == outcomes[at]
                        && before != HealthState::Unknown;
                    prop_assert!(settled || row < needed);
                }
            }
        }
    }
}
