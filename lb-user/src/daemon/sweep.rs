//! Runs the rounds over the tables of tracked flows, on a thread of their own.

use std::time::Duration;

use tokio::{
    sync::{mpsc, watch},
    task::spawn_blocking,
    time,
};
use tracing::{debug, warn};

use super::sync::Tap;
use crate::{
    control::Flows,
    core::{flows::Sight, settle::Findings},
    io::datapath::Sweeper,
};

/// The least time between two rounds: how old the counts in a status may be.
const PAUSE: Duration = Duration::from_secs(1);

/// How much longer than a round the pause after it is: large tables must not keep a CPU busy.
const PAUSE_SHARE: u32 = 20;

/// What is told of each round.
pub(super) struct Reports {
    pub(super) flows: watch::Sender<Flows>,
    /// One may wait: the next round does not begin before it is taken.
    pub(super) findings: mpsc::Sender<Findings>,
    /// Who tells the peer, if there is one.
    pub(super) tap: Option<Tap>,
}

/// Sweeps until nobody wants to know.
///
/// # Errors
///
/// If a round panics.
pub(super) async fn run(
    mut sweeper: Sweeper,
    sights: watch::Receiver<Sight>,
    reports: Reports,
) -> anyhow::Result<()> {
    let Reports {
        flows,
        findings,
        tap,
    } = reports;
    while !flows.is_closed() {
        let sight = sights.borrow().clone();
        let started = time::Instant::now();
        let mut walk = tap.as_ref().map(|tap| tap.begin(&sight));
        let (back, round, walk) = spawn_blocking(move || {
            let round = sweeper.round_noting(&sight, walk.as_mut().map(|(_, walk)| walk));
            (sweeper, round, walk)
        })
        .await?;
        sweeper = back;
        match round {
            Ok(round) => {
                let counts = round.counts;
                if counts.removed > 0 {
                    debug!(removed = counts.removed, "tracked flows forgotten");
                }
                let now = Flows {
                    tracked: counts.tracked,
                    half_open: counts.half_open,
                };
                flows.send_replace(now);
                // Before the findings: what is settled by them follows what was met.
                if let Some((tap, walk)) = tap.as_ref().zip(walk) {
                    tap.end(walk).await;
                }
                // Without anybody to take them the daemon is stopping.
                let _ = findings.send(round.findings).await;
            }
            // Flows that are over only take room; the next round finds them too.
            Err(error) => warn!(
                error = format!("{:#}", anyhow::Error::from(error)),
                "sweep failed"
            ),
        }
        time::sleep(PAUSE.max(started.elapsed() * PAUSE_SHARE)).await;
    }
    Ok(())
}
