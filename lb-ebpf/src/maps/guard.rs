//! Maps of who may connect, and how often.
//!
//! The daemon writes ACCESS and RATES; the program writes the rest.

use aya_ebpf::{
    macros::map,
    maps::{Array, LpmTrie, PerCpuArray, lpm_trie::Key},
};
use lb_common::abi::{AccessKey, GuardCounts, Ip, Rates, ServiceId};

#[map]
static ACCESS: LpmTrie<AccessKey, u32> = LpmTrie::with_max_entries(1, 0);
#[map]
static RATES: Array<Rates> = Array::with_max_entries(1, 0);
#[map]
static GUARD_COUNTS: PerCpuArray<GuardCounts> = PerCpuArray::with_max_entries(1, 0);

/// What the longest prefix that a client is in says: an [`lb_common::abi::Access`].
#[inline(always)]
pub fn access(service: ServiceId, client: Ip) -> Option<u32> {
    let key = Key::new(AccessKey::BITS, AccessKey::new(service, client));
    ACCESS.get(&key).copied()
}

/// How many connections to a service may start.
#[inline(always)]
pub fn rates(service: ServiceId) -> Option<&'static Rates> {
    RATES.get(u32::from(service.0))
}

/// Counts what was done about a packet of a service on this CPU.
#[inline(always)]
pub fn count_guard(id: ServiceId, count: impl FnOnce(&mut GuardCounts)) {
    if let Some(counts) = GUARD_COUNTS.get_ptr_mut(u32::from(id.0)) {
        // SAFETY: the counters are this CPU's own, and the program is not preempted by itself.
        count(unsafe { &mut *counts });
    }
}
