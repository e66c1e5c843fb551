//! Which change comes next: random, from a seed, and always possible.

use std::fmt;

/// How many backends have to take new clients at any time.
const SERVING_AT_LEAST: usize = 2;

/// How many backends may be dead at the same time.
const DEAD_AT_MOST: usize = 2;

/// The greatest weight that is set; the least is 1.
const WEIGHT_MAX: u64 = 8;

/// What may happen to a backend.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(super) enum Change {
    /// It is added to the configuration, which is reloaded.
    Add,
    /// It gets no new clients.
    Drain,
    /// It gets new clients again.
    Enable,
    /// Its clients are asked to leave; it is drained and waits for that.
    Evacuate,
    /// It is taken out of the configuration, its last client having left.
    Remove,
    /// It is taken out of the configuration with all its clients.
    TakeOut,
    /// It gets another weight.
    Weight(u16),
    /// Its process is killed.
    Kill,
    /// Its process is started again.
    Return,
}

impl Change {
    /// The kinds and how often each is tried; a death ends many sessions, which then tell nothing any more.
    const KINDS: [(Self, u64); 9] = [
        (Self::Add, 4),
        (Self::Drain, 4),
        (Self::Enable, 3),
        (Self::Evacuate, 2),
        (Self::Remove, 8),
        (Self::TakeOut, 2),
        (Self::Weight(0), 6),
        (Self::Kill, 1),
        (Self::Return, 3),
    ];

    /// Its kind's name.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Add => "add",
            Self::Drain => "drain",
            Self::Enable => "enable",
            Self::Evacuate => "evacuate",
            Self::Remove => "remove",
            Self::TakeOut => "take out",
            Self::Weight(_) => "weight",
            Self::Kill => "kill",
            Self::Return => "return",
        }
    }
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())?;
        if let Self::Weight(weight) = self {
            write!(f, " {weight}")?;
        }
        Ok(())
    }
}

/// What a backend is at the moment.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum State {
    /// Runs and is not in the configuration.
    Absent,
    /// Takes new clients.
    Serving,
    /// Keeps the clients it has.
    Draining,
    /// Drained, its clients being asked to leave.
    Leaving,
    /// Drained to the last client.
    Empty,
    /// Not in the configuration, and keeps the clients it has.
    TakenOut,
    /// Was killed.
    Dead { drained: bool },
}

/// Chooses changes and knows what they come to.
#[derive(Debug)]
pub(super) struct Planner {
    states: Vec<State>,
    random: Random,
}

impl Planner {
    /// Begins with the first `serving` of `backends` in use.
    pub(super) fn new(backends: usize, serving: usize, seed: u64) -> Self {
        let state = |backend| {
            if backend < serving {
                State::Serving
            } else {
                State::Absent
            }
        };
        Self {
            states: (0..backends).map(state).collect(),
            random: Random(seed),
        }
    }

    /// What each backend is.
    pub(super) fn states(&self) -> &[State] {
        &self.states
    }

    /// Notes that the last client of a backend has left.
    pub(super) fn note_empty(&mut self, backend: usize) {
        self.states[backend] = State::Empty;
    }

    /// A share of 1.
    pub(super) fn share(&mut self) -> f64 {
        self.random.below(1 << 20) as f64 / f64::from(1 << 20)
    }

    /// Chooses the next change and takes it as made.
    pub(super) fn next(&mut self) -> (usize, Change) {
        loop {
            let kind = self.kind();
            let able: Vec<usize> = (0..self.states.len())
                .filter(|backend| self.is_possible(*backend, kind))
                .collect();
            if able.is_empty() {
                continue;
            }
            let backend = able[self.random.below(able.len() as u64) as usize];
            let change = if let Change::Weight(_) = kind {
                Change::Weight(1 + self.random.below(WEIGHT_MAX) as u16)
            } else {
                kind
            };
            self.states[backend] = self.after(backend, change);
            return (backend, change);
        }
    }

    fn kind(&mut self) -> Change {
        let sum = Change::KINDS.iter().map(|(_, often)| often).sum();
        let mut number = self.random.below(sum);
        for (kind, often) in Change::KINDS {
            if number < often {
                return kind;
            }
            number -= often;
        }
        Change::Weight(0)
    }

    fn is_possible(&self, backend: usize, change: Change) -> bool {
        let count = |is: fn(&State) -> bool| self.states.iter().filter(|state| is(state)).count();
        let may_lose_one = count(|state| *state == State::Serving) > SERVING_AT_LEAST;
        let may_kill = count(|state| matches!(state, State::Dead { .. })) < DEAD_AT_MOST;
        match (change, self.states[backend]) {
            (Change::Add, State::Absent | State::TakenOut)
            | (Change::Enable | Change::Evacuate, State::Draining)
            | (Change::Enable | Change::Remove, State::Empty)
            | (Change::Return, State::Dead { .. })
            | (Change::Weight(_), State::Serving | State::Draining) => true,
            (Change::Drain | Change::TakeOut, State::Serving) => may_lose_one,
            (Change::TakeOut, State::Draining) => true,
            (Change::Kill, State::Serving) => may_lose_one && may_kill,
            (Change::Kill, State::Draining) => may_kill,
            _ => false,
        }
    }

    fn after(&self, backend: usize, change: Change) -> State {
        let before = self.states[backend];
        match change {
            Change::Add | Change::Enable => State::Serving,
            Change::Drain => State::Draining,
            Change::Evacuate => State::Leaving,
            Change::Remove => State::Absent,
            Change::TakeOut => State::TakenOut,
            Change::Weight(_) => before,
            Change::Kill => State::Dead {
                drained: before != State::Serving,
            },
            Change::Return if before == (State::Dead { drained: true }) => State::Draining,
            Change::Return => State::Serving,
        }
    }
}

/// SplitMix64: enough to choose by, the same on every machine.
#[derive(Debug)]
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % bound.max(1)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    /// A thousand changes, the leaving ones being empty at once.
    fn history(seed: u64) -> Vec<(usize, Change)> {
        let mut planner = Planner::new(6, 4, seed);
        let mut history = Vec::new();
        for _ in 0..1000 {
            let (backend, change) = planner.next();
            if planner.states()[backend] == State::Leaving {
                planner.note_empty(backend);
            }
            let serving = |state: &&State| **state == State::Serving;
            assert!(planner.states().iter().filter(serving).count() >= SERVING_AT_LEAST);
            history.push((backend, change));
        }
        history
    }

    #[test]
    fn a_seed_says_it_all() {
        assert_eq!(history(7), history(7));
        assert_ne!(history(7), history(8));
    }

    #[test]
    fn every_kind_of_change_comes() {
        let kinds: BTreeSet<_> = history(1).iter().map(|(_, change)| change.name()).collect();
        assert_eq!(kinds.len(), Change::KINDS.len());
    }
}
