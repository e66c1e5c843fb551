//! Watches the Router, which has no way to say that it has died or hangs.
//!
//! A shard notices by itself that its link to a Router is closed, but one that hangs closes nothing. So
//! one task has a link of its own, and sends itself a word through the Router again and again.

use std::{
    sync::{Arc, PoisonError},
    time::{Duration, Instant},
};

use bytes::Bytes;
use rumqttd::{Notification, local::LinkError};
use tokio::{sync::watch, time};
use tracing::error;

use super::{LaneEnds, Lanes, SUPERVISOR};
use crate::metrics::{render_head, render_value};

/// How often the Router is heard.
pub(crate) const BEAT: Duration = Duration::from_secs(1);

/// Beats without an answer before a Router is given up. Counted, and no time measured: a process that
/// stood still as a whole has no Router that hangs.
const PATIENCE: u32 = 5;

/// What is sent. Long, so that the Router's log of it has few entries, and not in memory of its own.
static WORD: [u8; 64 * 1024] = [0; 64 * 1024];

/// Why a Router is replaced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// Its links are closed.
    Died,
    /// It does not answer.
    Hung,
    /// Frames have not come.
    Gap,
}

/// What has become of a node's Routers.
#[derive(Clone, Copy, Debug)]
pub struct Health {
    pub died: u64,
    pub hung: u64,
    pub gaps: u64,
    /// When the one in use was built.
    pub built: Instant,
    /// When it last answered.
    pub heard: Instant,
}

impl Health {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            died: 0,
            hung: 0,
            gaps: 0,
            built: now,
            heard: now,
        }
    }

    pub(super) fn note(&mut self, failure: Failure) {
        *match failure {
            Failure::Died => &mut self.died,
            Failure::Hung => &mut self.hung,
            Failure::Gap => &mut self.gaps,
        } += 1;
    }

    /// How many Routers were replaced.
    pub fn restarts(&self) -> u64 {
        self.died + self.hung + self.gaps
    }

    /// Appends all of it in Prometheus's text format.
    pub(crate) fn render(&self, out: &mut String, now: Instant) {
        let name = "router_restarts_total";
        let help = "Routers between shards that were replaced, by why.";
        render_head(out, name, "counter", help);
        for (reason, count) in [("died", self.died), ("hung", self.hung), ("gap", self.gaps)] {
            render_value(out, name, &format!("reason=\"{reason}\""), count);
        }
        let name = "router_answers";
        let help = "1 while the Router between shards answers.";
        render_head(out, name, "gauge", help);
        render_value(out, name, "", u64::from(!self.is_silent(now)));
    }

    /// Whether there has been no answer for longer than a Router is given.
    pub fn is_silent(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.heard) > BEAT * (PATIENCE + 1)
    }
}

/// Replaces each Router that dies or hangs, as long as there is a runtime.
pub(crate) async fn supervise(lanes: Arc<Lanes>, beat: Duration) {
    let mut failed = None;
    loop {
        let joining = Arc::clone(&lanes);
        // To build a Router is to wait for its answer.
        let joined = tokio::task::spawn_blocking(move || joining.join(SUPERVISOR, failed));
        let ends = match joined.await {
            Ok(Ok(ends)) => ends,
            Ok(Err(error)) => {
                error!(
                    error = &error as &dyn std::error::Error,
                    "router cannot be replaced"
                );
                time::sleep(beat).await;
                continue;
            }
            Err(_cancelled) => return,
        };
        let generation = ends.generation;
        if let Some(failure) = watch_over(&lanes, ends, beat).await {
            error!(generation, ?failure, "router failed");
            time::sleep(lanes.report(generation, failure)).await;
        }
        failed = Some(generation);
    }
}

/// Hears a Router until it fails; `None` when somebody else has replaced it.
async fn watch_over(lanes: &Lanes, mut ends: LaneEnds, beat: Duration) -> Option<Failure> {
    let mut generations = lanes.generations();
    let generation = ends.generation;
    let mut silent = 0;
    loop {
        let answered = tokio::select! {
            biased;
            () = replaced(&mut generations, generation) => return None,
            answered = time::timeout(beat, ask(&mut ends)) => answered,
        };
        match answered {
            Ok(Ok(())) => {
                silent = 0;
                let mut health = lanes.health.lock().unwrap_or_else(PoisonError::into_inner);
                health.heard = Instant::now();
            }
            Ok(Err(_closed)) => return Some(Failure::Died),
            Err(_elapsed) => {
                silent += 1;
                if silent == PATIENCE {
                    return Some(Failure::Hung);
                }
                continue;
            }
        }
        tokio::select! {
            () = replaced(&mut generations, generation) => return None,
            () = time::sleep(beat) => {}
        }
    }
}

/// Resolves when there is another Router than this one.
pub(crate) async fn replaced(generations: &mut watch::Receiver<u64>, generation: u64) {
    // The sender lives as long as the lanes.
    let _ = generations.wait_for(|current| *current != generation).await;
}

/// Sends a word and waits for one; any that comes shows that the Router works.
async fn ask(ends: &mut LaneEnds) -> Result<(), Box<LinkError>> {
    // When the wake-up does not fit into the Router's channel, the word is in the link's buffer all the
    // same, and the next one wakes the Router for both.
    let _ = ends
        .tx
        .try_publish(super::lane_topic(SUPERVISOR), Bytes::from_static(&WORD));
    loop {
        match ends.rx.next().await? {
            Some(Notification::Forward(_word)) => return Ok(()),
            Some(Notification::Unschedule) => ends.rx.wake().await?,
            None
            | Some(
                Notification::DeviceAck(_)
                | Notification::ReplicaData { .. }
                | Notification::ReplicaAcks { .. }
                | Notification::Shadow(_)
                | Notification::Disconnect(..),
            ) => {}
        }
    }
}
