//! Addresses that cannot be put on the interface: for how long a router keeps its role all the same,
//! and when it may try again.
//!
//! ```text
//!          refused                 for PATIENCE
//!   Fine ----------->  Failing  ------------------>  Over
//!    ^  <------------                                 |
//!    |   placed, or not Active any more               |
//!    +------------------------------------------------+
//!                     after a pause, twice as long each time
//! ```
//! A Backup cannot find out whether it would succeed: who tries has the address. So only time ends a
//! pause, or an operator.

use std::time::{Duration, Instant};

/// How long an Active may be without an address: the applier has tried a few times by then.
const PATIENCE: Duration = Duration::from_secs(3);

/// The first pause. To try costs the clients [`PATIENCE`], if the role is taken from a peer for it.
const SHORTEST: Duration = Duration::from_secs(60);

/// The longest pause: whoever mends what is wrong can say so.
const LONGEST: Duration = Duration::from_secs(3_600);

/// How the addresses of a router are at the moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// They need not be there, or nobody has tried yet.
    Open,
    Placed,
    /// One of them at least could not be put there.
    Refused,
}

/// What became of a router's addresses so far.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Trial {
    state: State,
    /// The next pause.
    pause: Duration,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Fine,
    Failing { since: Instant },
    Over { until: Instant },
}

impl Trial {
    /// One that nothing speaks against.
    pub(super) const fn new() -> Self {
        Self {
            state: State::Fine,
            pause: SHORTEST,
        }
    }

    /// Takes in how the addresses are.
    pub(super) fn note(&mut self, outcome: Outcome, now: Instant) {
        self.state = match (self.state, outcome) {
            (State::Over { until }, _) if until > now => self.state,
            (State::Fine | State::Failing { .. } | State::Over { .. }, Outcome::Open) => {
                State::Fine
            }
            (State::Fine | State::Failing { .. } | State::Over { .. }, Outcome::Placed) => {
                self.pause = SHORTEST;
                State::Fine
            }
            (State::Failing { since }, Outcome::Refused) => {
                if now.duration_since(since) < PATIENCE {
                    return;
                }
                let until = now + self.pause;
                self.pause = (self.pause * 2).min(LONGEST);
                State::Over { until }
            }
            (State::Fine | State::Over { .. }, Outcome::Refused) => State::Failing { since: now },
        };
    }

    /// Whether the role is somebody else's to have.
    pub(super) const fn is_over(&self) -> bool {
        match self.state {
            State::Over { .. } => true,
            State::Fine | State::Failing { .. } => false,
        }
    }

    /// When there is something to note at the latest.
    pub(super) fn deadline(&self) -> Option<Instant> {
        match self.state {
            State::Fine => None,
            State::Failing { since } => Some(since + PATIENCE),
            State::Over { until } => Some(until),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{LONGEST, Outcome, PATIENCE, SHORTEST, Trial};
    use crate::core::vrrp::machine::tests::bench::{epoch, ms};

    #[test]
    fn a_refusal_that_passes_in_time_is_none() {
        for end in [Outcome::Placed, Outcome::Open] {
            let (mut trial, start) = (Trial::new(), epoch());
            trial.note(Outcome::Refused, start);
            trial.note(Outcome::Refused, start + PATIENCE - ms(1));
            trial.note(end, start + PATIENCE);
            assert!(!trial.is_over());
            assert_eq!(trial.deadline(), None);
        }
    }

    #[test]
    fn pauses_grow_to_their_longest_until_the_addresses_are_placed() {
        let (mut trial, mut now) = (Trial::new(), epoch());
        let mut pauses = Vec::new();
        for _ in 0..9 {
            trial.note(Outcome::Refused, now);
            assert_eq!(trial.deadline(), Some(now + PATIENCE));
            now += PATIENCE;
            trial.note(Outcome::Refused, now);
            let end = trial.deadline().unwrap();
            pauses.push(end.duration_since(now));
            // It is not Active meanwhile.
            trial.note(Outcome::Open, end - ms(1));
            assert!(trial.is_over());
            trial.note(Outcome::Open, end);
            assert!(!trial.is_over());
            now = end;
        }
        assert_eq!(pauses[..3], [SHORTEST, SHORTEST * 2, SHORTEST * 4]);
        assert_eq!(pauses[8], LONGEST);
        trial.note(Outcome::Placed, now);
        trial.note(Outcome::Refused, now);
        trial.note(Outcome::Refused, now + PATIENCE);
        assert_eq!(trial.deadline(), Some(now + PATIENCE + SHORTEST));
    }
}
