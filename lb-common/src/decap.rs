//! Unpacking tunnelled packets on a backend: what is recognised, and how each packet ends.
//!
//! ```text
//!  Ethernet, tags | outer IPv4 or IPv6 | UDP and GUE, or nothing | the client's packet
//! ```
//! IP in IP is RFC 2003, RFC 2473 and RFC 4213; GUE is draft-ietf-intarea-gue, variants 0 and 1. All
//! is generic over [`Cursor`], as in [`crate::parse`].

use crate::{
    abi::PROTOCOL_UDP,
    cursor::Cursor,
    parse::{Family, Network, ethernet},
};

/// The name of the decapsulator in its object.
pub const PROGRAM: &str = "tidegate_decap";
/// Longest-prefix-match trie of [`crate::abi::Ip`]: who may send tunnelled packets.
pub const SOURCES: &str = "DECAP_SOURCES";
/// Hash with [`crate::abi::Ip`] as key: the virtual addresses.
pub const VIPS: &str = "DECAP_VIPS";
/// Per-CPU array of `u64`, one an [`Outcome`].
pub const COUNTS: &str = "DECAP_COUNTS";
/// Read-only global, a `u16`: the UDP port of GUE.
pub const GUE_PORT: &str = "DECAP_GUE_PORT";

const PROTOCOL_IPV4: u8 = 4;
const PROTOCOL_IPV6: u8 = 41;

/// How a packet's way through the decapsulator ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u32)]
pub enum Outcome {
    /// The client's packet was taken out and given to the host.
    Decapsulated = 0,
    /// No tunnel's, or not for a virtual address: given to the host untouched.
    NotOurs = 1,
    /// For a virtual address, from an address that may not send: given to the host untouched.
    DeniedSource = 2,
    /// From an address that may send, but with nothing inside that could be unpacked: dropped.
    Malformed = 3,
    /// Marked as delayed on the way, with a sender that would not understand: dropped (RFC 6040).
    EcnDropped = 4,
}

impl Outcome {
    /// Every outcome, in the order of the counters.
    pub const ALL: [Self; 5] = [
        Self::Decapsulated,
        Self::NotOurs,
        Self::DeniedSource,
        Self::Malformed,
        Self::EcnDropped,
    ];

    /// Whether the host gets the packet.
    #[inline(always)]
    #[must_use]
    pub const fn passes(self) -> bool {
        match self {
            Self::Decapsulated | Self::NotOurs | Self::DeniedSource => true,
            Self::Malformed | Self::EcnDropped => false,
        }
    }

    /// The name in logs and output.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Decapsulated => "decapsulated",
            Self::NotOurs => "not_ours",
            Self::DeniedSource => "denied_source",
            Self::Malformed => "malformed",
            Self::EcnDropped => "ecn_dropped",
        }
    }
}

/// The outer headers of what may be a tunnel's packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outer {
    pub network: Network,
    pub family: Family,
    /// What is inside, as far as the outer headers tell; `None` if that is nothing we know.
    inner: Option<Family>,
}

impl Outer {
    /// Reads a frame up to the inner packet; `None` if it is no tunnel's.
    ///
    /// Fragments are the host's to put together, and no balancer of ours sends any.
    #[inline(always)]
    pub fn parse<C: Cursor + Clone>(cursor: &mut C, gue_port: u16) -> Option<Self> {
        let family = ethernet(cursor)?;
        let network = Network::parse(cursor, family).ok()?;
        if network.is_piece() {
            return None;
        }
        let inner = match network.protocol() {
            PROTOCOL_IPV4 => Some(Family::V4),
            PROTOCOL_IPV6 => Some(Family::V6),
            PROTOCOL_UDP => udp(cursor, &network, gue_port)?,
            _ => return None,
        };
        Some(Self {
            network,
            family,
            inner,
        })
    }

    /// Reads the header of the inner packet; `None` if it is damaged or longer than the outer one.
    #[inline(always)]
    pub fn inner(&self, cursor: &mut impl Cursor) -> Option<Inner> {
        let family = self.inner?;
        // For the kernel's verifier, which then follows all kinds of outer headers together.
        cursor.skip(0)?;
        let network = Network::parse(cursor, family).ok()?;
        (network.end <= self.network.end).then_some(Inner { network, family })
    }
}

/// The header of a packet that was found inside another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Inner {
    pub network: Network,
    pub family: Family,
}

/// Reads UDP and GUE. The outer `None` is for what is not GUE, or GUE's own control messages.
#[inline(always)]
fn udp<C: Cursor + Clone>(
    cursor: &mut C,
    network: &Network,
    gue_port: u16,
) -> Option<Option<Family>> {
    let at = cursor.offset();
    let [_, _, high, low, length_high, length_low, _, _] = cursor.take()?;
    let length = usize::from(u16::from_be_bytes([length_high, length_low]));
    if u16::from_be_bytes([high, low]) != gue_port {
        return None;
    }
    if length < 8 || at + length > network.end {
        return Some(None);
    }
    // Two bytes: the verifier takes no check of one for a proof.
    let Some([first, _]) = cursor.clone().take::<2>() else {
        return Some(None);
    };
    Some(match first >> 4 {
        4 => Some(Family::V4),
        6 => Some(Family::V6),
        _ if first >> 6 == 0 => return gue(cursor),
        _ => None,
    })
}

/// Variant 0, section 3.1 of the draft. Flags announce fields that may change what is inside, and
/// whoever does not know one must not go on.
#[inline(always)]
fn gue(cursor: &mut impl Cursor) -> Option<Option<Family>> {
    const CONTROL: u8 = 0x20;
    const WORDS: u8 = 0x1f;
    let Some([first, protocol, flags @ ..]) = cursor.take::<4>() else {
        return Some(None);
    };
    if first & CONTROL != 0 {
        return None;
    }
    if cursor.skip(usize::from(first & WORDS) * 4).is_none() || flags != [0; 2] {
        return Some(None);
    }
    Some(match protocol {
        PROTOCOL_IPV4 => Some(Family::V4),
        PROTOCOL_IPV6 => Some(Family::V6),
        _ => None,
    })
}

/// The ECN field of a packet that leaves a tunnel (RFC 6040, section 4.2); `None` if it must be
/// dropped, for its sender would not learn of the congestion in any other way.
#[inline(always)]
#[must_use]
pub const fn ecn(inner: u8, outer: u8) -> Option<u8> {
    const NOT_ECT: u8 = 0b00;
    const ECT_1: u8 = 0b01;
    const ECT_0: u8 = 0b10;
    const CE: u8 = 0b11;
    match (inner & CE, outer & CE) {
        (NOT_ECT, CE) => None,
        (NOT_ECT, _) => Some(NOT_ECT),
        (_, CE) => Some(CE),
        (ECT_0, ECT_1) => Some(ECT_1),
        (inner, _) => Some(inner),
    }
}

/// The ECN field in the first two bytes of a network header.
#[inline(always)]
#[must_use]
pub const fn ecn_of([_, second]: [u8; 2], family: Family) -> u8 {
    match family {
        Family::V4 => second & 3,
        Family::V6 => (second >> 4) & 3,
    }
}

/// The second byte of a network header with another ECN field.
#[inline(always)]
#[must_use]
pub const fn with_ecn(second: u8, family: Family, ecn: u8) -> u8 {
    match family {
        Family::V4 => (second & !3) | ecn,
        Family::V6 => (second & !0x30) | (ecn << 4),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{Outcome, Outer, ecn, ecn_of, with_ecn};
    use crate::{
        cursor::{Cursor as _, SliceCursor},
        parse::Family,
    };

    const PORT: u16 = 6080;

    /// An Ethernet frame with `next` and `rest` behind an IPv4 header.
    fn outer(protocol: u8, rest: &[u8]) -> Vec<u8> {
        let mut frame = vec![0; 12];
        frame.extend([0x08, 0x00, 0x45, 0]);
        frame.extend((20 + rest.len() as u16).to_be_bytes());
        frame.extend([0, 0, 0x40, 0, 64, protocol, 0, 0, 10, 9, 0, 1, 10, 20, 0, 1]);
        frame.extend(rest);
        frame
    }

    fn v4() -> Vec<u8> {
        vec![
            0x45, 0, 0, 20, 0, 0, 0, 0, 64, 6, 0, 0, 1, 2, 3, 4, 172, 16, 40, 24,
        ]
    }

    fn v6() -> Vec<u8> {
        let mut header = vec![0x60, 0, 0, 0, 0, 0, 6, 64];
        header.extend([0xfd; 32]);
        header
    }

    fn gue(port: u16, head: &[u8], inner: &[u8]) -> Vec<u8> {
        let mut udp = vec![0xc0, 0];
        udp.extend(port.to_be_bytes());
        udp.extend((8 + (head.len() + inner.len()) as u16).to_be_bytes());
        udp.extend([0, 0]);
        udp.extend(head);
        udp.extend(inner);
        outer(17, &udp)
    }

    /// Where the inner packet is and what it is; `None` inside if there is none, outside if the
    /// frame is no tunnel's.
    fn read(frame: &[u8]) -> Option<Option<(usize, Family)>> {
        let mut cursor = SliceCursor::new(frame);
        let outer = Outer::parse(&mut cursor, PORT)?;
        let inner = outer.inner(&mut cursor);
        Some(inner.map(|inner| (inner.network.offset, inner.family)))
    }

    #[test]
    fn every_form_is_found() {
        assert_eq!(read(&outer(4, &v4())), Some(Some((34, Family::V4))));
        assert_eq!(read(&outer(41, &v6())), Some(Some((34, Family::V6))));
        assert_eq!(read(&gue(PORT, &[], &v4())), Some(Some((42, Family::V4))));
        assert_eq!(read(&gue(PORT, &[], &v6())), Some(Some((42, Family::V6))));
        let short = [0, 4, 0, 0];
        assert_eq!(
            read(&gue(PORT, &short, &v4())),
            Some(Some((46, Family::V4)))
        );
        let long = [2, 41, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8];
        assert_eq!(read(&gue(PORT, &long, &v6())), Some(Some((54, Family::V6))));
    }

    #[test]
    fn what_is_no_tunnels_is_left_alone() {
        assert_eq!(read(&outer(6, &v4())), None);
        assert_eq!(read(&gue(PORT + 1, &[], &v4())), None);
        // A control message.
        assert_eq!(read(&gue(PORT, &[0x20, 4, 0, 0], &v4())), None);
        let mut piece = outer(4, &v4());
        piece[20] = 0x20;
        assert_eq!(read(&piece), None);
    }

    #[test]
    fn what_cannot_be_unpacked_is_no_inner_packet() {
        // Version and protocol differ.
        assert_eq!(read(&outer(4, &v6())), Some(None));
        // Longer than the outer packet, though the frame goes on.
        let mut long = outer(4, &v4());
        long[37] = 21;
        long.push(0);
        assert_eq!(read(&long), Some(None));
        // Unknown flags, variant, protocol; a header that ends behind the packet.
        assert_eq!(read(&gue(PORT, &[0, 4, 1, 0], &v4())), Some(None));
        assert_eq!(read(&gue(PORT, &[0x80, 4, 0, 0], &v4())), Some(None));
        assert_eq!(read(&gue(PORT, &[0, 6, 0, 0], &v4())), Some(None));
        assert_eq!(read(&gue(PORT, &[31, 4, 0, 0], &v4())), Some(None));
        assert_eq!(read(&gue(PORT, &[], &[])), Some(None));
    }

    #[test]
    fn congestion_marks_follow_the_table_of_rfc_6040() {
        let (not, one, zero, ce) = (0, 1, 2, 3);
        let table = [
            (not, [Some(not), Some(not), Some(not), None]),
            (zero, [Some(zero), Some(zero), Some(one), Some(ce)]),
            (one, [Some(one), Some(one), Some(one), Some(ce)]),
            (ce, [Some(ce), Some(ce), Some(ce), Some(ce)]),
        ];
        for (inner, row) in table {
            for (outer, expected) in [not, zero, one, ce].into_iter().zip(row) {
                assert_eq!(ecn(inner, outer), expected, "{inner} in {outer}");
            }
        }
    }

    #[test]
    fn outcomes_are_numbered_in_order() {
        for (number, outcome) in Outcome::ALL.into_iter().enumerate() {
            assert_eq!(outcome as usize, number);
        }
    }

    proptest! {
        #[test]
        fn a_mark_is_read_back_and_changes_nothing_else(
            bytes in any::<[u8; 2]>(),
            mark in 0..4_u8,
            is_v4 in any::<bool>(),
        ) {
            let family = if is_v4 { Family::V4 } else { Family::V6 };
            let marked = with_ecn(bytes[1], family, mark);
            prop_assert_eq!(ecn_of([bytes[0], marked], family), mark);
            prop_assert_eq!(with_ecn(marked, family, ecn_of(bytes, family)), bytes[1]);
        }

        #[test]
        fn any_frame_is_read_inside_its_bounds(
            mut frame in proptest::collection::vec(any::<u8>(), 0..120),
            kind in 0..6_usize,
        ) {
            let heads = [
                outer(4, &v4()), outer(41, &v6()), gue(PORT, &[], &v4()), gue(PORT, &[], &v6()),
                gue(PORT, &[1, 4, 0, 0, 0, 0, 0, 0], &v4()), gue(PORT, &[0, 41, 0, 0], &v6()),
            ];
            // Damage behind the Ethernet header.
            for (place, byte) in frame.iter_mut().zip(&heads[kind]).take(14 + kind * 8) {
                *place = *byte;
            }
            let mut cursor = SliceCursor::new(&frame);
            if let Some(outer) = Outer::parse(&mut cursor, PORT)
                && let Some(inner) = outer.inner(&mut cursor)
            {
                prop_assert!(inner.network.offset >= outer.network.offset + 20);
                prop_assert!(inner.network.end <= outer.network.end);
                prop_assert!(outer.network.end <= frame.len());
                prop_assert!(cursor.offset() <= inner.network.end);
            }
        }
    }
}
