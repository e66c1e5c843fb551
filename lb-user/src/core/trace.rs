//! What would become of a packet, and why: the program's decisions, made again over an image.
//!
//! A [`Scene`] is what the kernel would decide from: what the maps hold, the hash, the interface.
//! [`Scene::follow`] goes the way of a packet through it and notes each step in words. A what-if is
//! the same over an image that the planner has made of other wishes. The tests of the loaded program
//! hold both ways against each other.

mod guard;
mod words;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

use lb_common::abi::{
    BackendId, Balance, Flow, FlowKey, FlowState, Forward, PROTOCOL_UDP, RING_PROBES, ServiceKey,
    Slot,
};
use lb_common::flow::{HashKeys, slot};
use lb_common::verdict::Verdict;

use self::guard::Guard;
use crate::core::image::{BackendImage, MapImage, ServiceImage, Table};

/// A flow that is recorded, from client to VIP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecordedFlow {
    pub key: FlowKey,
    pub flow: Flow,
    /// Whether it is in the table of those that have only sent a SYN.
    pub half_open: bool,
    /// How long it has been silent, to about a second.
    pub silent: Duration,
}

/// What the guard of a service remembers, of one client and of all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct GuardMemory {
    /// Whether the client has answered a challenge lately.
    pub answered: bool,
    /// The client's bucket, and the service's: see [`lb_common::abi::Rate::take`].
    pub source: u64,
    pub service: u64,
    /// The clock of buckets when they were read.
    pub now: u64,
}

/// What the kernel decides from.
#[derive(Clone, Copy, Debug)]
pub struct Scene<'a> {
    pub image: &'a MapImage,
    pub keys: HashKeys,
    /// Where packets come in, by its index.
    pub interface: u32,
    /// What operators call the backends.
    pub names: &'a BTreeMap<BackendId, String>,
    /// Nothing is remembered by those that are not in it.
    pub guards: &'a BTreeMap<ServiceKey, GuardMemory>,
    /// Who has as many flows as it may have.
    pub full: &'a BTreeSet<BackendId>,
}

/// Which packet of a flow is followed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Segment {
    /// One that starts it: a SYN.
    First,
    /// Any other that does not end it.
    Later,
}

/// Where packets come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Client {
    /// From one port: the flow is known.
    Flow(FlowKey),
    /// From any port of the key's address.
    Address(FlowKey),
}

/// One step of a packet's way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// `service`, `guard`, `record`, `slot`, `backend` or `forward`.
    pub stage: &'static str,
    /// What was found there, and why, in words.
    pub finding: String,
}

/// Who gets a packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Goal {
    /// This backend.
    Backend(BackendId),
    /// One of these; which one is not fixed before the packet comes.
    AnyOf(BTreeSet<BackendId>),
    /// Nobody.
    Nobody,
}

/// The whole way of a packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Path {
    pub steps: Vec<Step>,
    pub goal: Goal,
    /// How it ends; `None` if that depends on the backend.
    pub verdict: Option<Verdict>,
}

/// What a change does to a flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It keeps its backend.
    Stays,
    /// Another backend gets its packets, and refuses them: the client has to connect again.
    Moves,
    /// Nobody gets its packets.
    Ends,
    /// It goes to whoever gets it; it had nobody before, or any.
    Open,
}

impl Fate {
    /// What a change from one way to another means.
    #[must_use]
    pub fn between(before: &Path, after: &Path) -> Self {
        match (&before.goal, &after.goal) {
            (Goal::Backend(old), Goal::Backend(new)) if old == new => Self::Stays,
            (Goal::Backend(_), Goal::Backend(_) | Goal::AnyOf(_)) => Self::Moves,
            (_, Goal::Nobody) => Self::Ends,
            (Goal::AnyOf(_) | Goal::Nobody, _) => Self::Open,
        }
    }

    /// The word for it in answers.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Stays => "stays",
            Self::Moves => "moves",
            Self::Ends => "ends",
            Self::Open => "open",
        }
    }
}

impl Client {
    const fn key(&self) -> &FlowKey {
        match self {
            Self::Flow(key) | Self::Address(key) => key,
        }
    }
}

impl Scene<'_> {
    /// Goes the way of a packet to a service. `record` is what the flow tables say of its flow.
    #[must_use]
    pub fn follow(&self, client: Client, record: Option<&RecordedFlow>, segment: Segment) -> Path {
        let mut steps = Vec::new();
        let key = client.key().service();
        let Some(service) = self.image.services.get(&key) else {
            steps.push(words::no_service(&key));
            return Path::ends(steps, Verdict::PassNotOurs);
        };
        steps.push(words::service(&key, service));
        let memory = self.guards.get(&key).copied().unwrap_or_default();
        let starts = segment == Segment::First || self.is_counted_udp(service, client, record);
        let guard = Guard {
            service,
            memory,
            client: IpAddr::from(client.key().source()),
            starts,
            is_udp: client.key().protocol() == PROTOCOL_UDP,
        };
        steps.push(guard.step());
        if let Err(verdict) = guard.check() {
            return Path::ends(steps, verdict);
        }
        match self.choose(service, client, record, segment, &mut steps) {
            Ok(Goal::Backend(id)) => self.send(service, id, steps),
            Ok(goal) => Path {
                steps,
                goal,
                verdict: None,
            },
            Err(verdict) => Path::ends(steps, verdict),
        }
    }

    /// Whether the guard counts a datagram as a start: where flows are recorded, and this one is not.
    fn is_counted_udp(
        &self,
        service: &ServiceImage,
        client: Client,
        record: Option<&RecordedFlow>,
    ) -> bool {
        let known = || record.and_then(|record| self.holder(service, record, Segment::Later));
        client.key().protocol() == PROTOCOL_UDP && is_tracked(service) && known().is_none()
    }

    /// The recorded backend, else the one that the slot or the turn gives.
    fn choose(
        &self,
        service: &ServiceImage,
        client: Client,
        record: Option<&RecordedFlow>,
        segment: Segment,
        steps: &mut Vec<Step>,
    ) -> Result<Goal, Verdict> {
        let slot = self.slot_of(service, client);
        if !is_tracked(service) && slot.is_none_or(|(_, slot)| slot.is_safe()) {
            steps.push(words::not_looked_for());
        } else {
            let found = record.and_then(|record| self.holder(service, record, segment));
            steps.push(words::record(record, found.map(|id| self.name(id))));
            if let Some(id) = found {
                return Ok(Goal::Backend(id));
            }
        }
        let first = segment == Segment::First || client.key().protocol() == PROTOCOL_UDP;
        if service.balance.is_tracked() && first {
            return self.by_turn(service, steps);
        }
        let goal = self.by_slot(service, slot, segment, steps)?;
        if first {
            self.with_room(service, slot, goal, steps)
        } else {
            Ok(goal)
        }
    }

    /// The backend that a record names, if it still counts (`conntrack::find` of the program).
    fn holder(
        &self,
        service: &ServiceImage,
        record: &RecordedFlow,
        segment: Segment,
    ) -> Option<BackendId> {
        let flow = &record.flow;
        let id = BackendId(flow.backend);
        let backend = self.image.backends.get(&id)?;
        let takes_new = backend.weight != 0 && !self.full.contains(&id);
        let is_silent = record.silent > Duration::from_nanos(u64::from(FlowState::DOUBTFUL) << 30);
        let is_left = !takes_new && (backend.emptied || is_silent);
        let is_over =
            flow.state == FlowState::Ended as u8 || !FlowState::is_live(flow.state) && is_left;
        if segment == Segment::First && is_over {
            return None;
        }
        (backend.epoch == flow.epoch && backend.service == service.id).then_some(id)
    }

    fn by_turn(&self, service: &ServiceImage, steps: &mut Vec<Step>) -> Result<Goal, Verdict> {
        let members: BTreeSet<BackendId> = service.table.ring.iter().copied().collect();
        steps.push(words::turn(service, self.names_of(&members)));
        if members.is_empty() {
            return Err(Verdict::DropNoBackend);
        }
        self.with_room(service, None, one_of(members), steps)
    }

    /// Who gets a new flow instead of those that are full.
    fn with_room(
        &self,
        service: &ServiceImage,
        slot: Option<(u32, Slot)>,
        goal: Goal,
        steps: &mut Vec<Step>,
    ) -> Result<Goal, Verdict> {
        let members = match &goal {
            Goal::Backend(id) => BTreeSet::from([*id]),
            Goal::AnyOf(ids) => ids.clone(),
            Goal::Nobody => return Ok(goal),
        };
        let full: BTreeSet<BackendId> = members.intersection(self.full).copied().collect();
        if full.is_empty() {
            return Ok(goal);
        }
        let rest: BTreeSet<BackendId> = match (goal, slot) {
            (Goal::Backend(_), Some((number, _))) => {
                self.another(service, number).into_iter().collect()
            }
            _ => members.difference(&full).copied().collect(),
        };
        steps.push(words::full(self.names_of(&full), self.names_of(&rest)));
        if rest.is_empty() {
            return Err(Verdict::DropBackendsFull);
        }
        Ok(one_of(rest))
    }

    /// The next backend in the ring that has room (`select::another` of the program).
    fn another(&self, service: &ServiceImage, number: u32) -> Option<BackendId> {
        let ring = &service.table.ring;
        let has_room = |id: &BackendId| {
            let backend = self.image.backends.get(id);
            backend.is_some_and(|backend| backend.next_hop.is_some()) && !self.full.contains(id)
        };
        let from = number as usize % ring.len().max(1) + 1;
        let places = ring.iter().copied().cycle().skip(from);
        places.take(RING_PROBES as usize).find(has_room)
    }

    fn by_slot(
        &self,
        service: &ServiceImage,
        slot: Option<(u32, Slot)>,
        segment: Segment,
        steps: &mut Vec<Step>,
    ) -> Result<Goal, Verdict> {
        if service.table.slots.is_empty() {
            steps.push(words::no_table());
            return Err(Verdict::DropNoBackend);
        }
        let Some((number, slot)) = slot else {
            let owners: BTreeSet<BackendId> = service.table.slots.iter().copied().collect();
            steps.push(words::any_slot(self.names_of(&owners)));
            return Ok(one_of(owners));
        };
        let name = |id| self.name(id);
        let (owner, previous) = (slot.owner(), slot.previous());
        steps.push(words::slot(
            service,
            number,
            slot,
            name(owner),
            name(previous),
        ));
        Ok(Goal::Backend(
            if slot.is_at_risk() && segment == Segment::Later {
                previous
            } else {
                owner
            },
        ))
    }

    /// The slot of a client's packets, if they have one in common.
    fn slot_of(&self, service: &ServiceImage, client: Client) -> Option<(u32, Slot)> {
        let key = match client {
            Client::Flow(key) => key,
            Client::Address(key) if service.balance == Balance::Source => key,
            Client::Address(_) => return None,
        };
        let number = slot(self.keys.hash_by(service.balance, &key));
        Some((number, entry(&service.table, number)?))
    }

    /// What is in the way of sending to a backend, and how it is done.
    fn send(&self, service: &ServiceImage, id: BackendId, mut steps: Vec<Step>) -> Path {
        let Some(backend) = self.image.backends.get(&id) else {
            steps.push(words::backend_gone());
            return Path::ends(steps, Verdict::DropNoBackend);
        };
        steps.push(words::backend(self.name(id), backend));
        let ways = self.ways(service, backend);
        match ways {
            Ok(verdict) => {
                steps.push(words::forward(service, verdict));
                Path {
                    steps,
                    goal: Goal::Backend(id),
                    verdict: Some(verdict),
                }
            }
            Err(verdict) => {
                steps.push(words::stuck(verdict));
                Path::ends(steps, verdict)
            }
        }
    }

    fn ways(&self, service: &ServiceImage, backend: &BackendImage) -> Result<Verdict, Verdict> {
        let v4 = backend.address.is_v4();
        let hop = backend.next_hop.ok_or(Verdict::DropNoNextHop)?;
        let out = |transmit, redirect| {
            if hop.interface == self.interface {
                transmit
            } else {
                redirect
            }
        };
        match service.forward {
            Forward::Dsr => Ok(out(Verdict::TxDsr, Verdict::RedirectDsr)),
            Forward::Nat if self.image.nat_pool.source_count(v4) == 0 => {
                Err(Verdict::DropNatNoSource)
            }
            Forward::Nat => Ok(out(Verdict::TxNat, Verdict::RedirectNat)),
            Forward::Tunnel if self.image.tunnel_sources.source(v4, 0).is_none() => {
                Err(Verdict::DropTunnelNoSource)
            }
            Forward::Tunnel => Ok(out(Verdict::TxTunnel, Verdict::RedirectTunnel)),
        }
    }

    fn name(&self, id: BackendId) -> &str {
        self.names
            .get(&id)
            .map_or("a backend that went", |name| name)
    }

    fn names_of(&self, ids: &BTreeSet<BackendId>) -> String {
        let names: Vec<&str> = ids.iter().map(|id| self.name(*id)).collect();
        names.join(", ")
    }
}

impl Path {
    fn ends(steps: Vec<Step>, verdict: Verdict) -> Self {
        Self {
            steps,
            goal: Goal::Nobody,
            verdict: Some(verdict),
        }
    }
}

/// Whether every flow is looked up.
fn is_tracked(service: &ServiceImage) -> bool {
    service.forward == Forward::Nat || service.balance.is_tracked()
}

fn one_of(mut ids: BTreeSet<BackendId>) -> Goal {
    match (ids.len(), ids.pop_first()) {
        (1, Some(only)) => Goal::Backend(only),
        (_, Some(first)) => {
            ids.insert(first);
            Goal::AnyOf(ids)
        }
        (_, None) => Goal::Nobody,
    }
}

/// A slot as the kernel has it.
fn entry(table: &Table, number: u32) -> Option<Slot> {
    let owner = table.slots.get(number as usize)?;
    Some(table.holds.get(number).slot(*owner))
}

/// The key of packets from a client to a service.
#[must_use]
pub fn key(client: lb_common::abi::Ip, port: u16, service: &ServiceKey) -> FlowKey {
    FlowKey::new(
        client,
        service.vip(),
        port,
        service.port(),
        service.protocol(),
    )
}

#[cfg(test)]
mod tests;
