//! What the threads have to tell, and how the journal gets it: the same at a limited rate. Changes
//! have a queue of their own, as what anybody on the segment can cause with each packet would fill it.

use std::{
    collections::BTreeMap,
    net::IpAddr,
    time::{Duration, Instant},
};

use tokio::sync::mpsc;
use tracing::info;

use crate::{
    core::{
        event::{self as journal, Moved},
        vrrp::node::Event,
    },
    journal::Journal,
};

/// Notices of either kind that may wait to be told; more are dropped. What matters is in status and
/// metrics too.
const DEPTH: usize = 256;

/// How often the same is said: a misconfigured peer says it with each advert.
const QUIET: Duration = Duration::from_secs(10);

/// Different lines that are remembered; strangers can make up any number of sources.
const MEMORY: usize = 256;

/// Something that is to be told.
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

/// The journal's end.
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

/// Tells the journal until all threads have ended.
pub(super) async fn tell(mut told: Told, journal: Journal) {
    // Made-up sources fill the one for adverts.
    let (mut troubles, mut adverts) = (Limiter::default(), Limiter::default());
    while let Some(notice) = told.next().await {
        let event = match notice {
            Notice::Started { name, refusal } => {
                match refusal {
                    None => info!(thread = name, "thread runs before ordinary ones"),
                    Some(refusal) => info!(
                        thread = name,
                        refusal, "thread runs as an ordinary one, which may delay adverts"
                    ),
                }
                continue;
            }
            Notice::Vip {
                vip,
                interface,
                what,
            } => Some(journal::Event::VipMoved {
                vip,
                interface,
                what,
            }),
            Notice::Trouble { about, error } => {
                let unsaid = troubles.admit(&format!("{about} {error}"), Instant::now());
                unsaid.map(|unsaid| journal::Event::VrrpTrouble {
                    interface: about,
                    error,
                    unsaid,
                })
            }
            Notice::Router(event) => of_router(event, &mut adverts),
        };
        event.into_iter().for_each(|event| journal.tell(event));
    }
}

/// What is to be told of what happened to a router, if anything.
fn of_router(event: Event, limiter: &mut Limiter) -> Option<journal::Event> {
    Some(match event {
        Event::Changed {
            router,
            change,
            priority,
        } => journal::Event::RoleChanged {
            router,
            from: change.from,
            to: change.to,
            cause: change.cause,
            priority: priority.0,
        },
        Event::Faults { router, faults } => journal::Event::RouterFaults {
            router,
            faults: faults.into_iter().collect(),
        },
        Event::Handicap {
            router,
            handicaps,
            priority,
        } => journal::Event::RouterPriority {
            router,
            priority: priority.0,
            lowered_by: handicaps.into_iter().collect(),
        },
        Event::Unfit { router, unfit } => journal::Event::RouterUnfit {
            router,
            error: unfit.to_string(),
        },
        Event::Refused {
            router,
            source,
            refusal,
        } => journal::Event::AdvertRefused {
            unsaid: limiter.admit(&format!("{router} {source} {refusal}"), Instant::now())?,
            router,
            peer: source,
            reason: refusal,
        },
        Event::Remarked {
            router,
            source,
            remark,
        } => journal::Event::AdvertOdd {
            unsaid: limiter.admit(&format!("{router} {source} {remark}"), Instant::now())?,
            router,
            peer: source,
            remark,
        },
        Event::Stray {
            interface,
            source,
            refusal,
        } => journal::Event::AdvertStray {
            unsaid: limiter.admit(&format!("{interface} {source} {refusal}"), Instant::now())?,
            interface,
            peer: source,
            reason: refusal,
        },
    })
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
        advert::Priority,
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
    async fn a_flood_of_refused_adverts_keeps_no_change_of_role_from_the_journal() {
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
            priority: Priority(100),
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
