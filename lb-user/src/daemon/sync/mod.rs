//! Keeps the other node of a pair up to date, and is kept by it: what [`crate::core::sync`] decides,
//! with sockets, clocks and maps.
//!
//! ```text
//!   sweep ---Walk---> outgoing ==TCP, Noise==> peer's incoming --records--> flow tables
//!   program -events->    (this node is Active)    |  (it stands by)
//!                                                 +--Told: slots, keep-alives--> event loop
//! ```
//! Each is a task. Which VIPs it is about is a level, [`Duty`], that the event loop sets by the roles
//! of the virtual routers; VIPs of no router are not synced, as both nodes may have them. Neither
//! task ever ends the daemon: without a peer the service goes on, and says so.

mod events;
mod incoming;
mod outgoing;
mod records;

use std::{
    collections::BTreeSet,
    net::IpAddr,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use channel::{ChannelError, KeyError, Purpose};
use lb_common::flow::HashKeys;
use tokio::{
    sync::{mpsc, watch},
    time::Instant,
};

use super::{
    engine::Told,
    prober::random,
    vrrp::{Roles, Routers},
};
use crate::{
    config::model::Sync,
    control::{ReceivingStatus, SendingStatus, SyncStatus},
    core::{
        event::{Direction, Event},
        flows::Sight,
        sync::{Hello, VERSION, names::fingerprint, source::Walk},
    },
    io::datapath::{FlowEvents, Recorder},
    journal::Journal,
};

/// What the event loop is told and has not taken in: the peer waits.
const TOLD: usize = 16;

/// What the channel's key is for.
const PURPOSE: Purpose = Purpose {
    prologue: "tidegate sync",
    command: "tidegate sync key",
};

/// How soon a connection is tried again.
const RETRY: Duration = Duration::from_secs(1);

/// How often something is said when there is nothing to say.
const BEAT: Duration = Duration::from_secs(1);

/// After what silence a peer is gone: several beats.
const SILENCE: Duration = Duration::from_secs(5);

/// Which VIPs the peer is told of, and which it tells of.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Duty {
    pub(super) active: BTreeSet<IpAddr>,
    pub(super) standby: BTreeSet<IpAddr>,
}

/// The event loop's end.
pub(super) struct Syncer {
    config: Sync,
    duty: watch::Sender<Duty>,
    sending: watch::Receiver<Progress<SendingStatus>>,
    receiving: watch::Receiver<Progress<ReceivingStatus>>,
}

/// What the sweep gives to the peer.
pub(super) struct Tap {
    duty: watch::Receiver<Duty>,
    /// One may wait: the next round does not begin before it is taken.
    walks: mpsc::Sender<Begun>,
}

/// A walk, and when it began.
type Begun = (Instant, Walk);

/// What to run, and what comes of it.
pub(super) struct Parts {
    pub(super) syncer: Syncer,
    pub(super) tap: Tap,
    pub(super) told: mpsc::Receiver<Told>,
    pub(super) outgoing: outgoing::Outgoing,
    pub(super) incoming: incoming::Incoming,
}

/// A status, and since when the ends are in sync.
#[derive(Clone, Debug, Default)]
struct Progress<S> {
    status: S,
    since: Option<Instant>,
}

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
enum SyncError {
    #[error(transparent)]
    Key(#[from] KeyError),
    #[error("cannot listen on {0}: {1}")]
    Listen(std::net::SocketAddr, #[source] std::io::Error),
    #[error("the peer cannot be called: {0}")]
    Call(#[source] std::io::Error),
    #[error("the peer does not answer")]
    NoAnswer,
    #[error(transparent)]
    Channel(#[from] ChannelError),
    #[error("refused: {0}")]
    Refused(crate::core::sync::Refusal),
    #[error(transparent)]
    Malformed(#[from] crate::core::sync::message::Malformed),
    #[error(transparent)]
    Violation(#[from] crate::core::sync::Violation),
    #[error("the peer has been silent for {} s", SILENCE.as_secs())]
    Silent,
    #[error("the flow tables cannot be written: {0}")]
    Datapath(#[from] crate::io::datapath::DatapathError),
    #[error("the daemon is stopping")]
    Stopping,
}

impl SyncError {
    /// The name in counters.
    const fn label(&self) -> &'static str {
        match self {
            Self::Key(_) => "no_key",
            Self::Listen(..) | Self::Call(_) => "socket",
            Self::NoAnswer | Self::Silent => "silent",
            Self::Channel(error) => match error {
                ChannelError::OtherKey | ChannelError::Refused => "key",
                ChannelError::Slow | ChannelError::Stuck => "slow",
                ChannelError::Closed | ChannelError::Io(_) => "closed",
                ChannelError::Forged | ChannelError::TooLong { .. } | ChannelError::Noise(_) => {
                    "forged"
                }
            },
            Self::Refused(_) => "refused",
            Self::Malformed(_) | Self::Violation(_) => "protocol",
            Self::Datapath(_) => "maps",
            Self::Stopping => "stopping",
        }
    }
}

/// What the tasks work with.
pub(super) struct Handles {
    pub(super) recorder: Recorder,
    pub(super) events: FlowEvents,
    pub(super) roles: Roles,
    pub(super) sights: watch::Receiver<Sight>,
}

/// Makes the parts of a node's end.
///
/// # Errors
/// If the program's reports cannot be waited for.
pub(super) fn parts(
    config: &Sync,
    handles: Handles,
    keys: &HashKeys,
    most: usize,
    journal: &Journal,
) -> std::io::Result<Parts> {
    let Handles {
        recorder,
        events,
        roles,
        sights,
    } = handles;
    let (duty_sender, duty) = watch::channel(Duty::default());
    let (walk_sender, walks) = mpsc::channel(1);
    let (told_sender, told) = mpsc::channel(TOLD);
    let (sending_sender, sending) = watch::channel(Progress::default());
    let (receiving_sender, receiving) = watch::channel(Progress::default());
    let hello = Hello {
        version: VERSION,
        seed: fingerprint(keys),
        node: random(),
    };
    let started = Instant::now();
    let inputs = outgoing::Inputs {
        walks,
        events: events::Events::new(events, sights.clone(), started)?,
    };
    Ok(Parts {
        syncer: Syncer {
            config: config.clone(),
            duty: duty_sender,
            sending,
            receiving,
        },
        tap: Tap {
            duty: duty.clone(),
            walks: walk_sender,
        },
        told,
        outgoing: outgoing::Outgoing::new(
            config.clone(),
            hello,
            inputs,
            started,
            sending_sender,
            journal.clone(),
        ),
        incoming: incoming::Incoming::new(
            config.clone(),
            hello,
            incoming::Ends {
                duty,
                roles,
                sights,
                told: told_sender,
                progress: receiving_sender,
                journal: journal.clone(),
            },
            (recorder, most),
        ),
    })
}

impl Syncer {
    /// Has roles decide what is told.
    pub(super) fn follow(&self, routers: &Routers) {
        let standby = routers.absent();
        let active = &routers.vips() - &standby;
        let now = Duty { active, standby };
        self.duty.send_if_modified(|duty| {
            let is_new = *duty != now;
            *duty = now;
            is_new
        });
    }

    /// Whether the peer may know of sessions that this node has not been told of.
    pub(super) fn is_behind(&self) -> bool {
        self.receiving.borrow().since.is_none()
    }

    /// How things are.
    pub(super) fn status(&self) -> SyncStatus {
        let (sending, receiving) = (self.sending.borrow(), self.receiving.borrow());
        let age = |since: Option<Instant>| since.map(|it| it.elapsed().as_secs());
        SyncStatus {
            listen: self.config.listen(),
            peer: self.config.peer(),
            sending: SendingStatus {
                in_sync_seconds: age(sending.since),
                ..sending.status.clone()
            },
            receiving: ReceivingStatus {
                in_sync_seconds: age(receiving.since),
                ..receiving.status.clone()
            },
        }
    }
}

impl Tap {
    /// A walk for the peer, by what is in force.
    pub(super) fn begin(&self, sight: &Sight) -> Begun {
        let walk = Walk::new(&sight.image, &self.duty.borrow().active);
        (Instant::now(), walk)
    }

    /// Gives it away. Without anybody to take it the daemon is stopping.
    pub(super) async fn end(&self, walk: Begun) {
        let _ = self.walks.send(walk).await;
    }
}

/// Notes an error; returns what to tell of it, unless it is the one of before: they repeat each second.
fn note_error(
    place: &mut Option<String>,
    direction: Direction,
    peer: IpAddr,
    error: &SyncError,
) -> Option<Event> {
    let text = error.to_string();
    if place.as_ref() == Some(&text) {
        return None;
    }
    *place = Some(text.clone());
    Some(Event::SyncDown {
        direction,
        peer,
        reason: error.label().to_owned(),
        error: text,
    })
}

/// A number of streams that no receiver knows from an earlier run.
fn first_stream() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    let nanos = since.unwrap_or_default().as_nanos();
    u64::try_from(nanos & u128::from(u64::MAX)).unwrap_or_default()
}
