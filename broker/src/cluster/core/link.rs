//! One connection: what it is, and what members say over it.

use std::{
    net::IpAddr,
    time::{Duration, Instant},
};

use bytes::Bytes;

use super::{Action, BEATS, Core, LinkId, Notice, PEERS};
use crate::{
    cluster::{
        is_valid_node,
        pair::{Arrival, Incoming, Token},
        peer::Loss,
        promises::{MOST_ASIDE, Safe},
        telling::Turn,
        wire::{Change, Item, Malformed, Member, Message, PROTOCOL, Parting, Refusal},
    },
    lanes::Level,
};

#[derive(Debug)]
pub(super) struct Link {
    pub(super) heard: Instant,
    pub(super) said: Instant,
    /// The address that was called, if this node has called.
    pub(super) called: Option<Box<str>>,
    pub(super) host: IpAddr,
    /// Who has greeted.
    pub(super) peer: Option<Box<str>>,
    /// This node has said that it takes nothing but the stream that it knows.
    pub(super) is_choked: bool,
    /// Both have said where they go on.
    pub(super) is_open: bool,
    /// After what silence the two hold each other for gone: the longer of their leases.
    pub(super) lease: Duration,
}

impl Link {
    /// How often this node says something.
    pub(super) fn beat(&self) -> Duration {
        self.lease / BEATS
    }
}

/// Hosts of members that have stopped or left which are remembered.
const MOST_PARTED: usize = 64;

/// Whether a sender that keeps to the rules could have sent this next.
fn is_expected(item: &Item, stream: &Incoming) -> bool {
    match item {
        Item::Messages(messages) | Item::Retained { messages, .. } => stream.has_room(messages),
        Item::Changes(changes) => changes.iter().all(Change::is_valid),
        Item::Page(page) => page.is_valid(),
        Item::Sums(..) => true,
    }
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
            is_choked: false,
            is_open: false,
            lease: self.lease,
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

    /// Takes in what a member says.
    fn handle_talk(&mut self, node: &str, message: Message, now: Instant) -> Result<(), Malformed> {
        match message {
            Message::Taken(up_to) => self.handle_taken(node, up_to, now),
            Message::Safe(safe) => self.handle_promise(node, &safe),
            Message::Item(number, item) => self.handle_item(node, number, item, now),
            Message::Members(members) => {
                let is_valid = |member: &Member| is_valid_node(&member.node);
                if members.len() > usize::from(PEERS) || !members.iter().all(is_valid) {
                    return Err(Malformed);
                }
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
                if let Some(peer) = self.peers.remove(node)
                    && self.parted.len() < MOST_PARTED
                {
                    self.parted.insert(peer.host.to_canonical(), now);
                }
                Ok(())
            }
            Message::Aside(number, aside) => {
                let link = self.peers.get(node).and_then(|peer| peer.link);
                let action = |link| Action::Aside(link, number, aside);
                self.actions.extend(link.map(action));
                Ok(())
            }
            Message::Tally(time, tally) => {
                self.actions.push_back(Action::SeeTime(time));
                if let Some(peer) = self.peers.get_mut(node) {
                    peer.tally = Some(tally);
                }
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

    fn handle_promise(&mut self, node: &str, safe: &Safe) -> Result<(), Malformed> {
        let Some(peer) = self.peers.get_mut(node) else {
            return Ok(());
        };
        if safe.up_to > peer.out.last() || safe.aside.len() > MOST_ASIDE {
            return Err(Malformed);
        }
        for frame in peer.promised.settle(safe) {
            self.actions.push_back(Action::Confirm {
                slot: peer.slot,
                frame,
                level: Level::Safe,
            });
        }
        Ok(())
    }

    /// Notes that an item was put aside: what comes behind it may be safe before.
    pub(in crate::cluster) fn handle_put_aside(&mut self, slot: u16, epoch: u64, number: u64) {
        if let Some(peer) = self.peers.values_mut().find(|peer| peer.slot == slot) {
            peer.owed.put_aside(epoch, number);
        }
    }

    /// Notes that one which was put aside is safe.
    pub(in crate::cluster) fn handle_aside_safe(&mut self, slot: u16, epoch: u64, number: u64) {
        if let Some(peer) = self.peers.values_mut().find(|peer| peer.slot == slot) {
            peer.owed.handle_aside_safe(epoch, number);
        }
    }

    fn handle_item(
        &mut self,
        node: &str,
        number: u64,
        item: Item,
        now: Instant,
    ) -> Result<(), Malformed> {
        let Some(peer) = self.peers.get_mut(node) else {
            return Ok(());
        };
        // What is refused was not received, so it is not confirmed: it comes again until its sender gives
        // this node up.
        if !is_expected(&item, &peer.inc) || peer.inc.receive(number) == Arrival::Gap {
            return Err(Malformed);
        }
        let slot = peer.slot;
        let changes = match item {
            Item::Messages(messages) => {
                let weight = peer.inc.hold(&messages);
                self.held[usize::from(slot)].push((peer.inc.epoch(), number), weight, now);
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
                let weight = peer.inc.hold(&messages);
                self.held[usize::from(slot)].push((peer.inc.epoch(), number), weight, now);
                peer.owed.hold(peer.inc.epoch(), number);
                peer.inc.note_telling(!is_last);
                if is_last {
                    peer.telling.handle_end();
                }
                if is_last && peer.began_with_nothing {
                    self.origin.note_told(node);
                } else if is_last {
                    self.origin.handle_copy();
                }
                self.actions.push_back(Action::Keep {
                    slot,
                    epoch: peer.inc.epoch(),
                    number,
                    messages,
                });
                return Ok(());
            }
            // What it has by then differs less.
            Item::Sums(Turn::Question, sums) if !self.origin.is_settled() => {
                peer.telling.question = Some(sums);
                return Ok(());
            }
            Item::Sums(turn, sums) => {
                self.actions
                    .push_back(Action::CompareRetained { slot, turn, sums });
                return Ok(());
            }
            Item::Changes(changes) => peer.routes.handle_changes(changes),
            Item::Page(page) => peer.routes.handle_page(page),
        };
        for change in changes {
            self.actions.push_back(Action::Route { slot, change });
        }
        Ok(())
    }
}
