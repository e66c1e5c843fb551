//! Nodes of a cluster beside one node alone: the same clients, in one run, one after the other.
//! Publishers are on the first node, subscribers of messages that cross on the others.

use std::ops::Range;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::json;

use crate::lab::{Binaries, interrupted};
use crate::load::Load;

use super::super::figures::{self, Figures, Outcome};
use super::nodes::{FILTERS_OF_ONE, Nodes};
use super::pairs::{Pairs, finish};

/// For clients to be up.
const READY: Duration = Duration::from_secs(120);

/// How much to measure.
#[derive(Clone, Debug, clap::Args)]
#[group(id = "scale")]
pub(super) struct Args {
    /// Nodes of each cluster, separated by commas; one is what the others are compared with.
    #[arg(long, value_delimiter = ',', default_value = "1,2,3", value_parser = clap::value_parser!(u8).range(1..=8))]
    nodes: Vec<u8>,
    /// Senders, each with a receiver of its own.
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=5_000))]
    pairs: u32,
    /// Of a hundred pairs, those whose receiver is on another node than its sender.
    #[arg(long, value_name = "PERCENT", default_value_t = 100, value_parser = clap::value_parser!(u32).range(0..=100))]
    cross: u32,
    /// Messages a second of all senders in the latency test.
    #[arg(long, value_name = "N", default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(1..=10_000_000))]
    rate: u32,
    /// Filters of the first node when the second one joins; in hundreds.
    #[arg(long, value_name = "N", default_value_t = 100_000, value_parser = clap::value_parser!(u32).range(FILTERS_OF_ONE as i64..=10_000_000))]
    filters: u32,
    /// Length of each message test.
    #[arg(long, value_name = "SECONDS", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=86_400))]
    seconds: u32,
    /// How often everything is measured, in turn; the median counts, of ratios that of the rounds'.
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
    /// One line of JSON.
    #[arg(long)]
    json: bool,
}

/// Measures and prints.
pub(super) fn run(args: &Args, programs: &Binaries) -> Result<()> {
    let mut rounds: Vec<Vec<Figures>> = vec![Vec::new(); args.nodes.len()];
    for round in 1..=args.rounds {
        for (figures, count) in rounds.iter_mut().zip(&args.nodes) {
            eprintln!("round {round} of {}: {}", args.rounds, name_of(*count));
            figures.push(measure(args, *count, programs)?);
        }
    }
    let outcomes = outcomes(&args.nodes, &rounds);
    if args.json {
        let line = json!({
            "pairs": args.pairs,
            "cross": args.cross,
            "rate": args.rate,
            "filters": args.filters,
            "seconds": args.seconds,
            "rounds": args.rounds,
            "clusters": figures::json(&outcomes, "to_one_node"),
        });
        println!("{line}");
    } else {
        figures::print_table(&outcomes, "(x: one node)");
    }
    Ok(())
}

fn name_of(count: u8) -> String {
    let nodes = if count == 1 { "node" } else { "nodes" };
    format!("{count} {nodes}")
}

fn outcomes(counts: &[u8], rounds: &[Vec<Figures>]) -> Vec<Outcome> {
    let one = counts.iter().position(|count| *count == 1);
    let one = one.and_then(|index| rounds.get(index));
    let outcomes = counts.iter().zip(rounds).map(|(count, these)| Outcome {
        name: name_of(*count),
        figures: Figures::median(these),
        ratios: one
            .filter(|_rounds| *count != 1)
            .map(|one| Figures::ratio(these, one)),
    });
    outcomes.collect()
}

/// A figure that cannot be had is told and left out: the others are worth having.
fn measure(args: &Args, count: u8, programs: &Binaries) -> Result<Figures> {
    let test = |name: &str, test: &dyn Fn() -> Result<Vec<f64>>| {
        let figures = test();
        ensure!(!interrupted(), "interrupted");
        let figures = figures.with_context(|| format!("cannot measure {name}"));
        Ok(figures.unwrap_or_else(|error| {
            eprintln!("  {}: {error:#}", name_of(count));
            Vec::new()
        }))
    };
    let qos0 = test("QoS 0", &|| rate(args, "0", count, programs))?;
    let qos1 = test("QoS 1", &|| rate(args, "1", count, programs))?;
    let quiet = test("latency", &|| {
        latency(args, &Nodes::start(count, programs)?)
    })?;
    let filters = test("many filters", &|| filters(args, count, programs))?;
    let of = |figures: &[f64], index: usize| figures.get(index).copied();
    Ok(Figures::new([
        ("qos0_per_second", "QoS 0 msg/s", of(&qos0, 0)),
        ("qos0_cpu_us", "CPU us/msg", of(&qos0, 1)),
        ("qos0_cpu_senders_us", "of senders' node", of(&qos0, 2)),
        ("qos0_cpu_receivers_us", "of the others", of(&qos0, 3)),
        ("qos1_per_second", "QoS 1 msg/s", of(&qos1, 0)),
        ("qos1_cpu_us", "CPU us/msg", of(&qos1, 1)),
        ("qos1_cpu_senders_us", "of senders' node", of(&qos1, 2)),
        ("qos1_cpu_receivers_us", "of the others", of(&qos1, 3)),
        ("latency_p50_ms", "p50 ms", of(&quiet, 0)),
        ("latency_p99_ms", "p99 ms", of(&quiet, 1)),
        ("filters_p99_ms", "filters: p99 ms", of(&filters, 0)),
        ("join_seconds", "join s", of(&filters, 1)),
        ("remote_filter_bytes", "B/remote filter", of(&filters, 2)),
    ]))
}

/// As many messages as it takes, from each sender to its own receiver: those received a second, and
/// what each costs all nodes together, that of the senders, and the others.
fn rate(args: &Args, qos: &'static str, count: u8, programs: &Binaries) -> Result<Vec<f64>> {
    let nodes = Nodes::start(count, programs)?;
    let groups = groups(args, qos, nodes.len());
    let receiving = receivers(&nodes, &groups)?;
    let before = nodes.cpu_seconds()?;
    let senders = groups
        .iter()
        .map(|(pairs, _nodes)| pairs.send(&nodes, None, Some(args.seconds)));
    for senders in senders.collect::<Result<Vec<_>>>()? {
        finish(senders)?;
    }
    let spent = nodes.cpu_seconds()?;
    let spent: Vec<f64> = spent
        .iter()
        .zip(before)
        .map(|(now, then)| now - then)
        .collect();
    let (mut received, mut per_second) = (0, 0.0);
    for receivers in receiving {
        let summary = receivers.stop()?;
        summary.all_connected()?;
        received += summary.received;
        // From the first to the last that arrived: sockets hold many when the senders have ended.
        per_second += summary.messages_per_second;
    }
    ensure!(received > 0, "nothing was received");
    let cost = |seconds: &[f64]| seconds.iter().sum::<f64>() * 1e6 / received as f64;
    let (first, others) = spent.split_at(1);
    let mut figures = vec![per_second, cost(&spent), cost(first)];
    if !others.is_empty() {
        figures.push(cost(others));
    }
    Ok(figures)
}

/// From sender to receiver, well below what the nodes can take.
fn latency(args: &Args, nodes: &Nodes) -> Result<Vec<f64>> {
    let pairs = Pairs {
        name: "pair",
        count: args.pairs,
        qos: "0",
    };
    let mut receiving = pairs.receive(nodes, others(nodes.len()))?;
    receiving.wait_ready(READY)?;
    finish(pairs.send(nodes, Some(args.rate), Some(args.seconds))?)?;
    let summary = receiving.stop()?;
    summary.all_connected()?;
    let latency = summary.latency_ms.context("no message arrived")?;
    Ok(vec![latency.p50, latency.p99])
}

/// The same, beside clients of the first node with many filters: at the end there are these in all
/// nodes, each node that joins having to learn them. Then how long that takes, and what one costs.
fn filters(args: &Args, count: u8, programs: &Binaries) -> Result<Vec<f64>> {
    let mut nodes = Nodes::start(1, programs)?;
    let empty = nodes.memory(0)?;
    let mut idle = nodes.load_filters(0, args.filters)?;
    idle.wait_ready(READY)?;
    let filters = args.filters / FILTERS_OF_ONE * FILTERS_OF_ONE;
    let (mut seconds, mut bytes) = (None, None);
    while nodes.len() < usize::from(count) {
        let begun = Instant::now();
        let node = nodes.add()?;
        nodes.wait_for_filters(node, filters)?;
        seconds.get_or_insert(begun.elapsed().as_secs_f64());
        let learnt = nodes.memory(node)?.saturating_sub(empty);
        bytes.get_or_insert(learnt as f64 / f64::from(filters));
    }
    let p99 = latency(args, &nodes)?.last().copied();
    idle.stop()?.all_connected()?;
    Ok([p99, seconds, bytes].into_iter().flatten().collect())
}

/// Those whose messages cross, and those whose messages stay, each with the receivers' nodes.
fn groups(args: &Args, qos: &'static str, nodes: usize) -> Vec<(Pairs, Range<usize>)> {
    let crossing = args.pairs * args.cross / 100;
    let pairs = |name, count| Pairs { name, count, qos };
    let groups = [
        (pairs("cross", crossing), others(nodes)),
        (pairs("stay", args.pairs - crossing), 0..1),
    ];
    let groups = groups.into_iter().filter(|(pairs, _nodes)| pairs.count > 0);
    groups.collect()
}

/// All but the first node, if there are any.
fn others(nodes: usize) -> Range<usize> {
    1.min(nodes - 1)..nodes
}

fn receivers(nodes: &Nodes, groups: &[(Pairs, Range<usize>)]) -> Result<Vec<Load>> {
    let mut receiving = Vec::new();
    for (pairs, on) in groups {
        receiving.push(pairs.receive(nodes, on.clone())?);
    }
    for receivers in &mut receiving {
        receivers.wait_ready(READY)?;
    }
    Ok(receiving)
}
