//! Whether something that a router depends on works, judged by attempts: a gateway, a script.
//!
//! ```text
//!              first attempt               `fall` failures in a row
//!   Unknown -----------------> Up, Down   Up ----------------------> Down
//!                                          ^                           |
//!                                          +---------------------------+
//!                                           `rise` successes in a row
//! ```

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

    use super::{Attempt, Streak, TrackState};

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
