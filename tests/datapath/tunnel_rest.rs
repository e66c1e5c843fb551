//! ICMP errors and fragments, which take the tunnel of their flow.

use anyhow::{Context, Result, ensure};
use lb_common::{
    abi::{Encapsulation, FlowKey},
    parse::{TCP_ACK, TCP_SYN},
    verdict::Verdict,
};
use tests::{
    packet::{Packet, Transport},
    prog_run::LOOPBACK,
    world::World,
};

use super::case::same;
use super::fragments::{LATER, Piece};
use super::icmp::{about, kinds, least, sent_back};
use super::services::{FAMILIES, Family};
use super::tunnel::{BALANCES, FORMS, hop, outer_of, port, world};

const SYN: Transport = Transport::Tcp(TCP_SYN);
const ACK: Transport = Transport::Tcp(TCP_ACK);

/// A service, by what its tunnel is like.
#[derive(Clone, Copy, Debug)]
struct Way {
    form: Encapsulation,
    outer: Family,
    service: u16,
}

fn ways() -> Vec<Way> {
    let mut ways = Vec::new();
    for form in FORMS {
        for outer in FAMILIES {
            for balance in BALANCES {
                ways.push(Way {
                    form,
                    outer,
                    service: port(form, outer, balance),
                });
            }
        }
    }
    ways
}

fn check(world: &World, packet: &Packet, flow: &FlowKey, way: Way) -> Result<()> {
    let out = world.send(packet)?;
    ensure!(out.verdict == Verdict::TxTunnel, "{:?}", out.verdict);
    let outer = outer_of(packet, flow, way.service, way.form, way.outer)?;
    let expected = outer.wrap(&packet.forwarded(hop(LOOPBACK)), hop(LOOPBACK));
    same(&out.answer.frame, &expected).with_context(|| format!("{way:?} {packet:?}"))
}

#[test]
fn an_error_travels_to_the_backend_of_its_flow() -> Result<()> {
    let world = world()?;
    for way in ways() {
        for inner in FAMILIES {
            let packet = inner.packet(SYN, way.service);
            check(&world, &packet, &packet.flow(), way)?;
            let answer = sent_back(&packet);
            for kind in kinds(inner) {
                for length in [least(&answer), 1280] {
                    let error = about(&answer, *kind, length);
                    check(&world, &error, &error.flow(), way)?;
                }
            }
        }
    }
    Ok(())
}

/// An error is never answered with another (RFC 1122, 3.2.2).
#[test]
fn an_error_that_does_not_fit_is_dropped() -> Result<()> {
    let world = world()?;
    for way in ways() {
        for inner in FAMILIES {
            let packet = inner.packet(ACK, way.service);
            let answer = sent_back(&packet).with(|packet| packet.payload = vec![7; 1440]);
            let error = about(&answer, kinds(inner)[0], 1500);
            let verdict = world.send(&error)?.verdict;
            ensure!(verdict == Verdict::DropTooBig, "{way:?}: {verdict:?}");
        }
    }
    Ok(())
}

/// From one outer address and port, or a backend's load balancing would part them.
#[test]
fn pieces_travel_as_their_first_one_does() -> Result<()> {
    let world = world()?;
    for way in ways() {
        for inner in FAMILIES {
            for transport in [ACK, Transport::Udp] {
                let (packet, piece) = (inner.packet(transport, way.service), Piece::first());
                check(&world, &piece.of(&packet), &packet.flow(), way)?;
                for (offset, more) in LATER {
                    let later = piece.later(offset, more).body(&packet);
                    check(&world, &later, &packet.flow(), way)?;
                }
            }
        }
    }
    Ok(())
}
