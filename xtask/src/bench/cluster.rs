//! Nodes of a cluster beside one node alone: the same clients, in one run, one after the other.
//! Publishers are on the first node, subscribers on the others, so that every message crosses.
//!
//! All nodes and the load generator share this machine: ratios say what a node more costs.

mod nodes;

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::json;

use crate::elevate;
use crate::lab::{Binaries, clean_leftovers, interrupted, note_interrupts};
use crate::load::Load;

use super::figures::{self, Figures, Outcome};
use nodes::Nodes;

/// For clients to be up.
const READY: Duration = Duration::from_secs(120);

/// Longest wait for a load to end by itself.
const END: Duration = Duration::from_secs(120);

/// Filters of each of the clients that have many.
const FILTERS_OF_ONE: u32 = 100;

/// How much to measure.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// Nodes of each cluster, separated by commas; one is what the others are compared with.
    #[arg(long, value_delimiter = ',', default_value = "1,2,3", value_parser = clap::value_parser!(u8).range(1..=8))]
    nodes: Vec<u8>,
    /// Senders, each with a receiver of its own.
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=5_000))]
    pairs: u32,
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

/// Sets up, builds, measures and prints.
pub(super) fn run(args: &Args) -> Result<()> {
    let Some(programs) = elevate::with_programs(&[])? else {
        return Ok(());
    };
    note_interrupts();
    clean_leftovers().context("cannot remove what an earlier run left")?;
    let mut rounds: Vec<Vec<Figures>> = vec![Vec::new(); args.nodes.len()];
    for round in 1..=args.rounds {
        for (figures, count) in rounds.iter_mut().zip(&args.nodes) {
            eprintln!("round {round} of {}: {}", args.rounds, name_of(*count));
            figures.push(measure(args, *count, &programs)?);
        }
    }
    let outcomes = outcomes(&args.nodes, &rounds);
    if args.json {
        let line = json!({
            "pairs": args.pairs,
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
        ("qos1_per_second", "QoS 1 msg/s", of(&qos1, 0)),
        ("qos1_cpu_us", "CPU us/msg", of(&qos1, 1)),
        ("latency_p50_ms", "p50 ms", of(&quiet, 0)),
        ("latency_p99_ms", "p99 ms", of(&quiet, 1)),
        ("filters_p99_ms", "filters: p99 ms", of(&filters, 0)),
        ("join_seconds", "join s", of(&filters, 1)),
        ("remote_filter_bytes", "B/remote filter", of(&filters, 2)),
    ]))
}

/// As many messages as it takes, from each sender to its own receiver: those received a second, and
/// what each costs all nodes together.
fn rate(args: &Args, qos: &str, count: u8, programs: &Binaries) -> Result<Vec<f64>> {
    let nodes = Nodes::start(count, programs)?;
    let mut receivers = receivers(args, &nodes, qos)?;
    receivers.wait_ready(READY)?;
    let before = nodes.cpu_seconds()?;
    send(args, &nodes, qos, "0")?;
    let spent = nodes.cpu_seconds()? - before;
    let summary = receivers.stop()?;
    summary.all_connected()?;
    ensure!(summary.received > 0, "nothing was received");
    let cost = spent * 1e6 / summary.received as f64;
    // From the first to the last that arrived: sockets hold many when the senders have ended.
    Ok(vec![summary.messages_per_second, cost])
}

/// From sender to receiver, well below what the nodes can take.
fn latency(args: &Args, nodes: &Nodes) -> Result<Vec<f64>> {
    let mut receivers = receivers(args, nodes, "0")?;
    receivers.wait_ready(READY)?;
    let interval = 1_000.0 * f64::from(args.pairs) / f64::from(args.rate);
    send(args, nodes, "0", &interval.to_string())?;
    let summary = receivers.stop()?;
    summary.all_connected()?;
    let latency = summary.latency_ms.context("no message arrived")?;
    Ok(vec![latency.p50, latency.p99])
}

/// The same, beside clients of the first node with many filters: at the end there are these in all
/// nodes, each node that joins having to learn them. Then how long that takes, and what one costs.
fn filters(args: &Args, count: u8, programs: &Binaries) -> Result<Vec<f64>> {
    let mut nodes = Nodes::start(1, programs)?;
    let empty = nodes.memory(0)?;
    let clients = args.filters / FILTERS_OF_ONE;
    let topics = (0..FILTERS_OF_ONE).map(|number| format!("many/%i/{number}"));
    let topics: Vec<_> = topics.flat_map(|topic| ["-t".to_owned(), topic]).collect();
    let arguments = ["-i", "0", "-q", "0"].into_iter();
    let arguments: Vec<_> = arguments.chain(topics.iter().map(String::as_str)).collect();
    let mut idle = nodes.load("many", "sub", clients, 0..1, &arguments)?;
    idle.wait_ready(READY)?;
    let (mut seconds, mut bytes) = (None, None);
    while nodes.len() < usize::from(count) {
        let begun = Instant::now();
        let node = nodes.add()?;
        nodes.wait_for_filters(node, clients * FILTERS_OF_ONE)?;
        seconds.get_or_insert(begun.elapsed().as_secs_f64());
        let learnt = nodes.memory(node)?.saturating_sub(empty);
        bytes.get_or_insert(learnt as f64 / f64::from(clients * FILTERS_OF_ONE));
    }
    let p99 = latency(args, &nodes)?.last().copied();
    idle.stop()?.all_connected()?;
    Ok([p99, seconds, bytes].into_iter().flatten().collect())
}

fn receivers(args: &Args, nodes: &Nodes, qos: &str) -> Result<Load> {
    let topic = ["-t", "pair/%i", "-q", qos, "-i", "1"];
    let others = 1.min(nodes.len() - 1)..nodes.len();
    nodes.load("sub", "sub", args.pairs, others, &topic)
}

fn send(args: &Args, nodes: &Nodes, qos: &str, interval: &str) -> Result<()> {
    let duration = format!("{}s", args.seconds);
    let topic = ["-t", "pair/%i", "-q", qos, "-i", "1", "-I", interval];
    let always = ["-s", "256", "--wait-all", "--duration", &duration];
    let arguments = [&topic[..], &always].concat();
    let sending = nodes.load("pub", "pub", args.pairs, 0..1, &arguments)?;
    let summary = sending.finish(END)?;
    summary.all_connected()?;
    let (lost, errors) = (summary.lost, &summary.errors);
    ensure!(lost == 0, "{lost} clients were lost: {errors:?}");
    Ok(())
}
