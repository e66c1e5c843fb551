//! Lanes: how messages get from shard to shard, through rumqttd's Router.
//!
//! Each shard has one link to the Router and one fixed topic, its lane. A shard that has messages
//! for another one packs them into a frame ([`frame`]) and publishes that; user topics travel
//! inside. The Router's trouble with odd topics, its windows and its retained messages are thus
//! never met.
//!
//! ```text
//! shard 0: outbox -> frame(src 0, seq n) --LinkTx--> Router "lane/1" --LinkRx--> shard 1: inbox
//! ```
//!
//! The Router keeps a bounded log per lane and skips what a slow reader has not read, so the bytes
//! under way on a lane are bounded by [`IN_FLIGHT_BOUND`], below what the log holds. It also has no
//! way to say that it died: a shard notices that its link is closed, or a supervisor that there are no
//! answers; whoever notices first builds the next generation, and every shard joins it and sends again
//! what was not consumed. Sequence numbers make the repeats harmless and a loss visible. Routers that
//! fail one after the other are built ever more slowly.
//!
//! What a reader has read is off the lane ([`Inbox::finish_frame`]). That it has taken it, wherever the
//! messages had to go, it tells later and beside the Router ([`Lanes::confirm`]): no confirmation is lost
//! with one.

pub mod frame;
mod inbox;
mod outbox;
mod pace;
mod reader;
mod supervisor;

use std::{
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use rumqttd::{
    Notification, Router, RouterConfig,
    local::{LinkBuilder, LinkError, LinkRx, LinkTx},
};
use thiserror::Error;
use tokio::sync::{Notify, watch};

use crate::routes::ShardId;
pub use inbox::{Arrival, Inbox};
pub use outbox::{Flushed, Outbox};
use pace::Pace;
pub use reader::{Event, LaneReader};
use supervisor::replaced;
pub(crate) use supervisor::{BEAT, supervise};
pub use supervisor::{Failure, Health};

/// Bytes that may be under way on one lane.
pub const IN_FLIGHT_BOUND: usize = 2 * 1024 * 1024;

/// The Router drops a lane's oldest segment when this many are full; all but one together hold
/// more than [`IN_FLIGHT_BOUND`].
const SEGMENT_BYTES: usize = 512 * 1024;
const SEGMENTS: usize = 8;

/// Frames that the Router hands to a link at once; its own buffer ends at 200.
const FRAMES_AT_ONCE: u64 = 100;

/// A Router answers in microseconds; one that takes this long has died.
const JOIN_TIMEOUT: Duration = Duration::from_secs(5);

/// Who joins a Router beside the shards, to watch it.
const SUPERVISOR: ShardId = ShardId(u16::MAX);

/// Why there is no Router.
#[derive(Debug, Error)]
pub enum LaneError {
    #[error("the router does not accept a link")]
    Link(#[source] Box<LinkError>),
    #[error("the router did not confirm a lane")]
    Unconfirmed,
    #[error("the lane was already taken")]
    Taken,
}

impl From<LinkError> for LaneError {
    fn from(error: LinkError) -> Self {
        Self::Link(Box::new(error))
    }
}

/// The node's lanes, shared by its shards.
pub struct Lanes {
    generation: Mutex<Generation>,
    /// The generation's number, for shards whose own link to an older one still works.
    current: watch::Sender<u64>,
    flows: Vec<Flow>,
    /// By sender.
    confirmed: Vec<Confirmed>,
    health: Mutex<Health>,
}

/// The frames of one sender that were taken and that it has not heard of. No more than it has sent.
#[derive(Default)]
struct Confirmed {
    frames: Mutex<Vec<Confirmation>>,
    bell: Notify,
}

/// What a frame's sender is told of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Confirmation {
    pub reader: ShardId,
    pub sequence: u64,
    pub level: Level,
}

/// How far the reader of a frame has got with what is in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    /// It is in the reader's sessions. Told of frames that cross the border to another node.
    Taken,
    /// It is on its way there, and publishers are told no more than that: `acknowledge = "local"`.
    Passed,
    /// It is where it cannot be lost.
    Safe,
}

/// One Router and the links to it that no shard has taken yet.
struct Generation {
    number: u64,
    pace: Pace,
    ends: Vec<Option<LaneEnds>>,
    supervisor: Option<LaneEnds>,
    #[cfg(test)]
    stranger: Box<dyn Fn() -> (LinkTx, LinkRx) + Send>,
}

/// A shard's link to the Router.
pub struct LaneEnds {
    pub generation: u64,
    pub tx: LinkTx,
    pub rx: LinkRx,
}

/// What senders must know about the reader of one lane.
struct Flow {
    in_flight: AtomicUsize,
    /// The last sequence number consumed, by sender.
    consumed: Vec<AtomicU64>,
}

impl Lanes {
    /// Starts a Router with one lane per shard.
    ///
    /// # Errors
    /// When the Router does not answer.
    pub fn start(shards: u16) -> Result<Self, LaneError> {
        let flow = |_reader| Flow {
            in_flight: AtomicUsize::new(0),
            consumed: (0..shards).map(|_sender| AtomicU64::new(0)).collect(),
        };
        Ok(Self {
            generation: Mutex::new(Generation::build(1, shards, Pace::new(Instant::now()))?),
            current: watch::Sender::new(1),
            flows: (0..shards).map(flow).collect(),
            confirmed: (0..shards).map(|_sender| Confirmed::default()).collect(),
            health: Mutex::new(Health::new(Instant::now())),
        })
    }

    /// Notes that a generation's Router has failed; tells how long whoever joins the next one has to
    /// wait before.
    pub fn report(&self, failed: u64, failure: Failure) -> Duration {
        let now = Instant::now();
        let mut generation = self
            .generation
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if failed != generation.number {
            return Duration::ZERO;
        }
        if generation.pace.fail(now) {
            let mut health = self.health.lock().unwrap_or_else(PoisonError::into_inner);
            health.note(failure);
        }
        generation.pace.rest(now)
    }

    pub fn health(&self) -> Health {
        *self.health.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Gives a shard its link; `failed` is the generation whose Router has, which was reported.
    ///
    /// Blocks for the microseconds that a new Router needs to answer.
    ///
    /// # Errors
    /// When a new Router does not answer.
    pub fn join(&self, shard: ShardId, failed: Option<u64>) -> Result<LaneEnds, LaneError> {
        let mut generation = self
            .generation
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if failed == Some(generation.number) {
            let shards = u16::try_from(self.flows.len()).unwrap_or(u16::MAX);
            let now = Instant::now();
            let pace = generation.pace.next(now);
            *generation = Generation::build(generation.number + 1, shards, pace)?;
            let mut health = self.health.lock().unwrap_or_else(PoisonError::into_inner);
            (health.built, health.heard) = (now, now);
            drop(health);
            self.current.send_replace(generation.number);
        }
        let Generation {
            ends, supervisor, ..
        } = &mut *generation;
        let ends = if shard == SUPERVISOR {
            supervisor.take()
        } else {
            ends.get_mut(usize::from(shard.0)).and_then(Option::take)
        };
        ends.ok_or(LaneError::Taken)
    }

    /// Follows the generation's number; a shard that has an older one must join again.
    pub fn generations(&self) -> watch::Receiver<u64> {
        self.current.subscribe()
    }

    /// Makes the Router panic.
    #[cfg(test)]
    pub(crate) fn kill_router(&self) {
        let (tx, rx) = (self.generation.lock().unwrap().stranger)();
        tests::panic_router(tx, rx);
    }

    /// Makes the Router hang until what is returned is dropped.
    #[cfg(test)]
    pub(crate) fn hang_router(&self) -> std::sync::mpsc::Sender<()> {
        let (tx, _rx) = (self.generation.lock().unwrap().stranger)();
        tests::hang_router(tx)
    }

    /// Reserves room for a frame; `false` when the lane is full.
    fn reserve(&self, to: ShardId, bytes: usize) -> bool {
        let in_flight = &self.flows[usize::from(to.0)].in_flight;
        let before = in_flight.fetch_add(bytes, Ordering::AcqRel);
        // A frame longer than the bound must still get through, alone.
        let fits = before == 0 || before + bytes <= IN_FLIGHT_BOUND;
        if !fits {
            in_flight.fetch_sub(bytes, Ordering::AcqRel);
        }
        fits
    }

    /// Notes that `reader` is done with a frame.
    fn consume(&self, reader: ShardId, from: ShardId, sequence: u64, bytes: usize) {
        let flow = &self.flows[usize::from(reader.0)];
        flow.consumed[usize::from(from.0)].store(sequence, Ordering::Release);
        flow.in_flight.fetch_sub(bytes, Ordering::AcqRel);
    }

    /// Tells a frame's sender that all that is in it is safe with `reader`.
    pub fn confirm(&self, reader: ShardId, from: ShardId, sequence: u64) {
        self.tell(reader, from, sequence, Level::Safe);
    }

    /// Tells a frame's sender how far `reader` has got with it.
    pub fn tell(&self, reader: ShardId, from: ShardId, sequence: u64, level: Level) {
        let Some(Confirmed { frames, bell }) = self.confirmed.get(usize::from(from.0)) else {
            return;
        };
        frames
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(Confirmation {
                reader,
                sequence,
                level,
            });
        bell.notify_one();
    }

    /// Waits until frames of `sender` were taken, and puts that into `taken`, which must be empty.
    pub async fn confirmed(&self, sender: ShardId, taken: &mut Vec<Confirmation>) {
        let Confirmed { frames, bell } = &self.confirmed[usize::from(sender.0)];
        while taken.is_empty() {
            bell.notified().await;
            std::mem::swap(
                &mut *frames.lock().unwrap_or_else(PoisonError::into_inner),
                taken,
            );
        }
    }

    fn consumed(&self, reader: ShardId, from: ShardId) -> u64 {
        self.flows[usize::from(reader.0)].consumed[usize::from(from.0)].load(Ordering::Acquire)
    }
}

impl Generation {
    /// Starts a Router, and subscribes every lane before anyone can publish to it.
    fn build(number: u64, shards: u16, pace: Pace) -> Result<Self, LaneError> {
        let router = Router::new(
            usize::try_from(number).unwrap_or(0),
            RouterConfig {
                // The shards, the supervisor, and a stranger in tests.
                max_connections: usize::from(shards) + 2,
                max_outgoing_packet_count: FRAMES_AT_ONCE,
                max_segment_size: SEGMENT_BYTES,
                max_segment_count: SEGMENTS,
                ..RouterConfig::default()
            },
        );
        let router = router.spawn();
        let open = |shard: ShardId| -> Result<LaneEnds, LaneError> {
            let name = format!("shard-{}", shard.0);
            let (mut tx, mut rx, _connack) = LinkBuilder::new(&name, router.clone()).build()?;
            tx.subscribe(lane_topic(shard))?;
            await_suback(&mut rx)?;
            Ok(LaneEnds {
                generation: number,
                tx,
                rx,
            })
        };
        let ends = (0..shards).map(|shard| open(ShardId(shard)).map(Some));
        Ok(Self {
            number,
            pace,
            ends: ends.collect::<Result<_, _>>()?,
            supervisor: Some(open(SUPERVISOR)?),
            #[cfg(test)]
            stranger: Box::new(move || {
                let stranger = LinkBuilder::new("stranger", router.clone());
                let (tx, rx, _connack) = stranger.build().unwrap();
                (tx, rx)
            }),
        })
    }
}

fn await_suback(rx: &mut LinkRx) -> Result<(), LaneError> {
    let deadline = Instant::now() + JOIN_TIMEOUT;
    loop {
        // `None` is a wake-up whose notifications were already taken.
        match rx.recv_deadline(deadline)? {
            Some(Notification::DeviceAck(_suback)) => return Ok(()),
            None => {}
            Some(
                Notification::Forward(_)
                | Notification::ReplicaData { .. }
                | Notification::ReplicaAcks { .. }
                | Notification::Shadow(_)
                | Notification::Unschedule
                | Notification::Disconnect(..),
            ) => return Err(LaneError::Unconfirmed),
        }
    }
}

fn lane_topic(shard: ShardId) -> String {
    format!("lane/{}", shard.0)
}

#[cfg(test)]
mod tests;
