//! Who asks for a VIP's link-layer address: the kernel answers, unless a virtual router has the VIP
//! and is not known to be Active.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv6Addr};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use lb_common::verdict::Verdict;
use lb_user::io::datapath::Leases;
use tests::{icmp::Error, packet::Packet, world::World};

use super::case::{Case, check};
use super::services::{DSR_MAGLEV, FAMILIES, Family, small_world};

pub(super) const VRID: u8 = 51;
pub(super) const REQUEST: u16 = 1;
pub(super) const REPLY: u16 = 2;
pub(super) const SOLICITATION: u8 = 135;
pub(super) const ADVERTISEMENT: u8 = 136;

/// As long as no test takes.
pub(super) const HOUR: Duration = Duration::from_secs(3_600);

pub(super) fn arp(operation: u16, sender: IpAddr, target: IpAddr) -> Result<Vec<u8>> {
    let (IpAddr::V4(sender), IpAddr::V4(target)) = (sender, target) else {
        bail!("ARP is for IPv4");
    };
    let (broadcast, client) = ([0xff; 6], [2, 0, 0, 0, 0, 1]);
    let mut frame = [broadcast, client].concat();
    frame.extend([0x08, 0x06, 0, 1, 0x08, 0, 6, 4]);
    frame.extend(operation.to_be_bytes());
    frame.extend([&client[..], &sender.octets()].concat());
    frame.extend([&[0; 6][..], &target.octets()].concat());
    Ok(frame)
}

/// An ICMPv6 message about `target` (RFC 4861, 4.3 and 4.4).
pub(super) fn icmp(
    kind: u8,
    sender: IpAddr,
    destination: IpAddr,
    target: IpAddr,
) -> Result<Packet> {
    let IpAddr::V6(target) = target else {
        bail!("ICMPv6 is for IPv6");
    };
    let message = Error {
        kind,
        code: 0,
        rest: 0,
        quote: target.octets().to_vec(),
    };
    Ok(message.packet(sender, destination))
}

/// As a neighbour asks that does not know the link-layer address yet (RFC 4861, 7.2.2).
fn to_the_group(sender: IpAddr, target: IpAddr) -> Result<Packet> {
    let IpAddr::V6(address) = target else {
        bail!("ICMPv6 is for IPv6");
    };
    let [.., a, b, c] = address.octets();
    // RFC 4291, 2.7.1; RFC 2464, 7.
    let [low, high] = [u16::from(a) | 0xff00, u16::from_be_bytes([b, c])];
    let group = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 1, low, high);
    let packet = icmp(SOLICITATION, sender, group.into(), target)?;
    Ok(packet.with(|packet| packet.destination_mac = [0x33, 0x33, 0xff, a, b, c]))
}

/// A question for `target` of each family.
pub(super) fn questions(target: impl Fn(Family) -> IpAddr, verdict: Verdict) -> Result<Vec<Case>> {
    let [v4, v6] = [Family::V4, Family::V6];
    let by_arp = arp(REQUEST, v4.client(), target(v4))?;
    let solicitation = icmp(SOLICITATION, v6.client(), target(v6), target(v6))?;
    let asked_of_all = to_the_group(v6.client(), target(v6))?;
    Ok(vec![
        Case::bytes("ARP", by_arp, verdict),
        Case::bytes("solicitation", solicitation.build(), verdict),
        Case::bytes("solicitation to the group", asked_of_all.build(), verdict),
    ])
}

fn open() -> Result<(World, Leases)> {
    let mut world = small_world(DSR_MAGLEV)?;
    let leases = world.datapath_mut().take_leases();
    Ok((world, leases.context("the leases were taken")?))
}

/// The VIPs of both families, until then.
pub(super) fn of_vips(until: Option<Instant>) -> BTreeMap<IpAddr, (u8, Option<Instant>)> {
    let vips = FAMILIES.into_iter().map(Family::vip);
    vips.map(|vip| (vip, (VRID, until))).collect()
}

#[test]
fn a_vip_of_no_router_is_the_hosts_to_answer_for() -> Result<()> {
    let (world, _leases) = open()?;
    check(&world, &questions(Family::vip, Verdict::PassNotOurs)?)
}

#[test]
fn an_active_router_is_answered_for_as_long_as_its_daemon_says_so() -> Result<()> {
    let (world, mut leases) = open()?;
    leases.follow(&of_vips(Some(Instant::now() + HOUR)))?;
    check(&world, &questions(Family::vip, Verdict::PassNotOurs)?)?;
    // Nobody has said anything since.
    leases.follow(&of_vips(Some(Instant::now())))?;
    std::thread::sleep(Duration::from_millis(1));
    check(&world, &questions(Family::vip, Verdict::DropNotActive)?)?;
    // Who answers for other addresses goes on.
    check(&world, &questions(Family::own, Verdict::PassNotOurs)?)
}

#[test]
fn a_router_that_is_not_active_is_not_answered_for() -> Result<()> {
    let (world, mut leases) = open()?;
    leases.follow(&of_vips(None))?;
    check(&world, &questions(Family::vip, Verdict::DropNotActive)?)?;
    leases.follow(&BTreeMap::new())?;
    check(&world, &questions(Family::vip, Verdict::PassNotOurs)?)
}

#[test]
fn what_is_no_question_reaches_the_host() -> Result<()> {
    let (world, mut leases) = open()?;
    leases.follow(&of_vips(None))?;
    let [v4, v6] = [Family::V4, Family::V6];
    let announced = arp(REQUEST, v4.vip(), v4.vip())?;
    let answered = arp(REPLY, v4.client(), v4.vip())?;
    let advertised = icmp(ADVERTISEMENT, v6.client(), v6.vip(), v6.vip())?;
    let mut short = arp(REQUEST, v4.client(), v4.vip())?;
    short.truncate(41);
    let pass = Verdict::PassNotOurs;
    check(
        &world,
        &[
            Case::bytes("gratuitous ARP", announced, pass),
            Case::bytes("ARP reply", answered, pass),
            Case::bytes("advertisement", advertised.build(), pass),
            Case::bytes("ARP that is cut short", short, pass),
        ],
    )
}

#[test]
fn the_next_process_finds_what_runs() -> Result<()> {
    let (_world, mut leases) = open()?;
    leases.follow(&of_vips(Some(Instant::now() + HOUR)))?;
    let mut running: Vec<_> = leases.running().map(|it| (it.vip, it.vrid)).collect();
    running.sort_unstable();
    assert_eq!(
        running,
        [Family::V4, Family::V6].map(|family| (family.vip(), VRID))
    );
    leases.follow(&of_vips(None))?;
    assert_eq!(leases.running().count(), 0);
    Ok(())
}
