//! Packets of which a first piece was seen. Written and read by the program alone.

use aya_ebpf::{macros::map, maps::LruHashMap};
use lb_common::abi::{Fragment, FragmentKey};

#[map]
static FRAGMENTS: LruHashMap<FragmentKey, Fragment> = LruHashMap::with_max_entries(1, 0);

/// What the first piece of a packet had.
#[inline(always)]
pub fn fragment(key: &FragmentKey) -> Option<Fragment> {
    // SAFETY: copied out at once, see the parent module's documentation.
    unsafe { FRAGMENTS.get(key) }.copied()
}

/// Notes a first piece.
#[inline(always)]
pub fn insert_fragment(key: &FragmentKey, fragment: &Fragment) {
    // Where it fails, later pieces are dropped, and counted as that.
    let _: Result<(), i32> = FRAGMENTS.insert(key, fragment, 0);
}
