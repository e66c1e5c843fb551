//! The greeting: who may talk to this node, and where the streams of the two go on.

use std::time::{Duration, Instant};

use super::{Action, Core, LinkId, Mutant, Notice, PEERS, link::Link};
use crate::cluster::{
    LEASE, is_valid_node,
    peer::{Loss, Peer, Standing},
    telling::Turn,
    wire::{Hello, Malformed, Message, Refusal, Resume},
};

/// Hosts whose last refusal is remembered, so that it is logged once.
const MOST_REFUSED: usize = 64;

impl Core {
    pub(super) fn greet(&mut self, id: LinkId, hello: &Hello, now: Instant) {
        match self.judge(id, hello) {
            Ok(()) => self.admit(id, hello, now),
            Err(refusal) => {
                let called = self.links.get(&id).and_then(|link| link.called.as_ref());
                if let (Some(address), Refusal::Double) = (called, &refusal) {
                    self.calls.note_met(address, &hello.node, now);
                    self.calls.note_open(&hello.node, now);
                }
                self.refuse(id, refusal, now);
            }
        }
    }

    /// Whether the two may talk.
    fn judge(&self, id: LinkId, hello: &Hello) -> Result<(), Refusal> {
        let Hello {
            cluster,
            node,
            incarnation,
            port: _,
            lease_millis: _,
        } = hello;
        if **cluster != *self.me.cluster {
            return Err(Refusal::OtherCluster {
                theirs: cluster.clone(),
                ours: self.me.cluster.to_string(),
            });
        }
        let taken = Refusal::NameTaken { name: node.clone() };
        if **node == *self.me.node {
            let is_myself = *incarnation == self.me.incarnation;
            return Err(if is_myself { Refusal::Myself } else { taken });
        }
        let Some(peer) = self.peers.get(&**node) else {
            let is_full = self.free_slot().is_none();
            let most = usize::from(PEERS) + 1;
            return if is_full {
                Err(Refusal::Full { most })
            } else {
                Ok(())
            };
        };
        let Some(other) = peer.link.and_then(|other| self.links.get(&other)) else {
            return Ok(());
        };
        if peer.incarnation != *incarnation {
            return Err(taken);
        }
        let is_called = |link: Option<&Link>| link.is_some_and(|link| link.called.is_some());
        let (is_called, was_called) = (is_called(self.links.get(&id)), other.called.is_some());
        // Of two that both have called, the call of the first by name is the one that counts, so
        // that both decide alike. Who calls again has lost the connection before.
        let counts = is_called == was_called || is_called == (*self.me.node < **node);
        if counts { Ok(()) } else { Err(Refusal::Double) }
    }

    /// A slot for another node: a free one, or that of the node which is gone for longest. Where what its
    /// peer has passed on still waits the newcomer would wait for that too.
    fn free_slot(&self) -> Option<u16> {
        let is_free = |slot: &u16| self.peers.values().all(|peer| peer.slot != *slot);
        let is_used = |slot: &u16| !self.held[usize::from(*slot)].is_empty();
        let free = (0..PEERS).filter(is_free).min_by_key(is_used);
        free.or_else(|| {
            let gone = self.peers.values().filter(|peer| peer.is_replaceable());
            let gone = gone.min_by_key(|peer| (is_used(&peer.slot), peer.since));
            Some(gone?.slot)
        })
    }

    fn admit(&mut self, id: LinkId, hello: &Hello, now: Instant) {
        let node: Box<str> = hello.node.as_str().into();
        if !is_valid_node(&node) {
            self.close(id, Some(&Malformed.to_string()), now);
            return;
        }
        if let Some(peer) = self.peers.get(&node)
            && peer.incarnation != hello.incarnation
        {
            self.lose(&node, Loss::Restarted, now);
            if let Some(peer) = self.peers.get_mut(&node) {
                peer.forget_run(hello.incarnation);
            }
        }
        if !self.peers.contains_key(&node) {
            let Some(slot) = self.free_slot() else { return };
            self.peers.retain(|_node, peer| peer.slot != slot);
            self.streams += 1;
            let peer = Peer::new(slot, hello.incarnation, self.streams, now);
            self.peers.insert(node.clone(), peer);
        }
        let Some(peer) = self.peers.get_mut(&node) else {
            return;
        };
        peer.lease = Duration::from_millis(hello.lease_millis.into()).clamp(LEASE.0, LEASE.1);
        let patience = self.loss_spread();
        let Some((peer, link)) = self.peers.get_mut(&node).zip(self.links.get_mut(&id)) else {
            return;
        };
        link.peer = Some(node.clone());
        link.lease = peer.lease.max(self.lease);
        peer.host = link.host;
        peer.port = hello.port;
        peer.heard = now;
        let held = self.held.get(usize::from(peer.slot));
        link.is_choked = held.is_some_and(|held| held.is_choked(patience, now));
        let address = peer.address().to_string();
        let older = peer.link.replace(id);
        let resume = Message::Resume(Resume {
            stream: peer.out.stream(),
            heard: peer.inc.heard(),
            is_choked: link.is_choked,
            wants_retained: self.origin.wants(),
            time: self.time,
        });
        match &link.called {
            Some(called) => self.calls.note_met(called, &node, now),
            // Either end may lose the connection first, and can bring it back.
            None => self.calls.learn(&address, &node, now),
        }
        if let Some(older) = older {
            self.close(older, None, now);
        }
        self.send(id, &resume, now);
    }

    /// Goes on with both streams.
    pub(super) fn resume(&mut self, id: LinkId, node: &str, resume: &Resume, now: Instant) {
        let Some(peer) = self.peers.get_mut(node) else {
            return;
        };
        let goes_on = peer.inc.heard().map(|(stream, _received)| stream) == Some(resume.stream);
        let is_choked = self.links.get(&id).is_some_and(|link| link.is_choked);
        if is_choked && !goes_on {
            let was_alive = peer.is_alive();
            self.refuse(id, Refusal::Choked, now);
            // It has given up this node, and cannot be told anything meanwhile.
            if was_alive {
                self.lose(node, Loss::Choked, now);
            }
            return;
        }
        // A stream of which the other end knows nothing can only begin.
        let received = match resume.heard {
            Some((stream, received)) if stream == peer.out.stream() => received,
            // It is about to refuse.
            Some(_) | None if resume.is_choked => return,
            Some(_) | None => 0,
        };
        let before = peer.out.reached();
        if !peer.out.resume(received) {
            self.lose(node, Loss::OutOfStep, now);
            return;
        }
        // One that fails at the same item each time, and calls again, is as stuck as one that hangs.
        if peer.out.reached() > before {
            peer.progress = now;
        }
        // One that begins another stream has given this node up. Its own goes on, but what the other end
        // had of sessions has become sessions there.
        let is_forsaken = peer.is_alive() && peer.inc.heard().is_some() && !goes_on;
        if is_forsaken {
            peer.telling.handle_forsaken();
        }
        // One of the two asks, and the other one answers.
        let asks = self.origin.wants_of(node) || *self.me.node < *node;
        if asks && (is_forsaken || !peer.is_alive()) {
            peer.telling.say_sums(Turn::Question);
        }
        if is_forsaken && !Mutant::KeepsLife.is_on() {
            self.streams += 1;
            peer.begin_life(self.streams, now);
            let slot = peer.slot;
            let node = node.into();
            self.actions.push_back(Action::Forsaken { slot });
            self.actions
                .push_back(Action::Note(Notice::Forsaken { node }));
        }
        // Before it is there for this node's clients: what they publish then is the last.
        self.actions.push_back(Action::SeeTime(resume.time));
        self.epochs += 1;
        peer.inc.begin(resume.stream, self.epochs);
        peer.began_with_nothing = resume.wants_retained;
        if let Some(link) = self.links.get_mut(&id) {
            link.is_open = true;
            self.refused.remove(&link.host);
        }
        self.calls.note_open(node, now);
        if !peer.is_alive() {
            peer.set_standing(Standing::Alive, now);
            let slot = peer.slot;
            // Those of a peer that was held for gone, and was not.
            for change in peer.routes.iter() {
                self.actions.push_back(Action::Route { slot, change });
            }
            self.actions.push_back(Action::Note(Notice::Joined {
                node: node.into(),
                address: peer.address().to_string(),
            }));
        }
        self.name_members(node, now);
    }

    pub(super) fn refuse(&mut self, id: LinkId, refusal: Refusal, now: Instant) {
        let Some(link) = self.links.get(&id) else {
            return;
        };
        let (host, is_quiet) = (link.host, refusal.is_quiet());
        self.send(id, &Message::Refusal(refusal.clone()), now);
        let called = self.links.get(&id).and_then(|link| link.called.clone());
        if let (Some(address), Refusal::Myself) = (&called, &refusal) {
            self.calls.note_own(address);
        }
        // Whoever calls does so again and again.
        let is_news = self.refused.insert(host, refusal.clone()).as_ref() != Some(&refusal);
        if self.refused.len() > MOST_REFUSED {
            self.refused.clear();
        }
        if !is_quiet && is_news && called.is_none() {
            self.actions.push_back(Action::Note(Notice::Refused {
                host,
                refusal: refusal.clone(),
            }));
        }
        let trouble = refusal.to_string();
        self.close(id, (!is_quiet).then_some(&*trouble), now);
    }

    /// The other end does not want to talk.
    pub(super) fn handle_refusal(&mut self, id: LinkId, refusal: &Refusal, now: Instant) {
        let link = self.links.get(&id);
        let called = link.and_then(|link| link.called.clone());
        if let (Some(address), Refusal::Myself) = (&called, refusal) {
            self.calls.note_own(address);
        }
        let trouble = format!("it refuses this node: {refusal}");
        self.close(id, (!refusal.is_quiet()).then_some(&*trouble), now);
    }
}
