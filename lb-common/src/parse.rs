//! From a frame to the flow it belongs to.
//!
//! Three steps, so that the caller can look at the destination before it judges a packet whose rest
//! is damaged: [`ethernet`] finds the network header, [`Network::parse`] the addresses and
//! the transport header, [`Transport::parse`] the ports. All are generic over [`Cursor`], hence the
//! same code in the kernel, in tests and under the fuzzer.

use crate::{
    abi::{FlowKey, Ip, PROTOCOL_TCP, PROTOCOL_UDP},
    cursor::Cursor,
    icmp,
};

const ETHERTYPE_IPV4: u16 = 0x0800;
const ETHERTYPE_IPV6: u16 = 0x86dd;
/// IEEE 802.1Q, 802.1ad, and the pre-standard double tag.
const ETHERTYPE_VLAN: [u16; 3] = [0x8100, 0x88a8, 0x9100];

const HOP_BY_HOP: u8 = 0;
const ROUTING: u8 = 43;
const FRAGMENT: u8 = 44;
const DESTINATION_OPTIONS: u8 = 60;
/// RFC 8200, 4.1 allows seven in its recommended order; nobody sends more than a few.
const EXTENSION_HEADERS: usize = 8;

/// TCP flag: no more data from the sender (RFC 9293, 3.1).
pub const TCP_FIN: u8 = 0x01;
/// TCP flag: start of a connection.
pub const TCP_SYN: u8 = 0x02;
/// TCP flag: the connection is gone.
pub const TCP_RST: u8 = 0x04;
/// TCP flag: the acknowledgement number counts.
pub const TCP_ACK: u8 = 0x10;

/// What a network header turned out to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    V4,
    V6,
}

/// Reads the Ethernet header and up to two VLAN tags; `None` if what follows is not IP.
///
/// Leaves the cursor at the network header.
#[inline(always)]
pub fn ethernet(cursor: &mut impl Cursor) -> Option<Family> {
    let _addresses: [u8; 12] = cursor.take()?;
    let mut ethertype = u16::from_be_bytes(cursor.take()?);
    if ETHERTYPE_VLAN.contains(&ethertype) {
        for _tag in 0..2 {
            if !ETHERTYPE_VLAN.contains(&ethertype) {
                break;
            }
            let [_, _, high, low] = cursor.take()?;
            ethertype = u16::from_be_bytes([high, low]);
        }
        // For the kernel's verifier, which then follows tagged frames together, whatever their tags.
        cursor.skip(0)?;
    }
    match ethertype {
        ETHERTYPE_IPV4 => Some(Family::V4),
        ETHERTYPE_IPV6 => Some(Family::V6),
        _ => None,
    }
}

/// Where a packet stands in its fragmented original.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fragmentation {
    /// It is whole.
    None,
    /// The first piece, which has the ports.
    First,
    /// A later piece, which has not.
    Later,
}

/// Why a packet's flow is not known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reject {
    /// The network header contradicts itself or the frame; nothing in it can be trusted.
    BadNetwork,
    /// The addresses are good, what follows them is not.
    BadTransport,
    /// ICMP or ICMPv6 in one piece; the cursor is at its header.
    Icmp,
    /// None of these.
    OtherProtocol,
}

/// A network header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Network {
    /// Sender.
    pub source: Ip,
    /// Receiver.
    pub destination: Ip,
    /// Offset of the header from the start of the frame, in bytes.
    pub offset: usize,
    /// Time to live or hop limit.
    pub ttl: u8,
    /// Protocol or first next header.
    protocol: u8,
    fragmentation: Fragmentation,
    identification: [u8; 4],
    /// Offset of the packet's end from the start of the frame, in bytes; padding may follow.
    pub end: usize,
}

/// A transport header, and what the extension headers before it said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Transport {
    /// IP protocol number.
    pub protocol: u8,
    /// Offset of the header from the start of the frame, in bytes.
    pub offset: usize,
    /// Whole or a piece.
    pub fragmentation: Fragmentation,
    /// What the pieces of a packet have in common, as in [`crate::abi::FragmentKey`].
    pub identification: [u8; 4],
    /// 0 in later fragments.
    pub source_port: u16,
    /// 0 in later fragments.
    pub destination_port: u16,
    /// The flag byte of TCP; 0 for UDP.
    pub tcp_flags: u8,
    /// Offset of what follows the header from the start of the frame, in bytes.
    pub payload: usize,
    /// Offset of the packet's end from the start of the frame, in bytes; padding may follow.
    pub end: usize,
}

impl Network {
    /// Protocol or first next header.
    #[inline(always)]
    #[must_use]
    pub const fn protocol(&self) -> u8 {
        self.protocol
    }

    /// Whether IPv4 says that this is a piece of a packet; IPv6 says so further on.
    #[inline(always)]
    #[must_use]
    pub const fn is_piece(&self) -> bool {
        !matches!(self.fragmentation, Fragmentation::None)
    }

    /// Reads the fixed part of the network header and IPv4's options.
    ///
    /// # Errors
    /// [`Reject::BadNetwork`] if lengths or version are wrong.
    #[inline(always)]
    pub fn parse(cursor: &mut impl Cursor, family: Family) -> Result<Self, Reject> {
        match family {
            Family::V4 => Self::parse_v4(cursor),
            Family::V6 => Self::parse_v6(cursor),
        }
        .ok_or(Reject::BadNetwork)
    }

    /// RFC 791, 3.1.
    #[inline(always)]
    fn parse_v4(cursor: &mut impl Cursor) -> Option<Self> {
        let offset = cursor.offset();
        let available = cursor.remaining();
        let header: [u8; 20] = cursor.take()?;
        let header_length = usize::from(header[0] & 0x0f) * 4;
        let total = usize::from(u16::from_be_bytes([header[2], header[3]]));
        if header[0] >> 4 != 4 || header_length < 20 || total < header_length || total > available {
            return None;
        }
        if header_length > 20 {
            cursor.skip(header_length - 20)?;
        }
        let fragment = u16::from_be_bytes([header[6], header[7]]);
        let fragmentation = match (fragment & 0x1fff, fragment & 0x2000) {
            (0, 0) => Fragmentation::None,
            (0, _) => Fragmentation::First,
            (_, _) => Fragmentation::Later,
        };
        Some(Self {
            source: Ip::from_v4([header[12], header[13], header[14], header[15]]),
            destination: Ip::from_v4([header[16], header[17], header[18], header[19]]),
            offset,
            ttl: header[8],
            protocol: header[9],
            fragmentation,
            identification: [0, 0, header[4], header[5]],
            end: offset + total,
        })
    }

    /// RFC 8200, 3.
    #[inline(always)]
    fn parse_v6(cursor: &mut impl Cursor) -> Option<Self> {
        let offset = cursor.offset();
        let [first, _, _, _, high, low, next, ttl] = cursor.take()?;
        let source = cursor.take()?;
        let destination = cursor.take()?;
        let payload = usize::from(u16::from_be_bytes([high, low]));
        let (source, destination) = (Ip::new(source), Ip::new(destination));
        // A mapped address may not appear on the wire, and would pass for IPv4 in our tables.
        let mapped = source.is_v4() || destination.is_v4();
        if first >> 4 != 6 || payload > cursor.remaining() || mapped {
            return None;
        }
        Some(Self {
            source,
            destination,
            offset,
            ttl,
            protocol: next,
            fragmentation: Fragmentation::None,
            identification: [0; 4],
            end: cursor.offset() + payload,
        })
    }
}

impl Transport {
    /// Reads IPv6's extension headers, then the TCP or UDP header.
    ///
    /// # Errors
    /// [`Reject::Icmp`] or [`Reject::OtherProtocol`], or [`Reject::BadTransport`] if lengths are wrong, an extension
    /// header is one that a final destination never sees, or there are too many of them.
    #[inline(always)]
    pub fn parse(
        cursor: &mut impl Cursor,
        network: &Network,
        family: Family,
    ) -> Result<Self, Reject> {
        let mut chain = Chain {
            protocol: network.protocol,
            fragmentation: network.fragmentation,
            identification: network.identification,
            end: network.end,
        };
        if matches!(family, Family::V6) {
            chain.follow(cursor)?;
        }
        match chain.protocol {
            PROTOCOL_TCP | PROTOCOL_UDP => {}
            protocol if protocol == icmp::protocol(family) && chain.is_whole() => {
                return Err(Reject::Icmp);
            }
            _ => return Err(Reject::OtherProtocol),
        }
        let offset = cursor.offset();
        let Chain {
            protocol,
            fragmentation,
            identification,
            end,
        } = chain;
        let length = end.saturating_sub(offset);
        let header = match fragmentation {
            Fragmentation::Later => Header::default(),
            Fragmentation::None | Fragmentation::First => {
                let whole = matches!(fragmentation, Fragmentation::None);
                Header::parse(cursor, protocol, length, whole).ok_or(Reject::BadTransport)?
            }
        };
        Ok(Self {
            protocol,
            offset,
            fragmentation,
            identification,
            source_port: header.source_port,
            destination_port: header.destination_port,
            tcp_flags: header.tcp_flags,
            payload: offset + header.length,
            end,
        })
    }

    /// The flow of the packet.
    #[inline(always)]
    #[must_use]
    pub const fn flow(&self, network: &Network) -> FlowKey {
        FlowKey::new(
            network.source,
            network.destination,
            self.source_port,
            self.destination_port,
            self.protocol,
        )
    }
}

/// The state of the way along IPv6's extension headers.
struct Chain {
    protocol: u8,
    fragmentation: Fragmentation,
    identification: [u8; 4],
    end: usize,
}

impl Chain {
    /// RFC 8200, 4.
    #[inline(always)]
    fn follow(&mut self, cursor: &mut impl Cursor) -> Result<(), Reject> {
        if !self.at_extension() {
            return Ok(());
        }
        self.walk(cursor)?;
        // For the kernel's verifier, which then follows all ways along the chain as one.
        cursor.skip(0).ok_or(Reject::BadTransport)
    }

    #[inline(always)]
    fn is_whole(&self) -> bool {
        matches!(self.fragmentation, Fragmentation::None)
    }

    #[inline(always)]
    fn at_extension(&self) -> bool {
        matches!(
            self.protocol,
            HOP_BY_HOP | DESTINATION_OPTIONS | ROUTING | FRAGMENT
        )
    }

    #[inline(always)]
    fn walk(&mut self, cursor: &mut impl Cursor) -> Result<(), Reject> {
        for _header in 0..EXTENSION_HEADERS {
            match self.protocol {
                HOP_BY_HOP | DESTINATION_OPTIONS => self.options(cursor)?,
                ROUTING => self.routing(cursor)?,
                FRAGMENT => self.fragment(cursor)?,
                _ => return Ok(()),
            }
            if matches!(self.fragmentation, Fragmentation::Later) {
                return Ok(());
            }
        }
        if self.at_extension() {
            return Err(Reject::BadTransport);
        }
        Ok(())
    }

    #[inline(always)]
    fn options(&mut self, cursor: &mut impl Cursor) -> Result<(), Reject> {
        let [next, length] = self.take(cursor)?;
        self.skip(cursor, 6 + usize::from(length) * 8)?;
        self.protocol = next;
        Ok(())
    }

    /// A routing header with segments left belongs to a packet on its way to somebody else.
    #[inline(always)]
    fn routing(&mut self, cursor: &mut impl Cursor) -> Result<(), Reject> {
        let [next, length, _, segments_left] = self.take(cursor)?;
        if segments_left != 0 {
            return Err(Reject::BadTransport);
        }
        self.skip(cursor, 4 + usize::from(length) * 8)?;
        self.protocol = next;
        Ok(())
    }

    /// An atomic fragment (offset 0, no more) is a whole packet (RFC 6946).
    #[inline(always)]
    fn fragment(&mut self, cursor: &mut impl Cursor) -> Result<(), Reject> {
        let [next, _, high, low, identification @ ..] = self.take::<8>(cursor)?;
        self.identification = identification;
        let field = u16::from_be_bytes([high, low]);
        self.fragmentation = match (field >> 3, field & 1) {
            (0, 0) => Fragmentation::None,
            (0, _) => Fragmentation::First,
            (_, _) => Fragmentation::Later,
        };
        self.protocol = next;
        Ok(())
    }

    #[inline(always)]
    fn take<const N: usize>(&self, cursor: &mut impl Cursor) -> Result<[u8; N], Reject> {
        let bytes = cursor.take().ok_or(Reject::BadTransport)?;
        self.inside(cursor).map(|()| bytes)
    }

    #[inline(always)]
    fn skip(&self, cursor: &mut impl Cursor, length: usize) -> Result<(), Reject> {
        cursor.skip(length).ok_or(Reject::BadTransport)?;
        self.inside(cursor)
    }

    #[inline(always)]
    fn inside(&self, cursor: &impl Cursor) -> Result<(), Reject> {
        if cursor.offset() > self.end {
            Err(Reject::BadTransport)
        } else {
            Ok(())
        }
    }
}

/// What counts of a TCP or UDP header; all zero in later fragments.
#[derive(Clone, Copy, Default)]
struct Header {
    source_port: u16,
    destination_port: u16,
    tcp_flags: u8,
    /// In bytes, options included.
    length: usize,
}

impl Header {
    /// Reads a header; `None` if the lengths are wrong. `available` bytes of the IP packet are left.
    ///
    /// The header must lie inside the IP packet, not only inside the frame, or Ethernet padding
    /// could pass for ports. A first fragment may end before the length that a UDP header claims.
    #[inline(always)]
    fn parse(
        cursor: &mut impl Cursor,
        protocol: u8,
        available: usize,
        whole: bool,
    ) -> Option<Self> {
        if protocol == PROTOCOL_TCP {
            if available < 20 {
                return None;
            }
            let header: [u8; 20] = cursor.take()?;
            let length = usize::from(header[12] >> 4) * 4;
            if length < 20 || length > available {
                return None;
            }
            Some(Self {
                source_port: u16::from_be_bytes([header[0], header[1]]),
                destination_port: u16::from_be_bytes([header[2], header[3]]),
                tcp_flags: header[13],
                length,
            })
        } else {
            if available < 8 {
                return None;
            }
            let [a, b, c, d, high, low, _, _] = cursor.take()?;
            let length = usize::from(u16::from_be_bytes([high, low]));
            if length < 8 || (whole && length > available) {
                return None;
            }
            Some(Self {
                source_port: u16::from_be_bytes([a, b]),
                destination_port: u16::from_be_bytes([c, d]),
                tcp_flags: 0,
                length: 8,
            })
        }
    }
}

mod quote;

pub use quote::{NoQuote, Quote};

#[cfg(test)]
mod tests;
