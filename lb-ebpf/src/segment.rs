//! The size of TCP's segments: what a SYN announces is lowered to what fits.

use lb_common::{checksum::Delta, parse::Family};

use crate::{job::Packet, maps};

/// Ends the options (RFC 9293, 3.2).
const END: u8 = 0;
/// No operation: one byte.
const NO_OPERATION: u8 = 1;
/// The largest segment that the sender takes: four bytes.
const MAXIMUM_SEGMENT_SIZE: u8 = 2;

/// Options that are looked at. Everybody sends the one that is looked for first; others may stand
/// before it, but nobody hides it behind more than these.
const OPTIONS: usize = 10;

/// Lowers the segment size that a SYN announces to what an IP packet of `mtu` bytes has room for.
///
/// A SYN without the option stands for 536 or 1220 bytes (RFC 9293, 3.7.1), which fit.
#[inline(always)]
pub fn clamp(packet: &mut Packet<'_>, mtu: u16) {
    // Without options, which the other side leaves out of its sums as well (RFC 6691).
    let headers = match packet.family {
        Family::V4 => 20 + 20,
        Family::V6 => 40 + 20,
    };
    let fitting = mtu.saturating_sub(headers);
    // A packet that cannot be read is sent as it is: it is the receiver's to refuse.
    let _: Option<()> = lower(packet, fitting);
}

#[inline(always)]
fn lower(packet: &mut Packet<'_>, fitting: u16) -> Option<()> {
    let at = find(packet)?;
    let value = packet.frame.bytes::<2>(at)?;
    let [high, low] = *value;
    if u16::from_be_bytes([high, low]) <= fitting {
        return None;
    }
    let [new_high, new_low] = fitting.to_be_bytes();
    *value = [new_high, new_low];
    let is_even = at.wrapping_sub(packet.transport) & 1 == 0;
    // At an odd place the two bytes lie in two words, each in the other half.
    let delta = if is_even {
        Delta::new().word([high, low], [new_high, new_low])
    } else {
        Delta::new().word([low, high], [new_low, new_high])
    };
    let checksum = packet.frame.bytes::<2>(packet.transport + 16)?;
    *checksum = delta.apply(*checksum);
    Some(())
}

/// Where the value of the option is.
#[inline(always)]
fn find(packet: &mut Packet<'_>) -> Option<usize> {
    let mut at = packet.transport + 20;
    for _option in 0..OPTIONS {
        // For the verifier, to which all ways along the options become one.
        at = maps::forget_bounds(at)?;
        if at + 4 > packet.payload {
            return None;
        }
        let [kind, length] = *packet.frame.bytes::<2>(at)?;
        if kind == MAXIMUM_SEGMENT_SIZE {
            return (length == 4).then_some(at + 2);
        }
        if kind == END || (kind != NO_OPERATION && length < 2) {
            return None;
        }
        at += if kind == NO_OPERATION {
            1
        } else {
            usize::from(length)
        };
    }
    None
}
