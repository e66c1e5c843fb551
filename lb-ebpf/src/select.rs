//! Which backend takes a flow that is not recorded.

use lb_common::{
    abi::{Backend, BackendId, FlowKey, Service, Slot},
    flow,
    verdict::Verdict,
};

use crate::maps;

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

/// The backend of a flow that is not recorded; `first` if it starts with this packet.
///
/// One that did not start here was lost with an earlier table: its slot is the only thing that all
/// nodes agree on.
#[inline(always)]
pub fn choose(service: &Service, flow: &FlowKey, first: bool) -> Result<Target, Verdict> {
    if service.is_round_robin() && first {
        by_turn(service)
    } else {
        by_slot(service, flow)
    }
}

/// By the flow's slot: the same answer for every packet of the flow, on every node.
#[inline(always)]
pub fn by_slot(service: &Service, flow: &FlowKey) -> Result<Target, Verdict> {
    let slot = flow::slot(maps::hash_keys().hash_for(service, flow));
    owner(service, maps::slot(service, slot))
}

/// By turns.
#[inline(always)]
pub fn by_turn(service: &Service) -> Result<Target, Verdict> {
    let turn = maps::next_turn(service.id()).ok_or(Verdict::DropInternal)?;
    let position = turn
        .checked_rem(u64::from(service.ring_length()))
        .unwrap_or(0) as u32;
    owner(service, maps::ring(service, position))
}

#[inline(always)]
fn owner(service: &Service, slot: Option<Slot>) -> Result<Target, Verdict> {
    if !service.has_backends() {
        return Err(Verdict::DropNoBackend);
    }
    let slot = slot.ok_or(Verdict::DropInternal)?;
    let target = Target::find(slot.owner()).ok_or(Verdict::DropNoBackend)?;
    // Before a flow is recorded for it: the next try may meet another backend.
    if target.backend.next_hop().is_none() {
        return Err(Verdict::DropNoNextHop);
    }
    Ok(target)
}
