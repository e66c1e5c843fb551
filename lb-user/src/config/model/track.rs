//! What a virtual router depends on, as configured.

use std::net::IpAddr;
use std::num::NonZeroU8;
use std::time::Duration;

/// Something that is tried again and again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Track {
    pub(super) name: String,
    pub(super) target: TrackTarget,
    pub(super) interval: Duration,
    pub(super) timeout: Duration,
    pub(super) fall: u32,
    pub(super) rise: u32,
    pub(super) cost: Option<NonZeroU8>,
}

/// What is tried.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TrackTarget {
    /// Whether a host answers.
    Gateway(IpAddr),
    /// Whether a program ends with 0.
    Script(Vec<String>),
    /// Whether so many in a hundred of the router's backends are up.
    Backends(u8),
}

impl Track {
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    #[must_use]
    pub const fn target(&self) -> &TrackTarget {
        &self.target
    }

    /// From the beginning of one attempt to that of the next.
    #[must_use]
    pub const fn interval(&self) -> Duration {
        self.interval
    }

    #[must_use]
    pub const fn timeout(&self) -> Duration {
        self.timeout
    }

    /// Failures in a row that take it down.
    #[must_use]
    pub const fn fall(&self) -> u32 {
        self.fall
    }

    /// Successes in a row that bring it back.
    #[must_use]
    pub const fn rise(&self) -> u32 {
        self.rise
    }

    /// What the priority loses while it is down; without it the router gives its role up.
    #[must_use]
    pub const fn cost(&self) -> Option<NonZeroU8> {
        self.cost
    }
}

impl std::fmt::Display for TrackTarget {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Gateway(address) => write!(f, "gateway {address}"),
            Self::Script(command) => write!(f, "script {}", command.join(" ")),
            Self::Backends(percent) => write!(f, "{percent} % of its backends"),
        }
    }
}
