//! What an ICMP error quotes: finding it, and translating it.

use lb_common::{
    abi::PROTOCOL_TCP,
    checksum::Delta,
    cursor::Cursor,
    parse::{Family, NoQuote, Quote},
    verdict::Verdict,
};

use crate::{
    job::Packet,
    rewrite::{self, Ends},
};

/// Reads what an ICMP packet quotes.
#[inline(always)]
pub fn read(packet: &Packet<'_>) -> Result<Quote, NoQuote> {
    let mut cursor = packet.frame.cursor();
    cursor.skip(packet.transport).ok_or(NoQuote::NoError)?;
    Quote::parse(&mut cursor, packet.family, packet.end)
}

/// Turns an error about a packet as it arrived into one about the packet as it was sent.
///
/// `new` are the ends of packets that are translated in the error's direction, hence those of the
/// quoted packet the other way round. The error goes where such packets go, and comes from where
/// they come from: the receiver may know no way to the router, and accept nothing from it.
#[inline(always)]
pub fn translate(packet: &mut Packet<'_>, quote: &Quote, new: &Ends) -> Result<(), Verdict> {
    let inside = quoted(packet, quote, new).ok_or(Verdict::DropInternal)?;
    let outside = rewrite::addresses(packet, new).ok_or(Verdict::DropInternal)?;
    // Only ICMPv6 sums up a pseudo-header too (RFC 4443, 2.3).
    let delta = match packet.family {
        Family::V4 => inside,
        Family::V6 => inside.plus(outside),
    };
    let checksum = packet
        .frame
        .bytes::<2>(packet.transport + 2)
        .ok_or(Verdict::DropInternal)?;
    *checksum = delta.apply(*checksum);
    Ok(())
}

/// The quoted packet was sent from `new.destination` to `new.source`.
#[inline(always)]
fn quoted(packet: &mut Packet<'_>, quote: &Quote, new: &Ends) -> Option<Delta> {
    let (addresses, header) = match packet.family {
        Family::V4 => addresses_v4(packet, quote, new)?,
        Family::V6 => (addresses_v6(packet, quote, new)?, Delta::new()),
    };
    let ports = packet.frame.bytes::<4>(quote.transport)?;
    let [a, b, c, d] = *ports;
    let ([e, f], [g, h]) = (new.destination_port, new.source_port);
    *ports = [e, f, g, h];
    let ends = addresses.word([a, b], [e, f]).word([c, d], [g, h]);
    let sum = checksum(packet, quote, ends);
    Some(ends.plus(header).plus(sum))
}

/// Also says what the header's own checksum adds.
#[inline(always)]
fn addresses_v4(packet: &mut Packet<'_>, quote: &Quote, new: &Ends) -> Option<(Delta, Delta)> {
    let (source, destination) = (new.destination.v4_octets(), new.source.v4_octets());
    let delta = Delta::new()
        .double(quote.flow.source().v4_octets(), source)
        .double(quote.flow.destination().v4_octets(), destination);
    let [high, low, rest @ ..] = packet.frame.bytes::<10>(quote.network + 10)?;
    let old = [*high, *low];
    let sum = delta.apply(old);
    [*high, *low] = sum;
    let ([a, b, c, d], [e, f, g, h]) = (source, destination);
    *rest = [a, b, c, d, e, f, g, h];
    Some((delta, Delta::new().word(old, sum)))
}

#[inline(always)]
fn addresses_v6(packet: &mut Packet<'_>, quote: &Quote, new: &Ends) -> Option<Delta> {
    *packet.frame.bytes::<16>(quote.network + 8)? = new.destination.octets();
    *packet.frame.bytes::<16>(quote.network + 24)? = new.source.octets();
    Some(
        Delta::new()
            .address(quote.flow.source(), new.destination)
            .address(quote.flow.destination(), new.source),
    )
}

/// Brings the quoted transport's checksum up to date, if it is quoted; says what that adds to the
/// sum over all.
#[inline(always)]
fn checksum(packet: &mut Packet<'_>, quote: &Quote, ends: Delta) -> Delta {
    let tcp = quote.flow.protocol() == PROTOCOL_TCP;
    let at = quote.transport + if tcp { 16 } else { 6 };
    if at + 2 > packet.end {
        return Delta::new();
    }
    let Some(checksum) = packet.frame.bytes::<2>(at) else {
        return Delta::new();
    };
    let old = *checksum;
    let sum = ends.apply(old);
    let new = match (tcp, old, sum) {
        (true, _, _) => sum,
        // There is none, and none must come out of it (RFC 768).
        (false, [0, 0], _) => old,
        (false, _, [0, 0]) => [0xff, 0xff],
        (false, _, _) => sum,
    };
    *checksum = new;
    Delta::new().word(old, new)
}
