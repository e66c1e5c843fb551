//! One connection: from the greeting to what it carries.

use std::{net::IpAddr, time::Instant};

use bytes::Bytes;

use super::{Action, Core, LinkId, Notice, PEERS};
use crate::{
    cluster::{
        is_valid_node,
        pair::{Arrival, Token},
        peer::{Loss, Peer, Standing},
        wire::{
            Change, Hello, Item, Malformed, Member, Message, PROTOCOL, Parting, Refusal, Resume,
        },
    },
    lanes::Level,
    topic,
};

/// Hosts whose last refusal is remembered, so that it is logged once.
const MOST_REFUSED: usize = 64;

#[derive(Debug)]
pub(super) struct Link {
    pub(super) heard: Instant,
    pub(super) said: Instant,
    /// The address that was called, if this node has called.
    called: Option<Box<str>>,
    host: IpAddr,
    /// Who has greeted.
    pub(super) peer: Option<Box<str>>,
    /// Both have said where they go on.
    pub(super) is_open: bool,
}

impl Core {
    /// Greets at the other end of a connection; `called` is the address if this node has called.
    pub(crate) fn handle_connected(
        &mut self,
        id: LinkId,
        called: Option<Box<str>>,
        host: IpAddr,
        now: Instant,
    ) {
        let link = Link {
            heard: now,
            said: now,
            called,
            host,
            peer: None,
            is_open: false,
        };
        self.links.insert(id, link);
        if self.has_left {
            self.refuse(id, Refusal::Left, now);
        } else {
            let hello = Message::Hello(self.hello());
            self.send(id, &hello, now);
        }
    }

    /// Notes that a call came to nothing.
    pub(crate) fn handle_call_failed(&mut self, address: &str, trouble: &str, now: Instant) {
        self.note_ended(address, Some(trouble), now);
    }

    /// Notes that a connection has ended.
    pub(crate) fn handle_closed(&mut self, id: LinkId, trouble: Option<&str>, now: Instant) {
        let Some(link) = self.links.remove(&id) else {
            return;
        };
        if let Some(peer) = link.peer.and_then(|node| self.peers.get_mut(&node))
            && peer.link == Some(id)
        {
            peer.link = None;
        }
        if let Some(address) = link.called {
            self.note_ended(&address, trouble, now);
        }
    }

    fn note_ended(&mut self, address: &str, trouble: Option<&str>, now: Instant) {
        if self.calls.handle_ended(address, trouble, now)
            && let Some(trouble) = trouble
        {
            self.actions.push_back(Action::Note(Notice::Trouble {
                address: address.into(),
                trouble: trouble.into(),
            }));
        }
    }

    /// Ends a connection.
    pub(super) fn close(&mut self, id: LinkId, trouble: Option<&str>, now: Instant) {
        if self.links.contains_key(&id) {
            self.actions.push_back(Action::Close(id));
            self.handle_closed(id, trouble, now);
        }
    }

    /// Notes that some bytes of a message have come: who sends a long one is not silent.
    pub(crate) fn handle_part(&mut self, id: LinkId, now: Instant) {
        let Some(link) = self.links.get_mut(&id) else {
            return;
        };
        // A stranger has to say something.
        if let Some(node) = &link.peer {
            link.heard = now;
            if let Some(peer) = self.peers.get_mut(node) {
                peer.heard = now;
            }
        }
    }

    /// Takes in what has come over a connection.
    pub(crate) fn handle_message(&mut self, id: LinkId, bytes: Bytes, now: Instant) {
        let Some(link) = self.links.get_mut(&id) else {
            return;
        };
        link.heard = now;
        let peer = link.peer.clone();
        let is_open = link.is_open;
        if let Some(peer) = peer.as_ref().and_then(|node| self.peers.get_mut(node)) {
            peer.heard = now;
        }
        let understood = match (Message::decode(bytes), peer) {
            (Ok(Message::Hello(hello)), None) => {
                self.greet(id, &hello, now);
                Ok(())
            }
            (Ok(Message::Foreign(theirs)), None) => {
                let ours = PROTOCOL;
                self.refuse(id, Refusal::Protocol { theirs, ours }, now);
                Ok(())
            }
            (Ok(Message::Refusal(refusal)), _) => {
                self.handle_refusal(id, &refusal, now);
                Ok(())
            }
            (Ok(Message::Resume(resume)), Some(node)) if !is_open => {
                self.resume(id, &node, &resume, now);
                Ok(())
            }
            (Ok(message), Some(node)) if is_open => self.handle_talk(&node, message, now),
            (Ok(Message::Farewell(_)), _) => {
                self.close(id, None, now);
                Ok(())
            }
            (Ok(_) | Err(Malformed), _) => Err(Malformed),
        };
        if let Err(error) = understood {
            self.close(id, Some(&error.to_string()), now);
        }
    }

    fn greet(&mut self, id: LinkId, hello: &Hello, now: Instant) {
        match self.judge(id, hello) {
            Ok(()) => self.admit(id, hello, now),
            Err(refusal) => {
                let called = self.links.get(&id).and_then(|link| link.called.as_ref());
                if let (Some(address), Refusal::Double) = (called, &refusal) {
                    self.calls.note_met(address, &hello.node, now);
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

    /// A slot for another node: a free one, or that of the node which is gone for longest.
    fn free_slot(&self) -> Option<u16> {
        let is_free = |slot: &u16| self.peers.values().all(|peer| peer.slot != *slot);
        (0..PEERS).find(is_free).or_else(|| {
            let gone = self.peers.values().filter(|peer| peer.is_replaceable());
            Some(gone.min_by_key(|peer| peer.since)?.slot)
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
        let Some((peer, link)) = self.peers.get_mut(&node).zip(self.links.get_mut(&id)) else {
            return;
        };
        link.peer = Some(node.clone());
        peer.host = link.host;
        peer.port = hello.port;
        peer.heard = now;
        let address = peer.address().to_string();
        let older = peer.link.replace(id);
        let resume = Message::Resume(Resume {
            stream: peer.out.stream(),
            heard: peer.inc.heard(),
            wants_retained: self.wants_retained,
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
    fn resume(&mut self, id: LinkId, node: &str, resume: &Resume, now: Instant) {
        let Some(peer) = self.peers.get_mut(node) else {
            return;
        };
        // A stream of which the other end knows nothing can only begin.
        let received = match resume.heard {
            Some((stream, received)) if stream == peer.out.stream() => received,
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
        self.epochs += 1;
        peer.inc.begin(resume.stream, self.epochs);
        if resume.wants_retained {
            peer.want_retained();
        }
        if let Some(link) = self.links.get_mut(&id) {
            link.is_open = true;
        }
        if !peer.is_alive() {
            peer.set_standing(Standing::Alive, now);
            let slot = peer.slot;
            // Those of a peer that was held for gone, and was not.
            for filter in peer.routes.iter() {
                let change = Change::Added(filter.clone());
                self.actions.push_back(Action::Route { slot, change });
            }
            self.actions.push_back(Action::Note(Notice::Joined {
                node: node.into(),
                address: peer.address().to_string(),
            }));
        }
        self.name_members(node, now);
    }

    /// Takes in what a member says.
    fn handle_talk(&mut self, node: &str, message: Message, now: Instant) -> Result<(), Malformed> {
        match message {
            Message::Taken(up_to) => self.handle_taken(node, up_to, now),
            Message::Safe(up_to) => self.handle_promise(node, up_to),
            Message::Item(number, item) => self.handle_item(node, number, item),
            Message::Members(members) => {
                for Member { node, host, port } in members {
                    let is_known = self
                        .peers
                        .get(&*node)
                        .is_some_and(|peer| peer.link.is_some());
                    if node != *self.me.node && !is_known {
                        let address = std::net::SocketAddr::new(host, port).to_string();
                        self.calls.learn(&address, &node, now);
                    }
                }
                Ok(())
            }
            Message::Farewell(parting) => {
                let loss = match parting {
                    Parting::Stops => Loss::Farewell,
                    Parting::Leaves => Loss::Parted,
                };
                self.lose(node, loss, now);
                self.calls.forget(node);
                self.peers.remove(node);
                Ok(())
            }
            Message::Hello(_) | Message::Foreign(_) | Message::Refusal(_) | Message::Resume(_) => {
                Err(Malformed)
            }
        }
    }

    fn handle_taken(&mut self, node: &str, up_to: u64, now: Instant) -> Result<(), Malformed> {
        let Some(peer) = self.peers.get_mut(node) else {
            return Ok(());
        };
        let tokens = peer.out.handle_taken(up_to).ok_or(Malformed)?;
        if !tokens.is_empty() {
            peer.progress = now;
        }
        for token in tokens {
            peer.note_known(token);
            if let Token::Frame(frame) = token {
                self.actions.push_back(Action::Confirm {
                    slot: peer.slot,
                    frame,
                    level: Level::Taken,
                });
            }
        }
        Ok(())
    }

    fn handle_promise(&mut self, node: &str, up_to: u64) -> Result<(), Malformed> {
        let Some(peer) = self.peers.get_mut(node) else {
            return Ok(());
        };
        if up_to > peer.out.last() {
            return Err(Malformed);
        }
        while let Some(frame) = peer.promised.pop_safe(up_to) {
            self.actions.push_back(Action::Confirm {
                slot: peer.slot,
                frame,
                level: Level::Safe,
            });
        }
        Ok(())
    }

    fn handle_item(&mut self, node: &str, number: u64, item: Item) -> Result<(), Malformed> {
        let Some(peer) = self.peers.get_mut(node) else {
            return Ok(());
        };
        if peer.inc.receive(number) == Arrival::Gap {
            return Err(Malformed);
        }
        let slot = peer.slot;
        let changes = match item {
            Item::Messages(messages) => {
                peer.inc.hold();
                peer.owed.hold(peer.inc.epoch(), number);
                self.actions.push_back(Action::Deliver {
                    slot,
                    epoch: peer.inc.epoch(),
                    number,
                    messages,
                });
                return Ok(());
            }
            Item::Retained { messages, is_last } => {
                peer.inc.hold();
                peer.owed.hold(peer.inc.epoch(), number);
                self.wants_retained &= !is_last;
                self.actions.push_back(Action::Keep {
                    slot,
                    epoch: peer.inc.epoch(),
                    number,
                    messages,
                });
                return Ok(());
            }
            Item::Changes(changes) => {
                let is_valid = |change: &Change| {
                    let (Change::Added(filter) | Change::Removed(filter)) = change;
                    topic::is_valid_filter(filter)
                };
                if !changes.iter().all(is_valid) {
                    return Err(Malformed);
                }
                peer.routes.handle_changes(changes)
            }
            Item::Page(page) => {
                if !page
                    .filters
                    .iter()
                    .all(|filter| topic::is_valid_filter(filter))
                {
                    return Err(Malformed);
                }
                peer.routes.handle_page(page)
            }
        };
        for change in changes {
            self.actions.push_back(Action::Route { slot, change });
        }
        Ok(())
    }

    fn refuse(&mut self, id: LinkId, refusal: Refusal, now: Instant) {
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
    fn handle_refusal(&mut self, id: LinkId, refusal: &Refusal, now: Instant) {
        let link = self.links.get(&id);
        let called = link.and_then(|link| link.called.clone());
        if let (Some(address), Refusal::Myself) = (&called, refusal) {
            self.calls.note_own(address);
        }
        let trouble = format!("it refuses this node: {refusal}");
        self.close(id, (!refusal.is_quiet()).then_some(&*trouble), now);
    }
}
