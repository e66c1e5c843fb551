//! Runs the rounds over the tables of tracked flows, on a thread of their own.

use std::time::Duration;

use tokio::{sync::watch, task::spawn_blocking, time};
use tracing::{debug, warn};

use crate::{control::Flows, io::datapath::Sweeper};

/// The least time between two rounds: how old the counts in a status may be.
const PAUSE: Duration = Duration::from_secs(1);

/// How much longer than a round the pause after it is: large tables must not keep a CPU busy.
const PAUSE_SHARE: u32 = 20;

/// Sweeps until nobody wants to know.
///
/// # Errors
///
/// If a round panics.
pub(super) async fn run(
    mut sweeper: Sweeper,
    idle: watch::Receiver<Duration>,
    flows: watch::Sender<Flows>,
) -> anyhow::Result<()> {
    while !flows.is_closed() {
        let limit = *idle.borrow();
        let started = time::Instant::now();
        let (back, round) = spawn_blocking(move || {
            let round = sweeper.round(limit);
            (sweeper, round)
        })
        .await?;
        sweeper = back;
        match round {
            Ok(counts) => {
                if counts.removed > 0 {
                    debug!(removed = counts.removed, "tracked flows forgotten");
                }
                let now = Flows {
                    tracked: counts.tracked,
                    half_open: counts.half_open,
                };
                flows.send_replace(now);
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
