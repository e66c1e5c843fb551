//! What must hold of simulated nodes.

use super::*;
use crate::cluster::pair::WINDOW;

impl World {
    /// What a publisher hears is true.
    pub(super) fn confirm(&mut self, node: usize, sequence: u64, outcome: Outcome) {
        let run = self.nodes[node].run;
        let sent = &mut self.nodes[node].sent[usize::try_from(sequence).unwrap()];
        assert_eq!(sent.outcome, None, "confirmed twice");
        sent.outcome = Some(outcome);
        let (to, to_run) = (sent.to, sent.to_run);
        match outcome {
            Outcome::Taken => {
                let delivered = if self.nodes[to].run == to_run {
                    &self.nodes[to].delivered
                } else {
                    &self.dead[&(to, to_run)]
                };
                let had = delivered.get(&(node, run));
                let is_there = had.is_some_and(|had| had.contains(&sequence));
                assert!(is_there, "taken by nobody");
            }
            // The notice of a loss follows those of what was lost with it.
            Outcome::Gone => {
                self.nodes[node].gone.push(sequence);
                self.await_burial(node, sequence);
            }
        }
    }

    /// What must hold whenever a node has done what there was to do.
    pub(super) fn check_settled(&mut self, node: usize) {
        let state = &mut self.nodes[node];
        for sequence in std::mem::take(&mut state.gone) {
            let sent = &state.sent[usize::try_from(sequence).unwrap()];
            let losses = state.losses.get(&sent.to).copied().unwrap_or(0);
            assert!(losses > sent.lost_before, "gone, and nobody was");
        }
        let most = state.held.values().max();
        assert!(
            most.is_none_or(|held| *held <= 2 * WINDOW),
            "too much of a peer"
        );
        let known = state.core.known();
        if std::mem::replace(&mut state.known, known) != known {
            self.check_known(node, known);
        }
        self.check_answers(node);
    }

    /// What a SUBACK says: nodes that hold each other for alive know of the filter.
    fn check_known(&self, node: usize, known: u64) {
        let state = &self.nodes[node];
        for (other, _peer) in state.core.peers().filter(|(_other, peer)| peer.is_alive()) {
            let theirs = &self.nodes[number(other)];
            let me = theirs.core.peers.get(&name(node));
            let Some(me) = me.filter(|me| me.is_alive()) else {
                continue;
            };
            let routes = theirs.routes.get(&me.slot);
            let mut told = state.added.iter().filter(|(_, version)| **version <= known);
            let knows = |filter| routes.is_some_and(|routes| routes.contains(filter));
            assert!(told.all(|(filter, _)| knows(filter)), "held for known");
        }
    }

    /// When all is calm, everybody knows everybody, and everything.
    pub(super) fn check(&self) {
        for (number, node) in self.nodes.iter().enumerate() {
            for other in (0..self.nodes.len()).filter(|other| *other != number) {
                self.check_pair(number, other);
            }
            assert!(node.core.known() >= node.table.version());
            assert!(node.core.is_settled());
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
            if self.nature.is_gentle {
                assert_eq!(
                    node.losses,
                    BTreeMap::new(),
                    "{number} lost them for nothing"
                );
            }
        }
        self.check_jobs();
        self.check_retained(self.nodes.len());
    }

    fn check_pair(&self, number: usize, other: usize) {
        let (node, theirs) = (&self.nodes[number], &self.nodes[other]);
        let peer = node.core.peers.get(&name(other));
        let peer = peer.unwrap_or_else(|| panic!("{number} does not know {other}"));
        let standing = peer.standing;
        assert!(peer.is_alive(), "{number} holds {other} for {standing:?}");
        let routes = node.routes.get(&peer.slot).cloned().unwrap_or_default();
        let filters = theirs.table.filters();
        assert!(routes == filters, "routes of {other} at {number}");
        assert_eq!(peer.routes.len(), routes.len());
        let void = theirs.void.get(&(number, node.run));
        assert!(
            void.is_none_or(|void| *void < peer.life),
            "{number} counts on copies that {other} does not have"
        );
        assert_eq!(node.room_of(peer.slot), theirs.told_room());
        assert_eq!(peer.out.bytes(), 0, "{number} has not sent all to {other}");
    }

    /// So many nodes have the same retained messages, whatever had parted them.
    pub(super) fn check_retained(&self, count: usize) {
        let first = &self.nodes[0].retained;
        let messages = first.messages(self.now);
        for (number, node) in self.nodes.iter().enumerate().take(count) {
            let kept = node.retained.messages(self.now);
            assert_eq!(kept, messages, "what {number} has retained");
            assert_eq!(node.retained.sums(), first.sums(), "sums of {number}");
        }
    }
}
