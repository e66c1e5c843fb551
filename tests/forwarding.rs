//! Two thousand MQTT clients through the VIP, in every way there is.
//!
//! The networks run the example configs that users copy: two brokers, a balancer that holds the
//! VIP, and a second one that has the same tables and waits.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use xtask::lab::{Binaries, Family, wait_until};
use xtask::load::Load;
use xtask::network::{Backend, Balance, Forward, Network, PORT, Shape};

const CLIENTS: u32 = 2_000;

/// Longest wait for clients to connect, on a slow and busy machine.
const CONNECT: Duration = Duration::from_secs(90);

/// Runs one way: everybody connects and stays, split as the balance promises.
fn serves_everybody(
    forward: Forward,
    balance: Balance,
    backend: Backend,
    family: Family,
) -> Result<()> {
    let shape = Shape {
        forward,
        balance,
        backend,
        family,
    };
    serves_everybody_in(&mut Network::new(shape, &Binaries::find()?)?)
}

/// The same in a network whose balancers are yet to start.
fn serves_everybody_in(network: &mut Network) -> Result<()> {
    network.start_tidegate()?;
    let vip = network.vip().to_string();
    let client = &network.topology().client;
    let program = network.programs().broker.clone();
    let arguments = ["-h", &vip, "-i", "1", "--hold", "10m"];
    let mut load = Load::start(client, &program, "clients", "conn", CLIENTS, &arguments)?;
    load.wait_ready(CONNECT)?;

    let split = connected(network)?;
    check_split(network.shape().balance, split)?;
    check_counters(network, split)?;
    check_far_ends(network)?;

    let summary = load.stop()?;
    ensure!(
        (summary.connected, summary.failed, summary.lost) == (u64::from(CLIENTS), 0, 0),
        "{summary:?}"
    );
    Ok(())
}

/// Clients at each broker, by the brokers' own kernels.
fn connected(network: &Network) -> Result<[usize; 2]> {
    let mut last = [0, 0];
    wait_until(CONNECT, "all clients being at the brokers", || {
        last = network.clients().ok()?;
        (last[0] + last[1] == CLIENTS as usize).then_some(())
    })
    .with_context(|| format!("{last:?}"))?;
    Ok(last)
}

fn check_split(balance: Balance, split: [usize; 2]) -> Result<()> {
    let half = CLIENTS as usize / 2;
    ensure!(
        split[0].abs_diff(half) <= balance.slack(CLIENTS),
        "{balance:?} split the clients {split:?}"
    );
    Ok(())
}

/// The balancer's counters tell the same story as the brokers' kernels.
fn check_counters(network: &Network, split: [usize; 2]) -> Result<()> {
    let status = network.status()?;
    let counted = status.backends.iter().map(|b| b.new_connections as usize);
    let counted: Vec<usize> = counted.collect();
    // A SYN that was sent again counts again where nothing is tracked.
    let shape = network.shape();
    let stateless = !shape.balance.records(shape.forward);
    let agree =
        |(counted, there): (&usize, &usize)| counted == there || (stateless && counted > there);
    ensure!(
        counted.iter().zip(&split).all(agree),
        "{counted:?} connections were counted, {split:?} are there"
    );
    let drops: Vec<_> = status
        .verdicts
        .iter()
        .filter(|(label, count)| label.starts_with("drop_") && **count > 0)
        .collect();
    ensure!(drops.is_empty(), "packets were dropped: {drops:?}");
    Ok(())
}

/// Who the brokers think they speak to: in `dsr` and `tunnel` the clients themselves, in `nat` the balancer.
fn check_far_ends(network: &Network) -> Result<()> {
    let family = network.shape().family;
    let topology = network.topology();
    let client = topology.client.address(family);
    // A health check may be by the other family.
    let balancers = [&topology.lb1, &topology.lb2]
        .map(|host| [Family::V4, Family::V6].map(|family| host.address(family)));
    let known: Vec<IpAddr> = balancers.into_iter().flatten().chain([client]).collect();
    let mut last = 0;
    let count = || -> Result<u32> {
        let mut from_client = 0;
        for broker in topology.brokers() {
            for far in broker.connections(PORT)? {
                ensure!(known.contains(&far.ip()), "a connection from {far}");
                from_client += u32::from(far.ip() == client);
            }
        }
        Ok(from_client)
    };
    let expected = match network.shape().forward {
        Forward::Dsr | Forward::Tunnel => CLIENTS,
        Forward::Nat => 0,
    };
    // One that moves in the kernel's table while it is read may be missed.
    wait_until(CONNECT, "the connections at the brokers", || {
        last = match count() {
            Ok(count) => count,
            Err(error) => return Some(Err(error)),
        };
        (last == expected).then_some(Ok(()))
    })
    .with_context(|| format!("the brokers see {last} connections from the client's address"))?
}

#[test]
fn dsr_maglev_ipv4() -> Result<()> {
    serves_everybody(Forward::Dsr, Balance::Maglev, Backend::Tidegate, Family::V4)
}

#[test]
fn dsr_maglev_ipv6() -> Result<()> {
    serves_everybody(Forward::Dsr, Balance::Maglev, Backend::Tidegate, Family::V6)
}

#[test]
fn dsr_round_robin_ipv4() -> Result<()> {
    serves_everybody(
        Forward::Dsr,
        Balance::RoundRobin,
        Backend::Tidegate,
        Family::V4,
    )
}

#[test]
fn dsr_least_conn_ipv4() -> Result<()> {
    serves_everybody(
        Forward::Dsr,
        Balance::LeastConn,
        Backend::Tidegate,
        Family::V4,
    )
}

#[test]
fn dsr_round_robin_ipv6() -> Result<()> {
    serves_everybody(
        Forward::Dsr,
        Balance::RoundRobin,
        Backend::Tidegate,
        Family::V6,
    )
}

#[test]
fn nat_maglev_ipv4() -> Result<()> {
    serves_everybody(Forward::Nat, Balance::Maglev, Backend::Tidegate, Family::V4)
}

#[test]
fn nat_maglev_ipv6() -> Result<()> {
    serves_everybody(Forward::Nat, Balance::Maglev, Backend::Tidegate, Family::V6)
}

#[test]
fn nat_round_robin_ipv4() -> Result<()> {
    serves_everybody(
        Forward::Nat,
        Balance::RoundRobin,
        Backend::Tidegate,
        Family::V4,
    )
}

#[test]
fn nat_round_robin_ipv6() -> Result<()> {
    serves_everybody(
        Forward::Nat,
        Balance::RoundRobin,
        Backend::Tidegate,
        Family::V6,
    )
}

/// Mosquitto as it comes: nothing about it knows of Tidegate.
#[test]
fn nat_maglev_ipv4_to_a_broker_of_another_make() -> Result<()> {
    serves_everybody(
        Forward::Nat,
        Balance::Maglev,
        Backend::Mosquitto,
        Family::V4,
    )
}

#[test]
fn nat_round_robin_ipv6_to_a_broker_of_another_make() -> Result<()> {
    serves_everybody(
        Forward::Nat,
        Balance::RoundRobin,
        Backend::Mosquitto,
        Family::V6,
    )
}

/// With the VIP on lo and ARP kept quiet, as any DSR balancer asks.
#[test]
fn dsr_round_robin_ipv4_to_a_broker_of_another_make() -> Result<()> {
    serves_everybody(
        Forward::Dsr,
        Balance::RoundRobin,
        Backend::Mosquitto,
        Family::V4,
    )
}

/// Through tunnels of a form, to the brokers' addresses of a family.
fn serves_everybody_tunnelled(form: &str, inner: Family, outer: Family) -> Result<()> {
    let shape = Shape {
        forward: Forward::Tunnel,
        balance: Balance::Maglev,
        backend: Backend::Tidegate,
        family: inner,
    };
    let mut network = Network::new(shape, &Binaries::find()?)?;
    network.edit_config(|config| {
        let config = config.set("service", "tunnel", &format!("{form:?}"));
        let (from, to) = match outer {
            Family::V4 => ("\"fd00:40::", "\"172.16.40."),
            Family::V6 => ("\"172.16.40.", "\"fd00:40::"),
        };
        ["20", "21"].into_iter().fold(config, |config, last| {
            config.replace(&format!("{from}{last}\""), &format!("{to}{last}\""))
        })
    });
    serves_everybody_in(&mut network)
}

/// Messages of many segments: what the broker asks of clients fits into the tunnel, so that nothing has
/// to be answered as too large.
#[test]
fn tunnel_carries_large_messages() -> Result<()> {
    let shape = Shape {
        forward: Forward::Tunnel,
        balance: Balance::Maglev,
        backend: Backend::Tidegate,
        family: Family::V6,
    };
    let mut network = Network::new(shape, &Binaries::find()?)?;
    network.start_tidegate()?;
    let vip = network.vip().to_string();
    let client = &network.topology().client;
    let program = network.programs().broker.clone();
    let arguments = [
        "-h",
        &vip,
        "-s",
        "60000",
        "-q",
        "1",
        "-L",
        "200",
        "-I",
        "0",
        "--wait-all",
    ];
    let load = Load::start(client, &program, "large", "pub", 10, &arguments)?;
    let summary = load.finish(CONNECT)?;
    ensure!(
        (summary.connected, summary.failed, summary.lost) == (10, 0, 0),
        "{summary:?}"
    );
    let status = network.status()?;
    let too_large = ["tx_too_big", "drop_too_big"].map(|label| status.verdicts.get(label));
    ensure!(
        too_large == [Some(&0); 2],
        "{too_large:?} packets were too large"
    );
    let packets: u64 = status.backends.iter().map(|backend| backend.packets).sum();
    ensure!(
        packets >= 200 * 60_000 / 1_500,
        "only {packets} packets passed"
    );
    Ok(())
}

#[test]
fn tunnel_ipv4_in_ipv4() -> Result<()> {
    serves_everybody_tunnelled("ipip", Family::V4, Family::V4)
}

#[test]
fn tunnel_ipv4_in_ipv6() -> Result<()> {
    serves_everybody_tunnelled("ipip", Family::V4, Family::V6)
}

#[test]
fn tunnel_ipv6_in_ipv4() -> Result<()> {
    serves_everybody_tunnelled("ipip", Family::V6, Family::V4)
}

#[test]
fn tunnel_ipv6_in_ipv6() -> Result<()> {
    serves_everybody_tunnelled("ipip", Family::V6, Family::V6)
}

#[test]
fn tunnel_ipv4_in_gue() -> Result<()> {
    serves_everybody_tunnelled("gue", Family::V4, Family::V6)
}

#[test]
fn tunnel_ipv6_in_gue() -> Result<()> {
    serves_everybody_tunnelled("gue", Family::V6, Family::V4)
}

/// Each broker has `tidegate decap` beside it, and the VIP on lo.
fn serves_everybody_unpacked(family: Family) -> Result<()> {
    let shape = Shape {
        forward: Forward::Tunnel,
        balance: Balance::RoundRobin,
        backend: Backend::Mosquitto,
        family,
    };
    let mut network = Network::new(shape, &Binaries::find()?)?;
    serves_everybody_in(&mut network)?;
    for text in network.end_unpackers()? {
        let counts: BTreeMap<String, u64> =
            serde_json::from_str(&text).with_context(|| format!("no counts: {text}"))?;
        // Half of the clients send three packets each at least.
        let unpacked = counts.get("decapsulated").copied().unwrap_or_default();
        ensure!(unpacked >= 3 * u64::from(CLIENTS) / 2, "{counts:?}");
    }
    for host in network.topology().brokers() {
        let link = host.output("ip", &["link", "show", "dev", "eth0"])?;
        ensure!(!link.contains("xdp"), "a program is left: {link}");
    }
    Ok(())
}

#[test]
fn tunnel_ipv4_to_a_broker_of_another_make() -> Result<()> {
    serves_everybody_unpacked(Family::V4)
}

#[test]
fn tunnel_ipv6_to_a_broker_of_another_make() -> Result<()> {
    serves_everybody_unpacked(Family::V6)
}
