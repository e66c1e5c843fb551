//! What the threads have to tell, and the log of it: each line at a limited rate. Changes have a queue
//! of their own, as what anybody on the segment can cause with each packet would fill it.

use std::{
    collections::BTreeMap,
    net::IpAddr,
    time::{Duration, Instant},
};

use tokio::sync::mpsc;
use tracing::{info, warn};

use crate::core::vrrp::{node::Event, role::Role};

/// Notices of either kind that may wait to be logged; more are dropped. What matters is in status and
/// metrics too.
const DEPTH: usize = 256;

/// How often the same is said: a misconfigured peer says it with each advert.
const QUIET: Duration = Duration::from_secs(10);

/// Different lines that are remembered; strangers can make up any number of sources.
const MEMORY: usize = 256;

/// Something that is to be logged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::daemon) enum Notice {
    /// A thread runs, and why it does so like any other, if it does.
    Started {
        name: &'static str,
        refusal: Option<String>,
    },
    Router(Event),
    /// An address came or went.
    Vip {
        vip: IpAddr,
        interface: String,
        what: Moved,
    },
    /// Something that is tried again failed.
    Trouble {
        about: String,
        error: String,
    },
}

/// What became of an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::daemon) enum Moved {
    Assigned,
    /// Somebody else had put it there.
    Found,
    /// Somebody else had removed it.
    Restored,
    Removed,
    /// Somebody else has put it there, who has to remove it.
    Left,
}

impl Notice {
    /// Whether it comes back with each advert, or with each attempt.
    const fn is_noise(&self) -> bool {
        match self {
            Self::Trouble { .. }
            | Self::Router(Event::Refused { .. } | Event::Remarked { .. } | Event::Stray { .. }) => {
                true
            }
            Self::Started { .. }
            | Self::Vip { .. }
            | Self::Router(
                Event::Changed { .. }
                | Event::Faults { .. }
                | Event::Handicap { .. }
                | Event::Unfit { .. },
            ) => false,
        }
    }
}

/// The threads' end.
#[derive(Clone)]
pub(super) struct Notices {
    changes: mpsc::Sender<Notice>,
    noise: mpsc::Sender<Notice>,
}

/// The log's end.
pub(super) struct Told {
    changes: mpsc::Receiver<Notice>,
    noise: mpsc::Receiver<Notice>,
}

impl Notices {
    pub(super) fn new() -> (Self, Told) {
        let (change_sender, changes) = mpsc::channel(DEPTH);
        let (noise_sender, noise) = mpsc::channel(DEPTH);
        let notices = Self {
            changes: change_sender,
            noise: noise_sender,
        };
        (notices, Told { changes, noise })
    }

    /// Tells, or drops it if too much waits.
    pub(super) fn tell(&self, notice: Notice) {
        let queue = if notice.is_noise() {
            &self.noise
        } else {
            &self.changes
        };
        drop(queue.try_send(notice));
    }
}

impl Told {
    /// The next notice, changes first; `None` when nobody is left to tell anything.
    async fn next(&mut self) -> Option<Notice> {
        tokio::select! {
            biased;
            Some(change) = self.changes.recv() => Some(change),
            Some(noise) = self.noise.recv() => Some(noise),
            else => None,
        }
    }
}

/// Logs until all threads have ended.
pub(super) async fn log(mut told: Told) {
    // Made-up sources fill the one for adverts.
    let (mut troubles, mut adverts) = (Limiter::default(), Limiter::default());
    while let Some(notice) = told.next().await {
        match notice {
            Notice::Started { name, refusal } => match refusal {
                None => info!(thread = name, "thread runs before ordinary ones"),
                Some(refusal) => info!(
                    thread = name,
                    refusal, "thread runs as an ordinary one, which may delay adverts"
                ),
            },
            Notice::Vip {
                vip,
                interface,
                what,
            } => log_vip(vip, &interface, what),
            Notice::Trouble { about, error } => {
                if let Some(unsaid) = troubles.admit(&format!("{about} {error}"), Instant::now()) {
                    warn!(
                        interface = about,
                        error, unsaid, "VRRP is in trouble, will be tried again"
                    );
                }
            }
            Notice::Router(event) => log_event(&event, &mut adverts),
        }
    }
}

fn log_vip(vip: IpAddr, interface: &str, what: Moved) {
    match what {
        Moved::Assigned => info!(%vip, interface, "VIP assigned"),
        Moved::Found => info!(%vip, interface, "VIP was there before, will be left there"),
        Moved::Restored => warn!(%vip, interface, "VIP was removed by somebody, assigned again"),
        Moved::Removed => info!(%vip, interface, "VIP removed"),
        Moved::Left => warn!(
            %vip,
            interface,
            "VIP is a peer's, but somebody has put it on this interface: remove it"
        ),
    }
}

fn log_event(event: &Event, limiter: &mut Limiter) {
    match event {
        Event::Changed { router, change } => {
            let (from, to, cause) = (change.from, change.to, change.cause);
            if to == Role::Active {
                info!(router, %from, %to, %cause, "virtual router is Active");
            } else {
                info!(router, %from, %to, %cause, "virtual router changed its role");
            }
        }
        Event::Faults { router, faults } => {
            let faults: Vec<_> = faults.iter().map(|fault| fault.label()).collect();
            if faults.is_empty() {
                info!(router, "virtual router may be Active");
            } else {
                let faults = faults.join(" ");
                warn!(router, faults, "virtual router cannot be Active");
            }
        }
        Event::Handicap {
            router,
            handicap: Some(handicap),
            priority,
        } => {
            warn!(router, %priority, cause = %handicap, "virtual router has a lower priority, peers go first");
        }
        Event::Handicap {
            router,
            handicap: None,
            priority,
        } => info!(router, %priority, "virtual router has its own priority again"),
        Event::Unfit { router, unfit } => {
            warn!(router, error = %unfit, "virtual router cannot be set up on this interface");
        }
        Event::Refused {
            router,
            source,
            refusal,
        } => {
            let key = format!("{router} {source} {refusal}");
            if let Some(unsaid) = limiter.admit(&key, Instant::now()) {
                warn!(router, peer = %source, reason = %refusal, unsaid, "advert refused");
            }
        }
        Event::Remarked {
            router,
            source,
            remark,
        } => {
            let key = format!("{router} {source} {remark}");
            if let Some(unsaid) = limiter.admit(&key, Instant::now()) {
                warn!(router, peer = %source, remark = %remark, unsaid, "advert is odd");
            }
        }
        Event::Stray {
            interface,
            source,
            refusal,
        } => {
            let key = format!("{interface} {source} {refusal}");
            if let Some(unsaid) = limiter.admit(&key, Instant::now()) {
                info!(interface, peer = %source, reason = %refusal, unsaid, "advert is nobody's");
            }
        }
    }
}

/// Lets the same be said once in a while.
#[derive(Debug, Default)]
struct Limiter {
    said: BTreeMap<String, (Instant, u64)>,
}

impl Limiter {
    /// Whether it is to be said: how often it was not, since it was last.
    fn admit(&mut self, key: &str, now: Instant) -> Option<u64> {
        if let Some((at, unsaid)) = self.said.get_mut(key) {
            if now.duration_since(*at) < QUIET {
                *unsaid += 1;
                return None;
            }
            *at = now;
            return Some(std::mem::take(unsaid));
        }
        if self.said.len() >= MEMORY {
            self.said
                .retain(|_, (at, _)| now.duration_since(*at) < QUIET);
        }
        if self.said.len() >= MEMORY {
            return None;
        }
        self.said.insert(key.to_owned(), (now, 0));
        Some(0)
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::{DEPTH, Limiter, MEMORY, Notice, Notices, QUIET};
    use crate::core::vrrp::{
        node::Event,
        refusal::Refusal,
        role::{Cause, Change, Role},
    };

    #[test]
    fn the_same_is_said_once_in_a_while_and_told_how_often_it_came() {
        let (mut limiter, start) = (Limiter::default(), Instant::now());
        assert_eq!(limiter.admit("a", start), Some(0));
        for second in 1..10 {
            let now = start + Duration::from_secs(second);
            assert_eq!(limiter.admit("a", now), None);
        }
        assert_eq!(limiter.admit("b", start), Some(0));
        assert_eq!(limiter.admit("a", start + QUIET), Some(9));
        assert_eq!(limiter.admit("a", start + QUIET * 2), Some(0));
    }

    #[tokio::test]
    async fn a_flood_of_refused_adverts_keeps_no_change_of_role_from_the_log() {
        let (notices, mut told) = Notices::new();
        let refused = Notice::Router(Event::Refused {
            router: "front".to_owned(),
            source: [172, 16, 40, 99].into(),
            refusal: Refusal::Checksum,
        });
        let changed = Notice::Router(Event::Changed {
            router: "front".to_owned(),
            change: Change {
                from: Role::Active,
                to: Role::Backup,
                cause: Cause::HigherPriority,
            },
        });
        for _ in 0..DEPTH * 2 {
            notices.tell(refused.clone());
        }
        notices.tell(changed.clone());
        drop(notices);
        assert_eq!(told.next().await, Some(changed));
        for _ in 0..DEPTH {
            assert_eq!(told.next().await, Some(refused.clone()));
        }
        assert_eq!(told.next().await, None);
    }

    #[test]
    fn made_up_sources_take_no_memory_without_bound() {
        let (mut limiter, start) = (Limiter::default(), Instant::now());
        let said = (0..10_000).filter_map(|key| limiter.admit(&key.to_string(), start));
        assert_eq!(said.count(), MEMORY);
        assert_eq!(limiter.said.len(), MEMORY);
        assert_eq!(limiter.admit("new", start + QUIET), Some(0));
        assert_eq!(limiter.said.len(), 1);
    }
}
