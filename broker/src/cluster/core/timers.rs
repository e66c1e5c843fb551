//! What time brings about: silence, calls, and members that are named to each other.

use std::time::{Duration, Instant};

use super::{Action, Core, Mutant, link::Link, origin::Others};
use crate::cluster::{
    LEASE,
    peer::{Loss, Peer},
    wire::{Member, Message},
};

/// A node that is gone for so long is forgotten.
const FORGET: Duration = Duration::from_secs(3600);

/// Leases between two times that members are named to each other.
const GOSSIP: u32 = 5;

impl Core {
    pub(in crate::cluster) fn handle_timeout(&mut self, now: Instant) {
        let silent = |heard: Instant| now.saturating_duration_since(heard);
        let links = self.links.iter();
        let quiet: Vec<_> = links
            .filter(|(_id, link)| {
                // A stranger gets the time that a greeting may take.
                let patience = if link.peer.is_some() {
                    link.lease / 2
                } else {
                    link.lease
                };
                silent(link.heard) > patience
            })
            .map(|(id, _link)| *id)
            .collect();
        for id in quiet {
            self.close(id, Some("it does not answer"), now);
        }
        let patience = 2 * self.longest_lease();
        let mut lost = Vec::new();
        for (node, peer) in self.peers.iter().filter(|(_node, peer)| peer.is_alive()) {
            let lease = if Mutant::JudgesAlone.is_on() {
                self.lease
            } else {
                peer.lease.max(self.lease)
            };
            if silent(peer.heard) > lease {
                lost.push((node.clone(), Loss::Silent));
            } else if peer.is_stuck(patience, now) {
                lost.push((node.clone(), Loss::Stuck));
            }
        }
        for (node, loss) in lost {
            self.lose(&node, loss, now);
        }
        self.peers.retain(|_node, peer| {
            peer.is_alive() || peer.link.is_some() || silent(peer.since) < FORGET
        });
        self.parted.retain(|_host, since| silent(*since) < FORGET);
        let alive = self.peers.values().filter(|peer| peer.is_alive());
        let others = match alive.map(|peer| peer.inc.is_telling()).max() {
            Some(true) => Others::Tell,
            Some(false) if self.wants_retained() => Others::Silent,
            Some(false) => Others::Told,
            None if self.calls.are_in_vain() => Others::Nobody,
            None => Others::Sought,
        };
        self.origin.handle_timeout(others, 3 * self.lease, now);
        self.spread_news(now);
        for peer in self.peers.values_mut() {
            peer.telling.handle_timeout();
        }
        self.call(now);
        if self.gossip_due <= now {
            self.gossip_due = now + GOSSIP * self.lease;
            let nodes: Vec<_> = self.peers.keys().cloned().collect();
            for node in nodes {
                self.name_members(&node, now);
            }
        }
        self.look_round(now);
    }

    /// Takes note when all whom the node calls are there, or cannot be reached. Sessions of clients that
    /// come before may be with one of them. It is not asked when a peer is met, but at the next beat:
    /// those whom that one names are to be met as well. One that takes its time is waited for as long as a
    /// claim would wait for it.
    fn look_round(&mut self, now: Instant) {
        let patience = 2 * self.longest_lease();
        let is_over = now.saturating_duration_since(self.begun) >= patience;
        let peers = &self.peers;
        let is_there = |node: &str| peers.get(node).is_some_and(Peer::is_alive);
        let are_tried = self.calls.are_tried(is_there);
        self.has_looked |= is_over || are_tried;
    }

    pub(super) fn call(&mut self, now: Instant) {
        if self.has_left {
            return;
        }
        let peers = &self.peers;
        let is_met = |node: &str| peers.get(node).is_some_and(|peer| peer.link.is_some());
        let due = self.calls.due(now, is_met);
        self.actions.extend(due.into_iter().map(Action::Call));
    }

    /// Tells a peer whom else this node is connected to.
    pub(super) fn name_members(&mut self, node: &str, now: Instant) {
        let Some(id) = self.peers.get(node).and_then(|peer| peer.link) else {
            return;
        };
        let others = self
            .peers
            .iter()
            .filter(|(other, peer)| &***other != node && peer.is_alive() && peer.link.is_some());
        let members: Vec<_> = others
            .map(|(other, peer)| Member {
                node: other.to_string(),
                host: peer.host,
                port: peer.port,
            })
            .collect();
        if !members.is_empty() && self.links.get(&id).is_some_and(|link| link.is_open) {
            self.send(id, &Message::Members(members), now);
        }
    }

    /// How long the next timeout may be away. A peer that comes in between may have less patience than
    /// those who are there.
    pub(in crate::cluster) fn beat(&self) -> Duration {
        let beats = self.links.values().map(Link::beat);
        beats.fold(LEASE.0 / 4, Duration::min)
    }
}
