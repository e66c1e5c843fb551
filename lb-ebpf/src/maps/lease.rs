//! Which addresses virtual routers have, and for how long. Written by the daemon, read by the program.

use aya_ebpf::{macros::map, maps::HashMap};
use lb_common::abi::{Ip, Lease, VirtualMac};

use super::{OWN_MAC, now_nanos};

#[map]
static LEASES: HashMap<Ip, Lease> = HashMap::with_max_entries(Lease::LIMIT, 0);

/// The stack takes words of eight bytes at aligned places alone, and addresses are copied by such.
#[repr(align(8))]
struct Aligned(Ip);

/// Who answers neighbours that ask for an address.
#[derive(Clone, Copy)]
pub enum Answerer {
    /// The kernel, if the host has it.
    Host,
    /// Nobody: a virtual router has it, or had it, and its daemon does not say any more that this one is
    /// Active.
    Nobody,
    /// The program, with the virtual MAC address of that number.
    Program(u8),
}

/// Who answers for an address.
#[inline(always)]
pub fn answerer(address: Ip) -> Answerer {
    match find(address) {
        None => Answerer::Host,
        Some(lease) if lease.until < now_nanos() => Answerer::Nobody,
        Some(lease) if lease.mac() == 0 => Answerer::Host,
        Some(lease) => Answerer::Program(lease.mac()),
    }
}

/// Whether a frame is for another host, by its destination. One that is for this host by a virtual
/// router's MAC address has the interface's afterwards, or the kernel would not take it.
#[inline(always)]
pub fn is_for_another(mac: &mut [u8; 6]) -> bool {
    let Some(own) = OWN_MAC.get(0) else {
        return false;
    };
    // Nearly all frames are, and no other look is taken at them.
    if own.is(mac) {
        return false;
    }
    let Some(its) = VirtualMac::read(mac) else {
        return own.is_others(mac);
    };
    match has(its) {
        // Somebody else's on this host.
        None => false,
        Some(false) => true,
        Some(true) => {
            if let Some(own) = own.get() {
                *mac = own;
            }
            false
        }
    }
}

/// Whether a virtual MAC address is this host's at the moment; `None` if it is of no router of ours.
#[inline(always)]
fn has(mac: VirtualMac) -> Option<bool> {
    find(mac.key()).map(|lease| lease.until != 0)
}

/// Takes no more frames to the virtual MAC address of a router whose lease is over: another host says
/// that the router's address is there.
///
/// Until one does, sessions go on without a daemon. A switch sends that host the frames, but one that
/// floods would have both forward them, and nobody else could tell this one.
#[inline(always)]
pub fn leave_to_peer(address: Ip) {
    let Some(lease) = find(address) else {
        return;
    };
    if lease.mac() == 0 || lease.until >= now_nanos() {
        return;
    }
    let mac = if address.is_v4() {
        VirtualMac::v4(lease.mac())
    } else {
        VirtualMac::v6(lease.mac())
    };
    if has(mac) == Some(true) {
        let key = Aligned(mac.key());
        // One that the daemon has removed meanwhile stays removed.
        let _gone = LEASES.insert(&key.0, Lease::new(0, 0), BPF_EXIST);
    }
}

/// Replaces a value, and adds none.
const BPF_EXIST: u64 = 2;

#[inline(always)]
fn find(address: Ip) -> Option<Lease> {
    let address = Aligned(address);
    // SAFETY: copied out at once, see the parent module's documentation.
    unsafe { LEASES.get(&address.0) }.copied()
}
