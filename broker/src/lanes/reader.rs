//! A reader's link to the Router, and to the next one when that dies.

use std::sync::Arc;

use bytes::Bytes;
use rumqttd::{
    Notification,
    local::{LinkRx, LinkTx},
};
use tokio::sync::watch;
use tracing::error;

use super::{Failure, LaneEnds, LaneError, Lanes, replaced};
use crate::routes::ShardId;

/// The receiving end of one lane.
pub struct LaneReader {
    me: ShardId,
    lanes: Arc<Lanes>,
    generations: watch::Receiver<u64>,
    generation: u64,
    rx: LinkRx,
}

/// What a reader meets with.
pub enum Event {
    Frame(Bytes),
    /// Another Router: this is the way to it, and what the last one had is to be repeated.
    Joined(LinkTx),
}

impl LaneReader {
    /// Begins to read; the way to the Router is for the outbox.
    pub fn new(me: ShardId, lanes: Arc<Lanes>, ends: LaneEnds) -> (Self, LinkTx) {
        let LaneEnds { generation, tx, rx } = ends;
        let reader = Self {
            me,
            generations: lanes.generations(),
            lanes,
            generation,
            rx,
        };
        (reader, tx)
    }

    /// Waits for what comes next.
    ///
    /// # Errors
    /// When the Router has died and there is no other one.
    pub async fn next(&mut self) -> Result<Event, LaneError> {
        loop {
            // The link is given up when the other branch wins, so a wake-up lost with it does not
            // matter.
            let next = tokio::select! {
                biased;
                next = self.rx.next() => next.ok(),
                () = replaced(&mut self.generations, self.generation) => None,
            };
            match next {
                Some(Some(Notification::Forward(forward))) => {
                    return Ok(Event::Frame(forward.publish.payload));
                }
                // The Router waits to hear that the link's buffer was taken.
                Some(Some(Notification::Unschedule)) => {
                    // A Router that hangs takes nothing. A failure here is the next call's failure too.
                    tokio::select! {
                        _ = self.rx.wake() => {}
                        () = replaced(&mut self.generations, self.generation) => {}
                    }
                }
                Some(
                    None
                    | Some(
                        Notification::DeviceAck(_)
                        | Notification::ReplicaData { .. }
                        | Notification::ReplicaAcks { .. }
                        | Notification::Shadow(_)
                        | Notification::Disconnect(..),
                    ),
                ) => {}
                None => return self.rejoin(Failure::Died).await.map(Event::Joined),
            }
        }
    }

    /// Waits until there is another Router, which [`LaneReader::rejoin`] leads to.
    pub async fn replaced(&mut self) {
        replaced(&mut self.generations, self.generation).await;
    }

    /// Gives the Router up: it has died, or lost frames.
    ///
    /// # Errors
    /// When there is no other one.
    pub async fn rejoin(&mut self, failure: Failure) -> Result<LinkTx, LaneError> {
        let generation = self.generation;
        error!(generation, "router failed, joining the next one");
        tokio::time::sleep(self.lanes.report(generation, failure)).await;
        let LaneEnds { generation, tx, rx } = self.lanes.join(self.me, Some(generation))?;
        self.generation = generation;
        self.rx = rx;
        Ok(tx)
    }
}
