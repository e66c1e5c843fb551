//! The programs that the benchmarks of the packet path need around the balancer and beside it: a
//! generator of frames, the cheapest program that sends a frame back, the cheapest that spreads
//! flows, and a sink.
//!
//! The generator runs in the kernel's live-frame test mode, which hands it recycled pages: it lays
//! down the whole header each time. Never part of the product.

#![no_std]
#![no_main]
#![allow(unreachable_pub, reason = "a program exports nothing")]

use aya_ebpf::{
    bindings::xdp_action::{XDP_ABORTED, XDP_DROP, XDP_PASS, XDP_TX},
    helpers::generated::{bpf_get_prandom_u32, bpf_redirect},
    macros::{map, xdp},
    maps::{Array, PerCpuArray},
    programs::XdpContext,
};
use lb_common::{checksum::Delta, generator::Order};

/// Length of a generated frame: a TCP segment without payload.
const LENGTH: usize = 54;

#[map]
static ORDER: Array<Order> = Array::with_max_entries(1, 0);
#[map]
static MADE: PerCpuArray<u64> = PerCpuArray::with_max_entries(1, 0);
/// The flow of the last frame that was made.
#[map]
static AT: PerCpuArray<u32> = PerCpuArray::with_max_entries(1, 0);
#[map]
static SUNK: PerCpuArray<u64> = PerCpuArray::with_max_entries(1, 0);
/// The address whose flows are spread.
#[map]
static VIP: Array<[u8; 4]> = Array::with_max_entries(1, 0);
/// The MAC addresses of those that they are spread over.
#[map]
static HOPS: Array<[u8; 6]> = Array::with_max_entries(2, 0);

#[xdp]
pub fn generate(context: XdpContext) -> u32 {
    make(&context).unwrap_or(XDP_ABORTED)
}

#[inline(always)]
fn make(context: &XdpContext) -> Option<u32> {
    let order = ORDER.get(0)?;
    let at = AT.get_ptr_mut(0)?;
    // SAFETY: it is this CPU's own, and the program is not preempted by itself.
    let flow = unsafe {
        *at = (*at + order.step()) % order.flows();
        *at
    };
    lay(context, order, flow)?;
    // SAFETY: the helper only notes the interface for the action that it returns.
    Some(unsafe { bpf_redirect(order.interface(), 0) } as u32)
}

/// Makes frames from random sources, with checksums that a host accepts.
#[xdp]
pub fn flood(context: XdpContext) -> u32 {
    make_random(&context).unwrap_or(XDP_ABORTED)
}

#[inline(always)]
fn make_random(context: &XdpContext) -> Option<u32> {
    let order = ORDER.get(0)?;
    count(&MADE)?;
    // SAFETY: the helper takes nothing.
    let flow = unsafe { bpf_get_prandom_u32() };
    let frame = lay(context, order, flow)?;
    let source = [frame[26], frame[27], frame[28], frame[29]];
    let address = Delta::new().double(Order::FIRST_SOURCE, source);
    let port = Delta::new().word(Order::FIRST_PORT, [frame[34], frame[35]]);
    [frame[24], frame[25]] = address.apply([frame[24], frame[25]]);
    [frame[50], frame[51]] = address.plus(port).apply(order.checksum());
    // SAFETY: the helper only notes the interface for the action that it returns.
    Some(unsafe { bpf_redirect(order.interface(), 0) } as u32)
}

/// Writes a whole frame of a flow: 24 bits of the number are in the address, 8 in the port.
#[inline(always)]
fn lay<'a>(context: &'a XdpContext, order: &Order, flow: u32) -> Option<&'a mut [u8; LENGTH]> {
    let frame = bytes::<LENGTH>(context)?;
    *frame = [0; LENGTH];
    frame[..26].copy_from_slice(order.head());
    frame[26] = Order::FIRST_SOURCE[0];
    frame[27] = (flow >> 24) as u8;
    frame[28] = (flow >> 16) as u8;
    frame[29] = (flow >> 8) as u8;
    frame[30..34].copy_from_slice(order.destination());
    frame[34] = Order::FIRST_PORT[0];
    frame[35] = flow as u8;
    frame[36] = (1883_u16 >> 8) as u8;
    frame[37] = 1883_u16 as u8;
    frame[46] = 5 << 4;
    frame[47] = order.flags();
    Some(frame)
}

/// The floor: what it costs to see a frame and to send it back.
#[xdp]
pub fn floor(context: XdpContext) -> u32 {
    let Some(macs) = bytes::<12>(&context) else {
        return XDP_ABORTED;
    };
    let [a, b, c, d, e, f, g, h, i, j, k, l] = *macs;
    *macs = [g, h, i, j, k, l, a, b, c, d, e, f];
    XDP_TX
}

/// The least that a balancer can do: IPv4 without options to an address goes on to one of two hosts, by
/// its source port. No health, no tables, no counters; a change of hosts would break every flow.
#[xdp]
pub fn sketch(context: XdpContext) -> u32 {
    spread(&context).unwrap_or(XDP_PASS)
}

#[inline(always)]
fn spread(context: &XdpContext) -> Option<u32> {
    let frame = bytes::<38>(context)?;
    let is_ours = frame[12..15] == [8, 0, 0x45]
        && frame[23] == 6
        && frame[30..34] == *VIP.get(0)?
        && frame[36..38] == 1883_u16.to_be_bytes();
    if !is_ours {
        return None;
    }
    let hop = HOPS.get(u32::from(frame[35] & 1))?;
    let [own @ .., _, _, _, _, _, _] = *frame.first_chunk::<12>()?;
    frame[..6].copy_from_slice(hop);
    frame[6..12].copy_from_slice(&own);
    Some(XDP_TX)
}

#[xdp]
pub fn sink(_context: XdpContext) -> u32 {
    match count(&SUNK) {
        Some(_) => XDP_DROP,
        None => XDP_ABORTED,
    }
}

#[inline(always)]
fn count(counter: &PerCpuArray<u64>) -> Option<u64> {
    let counter = counter.get_ptr_mut(0)?;
    // SAFETY: the counter is this CPU's own, and the program is not preempted by itself.
    unsafe {
        *counter += 1;
        Some(*counter)
    }
}

#[inline(always)]
fn bytes<const N: usize>(context: &XdpContext) -> Option<&mut [u8; N]> {
    if context.data() + N > context.data_end() {
        return None;
    }
    // SAFETY: checked against `data_end` above; each program takes its frame once.
    Some(unsafe { &mut *(context.data() as *mut [u8; N]) })
}

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    // The verifier rejects programs that can get here.
    loop {}
}

/// As in the balancer.
#[unsafe(no_mangle)]
#[unsafe(link_section = "license")]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
