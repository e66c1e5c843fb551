//! What a packet costs: `datapath-bench`, run by `cargo xtask bench datapath`.
//!
//! In a network namespace of its own: a generator program writes fresh frames and redirects them into
//! a veth pair, the program under test runs at the far end and sends them back, a sink counts them.
//! All of it happens on one CPU, so elapsed time divided by frames is the cost of the whole
//! pipeline. The floor is the same pipeline with a program that only swaps the MAC addresses. Both are
//! there at once and measured in turn, so that a machine that is slow for a while is so for both: the
//! ratio is the median of those of the pairs.
//!
//! `datapath-bench [--json] [--mode NAME]...` measures every mode, or those that are named.

#[path = "datapath/kernel.rs"]
mod kernel;
#[path = "datapath/lane.rs"]
mod lane;
#[path = "datapath/mode.rs"]
mod mode;

use std::time::Instant;

use anyhow::Context as _;
use lb_common::parse::TCP_ACK;
use serde::Serialize;

use crate::{lane::Lane, mode::Mode};

/// Numbers of flows to measure with: a cache line, a first-level cache, beyond it, beyond all.
const FLOWS: [u32; 4] = [1, 1_000, 100_000, 1_000_000];
/// Frames of one measurement: a quarter of a second or so, many of the kernel's clock ticks.
const FRAMES: u32 = 600_000;
/// Tries until a measurement loses next to nothing. A busy machine puts off the receiving half, and
/// the veth's ring runs over.
const TRIES: u32 = 20;
/// Pairs of measurements.
const ROUNDS: usize = 9;

#[derive(Serialize)]
struct Figure {
    mode: &'static str,
    flows: u32,
    /// The least of all rounds, as others can only slow a run down.
    nanoseconds: f64,
    floor_nanoseconds: f64,
    /// The median of all rounds.
    ratio: f64,
}

fn main() -> anyhow::Result<()> {
    let (json, modes) = arguments()?;
    kernel::enter_new_network_namespace().context("a network namespace of its own (root only)")?;
    kernel::stay_on_one_cpu()?;
    let mut figures = Vec::new();
    for mode in modes {
        for flows in FLOWS {
            eprintln!("datapath: {}, {flows} flows", mode.name);
            figures.push(measure(&mode, flows)?);
        }
    }
    if json {
        println!("{}", serde_json::to_string(&figures)?);
        return Ok(());
    }
    println!(
        "{:<24} {:>9} {:>10} {:>10} {:>7}",
        "mode", "flows", "ns/packet", "floor", "ratio"
    );
    for Figure {
        mode,
        flows,
        nanoseconds,
        floor_nanoseconds,
        ratio,
    } in figures
    {
        println!(
            "{mode:<24} {flows:>9} {nanoseconds:>10.1} {floor_nanoseconds:>10.1} {ratio:>7.2}"
        );
    }
    Ok(())
}

/// Whether to print JSON, and what to measure.
fn arguments() -> anyhow::Result<(bool, Vec<Mode>)> {
    let mut json = false;
    let mut names = Vec::new();
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "--json" => json = true,
            "--mode" => names.push(arguments.next().context("--mode takes a name")?),
            other => anyhow::bail!("{other} is neither --json nor --mode"),
        }
    }
    Ok((json, Mode::of_names(&names)?))
}

fn measure(mode: &Mode, flows: u32) -> anyhow::Result<Figure> {
    let mut floor = Lane::with_floor()?;
    let mut service = Lane::with_service(mode, flows)?;
    if mode.is_tracked() {
        service.establish(flows)?;
    }
    let mut rounds = [(0.0, 0.0); ROUNDS];
    for (floor_cost, cost) in &mut rounds {
        *floor_cost = run(&mut floor, flows, TCP_ACK)?;
        *cost = run(&mut service, flows, TCP_ACK)?;
    }
    let mut ratios = rounds.map(|(floor, cost)| cost / floor);
    ratios.sort_by(f64::total_cmp);
    let least = |costs: [f64; ROUNDS]| costs.into_iter().fold(f64::INFINITY, f64::min);
    Ok(Figure {
        mode: mode.name,
        flows,
        nanoseconds: least(rounds.map(|(_, cost)| cost)),
        floor_nanoseconds: least(rounds.map(|(floor, _)| floor)),
        ratio: ratios[ROUNDS / 2],
    })
}

/// Nanoseconds for a frame on its way from generator to sink.
fn run(lane: &mut Lane, flows: u32, flags: u8) -> anyhow::Result<f64> {
    lane.send(flows, FRAMES / 10, flags, 0)?;
    for _try in 0..TRIES {
        let start = Instant::now();
        let arrived = lane.send(flows, FRAMES, flags, 0)?;
        let elapsed = start.elapsed();
        if arrived * 100 >= u64::from(FRAMES) * 99 {
            return Ok(elapsed.as_secs_f64() * 1e9 / arrived as f64);
        }
    }
    anyhow::bail!("frames were lost in each of {TRIES} tries: the machine is too busy to measure")
}
