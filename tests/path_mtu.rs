//! A router that cannot forward a large packet of a backend's tells the VIP, and the backend hears.

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::num::NonZeroU32;

use anyhow::{Context, Result, ensure};
use lb_common::icmp;
use rustix::net::{AddressFamily, Protocol, SendFlags, SocketType, sendto, socket};
use tests::balancer::{BOTH, Lab, SOON, config};
use tests::icmp::Error;
use tests::packet::{Packet, Transport};
use xtask::lab::{Family, Host, wait_until};

const PORT: u16 = 5_000;
const CLIENT_PORT: u16 = 40_000;
const MTU: u32 = 1_400;

/// One service over UDP for each family, beside the usual one.
fn services() -> String {
    let mut text = config("maglev", "dsr", &BOTH);
    for (name, vip, network) in [
        ("four", "172.16.40.24", "172.16.40."),
        ("six", "fd00:40::24", "fd00:40::"),
    ] {
        text += &format!(
            "[[service]]\nname = \"{name}\"\nvip = \"{vip}\"\nport = {PORT}\nprotocol = \"udp\"\n\
             balance = \"maglev\"\nforward = \"dsr\"\n"
        );
        for (backend, last) in BOTH {
            text += &format!(
                "[[service.backend]]\nname = \"{backend}\"\naddress = \"{network}{last}\"\n"
            );
        }
    }
    text
}

/// The error that a router sends about what the VIP has sent to the client.
fn too_big(vip: IpAddr, client: IpAddr) -> Vec<u8> {
    let large = Packet::new(Transport::Udp, (vip, PORT), (client, CLIENT_PORT));
    let large = large.with(|packet| packet.payload = vec![0; 1_450]);
    let mut quote = large.build().split_off(large.network_offset());
    quote.truncate(128);
    let (kind, code) = match vip {
        IpAddr::V4(_) => (icmp::V4_UNREACHABLE, icmp::V4_TOO_BIG),
        IpAddr::V6(_) => (icmp::V6_TOO_BIG, 0),
    };
    let error = Error {
        kind,
        code,
        rest: MTU,
        quote,
    };
    error.packet(client, vip).payload
}

fn tell(host: &Host, vip: IpAddr, bytes: &[u8]) -> Result<()> {
    let (family, protocol) = match vip {
        IpAddr::V4(_) => (AddressFamily::INET, icmp::PROTOCOL_V4),
        IpAddr::V6(_) => (AddressFamily::INET6, icmp::PROTOCOL_V6),
    };
    host.netns().enter(|| {
        let protocol = NonZeroU32::new(protocol.into()).map(Protocol::from_raw);
        let raw = socket(family, SocketType::RAW, protocol)?;
        sendto(&raw, bytes, SendFlags::empty(), &SocketAddr::new(vip, 0))?;
        Ok(())
    })
}

/// Whether a host has learnt how large its packets to the client may be.
fn has_learnt(broker: &Host, client: IpAddr) -> Result<bool> {
    let route = broker.output("ip", &["route", "get", &client.to_string()])?;
    Ok(route.contains(&format!("mtu {MTU}")))
}

#[test]
fn a_backend_learns_the_path_mtu_of_its_client() -> Result<()> {
    let lab = Lab::serving(&services())?;
    for family in [Family::V4, Family::V6] {
        let (vip, client) = (family.vip(), lab.topology.client.address(family));
        let brokers = lab.topology.brokers();
        let sockets = brokers.map(|broker| {
            let bind = || UdpSocket::bind((vip, PORT)).context("no socket at the VIP");
            broker.netns().enter(bind)
        });
        for socket in &sockets {
            ensure!(socket.is_ok(), "{socket:?}");
        }
        let error = too_big(vip, client);
        let learnt = wait_until(SOON, "a backend that has learnt the path MTU", || {
            tell(&lab.topology.client, vip, &error).ok()?;
            let learnt = brokers.map(|broker| has_learnt(broker, client).unwrap_or(false));
            learnt.contains(&true).then_some(learnt)
        })?;
        // The other has no such flow.
        ensure!(learnt != [true, true], "both have learnt");
    }
    let verdicts = lab.status()?.verdicts;
    ensure!(verdicts["tx_icmp"] >= 2, "{verdicts:?}");
    Ok(())
}
