//! What the clients of simulated nodes do.

use super::{network::POISON, node::Sent, *};
use crate::routes::ShardId;

/// What a message says of itself.
#[derive(Clone, Copy)]
pub(super) struct Parcel {
    pub(super) from: usize,
    pub(super) run: u64,
    /// How often the sender has lost who it is for.
    pub(super) period: u64,
    /// That of who it is for.
    pub(super) life: u64,
    pub(super) sequence: u64,
    topic: u64,
    /// What is to be retained, if anything is.
    stamp: u64,
}

impl Parcel {
    pub(super) fn read(message: &[u8]) -> Self {
        let field = |at: usize| u64::from_be_bytes(message[8 * at..8 * at + 8].try_into().unwrap());
        Self {
            from: usize::try_from(field(0)).unwrap(),
            run: field(1),
            period: field(2),
            life: field(3),
            sequence: field(4),
            topic: field(5),
            stamp: field(6),
        }
    }

    fn write(self, length: u64, is_poison: bool) -> Bytes {
        let from = self.from as u64;
        let fields = [
            from,
            self.run,
            self.period,
            self.life,
            self.sequence,
            self.topic,
            self.stamp,
        ];
        let mut message = fields.map(u64::to_be_bytes).concat();
        message.resize(message.len() + usize::try_from(length).unwrap(), 0);
        if is_poison {
            message.extend(POISON);
        }
        message.into()
    }

    /// The shard whose clients have subscribed.
    pub(super) fn shard(&self) -> u64 {
        self.topic % 2
    }

    pub(super) fn retained(&self) -> Option<(u64, u64)> {
        (self.stamp > 0).then_some((self.topic, self.stamp))
    }
}

impl World {
    /// Clients subscribe, unsubscribe and publish.
    pub(super) fn act_as_users(&mut self, node: usize) {
        let filters = self.nature.filters.len() as u64;
        // With many filters there is more to tell.
        for _ in 0..filters.div_ceil(5) {
            if self.dice.hits(3) {
                let filter = usize::try_from(self.dice.roll(filters)).unwrap();
                self.change_filter(node, filter);
            }
        }
        for _ in 0..self.dice.roll(4) {
            let topic = self.dice.roll(filters);
            let is_retained = self.dice.hits(6);
            self.publish(node, topic, is_retained);
        }
    }

    fn change_filter(&mut self, node: usize, filter: usize) {
        let filter = &self.nature.filters[filter];
        let Node { table, added, .. } = &mut self.nodes[node];
        if table.remove(filter) {
            added.remove(filter);
        } else {
            table.add(filter);
            added.insert(filter.clone(), table.version());
        }
    }

    /// What a shard does: the message goes to each peer that has the filter, and what is retained to
    /// all that are there.
    fn publish(&mut self, node: usize, topic: u64, is_retained: bool) {
        let now = self.start + self.now;
        let filter = &self.nature.filters[usize::try_from(topic).unwrap()];
        let sender = &mut self.nodes[node];
        // Its clients wait.
        if sender.core.peers().any(|(_other, peer)| peer.is_full()) {
            return;
        }
        let stamp = if is_retained {
            self.stamp += 1;
            sender.retained.insert(topic, self.stamp);
            self.stamp
        } else {
            0
        };
        let peers = sender.core.peers().filter(|(_other, peer)| {
            let routes = sender.routes.get(&peer.slot);
            let has_filter = routes.is_some_and(|routes| routes.contains(filter));
            has_filter || is_retained && peer.is_alive()
        });
        let peers = peers.map(|(other, peer)| {
            let Peer {
                slot,
                incarnation,
                life,
                ..
            } = *peer;
            (number(other), slot, incarnation / RUN, life)
        });
        let peers: Vec<_> = peers.collect();
        let length = self.dice.roll(self.nature.longest);
        let is_wild = self.mood == Mood::Wild && !self.nature.is_gentle;
        for (to, slot, to_run, life) in peers {
            let sequence = sender.sent.len() as u64;
            let lost_before = sender.losses.get(&to).copied().unwrap_or(0);
            sender.sent.push(Sent {
                to,
                to_run,
                lost_before,
                outcome: None,
            });
            let parcel = Parcel {
                from: node,
                run: sender.run,
                period: lost_before,
                life,
                sequence,
                topic,
                stamp,
            };
            let frame = FrameId {
                from: ShardId(0),
                sequence,
            };
            let message = parcel.write(length, is_wild && self.dice.hits(400));
            sender.core.handle_frame(slot, Some(frame), message, now);
        }
    }

    /// Somebody says all that is retained anew, so that all nodes have it.
    pub(super) fn retain_all(&mut self) {
        for topic in 0..self.nature.filters.len() as u64 {
            self.publish(0, topic, true);
        }
        self.settle(0);
    }
}
