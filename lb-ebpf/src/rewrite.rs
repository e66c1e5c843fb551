//! Changes to IP, TCP and UDP headers, checksums included.

use lb_common::{
    abi::{Ip, PROTOCOL_TCP},
    checksum::Delta,
    parse::Family,
    verdict::Verdict,
};

use crate::job::Packet;

/// New ends of a packet.
#[derive(Clone, Copy)]
pub struct Ends {
    pub source: Ip,
    pub destination: Ip,
    pub source_port: [u8; 2],
    pub destination_port: [u8; 2],
}

/// Takes one from the TTL or hop limit.
///
/// # Errors
/// [`Verdict::DropTtlExpired`] where none is left: two balancers that send to each other must not
/// keep a packet for ever.
#[inline(always)]
pub fn age(packet: &mut Packet<'_>) -> Result<(), Verdict> {
    if packet.ttl <= 1 {
        return Err(Verdict::DropTtlExpired);
    }
    let (at, frame) = (packet.network, &mut packet.frame);
    match packet.family {
        Family::V4 => {
            let [ttl, protocol, high, low] =
                frame.bytes::<4>(at + 8).ok_or(Verdict::DropInternal)?;
            let delta = Delta::new().word([*ttl, *protocol], [*ttl - 1, *protocol]);
            *ttl -= 1;
            [*high, *low] = delta.apply([*high, *low]);
        }
        Family::V6 => {
            // Not the byte alone: the verifier takes no check of one for a proof.
            let [_next, limit] = frame.bytes::<2>(at + 6).ok_or(Verdict::DropInternal)?;
            *limit -= 1;
        }
    }
    Ok(())
}

/// Replaces both addresses and both ports.
#[inline(always)]
pub fn ends(packet: &mut Packet<'_>, new: &Ends) -> Result<(), Verdict> {
    let addresses = addresses(packet, new).ok_or(Verdict::DropInternal)?;
    let ports = ports(packet, new).ok_or(Verdict::DropInternal)?;
    // The pseudo-header of both protocols covers the addresses (RFC 9293, 3.1; RFC 768; RFC 8200, 8.1).
    let delta = addresses.plus(ports);
    let (at, frame) = (packet.transport, &mut packet.frame);
    if packet.flow.protocol() == PROTOCOL_TCP {
        let checksum = frame.bytes::<2>(at + 16).ok_or(Verdict::DropInternal)?;
        *checksum = delta.apply(*checksum);
    } else {
        let checksum = frame.bytes::<2>(at + 6).ok_or(Verdict::DropInternal)?;
        // Zero says that there is none, so a sum of zero is sent as its other form (RFC 768).
        if *checksum != [0, 0] {
            let sum = delta.apply(*checksum);
            *checksum = if sum == [0, 0] { [0xff, 0xff] } else { sum };
        }
    }
    Ok(())
}

/// Replaces both addresses, and says what that adds to a sum over a pseudo-header.
#[inline(always)]
pub fn addresses(packet: &mut Packet<'_>, new: &Ends) -> Option<Delta> {
    match packet.family {
        Family::V4 => addresses_v4(packet, new),
        Family::V6 => addresses_v6(packet, new),
    }
}

#[inline(always)]
fn addresses_v4(packet: &mut Packet<'_>, new: &Ends) -> Option<Delta> {
    let (source, destination) = (new.source.v4_octets(), new.destination.v4_octets());
    let delta = Delta::new()
        .double(packet.flow.source().v4_octets(), source)
        .double(packet.flow.destination().v4_octets(), destination);
    let header = packet.frame.bytes::<10>(packet.network + 10)?;
    let [high, low, rest @ ..] = header;
    [*high, *low] = delta.apply([*high, *low]);
    let ([a, b, c, d], [e, f, g, h]) = (source, destination);
    *rest = [a, b, c, d, e, f, g, h];
    Some(delta)
}

#[inline(always)]
fn addresses_v6(packet: &mut Packet<'_>, new: &Ends) -> Option<Delta> {
    let delta = Delta::new()
        .address(packet.flow.source(), new.source)
        .address(packet.flow.destination(), new.destination);
    *packet.frame.bytes::<16>(packet.network + 8)? = new.source.octets();
    *packet.frame.bytes::<16>(packet.network + 24)? = new.destination.octets();
    Some(delta)
}

#[inline(always)]
fn ports(packet: &mut Packet<'_>, new: &Ends) -> Option<Delta> {
    let ports = packet.frame.bytes::<4>(packet.transport)?;
    let [a, b, c, d] = *ports;
    let ([e, f], [g, h]) = (new.source_port, new.destination_port);
    *ports = [e, f, g, h];
    Some(Delta::new().word([a, b], [e, f]).word([c, d], [g, h]))
}
