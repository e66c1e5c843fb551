//! Which backend takes a flow that is not recorded.

use aya_ebpf::helpers::generated::bpf_get_prandom_u32;
use lb_common::{
    abi::{Backend, BackendId, FlowKey, PROTOCOL_UDP, RING_PROBES, Service, Slot},
    flow::{self, reduce},
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

/// Places of the ring of which the least loaded backend is taken.
const CHOICES: u32 = 4;

/// A choice, and where in the ring to go on if its backend is full.
struct Pick {
    choice: Choice,
    number: u32,
}

/// The backend of a flow that is not recorded; `first` if it may start with this packet.
///
/// One that did not start here was lost with an earlier table, or never recorded: its slot is the
/// only thing that all nodes agree on. Nor is it refused where a backend is full.
#[inline(always)]
pub fn choose(
    service: &Service,
    flow: &FlowKey,
    signal: Signal,
    first: bool,
) -> Result<Choice, Verdict> {
    let Pick { mut choice, number } = pick(service, flow, signal, first)?;
    if !first || has_room(&choice.target) {
        return Ok(choice);
    }
    if choice.memory == Memory::NoRoom && !service.is_nat() {
        // Without a record it can go nowhere but to its slot's.
        return Err(Verdict::DropBackendsFull);
    }
    choice.target = another(service, number)?;
    Ok(choice)
}

#[inline(always)]
fn pick(service: &Service, flow: &FlowKey, signal: Signal, first: bool) -> Result<Pick, Verdict> {
    if !(service.is_tracked() && first) {
        return by_slot(service, flow, signal);
    }
    if maps::is_full() {
        // UDP has no SYN to tell what is new once there is room again. Half-open ones have room.
        let memory = if flow.protocol() == PROTOCOL_UDP {
            Memory::Begun
        } else {
            Memory::NoRoom
        };
        let choice = Choice {
            target: unrecorded(service, flow)?,
            memory,
        };
        return Ok(Pick { choice, number: 0 });
    }
    if service.ring_length() == 0 {
        return Err(Verdict::DropNoBackend);
    }
    let number = if service.is_least_conn() {
        least_loaded(service)
    } else {
        next_place(service)?
    };
    let choice = Choice {
        target: at_place(service, number)?,
        memory: Memory::Begun,
    };
    Ok(Pick { choice, number })
}

/// Whether a backend takes one flow more. CPUs that race may each give it one.
#[inline(always)]
pub fn has_room(target: &Target) -> bool {
    let limit = target.backend.limit();
    limit == 0 || maps::open(target) < i64::from(limit)
}

/// A backend with room, from the place after `number` in the ring on: the same for all flows with
/// that number, as long as the same backends are full.
#[inline(always)]
fn another(service: &Service, number: u32) -> Result<Target, Verdict> {
    let length = u32::from(service.ring_length());
    for probe in 1..=RING_PROBES {
        // Not by counting up to the end: the verifier would follow each number that it knows.
        let place = (number + probe)
            .checked_rem(length)
            .ok_or(Verdict::DropBackendsFull)?;
        if let Ok(target) = at_place(service, place)
            && has_room(&target)
        {
            return Ok(target);
        }
    }
    Err(Verdict::DropBackendsFull)
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
fn by_slot(service: &Service, flow: &FlowKey, signal: Signal) -> Result<Pick, Verdict> {
    let number = slot_number(service, flow);
    let slot = slot_at(service, number)?;
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
    let choice = Choice {
        target: reachable(id)?,
        memory,
    };
    Ok(Pick { choice, number })
}

/// The slot of a flow.
#[inline(always)]
pub fn slot(service: &Service, flow: &FlowKey) -> Result<Slot, Verdict> {
    slot_at(service, slot_number(service, flow))
}

#[inline(always)]
fn slot_number(service: &Service, flow: &FlowKey) -> u32 {
    flow::slot(maps::hash_keys().hash_for(service, flow))
}

#[inline(always)]
fn slot_at(service: &Service, number: u32) -> Result<Slot, Verdict> {
    if !service.has_backends() {
        return Err(Verdict::DropNoBackend);
    }
    maps::slot(service, number).ok_or(Verdict::DropInternal)
}

/// The place of the least loaded backend of some that are drawn at random, weighted as the ring is.
#[inline(always)]
fn least_loaded(service: &Service) -> u32 {
    let length = u32::from(service.ring_length());
    let (mut best, mut least) = (0, u64::MAX);
    for _choice in 0..CHOICES {
        // SAFETY: the helper has no preconditions.
        let position = reduce(unsafe { bpf_get_prandom_u32() }, length);
        let load = at_place(service, position).map_or(u64::MAX, |target| load(&target));
        if load <= least {
            (best, least) = (position, load);
        }
    }
    best
}

/// The flows that a backend would have with one more, for its weight; more than any if it is full.
#[inline(always)]
fn load(target: &Target) -> u64 {
    let open = maps::open(target).max(0) as u64;
    let limit = u64::from(target.backend.limit());
    if limit != 0 && open >= limit {
        return u64::MAX - 1;
    }
    // In parts of one flow, or weights that differ little would look the same.
    ((open + 1) << 16) / u64::from(target.backend.weight().max(1))
}

/// The place whose turn it is.
#[inline(always)]
fn next_place(service: &Service) -> Result<u32, Verdict> {
    let turn = maps::next_turn(service.id()).ok_or(Verdict::DropInternal)?;
    let place = turn.checked_rem(u64::from(service.ring_length()));
    Ok(place.ok_or(Verdict::DropNoBackend)? as u32)
}

/// The backend at a place of the ring.
#[inline(always)]
fn at_place(service: &Service, place: u32) -> Result<Target, Verdict> {
    let slot = maps::ring(service, place).ok_or(Verdict::DropInternal)?;
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
