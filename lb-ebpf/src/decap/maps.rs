//! Every map of the decapsulator, with accessors; nothing else names a map.
//!
//! The loader fills DECAP_SOURCES and DECAP_VIPS before the program is attached, and never again.
//! Capacities of 1 are placeholders: the loader sets them.

use aya_ebpf::{
    Global,
    macros::map,
    maps::{HashMap, LpmTrie, PerCpuArray, lpm_trie::Key},
};
use lb_common::{abi::Ip, decap::Outcome};

#[map]
static DECAP_SOURCES: LpmTrie<Ip, u32> = LpmTrie::with_max_entries(1, 0);
#[map]
static DECAP_VIPS: HashMap<Ip, u32> = HashMap::with_max_entries(1, 0);
#[map]
static DECAP_COUNTS: PerCpuArray<u64> = PerCpuArray::with_max_entries(Outcome::ALL.len() as u32, 0);
#[map]
static DECAP_SCRATCH: PerCpuArray<u64> = PerCpuArray::with_max_entries(1, 0);

#[unsafe(no_mangle)]
static DECAP_GUE_PORT: Global<u16> = Global::new(0);

/// The UDP port of GUE.
#[inline(always)]
pub fn gue_port() -> u16 {
    DECAP_GUE_PORT.load()
}

/// Whether an address may send tunnelled packets.
#[inline(always)]
pub fn may_send(source: Ip) -> bool {
    DECAP_SOURCES.get(&Key::new(128, source)).is_some()
}

/// Whether an address is a virtual one.
#[inline(always)]
pub fn is_vip(address: Ip) -> bool {
    // SAFETY: only whether there is a value is asked.
    unsafe { DECAP_VIPS.get(&address) }.is_some()
}

#[inline(always)]
pub fn count(outcome: Outcome) {
    if let Some(counter) = DECAP_COUNTS.get_ptr_mut(outcome as u32) {
        // SAFETY: the value is this CPU's own, and the program is not preempted by itself.
        unsafe { *counter += 1 };
    }
}

/// The same number, of which the verifier knows nothing.
#[inline(always)]
pub fn forget_bounds(number: usize) -> Option<usize> {
    let place = DECAP_SCRATCH.get_ptr_mut(0)?;
    // SAFETY: `place` points to this CPU's value, to which there are no references. Volatile, or the
    // compiler would remember what it wrote.
    unsafe {
        place.write_volatile(number as u64);
        Some(place.read_volatile() as usize)
    }
}
