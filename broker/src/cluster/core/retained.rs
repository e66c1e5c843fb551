//! How nodes come to have the same retained messages: they tell each other sums of them, and what
//! differs ([`crate::cluster::telling`]). Which message is a topic's last is not decided here.

use std::time::Instant;

use bytes::Bytes;

use super::{Action, BEATS, Core, Mutant, Peer};
use crate::{
    cluster::telling::Turn,
    retained::{Buckets, Sums},
};

/// What others are to be asked for.
#[derive(Debug)]
pub(super) struct News {
    /// Not before then.
    due: Instant,
    /// What was told should have come from who has published it, and did not.
    is_missing: bool,
}

impl News {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            due: now,
            is_missing: false,
        }
    }
}

impl Core {
    /// Has the node wait for what others have retained, as it has nothing.
    pub(in crate::cluster) fn want_retained(&mut self) {
        self.origin.want();
    }

    /// Whether somebody is there who may have what it waits for.
    pub(super) fn wants_retained(&self) -> bool {
        let mut alive = self.peers().filter(|(_node, peer)| peer.is_alive());
        alive.any(|(node, _peer)| self.origin.wants_of(node))
    }

    /// Whether the node has from others what it is to begin with, or there is nobody to have it from.
    pub(in crate::cluster) fn is_settled(&self) -> bool {
        self.origin.is_settled()
    }

    fn peer_of(&mut self, slot: u16) -> Option<&mut Peer> {
        self.peers.values_mut().find(|peer| peer.slot == slot)
    }

    /// Has read what peers are to be told of it.
    pub(super) fn pump_retained(&mut self, now: Instant) {
        let is_settled = self.origin.is_settled();
        let patience = self.lease / BEATS;
        let mut alive = self.peers.values().filter(|peer| peer.is_alive());
        let tells = |peer: &Peer| peer.inc.is_telling() || peer.telling.is_asked(patience, now);
        // Who begins with nothing is told all by one peer, and by others what that did not have.
        let mut is_served = !is_settled && alive.any(tells);
        for peer in self.peers.values_mut().filter(|peer| peer.is_alive()) {
            let slot = peer.slot;
            if !is_served && peer.poll_sums(now) {
                is_served = !is_settled;
                self.actions.push_back(Action::SumRetained { slot });
            }
            // Who waits for an answer itself leaves the question to others.
            if !is_settled {
                continue;
            }
            if let Some(sums) = peer.telling.question.take() {
                let turn = Turn::Question;
                self.actions
                    .push_back(Action::CompareRetained { slot, turn, sums });
            }
            peer.push_ends();
            let page = peer.poll_retained();
            let read = page.map(|(buckets, after)| Action::ReadRetained {
                slot,
                buckets,
                after,
            });
            self.actions.extend(read);
        }
    }

    /// Has a peer told the sums that were asked for.
    pub(in crate::cluster) fn handle_sums(&mut self, slot: u16, sums: &Sums) {
        if let Some(peer) = self.peer_of(slot) {
            peer.push_sums(sums);
        }
    }

    /// What a peer has differs in these buckets.
    pub(in crate::cluster) fn handle_compared(&mut self, slot: u16, turn: Turn, buckets: Buckets) {
        let Some(peer) = self.peer_of(slot) else {
            return;
        };
        match turn {
            Turn::Question => peer.telling.answer(buckets),
            Turn::Answer => peer.telling.tell(buckets),
        }
    }

    /// Puts retained messages into the stream of a peer; `next` is where the next ones are.
    pub(in crate::cluster) fn handle_retained(
        &mut self,
        slot: u16,
        messages: Bytes,
        next: Option<Box<str>>,
    ) {
        if let Some(peer) = self.peer_of(slot) {
            peer.push_retained(messages, next);
        }
    }

    /// A peer has told what the others may not have either.
    pub(in crate::cluster) fn handle_news(&mut self, slot: u16) {
        if let Some(peer) = self.peer_of(slot) {
            peer.telling.has_news = true;
        }
    }

    /// Others may not have what should have come to this node, too.
    pub(in crate::cluster) fn handle_missing(&mut self) {
        self.news.is_missing = true;
    }

    /// Asks others when who has news has told all of them, and not more often than once in a lease: what
    /// there is to ask for adds up meanwhile.
    pub(super) fn spread_news(&mut self, now: Instant) {
        if now < self.news.due {
            return;
        }
        let peers = self.peers.values_mut();
        let mut slots = Vec::new();
        for peer in peers.filter(|peer| peer.telling.has_news && !peer.inc.is_telling()) {
            peer.telling.has_news = false;
            slots.push(peer.slot);
        }
        let is_missing = std::mem::take(&mut self.news.is_missing);
        if slots.is_empty() && !is_missing {
            return;
        }
        self.news.due = now + self.lease;
        if !Mutant::KeepsNews.is_on() {
            // Of several each may lack what the others have told.
            self.ask_others(|peer| is_missing || slots != [peer.slot]);
        }
    }

    /// Asks peers for what they have and this node has not, and tells them the reverse.
    pub(super) fn ask_others(&mut self, who: impl Fn(&Peer) -> bool) {
        for peer in self.peers.values_mut() {
            if peer.is_alive() && who(peer) {
                peer.telling.say_sums(Turn::Question);
            }
        }
    }
}
