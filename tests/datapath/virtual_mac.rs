//! Addresses at a virtual MAC address: the program answers who asks for them, as long as the lease runs,
//! and takes the frames that are sent there.

use std::net::{IpAddr, Ipv6Addr};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use lb_common::{
    abi::VirtualMac,
    checksum::{add, fold},
    parse::TCP_SYN,
    verdict::Verdict,
};
use lb_user::{
    core::vrrp::{
        frame::{NodeKind, announcing},
        node::Macs,
    },
    io::datapath::Leases,
};
use tests::{
    icmp::Error,
    packet::{Packet, Transport},
    world::World,
};

use super::case::{Case, check};
use super::neighbours::{
    ADVERTISEMENT, HOUR, REPLY, REQUEST, SOLICITATION, VRID, arp, icmp, of_vips, questions,
};
use super::services::{DSR_MAGLEV, FAMILIES, Family, desired_of};

const MACS: [fn(u8) -> VirtualMac; 2] = [VirtualMac::v4, VirtualMac::v6];
/// Types of requests and replies.
const ECHO: [[u8; 2]; 2] = [[8, 0], [128, 129]];

/// The virtual MAC addresses of both families' router, which is Active or not.
fn macs(is_active: bool) -> Macs {
    let vips = FAMILIES.into_iter().map(|family| (family.vip(), VRID));
    let both = [VirtualMac::v4(VRID), VirtualMac::v6(VRID)];
    Macs {
        vips: vips.collect(),
        here: both.map(|mac| (mac, is_active)).into(),
    }
}

/// A router of both families: its addresses until then, and its virtual MAC addresses.
fn open(until: Option<Instant>, is_active: bool) -> Result<(World, Leases)> {
    let mut world = World::new(desired_of(&[DSR_MAGLEV]))?;
    let leases = world.datapath_mut().take_leases();
    let mut leases = leases.context("the leases were taken")?;
    leases.use_macs(&macs(is_active))?;
    leases.follow(&of_vips(until))?;
    Ok((world, leases))
}

/// A solicitation for the VIP, with the link-layer address of who asks or without.
fn solicitation(sender: IpAddr, option: &[u8]) -> Result<Vec<u8>> {
    let IpAddr::V6(target) = Family::V6.vip() else {
        bail!("no address of IPv6");
    };
    let message = Error {
        kind: SOLICITATION,
        code: 0,
        rest: 0,
        quote: [&target.octets()[..], option].concat(),
    };
    let packet = message.packet(sender, target.into());
    Ok(packet.with(|packet| packet.ttl = 255).build())
}

/// Nobody has said anything of the addresses for as long as the lease was.
fn expire(leases: &mut Leases) -> Result<()> {
    leases.follow(&of_vips(Some(Instant::now())))?;
    std::thread::sleep(Duration::from_millis(1));
    Ok(())
}

#[test]
fn who_asks_by_arp_for_an_active_router_is_told_its_virtual_mac() -> Result<()> {
    let (world, mut leases) = open(Some(Instant::now() + HOUR), true)?;
    let (client, vip) = (Family::V4.client(), Family::V4.vip());
    let (IpAddr::V4(asker), IpAddr::V4(target)) = (client, vip) else {
        bail!("ARP is for IPv4");
    };
    let question = arp(REQUEST, client, vip)?;
    let outcome = world.run(&question)?;
    ensure!(outcome.verdict == Verdict::TxNeighbour, "{outcome:?}");
    let (to, mac) = ([2, 0, 0, 0, 0, 1], VirtualMac::v4(VRID).octets());
    let mut expected = [to, mac].concat();
    expected.extend([0x08, 0x06, 0, 1, 0x08, 0, 6, 4, 0, 2]);
    expected.extend([&mac[..], &target.octets(), &to, &asker.octets()].concat());
    assert_eq!(outcome.answer.frame, expected);

    let mut odd = question.clone();
    odd[15] = 6;
    let announced = arp(REQUEST, vip, vip)?;
    check(
        &world,
        &[
            Case::bytes("ARP of other hardware", odd, Verdict::DropMalformed),
            Case::bytes("gratuitous ARP", announced, Verdict::PassNotOurs),
        ],
    )?;
    check(&world, &questions(Family::own, Verdict::PassNotOurs)?)?;
    // With the lease ends the answer, whatever becomes of the daemon.
    expire(&mut leases)?;
    check(
        &world,
        &[Case::bytes("ARP", question, Verdict::DropNotActive)],
    )
}

#[test]
fn who_solicits_an_active_router_is_told_its_virtual_mac() -> Result<()> {
    let (world, _leases) = open(Some(Instant::now() + HOUR), true)?;
    let (client, vip) = (Family::V6.client(), Family::V6.vip());
    let mac = VirtualMac::v6(VRID).octets();
    let option = [1, 1, 2, 0, 0, 0, 0, 1];
    // All nodes are told what an announcement tells them.
    let outcome = world.run(&solicitation(Ipv6Addr::UNSPECIFIED.into(), &option)?)?;
    ensure!(outcome.verdict == Verdict::TxNeighbour, "{outcome:?}");
    assert_eq!(outcome.answer.frame, announcing(vip, mac, NodeKind::Host));

    let question = solicitation(client, &option)?;
    let out = world.run(&question)?.answer.frame;
    ensure!(out.len() == question.len());
    ensure!(out[..6] == question[6..12] && out[6..12] == mac, "{out:?}");
    let (IpAddr::V6(client), IpAddr::V6(target)) = (client, vip) else {
        bail!("no addresses of IPv6");
    };
    ensure!(out[18..22] == [0, 32, 58, 255], "{out:?}");
    ensure!(out[22..38] == target.octets() && out[38..54] == client.octets());
    ensure!(out[54] == ADVERTISEMENT && out[58] == 0x60, "{out:?}");
    let pseudo = add(32 + 58, &out[22..54]);
    ensure!(fold(add(pseudo, &out[54..])) == 0xffff, "{out:?}");

    // Without an option there is no room for one.
    let out = world.run(&solicitation(client.into(), &[])?)?.answer.frame;
    ensure!(out[18..22] == [0, 24, 58, 255], "{out:?}");
    let pseudo = add(24 + 58, &out[22..54]);
    ensure!(fold(add(pseudo, &out[54..])) == 0xffff, "{out:?}");

    // What may come from behind a router is no question.
    let forged = icmp(SOLICITATION, client.into(), vip, vip)?.build();
    let verdict = Verdict::DropMalformed;
    check(&world, &[Case::bytes("through a router", forged, verdict)])
}

#[test]
fn a_router_that_is_not_active_answers_nobody_and_takes_no_frame() -> Result<()> {
    let (world, _leases) = open(None, false)?;
    check(&world, &questions(Family::vip, Verdict::DropNotActive)?)?;
    check(&world, &sent_to_the_macs(Verdict::PassNotOurs))
}

#[test]
fn frames_to_a_virtual_mac_are_for_who_is_active() -> Result<()> {
    let (world, mut leases) = open(Some(Instant::now() + HOUR), true)?;
    check(&world, &sent_to_the_macs(Verdict::TxDsr))?;
    // The kernel gets what is none of a service's, as if it had been sent to the interface.
    for (family, mac) in FAMILIES.into_iter().zip(MACS) {
        let packet = |mac| {
            let ends = ((family.client(), 40_000), (family.own(), 9));
            let packet = Packet::new(Transport::Udp, ends.0, ends.1);
            packet.with(|packet| packet.destination_mac = mac).build()
        };
        let outcome = world.run(&packet(mac(VRID).octets()))?;
        ensure!(outcome.verdict == Verdict::PassNotOurs, "{outcome:?}");
        assert_eq!(outcome.answer.frame, packet(Packet::TO_US));
        // One of nobody's here may be another program's.
        let foreign = packet(mac(VRID + 1).octets());
        let outcome = world.run(&foreign)?;
        assert_eq!(outcome.answer.frame, foreign);
    }
    // A router that is no more leaves nothing to take.
    leases.use_macs(&Macs::default())?;
    check(&world, &sent_to_the_macs(Verdict::PassNotOurs))
}

/// A SYN for the service of each family, to its virtual MAC address.
fn sent_to_the_macs(verdict: Verdict) -> Vec<Case> {
    let cases = FAMILIES.into_iter().zip(MACS).map(|(family, mac)| {
        let syn = Packet::new(
            Transport::Tcp(TCP_SYN),
            (family.client(), 40_000),
            (family.vip(), DSR_MAGLEV),
        );
        let syn = syn.with(|packet| packet.destination_mac = mac(VRID).octets());
        if verdict == Verdict::PassNotOurs {
            Case::bytes("SYN", syn.build(), verdict)
        } else {
            Case::packet("SYN", &syn, verdict)
        }
    });
    cases.collect()
}

/// A ping of the address of each family's router, which comes by its virtual MAC address.
fn pings(destination: impl Fn(Family) -> IpAddr) -> [Packet; 2] {
    [0, 1].map(|at| {
        let family = [Family::V4, Family::V6][at];
        let message = Error {
            kind: ECHO[at][0],
            code: 0,
            rest: 0x0102_0304,
            quote: b"whatever is asked".to_vec(),
        };
        let packet = message.packet(family.client(), destination(family));
        packet.with(|packet| packet.destination_mac = MACS[at](VRID).octets())
    })
}

#[test]
fn who_pings_an_active_router_is_answered() -> Result<()> {
    let (world, mut leases) = open(Some(Instant::now() + HOUR), true)?;
    for (at, ping) in pings(Family::vip).into_iter().enumerate() {
        let tagged = ping.clone().with(|packet| packet.tags = vec![[0x8100, 7]]);
        for ping in [ping, tagged] {
            let outcome = world.send(&ping)?;
            ensure!(outcome.verdict == Verdict::TxEcho, "{outcome:?}");
            let reply = Error {
                kind: ECHO[at][1],
                code: 0,
                rest: 0x0102_0304,
                quote: b"whatever is asked".to_vec(),
            };
            let reply = reply.packet(ping.destination, ping.source);
            let reply = reply.with(|packet| {
                packet.tags.clone_from(&ping.tags);
                packet.destination_mac = ping.source_mac;
                packet.source_mac = MACS[at](VRID).octets();
                packet.ttl = 64;
            });
            assert_eq!(outcome.answer.frame, reply.build());
        }
    }
    let passed = |packet: Packet| -> Result<()> {
        let outcome = world.send(&packet)?;
        ensure!(outcome.verdict == Verdict::PassNotOurs, "{outcome:?}");
        let here = packet.with(|packet| packet.destination_mac = Packet::TO_US);
        ensure!(outcome.answer.frame == here.build(), "{outcome:?}");
        Ok(())
    };
    // What the kernel knows better: its own addresses, pieces, options, and who is nobody to answer.
    for ping in pings(Family::own) {
        passed(ping)?;
    }
    let [v4, v6] = pings(Family::vip);
    for fragment in [0x2000, 0x0010] {
        let piece = v4.clone().with(|packet| packet.fragment = fragment).build();
        let outcome = world.run(&piece)?;
        ensure!(outcome.verdict != Verdict::TxEcho, "{piece:?}: {outcome:?}");
    }
    passed(v4.clone().with(|packet| packet.options = vec![1; 4]))?;
    for (ping, nobody) in [(v4, "0.0.0.0"), (v6, "ff02::1")] {
        passed(ping.with(|packet| packet.source = nobody.parse().unwrap_or(packet.source)))?;
    }
    // Without a lease it is not known whose the address is.
    expire(&mut leases)?;
    for ping in pings(Family::vip) {
        passed(ping)?;
    }
    Ok(())
}

#[test]
fn frames_are_taken_without_a_daemon_until_a_peer_has_the_address() -> Result<()> {
    let (world, mut leases) = open(Some(Instant::now() + HOUR), true)?;
    let [v4, v6] = [Family::V4, Family::V6];
    let by_all = |kind, about: Family| -> Result<Packet> {
        let packet = icmp(kind, v6.client(), v6.vip(), about.vip())?;
        Ok(packet.with(|packet| {
            packet.ttl = 255;
            packet.destination_mac = [0x33, 0x33, 0, 0, 0, 1];
        }))
    };
    let announced = [
        Case::bytes(
            "ARP",
            arp(REQUEST, v4.vip(), v4.vip())?,
            Verdict::PassNotOurs,
        ),
        Case::bytes(
            "NA",
            by_all(ADVERTISEMENT, v6)?.build(),
            Verdict::PassNotOurs,
        ),
    ];
    // While the lease runs it is the daemon's to say who has the address.
    check(&world, &announced)?;
    check(&world, &sent_to_the_macs(Verdict::TxDsr))?;
    expire(&mut leases)?;
    let through_a_router = by_all(ADVERTISEMENT, v6)?.with(|packet| packet.ttl = 254);
    let of_others = [
        Case::bytes("NA", through_a_router.build(), Verdict::PassNotOurs),
        Case::bytes(
            "ARP",
            arp(REPLY, v4.client(), v4.vip())?,
            Verdict::PassNotOurs,
        ),
        Case::bytes(
            "ARP",
            arp(REQUEST, v4.own(), v4.own())?,
            Verdict::PassNotOurs,
        ),
    ];
    check(&world, &of_others)?;
    check(&world, &sent_to_the_macs(Verdict::TxDsr))?;
    check(&world, &announced)?;
    check(&world, &sent_to_the_macs(Verdict::PassNotOurs))?;
    // A daemon that was held up takes the role back.
    leases.use_macs(&macs(true))?;
    check(&world, &sent_to_the_macs(Verdict::TxDsr))
}

#[test]
fn the_next_process_knows_the_virtual_macs_that_were_here() -> Result<()> {
    let (_world, mut leases) = open(Some(Instant::now() + HOUR), true)?;
    let known: Vec<_> = leases.macs().collect();
    assert_eq!(known, MACS.map(|mac| (mac(VRID), true)));
    leases.use_macs(&Macs::default())?;
    let known: Vec<_> = leases.macs().collect();
    assert_eq!(known, MACS.map(|mac| (mac(VRID), false)));
    assert_eq!(leases.running().count(), 2);
    Ok(())
}
