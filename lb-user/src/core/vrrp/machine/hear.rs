//! What adverts change (RFC 9568, 6.4.2, 6.4.3; RFC 3768, 6.4.2, 6.4.3).

use std::time::{Duration, Instant};

use super::{Backup, Leaving, Machine, State, Wait};
use crate::core::vrrp::advert::{Advert, Envelope, Priority};
use crate::core::vrrp::refusal::{Refusal, Remark};
use crate::core::vrrp::role::{Cause, Peer};
use crate::core::vrrp::settings::Preemption;

impl Machine {
    /// Takes in an advert that [`decode`] has let through.
    ///
    /// # Errors
    /// Why it was refused; nothing has changed but a counter.
    ///
    /// [`decode`]: crate::core::vrrp::packet::decode
    pub fn handle_advert(
        &mut self,
        advert: &Advert,
        envelope: &Envelope,
        now: Instant,
    ) -> Result<Option<Remark>, Refusal> {
        let remark = match self.settings.admit(advert, envelope) {
            Ok(remark) => remark,
            Err(refusal) => {
                self.counters.refused.count(refusal);
                return Err(refusal);
            }
        };
        if let Some(remark) = remark {
            self.counters.remarks.count(remark);
        }
        self.counters.received += 1;
        let is_release = advert.priority == Priority::RELEASE;
        self.counters.releases_received += u64::from(is_release);
        let peer = Peer {
            address: envelope.source,
            priority: advert.priority,
            interval: advert.interval,
            heard_at: now,
        };
        match self.state {
            State::Initialize { .. } => {}
            State::Backup(backup) if is_release => {
                // RFC 9568, 6.4.2: Skew_Time by the interval that is known.
                self.active = None;
                self.state = State::Backup(Backup {
                    since: now,
                    wait: Wait::Skew,
                    not_before: None,
                    ..backup
                });
            }
            State::Backup(backup) => self.hear_as_backup(backup, peer),
            State::Active { leaving, .. } => {
                self.counters.contests += 1;
                match leaving {
                    Some(leaving) => self.hear_while_leaving(leaving, peer),
                    None => self.hear_as_active(peer),
                }
            }
        }
        Ok(remark)
    }

    /// RFC 9568, 6.4.2.
    fn hear_as_backup(&mut self, backup: Backup, peer: Peer) {
        let now = peer.heard_at;
        let is_known = self
            .active
            .is_some_and(|active| active.address == peer.address);
        let before = if is_known { self.peak } else { peer.priority };
        self.peak = before.max(peer.priority);
        self.active = Some(peer);
        if peer.priority >= self.priority {
            self.follow(peer, None);
        } else if let Some(delay) = self.preemption_delay() {
            let lower_since = backup.lower_since.unwrap_or(now);
            if now.duration_since(lower_since) < delay {
                self.follow(peer, Some(lower_since));
            } else {
                // The advert is discarded: the timer runs on.
                let lower_since = Some(lower_since);
                self.state = State::Backup(Backup {
                    lower_since,
                    ..backup
                });
            }
        } else {
            self.follow(peer, None);
        }
    }

    /// Sets Active_Adver_Interval and Active_Down_Timer.
    fn follow(&mut self, peer: Peer, lower_since: Option<Instant>) {
        self.state = State::Backup(Backup {
            since: peer.heard_at,
            wait: Wait::Down,
            interval: peer.interval,
            lower_since,
            not_before: None,
        });
    }

    /// For how long an Active of lower priority is left alone; `None` for ever.
    fn preemption_delay(&self) -> Option<Duration> {
        if !self.holds.is_empty() || self.awaits_sync() {
            return None;
        }
        match self.settings.preemption {
            Preemption::After(delay) => Some(delay),
            // RFC 9568, 6.1.
            Preemption::Never => (self.priority == Priority::OWNER).then_some(Duration::ZERO),
        }
    }

    /// RFC 9568, 6.4.3.
    fn hear_as_active(&mut self, peer: Peer) {
        let now = peer.heard_at;
        if peer.priority == Priority::RELEASE {
            self.assert_role();
            let advertise_at = now + self.settings.interval.duration();
            self.state = State::Active {
                advertise_at,
                leaving: None,
            };
            return self.handle_doubt(now);
        }
        let own = (self.priority, self.settings.source);
        // Addresses of one family compare as the RFC wants: as unsigned integers in network order.
        if (peer.priority, peer.address) > own {
            let cause = if peer.priority > self.priority {
                Cause::HigherPriority
            } else {
                Cause::HigherAddress
            };
            // One more advert, as if Adver_Timer had just fired, for the other to know.
            self.assert_role();
            self.yield_to(peer, cause);
        } else {
            // The other was Active: who learnt its MAC address has to learn ours.
            self.assert_role();
            self.handle_doubt(now);
        }
    }

    /// The successor speaks, so the addresses are in good hands.
    fn hear_while_leaving(&mut self, leaving: Leaving, peer: Peer) {
        if peer.priority != Priority::RELEASE {
            self.yield_to(peer, leaving.cause);
        }
    }

    /// Sends an advert without waiting for Adver_Timer.
    fn assert_role(&mut self) {
        self.pending = Some(self.priority);
    }
}
