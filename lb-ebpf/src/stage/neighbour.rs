//! Who asks for the link-layer address of a VIP gets no answer from a host that is not Active.
//!
//! The kernel answers for every address that it has. When a daemon is killed its addresses stay for
//! a while, and a peer has them by then; and who hands over keeps them for a moment. The program
//! outlives the daemon, and sees by the leases what that cannot say any more. Packets that still
//! come are forwarded all the same.

use aya_ebpf::programs::XdpContext;
use lb_common::{abi::Ip, parse::Family, verdict::Verdict};

use crate::{job::Packet, maps, packet::Frame};

/// Of an ARP request, in an Ethernet frame without tags (RFC 826).
const OPERATION: usize = 20;
const REQUEST: [u8; 2] = [0, 1];
const SENDER: usize = 28;
const TARGET: usize = 38;

/// The type of a neighbour solicitation (RFC 4861, 4.3).
const SOLICITATION: u8 = 135;

/// ARP.
#[inline(always)]
pub fn run(context: &XdpContext) -> Result<Verdict, Verdict> {
    let mut frame = Frame::new(context);
    let operation = *frame.bytes::<2>(OPERATION).ok_or(Verdict::PassNotOurs)?;
    let sender = *frame.bytes::<4>(SENDER).ok_or(Verdict::PassNotOurs)?;
    let target = *frame.bytes::<4>(TARGET).ok_or(Verdict::PassNotOurs)?;
    // Who announces its own address asks nobody.
    let is_question = operation == REQUEST && sender != target;
    if is_question && maps::is_withheld(Ip::from_v4(target)) {
        return Err(Verdict::DropNotActive);
    }
    Err(Verdict::PassNotOurs)
}

/// ICMPv6, of which a few ask the same.
///
/// # Errors
/// [`Verdict::DropNotActive`].
#[inline(always)]
pub fn admit(packet: &mut Packet<'_>) -> Result<(), Verdict> {
    if packet.family != Family::V6 {
        return Ok(());
    }
    // With its code: the verifier takes no check of one byte for a proof.
    match packet.frame.bytes::<2>(packet.transport) {
        Some([SOLICITATION, _]) => {}
        Some(_) | None => return Ok(()),
    }
    match packet.frame.bytes::<16>(packet.transport + 8) {
        Some(target) if maps::is_withheld(Ip::new(*target)) => Err(Verdict::DropNotActive),
        Some(_) | None => Ok(()),
    }
}
