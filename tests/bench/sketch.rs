//! The least that a balancer can do, for `cargo xtask bench path`: `sketch INTERFACE VIP MAC MAC` sends
//! the MQTT flows of the VIP to the two hosts until it is killed.

use std::net::Ipv4Addr;

use anyhow::Context as _;
use aya::maps::Array;
use tests::generator::{attach, load, parse_mac};

fn main() -> anyhow::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [interface, vip, hops @ ..] = &arguments[..] else {
        anyhow::bail!("usage: sketch INTERFACE VIP MAC MAC");
    };
    anyhow::ensure!(hops.len() == 2, "sketch spreads over two hosts");
    let vip: Ipv4Addr = vip.parse()?;
    let mut programs = load()?;
    let map = programs.map_mut("VIP").context("no VIP")?;
    Array::<_, [u8; 4]>::try_from(map)?.set(0, vip.octets(), 0)?;
    let map = programs.map_mut("HOPS").context("no HOPS")?;
    let mut map = Array::<_, [u8; 6]>::try_from(map)?;
    for (index, hop) in (0..).zip(hops) {
        map.set(index, parse_mac(hop)?, 0)?;
    }
    attach(&mut programs, "sketch", interface)?;
    println!("ready");
    loop {
        std::thread::park();
    }
}
