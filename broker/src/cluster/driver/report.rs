//! What the thread tells the rest of the node, and the log.

use std::{cell::RefCell, net::IpAddr, sync::atomic::Ordering, time::Instant};

use tracing::{info, warn};

use super::Driver;
use crate::{
    cluster::{
        claims::Fellow,
        core::Notice,
        peer::Loss,
        sized,
        slot::Slot,
        view::{MemberView, MetView, TroubleView},
    },
    events::Event,
    metrics::Metric,
    replica::{self, hash_of, place::Place},
};

/// Bytes that wait for a peer before messages of QoS 0 for it are dropped.
const SLOW: usize = sized(16 * 1024 * 1024);

impl Driver {
    /// Notes a caller that has not shown that it has the key.
    pub(in crate::cluster) fn note_stranger(driver: &RefCell<Self>, host: IpAddr, trouble: &str) {
        let state = &mut *driver.borrow_mut();
        state.counters.inc(Metric::ClusterRefused);
        let told = Some((host, trouble.to_owned()));
        if state.stranger != told
            && let Some(others) = state.herald.speak(Instant::now())
        {
            warn!(%host, trouble, others, "a caller of the cluster's port was not let in");
            let cause = trouble.to_owned();
            let event = Event::StrangerRefused { host, cause };
            state.shared.events.tell(&event);
            state.stranger = told;
        }
    }

    pub(super) fn note(&self, notice: Notice) {
        match notice {
            Notice::Joined { node, address } => {
                self.counters.inc(Metric::ClusterJoined);
                info!(%node, address, "node joined");
                self.shared
                    .events
                    .tell(&Event::NodeJoined { node, address });
            }
            Notice::Lost { node, loss } => {
                self.counters.inc(Metric::ClusterLost);
                warn!(%node, %loss, "node is gone");
                let cause = loss.to_string();
                let is_meant = matches!(loss, Loss::Farewell | Loss::Parted | Loss::Left);
                self.shared.events.tell(&if is_meant {
                    Event::NodeLeft { node, cause }
                } else {
                    Event::NodeLost { node, cause }
                });
            }
            Notice::Forsaken { node } => {
                warn!(%node, "the node had held this one for gone");
            }
            Notice::Refused { host, refusal } => {
                self.counters.inc(Metric::ClusterRefused);
                warn!(%host, %refusal, "a node was not let in");
                let cause = refusal.to_string();
                self.shared.events.tell(&Event::NodeRefused { host, cause });
            }
            Notice::Trouble { address, trouble } => {
                warn!(%address, %trouble, "no connection to a node");
                self.shared
                    .events
                    .tell(&Event::NodeUnreachable { address, trouble });
            }
        }
    }

    pub(super) fn publish_masks(&mut self) {
        let (mut alive, mut slow) = (0_u16, 0_u16);
        let mut is_behind = false;
        let mut is_drained = true;
        let (mut fellows, mut living) = (Vec::new(), Vec::new());
        for (node, peer) in self.core.peers().filter(|(_node, peer)| peer.is_alive()) {
            alive |= 1 << peer.slot;
            let end = self.cluster.end(peer.slot);
            let life = peer.life;
            fellows.push(Fellow { end, life });
            let (place, node) = (Place { end, life }, hash_of(node));
            living.push(replica::place::Peer { place, node });
            is_drained &= peer.out.bytes() == 0;
            if peer.out.bytes() > SLOW {
                slow |= 1 << peer.slot;
            }
            is_behind |= peer.promised.bytes() > SLOW;
        }
        // What waits for a burial stops a lane as well, and a burial may wait for another node's.
        for bytes in self.slots.iter().map(Slot::parked_bytes) {
            is_behind |= bytes > SLOW;
            is_drained &= bytes == 0;
        }
        self.cluster.alive.store(alive, Ordering::Release);
        self.cluster.set_lease(self.core.longest_lease());
        self.cluster.slow.store(slow, Ordering::Relaxed);
        self.cluster.is_behind.store(is_behind, Ordering::Relaxed);
        let known = self.core.known();
        self.cluster.known.send_if_modified(|current| {
            let is_other = *current != known;
            *current = known;
            is_other
        });
        self.cluster.fellows.send_if_modified(|current| {
            let is_other = *current != fellows;
            *current = fellows;
            is_other
        });
        self.cluster.living.send_if_modified(|current| {
            let is_other = *current != living;
            *current = living;
            is_other
        });
        // Behind who is there: those who have waited for it are to ask all of them.
        let has_looked = self.core.has_looked();
        self.cluster
            .looked
            .send_if_modified(|current| std::mem::replace(current, has_looked) != has_looked);
        self.work.room.notify_waiters();
        if is_drained {
            for drain in self.drains.drain(..) {
                // Whoever waited may have given up.
                let _ = drain.send(());
            }
        }
    }

    pub(super) fn publish_view(&self, now: Instant) {
        let members = self.core.peers();
        let members = members
            .map(|(node, peer)| MemberView::new(node, peer, now))
            .collect();
        let troubles = self
            .core
            .calls()
            .iter()
            .filter_map(|(address, _node, trouble)| {
                Some(TroubleView {
                    address: address.to_owned(),
                    trouble: trouble?.to_owned(),
                })
            });
        let troubles = troubles.collect();
        let met = self
            .core
            .calls()
            .iter()
            .filter_map(|(address, node, _trouble)| {
                Some(MetView {
                    address: address.to_owned(),
                    node: node?.to_owned(),
                })
            });
        let met = met.collect();
        self.cluster
            .settled
            .store(self.core.is_settled(), Ordering::Release);
        let metrics = &self.shared.metrics;
        self.cluster.view.send_modify(|view| {
            view.copied_sessions = metrics.get(Metric::CopiedSessions);
            view.bare_sessions = metrics.get(Metric::BareSessions);
            view.copies = metrics.get(Metric::Copies);
            view.copy_bytes = metrics.get(Metric::CopyBytes);
            view.left = self.core.has_left();
            view.members = members;
            view.met = met;
            view.troubles = troubles;
        });
    }
}
