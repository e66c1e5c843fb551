//! A flood of SYNs from random sources: `flood`, run by `cargo xtask bench flood` on the client host.
//!
//! `flood INTERFACE MAC VIP FRAMES BATCH PAUSE_US` sends frames to the MAC address, a batch at a time, and
//! prints how many it has made. The sources are random in 10.0.0.0/8; the checksums are right, so that
//! hosts answer.

use std::{
    net::Ipv4Addr,
    os::fd::AsFd as _,
    time::{Duration, Instant},
};

use anyhow::Context as _;
use aya::maps::{Array, PerCpuArray};
use lb_common::{
    checksum::{add, fold},
    generator::Order,
    parse::TCP_SYN,
};
use tests::{
    generator::{head, index, load, mac, parse_mac, program},
    prog_run::{self, LOOPBACK},
};

/// MQTT.
const PORT: u16 = 1883;

/// Ethernet, IPv4 and TCP without options, up to a length that every veth takes.
const LENGTH: usize = 64;

fn main() -> anyhow::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [interface, destination, vip, frames, batch, pause] = &arguments[..] else {
        anyhow::bail!("usage: flood INTERFACE MAC VIP FRAMES BATCH PAUSE_US");
    };
    let order = order(interface, destination, vip.parse()?)?;
    let (frames, batch): (u32, u32) = (frames.parse()?, batch.parse()?);
    let pause = Duration::from_micros(pause.parse()?);

    let mut programs = load()?;
    program(&mut programs, "flood")?.load()?;
    let orders = programs.take_map("ORDER").context("no ORDER")?;
    Array::try_from(orders)?.set(0, order, 0)?;
    let made = programs.take_map("MADE").context("no MADE")?;
    let made = PerCpuArray::<_, u64>::try_from(made)?;
    let flood = program(&mut programs, "flood")?;
    let flood = flood.fd()?.as_fd().try_clone_to_owned()?;

    let start = Instant::now();
    let mut left = frames;
    while left > 0 {
        let now = left.min(batch);
        prog_run::run_live(flood.as_fd(), LOOPBACK, LENGTH, now)?;
        left -= now;
        // The ring of a veth is short, and others' packets have to go through it, too.
        std::thread::sleep(pause);
    }
    let sent: u64 = made.get(&0, 0)?.iter().sum();
    let seconds = start.elapsed().as_secs_f64();
    println!(
        "{}",
        serde_json::json!({ "sent": sent, "seconds": seconds })
    );
    Ok(())
}

/// What the generator is told: frames whose checksums are right for the lowest source.
fn order(interface: &str, destination: &str, vip: Ipv4Addr) -> anyhow::Result<Order> {
    let vip = vip.octets();
    let mut head = head(parse_mac(destination)?, mac(interface)?);
    let addresses = add(add(0, &Order::FIRST_SOURCE), &vip);
    let header = !fold(add(addresses, &head[14..]));
    head[24..26].copy_from_slice(&header.to_be_bytes());
    // The pseudo-header's protocol and length, then the ports and the words that are not zero.
    let tcp = add(addresses, &[0, 6, 0, 20]);
    let tcp = add(add(tcp, &Order::FIRST_PORT), &PORT.to_be_bytes());
    let tcp = !fold(add(tcp, &[5 << 4, TCP_SYN]));
    let order = Order::new(index(interface)?, u32::MAX, head, vip, TCP_SYN);
    Ok(order.with_checksum(tcp.to_be_bytes()))
}
