//! Tells the daemon of flows that have just been established, if it has a peer to tell.
//!
//! Nothing is reported before a client has sent data: who can only send SYNs makes no work here.

use aya_ebpf::{
    Global,
    macros::map,
    maps::{PerCpuArray, RingBuf},
};
use lb_common::abi::{FlowEvent, FlowKey};

use super::now_nanos;

#[map]
static FLOW_EVENTS: RingBuf = RingBuf::with_byte_size(1, 0);
#[map]
static FLOW_EVENTS_LOST: PerCpuArray<u64> = PerCpuArray::with_max_entries(1, 0);

/// Read-only, so the verifier leaves the report out of programs that make none.
#[unsafe(no_mangle)]
static REPORTS_FLOWS: Global<u32> = Global::new(0);

/// Reports a flow that is in the table of established flows; `client` is where a translated one's
/// packets come from.
///
/// The kernel wakes the daemon if it has read everything before, so once however much comes until it
/// looks.
#[inline(always)]
pub fn report(key: &FlowKey, client: [u8; 6]) {
    if REPORTS_FLOWS.load() == 0 {
        return;
    }
    let Some(mut entry) = FLOW_EVENTS.reserve::<FlowEvent>(0) else {
        return count_lost();
    };
    entry.write(FlowEvent {
        at: now_nanos(),
        key: *key,
        client,
        padding: 0,
    });
    entry.submit(0);
}

#[inline(always)]
fn count_lost() {
    if let Some(lost) = FLOW_EVENTS_LOST.get_ptr_mut(0) {
        // SAFETY: the counter is this CPU's own, and the program is not preempted by itself.
        unsafe { *lost += 1 };
    }
}
