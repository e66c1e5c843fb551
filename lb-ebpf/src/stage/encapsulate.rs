//! tunnel: the packet travels to its backend inside another one.
//!
//! ```text
//!  Ethernet, tags | outer IPv4 or IPv6 | UDP, if GUE | the client's packet, one hop older
//! ```
//! IP in IP is RFC 2003 (4 in 4), RFC 2473 (in IPv6) and RFC 4213 (6 in 4). GUE is variant 1 of
//! draft-ietf-intarea-gue: an IP packet right behind the UDP header. Its UDP checksum is zero over
//! IPv6 too, which RFC 6935 allows tunnels: the inner packet has sums of its own, and a decapsulator
//! checks both ends (RFC 6936, section 4).

use aya_ebpf::{helpers::generated::bpf_xdp_adjust_head, programs::XdpContext};
use lb_common::{
    abi::{Ip, Service},
    checksum::fold,
    parse::Family,
    verdict::Verdict,
};

use crate::{
    forward,
    job::{Answer, Packet},
    maps,
    packet::Frame,
    rewrite,
    select::Target,
};

const ETHERTYPE_IPV4: [u8; 2] = [0x08, 0x00];
const ETHERTYPE_IPV6: [u8; 2] = [0x86, 0xdd];
const PROTOCOL_IPV4: u8 = 4;
const PROTOCOL_IPV6: u8 = 41;
const PROTOCOL_UDP: u8 = 17;

/// Hops of the outer packet (RFC 2003, 3.1: as for any packet of the host's own).
const HOPS: u8 = 64;
/// Don't fragment: a tunnel that fragments loses twice as often, and hides its MTU.
const DF: u16 = 0x4000;
/// Source ports are from here up: the range for dynamic ports (RFC 6335, section 6).
const FIRST_PORT: u16 = 49_152;

const IPV4_LENGTH: u32 = 20;
const IPV6_LENGTH: u32 = 40;
const UDP_LENGTH: u32 = 8;

/// What the outer headers are made of.
struct Outer {
    source: Ip,
    destination: Ip,
    is_v4: bool,
    is_gue: bool,
    tunnel_port: [u8; 2],
    /// Of the outer packet, in bytes.
    length: u32,
    /// DSCP and ECN of the inner packet.
    traffic_class: u8,
    /// What the outer packet carries, if not UDP.
    protocol: u8,
    hash: u32,
}

/// Sends a packet to the backend that was chosen, in another packet.
#[inline(always)]
pub fn run(context: &XdpContext) -> Result<Verdict, Verdict> {
    let job = maps::job().ok_or(Verdict::DropInternal)?;
    let mut packet = Packet::resume(context, job);
    let service = job.service;
    let first = job.starts_flow();
    let outcome = job
        .target()
        .and_then(|target| encapsulate(&mut packet, &service, &target, first));
    maps::count_dropped(&service, outcome)
}

#[inline(always)]
fn encapsulate(
    packet: &mut Packet<'_>,
    service: &Service,
    target: &Target,
    first: bool,
) -> Result<Verdict, Verdict> {
    let next_hop = target.backend.next_hop().ok_or(Verdict::DropNoNextHop)?;
    let outer = outer(packet, service, target)?;
    let mtu = match target.backend.mtu() {
        0 => u16::MAX,
        mtu => mtu,
    };
    if outer.length > u32::from(mtu) {
        let inner_mtu = mtu.saturating_sub(outer.overhead() as u16);
        // Also where the sender allows fragments: its packet is not ours to cut, and the answer is
        // all that it can act upon.
        return packet.answer(service, Answer::TooBig { mtu: inner_mtu });
    }
    rewrite::age(packet)?;
    packet.count(target, first);
    let mut frame = make_room(packet, &outer).ok_or(Verdict::DropInternal)?;
    outer
        .write(&mut frame, packet.network)
        .ok_or(Verdict::DropInternal)?;
    forward::send(packet.context, &mut frame, next_hop, forward::TUNNEL)
}

/// Collects what the outer headers need.
#[inline(always)]
fn outer(packet: &mut Packet<'_>, service: &Service, target: &Target) -> Result<Outer, Verdict> {
    let hash = maps::hash_keys().hash(&packet.flow);
    let destination = maps::load_ip(target.backend.address());
    let is_v4 = destination.is_v4();
    let sources = maps::tunnel_sources().ok_or(Verdict::DropInternal)?;
    let source = sources
        .source(is_v4, hash)
        .ok_or(Verdict::DropTunnelNoSource)?;
    let inner = packet.end.wrapping_sub(packet.network) as u32;
    let [zero, one] = *packet
        .frame
        .bytes::<2>(packet.network)
        .ok_or(Verdict::DropInternal)?;
    let (traffic_class, protocol) = match packet.family {
        Family::V4 => (one, PROTOCOL_IPV4),
        Family::V6 => ((zero << 4) | (one >> 4), PROTOCOL_IPV6),
    };
    let mut outer = Outer {
        source,
        destination,
        is_v4,
        is_gue: service.is_gue(),
        tunnel_port: service.tunnel_port(),
        length: 0,
        traffic_class,
        protocol,
        hash,
    };
    outer.length = inner + outer.overhead();
    Ok(outer)
}

/// Grows the frame at its front, and puts tags and ethertype where the outer header wants them.
#[inline(always)]
fn make_room(packet: &mut Packet<'_>, outer: &Outer) -> Option<Frame> {
    let tags = packet.network.wrapping_sub(14);
    // One tag and two are all that the parser reads.
    let kept = if tags == 0 {
        [0; 8]
    } else if tags == 4 {
        let [a, b, c, d] = *packet.frame.bytes::<4>(12)?;
        [a, b, c, d, 0, 0, 0, 0]
    } else {
        *packet.frame.bytes::<8>(12)?
    };
    let room = outer.overhead() as i32;
    // SAFETY: the context is the one that this program was called with. Every pointer into the
    // frame is made anew below.
    if unsafe { bpf_xdp_adjust_head(packet.context.ctx, -room) } != 0 {
        return None;
    }
    let mut frame = Frame::new(packet.context);
    if tags == 4 {
        let [a, b, c, d, ..] = kept;
        *frame.bytes::<4>(12)? = [a, b, c, d];
    } else if tags != 0 {
        *frame.bytes::<8>(12)? = kept;
    }
    *frame.bytes::<2>(packet.network.wrapping_sub(2))? = if outer.is_v4 {
        ETHERTYPE_IPV4
    } else {
        ETHERTYPE_IPV6
    };
    Some(frame)
}

impl Outer {
    /// Bytes that the tunnel adds.
    #[inline(always)]
    const fn overhead(&self) -> u32 {
        let network = if self.is_v4 { IPV4_LENGTH } else { IPV6_LENGTH };
        if self.is_gue {
            network + UDP_LENGTH
        } else {
            network
        }
    }

    /// Lays the headers down from `at` on.
    #[inline(always)]
    fn write(&self, frame: &mut Frame, at: usize) -> Option<()> {
        let length = if self.is_v4 {
            self.write_v4(frame, at)?;
            IPV4_LENGTH
        } else {
            self.write_v6(frame, at)?;
            IPV6_LENGTH
        };
        if self.is_gue {
            self.write_udp(frame, at + length as usize, self.length - length)?;
        }
        Some(())
    }

    #[inline(always)]
    const fn next_protocol(&self) -> u8 {
        if self.is_gue {
            PROTOCOL_UDP
        } else {
            self.protocol
        }
    }

    /// RFC 791, 3.1. The identification may be anything where nothing is fragmented (RFC 6864).
    #[inline(always)]
    fn write_v4(&self, frame: &mut Frame, at: usize) -> Option<()> {
        let [.., source] = self.source.words();
        let [.., destination] = self.destination.words();
        let head = 0x4500_0000 | (u32::from(self.traffic_class) << 16) | self.length;
        let flags = u32::from(DF);
        let hops = (u32::from(HOPS) << 24) | (u32::from(self.next_protocol()) << 16);
        let sum = halves(head)
            + halves(flags)
            + halves(hops)
            + halves(u32::from_be(source))
            + halves(u32::from_be(destination));
        let sum = u32::from(!fold(sum));
        let words = [
            head.to_be(),
            flags.to_be(),
            (hops | sum).to_be(),
            source,
            destination,
        ];
        frame.put_words(at, words)
    }

    /// RFC 8200, 3. The flow label varies by flow, for routers that spread by it (RFC 6438).
    #[inline(always)]
    fn write_v6(&self, frame: &mut Frame, at: usize) -> Option<()> {
        let [a, b, c, d] = self.source.words();
        let [e, f, g, h] = self.destination.words();
        let head = 0x6000_0000 | (u32::from(self.traffic_class) << 20) | (self.hash & 0xf_ffff);
        let payload = (self.length - IPV6_LENGTH) << 16;
        let rest = payload | (u32::from(self.next_protocol()) << 8) | u32::from(HOPS);
        frame.put_words(at, [head.to_be(), rest.to_be(), a, b, c, d, e, f, g, h])
    }

    /// RFC 768; see the module for the checksum.
    #[inline(always)]
    fn write_udp(&self, frame: &mut Frame, at: usize, length: u32) -> Option<()> {
        let source = FIRST_PORT | (self.hash & 0x3fff) as u16;
        let ports = (u32::from(source) << 16) | u32::from(u16::from_be_bytes(self.tunnel_port));
        frame.put_words(at, [ports.to_be(), (length << 16).to_be()])
    }
}

#[inline(always)]
const fn halves(word: u32) -> u64 {
    (word >> 16) as u64 + (word & 0xffff) as u64
}
