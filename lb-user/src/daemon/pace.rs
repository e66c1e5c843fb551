//! How far the event loop has come with the maps, and who follows them.

use std::time::Duration;

use tokio::time::Instant;

/// For how long maps that could not be changed are taken for good enough to forward.
const MAPS_GRACE: Duration = Duration::from_secs(3);

/// How VIPs and virtual routers keep pace with the maps.
#[derive(Debug, Default)]
pub(super) struct Pace {
    /// Whether the maps have ever held what they should.
    was_settled: bool,
    /// Since when they do not.
    unsettled_since: Option<Instant>,
    /// Whether packets came by the maps before this process had them.
    pub(super) has_predecessor: bool,
    /// Whether the VIPs were taken.
    pub(super) has_taken_over: bool,
    /// Whether the routers are still those of the configuration before.
    pub(super) is_behind: bool,
}

impl Pace {
    /// At the start of a process.
    pub(super) fn new(has_predecessor: bool) -> Self {
        Self {
            has_predecessor,
            ..Self::default()
        }
    }

    /// Takes in whether the maps hold what they should.
    pub(super) fn observe(&mut self, is_settled: bool, now: Instant) {
        if is_settled {
            self.was_settled = true;
            self.unsettled_since = None;
        } else {
            self.unsettled_since.get_or_insert(now);
        }
    }

    /// Whether they are good enough to forward by.
    pub(super) fn is_ready(&self, now: Instant) -> bool {
        let since = self.unsettled_since;
        let is_recent = since.is_none_or(|since| now.duration_since(since) < MAPS_GRACE);
        self.was_settled && is_recent
    }
}
