//! Whether something that a router depends on works, judged by attempts: a gateway, a script, a share
//! of its backends.
//!
//! ```text
//!              first attempt               `fall` failures in a row
//!   Unknown -----------------> Up, Down   Up ----------------------> Down
//!                                          ^                           |
//!                                          +---------------------------+
//!                                           `rise` successes in a row
//! ```

use std::fmt;

use super::label::labelled;

labelled! {
    /// What is known of it.
    TrackState {
        /// Nothing was tried yet: who is Active stays so, and nobody becomes it.
        Unknown = "unknown",
        Up = "up",
        Down = "down",
    }
}

/// What came of one attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Attempt {
    Success,
    Failure,
}

/// How many of a router's backends are up. Those that operators keep from new clients do not count:
/// they are no fault of this node's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Share {
    pub up: u32,
    pub down: u32,
    /// Of which nothing was heard yet.
    pub unknown: u32,
}

impl Share {
    /// Whether that is so much in a hundred; nothing while those that are not known decide. Of none, all
    /// are up.
    #[must_use]
    pub fn reaches(self, percent: u8) -> Option<bool> {
        let [up, unknown] = [self.up, self.unknown].map(u64::from);
        let is_enough = |up: u64| up * 100 >= u64::from(percent) * self.total();
        match (is_enough(up), is_enough(up + unknown)) {
            (true, _) => Some(true),
            (_, false) => Some(false),
            (false, true) => None,
        }
    }

    fn total(self) -> u64 {
        u64::from(self.up) + u64::from(self.down) + u64::from(self.unknown)
    }
}

impl fmt::Display for Share {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of {} backends are up", self.up, self.total())
    }
}

/// The judge.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Streak {
    fall: u32,
    rise: u32,
    state: TrackState,
    /// Attempts in a row that speak against the state.
    against: u32,
}

impl Streak {
    /// One that knows nothing.
    #[must_use]
    pub const fn new(fall: u32, rise: u32) -> Self {
        Self {
            fall,
            rise,
            state: TrackState::Unknown,
            against: 0,
        }
    }

    /// The same with what is known already.
    #[must_use]
    pub const fn knowing(self, state: TrackState) -> Self {
        Self { state, ..self }
    }

    #[must_use]
    pub const fn state(&self) -> TrackState {
        self.state
    }

    /// Takes in an attempt; says whether the state has changed.
    pub fn observe(&mut self, attempt: Attempt) -> bool {
        let seen = match attempt {
            Attempt::Success => TrackState::Up,
            Attempt::Failure => TrackState::Down,
        };
        let needed = match self.state {
            TrackState::Unknown => 1,
            TrackState::Up => self.fall,
            TrackState::Down => self.rise,
        };
        self.against = if seen == self.state {
            0
        } else {
            self.against.saturating_add(1)
        };
        let changes = self.against >= needed.max(1);
        if changes {
            (self.state, self.against) = (seen, 0);
        }
        changes
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{Attempt, Share, Streak, TrackState};

    fn attempt(is_good: bool) -> Attempt {
        if is_good {
            Attempt::Success
        } else {
            Attempt::Failure
        }
    }

    #[test]
    fn the_first_attempt_decides_and_later_ones_have_to_agree() {
        let mut streak = Streak::new(3, 2);
        assert_eq!(streak.state(), TrackState::Unknown);
        assert!(streak.observe(Attempt::Success));
        for attempt in [Attempt::Failure, Attempt::Failure, Attempt::Success] {
            assert!(!streak.observe(attempt));
        }
        let changes: Vec<bool> = (0..3).map(|_| streak.observe(Attempt::Failure)).collect();
        assert_eq!(changes, [false, false, true]);
        assert_eq!(streak.state(), TrackState::Down);
        assert!(!streak.observe(Attempt::Success));
        assert!(streak.observe(Attempt::Success));
        assert_eq!(streak.state(), TrackState::Up);
    }

    #[test]
    fn a_share_is_judged_when_those_that_are_not_known_change_nothing() {
        let of = |up, down, unknown| Share { up, down, unknown }.reaches(50);
        assert_eq!(of(3, 3, 0), Some(true));
        assert_eq!(of(2, 3, 0), Some(false));
        assert_eq!(of(2, 2, 1), None);
        assert_eq!(of(3, 0, 3), Some(true));
        assert_eq!(of(0, 3, 2), Some(false));
        assert_eq!(of(0, 0, 2), None);
        // Operators keep them all from new clients.
        assert_eq!(of(0, 0, 0), Some(true));
        let all = Share {
            up: 5,
            down: 1,
            unknown: 0,
        };
        assert_eq!(all.reaches(100), Some(false));
        assert_eq!(all.to_string(), "5 of 6 backends are up");
    }

    proptest! {
        #[test]
        fn a_state_is_what_the_last_attempts_say(
            attempts in proptest::collection::vec(any::<bool>(), 1..200),
            fall in 1..6_u32,
            rise in 1..6_u32,
        ) {
            let mut streak = Streak::new(fall, rise);
            let mut state = TrackState::Unknown;
            for (at, is_good) in attempts.iter().enumerate() {
                let changed = streak.observe(attempt(*is_good));
                let of_last = |count: u32, good: bool| {
                    let from = (at + 1).checked_sub(count as usize);
                    from.is_some_and(|from| attempts[from..=at].iter().all(|it| *it == good))
                };
                match (state, streak.state()) {
                    (TrackState::Unknown, now) => {
                        prop_assert!(changed && (now == TrackState::Up) == *is_good);
                    }
                    (TrackState::Up, TrackState::Down) => prop_assert!(changed && of_last(fall, false)),
                    (TrackState::Down, TrackState::Up) => prop_assert!(changed && of_last(rise, true)),
                    (before, now) => {
                        prop_assert!(!changed && before == now);
                        // It has changed as soon as it may.
                        prop_assert!(now != TrackState::Up || !of_last(fall, false));
                        prop_assert!(now != TrackState::Down || !of_last(rise, true));
                    }
                }
                state = streak.state();
            }
        }
    }
}
