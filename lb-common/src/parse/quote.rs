//! The packet that an ICMP error is about.

use super::{Chain, Family, Fragmentation};
use crate::{
    abi::{FlowKey, Ip, PROTOCOL_TCP, PROTOCOL_UDP},
    cursor::Cursor,
    icmp,
};

/// Bytes of a transport header that every quote has to have (RFC 792; RFC 4443, 2.4 has more).
const QUOTED: usize = 8;

/// A packet of a flow, as an ICMP error quotes it: up to its ports, and often not much further.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quote {
    /// The flow of the quoted packet: its source is who the error is sent to.
    pub flow: FlowKey,
    /// Where its network header is, from the start of the frame.
    pub network: usize,
    /// Where its transport header is; eight bytes of that are quoted at least.
    pub transport: usize,
}

/// Why an ICMP packet quotes no flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoQuote {
    /// It is no error, or one about the way to go.
    NoError,
    /// What it quotes is neither TCP nor UDP.
    OtherProtocol,
    /// What it quotes has no ports: it is cut short, damaged or a later fragment.
    Unreadable,
}

impl Quote {
    /// Reads an ICMP header and what it quotes; the cursor is at the header, and the IP packet that
    /// carries it ends at `end`.
    ///
    /// # Errors
    /// [`NoQuote`].
    #[inline(always)]
    pub fn parse(cursor: &mut impl Cursor, family: Family, end: usize) -> Result<Self, NoQuote> {
        let [kind, _, _, _, _, _, _, _] = cursor.take().ok_or(NoQuote::NoError)?;
        if !icmp::is_error(family, kind) {
            return Err(NoQuote::NoError);
        }
        let network = cursor.offset();
        let (source, destination, mut chain) = match family {
            Family::V4 => v4(cursor, end),
            Family::V6 => v6(cursor, end),
        }
        .ok_or(NoQuote::Unreadable)?;
        if matches!(family, Family::V6) {
            chain
                .follow(cursor)
                .map_err(|_damaged| NoQuote::Unreadable)?;
        }
        match chain.protocol {
            PROTOCOL_TCP | PROTOCOL_UDP => {}
            _ => return Err(NoQuote::OtherProtocol),
        }
        let transport = cursor.offset();
        let ports: [u8; QUOTED] = cursor.take().ok_or(NoQuote::Unreadable)?;
        if matches!(chain.fragmentation, Fragmentation::Later) || cursor.offset() > end {
            return Err(NoQuote::Unreadable);
        }
        let [a, b, c, d, ..] = ports;
        let (source_port, destination_port) = ([a, b], [c, d]);
        Ok(Self {
            flow: FlowKey::new(
                source,
                destination,
                u16::from_be_bytes(source_port),
                u16::from_be_bytes(destination_port),
                chain.protocol,
            ),
            network,
            transport,
        })
    }
}

/// Its length is that of the packet before it was cut, so nothing is compared with that.
#[inline(always)]
fn v4(cursor: &mut impl Cursor, end: usize) -> Option<(Ip, Ip, Chain)> {
    let header: [u8; 20] = cursor.take()?;
    let length = usize::from(header[0] & 0x0f) * 4;
    if header[0] >> 4 != 4 || length < 20 {
        return None;
    }
    cursor.skip(length - 20)?;
    let later = u16::from_be_bytes([header[6], header[7]]) & 0x1fff != 0;
    let chain = Chain {
        protocol: header[9],
        fragmentation: if later {
            Fragmentation::Later
        } else {
            Fragmentation::None
        },
        identification: [0; 4],
        end,
    };
    Some((
        Ip::from_v4([header[12], header[13], header[14], header[15]]),
        Ip::from_v4([header[16], header[17], header[18], header[19]]),
        chain,
    ))
}

#[inline(always)]
fn v6(cursor: &mut impl Cursor, end: usize) -> Option<(Ip, Ip, Chain)> {
    let [first, _, _, _, _, _, protocol, _] = cursor.take()?;
    let (source, destination) = (Ip::new(cursor.take()?), Ip::new(cursor.take()?));
    // As in a packet of its own: it would pass for IPv4 in our tables.
    let mapped = source.is_v4() || destination.is_v4();
    let chain = Chain {
        protocol,
        fragmentation: Fragmentation::None,
        identification: [0; 4],
        end,
    };
    (first >> 4 == 6 && !mapped).then_some((source, destination, chain))
}

#[cfg(test)]
mod tests;
