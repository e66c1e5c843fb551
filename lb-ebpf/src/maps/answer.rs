//! How often this CPU answers packets.

use aya_ebpf::{helpers::generated::bpf_ktime_get_coarse_ns, macros::map, maps::PerCpuArray};

/// Time between two answers in the long run, in nanoseconds: 1,000 a second, as Linux answers.
const INTERVAL: u64 = 1_000_000;
/// How far answers may run ahead of that: 100 at once.
const BURST: u64 = 100 * INTERVAL;

/// The time to which answers are paid for.
#[map]
static ANSWERED_UNTIL: PerCpuArray<u64> = PerCpuArray::with_max_entries(1, 0);

/// Whether another packet may be answered; it counts as answered then.
///
/// Answers to forged packets would make the balancer a part in an attack.
#[inline(always)]
pub fn may_answer() -> bool {
    let Some(until) = ANSWERED_UNTIL.get_ptr_mut(0) else {
        return false;
    };
    // SAFETY: the helper has no preconditions.
    let now = unsafe { bpf_ktime_get_coarse_ns() };
    // SAFETY: the value is this CPU's own, and the program is not preempted by itself.
    let until = unsafe { &mut *until };
    let start = if *until < now { now } else { *until };
    if start > now + BURST {
        return false;
    }
    *until = start + INTERVAL;
    true
}
