//! Challenges to the senders of SYNs, and what a client answers.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use lb_common::{
    abi::{Features, PROTOCOL_TCP, Tick},
    challenge::Key,
    parse::{TCP_ACK, TCP_FIN, TCP_RST, TCP_SYN},
    verdict::Verdict,
};
use lb_user::core::plan::Desired;
use tests::{
    packet::{DESTINATION_OPTIONS, Packet, Transport},
    world::{SEED, World},
};

use super::{
    case::same,
    services::{
        DSR_MAGLEV, FAMILIES, Family, KINDS, NAT_MAGLEV, NAT_ROUND_ROBIN, desired_of, new_port,
    },
};

const SYN: Transport = Transport::Tcp(TCP_SYN);
const ACK: Transport = Transport::Tcp(TCP_ACK);
const RST: Transport = Transport::Tcp(TCP_RST);

/// A SYN as clients send it, from an address that no other test uses.
fn syn(family: Family, service: u16) -> Packet {
    let [high, low] = new_port().to_be_bytes();
    let client = match family {
        Family::V4 => [10, 77, high, low].into(),
        Family::V6 => [0x2001, 0xdb8, 77, new_port(), 0, 0, 0, 1].into(),
    };
    let vip = (family.vip(), service);
    Packet::new(SYN, (client, 40_000), vip).with(|packet| {
        packet.payload = Vec::new();
        packet.sequence = 0x1234_5678;
        packet.acknowledged = 0;
        // Maximum segment size, SACK permitted, time stamps, window scale.
        packet.tcp_options = vec![
            2, 4, 5, 0xb4, 4, 2, 8, 10, 1, 2, 3, 4, 0, 0, 0, 0, 1, 3, 3, 7,
        ];
    })
}

fn set_challenge(desired: &mut Desired, challenge: bool) {
    for service in &mut desired.services {
        service.features = Features {
            challenge,
            ..service.features
        };
    }
}

fn challenging(services: &[u16]) -> Result<World> {
    let mut world = World::new(desired_of(services))?;
    world.change(|desired| set_challenge(desired, true))?;
    Ok(world)
}

/// The SYN-ACK that answers a SYN, but for the number it acknowledges.
fn syn_ack(syn: &Packet, acknowledged: u32) -> Packet {
    let source = (syn.destination, syn.destination_port);
    syn.between(source, (syn.source, syn.source_port))
        .with(|packet| {
            (packet.source_mac, packet.destination_mac) = (syn.destination_mac, syn.source_mac);
            packet.transport = Transport::Tcp(TCP_SYN | TCP_ACK);
            packet.ttl = 64;
            packet.sequence = 0;
            packet.acknowledged = acknowledged;
            packet.window = 0xffff;
            packet.padding = [&syn.tcp_options[..], &syn.payload, &syn.padding].concat();
            packet.tcp_options = Vec::new();
            packet.payload = Vec::new();
        })
}

/// Sends a SYN that must be challenged; gives the number that the challenge acknowledges.
fn challenged(world: &World, syn: &Packet) -> Result<u32> {
    let out = world.send(syn)?;
    ensure!(out.verdict == Verdict::TxChallenge, "{:?}", out.verdict);
    let at = syn.transport_offset() + 8;
    let number = out
        .answer
        .frame
        .get(at..)
        .and_then(|rest| rest.first_chunk());
    let number = u32::from_be_bytes(*number.context("too short for TCP")?);
    same(&out.answer.frame, &syn_ack(syn, number).build())?;
    Ok(number)
}

/// What a client in SYN-SENT answers an acknowledgement out of place (RFC 9293, 3.10.7.3).
fn reset(syn: &Packet, sequence: u32) -> Packet {
    syn.clone().with(|packet| {
        packet.transport = RST;
        packet.sequence = sequence;
        packet.tcp_options = Vec::new();
    })
}

fn passes(world: &World, packet: &Packet) -> Result<bool> {
    let verdict = world.send(packet)?.verdict;
    Ok(matches!(verdict, Verdict::TxDsr | Verdict::TxNat))
}

#[test]
fn who_answers_may_connect() -> Result<()> {
    let world = challenging(&KINDS)?;
    for service in KINDS {
        for family in FAMILIES {
            let syn = syn(family, service);
            let number = challenged(&world, &syn)?;
            // Not the number that the client waits for: it would take the connection for open.
            ensure!(number.wrapping_sub(syn.sequence) > 1 << 20);
            ensure!(
                challenged(&world, &syn).is_ok(),
                "the SYN alone opened the door"
            );
            let answer = world.send(&reset(&syn, number))?.verdict;
            ensure!(answer == Verdict::DropChallengeAnswered, "{answer:?}");
            ensure!(passes(&world, &syn)?, "{family:?} {service}");
            let ack = syn.clone().with(|packet| packet.transport = ACK);
            ensure!(passes(&world, &ack)?);
            let another = syn.clone().with(|packet| packet.source_port += 1);
            ensure!(passes(&world, &another)?, "others behind the same address");
        }
    }
    Ok(())
}

#[test]
fn a_challenge_keeps_tags_and_headers_and_adds_nothing() -> Result<()> {
    let world = challenging(&[DSR_MAGLEV])?;
    let tagged = syn(Family::V4, DSR_MAGLEV).with(|packet| packet.tags = vec![[0x8100, 42]]);
    challenged(&world, &tagged)?;
    let twice =
        syn(Family::V6, DSR_MAGLEV).with(|packet| packet.tags = vec![[0x88a8, 7], [0x8100, 42]]);
    challenged(&world, &twice)?;
    let options = syn(Family::V4, DSR_MAGLEV).with(|packet| packet.options = vec![1; 8]);
    challenged(&world, &options)?;
    let extended = syn(Family::V6, DSR_MAGLEV).with(|packet| {
        packet.extensions = vec![(DESTINATION_OPTIONS, vec![0, 0, 1, 4, 0, 0, 0, 0])]
    });
    challenged(&world, &extended)?;
    let short = syn(Family::V4, DSR_MAGLEV).with(|packet| {
        packet.tcp_options = Vec::new();
        packet.padding = vec![0; 6];
    });
    challenged(&world, &short)?;
    let with_data = syn(Family::V4, DSR_MAGLEV).with(|packet| packet.payload = vec![0x10; 300]);
    challenged(&world, &with_data)?;
    Ok(())
}

#[test]
fn wrong_answers_open_nothing_and_are_forwarded() -> Result<()> {
    let world = challenging(&[DSR_MAGLEV])?;
    for family in FAMILIES {
        let syn = syn(family, DSR_MAGLEV);
        let number = challenged(&world, &syn)?;
        let elsewhere = reset(&syn, number).with(|packet| packet.source_port += 1);
        for wrong in [
            reset(&syn, number.wrapping_add(1)),
            reset(&syn, number ^ 1 << 17),
            reset(&syn, 0),
            elsewhere,
        ] {
            ensure!(
                passes(&world, &wrong)?,
                "a session's RST must reach its backend"
            );
        }
        challenged(&world, &syn)?;
        // Somebody else cannot answer for it, nor with it.
        let other = self::syn(family, DSR_MAGLEV);
        ensure!(passes(&world, &reset(&other, number))?);
        challenged(&world, &other)?;
    }
    Ok(())
}

/// Whoever could start a flow without an answer would not be challenged.
#[test]
fn a_syn_that_resets_gets_past_no_challenge() -> Result<()> {
    for service in KINDS {
        let mut world = challenging(&[service])?;
        for flags in [TCP_SYN | TCP_RST, TCP_SYN | TCP_FIN, TCP_FIN, 0] {
            let forged = syn(Family::V4, service).with(|packet| {
                packet.transport = Transport::Tcp(flags);
            });
            world.send(&forged)?;
            ensure!(world.datapath().flow(&forged.flow())?.is_none());
        }
        let round = world.walk(Duration::MAX)?;
        ensure!((round.counts.half_open, round.counts.tracked) == (0, 0));
    }
    Ok(())
}

/// A challenge goes to one host (RFC 1122, 3.2.2).
#[test]
fn a_syn_that_came_to_many_or_from_many_is_not_answered() -> Result<()> {
    let world = challenging(&[DSR_MAGLEV])?;
    let to_many = syn(Family::V4, DSR_MAGLEV).with(|packet| packet.destination_mac = [0xff; 6]);
    let from_many = syn(Family::V4, DSR_MAGLEV).with(|p| p.source = [224, 0, 0, 1].into());
    for packet in [to_many, from_many] {
        let verdict = world.send(&packet)?.verdict;
        ensure!(verdict == Verdict::DropMalformed, "{verdict:?}");
    }
    Ok(())
}

#[test]
fn an_old_answer_is_none() -> Result<()> {
    let world = challenging(&[DSR_MAGLEV])?;
    let syn = syn(Family::V4, DSR_MAGLEV);
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    let seconds = u64::try_from(now.tv_sec)?;
    let number = |ago: u64| {
        let tick = Tick::from_nanos(seconds.saturating_sub(ago) * 1_000_000_000);
        Key::from_seed(SEED).challenge(&syn.flow(), syn.sequence, tick)
    };
    // Under 1000 s after the start of the host the clock has no such past.
    if seconds > 1_000 {
        ensure!(passes(&world, &reset(&syn, number(900)))?);
        challenged(&world, &syn)?;
    }
    let answer = world.send(&reset(&syn, number(1)))?.verdict;
    ensure!(answer == Verdict::DropChallengeAnswered, "{answer:?}");
    Ok(())
}

#[test]
fn sessions_are_never_challenged() -> Result<()> {
    for service in [DSR_MAGLEV, NAT_MAGLEV, NAT_ROUND_ROBIN] {
        let mut world = World::new(desired_of(&[service]))?;
        let syn = syn(Family::V4, service);
        ensure!(passes(&world, &syn)?);
        world.change(|desired| set_challenge(desired, true))?;
        for transport in [ACK, Transport::Tcp(TCP_RST | TCP_ACK)] {
            let packet = syn.clone().with(|packet| packet.transport = transport);
            ensure!(passes(&world, &packet)?, "{service} {transport:?}");
        }
        let udp = Family::V4.packet(Transport::Udp, service);
        ensure!(passes(&world, &udp)?);
        world.change(|desired| set_challenge(desired, false))?;
        ensure!(passes(&world, &self::syn(Family::V4, service))?);
    }
    Ok(())
}

#[test]
fn forged_syns_use_up_no_rate_and_count_as_challenged() -> Result<()> {
    use lb_common::abi::{Rate, Rates};
    let mut world = challenging(&[DSR_MAGLEV])?;
    world.change(|desired| {
        for service in &mut desired.services {
            service.features.rates = true;
            service.rates = Rates {
                service: Rate::new(1, 1),
                source: Rate::NONE,
            };
        }
    })?;
    for _syn in 0..20 {
        challenged(&world, &syn(Family::V4, DSR_MAGLEV))?;
    }
    let syn = syn(Family::V4, DSR_MAGLEV);
    let number = challenged(&world, &syn)?;
    world.send(&reset(&syn, number))?;
    ensure!(passes(&world, &syn)?);
    let id = world.service(syn.destination, DSR_MAGLEV, PROTOCOL_TCP)?.id;
    let counts = world.datapath().guard_counts(id)?;
    ensure!(
        (counts.challenged, counts.answered) == (21, 1),
        "{counts:?}"
    );
    let dropped = world.datapath().service_traffic(id)?.dropped;
    ensure!(dropped == 0, "{dropped} dropped");
    Ok(())
}
