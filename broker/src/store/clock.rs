//! The two clocks: sessions count in instants of a process, the store in the time of day.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// One moment on both clocks. Taken anew for each batch, so that a clock that is set right takes
/// what is stored from then on along.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock {
    now: Instant,
    /// Milliseconds since 1970.
    wall: u64,
}

impl Clock {
    pub(crate) fn read() -> Self {
        let wall = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        Self::at(Instant::now(), millis(wall))
    }

    pub(super) fn at(now: Instant, wall: u64) -> Self {
        Self { now, wall }
    }

    /// One that only tells how far off things are: for what is said to another node, whose time of
    /// day is another, and read there by such a clock.
    pub(crate) fn relative(now: Instant) -> Self {
        // As far from the beginning as from the end.
        Self::at(now, u64::MAX / 2)
    }

    #[cfg(test)]
    pub(super) fn now(&self) -> Instant {
        self.now
    }

    pub(super) fn to_wall(self, instant: Instant) -> u64 {
        match instant.checked_duration_since(self.now) {
            Some(ahead) => self.wall.saturating_add(millis(ahead)),
            None => self
                .wall
                .saturating_sub(millis(self.now.duration_since(instant))),
        }
    }

    /// What is out of an instant's range becomes this moment.
    pub(super) fn to_instant(self, wall: u64) -> Instant {
        let instant = if wall >= self.wall {
            let ahead = Duration::from_millis(wall - self.wall);
            self.now.checked_add(ahead)
        } else {
            let behind = Duration::from_millis(self.wall - wall);
            self.now.checked_sub(behind)
        };
        instant.unwrap_or(self.now)
    }
}

pub(super) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
