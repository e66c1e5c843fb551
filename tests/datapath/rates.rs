//! Rates of new connections: token buckets, one for the service and one for each source.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use lb_common::{
    abi::{Features, PROTOCOL_TCP, Rate, Rates},
    parse::{TCP_ACK, TCP_FIN, TCP_RST, TCP_SYN},
    verdict::{Action, Verdict},
};
use tests::{
    packet::{Packet, Transport},
    prog_run::{self, LOOPBACK},
    world::World,
};

use super::services::{
    DSR_MAGLEV, DSR_ROUND_ROBIN, FAMILIES, Family, KINDS, NAT_MAGLEV, desired_of, new_port,
};

const SYN: Transport = Transport::Tcp(TCP_SYN);
const ACK: Transport = Transport::Tcp(TCP_ACK);

/// One a second is what buckets fill at here.
const BURST: u32 = 5;

fn of_service() -> Rates {
    Rates {
        service: Rate::new(1, BURST),
        source: Rate::NONE,
    }
}

fn of_source() -> Rates {
    Rates {
        service: Rate::NONE,
        source: Rate::new(1, BURST),
    }
}

fn limited(services: &[u16], rates: Rates) -> Result<World> {
    let mut world = World::new(desired_of(services))?;
    world.change(|desired| {
        for service in &mut desired.services {
            service.features = Features {
                rates: true,
                ..Features::default()
            };
            service.rates = rates;
        }
    })?;
    Ok(world)
}

/// Sends new flows, of which as many as a bucket holds get through, and those that it filled by
/// meanwhile.
fn a_burst_gets_through(world: &World, refusal: Verdict, flow: impl Fn() -> Packet) -> Result<()> {
    let start = Instant::now();
    let mut through = 0;
    for _flow in 0..40 {
        let verdict = world.send(&flow())?.verdict;
        let passes = matches!(verdict, Verdict::TxDsr | Verdict::TxNat);
        ensure!(passes || verdict == refusal, "{verdict:?}");
        through += u64::from(passes);
    }
    let most = u64::from(BURST) + start.elapsed().as_secs() + 1;
    ensure!(
        (u64::from(BURST)..=most).contains(&through),
        "{through} got through"
    );
    Ok(())
}

#[test]
fn a_source_gets_its_burst_and_others_get_theirs() -> Result<()> {
    let world = limited(&KINDS, of_source())?;
    for service in KINDS {
        for last in 1..3_u8 {
            let packet = || {
                let client = ([10, 0, 0, last].into(), new_port());
                Packet::new(SYN, client, (Family::V4.vip(), service))
            };
            a_burst_gets_through(&world, Verdict::DropSourceRate, packet)?;
        }
    }
    Ok(())
}

#[test]
fn all_of_a_v6_network_is_one_source() -> Result<()> {
    let world = limited(&[DSR_MAGLEV], of_source())?;
    for network in [1_u16, 2] {
        let packet = || {
            let client = [0x2001, 0xdb8, 0, network, 0, 0, 0, new_port()].into();
            let client = (std::net::IpAddr::V6(client), 40_000);
            Packet::new(SYN, client, (Family::V6.vip(), DSR_MAGLEV))
        };
        a_burst_gets_through(&world, Verdict::DropSourceRate, packet)?;
    }
    Ok(())
}

#[test]
fn a_service_takes_its_burst_from_whomever() -> Result<()> {
    let world = limited(&KINDS, of_service())?;
    for service in KINDS {
        let packet = || {
            let [high, low] = new_port().to_be_bytes();
            let client = ([10, 1, high, low].into(), 40_000);
            Packet::new(SYN, client, (Family::V4.vip(), service))
        };
        a_burst_gets_through(&world, Verdict::DropServiceRate, packet)?;
    }
    Ok(())
}

/// Each connection is taken from the bucket once, whichever CPU its packet comes to.
#[test]
fn packets_on_several_cpus_share_one_bucket() -> Result<()> {
    const EACH: usize = 5_000;
    let world = limited(&[DSR_MAGLEV], of_service())?;
    let program = world.datapath().program_fd()?;
    let frame = Family::V4.packet(SYN, DSR_MAGLEV).build();
    let start = Instant::now();
    let through: usize = std::thread::scope(|scope| {
        let send = || {
            let answers = (0..EACH).map(|_| prog_run::run(program, &frame, LOOPBACK));
            answers
                .filter(|answer| {
                    let answer = answer.as_ref();
                    answer.is_ok_and(|answer| answer.action == Action::Transmit)
                })
                .count()
        };
        let threads = [scope.spawn(send), scope.spawn(send)];
        threads
            .into_iter()
            .map(|thread| thread.join().unwrap_or_default())
            .sum()
    });
    let most = BURST as usize + start.elapsed().as_secs() as usize + 1;
    ensure!(
        (BURST as usize..=most).contains(&through),
        "{through} got through"
    );
    Ok(())
}

#[test]
fn a_session_is_not_limited() -> Result<()> {
    let both = Rates {
        source: of_source().source,
        ..of_service()
    };
    let world = limited(&KINDS, both)?;
    for service in KINDS {
        let syn = Family::V4.packet(SYN, service);
        let first = world.send(&syn)?.verdict;
        ensure!(
            matches!(first, Verdict::TxDsr | Verdict::TxNat),
            "{first:?}"
        );
        let data = syn.with(|packet| packet.transport = ACK);
        for _packet in 0..50 {
            ensure!(world.send(&data)?.verdict == first);
        }
    }
    Ok(())
}

/// What is no start of a flow takes no share, and starts none (RFC 9293, 3.10.7.2).
#[test]
fn a_syn_that_resets_or_finishes_starts_nothing() -> Result<()> {
    for (flags, becomes) in [
        (TCP_SYN | TCP_RST, Verdict::TxDsr),
        (TCP_SYN | TCP_ACK, Verdict::TxDsr),
        // Of these a listener tells nobody that they belong to nothing.
        (TCP_SYN | TCP_FIN, Verdict::DropMalformed),
        (TCP_FIN, Verdict::DropMalformed),
        (0, Verdict::DropMalformed),
    ] {
        let mut world = limited(&[DSR_ROUND_ROBIN], of_source())?;
        for _packet in 0..3 * BURST {
            let packet = Family::V4.packet(Transport::Tcp(flags), DSR_ROUND_ROBIN);
            ensure!(world.send(&packet)?.verdict == becomes);
            ensure!(world.datapath().flow(&packet.flow())?.is_none());
        }
        let counts = world.sweep(Duration::MAX)?;
        ensure!((counts.half_open, counts.tracked) == (0, 0), "{counts:?}");
        ensure!(syns(&world)? == 0);
        let flow = || Family::V4.packet(SYN, DSR_ROUND_ROBIN);
        a_burst_gets_through(&world, Verdict::DropSourceRate, flow)?;
    }
    Ok(())
}

fn syns(world: &World) -> Result<u64> {
    let mut services = world.image().services.values();
    let service = services.next().context("there is a service")?;
    Ok(world.datapath().guard_counts(service.id)?.syns)
}

/// A flood shows by this number, so nothing may be missing in it.
#[test]
fn every_syn_counts_whatever_becomes_of_it() -> Result<()> {
    for service in KINDS {
        let mut world = World::new(desired_of(&[service]))?;
        let syn = Family::V4.packet(SYN, service);
        // One flow, over and over.
        for number in 1..=5 {
            world.send(&syn)?;
            ensure!(syns(&world)? == number, "{service}");
        }
        world.send(&syn.clone().with(|packet| packet.transport = ACK))?;
        ensure!(syns(&world)? == 5);
        // In pieces, with no hop left, challenged, refused, and with nobody to go to.
        world.send(&syn.clone().with(|packet| packet.ttl = 1))?;
        world.change(|desired| desired.services[0].features.challenge = true)?;
        let verdict = world.send(&syn)?.verdict;
        ensure!(verdict == Verdict::TxChallenge, "{verdict:?}");
        world.change(|desired| desired.services[0].backends.clear())?;
        world.change(|desired| desired.services[0].features.challenge = false)?;
        let verdict = world.send(&syn)?.verdict;
        ensure!(verdict == Verdict::DropNoBackend, "{verdict:?}");
        ensure!(syns(&world)? == 8, "{service}");
    }
    Ok(())
}

#[test]
fn a_syn_that_is_sent_again_counts_again() -> Result<()> {
    let world = limited(&[DSR_ROUND_ROBIN], of_source())?;
    let syn = Family::V4.packet(SYN, DSR_ROUND_ROBIN);
    a_burst_gets_through(&world, Verdict::DropSourceRate, || syn.clone())
}

#[test]
fn new_flows_of_udp_are_limited_where_flows_are_recorded() -> Result<()> {
    let world = limited(&[DSR_ROUND_ROBIN, NAT_MAGLEV, DSR_MAGLEV], of_source())?;
    for family in FAMILIES {
        for service in [DSR_ROUND_ROBIN, NAT_MAGLEV] {
            let known = family.packet(Transport::Udp, service);
            let through = world.send(&known)?.verdict;
            for _packet in 0..50 {
                ensure!(world.send(&known)?.verdict == through);
            }
        }
        for _packet in 0..50 {
            let packet = family.packet(Transport::Udp, DSR_MAGLEV);
            ensure!(world.send(&packet)?.verdict == Verdict::TxDsr);
        }
    }
    let packet = || {
        let client = ([10, 0, 0, 1].into(), new_port());
        Packet::new(Transport::Udp, client, (Family::V4.vip(), NAT_MAGLEV))
    };
    a_burst_gets_through(&world, Verdict::DropSourceRate, packet)
}

#[test]
fn what_is_limited_is_counted_for_the_service() -> Result<()> {
    let world = limited(&[DSR_MAGLEV], of_source())?;
    let syn = Family::V4.packet(SYN, DSR_MAGLEV);
    let mut refused = 0;
    for _syn in 0..20 {
        refused += u64::from(world.send(&syn)?.verdict == Verdict::DropSourceRate);
    }
    let id = world.service(syn.destination, DSR_MAGLEV, PROTOCOL_TCP)?.id;
    let counts = world.datapath().guard_counts(id)?;
    ensure!(refused > 0 && (counts.source_limited, counts.service_limited) == (refused, 0));
    Ok(())
}
