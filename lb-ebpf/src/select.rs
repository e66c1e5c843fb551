//! Which backend takes a flow that is not recorded.

use lb_common::{
    abi::{Backend, BackendId, FlowKey, Service, Slot},
    flow,
    verdict::Verdict,
};

use crate::{conntrack::Signal, maps};

/// A chosen backend.
#[derive(Clone, Copy)]
pub struct Target {
    pub id: BackendId,
    pub backend: &'static Backend,
}

impl Target {
    /// The backend with an id, if it takes packets.
    #[inline(always)]
    pub fn find(id: BackendId) -> Option<Self> {
        maps::backend(id).map(|backend| Self { id, backend })
    }
}

/// What is to be remembered of a flow that is not recorded.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Memory {
    /// Nothing: its slot says it all.
    Nothing,
    /// Nothing: there is no room, so it keeps to its slot.
    NoRoom,
    /// That it began here.
    Begun,
    /// That it was there before.
    Learned,
}

/// The backend of a flow that is not recorded.
#[derive(Clone, Copy)]
pub struct Choice {
    pub target: Target,
    pub memory: Memory,
}

/// The backend of a flow that is not recorded; `first` if it may start with this packet.
///
/// One that did not start here was lost with an earlier table, or never recorded: its slot is the
/// only thing that all nodes agree on.
#[inline(always)]
pub fn choose(
    service: &Service,
    flow: &FlowKey,
    signal: Signal,
    first: bool,
) -> Result<Choice, Verdict> {
    if !(service.is_round_robin() && first) {
        return by_slot(service, flow, signal);
    }
    if maps::is_full() {
        return Ok(Choice {
            target: unrecorded(service, flow)?,
            memory: Memory::NoRoom,
        });
    }
    Ok(Choice {
        target: by_turn(service)?,
        memory: Memory::Begun,
    })
}

/// The backend of a flow that is not recorded and will not be: a packet about it has come by.
#[inline(always)]
pub fn unrecorded(service: &Service, flow: &FlowKey) -> Result<Target, Verdict> {
    let slot = slot(service, flow)?;
    reachable(if slot.is_at_risk() {
        slot.previous()
    } else {
        slot.owner()
    })
}

/// By the flow's slot: the same answer on every node.
#[inline(always)]
fn by_slot(service: &Service, flow: &FlowKey, signal: Signal) -> Result<Choice, Verdict> {
    let slot = slot(service, flow)?;
    let (id, memory) = if !slot.is_at_risk() {
        (slot.owner(), Memory::Nothing)
    } else if !signal.starts {
        (slot.previous(), Memory::Learned)
    } else if maps::is_full() {
        // As if the slot had not moved: a flow of the new owner would need a record.
        (slot.previous(), Memory::NoRoom)
    } else {
        (slot.owner(), Memory::Begun)
    };
    Ok(Choice {
        target: reachable(id)?,
        memory,
    })
}

/// The slot of a flow.
#[inline(always)]
pub fn slot(service: &Service, flow: &FlowKey) -> Result<Slot, Verdict> {
    if !service.has_backends() {
        return Err(Verdict::DropNoBackend);
    }
    let slot = flow::slot(maps::hash_keys().hash_for(service, flow));
    maps::slot(service, slot).ok_or(Verdict::DropInternal)
}

/// By turns.
#[inline(always)]
pub fn by_turn(service: &Service) -> Result<Target, Verdict> {
    let turn = maps::next_turn(service.id()).ok_or(Verdict::DropInternal)?;
    let position = turn
        .checked_rem(u64::from(service.ring_length()))
        .ok_or(Verdict::DropNoBackend)? as u32;
    let slot = maps::ring(service, position).ok_or(Verdict::DropInternal)?;
    reachable(slot.owner())
}

/// A backend that takes packets and that packets can be sent to.
#[inline(always)]
pub fn reachable(id: BackendId) -> Result<Target, Verdict> {
    let target = Target::find(id).ok_or(Verdict::DropNoBackend)?;
    // Before a flow is recorded for it: the next try may meet another backend.
    if target.backend.next_hop().is_none() {
        return Err(Verdict::DropNoNextHop);
    }
    Ok(target)
}
