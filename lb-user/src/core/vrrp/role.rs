//! Roles, why they change, and what is known of the Active.

use std::net::IpAddr;
use std::time::Instant;

use super::advert::{Interval, Priority};
use super::label::labelled;
use super::refusal::{Refusals, Remarks};

labelled! {
    /// What a router does (RFC 9568, 6.3).
    Role {
        /// Nothing: not started, or shut down.
        Initialize = "initialize",
        /// Waits for the Active to fail.
        Backup = "backup",
        /// Has the addresses.
        Active = "active",
    }
}

labelled! {
    /// Why a role changed.
    Cause {
        /// The router was started.
        Startup = "startup",
        /// The router was started, and owns the addresses.
        Owner = "owner",
        /// The process before this one was Active, and nobody has taken over.
        Adopted = "adopted",
        /// The Active was not heard for Active_Down_Interval.
        Silence = "silence",
        /// The Active gave its role up.
        PeerReleased = "peer_released",
        /// The Active has a lower priority.
        Preemption = "preemption",
        /// Another Active has a higher priority.
        HigherPriority = "higher_priority",
        /// Another Active has the same priority and a higher address.
        HigherAddress = "higher_address",
        /// An operator asked for it.
        Operator = "operator",
        /// This node cannot forward.
        Fault = "fault",
        /// Another router of the sync group changed.
        Group = "group",
        /// The router was shut down.
        Shutdown = "shutdown",
    }
}

labelled! {
    /// Why a router must not be Active. It may be for several reasons at once.
    Hold {
        /// An operator asked for it: maintenance, or a planned switch.
        Operator = "operator",
        /// This node cannot forward.
        Fault = "fault",
        /// Another router of the sync group is held.
        Group = "group",
    }
}

impl Hold {
    /// The cause of a change for this reason.
    #[must_use]
    pub const fn cause(self) -> Cause {
        match self {
            Self::Operator => Cause::Operator,
            Self::Fault => Cause::Fault,
            Self::Group => Cause::Group,
        }
    }
}

/// A change of role.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Change {
    pub from: Role,
    pub to: Role,
    pub cause: Cause,
}

/// What was heard of a peer that is Active.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Peer {
    pub address: IpAddr,
    pub priority: Priority,
    /// Active_Adver_Interval.
    pub interval: Interval,
    /// When it was heard last.
    pub heard_at: Instant,
}

/// What happened so far.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Adverts sent, releases among them; one with several destinations counts once.
    pub sent: u64,
    pub releases_sent: u64,
    /// Adverts that were not refused, releases among them.
    pub received: u64,
    pub releases_received: u64,
    /// Adverts of others while this router was Active.
    pub contests: u64,
    /// How often this router became Active.
    pub takeovers: u64,
    /// Rounds of announcements.
    pub announcements: u64,
    pub refused: Refusals,
    pub remarks: Remarks,
}
