//! Tunnels across a router: clients, balancers and brokers each in a segment of their own.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use xtask::lab::{Binaries, Family, Router, wait_until};
use xtask::load::Load;
use xtask::network::{Backend, Balance, Forward, Network, PORT, Shape};

/// Clients that stay, and clients that send large messages meanwhile.
const STAYING: u32 = 250;
const SENDING: u32 = 200;
const MESSAGES: u32 = 1_000;
const SIZE: u32 = 20_000;

/// The MTU of the brokers' segment where it is narrower than the balancers'.
const NARROW: u16 = 1_400;

/// Longest wait for clients, on a slow and busy machine.
const LONG: Duration = Duration::from_secs(90);

/// A network in segments, whose balancers are about to run.
fn network(form: &str, inner: Family, outer: Family) -> Result<(Network, Router)> {
    let shape = Shape {
        forward: Forward::Tunnel,
        balance: Balance::Maglev,
        backend: Backend::Tidegate,
        family: inner,
    };
    let mut network = Network::new(shape, &Binaries::find()?)?;
    let router = Router::between(network.topology())?;
    let addresses = network.topology().brokers().map(|host| {
        let flat = [Family::V4, Family::V6].map(|family| host.address(family));
        (flat, router.broker(host, outer))
    });
    network.edit_config(|config| {
        let config = config.set("service", "tunnel", &format!("{form:?}"));
        addresses.iter().fold(config, |config, (flat, address)| {
            flat.iter().fold(config, |config, flat| {
                config.replace(&format!("\"{flat}\""), &format!("\"{address}\""))
            })
        })
    });
    Ok((network, router))
}

fn serves_across_a_router(form: &str, inner: Family, outer: Family) -> Result<()> {
    let (mut network, router) = network(form, inner, outer)?;
    network.start_tidegate()?;
    let vip = network.vip().to_string();
    let client = &network.topology().client;
    let program = &network.programs().broker;
    let stay = ["-h", &vip, "-i", "1", "--hold", "10m"];
    let mut staying = Load::start(client, program, "staying", "conn", STAYING, &stay)?;
    staying.wait_ready(LONG)?;
    let mut last = [0, 0];
    wait_until(LONG, "all clients being at the brokers", || {
        last = network.clients().ok()?;
        (last[0] + last[1] == STAYING as usize).then_some(())
    })
    .with_context(|| format!("{last:?}"))?;
    ensure!(last[0] > 0 && last[1] > 0, "split {last:?}");
    for broker in network.topology().brokers() {
        for far in broker.connections(PORT)? {
            let balancers = [&network.topology().lb1, &network.topology().lb2];
            let is_check = balancers
                .iter()
                .any(|lb| far.ip() == lb.address(Family::V4) || far.ip() == lb.address(Family::V6));
            ensure!(
                is_check || far.ip() == router.client(client, inner),
                "a connection from {far}"
            );
        }
    }

    send_large_messages(&network)?;
    let summary = staying.stop()?;
    ensure!(
        (summary.connected, summary.failed, summary.lost) == (u64::from(STAYING), 0, 0),
        "{summary:?}"
    );

    let status = network.status()?;
    let refused = |label: &str| label.starts_with("drop_") || label == "tx_too_big";
    let refused: Vec<_> = status
        .verdicts
        .iter()
        .filter(|(label, count)| refused(label) && **count > 0)
        .collect();
    ensure!(refused.is_empty(), "not all was sent on: {refused:?}");
    let packets: u64 = status.backends.iter().map(|backend| backend.packets).sum();
    let least = u64::from(MESSAGES * (SIZE / 1_500));
    ensure!(packets >= least, "only {packets} packets passed");
    Ok(())
}

/// Has many clients send messages of many segments, all of which must be acknowledged.
fn send_large_messages(network: &Network) -> Result<()> {
    let vip = network.vip().to_string();
    let client = &network.topology().client;
    let program = &network.programs().broker;
    let (size, messages) = (SIZE.to_string(), MESSAGES.to_string());
    let send = [
        "-h",
        &vip,
        "-s",
        &size,
        "-q",
        "1",
        "-L",
        &messages,
        "-I",
        "0",
        "--wait-all",
    ];
    let sending = Load::start(client, program, "sending", "pub", SENDING, &send)?;
    let summary = sending.finish(LONG)?;
    ensure!(
        (summary.connected, summary.failed, summary.lost) == (u64::from(SENDING), 0, 0),
        "{summary:?}"
    );
    Ok(())
}

/// Brokers ask for segments that fit into the first hop, and the router drops what does not fit into
/// the second: only the balancer can tell clients.
#[test]
fn clients_learn_of_a_narrow_way_behind_the_router() -> Result<()> {
    for (inner, outer) in [(Family::V4, Family::V6), (Family::V6, Family::V4)] {
        let (mut network, router) = network("ipip", inner, outer)?;
        router.narrow(NARROW)?;
        network.edit_config(|config| config.set("tunnel", "mtu", &NARROW.to_string()));
        network.start_tidegate()?;
        send_large_messages(&network)?;
        let verdicts = network.status()?.verdicts;
        ensure!(verdicts["tx_too_big"] > 0, "{verdicts:?}");
    }
    Ok(())
}

#[test]
fn tunnel_ipv4_in_ipv4() -> Result<()> {
    serves_across_a_router("ipip", Family::V4, Family::V4)
}

#[test]
fn tunnel_ipv6_in_ipv6() -> Result<()> {
    serves_across_a_router("ipip", Family::V6, Family::V6)
}

#[test]
fn tunnel_ipv6_in_gue() -> Result<()> {
    serves_across_a_router("gue", Family::V6, Family::V4)
}

#[test]
fn tunnel_ipv4_in_gue() -> Result<()> {
    serves_across_a_router("gue", Family::V4, Family::V6)
}
