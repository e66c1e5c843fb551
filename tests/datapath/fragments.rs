//! Fragments: they follow their first one, and are never the host's if they are a VIP's.

use std::sync::atomic::{AtomicU16, Ordering};

use anyhow::{Context, Result, ensure};
use lb_common::{
    abi::{FRAGMENTS, Fragment, FragmentKey, Ip},
    parse::{TCP_ACK, TCP_SYN},
    verdict::Verdict,
};
use tests::{
    packet::{DESTINATION_OPTIONS, FRAGMENT, HOP_BY_HOP, Packet, Transport},
    world::World,
};

use super::case::{Case, check, same};
use super::conversation::Flow;
use super::entries;
use super::services::{
    BEHIND, BEHIND_NAT, BEHIND_ROUND_ROBIN, DSR_MAGLEV, DSR_ROUND_ROBIN, FAMILIES, Family, KINDS,
    NAT_MAGLEV, NAT_ROUND_ROBIN, new_port, world,
};

const SYN: Transport = Transport::Tcp(TCP_SYN);
const ACK: Transport = Transport::Tcp(TCP_ACK);
const MORE: u16 = 0x2000;
const DONT: u16 = 0x4000;
const RESERVED: u16 = 0x8000;

/// A port without a service.
const NOBODYS: u16 = 9999;

/// A piece of a packet.
#[derive(Clone, Copy)]
pub(super) struct Piece {
    identification: u16,
    /// In units of eight bytes.
    offset: u16,
    more: bool,
}

impl Piece {
    /// Of a packet that no other case has pieces of.
    pub(super) fn first() -> Self {
        static NEXT: AtomicU16 = AtomicU16::new(0);
        Self {
            identification: NEXT.fetch_add(1, Ordering::Relaxed),
            offset: 0,
            more: true,
        }
    }

    pub(super) fn later(self, offset: u16, more: bool) -> Self {
        Self {
            offset,
            more,
            ..self
        }
    }

    pub(super) fn of(self, packet: &Packet) -> Packet {
        packet.clone().with(|packet| {
            if packet.source.is_ipv4() {
                packet.identification = self.identification;
                packet.fragment = self.offset | if self.more { MORE } else { 0 };
            } else {
                let [a, b] = ((self.offset << 3) | u16::from(self.more)).to_be_bytes();
                let [c, d] = self.identification.to_be_bytes();
                packet.extensions = vec![(FRAGMENT, vec![0, 0, a, b, 0xab, 0, c, d])];
            }
        })
    }

    /// A later piece, which has no ports but bytes that could be some.
    pub(super) fn body(self, packet: &Packet) -> Packet {
        self.of(packet).with(|packet| {
            packet.transport = Transport::Other(packet.protocol());
            packet.payload = b"anything, of any length".to_vec();
        })
    }
}

/// As a fragment of a packet that no other case has pieces of.
fn fragment(packet: &Packet, offset: u16, more: bool) -> Packet {
    Piece::first().later(offset, more).of(packet)
}

/// Middle, second to reach far out, last.
pub(super) const LATER: [(u16, bool); 3] = [(1, true), (0x1fff, true), (185, false)];

#[test]
fn pieces_follow_the_first_as_they_are() -> Result<()> {
    let world = world()?;
    for family in FAMILIES {
        for transport in [SYN, ACK, Transport::Udp] {
            for service in [DSR_MAGLEV, DSR_ROUND_ROBIN, BEHIND, BEHIND_ROUND_ROBIN] {
                let (packet, piece) = (family.packet(transport, service), Piece::first());
                let first = piece.of(&packet);
                let out = world.send(&first)?;
                let backend = world.backend_by_mac(&out.answer.frame[..6]);
                let hop = world.next_hop(backend.context("sent to nobody")?)?;
                same(&out.answer.frame, &first.forwarded(hop).build())?;
                for (offset, more) in LATER {
                    let later = piece.later(offset, more).body(&packet);
                    let next = world.send(&later)?;
                    ensure!(next.verdict == out.verdict, "{:?}", next.verdict);
                    same(&next.answer.frame, &later.forwarded(hop).build())
                        .with_context(|| format!("{family:?} {transport:?} {service} {offset}"))?;
                }
            }
        }
    }
    Ok(())
}

#[test]
fn pieces_are_translated_in_both_directions() -> Result<()> {
    let world = world()?;
    for family in FAMILIES {
        for transport in [ACK, Transport::Udp] {
            for service in [NAT_MAGLEV, NAT_ROUND_ROBIN, BEHIND_NAT] {
                let (packet, piece) = (family.packet(transport, service), Piece::first());
                let flow = Flow::begin(&world, &piece.of(&packet))?;
                let hop = world.next_hop(flow.backend)?;
                let backend = world.address(flow.backend)?;
                for (offset, more) in LATER {
                    let later = piece.later(offset, more).body(&packet);
                    let out = world.send(&later)?;
                    let expected = later
                        .forwarded(hop)
                        .between((family.own(), 0), (backend.0, 0));
                    same(&out.answer.frame, &expected.build())
                        .with_context(|| format!("{family:?} {transport:?} {service} {offset}"))?;
                }
                answered_in_pieces(&world, &flow, transport)?;
            }
        }
    }
    Ok(())
}

fn answered_in_pieces(world: &World, flow: &Flow, transport: Transport) -> Result<()> {
    let piece = Piece::first();
    let reply = flow.reply(world, transport)?;
    let first = piece.of(&reply);
    let out = world.send(&first)?;
    ensure!(out.verdict == Verdict::TxNatReply, "{:?}", out.verdict);
    same(&out.answer.frame, &flow.inward(&first).build())?;
    for (offset, more) in LATER {
        let later = piece.later(offset, more).body(&reply);
        let out = world.send(&later)?;
        ensure!(out.verdict == Verdict::TxNatReply, "{:?}", out.verdict);
        same(&out.answer.frame, &flow.inward(&later).build())?;
    }
    Ok(())
}

#[test]
fn pieces_of_other_packets_do_not_follow() -> Result<()> {
    let world = world()?;
    for family in FAMILIES {
        let (packet, piece) = (family.packet(Transport::Udp, DSR_MAGLEV), Piece::first());
        world.send(&piece.of(&packet))?;
        let later = piece.later(9, false).body(&packet);
        let strangers = [
            later.clone().with(|packet| packet.source = family.own()),
            later
                .clone()
                .with(|packet| packet.transport = Transport::Other(6)),
            Piece::first().later(9, false).body(&packet),
        ];
        for stranger in strangers {
            let verdict = world.send(&stranger)?.verdict;
            ensure!(verdict == Verdict::DropFragment, "{verdict:?}");
        }
        ensure!(world.send(&later)?.verdict == Verdict::TxDsr);
    }
    Ok(())
}

#[test]
fn pieces_at_the_end_of_their_life_get_no_further() -> Result<()> {
    let world = world()?;
    for family in FAMILIES {
        for service in [DSR_MAGLEV, DSR_ROUND_ROBIN, NAT_MAGLEV] {
            let (packet, piece) = (family.packet(Transport::Udp, service), Piece::first());
            world.send(&piece.of(&packet))?;
            let later = piece.later(9, false).body(&packet);
            let later = later.with(|packet| packet.ttl = 1);
            // Only a first piece is ever answered (RFC 1122, 3.2.2).
            let verdict = world.send(&later)?.verdict;
            ensure!(verdict == Verdict::DropTtlExpired, "{verdict:?}");
        }
    }
    Ok(())
}

#[test]
fn more_packets_in_pieces_than_there_is_room_for_do_no_harm() -> Result<()> {
    let world = world()?;
    for _packet in 0..1_500 {
        let (packet, piece) = (
            Family::V4.packet(Transport::Udp, DSR_MAGLEV),
            Piece::first(),
        );
        ensure!(world.send(&piece.of(&packet))?.verdict == Verdict::TxDsr);
        let last = piece.later(9, false).body(&packet);
        ensure!(world.send(&last)?.verdict == Verdict::TxDsr);
    }
    Ok(())
}

/// Makes a packet's first piece older than it is, in the map where the program keeps it.
fn age(piece: Piece, packet: &Packet, ticks: u32) -> Result<()> {
    let [c, d] = piece.identification.to_be_bytes();
    let first = if packet.source.is_ipv4() { 0 } else { 0xab };
    let key = FragmentKey {
        source: Ip::from(packet.source),
        destination: Ip::from(packet.destination),
        identification: [first, 0, c, d],
        protocol: packet.protocol().into(),
    };
    entries::change(FRAGMENTS, &key, |first: &mut Fragment| {
        first.seen = entries::earlier(first.seen, ticks)?;
        Ok(())
    })
}

#[test]
fn pieces_that_come_a_minute_late_are_dropped() -> Result<()> {
    let world = world()?;
    for family in FAMILIES {
        for transport in [ACK, Transport::Udp] {
            for service in [DSR_MAGLEV, DSR_ROUND_ROBIN, NAT_MAGLEV, NAT_ROUND_ROBIN] {
                let (packet, piece) = (family.packet(transport, service), Piece::first());
                let sent = world.send(&piece.of(&packet))?.verdict;
                let later = piece.later(1, false).body(&packet);
                // A tick may pass between two packets of this test, not many.
                age(piece, &packet, Fragment::LIFE - 20)?;
                let out = world.send(&later)?;
                ensure!(out.verdict == sent, "{:?} before its time", out.verdict);
                age(piece, &packet, 21)?;
                let out = world.send(&later)?;
                ensure!(out.verdict == Verdict::DropFragment, "{:?}", out.verdict);
            }
        }
    }
    Ok(())
}

#[test]
fn pieces_whose_first_was_not_seen_are_dropped() -> Result<()> {
    let mut cases = Vec::new();
    for family in FAMILIES {
        for transport in [ACK, Transport::Udp] {
            for service in KINDS {
                for (offset, more) in LATER {
                    let packet = fragment(&family.packet(transport, service), offset, more);
                    let name = format!("{offset} {more}: {family:?} {transport:?} {service}");
                    cases.push(Case::bytes(name, packet.build(), Verdict::DropFragment));
                }
            }
        }
    }
    check(&*world()?, &cases)
}

/// Where their ports would be is payload, which may read like any port.
#[test]
fn later_fragments_to_a_vip_are_dropped_whatever_they_hold() -> Result<()> {
    let mut cases = Vec::new();
    for family in FAMILIES {
        for transport in [ACK, Transport::Udp] {
            let packet = fragment(&family.packet(transport, NOBODYS), 100, false);
            let name = format!("{family:?} {transport:?}");
            cases.push(Case::bytes(name, packet.build(), Verdict::DropFragment));
        }
        for length in [0, 1, 8] {
            let packet = family.packet(Transport::Other(6), 0);
            let packet = fragment(&packet, 2, true).with(|packet| {
                packet.payload = vec![7; length];
            });
            let name = format!("{length} bytes: {family:?}");
            cases.push(Case::bytes(name, packet.build(), Verdict::DropFragment));
        }
    }
    check(&*world()?, &cases)
}

#[test]
fn fragments_for_others_are_not_ours() -> Result<()> {
    let mut cases = Vec::new();
    for family in FAMILIES {
        for transport in [ACK, Transport::Udp] {
            for (offset, more) in LATER.into_iter().chain([(0, true)]) {
                let client = (family.client(), new_port());
                let packet = Packet::new(transport, client, (family.own(), DSR_MAGLEV));
                let packet = fragment(&packet, offset, more);
                let name = format!("{offset} {more}: {family:?} {transport:?}");
                cases.push(Case::bytes(name, packet.build(), Verdict::PassNotOurs));
            }
            let first = fragment(&family.packet(transport, NOBODYS), 0, true);
            let name = format!("first, to no service: {family:?} {transport:?}");
            cases.push(Case::bytes(name, first.build(), Verdict::PassNotOurs));
        }
        let icmp = fragment(&family.packet(Transport::Other(1), 0), 3, false);
        let name = format!("of ICMP: {family:?}");
        cases.push(Case::bytes(name, icmp.build(), Verdict::PassNotOurs));
    }
    check(&*world()?, &cases)
}

/// Such a piece cannot be judged, and RFC 1858 tells what it would be for.
#[test]
fn a_first_fragment_without_the_whole_tcp_header_is_dropped() -> Result<()> {
    let mut cases = Vec::new();
    for family in FAMILIES {
        let whole = family.packet(ACK, DSR_MAGLEV);
        let header = whole.build()[whole.transport_offset()..].to_vec();
        for length in [0, 4, 8, 16] {
            let packet = family.packet(Transport::Other(6), 0);
            let packet = fragment(&packet, 0, true).with(|packet| {
                packet.payload = header[..length].to_vec();
            });
            let name = format!("{length} bytes: {family:?}");
            cases.push(Case::bytes(name, packet.build(), Verdict::DropMalformed));
        }
    }
    check(&*world()?, &cases)
}

#[test]
fn a_first_fragment_of_udp_may_be_shorter_than_its_datagram() -> Result<()> {
    let world = world()?;
    for family in FAMILIES {
        let packet = fragment(&family.packet(Transport::Udp, DSR_MAGLEV), 0, true);
        let mut frame = packet.build();
        let at = packet.transport_offset() + 4;
        frame[at..at + 2].copy_from_slice(&4000_u16.to_be_bytes());
        let verdict = world.run(&frame)?.verdict;
        ensure!(verdict == Verdict::TxDsr, "{family:?}: {verdict:?}");
    }
    Ok(())
}

#[test]
fn other_bits_of_the_fragment_field_do_not_make_a_fragment() -> Result<()> {
    let mut cases = Vec::new();
    for service in [DSR_MAGLEV] {
        for bits in [DONT, RESERVED, DONT | RESERVED] {
            let packet = Family::V4.packet(ACK, service);
            let packet = packet.with(|packet| packet.fragment = bits);
            let name = format!("{bits:#06x} to {service}");
            cases.push(Case::packet(name, &packet, Verdict::TxDsr));
        }
    }
    check(&*world()?, &cases)
}

#[test]
fn a_fragment_header_is_found_behind_other_headers() -> Result<()> {
    let first = |more| vec![0, 0, 0, more, 0, 0, 0, 1];
    let mut cases = Vec::new();
    for (name, chain) in [
        (
            "behind",
            vec![(HOP_BY_HOP, vec![0; 8]), (FRAGMENT, first(1))],
        ),
        (
            "before",
            vec![(FRAGMENT, first(1)), (DESTINATION_OPTIONS, vec![0; 8])],
        ),
        // Any that says so makes it a fragment.
        (
            "after an atomic one",
            vec![(FRAGMENT, first(0)), (FRAGMENT, first(1))],
        ),
    ] {
        let packet = Family::V6.packet(ACK, DSR_MAGLEV);
        let packet = packet.with(|packet| packet.extensions = chain);
        cases.push(Case::packet(name, &packet, Verdict::TxDsr));
    }
    check(&*world()?, &cases)
}
