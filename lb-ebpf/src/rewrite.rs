//! Changes to IP, TCP and UDP headers, checksums included.

use lb_common::{
    abi::{Ip, PROTOCOL_TCP},
    checksum::Delta,
    parse::{Family, Network, Transport},
    verdict::Verdict,
};

use crate::packet::Frame;

/// New ends of a packet.
#[derive(Clone, Copy)]
pub struct Ends {
    pub source: Ip,
    pub destination: Ip,
    pub source_port: [u8; 2],
    pub destination_port: [u8; 2],
}

/// Whether the packet has no hop left.
#[inline(always)]
pub fn is_expired(network: &Network) -> bool {
    network.ttl <= 1
}

/// Takes one from the TTL or hop limit.
///
/// # Errors
/// [`Verdict::DropTtlExpired`] where none is left: two balancers that send to each other must not
/// keep a packet for ever.
#[inline(always)]
pub fn age(frame: &mut Frame, network: &Network, family: Family) -> Result<(), Verdict> {
    if is_expired(network) {
        return Err(Verdict::DropTtlExpired);
    }
    let at = network.offset;
    match family {
        Family::V4 => {
            let [ttl, protocol, high, low] =
                frame.bytes::<4>(at + 8).ok_or(Verdict::DropInternal)?;
            let delta = Delta::new().word([*ttl, *protocol], [*ttl - 1, *protocol]);
            *ttl -= 1;
            [*high, *low] = delta.apply([*high, *low]);
        }
        Family::V6 => {
            let [limit] = frame.bytes::<1>(at + 7).ok_or(Verdict::DropInternal)?;
            *limit -= 1;
        }
    }
    Ok(())
}

/// Replaces both addresses and both ports.
#[inline(always)]
pub fn ends(
    frame: &mut Frame,
    network: &Network,
    transport: &Transport,
    family: Family,
    new: &Ends,
) -> Result<(), Verdict> {
    let addresses = match family {
        Family::V4 => addresses_v4(frame, network, new),
        Family::V6 => addresses_v6(frame, network, new),
    }
    .ok_or(Verdict::DropInternal)?;
    let ports = ports(frame, transport, new).ok_or(Verdict::DropInternal)?;
    // The pseudo-header of both protocols covers the addresses (RFC 9293, 3.1; RFC 768; RFC 8200, 8.1).
    let delta = addresses.plus(ports);
    if transport.protocol == PROTOCOL_TCP {
        let checksum = frame
            .bytes::<2>(transport.offset + 16)
            .ok_or(Verdict::DropInternal)?;
        *checksum = delta.apply(*checksum);
    } else {
        let checksum = frame
            .bytes::<2>(transport.offset + 6)
            .ok_or(Verdict::DropInternal)?;
        // Zero says that there is none, so a sum of zero is sent as its other form (RFC 768).
        if *checksum != [0, 0] {
            let sum = delta.apply(*checksum);
            *checksum = if sum == [0, 0] { [0xff, 0xff] } else { sum };
        }
    }
    Ok(())
}

#[inline(always)]
fn addresses_v4(frame: &mut Frame, network: &Network, new: &Ends) -> Option<Delta> {
    let (source, destination) = (new.source.v4_octets(), new.destination.v4_octets());
    let delta = Delta::new()
        .double(network.source.v4_octets(), source)
        .double(network.destination.v4_octets(), destination);
    let header = frame.bytes::<10>(network.offset + 10)?;
    let [high, low, rest @ ..] = header;
    [*high, *low] = delta.apply([*high, *low]);
    let ([a, b, c, d], [e, f, g, h]) = (source, destination);
    *rest = [a, b, c, d, e, f, g, h];
    Some(delta)
}

#[inline(always)]
fn addresses_v6(frame: &mut Frame, network: &Network, new: &Ends) -> Option<Delta> {
    let delta = Delta::new()
        .address(network.source, new.source)
        .address(network.destination, new.destination);
    *frame.bytes::<16>(network.offset + 8)? = new.source.octets();
    *frame.bytes::<16>(network.offset + 24)? = new.destination.octets();
    Some(delta)
}

#[inline(always)]
fn ports(frame: &mut Frame, transport: &Transport, new: &Ends) -> Option<Delta> {
    let ports = frame.bytes::<4>(transport.offset)?;
    let [a, b, c, d] = *ports;
    let ([e, f], [g, h]) = (new.source_port, new.destination_port);
    *ports = [e, f, g, h];
    Some(Delta::new().word([a, b], [e, f]).word([c, d], [g, h]))
}
