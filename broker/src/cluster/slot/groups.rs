//! What a peer has sent for groups, and what it was sent for them and has not taken.

use std::collections::BTreeMap;

use bytes::Bytes;

use super::{ItemId, Keeper, Slot};
use crate::{
    cluster::pair::FrameId,
    lanes::frame,
    message::{Message, Qos},
    metrics::Metric,
    routes::ShardId,
    shares::{Avoided, HANDED_ON, LEFT, Seat},
};

impl Slot {
    /// Passes a message on to one member of each of these groups; the result is how many frames have to
    /// be confirmed.
    pub(super) fn share_out(
        &mut self,
        keeper: &Keeper<'_>,
        id: ItemId,
        message: &Message,
        groups: &[Seat],
    ) -> usize {
        let (shared, now) = (keeper.shared, keeper.now);
        let handing_on = ShardId(self.outbox.me().0 % shared.shards.max(1));
        // Whoever makes up groups without end must not have the payload copied for each.
        let mut seats: BTreeMap<ShardId, Vec<Seat>> = BTreeMap::new();
        for group in groups {
            let Some(share) = shared.shares.find_tagged(group.share, &message.topic) else {
                keeper.counters.inc(Metric::DroppedShared);
                continue;
            };
            let hops = (group.hops & !LEFT).max(HANDED_ON);
            let avoided = Avoided {
                from: shared.handed_on_by(self.outbox.me(), hops),
                ..Avoided::default()
            };
            let shares = &shared.shares;
            let chosen = shares.choose_but(share, message.qos, hops, avoided);
            let is_own = |(shard, _seat): &(ShardId, Seat)| shard.0 < shared.shards;
            // If it is another node's turn, a shard hands the message on.
            let (shard, seat) = chosen.filter(is_own).unwrap_or_else(|| {
                let anyone = Seat {
                    share,
                    session: Seat::NOBODY,
                    hops,
                };
                (handing_on, anyone)
            });
            seats.entry(shard).or_default().push(seat);
        }
        let mut missing = 0;
        for (shard, seats) in seats {
            let sequence = self.outbox.push(shard, message, &seats, now);
            if message.qos > Qos::AtMostOnce {
                missing += self.wait_for(shard, sequence, id);
            }
        }
        missing
    }

    /// Has messages for groups of the peer, which is gone, wait until it is buried: who is a member then
    /// gets them. The others are for its sessions, see [`Slot::push_orphan`].
    pub(in crate::cluster) fn park(&mut self, frame: FrameId, messages: &Bytes) {
        if frame::has_seats(messages) {
            self.burial.park(frame, messages.clone());
        }
    }

    /// Bytes of those messages.
    pub(in crate::cluster) fn parked_bytes(&self) -> usize {
        self.burial.parked_bytes()
    }
}
