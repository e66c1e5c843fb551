//! Answers pings of addresses that are at a virtual MAC address (RFC 792, RFC 4443).
//!
//! The kernel would answer those that come by a network card, but not by a veth: it has judged by
//! the destination that they are another host's before the program sees them. And what it sends in
//! the name of such an address may have it ask for a neighbour first, with the interface's own MAC
//! address in the question.

use lb_common::{
    abi::VirtualMac,
    checksum::Delta,
    icmp::{self, ANSWER_TTL},
    parse::Family,
    verdict::Verdict,
};

use crate::{
    job::Packet,
    maps::{self, Answerer},
    packet::Frame,
};

/// Types of requests and replies.
const V4_REQUEST: u8 = 8;
const V4_REPLY: u8 = 0;
const V6_REQUEST: u8 = 128;
const V6_REPLY: u8 = 129;

/// Answers, if it is a whole request in a packet without options. What is more than may be answered is
/// left to the kernel.
///
/// # Errors
/// [`Verdict::TxEcho`] with the answer.
#[inline(always)]
pub fn admit(packet: &mut Packet<'_>) -> Result<(), Verdict> {
    let (header, request) = match packet.family {
        Family::V4 => (20, V4_REQUEST),
        Family::V6 => (40, V6_REQUEST),
    };
    let is_request = packet
        .frame
        .bytes::<2>(packet.transport)
        .is_some_and(|[kind, code]| *kind == request && *code == 0);
    if !is_request || packet.transport != packet.network + header {
        return Ok(());
    }
    let Answerer::Program(number) = maps::answerer(packet.flow.destination()) else {
        return Ok(());
    };
    if is_piece(packet) || !packet.may_be_answered() || !maps::may_answer() {
        return Ok(());
    }
    let answered = match packet.family {
        Family::V4 => v4(packet, VirtualMac::v4(number)),
        Family::V6 => v6(packet, VirtualMac::v6(number)),
    };
    Err(answered.map_or(Verdict::DropInternal, |()| Verdict::TxEcho))
}

/// Whether it is a fragment of a packet; one of IPv6 has a header that says so before the message.
#[inline(always)]
fn is_piece(packet: &mut Packet<'_>) -> bool {
    if packet.family == Family::V6 {
        return false;
    }
    let field = packet.frame.bytes::<2>(packet.network + 6);
    field.is_none_or(|[high, low]| *high & 0x3f != 0 || *low != 0)
}

#[inline(always)]
fn v4(packet: &Packet<'_>, mac: VirtualMac) -> Option<()> {
    let (mut frame, at) = (packet.frame, packet.network);
    let [a, b, c, d, e, f, g, h] = *frame.bytes::<8>(at + 12)?;
    *frame.bytes::<8>(at + 12)? = [e, f, g, h, a, b, c, d];
    let [ttl, protocol, high, low] = *frame.bytes::<4>(at + 8)?;
    // Addresses that change places change no sum.
    let delta = Delta::new().word([ttl, protocol], [ANSWER_TTL, protocol]);
    let [high, low] = delta.apply([high, low]);
    *frame.bytes::<4>(at + 8)? = [ANSWER_TTL, protocol, high, low];
    reply(packet, at + 20, [V4_REQUEST, V4_REPLY], mac)
}

#[inline(always)]
fn v6(packet: &Packet<'_>, mac: VirtualMac) -> Option<()> {
    let (mut frame, at) = (packet.frame, packet.network);
    let source = *frame.bytes::<16>(at + 8)?;
    let destination = *frame.bytes::<16>(at + 24)?;
    *frame.bytes::<16>(at + 8)? = destination;
    *frame.bytes::<16>(at + 24)? = source;
    *frame.bytes::<2>(at + 6)? = [icmp::PROTOCOL_V6, ANSWER_TTL];
    reply(packet, at + 40, [V6_REQUEST, V6_REPLY], mac)
}

/// Makes a reply of the request, and sends it back from the virtual MAC address.
#[inline(always)]
fn reply(packet: &Packet<'_>, at: usize, [old, new]: [u8; 2], mac: VirtualMac) -> Option<()> {
    let mut frame = packet.frame;
    let [_, _, high, low] = *frame.bytes::<4>(at)?;
    let [high, low] = Delta::new().word([old, 0], [new, 0]).apply([high, low]);
    *frame.bytes::<4>(at)? = [new, 0, high, low];
    // Of a frame that the compiler cannot compare with the other: it would leave the check out.
    let mut whole = Frame::new(packet.context);
    let ethernet = whole.bytes::<12>(0)?;
    let [_, _, _, _, _, _, a, b, c, d, e, f] = *ethernet;
    let [g, h, i, j, k, l] = mac.octets();
    *ethernet = [a, b, c, d, e, f, g, h, i, j, k, l];
    Some(())
}
