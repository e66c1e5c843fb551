//! Who is Active: the state machine of one virtual router (RFC 9568, 6.3, 6.4; RFC 3768, 6.4).
//!
//! ```text
//!                        +----------------------+
//!         +------------->|      Initialize      |<-------------+
//!         |    shutdown  +----------------------+ shutdown     |
//!         |                |                  |                |
//!         |        startup |                  | startup of an  |
//!         |                v                  v owner, adopt   |
//!  +------------+    Active_Down_Timer      +------------------+
//!  |            |-------------------------->|                  |
//!  |   Backup   |                           |      Active      |
//!  |            |<--------------------------|                  |
//!  +------------+  higher priority heard,   +------------------+
//!                  fault, role handed over
//! ```
//! What the RFCs leave open, and is decided here:
//!
//! - **A planned release is make-before-break.** A router that is released for an operator or for
//!   its group sends priority 0 and stays Active until it hears its successor, or until one would
//!   have been there. Only a fault ends the role at once: who cannot forward must not have the
//!   addresses.
//! - **Who hands over keeps the addresses for a moment** (`LINGER`): a successor is heard before it
//!   has placed and announced them. Meanwhile both have them, and one is Active.
//! - **Who yields says so.** An Active that hears a higher one sends one more advert of its own.
//!   Else the other would not know that there were two, nor announce the addresses again.
//! - **An Active that was late** by Active_Down_Interval (a stopped process, a stalled host) cannot
//!   know whether a peer was Active meanwhile, and announces the addresses again.
//! - **Effective priority.** Tracking changes it within 1 to 254; an owner has 255 (5.2.4).

mod hear;
mod joint;
mod transition;
mod view;

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use super::advert::{Addresses, Advert, Interval, Priority};
use super::announce::{Announcer, Presence};
use super::role::{Cause, Change, Counters, Hold, Peer, Role};
use super::settings::{Settings, Unfit};

/// How long who has handed over keeps the addresses: for the successor to place and to announce them, on
/// a busy machine, and no longer than any of its neighbours would notice.
const LINGER: Duration = Duration::from_millis(200);

/// One virtual router.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Machine {
    settings: Settings,
    state: State,
    /// The effective priority.
    priority: Priority,
    holds: BTreeSet<Hold>,
    is_behind: bool,
    /// The peer that is Active, as far as is known.
    active: Option<Peer>,
    /// The highest priority that it has had.
    peak: Priority,
    /// The priority of the advert that is to be sent. A later one makes an earlier one untrue.
    pending: Option<Priority>,
    announcer: Announcer,
    /// Until when the addresses stay, though a successor is Active.
    lingers_until: Option<Instant>,
    change: Option<Change>,
    counters: Counters,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Initialize {
        start_at: Option<Instant>,
    },
    Backup(Backup),
    Active {
        /// Adver_Timer.
        advertise_at: Instant,
        leaving: Option<Leaving>,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Backup {
    /// When the timer was set.
    since: Instant,
    wait: Wait,
    /// Active_Adver_Interval.
    interval: Interval,
    /// Since when the Active has had a lower priority.
    lower_since: Option<Instant>,
    /// The group waits for another of its routers.
    not_before: Option<Instant>,
}

/// What Active_Down_Timer is set to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wait {
    /// Active_Down_Interval.
    Down,
    /// Skew_Time, after a release.
    Skew,
    /// Nothing: it has fired, and the router is held.
    Over,
}

/// An Active that is on its way out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Leaving {
    /// By then a successor would have been heard.
    until: Instant,
    cause: Cause,
}

/// Start, and what the daemon says.
impl Machine {
    /// A router that has not been started.
    ///
    /// # Errors
    /// A rule that the settings break.
    pub fn new(settings: Settings) -> Result<Self, Unfit> {
        settings.check()?;
        Ok(Self {
            priority: settings.priority,
            settings,
            state: State::Initialize { start_at: None },
            holds: BTreeSet::new(),
            is_behind: false,
            active: None,
            peak: Priority::RELEASE,
            pending: None,
            announcer: Announcer::default(),
            lingers_until: None,
            change: None,
            counters: Counters::default(),
        })
    }

    /// Starts, when the start-up delay is over.
    pub fn handle_startup(&mut self, now: Instant) {
        if self.role() == Role::Initialize {
            let start_at = Some(now + self.settings.startup_delay);
            self.state = State::Initialize { start_at };
            self.handle_timeout(now);
        }
    }

    /// Starts as the Active that the process before this one was: for who knows that it sent
    /// adverts until less than Active_Down_Interval ago.
    pub fn adopt(&mut self, now: Instant) {
        if self.role() == Role::Initialize && self.holds.is_empty() {
            self.become_active(Cause::Adopted, now);
        }
    }

    /// Gives the role up at once, and stops (RFC 9568, 6.4.2, 6.4.3).
    pub fn handle_shutdown(&mut self) {
        if self.role() == Role::Active {
            self.pending = Some(Priority::RELEASE);
        }
        self.announcer.stop();
        (self.active, self.lingers_until) = (None, None);
        self.change_to(State::Initialize { start_at: None }, Cause::Shutdown);
    }

    /// Sets the effective priority, as tracking finds it. An owner's stays. The next advert tells it.
    pub fn set_priority(&mut self, priority: Priority) {
        if self.settings.priority != Priority::OWNER {
            // RFC 9568, 5.2.4.
            self.priority = Priority(priority.0.clamp(1, Priority::OWNER.0 - 1));
        }
    }

    /// Takes in whether the node lacks what a living Active may know of sessions: it takes no role from
    /// one then, beyond Preempt_Mode. From a dead one it does all the same.
    pub const fn set_behind(&mut self, is_behind: bool) {
        self.is_behind = is_behind;
    }

    /// The router must not be Active, until [`Self::resume`] for the same reason.
    pub fn release(&mut self, hold: Hold, now: Instant) {
        let is_first = self.holds.is_empty();
        self.holds.insert(hold);
        if hold == Hold::Fault {
            self.lingers_until = None;
        }
        if self.role() != Role::Active {
            return;
        }
        if hold == Hold::Fault {
            self.leave(hold.cause(), None, now);
            self.pending = Some(Priority::RELEASE);
        } else if is_first {
            self.hand_over(hold.cause(), now);
        }
    }

    /// The reason is gone.
    pub fn resume(&mut self, hold: Hold, now: Instant) {
        if !self.holds.remove(&hold) || !self.holds.is_empty() {
            return;
        }
        match &mut self.state {
            State::Active {
                advertise_at,
                leaving,
            } => {
                *leaving = None;
                *advertise_at = now + self.settings.interval.duration();
                self.pending = Some(self.priority);
            }
            State::Backup(backup) if backup.wait == Wait::Over => {
                (backup.since, backup.wait) = (now, Wait::Down);
            }
            State::Backup(_) | State::Initialize { .. } => {}
        }
    }

    /// Takes in whether the addresses are in place, as the applier has it.
    pub fn handle_presence(&mut self, presence: Presence, now: Instant) {
        if self.announcer.place(presence) && self.role() == Role::Active {
            self.announcer.start(&self.settings.announcements, now);
        }
    }

    /// A peer may have been Active, and others may have learnt its MAC address.
    fn handle_doubt(&mut self, now: Instant) {
        if self.role() == Role::Active {
            let memory = self.own_down();
            self.announcer
                .doubt(&self.settings.announcements, memory, now);
        }
    }

    /// Takes in that it is `now`. Adverts that have arrived by then go first.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.lingers_until = self.lingers_until.filter(|until| *until > now);
        match self.state {
            State::Initialize { start_at } => {
                if start_at.is_some_and(|at| at <= now) {
                    self.start(now);
                }
            }
            State::Backup(_) => {
                if self.is_down_due(now) {
                    self.handle_down(now);
                }
            }
            State::Active { leaving, .. } => match leaving {
                Some(leaving) if leaving.until <= now => self.leave(leaving.cause, None, now),
                Some(_) | None => self.advertise_if_due(now),
            },
        }
    }
}

/// What there is to do and to know.
impl Machine {
    /// The next advert to send, to all of [`Settings::envelopes`].
    pub fn poll_advert(&mut self) -> Option<Advert> {
        let priority = self.pending.take()?;
        self.counters.sent += 1;
        self.counters.releases_sent += u64::from(priority == Priority::RELEASE);
        Some(self.settings.advert(priority))
    }

    /// The addresses, if it is time to announce them.
    pub fn poll_announce(&mut self, now: Instant) -> Option<Addresses> {
        let is_due = self.announcer.poll(&self.settings.announcements, now);
        self.counters.announcements += u64::from(is_due);
        is_due.then(|| self.settings.addresses.clone())
    }

    /// The change of role since the last call; of several, the first `from` and the last `to`.
    pub fn poll_change(&mut self) -> Option<Change> {
        self.change.take()
    }

    /// When [`Self::handle_timeout`] and the polls have something to do at the latest.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Instant> {
        let timer = match self.state {
            State::Initialize { start_at } => start_at,
            State::Backup(ref backup) => self.down_at(backup),
            State::Active {
                advertise_at,
                leaving,
            } => Some(leaving.map_or(advertise_at, |leaving| leaving.until.min(advertise_at))),
        };
        let others = [self.announcer.deadline(), self.lingers_until];
        timer.into_iter().chain(others.into_iter().flatten()).min()
    }
}

#[cfg(test)]
pub(super) mod tests;
