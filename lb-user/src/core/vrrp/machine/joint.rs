//! What a sync group sees of a router, and does to it.

use std::time::Instant;

use super::{Machine, State, Wait};
use crate::core::vrrp::role::Cause;

/// An Active that a Backup follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::core::vrrp) struct Following {
    /// When it was heard last.
    pub(in crate::core::vrrp) since: Instant,
    /// Until when it counts as alive.
    pub(in crate::core::vrrp) until: Instant,
}

impl Machine {
    /// Whether it is Active, and means to stay it.
    pub(in crate::core::vrrp) fn is_standing(&self) -> bool {
        match self.state {
            State::Active { leaving, .. } => leaving.is_none(),
            State::Initialize { .. } | State::Backup(_) => false,
        }
    }

    /// The Active whose adverts it accepts, if it has not fallen silent.
    pub(in crate::core::vrrp) fn following(&self, now: Instant) -> Option<Following> {
        let State::Backup(backup) = &self.state else {
            return None;
        };
        // The timer was set by an advert.
        let has_heard = self
            .active
            .is_some_and(|peer| peer.heard_at == backup.since);
        let is_following = backup.wait == Wait::Down && has_heard;
        let until = self.down_at(backup).filter(|until| *until > now)?;
        let since = backup.since;
        is_following.then_some(Following { since, until })
    }

    /// Whether silence has lasted since before one more advert was heard elsewhere at `other`.
    pub(in crate::core::vrrp) fn is_behind(&self, other: Instant) -> bool {
        match &self.state {
            State::Backup(backup) => other > backup.since + backup.interval.duration(),
            State::Initialize { .. } | State::Active { .. } => false,
        }
    }

    /// Waits, though Active_Down_Timer has fired.
    pub(in crate::core::vrrp) fn defer(&mut self, until: Instant) {
        if let State::Backup(backup) = &mut self.state {
            backup.not_before = Some(until);
        }
    }

    /// Becomes Active with its group, unless it must not be.
    pub(in crate::core::vrrp) fn join_active(&mut self, now: Instant) {
        let is_backup = matches!(self.state, State::Backup(_));
        if is_backup && self.holds.is_empty() {
            self.become_active(Cause::Group, now);
        }
    }

    /// Hands its role over with its group.
    pub(in crate::core::vrrp) fn join_leaving(&mut self, now: Instant) {
        if self.is_standing() {
            self.hand_over(Cause::Group, now);
        }
    }
}
