//! What is known of a router from outside.

use super::{Machine, State};
use crate::core::vrrp::advert::Priority;
use crate::core::vrrp::role::{Counters, Hold, Peer, Role};
use crate::core::vrrp::settings::{AcceptMode, Preemption, Settings};

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

    /// Whether this host takes packets to the addresses (RFC 9568, 6.4.2, 6.4.3).
    #[must_use]
    pub fn accepts(&self) -> bool {
        let is_owner = self.settings.priority == Priority::OWNER;
        let is_wanted = is_owner || self.settings.accept_mode == AcceptMode::Accept;
        self.role() == Role::Active && is_wanted
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
