//! What the clients of simulated nodes do, and what they may expect.

use super::{super::*, Outcome, RUN, Sent, World, name};
use crate::routes::ShardId;

impl World {
    /// Clients subscribe, unsubscribe and publish.
    pub(super) fn act_as_users(&mut self, node: usize) {
        let filter = format!("t/{}", self.dice.roll(5));
        if self.dice.roll(4) == 0 {
            let table = &mut self.nodes[node].table;
            if !table.remove(&filter) {
                table.add(&filter);
            }
        }
        for _ in 0..self.dice.roll(4) {
            let topic = format!("t/{}", self.dice.roll(5));
            self.publish(node, &topic);
        }
    }

    /// What a shard does: the message goes to each peer that has the filter.
    fn publish(&mut self, node: usize, topic: &str) {
        let now = self.start + self.now;
        let peers = self.nodes[node].core.peers();
        let peers: Vec<_> = peers
            .map(|(other, peer)| {
                (
                    other[1..].parse::<usize>().unwrap(),
                    peer.slot,
                    peer.incarnation / RUN,
                )
            })
            .collect();
        for (to, slot, to_run) in peers {
            let sender = &mut self.nodes[node];
            if !sender
                .routes
                .get(&slot)
                .is_some_and(|routes| routes.contains(topic))
            {
                continue;
            }
            let sequence = sender.sent.len() as u64;
            sender.sent.push(Sent {
                to,
                to_run,
                lost_before: sender.losses.get(&to).copied().unwrap_or(0),
                outcome: None,
            });
            let message = [node as u64, sender.run, sequence]
                .map(u64::to_be_bytes)
                .concat();
            let frame = FrameId {
                from: ShardId(0),
                sequence,
            };
            sender
                .core
                .handle_frame(slot, Some(frame), message.into(), now);
        }
    }

    pub(super) fn deliver(&mut self, node: usize, message: &[u8]) {
        let field = |at: usize| u64::from_be_bytes(message[8 * at..8 * at + 8].try_into().unwrap());
        let (from, run, number) = (usize::try_from(field(0)).unwrap(), field(1), field(2));
        let had = self.nodes[node].delivered.entry((from, run)).or_default();
        assert!(
            had.last().is_none_or(|last| *last < number),
            "out of order, or twice"
        );
        had.insert(number);
    }

    pub(super) fn confirm(&mut self, node: usize, sequence: u64, outcome: Outcome) {
        let run = self.nodes[node].run;
        let losses = self.nodes[node].losses.clone();
        let sent = &mut self.nodes[node].sent[usize::try_from(sequence).unwrap()];
        assert_eq!(sent.outcome, None, "confirmed twice");
        sent.outcome = Some(outcome);
        let (to, to_run, lost_before) = (sent.to, sent.to_run, sent.lost_before);
        match outcome {
            Outcome::Taken => {
                let delivered = if self.nodes[to].run == to_run {
                    &self.nodes[to].delivered
                } else {
                    &self.dead[&(to, to_run)]
                };
                let had = delivered.get(&(node, run));
                assert!(
                    had.is_some_and(|had| had.contains(&sequence)),
                    "taken by nobody"
                );
            }
            // The notice of a loss follows those of what was lost with it.
            Outcome::Gone => assert!(losses.get(&to).copied().unwrap_or(0) >= lost_before),
        }
    }

    /// When all is calm, everybody knows everybody, and everything.
    pub(super) fn check(&mut self) {
        for (number, node) in self.nodes.iter().enumerate() {
            for (other, theirs) in self
                .nodes
                .iter()
                .enumerate()
                .filter(|(other, _)| *other != number)
            {
                let name = name(other);
                let peer = node.core.peers.get(&name);
                let peer = peer.unwrap_or_else(|| panic!("{number} does not know {other}"));
                assert!(
                    peer.is_alive(),
                    "{number} holds {other} for {:?}",
                    peer.standing
                );
                let routes = node.routes.get(&peer.slot).cloned().unwrap_or_default();
                assert_eq!(
                    routes,
                    theirs.table.filters(),
                    "routes of {other} at {number}"
                );
                assert_eq!(peer.routes.len(), routes.len());
                assert_eq!(peer.out.bytes(), 0, "{number} has not sent all to {other}");
            }
            assert!(node.core.known() >= node.table.version());
            let lost = node.sent.iter().filter(|sent| sent.outcome.is_none());
            assert_eq!(lost.count(), 0, "frames of {number} that nobody confirmed");
            let survivors = node.sent.iter().enumerate().filter(|(_, sent)| {
                let losses = node.losses.get(&sent.to).copied().unwrap_or(0);
                losses == sent.lost_before
            });
            for (sequence, sent) in survivors {
                assert_eq!(sent.outcome, Some(Outcome::Taken), "lost while both lived");
                let delivered = &self.nodes[sent.to].delivered[&(number, node.run)];
                assert!(delivered.contains(&(sequence as u64)));
            }
        }
    }
}
