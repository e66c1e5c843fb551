//! A node with many filters joins two others that have as many, beside messages that cross: how long it
//! takes until all know all, what each has to remember, and whether messages have to wait for it.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use serde_json::json;

use crate::lab::{Binaries, interrupted, wait_until};
use crate::load::Times;

use super::super::verdict::Verdict;
use super::nodes::{FILTERS_OF_ONE, Nodes};
use super::pairs::{Pairs, all_stayed};

/// For clients to be up.
const READY: Duration = Duration::from_secs(120);

/// How much to measure.
#[derive(Clone, Debug, clap::Args)]
pub(super) struct Args {
    /// Filters of each node; in hundreds.
    #[arg(long, value_name = "N", default_value_t = 100_000, value_parser = clap::value_parser!(u32).range(FILTERS_OF_ONE as i64..=1_000_000))]
    filters: u32,
    /// Messages a second from the first node to the second.
    #[arg(long, value_name = "N", default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(1..=10_000_000))]
    rate: u32,
    /// Their senders, each with a receiver of its own.
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=5_000))]
    pairs: u32,
    /// Length of the test without a node that joins; and as long before and behind that altogether.
    #[arg(long, value_name = "SECONDS", default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=86_400))]
    seconds: u32,
    /// One line of JSON.
    #[arg(long)]
    json: bool,
}

/// Measures and prints.
pub(super) fn run(args: &Args, programs: &Binaries) -> Result<()> {
    let filters = args.filters / FILTERS_OF_ONE * FILTERS_OF_ONE;
    let mut nodes = Nodes::start(2, programs)?;
    let empty = nodes.memory(0)?;
    let mut idle = vec![nodes.load_filters(0, filters)?];
    idle[0].wait_ready(READY)?;
    let own = nodes.memory(0)?;
    nodes.wait_for_filters(1, filters)?;
    let remote = nodes.memory(1)?;
    let third = nodes.add_alone()?;
    for node in [1, third] {
        idle.push(nodes.load_filters(node, filters)?);
    }
    for clients in &mut idle {
        clients.wait_ready(READY)?;
    }
    nodes.wait_for_filters(0, filters)?;
    let quiet = latency(args, &nodes, |_nodes| Ok(()))?.0;
    let before = memory(&nodes)?;
    let (joining, seconds) = latency(args, &nodes, |nodes| join(nodes, third, filters))?;
    let after = memory(&nodes)?;
    for clients in idle {
        all_stayed(&clients.stop()?)?;
    }
    let mut verdict = Verdict::default();
    let a_filter = |bytes: u64| bytes as f64 / f64::from(filters);
    verdict.note("filters", "filters of each node", filters);
    verdict.note(
        "join_seconds",
        "s until all know all",
        seconds.as_secs_f64(),
    );
    let learnt = a_filter(remote.saturating_sub(empty));
    verdict.note(
        "remote_filter_bytes",
        "bytes of another node's filter",
        learnt,
    );
    let had = a_filter(own.saturating_sub(empty));
    verdict.note(
        "own_filter_bytes",
        "bytes of an own one, with its client",
        had,
    );
    verdict.note(
        "memory_before",
        "bytes of memory before, by node",
        json!(before),
    );
    verdict.note(
        "memory_after",
        "bytes of memory when joined, by node",
        json!(after),
    );
    verdict.note_latency("quiet_ms", "latency without a join", quiet);
    verdict.note_latency("joining_ms", "latency beside one", joining);
    verdict.tell(args.json)
}

/// From senders on the first node to receivers on the second, while something happens; and how long
/// that takes.
fn latency(
    args: &Args,
    nodes: &Nodes,
    happen: impl FnOnce(&Nodes) -> Result<()>,
) -> Result<(Times, Duration)> {
    let pairs = Pairs {
        name: "pair",
        count: args.pairs,
        qos: "0",
    };
    let mut receiving = pairs.receive(nodes, 1..2)?;
    receiving.wait_ready(READY)?;
    let half = Duration::from_secs(u64::from(args.seconds)) / 2;
    let mut sending = pairs.send(nodes, Some(args.rate), None)?;
    sending.wait_ready(READY)?;
    pass(half)?;
    let begun = Instant::now();
    happen(nodes)?;
    let taken = begun.elapsed();
    pass(half)?;
    all_stayed(&sending.stop()?)?;
    let summary = receiving.stop()?;
    all_stayed(&summary)?;
    Ok((summary.latency_ms.context("no message arrived")?, taken))
}

fn join(nodes: &Nodes, node: usize, filters: u32) -> Result<()> {
    for other in 0..node {
        nodes.join(node, other)?;
    }
    for each in 0..nodes.len() {
        nodes.wait_for(each, "knowing all filters of all others", |status| {
            let mut members = status.members.iter();
            // Those of the messages' receivers come on top.
            status.members.len() + 1 == nodes.len()
                && members.all(|member| member.synced && member.filters >= filters)
        })?;
    }
    Ok(())
}

fn memory(nodes: &Nodes) -> Result<Vec<u64>> {
    (0..nodes.len()).map(|node| nodes.memory(node)).collect()
}

/// Lets time go by, in which messages are sent.
fn pass(time: Duration) -> Result<()> {
    let until = Instant::now() + time;
    wait_until(time * 2, "time going by", || {
        (interrupted() || Instant::now() >= until).then_some(())
    })?;
    anyhow::ensure!(!interrupted(), "interrupted");
    Ok(())
}
