//! How a frame leaves.

use aya_ebpf::{helpers::generated::bpf_redirect, programs::XdpContext};
use lb_common::{abi::NextHop, verdict::Verdict};

use crate::{job::Packet, packet::Frame, rewrite, select::Target};

/// The two ways out, as verdicts of one mode.
#[derive(Clone, Copy)]
pub struct Exits {
    pub transmit: Verdict,
    pub redirect: Verdict,
}

pub const DSR: Exits = Exits {
    transmit: Verdict::TxDsr,
    redirect: Verdict::RedirectDsr,
};
pub const NAT: Exits = Exits {
    transmit: Verdict::TxNat,
    redirect: Verdict::RedirectNat,
};
pub const TUNNEL: Exits = Exits {
    transmit: Verdict::TxTunnel,
    redirect: Verdict::RedirectTunnel,
};
pub const NAT_REPLY: Exits = Exits {
    transmit: Verdict::TxNatReply,
    redirect: Verdict::RedirectNatReply,
};
pub const ICMP: Exits = Exits {
    transmit: Verdict::TxIcmp,
    redirect: Verdict::RedirectIcmp,
};
pub const ICMP_REPLY: Exits = Exits {
    transmit: Verdict::TxIcmpReply,
    redirect: Verdict::RedirectIcmpReply,
};

/// The MAC addresses of an Ethernet header and the interface it came in by.
#[derive(Clone, Copy)]
pub struct Arrival {
    pub destination: [u8; 6],
    pub source: [u8; 6],
    pub interface: u32,
}

impl Arrival {
    /// A digest of the sender's MAC address and the interface: one way and another one have the same
    /// once in 65,536 times. The whole of it would take a record of a flow ten bytes.
    #[inline(always)]
    pub const fn way(&self) -> u16 {
        let [a, b, c, d, e, f] = self.source;
        let whole = u64::from_le_bytes([a, b, c, d, e, f, 0, 0]) ^ ((self.interface as u64) << 48);
        // Fibonacci hashing: the upper bits depend on all.
        (whole.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 48) as u16
    }
}

/// Where a frame came from.
#[inline(always)]
pub fn arrival(context: &XdpContext, frame: &mut Frame) -> Option<Arrival> {
    let [a, b, c, d, e, f, g, h, i, j, k, l] = *frame.bytes::<12>(0)?;
    Some(Arrival {
        destination: [a, b, c, d, e, f],
        source: [g, h, i, j, k, l],
        interface: context.ingress_ifindex() as u32,
    })
}

/// Sends the packet as it is, to the backend's MAC address.
#[inline(always)]
pub fn route(packet: &mut Packet<'_>, target: &Target, first: bool) -> Result<Verdict, Verdict> {
    let next_hop = target.backend.next_hop().ok_or(Verdict::DropNoNextHop)?;
    rewrite::age(packet)?;
    packet.count(target, first);
    send(packet.context, &mut packet.frame, next_hop, DSR)
}

/// Addresses the frame to its next hop, and sends it.
#[inline(always)]
pub fn send(
    context: &XdpContext,
    frame: &mut Frame,
    next_hop: NextHop,
    exits: Exits,
) -> Result<Verdict, Verdict> {
    let NextHop {
        interface,
        mac: [a, b, c, d, e, f],
        source_mac: [g, h, i, j, k, l],
    } = next_hop;
    *frame.bytes::<12>(0).ok_or(Verdict::DropInternal)? = [a, b, c, d, e, f, g, h, i, j, k, l];
    if interface == context.ingress_ifindex() as u32 {
        return Ok(exits.transmit);
    }
    // SAFETY: the helper only notes the interface for the XDP_REDIRECT that the verdict returns.
    unsafe { bpf_redirect(interface, 0) };
    Ok(exits.redirect)
}
