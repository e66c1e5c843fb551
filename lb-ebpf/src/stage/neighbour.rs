//! Who asks for the link-layer address of a VIP gets no answer from a host that is not Active.
//!
//! The kernel answers for every address that it has. When a daemon is killed its addresses stay for
//! a while, and a peer has them by then; and who hands over keeps them for a moment. The program
//! outlives the daemon, and sees by the leases what that cannot say any more. Packets that still
//! come are forwarded all the same.
//!
//! For a router with a virtual MAC address the program itself answers, as the kernel would tell the
//! interface's own.

use aya_ebpf::programs::XdpContext;
use lb_common::{
    abi::{Ip, VirtualMac},
    checksum::fold,
    icmp,
    parse::Family,
    verdict::Verdict,
};

use crate::{
    job::Packet,
    maps::{self, Answerer},
    packet::Frame,
};

/// Of an ARP request, in an Ethernet frame without tags (RFC 826).
const FORM: usize = 14;
/// Ethernet and IPv4, with the lengths of their addresses.
const ETHERNET_AND_IPV4: [u8; 6] = [0, 1, 0x08, 0, 6, 4];
const OPERATION: usize = 20;
const REQUEST: [u8; 2] = [0, 1];
const REPLY: [u8; 2] = [0, 2];
const SENDER_MAC: usize = 22;
const SENDER: usize = 28;
const TARGET_MAC: usize = 32;
const TARGET: usize = 38;

/// The types of a neighbour solicitation and of an advertisement (RFC 4861, 4.3, 4.4).
const SOLICITATION: u8 = 135;
const ADVERTISEMENT: u8 = 136;
/// An advertisement without its option, and the option, which is the target's link-layer address.
const MESSAGE: usize = 24;
const OPTION: usize = 8;
/// Flags: override what was known; and was asked for.
const OVERRIDE: u8 = 0x20;
const SOLICITED: u8 = 0x40;
/// What proves that a message has crossed no router (RFC 4861, 7.1).
const HOPS: u8 = 255;
/// All nodes of the link, and their MAC address (RFC 2464, 7).
const ALL_NODES: [u8; 16] = [0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];
const ALL_NODES_MAC: [u8; 6] = [0x33, 0x33, 0, 0, 0, 1];

/// ARP.
#[inline(always)]
pub fn run(context: &XdpContext) -> Result<Verdict, Verdict> {
    let mut frame = Frame::new(context);
    let operation = *frame.bytes::<2>(OPERATION).ok_or(Verdict::PassNotOurs)?;
    let sender = *frame.bytes::<4>(SENDER).ok_or(Verdict::PassNotOurs)?;
    let target = *frame.bytes::<4>(TARGET).ok_or(Verdict::PassNotOurs)?;
    // Who announces its own address asks nobody.
    let is_question = operation == REQUEST && sender != target;
    if !is_question {
        maps::leave_to_peer(Ip::from_v4(sender));
        return Err(Verdict::PassNotOurs);
    }
    match maps::answerer(Ip::from_v4(target)) {
        Answerer::Host => Err(Verdict::PassNotOurs),
        Answerer::Nobody => Err(Verdict::DropNotActive),
        Answerer::Program(number) => {
            reply(&mut frame, target, VirtualMac::v4(number)).ok_or(Verdict::DropMalformed)?;
            Ok(Verdict::TxNeighbour)
        }
    }
}

/// Makes a reply of a request; `None` if it is none for Ethernet and IPv4.
#[inline(always)]
fn reply(frame: &mut Frame, target: [u8; 4], mac: VirtualMac) -> Option<()> {
    if *frame.bytes::<6>(FORM)? != ETHERNET_AND_IPV4 {
        return None;
    }
    let to = *frame.bytes::<6>(6)?;
    // Address and MAC address of who has asked.
    let asker = *frame.bytes::<10>(SENDER_MAC)?;
    *frame.bytes::<6>(0)? = to;
    *frame.bytes::<6>(6)? = mac.octets();
    *frame.bytes::<2>(OPERATION)? = REPLY;
    *frame.bytes::<6>(SENDER_MAC)? = mac.octets();
    *frame.bytes::<4>(SENDER)? = target;
    *frame.bytes::<10>(TARGET_MAC)? = asker;
    Some(())
}

/// ICMPv6, of which a few ask the same.
///
/// # Errors
/// [`Verdict::DropNotActive`], or [`Verdict::TxNeighbour`] with the answer.
#[inline(always)]
pub fn admit(packet: &mut Packet<'_>) -> Result<(), Verdict> {
    if packet.family != Family::V6 {
        return Ok(());
    }
    // With its code: the verifier takes no check of one byte for a proof.
    let is_question = match packet.frame.bytes::<2>(packet.transport) {
        Some([SOLICITATION, 0]) => true,
        Some([ADVERTISEMENT, 0]) if packet.ttl == HOPS => false,
        Some(_) | None => return Ok(()),
    };
    let Some(target) = packet.frame.bytes::<16>(packet.transport + 8) else {
        return Ok(());
    };
    let target = Ip::new(*target);
    if !is_question {
        maps::leave_to_peer(target);
        return Ok(());
    }
    match maps::answerer(target) {
        Answerer::Host => Ok(()),
        Answerer::Nobody => Err(Verdict::DropNotActive),
        Answerer::Program(number) => {
            let is_fit = packet.ttl == HOPS && packet.transport == packet.network + 40;
            let made = is_fit
                .then(|| advertise(packet, VirtualMac::v6(number)))
                .flatten();
            Err(made.map_or(Verdict::DropMalformed, |()| Verdict::TxNeighbour))
        }
    }
}

/// Makes an advertisement of a solicitation (RFC 4861, 7.2.4). Who has no room for its option knows the
/// link-layer address, or looks for a duplicate of its own address: no other leaves the option out.
#[inline(always)]
fn advertise(packet: &mut Packet<'_>, mac: VirtualMac) -> Option<()> {
    let (network, at) = (packet.network, packet.network + 40);
    let frame = &mut packet.frame;
    let target = *frame.bytes::<16>(at + 8)?;
    let asker = *frame.bytes::<16>(network + 8)?;
    // Who has no address yet cannot be answered alone.
    let is_nobody = Frame::words(&asker) == 0;
    // Of a frame that the compiler cannot compare with the other: it would leave the check out.
    let mut whole = Frame::new(packet.context);
    let ethernet = whole.bytes::<12>(0)?;
    let [_, _, _, _, _, _, to @ ..] = *ethernet;
    let [a, b, c, d, e, f] = if is_nobody { ALL_NODES_MAC } else { to };
    let [g, h, i, j, k, l] = mac.octets();
    *ethernet = [a, b, c, d, e, f, g, h, i, j, k, l];
    *frame.bytes::<16>(network + 8)? = target;
    *frame.bytes::<16>(network + 24)? = if is_nobody { ALL_NODES } else { asker };
    let flags = if is_nobody {
        OVERRIDE
    } else {
        OVERRIDE | SOLICITED
    };
    *frame.bytes::<8>(at)? = [ADVERTISEMENT, 0, 0, 0, flags, 0, 0, 0];
    let (length, mut sum) = match frame.bytes::<OPTION>(at + MESSAGE) {
        Some(option) => {
            let [a, b, c, d, e, f] = mac.octets();
            *option = [2, 1, a, b, c, d, e, f];
            (MESSAGE + OPTION, Frame::words(option))
        }
        None => (MESSAGE, 0),
    };
    *frame.bytes::<8>(network)? = [0x60, 0, 0, 0, 0, length as u8, icmp::PROTOCOL_V6, HOPS];
    // The pseudo-header (RFC 8200, 8.1), in the order of memory.
    sum += Frame::words(frame.bytes::<32>(network + 8)?)
        + u64::from(u16::from_ne_bytes([0, length as u8]))
        + u64::from(u16::from_ne_bytes([0, icmp::PROTOCOL_V6]));
    sum += Frame::words(frame.bytes::<MESSAGE>(at)?);
    *frame.bytes::<2>(at + 2)? = (!fold(sum)).to_ne_bytes();
    Some(())
}
