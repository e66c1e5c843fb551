//! The decisions of a cluster's node, without I/O: who is a member, what goes over which connection.
//!
//! Driven by `handle_*` with the time passed in; what is to be done comes out of
//! [`Core::poll_action`]. The driver does it over TCP (`driver`), the tests over a network of their
//! own making (`simulation`); a mesh of another kind would do as well.
//!
//! ```text
//! handle_connected -> hello <-> hello -> resume <-> resume -> items and what is taken, both ways
//!                        \-> refusal
//! silent for lease / 2: the connection is closed, and called again; nothing is lost
//! silent for lease: the peer is gone; what it has not taken is confirmed as gone with it
//!                   (of two leases the longer one counts, so that both judge alike)
//! ```

mod asides;
mod greeting;
mod link;
mod mutant;
mod notice;
mod origin;
mod retained;
mod timers;

use std::{
    collections::{BTreeMap, VecDeque},
    net::IpAddr,
    time::{Duration, Instant},
};

use bytes::Bytes;

use super::{
    calls::Calls,
    held::Held,
    pair::{FrameId, Token},
    peer::{Loss, Peer, Standing},
    questions::Aside,
    routes::Table,
    telling::Turn,
    wire::{Change, Hello, Item, Message, Parting, Refusal},
};
use crate::{
    lanes::{Level, frame},
    replica::word::Fate,
    retained::{Buckets, Sums},
};
use link::Link;
pub(super) use mutant::Mutant;
pub(super) use notice::Notice;
use origin::Origin;
use retained::News;

/// Nodes that a cluster may have besides this one: each is a destination of all shards.
pub(crate) const PEERS: u16 = 15;

/// Leases, the longest of all, that what the others have to say of a node that is gone is waited for.
const BURIAL: u32 = 3;

/// Beats in a lease.
const BEATS: u32 = 8;

/// A connection, by a number that the driver gives it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct LinkId(pub(crate) u64);

/// Who this node is.
#[derive(Clone, Debug)]
pub(super) struct Me {
    pub(super) cluster: Box<str>,
    pub(super) node: Box<str>,
    pub(super) incarnation: u64,
    pub(super) port: u16,
}

/// When a publisher hears that its message was taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Acknowledge {
    /// When every node that has subscribers for it has it in their sessions.
    Replicated,
    /// When this node has it.
    Local,
}

/// What the driver is to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Action {
    Call(Box<str>),
    Send(LinkId, Bytes),
    /// Once everything before is sent.
    Close(LinkId),
    /// Pass messages on to this node's subscribers, and say so by `handle_delivered`.
    Deliver {
        slot: u16,
        epoch: u64,
        number: u64,
        messages: Bytes,
    },
    /// Keep these of the messages whose topics have none, and say so by `handle_delivered`.
    Keep {
        slot: u16,
        epoch: u64,
        number: u64,
        messages: Bytes,
    },
    /// Read retained messages of these buckets from there on, for `handle_retained`, when there is time:
    /// what was asked of the slot before is not wanted any more.
    ReadRetained {
        slot: u16,
        buckets: Buckets,
        after: Option<Box<str>>,
    },
    /// Read the sums of retained messages, for `handle_sums`, now or when asked again.
    SumRetained {
        slot: u16,
    },
    /// Compare them with a peer's, for `handle_compared`.
    CompareRetained {
        slot: u16,
        turn: Turn,
        sums: Sums,
    },
    /// Messages for the filter are for the peer too, or no longer.
    Route {
        slot: u16,
        change: Change,
    },
    /// Tell the frame's shard how far the peer has got with it.
    Confirm {
        slot: u16,
        frame: FrameId,
        level: Level,
    },
    /// A peer is gone: what is here of its sessions is all that there is.
    Bury {
        slot: u16,
        node: Box<str>,
        fate: Fate,
    },
    /// A peer that was there all the time had held this node for gone: it has nothing of this node's
    /// sessions any more, and tells of its own anew.
    Forsaken {
        slot: u16,
    },
    /// Messages are for a peer that is gone, and may or may not have had them: pass them on to who has
    /// its sessions, and tell the frame's shard then.
    Orphan {
        slot: u16,
        frame: FrameId,
        messages: Bytes,
    },
    /// A peer knows of this time.
    SeeTime(u64),
    /// A peer asks something, or answers what it was asked over this connection.
    Aside(LinkId, u64, Aside),
    Note(Notice),
}

/// One node's part of the cluster.
#[derive(Debug)]
pub(super) struct Core {
    me: Me,
    acknowledge: Acknowledge,
    lease: Duration,
    has_left: bool,
    origin: Origin,
    news: News,
    /// What its clock has shown last.
    time: u64,
    links: BTreeMap<LinkId, Link>,
    peers: BTreeMap<Box<str>, Peer>,
    /// What peers of each slot have passed on, those that were there before too.
    held: Vec<Held>,
    calls: Calls,
    /// The number of the last stream.
    streams: u64,
    /// The number that the last stream of a peer was given here.
    epochs: u64,
    gossip_due: Instant,
    /// Hosts of members that have said goodbye, and when.
    parted: BTreeMap<IpAddr, Instant>,
    /// Why hosts were refused.
    refused: BTreeMap<IpAddr, Refusal>,
    begun: Instant,
    has_looked: bool,
    actions: VecDeque<Action>,
}

impl Core {
    pub(super) fn new(
        me: Me,
        acknowledge: Acknowledge,
        lease: Duration,
        seeds: &[Box<str>],
        now: Instant,
    ) -> Self {
        let mut calls = Calls::new(lease / BEATS);
        for seed in seeds {
            calls.add_seed(seed, now);
        }
        Self {
            me,
            acknowledge,
            lease,
            has_left: false,
            origin: Origin::default(),
            news: News::new(now),
            time: 0,
            links: BTreeMap::new(),
            peers: BTreeMap::new(),
            held: (0..PEERS).map(|_slot| Held::new(now)).collect(),
            calls,
            streams: 0,
            epochs: 0,
            gossip_due: now,
            parted: BTreeMap::new(),
            refused: BTreeMap::new(),
            begun: now,
            has_looked: false,
            actions: VecDeque::new(),
        }
    }

    /// Takes note of what the node's clock shows.
    pub(super) fn set_time(&mut self, time: u64) {
        self.time = time;
    }

    /// Whether it is known who is there, as far as it need be to let clients in.
    pub(super) fn has_looked(&self) -> bool {
        self.has_looked
    }

    /// The longest lease of this node and of those that it knows: it may be that of a pair of others.
    pub(super) fn longest_lease(&self) -> Duration {
        let theirs = self.peers.values().map(|peer| peer.lease);
        theirs.fold(self.lease, Duration::max)
    }

    /// For how long one node may hold another for gone before this one does, or learns better. Shorter
    /// than what a peer is given that takes nothing: what it waits for meanwhile is not its fault.
    pub(super) fn loss_spread(&self) -> Duration {
        self.longest_lease() * 3 / 2
    }

    /// How long others may take to say that they have buried a node that is gone.
    pub(super) fn burial_patience(&self) -> Duration {
        BURIAL * self.longest_lease()
    }

    pub(super) fn poll_action(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    /// Passes a shard's frame on to the peer of a slot; `frame` is its name if the shard waits to hear
    /// of it.
    pub(super) fn handle_frame(
        &mut self,
        slot: u16,
        frame: Option<FrameId>,
        messages: Bytes,
        now: Instant,
    ) {
        let lease = self.longest_lease();
        let peer = self.peers.values_mut().find(|peer| peer.slot == slot);
        let Some(peer) = peer.filter(|peer| peer.is_alive()) else {
            self.actions.extend(frame.map(|frame| Action::Orphan {
                slot,
                frame,
                messages,
            }));
            return;
        };
        if !peer.out.is_waiting() {
            peer.progress = now;
        }
        // Who said what is left out waits to hear of it all the same.
        let has_words = frame::has_words(&messages);
        let is_followed = has_words || frame::is_handed_on(&messages);
        let messages = peer.without_stale(messages, lease, now);
        let token = frame.filter(|_frame| is_followed).map(Token::Frame);
        if let (Some(frame), Acknowledge::Local) = (frame, self.acknowledge) {
            // A copy is not there before it is taken.
            let level = if has_words {
                Level::Passed
            } else {
                Level::Safe
            };
            let confirm = Action::Confirm { slot, frame, level };
            self.actions.push_back(confirm);
        }
        let token = token.unwrap_or(Token::None);
        peer.out.push(&Item::Messages(messages.clone()), token);
        if let (Some(frame), Acknowledge::Replicated) = (frame, self.acknowledge) {
            let number = peer.out.last();
            peer.promised.push(number, frame, messages);
        }
    }

    /// Tells the peer of a slot something behind the filters of this node. What has changed of them is
    /// to be pumped before; a peer that did not keep up with that is sent a copy of them all first.
    pub(super) fn handle_behind_filters(&mut self, slot: u16, messages: Bytes, now: Instant) {
        let peer = self.peers.values_mut().find(|peer| peer.slot == slot);
        let Some(peer) = peer.filter(|peer| peer.is_alive()) else {
            return;
        };
        if !peer.out.is_waiting() {
            peer.progress = now;
        }
        peer.push_behind_filters(messages);
    }

    /// Notes that this node's subscribers have what was to be delivered, up to this number.
    pub(super) fn handle_delivered(&mut self, slot: u16, epoch: u64, up_to: u64, now: Instant) {
        if let Some(held) = self.held.get_mut(usize::from(slot)) {
            held.handle_delivered((epoch, up_to), now);
        }
        if let Some(peer) = self.peers.values_mut().find(|peer| peer.slot == slot) {
            peer.inc.handle_delivered(epoch, up_to);
        }
    }

    /// Notes that what was delivered is where it cannot be lost, up to this number.
    pub(super) fn handle_safe(&mut self, slot: u16, epoch: u64, up_to: u64) {
        if let Some(peer) = self.peers.values_mut().find(|peer| peer.slot == slot) {
            peer.owed.handle_safe(epoch, up_to);
        }
    }

    /// Puts into the streams what has changed, and onto the connections what there is room for.
    pub(super) fn pump(&mut self, table: &mut Table, now: Instant) {
        let changes = table.take_changes().map(|changes| {
            let items = changes.into_iter().map(Item::Changes);
            items.map(|item| item.encode()).collect::<Vec<_>>()
        });
        for peer in self.peers.values_mut().filter(|peer| peer.is_alive()) {
            if !peer.out.is_waiting() {
                peer.progress = now;
            }
            peer.push_changes(changes.as_deref(), table.version());
            peer.push_pages(table);
        }
        self.pump_retained(now);
        for peer in self.peers.values_mut().filter(|peer| peer.is_alive()) {
            let link = peer
                .link
                .and_then(|id| Some((id, self.links.get_mut(&id)?)));
            let Some((id, link)) = link.filter(|(_id, link)| link.is_open) else {
                continue;
            };
            let taken = peer.inc.poll_taken().or_else(|| {
                let is_due = now.saturating_duration_since(link.said) >= link.beat();
                is_due.then(|| peer.inc.taken())
            });
            let safe = peer.owed.poll(&peer.inc, taken.is_some());
            let taken = taken.map(|taken| Message::Taken(taken).encode());
            let safe = safe.map(|safe| Message::Safe(safe).encode());
            for bytes in taken
                .into_iter()
                .chain(safe)
                .chain(std::iter::from_fn(|| peer.out.poll()))
            {
                link.said = now;
                self.actions.push_back(Action::Send(id, bytes));
            }
        }
    }

    /// Holds a peer for gone: what it has not taken it will not get.
    fn lose(&mut self, node: &str, loss: Loss, now: Instant) {
        self.streams += 1;
        let stream = self.streams;
        let Some(peer) = self.peers.get_mut(node) else {
            return;
        };
        let was_alive = peer.is_alive();
        peer.set_standing(Standing::Gone(loss), now);
        let slot = peer.slot;
        if was_alive {
            let fate = loss.fate();
            let node = node.into();
            self.actions.push_back(Action::Bury { slot, node, fate });
        }
        // What was for the peer's own shards, none of them will hear.
        for token in peer.restart_stream(stream) {
            if let Token::Frame(frame) = token {
                let level = Level::Taken;
                let confirm = Action::Confirm { slot, frame, level };
                self.actions.push_back(confirm);
            }
        }
        peer.begin_life(stream, now);
        let orphan = |(frame, messages)| Action::Orphan {
            slot,
            frame,
            messages,
        };
        self.actions.extend(peer.promised.take().map(orphan));
        let link = peer.link.take();
        if was_alive {
            for change in peer.routes.gone() {
                self.actions.push_back(Action::Route { slot, change });
            }
            self.actions.push_back(Action::Note(Notice::Lost {
                node: node.into(),
                loss,
            }));
        }
        if let Some(id) = link {
            self.close(id, None, now);
        }
        if was_alive && !Mutant::KeepsLastWords.is_on() {
            // Some may have had its last messages, and others not.
            self.ask_others(|_peer| true);
        }
    }

    /// Becomes a member again, if it was none, and calls somebody.
    pub(super) fn join(&mut self, address: &str, now: Instant) {
        self.has_left = false;
        self.calls.add_seed(address, now);
        self.call(now);
    }

    /// Says goodbye to all, and is no member until told to join.
    pub(super) fn leave(&mut self, parting: Parting, now: Instant) {
        self.has_left = true;
        // Whoever does not hear the goodbye must not go on where the two were.
        self.me.incarnation += 1;
        self.calls.clear();
        let open: Vec<_> = self.links.keys().copied().collect();
        for id in open {
            self.send(id, &Message::Farewell(parting), now);
        }
        let nodes: Vec<_> = self.peers.keys().cloned().collect();
        for node in nodes {
            self.lose(&node, Loss::Left, now);
        }
        let rest: Vec<_> = self.links.keys().copied().collect();
        for id in rest {
            self.close(id, None, now);
        }
        self.peers.clear();
    }

    /// The version of this node's filters that all peers know which are there.
    pub(super) fn known(&self) -> u64 {
        let alive = self.peers.values().filter(|peer| peer.is_alive());
        alive.map(Peer::known).min().unwrap_or(u64::MAX)
    }

    pub(super) fn has_left(&self) -> bool {
        self.has_left
    }

    pub(super) fn peers(&self) -> impl Iterator<Item = (&str, &Peer)> {
        self.peers.iter().map(|(node, peer)| (&**node, peer))
    }

    /// Whether a node is, or has lately been, a member there.
    pub(super) fn is_host_of_member(&self, host: IpAddr) -> bool {
        let host = host.to_canonical();
        let mut peers = self.peers.values();
        peers.any(|peer| peer.host.to_canonical() == host) || self.parted.contains_key(&host)
    }

    pub(super) fn calls(&self) -> &Calls {
        &self.calls
    }

    fn hello(&self) -> Hello {
        Hello {
            cluster: self.me.cluster.to_string(),
            node: self.me.node.to_string(),
            incarnation: self.me.incarnation,
            port: self.me.port,
            lease_millis: u32::try_from(self.lease.as_millis()).unwrap_or(u32::MAX),
        }
    }

    fn send(&mut self, id: LinkId, message: &Message, now: Instant) {
        if let Some(link) = self.links.get_mut(&id) {
            link.said = now;
        }
        self.actions.push_back(Action::Send(id, message.encode()));
    }
}

#[cfg(test)]
mod simulation;
#[cfg(test)]
mod tests;
