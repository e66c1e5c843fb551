//! Two nodes that tell each other of their flows: how long a new one takes to be at the other node,
//! and what that costs both. Nothing is asserted.

mod site;

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use serde::Serialize;
use serde_json::json;

use crate::elevate;
use crate::lab::{Binaries, note_interrupts};
use crate::network::{Balance, Forward, name_of};

use site::{Sending, Site};

/// Clients of one run at most: one process has files for so many.
const MOST_CLIENTS: u32 = 14_000;

/// For clients to be up, behind those that start before them.
const READY: Duration = Duration::from_secs(120);

/// What is measured: a way that translates, and one that only remembers.
const MODES: [(Forward, Balance); 2] = [
    (Forward::Nat, Balance::LeastConn),
    (Forward::Dsr, Balance::RoundRobin),
];

/// How much to measure.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// New connections a second; may be repeated.
    #[arg(long = "rate", value_name = "N", default_values_t = [500, 2_000], value_parser = clap::value_parser!(u32).range(1..=10_000))]
    rates: Vec<u32>,
    /// Length of each run, as far as 14,000 clients go.
    #[arg(long, value_name = "SECONDS", default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=50))]
    seconds: u32,
    /// Flows that are there already (dsr, round_robin), for a snapshot of them; may be repeated.
    #[arg(long = "held", value_name = "N", default_values_t = [100_000, 1_000_000], value_parser = clap::value_parser!(u32).range(1..=4_000_000))]
    held: Vec<u32>,
    /// One line of JSON.
    #[arg(long)]
    json: bool,
}

/// New connections at a rate.
#[derive(Clone, Debug, Serialize)]
struct Lags {
    forward: String,
    balance: String,
    /// Flows that were there before.
    held: u32,
    rate: u32,
    /// What became of it on this machine.
    connects_per_second: f64,
    /// New flows that the peer has acknowledged.
    flows: u64,
    lag_p50_ms: f64,
    lag_p99_ms: f64,
    lag_max_ms: f64,
    /// Reports that the ring had no room for.
    events_lost: u64,
    /// On the wire, of all that was sent, by new flows.
    bytes_per_flow: f64,
    messages_per_second: f64,
    /// Of one CPU.
    sender_cpu_percent: f64,
    receiver_cpu_percent: f64,
}

/// A snapshot of what is there.
#[derive(Clone, Debug, Serialize)]
struct Snapshot {
    held: u32,
    /// From the connection to the acknowledgement of its end.
    seconds: f64,
    bytes_per_flow: f64,
    sender_cpu_seconds: f64,
    receiver_cpu_seconds: f64,
    /// Beside the maps, which are the kernel's.
    sender_rss_mib: f64,
    receiver_rss_mib: f64,
    /// What the sender had before these flows.
    sender_rss_before_mib: f64,
}

/// Sets up, builds, measures and prints.
pub(super) fn run(args: &Args) -> Result<()> {
    let Some(programs) = elevate::with_programs(&["fill"])? else {
        return Ok(());
    };
    note_interrupts();
    let mut runs = Vec::new();
    for (forward, balance) in MODES {
        for &rate in &args.rates {
            eprintln!("{} {}, {rate} a second", name_of(forward), name_of(balance));
            let mut site = Site::new(forward, balance, MOST_CLIENTS * 2, &programs)?;
            site.start(1)?;
            site.wait_for_sync()?;
            runs.push(connect(args, &site, 0, rate)?);
        }
    }
    let mut snapshots = Vec::new();
    for &held in &args.held {
        eprintln!("{held} flows held");
        let (snapshot, lags) = hold(args, held, &programs)?;
        snapshots.push(snapshot);
        runs.extend(lags);
    }
    if args.json {
        println!("{}", json!({ "runs": runs, "snapshots": snapshots }));
    } else {
        print(&runs, &snapshots);
    }
    Ok(())
}

/// Connects clients at a rate, who stay until all are told of.
fn connect(args: &Args, site: &Site, held: u32, rate: u32) -> Result<Lags> {
    let count = (rate * args.seconds).min(MOST_CLIENTS);
    let (before, spent) = (site.sending()?, site.spent()?);
    let start = Instant::now();
    let mut load = site.load(count, 1_000.0 / f64::from(rate))?;
    load.wait_ready(READY)?;
    let took = start.elapsed().as_secs_f64();
    let now = site.spent()?;
    let after = site.wait_for_flows(before.events + u64::from(count))?;
    let summary = load.stop()?;
    let Sending {
        events_lost,
        bytes,
        messages,
        flow_lag,
        ..
    } = after;
    let percent = |at: usize| (now[at].cpu_seconds - spent[at].cpu_seconds) / took * 100.0;
    Ok(Lags {
        forward: name_of(site.forward),
        balance: name_of(site.balance),
        held,
        rate,
        connects_per_second: summary.connects_per_second,
        flows: flow_lag.flows,
        lag_p50_ms: flow_lag.p50_seconds * 1e3,
        lag_p99_ms: flow_lag.p99_seconds * 1e3,
        lag_max_ms: flow_lag.max_seconds * 1e3,
        events_lost: events_lost - before.events_lost,
        bytes_per_flow: (bytes - before.bytes) as f64 / f64::from(count),
        messages_per_second: (messages - before.messages) as f64 / took,
        sender_cpu_percent: percent(0),
        receiver_cpu_percent: percent(1),
    })
}

/// Fills the tables of a node whose peer is not there yet, has it come, and connects clients then.
fn hold(args: &Args, held: u32, programs: &Binaries) -> Result<(Snapshot, Vec<Lags>)> {
    let (forward, balance) = (Forward::Dsr, Balance::RoundRobin);
    // The table is not to be called full.
    let room = (held + MOST_CLIENTS * 2) / 9 * 10;
    let mut site = Site::new(forward, balance, room, programs)?;
    // One like which all others are.
    let mut load = site.load(1, 0.0)?;
    load.wait_ready(READY)?;
    let before = site.spent()?[0];
    site.fill(held)?;
    site.wait_for_entries(held.into())?;
    let filled = site.spent()?[0];
    site.start(1)?;
    let seconds = site.wait_for_sync()?;
    let [sender, receiver] = site.spent()?[..] else {
        anyhow::bail!("a node does not run");
    };
    let sent = site.sending()?;
    let snapshot = Snapshot {
        held,
        seconds,
        bytes_per_flow: sent.bytes as f64 / f64::from(held),
        sender_cpu_seconds: sender.cpu_seconds - filled.cpu_seconds,
        receiver_cpu_seconds: receiver.cpu_seconds,
        sender_rss_mib: sender.rss_mib,
        receiver_rss_mib: receiver.rss_mib,
        sender_rss_before_mib: before.rss_mib,
    };
    let rate = args.rates.first().context("no rate")?;
    let lags = connect(args, &site, held, *rate)?;
    load.stop()?;
    Ok((snapshot, vec![lags]))
}

fn print(runs: &[Lags], snapshots: &[Snapshot]) {
    println!(
        "{:<20}{:>9}{:>7}{:>10}{:>9}{:>9}{:>9}{:>6}{:>8}{:>9}{:>9}",
        "new flows",
        "held",
        "rate",
        "connects/s",
        "p50 ms",
        "p99 ms",
        "max ms",
        "lost",
        "B/flow",
        "sender %",
        "peer %"
    );
    for run in runs {
        println!(
            "{:<20}{:>9}{:>7}{:>10.0}{:>9.2}{:>9.2}{:>9.2}{:>6}{:>8.0}{:>9.1}{:>9.1}",
            format!("{} {}", run.forward, run.balance),
            run.held,
            run.rate,
            run.connects_per_second,
            run.lag_p50_ms,
            run.lag_p99_ms,
            run.lag_max_ms,
            run.events_lost,
            run.bytes_per_flow,
            run.sender_cpu_percent,
            run.receiver_cpu_percent,
        );
    }
    println!(
        "\n{:<12}{:>9}{:>8}{:>14}{:>12}{:>18}{:>12}",
        "snapshot of",
        "seconds",
        "B/flow",
        "sender CPU s",
        "peer CPU s",
        "sender RSS MiB",
        "peer MiB"
    );
    for it in snapshots {
        let rss = format!(
            "{:.0} to {:.0}",
            it.sender_rss_before_mib, it.sender_rss_mib
        );
        println!(
            "{:<12}{:>9.2}{:>8.0}{:>14.2}{:>12.2}{rss:>18}{:>12.0}",
            it.held,
            it.seconds,
            it.bytes_per_flow,
            it.sender_cpu_seconds,
            it.receiver_cpu_seconds,
            it.receiver_rss_mib,
        );
    }
}
