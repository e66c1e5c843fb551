//! What the program reports, as it comes: from the ring to the sender.

use std::{io, sync::Arc, time::Duration};

use lb_common::abi::FlowEvent;
use tokio::{
    io::unix::AsyncFd,
    sync::watch,
    time::{self, Instant},
};
use tracing::debug;

use crate::{
    core::{
        flows::Sight,
        sync::source::{Established, Source},
    },
    io::datapath::{FlowEvents, monotonic},
};

/// Between two looks into the ring. What comes meanwhile goes into one message, so that much costs
/// little more than some.
const REST: Duration = Duration::from_millis(2);

/// What is taken at a look at most: then others have their turn.
const MOST: usize = 1_024;

/// The reading end of the ring.
pub(super) struct Events {
    ring: AsyncFd<FlowEvents>,
    sights: watch::Receiver<Sight>,
    next_look: Instant,
    /// Where the source's clock begins, and what the kernel's was then.
    started: Instant,
    started_nanos: u64,
}

impl Events {
    /// Makes ready to read, by a clock that began at `started`.
    ///
    /// # Errors
    /// If the ring cannot be waited for.
    pub(super) fn new(
        ring: FlowEvents,
        sights: watch::Receiver<Sight>,
        started: Instant,
    ) -> io::Result<Self> {
        let since = u64::try_from(started.elapsed().as_nanos()).unwrap_or_default();
        Ok(Self {
            ring: ring.watched()?,
            sights,
            next_look: started,
            started,
            started_nanos: monotonic().saturating_sub(since),
        })
    }

    /// Waits for reports, and takes some. May be cancelled.
    ///
    /// # Errors
    /// If the runtime is going.
    pub(super) async fn next(&mut self) -> io::Result<Vec<FlowEvent>> {
        time::sleep_until(self.next_look).await;
        let mut ring = self.ring.readable_mut().await?;
        let events = take(ring.get_inner_mut());
        if events.len() < MOST {
            ring.clear_ready();
        }
        self.next_look = Instant::now() + REST;
        Ok(events)
    }

    /// Gives all that was reported until now to `source`; says how much that was.
    pub(super) fn give_all(&mut self, source: &mut Source) -> u64 {
        let mut given = 0;
        loop {
            let events = take(self.ring.get_mut());
            given += self.give(&events, source);
            if events.len() < MOST {
                return given;
            }
        }
    }

    /// Gives reports to `source`, with the records that they are about; says how many they are.
    pub(super) fn give(&self, events: &[FlowEvent], source: &mut Source) -> u64 {
        let image = Arc::clone(&self.sights.borrow().image);
        for event in events {
            let flow = match self.ring.get_ref().record(&event.key) {
                Ok(Some(flow)) => flow,
                // It is over already.
                Ok(None) => continue,
                // The next walk has it.
                Err(error) => {
                    debug!(%error, "a new flow cannot be read");
                    continue;
                }
            };
            let made = event.at.saturating_sub(self.started_nanos);
            let established = Established {
                key: event.key,
                flow,
                client: event.client,
                made: Duration::from_nanos(made),
                met: self.started.elapsed(),
            };
            source.handle_established(&image, &established);
        }
        events.len() as u64
    }

    /// How many reports there was no room for.
    pub(super) fn lost(&self) -> u64 {
        self.ring.get_ref().lost().unwrap_or_default()
    }
}

/// What is in the ring, up to a bound.
fn take(ring: &mut FlowEvents) -> Vec<FlowEvent> {
    std::iter::from_fn(|| ring.pop()).take(MOST).collect()
}
