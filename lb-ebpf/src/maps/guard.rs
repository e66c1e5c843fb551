//! Maps of who may connect, and how often.
//!
//! The daemon writes ACCESS and RATES; the program writes the rest.

use core::arch::asm;

use aya_ebpf::{
    Global,
    helpers::generated::bpf_ktime_get_ns,
    macros::map,
    maps::{Array, LpmTrie, LruHashMap, PerCpuArray, lpm_trie::Key},
};
use lb_common::{
    abi::{AccessKey, Bucket, GuardCounts, Ip, Rate, Rates, ServiceId, SourceKey, Tick},
    challenge,
};

#[map]
static ACCESS: LpmTrie<AccessKey, u32> = LpmTrie::with_max_entries(1, 0);
#[map]
static RATES: Array<Rates> = Array::with_max_entries(1, 0);
#[map]
static SERVICE_BUCKETS: Array<Bucket> = Array::with_max_entries(1, 0);
#[map]
static SOURCE_BUCKETS: LruHashMap<SourceKey, Bucket> = LruHashMap::with_max_entries(1, 0);
#[map]
static ANSWERED: LruHashMap<SourceKey, u32> = LruHashMap::with_max_entries(1, 0);
#[map]
static GUARD_COUNTS: PerCpuArray<GuardCounts> = PerCpuArray::with_max_entries(1, 0);

#[unsafe(no_mangle)]
static CHALLENGE_KEY: Global<challenge::Key> = Global::new(challenge::Key::zero());

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

/// The clock of buckets.
#[inline(always)]
pub fn now_nanos() -> u64 {
    // SAFETY: the helper has no preconditions.
    unsafe { bpf_ktime_get_ns() }
}

/// Takes one from a service's bucket; `None` if it is empty.
#[inline(always)]
pub fn take_of_service(id: ServiceId, rate: Rate, now: u64) -> Option<()> {
    take(SERVICE_BUCKETS.get_ptr_mut(u32::from(id.0))?, rate, now)
}

/// Takes one from a source's bucket; `None` if it is empty.
///
/// A source that is not known has a full one. So has one that was forgotten, which is the least
/// recently seen: it had time to fill, unless more sources than there is room for come at once. Those
/// are forged, and the service's bucket is what holds against them.
#[inline(always)]
pub fn take_of_source(key: &SourceKey, rate: Rate, now: u64) -> Option<()> {
    if let Some(bucket) = SOURCE_BUCKETS.get_ptr_mut(key) {
        return take(bucket, rate, now);
    }
    let bucket = Bucket(rate.take(0, now)?);
    // Two CPUs that both find nobody each let one through.
    let _: Result<(), i32> = SOURCE_BUCKETS.insert(key, &bucket, 0);
    Some(())
}

/// By one atomic exchange, so that no two CPUs take the same one. One that loses every time counts
/// as refused: the bucket is in such demand that another SYN more or less is no matter.
#[inline(always)]
fn take(bucket: *mut Bucket, rate: Rate, now: u64) -> Option<()> {
    const TRIES: usize = 4;
    for _ in 0..TRIES {
        // SAFETY: the pointer came from a look-up, hence to a value that stays mapped. Should an
        // entry have been handed out again, another source's bucket has one less. Volatile, as
        // other CPUs write it.
        let before = unsafe { bucket.cast::<u64>().read_volatile() };
        let after = rate.take(before, now)?;
        let mut found = before;
        // SAFETY: as above; the value is eight bytes, aligned. In assembly because rustc knows no
        // atomics on this target.
        unsafe {
            asm!(
                "r0 = cmpxchg_64({bucket} + 0, r0, {after})",
                bucket = in(reg) bucket,
                after = in(reg) after,
                inout("r0") found,
            );
        }
        if found == before {
            return Some(());
        }
    }
    None
}

/// The secret of challenges.
#[inline(always)]
pub fn challenge_key() -> challenge::Key {
    CHALLENGE_KEY.load()
}

/// Whether a source has answered a challenge lately.
#[inline(always)]
pub fn has_answered(key: &SourceKey, now: Tick) -> bool {
    // SAFETY: copied out at once.
    let answered = unsafe { ANSWERED.get(key) }.copied();
    answered.is_some_and(|answered| challenge::is_fresh(Tick(answered), now))
}

/// Notes that a source has answered a challenge.
#[inline(always)]
pub fn note_answer(key: &SourceKey, now: Tick) {
    // Without the note it is challenged again.
    let _: Result<(), i32> = ANSWERED.insert(key, &now.0, 0);
}

/// Counts what was done about a packet of a service on this CPU.
#[inline(always)]
pub fn count_guard(id: ServiceId, count: impl FnOnce(&mut GuardCounts)) {
    if let Some(counts) = GUARD_COUNTS.get_ptr_mut(u32::from(id.0)) {
        // SAFETY: the counters are this CPU's own, and the program is not preempted by itself.
        count(unsafe { &mut *counts });
    }
}
