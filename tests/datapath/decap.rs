//! What a backend unpacks, and what it leaves alone.

use std::net::{IpAddr, Ipv4Addr};

use anyhow::{Context, Result, ensure};
use lb_common::{
    abi::{Balance, NextHop},
    decap::Outcome,
    parse::TCP_SYN,
    verdict::{Action, Verdict},
};
use lb_decap::{Config, Decap, Mode};
use tests::{
    packet::{Packet, Transport},
    prog_run::{self, LOOPBACK, SHORTEST},
    tunnel::Outer,
};

use super::{
    case::same,
    services::{FAMILIES, Family},
    tunnel::{FORMS, hop, port, world},
};

const GUE_PORT: u16 = 6080;
const TAGS: [[u16; 2]; 2] = [[0x88a8, 0x0064], [0x8100, 0x6007]];
/// IP in IP, and GUE with so many bytes of its own header.
const GUE_HEADERS: [Option<usize>; 4] = [None, Some(0), Some(4), Some(12)];

pub(super) fn open() -> Result<Decap> {
    Ok(Decap::open(&Config {
        interface: "lo".to_owned(),
        mode: Mode::Auto,
        sources: vec!["10.9.0.0/24".parse()?, "fd00:9::/64".parse()?],
        vips: FAMILIES.map(Family::vip).to_vec(),
        gue_port: GUE_PORT,
    })?)
}

/// Runs a frame, and says what was counted.
fn run(decap: &Decap, frame: &[u8]) -> Result<(Outcome, Action, Vec<u8>)> {
    let before = decap.counts()?;
    let answer = prog_run::run(decap.program_fd()?, frame, LOOPBACK)?;
    let after = decap.counts()?;
    let counted: Vec<Outcome> = Outcome::ALL
        .into_iter()
        .filter(|outcome| after[outcome] != before[outcome])
        .collect();
    ensure!(counted.len() == 1, "counted: {counted:?}");
    let expected = if counted[0].passes() {
        Action::Pass
    } else {
        Action::Drop
    };
    ensure!(
        answer.action == expected,
        "{:?} and {counted:?}",
        answer.action
    );
    Ok((counted[0], answer.action, answer.frame))
}

fn untouched(decap: &Decap, frame: &[u8], expected: Outcome) -> Result<()> {
    let (outcome, _, out) = run(decap, frame)?;
    ensure!(outcome == expected, "{outcome:?} instead of {expected:?}");
    same(&out, frame)
}

fn next_hop() -> NextHop {
    hop(LOOPBACK)
}

fn outer(family: Family, inner: &Packet, gue: Option<usize>) -> Result<Outer> {
    let ends: [IpAddr; 2] = match family {
        Family::V4 => [[10, 9, 0, 77].into(), Ipv4Addr::new(10, 20, 0, 1).into()],
        Family::V6 => ["fd00:9::77".parse()?, "fd00:20::1".parse()?],
    };
    let mut outer = Outer::new(ends[0], ends[1], inner);
    outer.gue = gue.map(|_| (50_000, GUE_PORT));
    outer.gue_header = gue.unwrap_or(0);
    Ok(outer)
}

#[test]
fn every_form_comes_out_as_it_went_in() -> Result<()> {
    let decap = open()?;
    for (inner, outside) in pairs() {
        for gue in GUE_HEADERS {
            for tags in 0..=2 {
                for transport in [Transport::Tcp(TCP_SYN), Transport::Udp] {
                    let packet = inner.packet(transport, 1883);
                    let packet = packet.with(|packet| packet.tags = TAGS[..tags].to_vec());
                    let frame = outer(outside, &packet, gue)?.wrap(&packet, next_hop());
                    let (outcome, _, out) = run(&decap, &frame)?;
                    let case = || format!("{gue:?}, {tags} tags, {packet:?}");
                    ensure!(outcome == Outcome::Decapsulated, "{outcome:?}: {}", case());
                    same(&out, &addressed(&packet)).with_context(case)?;
                }
            }
        }
    }
    Ok(())
}

fn pairs() -> impl Iterator<Item = (Family, Family)> {
    let each = |inner| FAMILIES.map(|outer| (inner, outer));
    FAMILIES.into_iter().flat_map(each)
}

/// The frame of a packet that came from the balancer.
fn addressed(packet: &Packet) -> Vec<u8> {
    let NextHop {
        mac, source_mac, ..
    } = next_hop();
    let packet = packet.clone().with(|packet| {
        packet.destination_mac = mac;
        packet.source_mac = source_mac;
    });
    packet.build()
}

#[test]
fn what_the_balancer_packs_is_unpacked() -> Result<()> {
    let world = world()?;
    // The balancer of these tests sends from other prefixes.
    let decap = Decap::open(&Config {
        interface: "lo".to_owned(),
        mode: Mode::Auto,
        sources: vec!["10.9.0.0/16".parse()?, "fd00:9::/32".parse()?],
        vips: FAMILIES.map(Family::vip).to_vec(),
        gue_port: GUE_PORT,
    })?;
    for form in FORMS {
        for (inner, outside) in pairs() {
            for tags in 0..=2 {
                let service = port(form, outside, Balance::Maglev);
                let packet = inner.packet(Transport::Udp, service);
                let packet = packet.with(|packet| packet.tags = TAGS[..tags].to_vec());
                let packed = world.send(&packet)?;
                ensure!(packed.verdict == Verdict::TxTunnel, "{:?}", packed.verdict);
                let (outcome, _, out) = run(&decap, &packed.answer.frame)?;
                ensure!(outcome == Outcome::Decapsulated, "{outcome:?}");
                // One hop older, and with the next hop's addresses.
                same(&out, &packet.forwarded(next_hop()).build())?;
            }
        }
    }
    Ok(())
}

#[test]
fn other_senders_addresses_and_ports_are_the_hosts() -> Result<()> {
    let decap = open()?;
    for (inner, outside) in pairs() {
        for gue in GUE_HEADERS {
            let packet = inner.packet(Transport::Tcp(TCP_SYN), 1883);
            let good = outer(outside, &packet, gue)?;
            let mut denied = good;
            denied.source = match outside {
                Family::V4 => "10.9.1.77".parse()?,
                Family::V6 => "fd00:9:0:1::77".parse()?,
            };
            let frame = denied.wrap(&packet, next_hop());
            untouched(&decap, &frame, Outcome::DeniedSource)?;
            let elsewhere = packet.clone().with(|packet| {
                packet.destination = match inner {
                    Family::V4 => Ipv4Addr::new(192, 0, 2, 99).into(),
                    Family::V6 => IpAddr::from([0x20; 16]),
                };
            });
            let frame = good.wrap(&elsewhere, next_hop());
            untouched(&decap, &frame, Outcome::NotOurs)?;
            if gue.is_some() {
                let mut other = good;
                other.gue = Some((50_000, GUE_PORT + 1));
                let frame = other.wrap(&packet, next_hop());
                untouched(&decap, &frame, Outcome::NotOurs)?;
            }
            // The packet without a tunnel.
            untouched(&decap, &packet.build(), Outcome::NotOurs)?;
        }
    }
    Ok(())
}

/// RFC 6040: marks of routers on the way reach the client's packet, with its checksum right.
#[test]
fn congestion_on_the_way_is_handed_on() -> Result<()> {
    let decap = open()?;
    for (inner, outside) in pairs() {
        for mark in 0..4 {
            let packet = inner.packet(Transport::Tcp(TCP_SYN), 1883);
            let packet = packet.with(|packet| packet.service_type = 0xb8 | mark);
            let mut outer = outer(outside, &packet, None)?;
            outer.traffic_class = 0xb8 | 3;
            let (outcome, _, out) = run(&decap, &outer.wrap(&packet, next_hop()))?;
            if mark == 0 {
                ensure!(outcome == Outcome::EcnDropped, "{outcome:?}");
                continue;
            }
            ensure!(outcome == Outcome::Decapsulated, "{outcome:?}");
            let marked = packet.with(|packet| packet.service_type = 0xb8 | 3);
            same(&out, &addressed(&marked))?;
        }
    }
    Ok(())
}

#[test]
fn frames_cut_short_are_never_unpacked() -> Result<()> {
    let decap = open()?;
    for (inner, outside) in pairs() {
        for gue in GUE_HEADERS {
            let packet = inner.packet(Transport::Tcp(TCP_SYN), 1883);
            let frame = outer(outside, &packet, gue)?.wrap(&packet, next_hop());
            for length in SHORTEST..frame.len() {
                untouched(&decap, &frame[..length], Outcome::NotOurs)?;
            }
        }
    }
    Ok(())
}

/// A packet that claims more than the outer one holds came from one who may send: nobody's but ours.
#[test]
fn damage_inside_is_dropped_if_the_sender_counts() -> Result<()> {
    let decap = open()?;
    for (inner, outside) in pairs() {
        for gue in GUE_HEADERS {
            let packet = inner.packet(Transport::Tcp(TCP_SYN), 1883);
            let good = outer(outside, &packet, gue)?;
            let mut frame = good.wrap(&packet, next_hop());
            let at = packet.network_offset() + good.overhead();
            // The length field of either family, in its high byte.
            frame[at + if inner == Family::V4 { 2 } else { 4 }] = 0x7f;
            let (outcome, _, _) = run(&decap, &frame)?;
            ensure!(outcome == Outcome::Malformed, "{outcome:?}");
        }
    }
    Ok(())
}

#[test]
fn no_damage_is_a_fault() -> Result<()> {
    let decap = open()?;
    // Marsaglia's xorshift: the same frames each time.
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    let mut random = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 16) as usize
    };
    for _frame in 0..5_000 {
        let pick = |number: usize| FAMILIES[number % 2];
        let packet = pick(random()).packet(Transport::Udp, 1883);
        let packet = packet.with(|packet| packet.tags = TAGS[..random() % 3].to_vec());
        let outer = outer(pick(random()), &packet, GUE_HEADERS[random() % 4])?;
        let mut frame = outer.wrap(&packet, next_hop());
        for _byte in 0..random() % 6 {
            let at = 12 + random() % (frame.len() - 12);
            frame[at] = random() as u8;
        }
        let cut = random() % 3 * (random() % 40);
        frame.truncate(frame.len().saturating_sub(cut).max(SHORTEST));
        run(&decap, &frame).with_context(|| format!("{frame:02x?}"))?;
    }
    Ok(())
}
