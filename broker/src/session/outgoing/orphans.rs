//! What a client was to have for its groups, taken back for their other members.

use std::{collections::BTreeSet, sync::Arc};

use super::{InFlight, Outgoing, Queued, Stage};
use crate::{
    message::Qos,
    session::{Orphan, journal::Record, stock::Place},
    shares::ShareId,
};

impl Outgoing {
    /// The groups of what waits.
    pub(in crate::session) fn waiting_shares(&self) -> BTreeSet<ShareId> {
        let queue = self.queue.iter();
        queue.filter_map(|queued| queued.grant.share).collect()
    }

    pub(in crate::session) fn reclaim_unsent(
        &mut self,
        of: Option<&BTreeSet<ShareId>>,
    ) -> Vec<Orphan> {
        let mut orphans = Vec::new();
        let record = &self.record;
        self.queue.retain_mut(|queued| {
            let share = queued
                .grant
                .share
                .filter(|share| of.is_none_or(|of| of.contains(share)));
            if let Some(share) = share {
                let place = queued.place.take();
                orphans.push(queued.orphan(share, place, record));
            }
            share.is_none()
        });
        self.count_queue();
        orphans
    }

    /// Those in flight come first, as they did for the client.
    pub(in crate::session) fn reclaim_unfinished(&mut self) -> Vec<Orphan> {
        let in_flight = |inflight: &InFlight| match &inflight.stage {
            Stage::Published(queued) if queued.grant.qos == Qos::AtLeastOnce => {
                let share = queued.grant.share;
                share.map(|share| queued.orphan(share, None, &self.record))
            }
            Stage::Published(_) | Stage::Released => None,
        };
        let mut orphans: Vec<_> = self.inflight.iter().filter_map(in_flight).collect();
        self.inflight.clear();
        self.inflight_bytes = 0;
        self.sent = 0;
        orphans.extend(self.reclaim_unsent(None));
        orphans
    }
}

impl Queued {
    fn orphan(&self, share: ShareId, place: Option<Place>, record: &Record) -> Orphan {
        Orphan {
            share,
            message: Arc::clone(&self.message),
            noted: record.session().zip(self.seq),
            place,
        }
    }
}
