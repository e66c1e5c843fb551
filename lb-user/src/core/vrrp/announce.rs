//! When the addresses are announced: a block of rounds, and another when in doubt.
//!
//! Others may have learnt another node's MAC address whenever a peer was Active. The first sign of
//! that begins a block at once. As long as the signs go on, which a peer that hears nothing may
//! keep up for ever, rounds follow at the block's pace.

use std::time::{Duration, Instant};

use super::settings::Announcements;

/// Whether the addresses are where they are announced to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Presence {
    Present,
    Absent,
}

/// Decides when the next round is due.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Announcer {
    due: Option<Instant>,
    left: u8,
    last: Option<Instant>,
    doubted_at: Option<Instant>,
    is_present: bool,
}

impl Announcer {
    /// Begins a block.
    pub(super) fn start(&mut self, settings: &Announcements, now: Instant) {
        self.left = settings.repeats.get();
        self.due = Some(now);
    }

    /// Begins a block, unless the last doubt is younger than `memory`: then it only goes on.
    pub(super) fn doubt(&mut self, settings: &Announcements, memory: Duration, now: Instant) {
        let last_doubt = self.doubted_at.replace(now);
        if last_doubt.is_none_or(|at| now.duration_since(at) > memory) {
            return self.start(settings, now);
        }
        self.left = settings.repeats.get();
        let next = self.last.map_or(now, |last| last + settings.interval);
        self.due = Some(self.due.map_or(next, |due| due.min(next)));
    }

    /// Ends everything: the addresses are not ours.
    pub(super) fn stop(&mut self) {
        *self = Self {
            is_present: self.is_present,
            ..Self::default()
        };
    }

    /// Takes in whether the addresses are in place; whether they have just come.
    ///
    /// RFC 9568, 8.1.2, 8.2.2: announcements wait until the addresses are configured.
    pub(super) fn place(&mut self, presence: Presence) -> bool {
        let is_present = presence == Presence::Present;
        let was_present = std::mem::replace(&mut self.is_present, is_present);
        is_present && !was_present
    }

    /// When the next round is due.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.due.filter(|_| self.is_present)
    }

    /// Whether a round is due; it counts as done.
    pub(super) fn poll(&mut self, settings: &Announcements, now: Instant) -> bool {
        if self.deadline().is_none_or(|due| due > now) {
            return false;
        }
        self.last = Some(now);
        self.left = self.left.saturating_sub(1);
        self.due = if self.left > 0 {
            Some(now + settings.interval)
        } else {
            settings.refresh.map(|refresh| now + refresh)
        };
        true
    }
}
