//! How roles are taken and left.

use std::time::{Duration, Instant};

use super::{Backup, LINGER, Leaving, Machine, State, Wait};
use crate::core::vrrp::advert::{Interval, Priority};
use crate::core::vrrp::role::{Cause, Change, Peer};
use crate::core::vrrp::settings::Settings;
use crate::core::vrrp::timers;

impl Machine {
    /// RFC 9568, 6.4.1.
    pub(super) fn start(&mut self, now: Instant) {
        let is_free = self.holds.is_empty() && !self.is_behind;
        if self.settings.priority == Priority::OWNER && is_free {
            self.become_active(Cause::Owner, now);
        } else {
            self.become_backup(Cause::Startup, None, now);
        }
    }

    /// RFC 9568, 6.4.2: Active_Down_Timer fires.
    pub(super) fn handle_down(&mut self, now: Instant) {
        let State::Backup(backup) = &mut self.state else {
            return;
        };
        if !self.holds.is_empty() {
            backup.wait = Wait::Over;
            self.active = None;
            return;
        }
        // Adverts that were discarded have not set the timer.
        let has_preempted = self.active.is_some_and(|peer| peer.heard_at > backup.since);
        let cause = match backup.wait {
            Wait::Skew => Cause::PeerReleased,
            Wait::Down | Wait::Over if has_preempted => Cause::Preemption,
            Wait::Down | Wait::Over => Cause::Silence,
        };
        self.become_active(cause, now);
    }

    /// RFC 9568, 6.4.3: Adver_Timer fires.
    pub(super) fn advertise_if_due(&mut self, now: Instant) {
        let Settings {
            version, interval, ..
        } = self.settings;
        // The earliest that a peer can have taken over.
        let down = timers::down(version, Priority::OWNER, interval);
        let interval = interval.duration();
        let State::Active {
            advertise_at,
            leaving,
        } = &mut self.state
        else {
            return;
        };
        if *advertise_at > now {
            return;
        }
        let late = now.duration_since(*advertise_at);
        // By its own clock, so that being woken late does not add up.
        *advertise_at = if late < interval {
            *advertise_at + interval
        } else {
            now + interval
        };
        self.pending = Some(leaving.map_or(self.priority, |_| Priority::RELEASE));
        if late + interval >= down {
            self.handle_doubt(now);
        }
    }

    /// RFC 9568, 6.4.1, 6.4.2: an advert, announcements, Adver_Timer.
    pub(super) fn become_active(&mut self, cause: Cause, now: Instant) {
        (self.active, self.lingers_until) = (None, None);
        self.pending = Some(self.priority);
        self.announcer.start(&self.settings.announcements, now);
        self.counters.takeovers += 1;
        let state = State::Active {
            advertise_at: now + self.settings.interval.duration(),
            leaving: None,
        };
        self.change_to(state, cause);
    }

    /// RFC 9568, 6.4.1, 6.4.3: Active_Down_Timer by the interval of the new Active, if it is known.
    pub(super) fn become_backup(&mut self, cause: Cause, active: Option<Peer>, now: Instant) {
        self.active = active;
        let backup = Backup {
            since: now,
            wait: Wait::Down,
            interval: active.map_or(self.settings.interval, |active| active.interval),
            lower_since: None,
            not_before: None,
        };
        self.change_to(State::Backup(backup), cause);
    }

    /// The end of being Active.
    pub(super) fn leave(&mut self, cause: Cause, successor: Option<Peer>, now: Instant) {
        self.announcer.stop();
        self.become_backup(cause, successor, now);
    }

    /// The end, for one that is Active: it may not have the addresses yet.
    pub(super) fn yield_to(&mut self, peer: Peer, cause: Cause) {
        let now = peer.heard_at;
        self.leave(cause, Some(peer), now);
        self.lingers_until = Some(now + LINGER);
    }

    /// The beginning of the end: the successor is asked to come.
    pub(super) fn hand_over(&mut self, cause: Cause, now: Instant) {
        self.pending = Some(Priority::RELEASE);
        self.state = State::Active {
            advertise_at: now + self.settings.interval.duration(),
            leaving: Some(Leaving {
                until: now + self.own_down(),
                cause,
            }),
        };
    }

    /// Takes on a state, and notes the change of role if it is one.
    pub(super) fn change_to(&mut self, state: State, cause: Cause) {
        let from = self.role();
        self.state = state;
        let to = self.role();
        if from != to {
            let from = self.change.map_or(from, |earlier| earlier.from);
            self.change = Some(Change { from, to, cause });
        }
    }

    /// How long peers of the lowest priority wait for this router.
    pub(super) fn own_down(&self) -> Duration {
        timers::down(self.settings.version, Priority(1), self.settings.interval)
    }

    /// When Active_Down_Timer fires.
    pub(super) fn down_at(&self, backup: &Backup) -> Option<Instant> {
        let of = |timer: fn(_, _, Interval) -> Duration| {
            timer(self.settings.version, self.priority, backup.interval)
        };
        let wait = match backup.wait {
            Wait::Down => of(timers::down),
            Wait::Skew => of(timers::skew),
            Wait::Over => return None,
        };
        let at = backup.since + wait;
        Some(
            backup
                .not_before
                .map_or(at, |not_before| at.max(not_before)),
        )
    }

    /// Whether Active_Down_Timer has fired.
    pub(in crate::core::vrrp) fn is_down_due(&self, now: Instant) -> bool {
        match &self.state {
            State::Backup(backup) => self.down_at(backup).is_some_and(|at| at <= now),
            State::Initialize { .. } | State::Active { .. } => false,
        }
    }
}
