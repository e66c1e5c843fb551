//! How far the event loop has come with the maps, and who follows them.

use tokio::time::Instant;

/// How the virtual routers keep pace with the maps.
#[derive(Debug, Default)]
pub(super) struct Pace {
    /// Whether the maps have ever held what they should.
    pub(super) was_settled: bool,
    /// Since when they do not.
    pub(super) unsettled_since: Option<Instant>,
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
}
