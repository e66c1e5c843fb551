//! What is known of a router from outside.

use std::time::Instant;

use super::{Machine, State};
use crate::core::vrrp::advert::Priority;
use crate::core::vrrp::role::{Counters, Hold, Peer, Role};
use crate::core::vrrp::settings::{AcceptMode, Preemption, Settings};
use crate::core::vrrp::timers;

impl Machine {
    /// What the router does: the applier makes the addresses match.
    #[must_use]
    pub fn role(&self) -> Role {
        match self.state {
            State::Initialize { .. } => Role::Initialize,
            State::Backup(_) => Role::Backup,
            State::Active { .. } => Role::Active,
        }
    }

    /// Whether it is Active, and has announced that it will not be.
    #[must_use]
    pub fn is_leaving(&self) -> bool {
        match self.state {
            State::Active { leaving, .. } => leaving.is_some(),
            State::Initialize { .. } | State::Backup(_) => false,
        }
    }

    /// Whether this host takes packets to the addresses (RFC 9568, 6.4.2, 6.4.3). Who has handed over
    /// does for a moment more.
    #[must_use]
    pub fn accepts(&self) -> bool {
        let is_owner = self.settings.priority == Priority::OWNER;
        let is_wanted = is_owner || self.settings.accept_mode == AcceptMode::Accept;
        let has_them = self.role() == Role::Active || self.lingers_until.is_some();
        has_them && is_wanted
    }

    /// Until when no peer can have taken over because of silence, if this router is Active: so long
    /// do neighbours rightly hear that the addresses are here, whatever becomes of the process.
    #[must_use]
    pub fn lease(&self) -> Option<Instant> {
        let State::Active { advertise_at, .. } = self.state else {
            return None;
        };
        // Adver_Timer was set with the last advert.
        let (version, interval) = (self.settings.version, self.settings.interval);
        let down = timers::down(version, Priority::OWNER, interval);
        Some(advertise_at + down.saturating_sub(interval.duration()))
    }

    /// The peer that is Active, as far as is known; `None` when this router is.
    #[must_use]
    pub fn active(&self) -> Option<&Peer> {
        self.active.as_ref()
    }

    /// Whether it leaves an Active of lower priority alone for want of what that one knows. One whose
    /// priority has fallen wants to be replaced, and is.
    #[must_use]
    pub fn awaits_sync(&self) -> bool {
        let is_content = |peer: &Peer| peer.priority < self.priority && peer.priority >= self.peak;
        let preempts = match self.settings.preemption {
            Preemption::After(_) => true,
            Preemption::Never => self.priority == Priority::OWNER,
        };
        self.is_behind
            && preempts
            && self.role() == Role::Backup
            && self.active.as_ref().is_some_and(is_content)
    }

    /// The effective priority.
    #[must_use]
    pub fn priority(&self) -> Priority {
        self.priority
    }

    /// Why it must not be Active.
    pub fn holds(&self) -> impl Iterator<Item = Hold> {
        self.holds.iter().copied()
    }

    #[must_use]
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    #[must_use]
    pub fn counters(&self) -> &Counters {
        &self.counters
    }
}
