//! Access lists: the longest prefix decides, for every packet of the service.

use std::{collections::BTreeMap, net::IpAddr, sync::Arc};

use anyhow::{Context, Result, ensure};
use lb_common::{
    abi::{Access, Features, PROTOCOL_TCP},
    parse::{TCP_ACK, TCP_SYN},
    verdict::Verdict,
};
use lb_user::config::model::{AccessList, Prefix};
use tests::{
    packet::{Packet, Transport},
    world::World,
};

use super::services::{
    DSR_MAGLEV, FAMILIES, Family, KINDS, NAT_MAGLEV, NAT_ROUND_ROBIN, desired_of, new_port,
    small_world,
};

const SYN: Transport = Transport::Tcp(TCP_SYN);
const ACK: Transport = Transport::Tcp(TCP_ACK);

use Access::{Allow, Deny};

fn prefix(text: &str) -> Result<Prefix> {
    let (address, length) = text.split_once('/').context("no length")?;
    Prefix::new(address.parse()?, length.parse()?).with_context(|| text.to_owned())
}

fn list(entries: &[(&str, Access)], denies_by_default: bool) -> Result<AccessList> {
    let entries = entries
        .iter()
        .map(|(text, access)| Ok((prefix(text)?, *access)))
        .collect::<Result<BTreeMap<_, _>>>()?;
    Ok(AccessList::new(entries, denies_by_default))
}

/// A world whose services all have this list.
fn guarded(services: &[u16], list: &AccessList) -> Result<World> {
    let mut world = World::new(desired_of(services))?;
    change(&mut world, list)?;
    Ok(world)
}

fn change(world: &mut World, list: &AccessList) -> Result<()> {
    let list = Arc::new(list.clone());
    world.change(|desired| {
        for service in &mut desired.services {
            service.features = Features {
                access_list: !list.entries().is_empty(),
                default_deny: list.denies_by_default(),
                ..Features::default()
            };
            service.access = Arc::clone(&list);
        }
    })
}

fn from(client: &str, family: Family, transport: Transport, service: u16) -> Result<Packet> {
    let client: IpAddr = client.parse()?;
    let vip = (family.vip(), service);
    Ok(Packet::new(transport, (client, new_port()), vip))
}

/// Whether a client's packet gets through.
fn passes(world: &World, packet: &Packet) -> Result<bool> {
    let verdict = world.send(packet)?.verdict;
    let passes = matches!(verdict, Verdict::TxDsr | Verdict::TxNat);
    ensure!(passes || verdict == Verdict::DropDenied, "{verdict:?}");
    Ok(passes)
}

fn check(world: &World, service: u16, family: Family, clients: &[(&str, bool)]) -> Result<()> {
    for (client, expected) in clients {
        for transport in [SYN, Transport::Udp] {
            let packet = from(client, family, transport, service)?;
            let passes = passes(world, &packet)?;
            ensure!(passes == *expected, "{client} {transport:?} at {service}");
        }
    }
    Ok(())
}

const V4: &[(&str, Access)] = &[
    ("10.0.0.0/8", Deny),
    ("10.1.0.0/16", Allow),
    ("10.1.2.0/24", Deny),
    ("10.1.2.3/32", Allow),
];
const V6: &[(&str, Access)] = &[
    ("2001:db8::/32", Deny),
    ("2001:db8:1::/48", Allow),
    ("2001:db8:1:2::/64", Deny),
    ("2001:db8:1:2::3/128", Allow),
];

#[test]
fn the_longest_prefix_decides_in_every_kind_of_service() -> Result<()> {
    let both = list(&[V4, V6].concat(), false)?;
    let world = guarded(&KINDS, &both)?;
    for service in KINDS {
        let v4 = [
            ("9.255.255.255", true),
            ("10.0.0.0", false),
            ("10.1.0.0", true),
            ("10.1.2.2", false),
            ("10.1.2.3", true),
            ("10.1.2.4", false),
            ("10.1.3.0", true),
            ("10.255.255.255", false),
            ("11.0.0.0", true),
        ];
        check(&world, service, Family::V4, &v4)?;
        let v6 = [
            ("2001:db7::1", true),
            ("2001:db8::1", false),
            ("2001:db8:1::1", true),
            ("2001:db8:1:2::2", false),
            ("2001:db8:1:2::3", true),
            ("2001:db9::1", true),
        ];
        check(&world, service, Family::V6, &v6)?;
    }
    Ok(())
}

#[test]
fn a_list_that_denies_by_default_takes_only_whom_it_names() -> Result<()> {
    let named = list(&[("10.1.0.0/16", Allow), ("2001:db8::/32", Allow)], true)?;
    let world = guarded(&KINDS, &named)?;
    for service in KINDS {
        check(
            &world,
            service,
            Family::V4,
            &[("10.1.9.9", true), ("10.2.0.0", false)],
        )?;
        check(
            &world,
            service,
            Family::V6,
            &[("2001:db8::9", true), ("2001:db9::", false)],
        )?;
    }
    let nobody = list(&[], true)?;
    let world = guarded(&[DSR_MAGLEV], &nobody)?;
    check(&world, DSR_MAGLEV, Family::V4, &[("10.1.9.9", false)])
}

#[test]
fn zero_bits_are_everybody_of_a_family() -> Result<()> {
    let v6_only = list(&[("0.0.0.0/0", Deny), ("::/0", Allow)], true)?;
    let world = guarded(&[DSR_MAGLEV], &v6_only)?;
    check(&world, DSR_MAGLEV, Family::V4, &[("192.0.2.1", false)])?;
    check(&world, DSR_MAGLEV, Family::V6, &[("2001:db8::1", true)])
}

#[test]
fn a_deny_cuts_a_session_and_its_end_gives_it_back() -> Result<()> {
    for service in [DSR_MAGLEV, NAT_MAGLEV, NAT_ROUND_ROBIN] {
        for family in FAMILIES {
            let mut world = World::new(desired_of(&[service]))?;
            let syn = family.packet(SYN, service);
            let data = syn.clone().with(|packet| packet.transport = ACK);
            ensure!(passes(&world, &syn)? && passes(&world, &data)?);
            let whole = if family == Family::V4 { 32 } else { 128 };
            let client = Prefix::new(family.client(), whole).context("the client")?;
            let denied = AccessList::new([(client, Deny)].into(), false);
            change(&mut world, &denied)?;
            ensure!(
                !passes(&world, &data)?,
                "{service}: a denied session goes on"
            );
            change(&mut world, &AccessList::default())?;
            ensure!(passes(&world, &data)?, "{service}: the session is lost");
        }
    }
    Ok(())
}

#[test]
fn another_service_is_not_concerned() -> Result<()> {
    let mut world = World::new(desired_of(&[DSR_MAGLEV, NAT_MAGLEV]))?;
    let everybody = Arc::new(list(&[("0.0.0.0/0", Deny)], false)?);
    world.change(|desired| {
        let service = desired.services.iter_mut().find(|service| {
            service.key.port() == DSR_MAGLEV && service.key.protocol() == PROTOCOL_TCP
        });
        if let Some(service) = service {
            service.features.access_list = true;
            service.access = Arc::clone(&everybody);
        }
    })?;
    let packet = |transport, service| Family::V4.packet(transport, service);
    ensure!(!passes(&world, &packet(SYN, DSR_MAGLEV))?);
    ensure!(passes(&world, &packet(Transport::Udp, DSR_MAGLEV))?);
    ensure!(passes(&world, &packet(SYN, NAT_MAGLEV))?);
    Ok(())
}

#[test]
fn what_is_denied_is_counted_for_the_service() -> Result<()> {
    let world = guarded(&[DSR_MAGLEV], &list(&[("10.0.0.0/8", Deny)], false)?)?;
    let packet = from("10.1.1.1", Family::V4, SYN, DSR_MAGLEV)?;
    for _packet in 0..3 {
        ensure!(!passes(&world, &packet)?);
    }
    let id = world
        .service(packet.destination, DSR_MAGLEV, PROTOCOL_TCP)?
        .id;
    ensure!(world.datapath().guard_counts(id)?.denied == 3);
    ensure!(world.datapath().service_traffic(id)?.dropped == 3);
    Ok(())
}

/// As many as a list of known attackers has.
#[test]
fn a_hundred_thousand_prefixes_are_told_apart() -> Result<()> {
    const COUNT: u32 = 100_000;
    // Every second /24 of 64.0.0.0/7 and on.
    let network = |n: u32| 0x4000_0000_u32 + (n << 9);
    let entries = (0..COUNT).map(|n| {
        let address = IpAddr::from(network(n).to_be_bytes());
        Some((Prefix::new(address, 24)?, Deny))
    });
    let entries: Option<BTreeMap<_, _>> = entries.collect();
    let large = AccessList::new(entries.context("a prefix")?, false);
    let mut world = small_world(DSR_MAGLEV)?;
    change(&mut world, &large)?;
    let reaches = |world: &World, client: u32| {
        let client = IpAddr::from(client.to_be_bytes()).to_string();
        passes(world, &from(&client, Family::V4, SYN, DSR_MAGLEV)?)
    };
    for n in (0..COUNT).step_by(97) {
        let (inside, outside) = (network(n) + n % 256, network(n) + 256 + n % 256);
        ensure!(
            !reaches(&world, inside)? && reaches(&world, outside)?,
            "{n}"
        );
    }
    // One entry more is one step; the list goes as it came.
    let mut more = large.entries().clone();
    more.insert(prefix("10.0.0.0/8")?, Deny);
    change(&mut world, &AccessList::new(more, false))?;
    ensure!(!reaches(&world, 0x0a00_0001)? && !reaches(&world, network(7))?);
    change(&mut world, &AccessList::default())?;
    ensure!(reaches(&world, 0x0a00_0001)? && reaches(&world, network(7))?);
    Ok(())
}
