//! Fills a table of flows: `fill`, run by `cargo xtask bench sync` on the balancer's host.
//!
//! `fill PIN FLOWS` makes as many flows like one that is there, from clients in 10.0.0.0/8, in the table
//! of established flows that is pinned at `PIN`.

use anyhow::{Context as _, bail};
use aya::maps::{HashMap, Map, MapData};
use lb_common::abi::{Flow, FlowKey, Ip};

/// Flows of one client.
const PORTS: u32 = 50_000;

fn main() -> anyhow::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [pin, flows] = &arguments[..] else {
        bail!("usage: fill PIN FLOWS");
    };
    let flows: u32 = flows.parse()?;
    let map = Map::from_map_data(MapData::from_pin(pin)?)?;
    let mut table: HashMap<MapData, FlowKey, Flow> = map.try_into()?;
    let (like, flow) = table.iter().next().context("there is no flow")??;
    if flow.is_translated() {
        bail!("flows that are translated have another table as well");
    }
    for number in 0..flows {
        let [_, high, middle, low] = (number / PORTS).to_be_bytes();
        let port = 1_024 + u16::try_from(number % PORTS)?;
        let service = like.service();
        let key = FlowKey::new(
            Ip::from_v4([10, high, middle, low]),
            like.destination(),
            port,
            service.port(),
            service.protocol(),
        );
        table.insert(key, flow, 0)?;
    }
    Ok(())
}
