//! How many flows a backend has, where the program has to know: who has the fewest, who is full.
//!
//! The program counts the flows that it records and those that it sees close, and cannot see the
//! others end: the sweeper forgets the silent ones, the kernel evicts half-open ones, a flow may
//! replace another. A walk over the flow tables counts what is there. What it finds differs from what
//! the program counts by the correction that makes up for the unseen, give or take what has changed
//! during the walk. A [`Census`] is one such count.

use std::collections::BTreeMap;

use lb_common::abi::{BackendId, Load};

use crate::core::settle::Sessions;

/// What the program has counted, by id and epoch of the backend.
pub type Loads = BTreeMap<(BackendId, u16), Load>;

/// What a walk has found of a backend's flows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Census {
    /// What the program had counted before the walk.
    pub before: Load,
    /// The same after it.
    pub after: Load,
    /// What is recorded.
    pub records: Sessions,
}

impl Census {
    /// The correction to use, where `present` was used during the walk.
    ///
    /// A flow that began or ended during the walk may have been met or not, and one that went from
    /// half open to established may have been met twice. So there is a range of corrections that the
    /// walk allows for; the nearest one in it is taken, and what is right stays as it is.
    #[must_use]
    pub fn correct(&self, present: i32) -> i32 {
        let began = self.after.opened.wrapping_sub(self.before.opened);
        let ended = self.after.closed.wrapping_sub(self.before.closed);
        let Sessions { live, begun } = self.records;
        let [fewest, most] = [live.max(begun), live.saturating_add(begun)].map(signed);
        // How much the present correction is off, which is a number of flows: counters and
        // corrections themselves have no size, see `Load::open`.
        let open = i64::from(self.before.open(present));
        let least = fewest.saturating_sub(open).saturating_sub(signed(began));
        let greatest = most.saturating_sub(open).saturating_add(signed(ended));
        let off = 0_i64.clamp(least, greatest.max(least));
        present.wrapping_add(i32::try_from(off).unwrap_or(0))
    }
}

fn signed(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

/// The censuses of all backends that were counted throughout a walk.
#[must_use]
pub fn censuses(
    before: &Loads,
    after: &Loads,
    sessions: &BTreeMap<(BackendId, u16), Sessions>,
) -> BTreeMap<(BackendId, u16), Census> {
    let census = |(backend, before): (&(BackendId, u16), &Load)| {
        let census = Census {
            before: *before,
            after: *after.get(backend)?,
            records: sessions.get(backend).copied().unwrap_or_default(),
        };
        Some((*backend, census))
    };
    before.iter().filter_map(census).collect()
}

#[cfg(test)]
mod tests;
