//! Every map of the program, with accessors; nothing else names a map.
//!
//! The daemon writes SERVICES, BACKENDS, SLOTS and NAT_POOL and reads the counters. The program
//! writes the counters, RING_POSITIONS, FLOW_EVENTS and the flow tables, which the daemon sweeps.
//! Capacities of 1 are placeholders: the loader sets them from the configuration.
//!
//! An entry of a hash map that is replaced or removed may be handed out again while a packet still
//! reads it, so values are copied out at once, and the daemon replaces one service in a grace period.
//! An array entry is overwritten in place; the daemon never gives a [`BackendId`] or a slot table to
//! another user before a grace period has passed.

mod insight;

use core::arch::asm;

use aya_ebpf::{
    Global,
    bindings::BPF_NOEXIST,
    helpers::generated::bpf_ktime_get_coarse_ns,
    macros::map,
    maps::{Array, HashMap, LruHashMap, PerCpuArray, ProgramArray},
    programs::XdpContext,
};
use lb_common::{
    abi::{
        Backend, BackendId, Flow, FlowKey, Ip, NatPool, NextHop, OwnMac, Reply, Service, ServiceId,
        ServiceKey, Slot, SlotLine, Stage, Tick, Traffic, TunnelSources,
    },
    flow::HashKeys,
    verdict::Verdict,
};

pub use self::insight::{count_end, count_mqtt, note_keep_alive};
use crate::job::Job;

mod answer;
mod closing;
mod events;
mod fragments;
mod guard;
mod lease;
mod load;

pub use answer::may_answer;
pub use closing::{client_end, is_last, note_backend_end, note_client_end};
pub use events::report;
pub use fragments::{fragment, insert_fragment};
pub use guard::{
    access, challenge_key, count_guard, has_answered, note_answer, now_nanos, rates,
    take_of_service, take_of_source,
};
pub use lease::{Answerer, answerer, is_for_another, leave_to_peer};
pub use load::{note_change, note_opened, open};

#[map]
static SERVICES: HashMap<ServiceKey, Service> = HashMap::with_max_entries(1, 0);
#[map]
static BACKENDS: Array<Backend> = Array::with_max_entries(1, 0);
#[map]
static SLOTS: Array<SlotLine> = Array::with_max_entries(1, 0);
#[map]
static RING_POSITIONS: Array<u64> = Array::with_max_entries(1, 0);
#[map]
static FLOWS: HashMap<FlowKey, Flow> = HashMap::with_max_entries(1, 0);
#[map]
static HALF_OPEN: LruHashMap<FlowKey, Flow> = LruHashMap::with_max_entries(1, 0);
#[map]
static REPLIES: HashMap<FlowKey, Reply> = HashMap::with_max_entries(1, 0);
#[map]
static HALF_OPEN_REPLIES: LruHashMap<FlowKey, Reply> = LruHashMap::with_max_entries(1, 0);
#[map]
static NAT_POOL: Array<NatPool> = Array::with_max_entries(1, 0);
#[map]
static OWN_MAC: Array<OwnMac> = Array::with_max_entries(1, 0);
#[map]
static TUNNEL_SOURCES: Array<TunnelSources> = Array::with_max_entries(1, 0);
#[map]
static FLOWS_FULL: Array<u32> = Array::with_max_entries(1, 0);
#[map]
static VERDICTS: PerCpuArray<u64> = PerCpuArray::with_max_entries(Verdict::COUNT as u32, 0);
#[map]
static SERVICE_TRAFFIC: PerCpuArray<Traffic> = PerCpuArray::with_max_entries(1, 0);
#[map]
static BACKEND_TRAFFIC: PerCpuArray<Traffic> = PerCpuArray::with_max_entries(1, 0);

#[map]
static STAGES: ProgramArray = ProgramArray::with_max_entries(Stage::LIMIT, 0);

#[map]
static JOB: PerCpuArray<Job> = PerCpuArray::with_max_entries(1, 0);
#[map]
static SCRATCH: PerCpuArray<Scratch> = PerCpuArray::with_max_entries(1, 0);

#[unsafe(no_mangle)]
static HASH_KEYS: Global<HashKeys> = Global::new(HashKeys::zero());

/// Room for records under construction, beside the 512 bytes of stack.
#[repr(C)]
pub struct Scratch {
    pub reply_key: FlowKey,
    pub reply: Reply,
    /// Somebody else's.
    pub other: Reply,
    pub flow: Flow,
    offset: u64,
}

/// This CPU's packet between two programs.
#[inline(always)]
pub fn job() -> Option<&'static mut Job> {
    // SAFETY: the value is this CPU's own, and the program is not preempted by itself. Callers hold
    // one reference at a time.
    JOB.get_ptr_mut(0).map(|job| unsafe { &mut *job })
}

/// Goes on in another program; comes back only if there is none.
#[inline(always)]
pub fn call(context: &XdpContext, stage: Stage) -> Verdict {
    // SAFETY: nothing of this program's needs to be dropped.
    unsafe { STAGES.tail_call(context, stage as u32) };
    Verdict::DropInternal
}

/// This CPU's scratch; its content is that of an earlier packet. One packet holds it at a time.
#[inline(always)]
pub fn scratch() -> Option<&'static mut Scratch> {
    // SAFETY: the value is this CPU's own, the program is not preempted by itself, and each packet
    // takes it once.
    SCRATCH
        .get_ptr_mut(0)
        .map(|scratch| unsafe { &mut *scratch })
}

/// The same number, of which the verifier knows nothing.
#[inline(always)]
pub fn forget_bounds(number: usize) -> Option<usize> {
    let scratch = SCRATCH.get_ptr_mut(0)?;
    // SAFETY: `scratch` points to this CPU's value, and no reference to it is live while a packet
    // is parsed. Volatile, or the compiler would remember what it wrote.
    unsafe {
        let place = &raw mut (*scratch).offset;
        place.write_volatile(number as u64);
        Some(place.read_volatile() as usize)
    }
}

/// The secret of the flow hash.
#[inline(always)]
pub fn hash_keys() -> HashKeys {
    HASH_KEYS.load()
}

/// The clock of the flow tables.
#[inline(always)]
pub fn now() -> Tick {
    // SAFETY: the helper has no preconditions.
    Tick::from_nanos(unsafe { bpf_ktime_get_coarse_ns() })
}

/// The service that a packet is addressed to.
#[inline(always)]
pub fn service(key: &ServiceKey) -> Option<Service> {
    // SAFETY: copied out at once, see the module's documentation.
    unsafe { SERVICES.get(key) }.copied()
}

/// The owner of a slot in a service's active table.
#[inline(always)]
pub fn slot(service: &Service, slot: u32) -> Option<Slot> {
    let (line, place) = service.slot_at(slot);
    line_slot(line, place)
}

/// The backend whose turn is at a position of a service's ring.
#[inline(always)]
pub fn ring(service: &Service, position: u32) -> Option<Slot> {
    let (line, place) = service.ring_at(position);
    line_slot(line, place)
}

#[inline(always)]
fn line_slot(line: u32, place: u32) -> Option<Slot> {
    let line = SLOTS.get(line)?;
    line.0.get(place as usize % line.0.len()).copied()
}

/// A backend that takes packets.
#[inline(always)]
pub fn backend(id: BackendId) -> Option<&'static Backend> {
    BACKENDS
        .get(u32::from(id.0))
        .filter(|backend| backend.is_serving())
}

/// Takes the next turn of a service.
#[inline(always)]
pub fn next_turn(service: ServiceId) -> Option<u64> {
    let counter = RING_POSITIONS.get_ptr_mut(u32::from(service.0))?;
    // SAFETY: `counter` points to an eight-byte value of an array map.
    Some(unsafe { fetch_add_one(counter) })
}

/// Adds one for all CPUs; returns what was there before.
///
/// In assembly because rustc knows no read-modify-write atomics on this target, and treats it as
/// single-threaded.
///
/// # Safety
/// `counter` must point to eight aligned bytes of a map's value.
#[inline(always)]
unsafe fn fetch_add_one(counter: *mut u64) -> u64 {
    let mut number: u64 = 1;
    // SAFETY: the caller's pointer.
    unsafe {
        asm!(
            "{number} = atomic_fetch_add((u64 *)({counter} + 0), {number})",
            counter = in(reg) counter,
            number = inout(reg) number,
        );
    }
    number
}

/// Copies an address out of a map value, word by word: an assignment from one map value to another
/// becomes a call of a bytewise copy.
#[inline(always)]
pub fn load_ip(ip: &Ip) -> Ip {
    let words = core::ptr::from_ref(ip).cast::<u32>();
    // SAFETY: an `Ip` is four words; volatile keeps the compiler from seeing one large copy.
    let word = |at| unsafe { words.add(at).read_volatile() };
    Ip::from_words([word(0), word(1), word(2), word(3)])
}

/// The addresses and ports of NAT; `None` while no service uses it.
#[inline(always)]
pub fn nat_pool() -> Option<&'static NatPool> {
    NAT_POOL.get(0).filter(|pool| pool.port_count() > 0)
}

/// What tunnels send from.
#[inline(always)]
pub fn tunnel_sources() -> Option<&'static TunnelSources> {
    TUNNEL_SOURCES.get(0)
}

/// Counts the end of a packet.
#[inline(always)]
pub fn count_verdict(verdict: Verdict) {
    if let Some(counter) = VERDICTS.get_ptr_mut(verdict.slot()) {
        // SAFETY: the counter is this CPU's own, and the program is not preempted by itself.
        unsafe { *counter += 1 };
    }
}

/// Counts for a backend on this CPU.
#[inline(always)]
pub fn count_backend(id: BackendId, count: impl FnOnce(&mut Traffic)) {
    if let Some(traffic) = BACKEND_TRAFFIC.get_ptr_mut(u32::from(id.0)) {
        // SAFETY: as in `count_verdict`.
        count(unsafe { &mut *traffic });
    }
}

/// Counts a packet of a service that was dropped; returns its outcome.
#[inline(always)]
pub fn count_dropped(
    service: &Service,
    outcome: Result<Verdict, Verdict>,
) -> Result<Verdict, Verdict> {
    if outcome.is_err() {
        count_service(service.id(), |traffic| traffic.dropped += 1);
    }
    outcome
}

/// Counts for a service on this CPU.
#[inline(always)]
pub fn count_service(id: ServiceId, count: impl FnOnce(&mut Traffic)) {
    if let Some(traffic) = SERVICE_TRAFFIC.get_ptr_mut(u32::from(id.0)) {
        // SAFETY: as in `count_verdict`.
        count(unsafe { &mut *traffic });
    }
}

/// Which pair of flow tables.
#[derive(Clone, Copy)]
pub enum Table {
    /// [`HALF_OPEN`] and [`HALF_OPEN_REPLIES`].
    HalfOpen,
    /// [`FLOWS`] and [`REPLIES`].
    Established,
}

/// A recorded flow that can be touched in place.
#[derive(Clone, Copy)]
pub struct FlowRef(*mut Flow);

impl FlowRef {
    /// The record.
    #[inline(always)]
    pub fn get(self) -> Flow {
        // SAFETY: the pointer came from a look-up, hence to a value that stays mapped; copied out
        // at once, see the module's documentation.
        unsafe { *self.0 }
    }

    /// Notes the time and the state, and writes nothing if both are as they were: the cache line of
    /// a busy flow stays shared.
    #[inline(always)]
    pub fn touch(self, now: Tick, state: u8) {
        // SAFETY: as in `get`. Should the entry have been handed out again, another flow's time or
        // state is off by one packet.
        unsafe {
            if (*self.0).seen != now.0 || (*self.0).state != state {
                (*self.0).seen = now.0;
                (*self.0).state = state;
            }
        }
    }

    /// Notes where the client's packets come from: [`Flow::client_way`].
    #[inline(always)]
    pub fn set_client_way(self, way: u16) {
        let [low, high] = way.to_ne_bytes();
        // SAFETY: as in `touch`; the next packet of the flow sets it right.
        unsafe {
            (*self.0).middle[2] = low;
            (*self.0).middle[3] = high;
        }
    }

    /// Notes a [`Flow::sequence`].
    #[inline(always)]
    pub fn set_sequence(self, sequence: u32) {
        // SAFETY: as in `touch`.
        unsafe { (*self.0).middle = sequence.to_ne_bytes() };
    }
}

/// Looks up a flow.
#[inline(always)]
pub fn flow(stage: Table, key: &FlowKey) -> Option<FlowRef> {
    let value = match stage {
        Table::HalfOpen => HALF_OPEN.get_ptr_mut(key),
        Table::Established => FLOWS.get_ptr_mut(key),
    };
    value.map(FlowRef)
}

/// Records a flow, replacing an older record.
#[inline(always)]
pub fn insert_flow(stage: Table, key: &FlowKey, flow: &Flow) -> Option<()> {
    match stage {
        Table::HalfOpen => HALF_OPEN.insert(key, flow, 0),
        Table::Established => FLOWS.insert(key, flow, 0),
    }
    .ok()
}

/// Records an established flow that is not recorded yet; `None` if it is, or there is no room.
#[inline(always)]
pub fn add_flow(key: &FlowKey, flow: &Flow) -> Option<()> {
    FLOWS.insert(key, flow, u64::from(BPF_NOEXIST)).ok()
}

/// Whether the established table is too full for flows that can do without a record.
#[inline(always)]
pub fn is_full() -> bool {
    FLOWS_FULL.get(0).is_some_and(|full| *full != 0)
}

/// Notes that the established table has no room; the daemon's sweep takes that back.
#[inline(always)]
pub fn set_full() {
    if let Some(full) = FLOWS_FULL.get_ptr_mut(0) {
        // SAFETY: `full` points to a value of an array map; whoever writes it from here writes the
        // same, and only if it is not there yet, so that the cache line stays shared.
        unsafe {
            if full.read_volatile() == 0 {
                full.write_volatile(1);
            }
        }
    }
}

/// Forgets a flow.
#[inline(always)]
pub fn remove_flow(stage: Table, key: &FlowKey) {
    // An entry that is already gone is what was asked for.
    let _: Result<(), i32> = match stage {
        Table::HalfOpen => HALF_OPEN.remove(key),
        Table::Established => FLOWS.remove(key),
    };
}

/// Whether a reply's translation is recorded.
#[inline(always)]
pub fn has_reply(stage: Table, key: &FlowKey) -> bool {
    reply_at(stage, key).is_some()
}

/// Looks up what a reply is translated to, into `reply`.
#[inline(always)]
pub fn load_reply(stage: Table, key: &FlowKey, reply: &mut Reply) -> Option<()> {
    const WORDS: usize = size_of::<Reply>() / size_of::<u64>();
    let source = reply_at(stage, key)?.cast::<u64>();
    let target = core::ptr::from_mut(reply).cast::<u64>();
    for word in 0..WORDS {
        // SAFETY: both point to a whole `Reply`, which is `WORDS` words long. Word by word because
        // an assignment becomes a call of a bytewise copy.
        unsafe {
            target
                .add(word)
                .write_unaligned(source.add(word).read_unaligned())
        };
    }
    Some(())
}

#[inline(always)]
fn reply_at(stage: Table, key: &FlowKey) -> Option<*mut Reply> {
    match stage {
        Table::HalfOpen => HALF_OPEN_REPLIES.get_ptr_mut(key),
        Table::Established => REPLIES.get_ptr_mut(key),
    }
}

/// Records a reply's translation in place of another.
#[inline(always)]
pub fn replace_reply(stage: Table, key: &FlowKey, reply: &Reply) -> Option<()> {
    match stage {
        Table::HalfOpen => HALF_OPEN_REPLIES.insert(key, reply, 0),
        Table::Established => REPLIES.insert(key, reply, 0),
    }
    .ok()
}

/// Records a reply's translation; `None` if the table is full or its key is taken.
#[inline(always)]
pub fn claim_reply(stage: Table, key: &FlowKey, reply: &Reply) -> Option<()> {
    match stage {
        Table::HalfOpen => HALF_OPEN_REPLIES.insert(key, reply, u64::from(BPF_NOEXIST)),
        Table::Established => REPLIES.insert(key, reply, u64::from(BPF_NOEXIST)),
    }
    .ok()
}

/// Changes where a recorded reply goes.
#[inline(always)]
pub fn set_reply_next_hop(stage: Table, key: &FlowKey, next_hop: NextHop) {
    if let Some(value) = reply_at(stage, key) {
        // SAFETY: the pointer came from a look-up; the next packet of the flow sets a lost write
        // right.
        unsafe { (*value).next_hop = next_hop };
    }
}

/// Forgets a reply's translation.
#[inline(always)]
pub fn remove_reply(stage: Table, key: &FlowKey) {
    // An entry that is already gone is what was asked for.
    let _: Result<(), i32> = match stage {
        Table::HalfOpen => HALF_OPEN_REPLIES.remove(key),
        Table::Established => REPLIES.remove(key),
    };
}
