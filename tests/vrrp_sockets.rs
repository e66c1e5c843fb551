//! VRRP's sockets and announcements between two hosts on one link.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, UdpSocket};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use lb_user::core::vrrp::advert::{Envelope, GROUP_V4, GROUP_V6};
use lb_user::io::{
    link_layer::Announcer,
    vrrp::{Buffer, Endpoint, Reach, VrrpSocket},
};
use xtask::lab::{Family, Host, Topology, wait_until};

/// For what takes microseconds on a machine that has nothing else to do.
const SOON: Duration = Duration::from_secs(10);

/// A port where nobody listens.
const DISCARD: u16 = 9;

/// What the sockets carry is none of their business.
const ADVERT: &[u8] = b"an advert";

/// The kernel's own, once it is no longer tentative.
fn link_local(host: &Host) -> Result<IpAddr> {
    let found = wait_until(SOON, "a link-local address", || {
        let shown = [
            "-6", "-o", "address", "show", "dev", "eth0", "scope", "link",
        ];
        let shown = host.output("ip", &shown).ok()?;
        let is_usable = !shown.contains("tentative");
        let address = shown.split_whitespace().nth(3)?.split('/').next()?;
        is_usable.then(|| address.parse::<Ipv6Addr>().ok())?
    })?;
    Ok(found.into())
}

fn open(host: &Host, source: IpAddr, reach: Reach) -> Result<VrrpSocket> {
    let endpoint = Endpoint {
        interface: "eth0".to_owned(),
        index: host.index()?,
        source,
        reach,
    };
    host.netns().enter(|| Ok(VrrpSocket::open(&endpoint)?))
}

fn envelope(source: IpAddr, destination: IpAddr) -> Envelope {
    Envelope {
        source,
        destination,
        hops: 255,
    }
}

/// Waits for what came, and from where.
fn receive(socket: &VrrpSocket) -> Result<(Envelope, Vec<u8>)> {
    let mut buffer = Buffer::default();
    let received = wait_until(SOON, "an advert", || {
        let received = socket.receive(&mut buffer).ok()??;
        Some((received.envelope, received.payload.to_vec()))
    })?;
    Ok(received)
}

#[test]
fn adverts_to_the_group_arrive_with_the_hop_limit_that_tells_they_crossed_no_router() -> Result<()>
{
    let network = Topology::new()?;
    let (lb1, lb2) = (&network.lb1, &network.lb2);
    let v4 = [lb1, lb2].map(|host| Ok(host.address(Family::V4)));
    let v6 = [lb1, lb2].map(link_local);
    for ([one, two], group) in [(v4, IpAddr::V4(GROUP_V4)), (v6, IpAddr::V6(GROUP_V6))] {
        let (one, two) = (one?, two?);
        let sender = open(lb1, one, Reach::Multicast)?;
        let receiver = open(lb2, two, Reach::Multicast)?;
        sender.send(ADVERT, group)?;
        assert_eq!(receive(&receiver)?, (envelope(one, group), ADVERT.to_vec()));
        ensure!(
            sender.receive(&mut Buffer::default())?.is_none(),
            "what was sent to the group came back"
        );
    }
    Ok(())
}

#[test]
fn adverts_to_a_peer_arrive_without_the_group() -> Result<()> {
    let network = Topology::new()?;
    let (lb1, lb2) = (&network.lb1, &network.lb2);
    for family in [Family::V4, Family::V6] {
        let (one, two) = (lb1.address(family), lb2.address(family));
        let sender = open(lb1, one, Reach::Unicast)?;
        let receiver = open(lb2, two, Reach::Unicast)?;
        // What goes to the group is not for those who have not joined: only the second arrives.
        let group = match family {
            Family::V4 => IpAddr::V4(GROUP_V4),
            Family::V6 => IpAddr::V6(GROUP_V6),
        };
        sender.send(b"for the group", group)?;
        sender.send(ADVERT, two)?;
        assert_eq!(receive(&receiver)?, (envelope(one, two), ADVERT.to_vec()));
    }
    Ok(())
}

#[test]
fn a_source_that_the_host_does_not_have_is_told_with_the_interface() -> Result<()> {
    let network = Topology::new()?;
    let stranger = "172.16.40.99".parse()?;
    let Err(error) = open(&network.lb1, stranger, Reach::Multicast) else {
        anyhow::bail!("a socket is bound to a stranger's address");
    };
    let text = format!("{error:#}");
    ensure!(
        text.contains("send for VRRP on eth0 from 172.16.40.99"),
        "{text}"
    );
    Ok(())
}

#[test]
fn neighbours_follow_an_announcement_to_another_host() -> Result<()> {
    let network = Topology::new()?;
    let (client, lb1, lb2) = (&network.client, &network.lb1, &network.lb2);
    for family in [Family::V4, Family::V6] {
        let vip = family.vip();
        let prefix = if vip.is_ipv4() { 24 } else { 64 };
        lb1.add_address(vip, prefix, "eth0")?;
        let any: IpAddr = match vip {
            IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
            IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
        };
        let text = vip.to_string();
        let known_mac = || -> Result<String> {
            let json = client.output("ip", &["-json", "neigh", "show", "to", &text])?;
            let entries: serde_json::Value = serde_json::from_str(&json)?;
            Ok(entries[0]["lladdr"].as_str().unwrap_or_default().to_owned())
        };
        let first = lb1.mac()?;
        wait_until(SOON, "the client having met lb1", || {
            // Whatever is sent makes the client ask for the address.
            let ask = || Ok(UdpSocket::bind((any, 0))?.send_to(&[0], (vip, DISCARD))?);
            client.netns().enter(ask).ok()?;
            (known_mac().ok()? == first).then_some(())
        })?;
        let mac = lb2.mac()?;
        let bytes: Vec<u8> = mac
            .split(':')
            .map(|byte| u8::from_str_radix(byte, 16))
            .collect::<Result<_, _>>()?;
        let bytes: [u8; 6] = bytes.try_into().ok().context("no MAC address")?;
        let index = lb2.index()?;
        let announcer = lb2
            .netns()
            .enter(|| Ok(Announcer::open("eth0", index, bytes)?))?;
        wait_until(SOON, "the client looking to lb2", || {
            announcer.announce(vip, None).ok()?;
            (known_mac().ok()? == mac).then_some(())
        })?;
    }
    Ok(())
}
