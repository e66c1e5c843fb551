//! Whether a backend is up, judged by what its probes said.
//!
//! ```text
//!              1 success            `fall` failures in a row
//!   Unknown ---------------> Up --------------------------> Down
//!      |                      ^      that tell of it         |
//!      |                      |                              |
//!      |                      |   `rise` successes in a row  |
//!      |                      +------------------------------+
//!      |                   `fall` failures in a row          ^
//!      +-----------------------------------------------------+
//! ```
//! A backend that was never judged comes up at its first success, so that a start is as quick as one
//! probe; only a backend that has failed has to prove itself `rise` times. Time is not known here:
//! the prober decides when to ask, and says what came of it.
//!
//! A backend may answer that it takes no new clients, and serve those that it has: it is as good as
//! any for its sessions. That is a judgement of its own, which takes `fall` such answers in a row
//! while it is up, and `rise` other good ones to end.
//!
//! A refusal tells of the backend: its host has answered. Silence tells of the backend or of the way
//! to it, and the way may be at fault for all of them: a link of this host that is down for seconds
//! must not take anybody down whose sessions go on after it. So silence counts only as far as others
//! were heard from in between:
//!
//! ```text
//!   a backend that is dead          a link that is down
//!   silent   silent   silent        silent   silent   silent
//!   ---A--------A--------A---       ---A--------A--------A---------A-->
//!        B        B        B     B                             B
//!      answers                 answers                       answers
//!   counts: 1   2        3          counts: 1                      answers again
//! ```
//! A failure in silence counts if it is the first, or if a question that was asked after the last one
//! that counted had its answer before this one was asked. However long a link is down, that makes one
//! that counts, and a second one if it goes down between a question and its answer. So three take a
//! backend down, whatever `fall`, if it has failed so often. One that has, while nobody was heard from,
//! is held: it stays up, and gets its next chance when somebody is heard.

mod questions;
#[cfg(test)]
mod tests;

use std::fmt;

pub use self::questions::{Question, Questions};

/// How many silent failures with answers of others between them tell of a backend: a link that goes
/// down and comes back makes two at most.
const TELLING: u32 = 3;

/// What came of one probe.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ProbeOutcome {
    /// The backend answered as it should.
    Success,
    /// It answered that it is well and takes no new clients; `reason` tells an operator how.
    Drain { reason: String },
    /// Its host answered, but not as it should; `reason` tells an operator how.
    Refusal { reason: String },
    /// Nothing came from its host; `reason` tells an operator how that was noticed.
    Silence { reason: String, question: Question },
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
    against: Streak,
    is_held: bool,
    reason: Option<String>,
    wish: Wish,
}

/// Whether a backend takes no new clients, by its own word.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Wish {
    is_drain: bool,
    /// Nobody has heard it say so yet.
    is_assumed: bool,
    /// Good answers in a row that said otherwise.
    against: u32,
}

/// Probes in a row that spoke against the judgement.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Streak {
    length: u32,
    refusals: u32,
    /// Those in silence that count.
    telling: u32,
    /// The number of the last question that counted in silence.
    last: u64,
    /// Whether the latest one was in silence and did not count.
    is_alone: bool,
}

impl Health {
    /// A backend of which nothing is known.
    #[must_use]
    pub fn unknown() -> Self {
        Self::assumed(HealthState::Unknown)
    }

    /// A backend that counts as up because nobody asks.
    #[must_use]
    pub fn assumed_up() -> Self {
        Self::assumed(HealthState::Up)
    }

    /// A backend that is up, and has taken no new clients by its own word, until it says otherwise.
    #[must_use]
    pub fn assumed_draining() -> Self {
        let wish = Wish {
            is_drain: true,
            is_assumed: true,
            against: 0,
        };
        Self {
            wish,
            ..Self::assumed_up()
        }
    }

    /// A backend that is supposed to have failed.
    #[must_use]
    pub fn assumed_down() -> Self {
        Self::assumed(HealthState::Down)
    }

    fn assumed(state: HealthState) -> Self {
        Self {
            state,
            against: Streak::default(),
            is_held: false,
            reason: None,
            wish: Wish::default(),
        }
    }

    /// The judgement.
    #[must_use]
    pub const fn state(&self) -> HealthState {
        self.state
    }

    /// Whether it is up only because nobody is heard from who would show that the way to it works.
    #[must_use]
    pub const fn is_held(&self) -> bool {
        self.is_held
    }

    /// Whether it says that it takes no new clients.
    #[must_use]
    pub const fn wants_drain(&self) -> bool {
        self.wish.is_drain
    }

    /// Why the last probe was no success, if it was none.
    #[must_use]
    pub fn reason(&self) -> Option<&str> {
        self.reason.as_deref()
    }

    /// Takes in what came of a probe; tells of it if that changes the judgement.
    pub fn observe(&mut self, outcome: ProbeOutcome, thresholds: Thresholds) -> Option<Transition> {
        let Thresholds { fall, rise } = thresholds;
        let verdict = match outcome {
            ProbeOutcome::Success | ProbeOutcome::Drain { .. } => HealthState::Up,
            ProbeOutcome::Refusal { .. } | ProbeOutcome::Silence { .. } => HealthState::Down,
        };
        let streak = self.against.with(&outcome);
        let wish = outcome.wish();
        self.reason = match outcome {
            ProbeOutcome::Success => None,
            ProbeOutcome::Drain { reason }
            | ProbeOutcome::Refusal { reason }
            | ProbeOutcome::Silence { reason, .. } => Some(reason),
        };
        self.is_held = false;
        if verdict == self.state {
            self.wish = self.wish.with(wish, thresholds);
            self.against = Streak::default();
            return None;
        }
        let is_enough = match (self.state, verdict) {
            (HealthState::Unknown, HealthState::Up) => true,
            (HealthState::Up | HealthState::Down, HealthState::Up) => streak.length >= rise,
            (HealthState::Up, HealthState::Down | HealthState::Unknown) => streak.tells(fall),
            // It was never up, so nobody has a session there that could be lost.
            (
                HealthState::Unknown | HealthState::Down,
                HealthState::Down | HealthState::Unknown,
            ) => streak.length >= fall,
        };
        if !is_enough {
            self.against = streak;
            self.is_held = verdict == HealthState::Down
                && self.state == HealthState::Up
                && streak.length >= fall
                && streak.is_alone;
            return None;
        }
        self.against = Streak::default();
        // Who comes up has no sessions that a change of mind could cost.
        self.wish = Wish::heard(wish == Some(true));
        let from = std::mem::replace(&mut self.state, verdict);
        Some(Transition { from, to: verdict })
    }
}

impl ProbeOutcome {
    /// Whether the backend wants no new clients, as far as it has said anything.
    const fn wish(&self) -> Option<bool> {
        match self {
            Self::Success => Some(false),
            Self::Drain { .. } => Some(true),
            Self::Refusal { .. } | Self::Silence { .. } => None,
        }
    }
}

impl Wish {
    const fn heard(is_drain: bool) -> Self {
        Self {
            is_drain,
            is_assumed: false,
            against: 0,
        }
    }

    /// What it is after one answer more.
    fn with(self, wish: Option<bool>, thresholds: Thresholds) -> Self {
        let Some(is_drain) = wish.filter(|wish| *wish != self.is_drain || self.is_assumed) else {
            return Self { against: 0, ..self };
        };
        if self.is_assumed {
            return Self::heard(is_drain);
        }
        let against = self.against.saturating_add(1);
        let enough = if is_drain {
            thresholds.fall
        } else {
            thresholds.rise
        };
        if against >= enough {
            Self::heard(is_drain)
        } else {
            Self { against, ..self }
        }
    }
}

impl Streak {
    /// The streak that it is with one probe more.
    fn with(self, outcome: &ProbeOutcome) -> Self {
        let length = self.length.saturating_add(1);
        let grown = Self {
            length,
            is_alone: false,
            ..self
        };
        match outcome {
            ProbeOutcome::Success | ProbeOutcome::Drain { .. } => grown,
            ProbeOutcome::Refusal { .. } => Self {
                refusals: self.refusals.saturating_add(1),
                ..grown
            },
            ProbeOutcome::Silence { question, .. }
                if self.telling == 0 || question.answered > self.last =>
            {
                Self {
                    telling: self.telling.saturating_add(1),
                    last: question.number,
                    ..grown
                }
            }
            ProbeOutcome::Silence { .. } => Self {
                is_alone: true,
                ..grown
            },
        }
    }

    /// Whether so many failures are the backend's own.
    fn tells(self, fall: u32) -> bool {
        let telling = self.refusals.saturating_add(self.telling);
        self.refusals >= fall || (self.length >= fall && telling >= TELLING)
    }
}
