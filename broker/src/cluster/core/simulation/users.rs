//! What the clients of simulated nodes do.

use super::{
    keeping::{Stamp, words},
    network::POISON,
    node::Sent,
    *,
};
use crate::{
    lanes::frame::{HEADER, Writer},
    message::{self as sent, MessageId, Qos},
    routes::ShardId,
    shares::{Seat, ShareId},
};

/// What a message says of itself.
#[derive(Clone, Copy, Default)]
pub(super) struct Parcel {
    pub(super) from: usize,
    pub(super) run: u64,
    /// How often the sender has lost who it is for.
    pub(super) period: u64,
    /// That of who it is for.
    pub(super) life: u64,
    pub(super) sequence: u64,
    topic: u64,
    /// For the group alone: the message, from one, and from how many nodes to others it has come.
    job: u64,
    hops: u64,
    stamp: Stamp,
}

impl Parcel {
    pub(super) fn read(mut message: &[u8]) -> Self {
        if message.first().is_some_and(|flags| *flags > 0) {
            let item = frame::read_item(&mut message, Instant::now()).unwrap();
            return Self::read(&item.message.payload);
        }
        let words = words(&message[..8 * (8 + Stamp::WORDS)]);
        Self {
            from: usize::try_from(words[0]).unwrap(),
            run: words[1],
            period: words[2],
            life: words[3],
            sequence: words[4],
            topic: words[5],
            job: words[6],
            hops: words[7],
            stamp: Stamp::read(&words[8..]),
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
            self.job,
            self.hops,
        ];
        let words = fields.into_iter().chain(self.stamp.words());
        let mut message: Vec<_> = words.flat_map(u64::to_be_bytes).collect();
        message.resize(message.len() + usize::try_from(length).unwrap(), 0);
        if is_poison {
            message.extend(POISON);
        }
        message.into()
    }

    /// As a shard would send it: for a seat of the group.
    fn framed(self, bytes: Bytes) -> Bytes {
        let message = sent::Message {
            topic: "t".into(),
            payload: bytes.to_vec().into(),
            properties: Box::default(),
            qos: Qos::AtLeastOnce,
            retain: false,
            expires: None,
            id: MessageId::NONE,
        };
        let seat = Seat {
            share: ShareId(0),
            session: Seat::NOBODY,
            hops: u8::try_from(self.hops).unwrap(),
        };
        let mut writer = Writer::new(ShardId(0), 0);
        writer.push(&message, &[seat], Instant::now());
        writer.finish().slice(HEADER..)
    }

    /// A message for the group.
    pub(super) fn of_group(job: usize, hops: u8) -> Self {
        Self {
            topic: job as u64,
            job: job as u64 + 1,
            hops: hops.into(),
            ..Self::default()
        }
    }

    pub(super) fn job(&self) -> Option<(usize, u8)> {
        let job = usize::try_from(self.job.checked_sub(1)?).ok()?;
        Some((job, u8::try_from(self.hops).ok()?))
    }

    /// The shard whose clients have subscribed.
    pub(super) fn shard(&self) -> u64 {
        self.topic % 2
    }

    pub(super) fn retained(&self) -> Option<Stamp> {
        Some(self.stamp).filter(|stamp| stamp.at > 0)
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
        for _ in 0..self.dice.roll(self.nature.haste) {
            let topic = self.dice.roll(filters);
            let is_retained = self.dice.hits(6);
            self.publish(node, topic, is_retained);
        }
        if self.nature.has_group {
            self.act_as_members(node);
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
        let filter = &self.nature.filters[usize::try_from(topic).unwrap()];
        let sender = &mut self.nodes[node];
        // Its clients wait.
        if sender.core.peers().any(|(_other, peer)| peer.is_full()) {
            return;
        }
        let stamp = if is_retained {
            self.published += 1;
            let is_deletion = self.dice.hits(3);
            let number = if is_deletion { 0 } else { self.published };
            let expires = if !is_deletion && self.dice.hits(4) {
                let soon = self.now + self.dice.millis(2000);
                u64::try_from(soon.as_millis()).unwrap()
            } else {
                0
            };
            sender.retained.publish(topic, number, expires, self.now)
        } else {
            Stamp::NONE
        };
        let peers = sender.core.peers().filter(|(_other, peer)| {
            let routes = sender.routes.get(&peer.slot);
            let has_filter = routes.is_some_and(|routes| routes.contains(filter));
            has_filter || is_retained && peer.is_alive()
        });
        let peers: Vec<_> = peers.map(|(_other, peer)| peer.slot).collect();
        let length = self.dice.roll(self.nature.longest);
        for slot in peers {
            let parcel = Parcel {
                topic,
                stamp,
                ..Parcel::default()
            };
            self.post(node, slot, parcel, length);
        }
    }

    /// Sends a message to the peer of a slot; the result is the number of its frame.
    pub(super) fn post(&mut self, node: usize, slot: u16, parcel: Parcel, length: u64) -> u64 {
        let now = self.start + self.now;
        let is_wild = self.mood == Mood::Wild && !self.nature.is_gentle;
        let sender = &mut self.nodes[node];
        let found = sender.core.peers().find(|(_other, peer)| peer.slot == slot);
        let (other, peer) = found.expect("who has filters was there");
        let (to, to_run, life) = (number(other), peer.incarnation / RUN, peer.life);
        let sequence = sender.sent.len() as u64;
        let lost_before = sender.losses.get(&to).copied().unwrap_or(0);
        sender.sent.push(Sent {
            to,
            to_run,
            lost_before,
            is_taken: false,
            outcome: None,
            passed: None,
        });
        let parcel = Parcel {
            from: node,
            run: sender.run,
            period: lost_before,
            life,
            sequence,
            ..parcel
        };
        let frame = FrameId {
            from: ShardId(0),
            sequence,
        };
        let is_poisoned = is_wild && self.dice.hits(400);
        let mut message = parcel.write(length, is_poisoned);
        if parcel.job > 0 {
            message = parcel.framed(message);
        }
        sender.core.handle_frame(slot, Some(frame), message, now);
        sequence
    }
}
