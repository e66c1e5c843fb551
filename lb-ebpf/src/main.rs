//! The balancer's XDP programs: run a part of the pipeline, count its verdict, return the action.

#![no_std]
#![no_main]
#![feature(asm_experimental_arch)]
#![allow(
    unreachable_pub,
    reason = "pub marks what a module offers the others; a program exports nothing"
)]

mod conntrack;
mod forward;
mod job;
mod maps;
mod mqtt;
mod nat;
mod packet;
mod pipeline;
mod quote;
mod rewrite;
mod select;
mod stage;

use aya_ebpf::{
    bindings::xdp_action::{XDP_DROP, XDP_PASS, XDP_REDIRECT, XDP_TX},
    macros::xdp,
    programs::XdpContext,
};
use lb_common::verdict::{Action, Verdict};

/// Sees every frame of the interface; the name is [`lb_common::abi::PROGRAM`].
#[xdp]
#[inline(always)]
pub fn tidegate(context: XdpContext) -> u32 {
    end(&context, pipeline::run(&context))
}

/// [`lb_common::abi::Stage::Guard`].
#[xdp]
#[inline(always)]
pub fn stage_guard(context: XdpContext) -> u32 {
    end(&context, stage::guard::run(&context))
}

/// [`lb_common::abi::Stage::Track`].
#[xdp]
#[inline(always)]
pub fn stage_track(context: XdpContext) -> u32 {
    end(&context, stage::track::run(&context))
}

/// [`lb_common::abi::Stage::Translate`].
#[xdp]
#[inline(always)]
pub fn stage_translate(context: XdpContext) -> u32 {
    end(&context, stage::translate::run(&context))
}

/// [`lb_common::abi::Stage::Reply`].
#[xdp]
#[inline(always)]
pub fn stage_reply(context: XdpContext) -> u32 {
    end(&context, stage::reply::run(&context))
}

/// [`lb_common::abi::Stage::Icmp`].
#[xdp]
#[inline(always)]
pub fn stage_icmp(context: XdpContext) -> u32 {
    end(&context, stage::icmp::run(&context))
}

/// [`lb_common::abi::Stage::Fragment`].
#[xdp]
#[inline(always)]
pub fn stage_fragment(context: XdpContext) -> u32 {
    end(&context, stage::fragment::run(&context))
}

/// [`lb_common::abi::Stage::Answer`].
#[xdp]
#[inline(always)]
pub fn stage_answer(context: XdpContext) -> u32 {
    end(&context, stage::answer::run(&context))
}

/// [`lb_common::abi::Stage::Arp`].
#[xdp]
#[inline(always)]
pub fn stage_arp(context: XdpContext) -> u32 {
    end(&context, stage::neighbour::run(&context))
}

/// [`lb_common::abi::Stage::Encapsulate`].
#[xdp]
#[inline(always)]
pub fn stage_encapsulate(context: XdpContext) -> u32 {
    end(&context, stage::encapsulate::run(&context))
}

/// Counts the end of a packet's way and says what XDP is to do.
#[inline(always)]
fn end(context: &XdpContext, outcome: Result<Verdict, Verdict>) -> u32 {
    let verdict = match outcome {
        Ok(verdict) | Err(verdict) => verdict,
    };
    trace(context, verdict);
    maps::count_verdict(verdict);
    match verdict.action() {
        Action::Pass => XDP_PASS,
        Action::Drop => XDP_DROP,
        Action::Transmit => XDP_TX,
        Action::Redirect => XDP_REDIRECT,
    }
}

#[cfg(feature = "trace")]
fn trace(context: &XdpContext, verdict: Verdict) {
    aya_log_ebpf::trace!(context, "verdict {}", verdict.slot());
}

#[cfg(not(feature = "trace"))]
#[inline(always)]
fn trace(_: &XdpContext, _: Verdict) {}

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    // The verifier rejects programs that can get here.
    loop {}
}

/// `bpf_redirect` and all bpf_ktime helpers used here are open to any licence; the verifier asks
/// for a GPL-compatible one for tracing, and kernels show the string to operators.
#[unsafe(no_mangle)]
#[unsafe(link_section = "license")]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
