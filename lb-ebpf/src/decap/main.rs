//! The decapsulator: on a backend, takes clients' packets out of the balancer's.
//!
//! The client's packet is given to the host as if it had come by itself: the Ethernet header and its
//! tags move up to it, and what was between is cut off. Only senders that the operator named and
//! virtual addresses that this host serves count; all else is the host's.

#![no_std]
#![no_main]
#![allow(
    unreachable_pub,
    reason = "pub marks what a module offers the others; a program exports nothing"
)]

mod maps;
#[allow(dead_code, reason = "shared with the balancer, which needs all of it")]
#[path = "../packet.rs"]
mod packet;

use aya_ebpf::{
    bindings::xdp_action::{XDP_DROP, XDP_PASS},
    helpers::generated::bpf_xdp_adjust_head,
    macros::xdp,
    programs::XdpContext,
};
use lb_common::{
    checksum::Delta,
    decap::{Inner, Outcome, Outer, ecn, ecn_of, with_ecn},
    parse::Family,
};

use crate::packet::Frame;

/// Sees every frame of the interface; the name is [`lb_common::decap::PROGRAM`].
#[xdp]
pub fn tidegate_decap(context: XdpContext) -> u32 {
    let outcome = match run(&context) {
        Ok(()) => Outcome::Decapsulated,
        Err(outcome) => outcome,
    };
    maps::count(outcome);
    if outcome.passes() { XDP_PASS } else { XDP_DROP }
}

#[inline(always)]
fn run(context: &XdpContext) -> Result<(), Outcome> {
    let mut frame = Frame::new(context);
    let mut cursor = frame.cursor();
    let outer = Outer::parse(&mut cursor, maps::gue_port()).ok_or(Outcome::NotOurs)?;
    let may_send = maps::may_send(outer.network.source);
    let Some(inner) = outer.inner(&mut cursor) else {
        return Err(if may_send {
            Outcome::Malformed
        } else {
            Outcome::NotOurs
        });
    };
    if !maps::is_vip(inner.network.destination) {
        return Err(Outcome::NotOurs);
    }
    if !may_send {
        return Err(Outcome::DeniedSource);
    }
    mark(&mut frame, &outer, &inner)?;
    unpack(context, &mut frame, &outer, &inner).ok_or(Outcome::Malformed)
}

/// Hands a router's congestion mark on to the client's packet.
#[inline(always)]
fn mark(frame: &mut Frame, outer: &Outer, inner: &Inner) -> Result<(), Outcome> {
    let outside = *frame
        .bytes::<2>(outer.network.offset)
        .ok_or(Outcome::Malformed)?;
    let at = inner.network.offset;
    let head = frame.bytes::<12>(at).ok_or(Outcome::Malformed)?;
    let old = [head[0], head[1]];
    let before = ecn_of(old, inner.family);
    let after = ecn(before, ecn_of(outside, outer.family)).ok_or(Outcome::EcnDropped)?;
    if after == before {
        return Ok(());
    }
    let second = with_ecn(old[1], inner.family, after);
    head[1] = second;
    if matches!(inner.family, Family::V4) {
        let sum = Delta::new().word(old, [old[0], second]);
        [head[10], head[11]] = sum.apply([head[10], head[11]]);
    }
    Ok(())
}

/// Moves the Ethernet header and its tags up to the inner packet, and cuts off what is before.
#[inline(always)]
fn unpack(context: &XdpContext, frame: &mut Frame, outer: &Outer, inner: &Inner) -> Option<()> {
    let (from, to) = (outer.network.offset, inner.network.offset);
    let tags = from.wrapping_sub(14);
    let delta = to.wrapping_sub(from);
    // All is read before anything is written: two tags are longer than the shortest outer header.
    let addresses = *frame.bytes::<12>(0)?;
    if tags == 4 {
        let tag = *frame.bytes::<4>(12)?;
        *frame.bytes::<4>(delta.wrapping_add(12))? = tag;
    } else if tags != 0 {
        // One tag and two are all that the parser reads.
        let both = *frame.bytes::<8>(12)?;
        *frame.bytes::<8>(delta.wrapping_add(12))? = both;
    }
    *frame.bytes::<12>(delta)? = addresses;
    *frame.bytes::<2>(to.wrapping_sub(2))? = match inner.family {
        Family::V4 => [0x08, 0x00],
        Family::V6 => [0x86, 0xdd],
    };
    // SAFETY: the context is the one that this program was called with, and no pointer into the
    // frame is used after this.
    (unsafe { bpf_xdp_adjust_head(context.ctx, delta as i32) } == 0).then_some(())
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
