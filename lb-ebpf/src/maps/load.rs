//! How many flows backends have. The daemon adds what no packet tells.

use aya_ebpf::{macros::map, maps::Array};
use lb_common::abi::{FlowState, Load};

use super::fetch_add_one;
use crate::select::Target;

#[map]
static LOADS: Array<Load> = Array::with_max_entries(1, 0);

/// The flows of a counted backend.
#[inline(always)]
pub fn open(target: &Target) -> i64 {
    let Some(load) = LOADS.get_ptr_mut(u32::from(target.id.0)) else {
        return 0;
    };
    // SAFETY: `load` points to an aligned value of an array map. Closed flows are read first: one
    // that comes and goes meanwhile counts as there.
    let (closed, opened) = unsafe {
        (
            (&raw const (*load).closed).read_volatile(),
            (&raw const (*load).opened).read_volatile(),
        )
    };
    i64::from(Load::new(opened, closed).open(target.backend.correction()))
}

/// Notes that a flow of a backend was recorded.
#[inline(always)]
pub fn note_opened(target: &Target) {
    if !target.backend.is_counted() {
        return;
    }
    if let Some(load) = LOADS.get_ptr_mut(u32::from(target.id.0)) {
        // SAFETY: `load` points to a value of an array map, whose fields are eight bytes.
        unsafe { fetch_add_one(&raw mut (*load).opened) };
    }
}

/// Notes that a recorded flow of a backend went from one state to another, if that ends it, or makes
/// it live again.
#[inline(always)]
pub fn note_change(target: &Target, before: u8, after: u8) {
    let lives = FlowState::is_live(after);
    if FlowState::is_live(before) == lives || !target.backend.is_counted() {
        return;
    }
    let Some(load) = LOADS.get_ptr_mut(u32::from(target.id.0)) else {
        return;
    };
    // SAFETY: as in `note_opened`.
    unsafe {
        fetch_add_one(if lives {
            &raw mut (*load).opened
        } else {
            &raw mut (*load).closed
        });
    }
}
