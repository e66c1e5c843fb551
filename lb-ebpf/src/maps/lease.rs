//! Which addresses virtual routers have, and for how long. Written by the daemon, read by the program.

use aya_ebpf::{macros::map, maps::HashMap};
use lb_common::abi::{Ip, Lease};

use super::now_nanos;

#[map]
static LEASES: HashMap<Ip, Lease> = HashMap::with_max_entries(Lease::LIMIT, 0);

/// The stack takes words of eight bytes at aligned places alone, and addresses are copied by such.
#[repr(align(8))]
struct Aligned(Ip);

/// Whether neighbours must not be told that an address is here: a virtual router has it, or had it,
/// and its daemon does not say any more that this one is Active.
#[inline(always)]
pub fn is_withheld(address: Ip) -> bool {
    let address = Aligned(address);
    // SAFETY: copied out at once, see the parent module's documentation.
    let lease = unsafe { LEASES.get(&address.0) }.copied();
    lease.is_some_and(|lease| lease.until < now_nanos())
}
