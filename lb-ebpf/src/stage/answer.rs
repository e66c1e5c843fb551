//! Answers a packet to its sender: an ICMP error that says why it got no further.
//!
//! ```text
//!  | Ethernet, tags | IP ............. |                    what came
//!  | Ethernet, tags | IP | ICMP | IP ... |                  what is sent
//!                   '- new -'  '- as much as may be quoted
//! ```
//! The new headers are put in front, so that what is quoted stays where it is.

use aya_ebpf::programs::XdpContext;
use lb_common::{
    abi::{PROTOCOL_TCP, PROTOCOL_UDP, Service},
    checksum::fold,
    icmp::{self, ANSWER_TTL},
    parse::{Family, Fragmentation},
    verdict::Verdict,
};

use crate::{
    job::{Answer, Packet},
    maps,
    packet::Frame,
};

/// An ICMP header.
const ICMP: usize = 8;
/// What is new in front of the quote.
const NEW_V4: usize = 20 + ICMP;
const NEW_V6: usize = 40 + ICMP;
/// Of the invoking packet, as much as leaves the answer within 576 bytes (RFC 1812, 4.3.2.3).
const QUOTE_V4: usize = 576 - NEW_V4;
/// As much as leaves it within the minimum MTU (RFC 4443, 2.4).
const QUOTE_V6: usize = 1280 - NEW_V6;
/// An Ethernet header with two tags.
const ETHERNET: usize = 22;

/// Answers the packet, if it is one to be answered.
#[inline(always)]
pub fn run(context: &XdpContext) -> Result<Verdict, Verdict> {
    let job = maps::job().ok_or(Verdict::DropInternal)?;
    let packet = Packet::resume(context, job);
    count(&job.service);
    let answer = job.answer();
    let silent = match answer {
        Answer::TimeExceeded => Verdict::DropTtlExpired,
        Answer::TooBig { .. } => Verdict::DropTooBig,
    };
    // Not an error about a flow, which takes the flow's way (RFC 1122, 3.2.2).
    let of_a_flow = matches!(packet.flow.protocol(), PROTOCOL_TCP | PROTOCOL_UDP);
    let may = of_a_flow
        && !matches!(packet.fragmentation, Fragmentation::Later)
        && packet.may_be_answered();
    if !(may && maps::may_answer()) {
        return Err(silent);
    }
    match packet.family {
        Family::V4 => v4(packet, answer),
        Family::V6 => v6(packet, answer),
    }
    .ok_or(Verdict::DropInternal)?;
    Ok(match answer {
        Answer::TimeExceeded => Verdict::TxTimeExceeded,
        Answer::TooBig { .. } => Verdict::TxTooBig,
    })
}

/// It was for the service, and was not forwarded.
#[inline(always)]
fn count(service: &Service) {
    if !service.is_marker() {
        maps::count_service(service.id(), |traffic| traffic.dropped += 1);
    }
}

/// RFC 792.
#[inline(always)]
fn v4(packet: Packet<'_>, answer: Answer) -> Option<()> {
    let (network, flow) = (packet.network, &packet.flow);
    let mut frame = make_room::<NEW_V4, QUOTE_V4>(&packet)?;
    let [_, service_type] = *frame.bytes::<2>(network + NEW_V4)?;
    let (kind, code, rest) = match answer {
        Answer::TimeExceeded => (icmp::V4_TIME_EXCEEDED, 0, 0),
        Answer::TooBig { mtu } => (icmp::V4_UNREACHABLE, icmp::V4_TOO_BIG, u32::from(mtu)),
    };
    let length = (frame.length() as usize - network) as u16;
    let [high, low] = length.to_be_bytes();
    let ([a, b, c, d], [e, f, g, h]) = (flow.destination().v4_octets(), flow.source().v4_octets());
    // The type of service as Linux has it (RFC 1812, 4.3.2.5). Whole, so without an identification
    // (RFC 6864, 4.1).
    let header = [
        0x45,
        service_type & 0x1e | 0xc0,
        high,
        low,
        0,
        0,
        0x40,
        0,
        ANSWER_TTL,
        icmp::PROTOCOL_V4,
        0,
        0,
        a,
        b,
        c,
        d,
        e,
        f,
        g,
        h,
    ];
    let at = frame.bytes::<20>(network)?;
    *at = header;
    let sum = !fold(Frame::words(at));
    *frame.bytes::<2>(network + 10)? = sum.to_ne_bytes();
    write_icmp(&mut frame, network + 20, [kind, code], rest, 0)
}

/// RFC 4443.
#[inline(always)]
fn v6(packet: Packet<'_>, answer: Answer) -> Option<()> {
    let (network, flow) = (packet.network, &packet.flow);
    let mut frame = make_room::<NEW_V6, QUOTE_V6>(&packet)?;
    let (kind, rest) = match answer {
        Answer::TimeExceeded => (icmp::V6_TIME_EXCEEDED, 0),
        Answer::TooBig { mtu } => (icmp::V6_TOO_BIG, u32::from(mtu)),
    };
    let length = (frame.length() as usize - network - 40) as u16;
    let [high, low] = length.to_be_bytes();
    *frame.bytes::<8>(network)? = [0x60, 0, 0, 0, high, low, icmp::PROTOCOL_V6, ANSWER_TTL];
    *frame.bytes::<16>(network + 8)? = flow.destination().octets();
    *frame.bytes::<16>(network + 24)? = flow.source().octets();
    // The pseudo-header (RFC 8200, 8.1), in the order of memory as all sums here.
    let pseudo = Frame::words(frame.bytes::<32>(network + 8)?)
        + u64::from(u16::from_ne_bytes([high, low]))
        + u64::from(u16::from_ne_bytes([0, icmp::PROTOCOL_V6]));
    write_icmp(&mut frame, network + 40, [kind, 0], rest, pseudo)
}

/// Cuts what is not quoted, and puts `NEW` bytes in front of the IP header: addressed to where the
/// packet came from, with its tags.
#[inline(always)]
fn make_room<const NEW: usize, const QUOTE: usize>(packet: &Packet<'_>) -> Option<Frame> {
    let whole = packet.end.checked_sub(packet.network)?;
    let quote = if whole < QUOTE { whole } else { QUOTE };
    let mut frame = packet
        .frame
        .end_at(packet.context, packet.network + quote)?;
    frame = frame.extend_front::<NEW>(packet.context)?;
    let old: [u8; ETHERNET] = *frame.bytes::<ETHERNET>(NEW)?;
    let [a, b, c, d, e, f, g, h, i, j, k, l, tags @ ..] = old;
    *frame.bytes::<12>(0)? = [g, h, i, j, k, l, a, b, c, d, e, f];
    // Of an untagged frame, some of this is the IP header, where the new one will be.
    *frame.bytes::<10>(12)? = tags;
    Some(frame)
}

#[inline(always)]
fn write_icmp(
    frame: &mut Frame,
    at: usize,
    [kind, code]: [u8; 2],
    rest: u32,
    pseudo: u64,
) -> Option<()> {
    let [e, f, g, h] = rest.to_be_bytes();
    *frame.bytes::<ICMP>(at)? = [kind, code, 0, 0, e, f, g, h];
    let sum = !fold(pseudo + frame.sum_from(at)?);
    *frame.bytes::<2>(at + 2)? = sum.to_ne_bytes();
    Some(())
}
