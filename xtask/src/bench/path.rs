//! MQTT through each way to the same brokers, from the same clients, in one run.

mod routes;

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::json;

use crate::elevate;
use crate::lab::{Binaries, note_interrupts, ticks_per_second};
use crate::load::{Load, Summary};
use crate::network::name_of;

use super::figures::{self, Figures, Outcome};
use routes::{Path, Route};

/// As fast as the brokers answer, with so few at once that no veth's ring (256 frames) runs over: a
/// lost SYN is sent again after a second, and would be all that is measured.
const CONNECT: [&str; 6] = ["-i", "0", "--connecting", "100", "--hold", "3s"];

/// Round trips, one client after the other at most: what they take is the way, not the wait for others.
const PINGS: [&str; 2] = ["--ping-interval", "20ms"];

/// Longest wait for a load to end by itself, beyond its own duration.
const END: Duration = Duration::from_secs(120);

/// How much to measure.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// Clients of the connect test.
    #[arg(long, value_name = "N", default_value_t = 10_000)]
    clients: u32,
    /// Clients of the message tests.
    #[arg(long, value_name = "N", default_value_t = 50)]
    publishers: u32,
    /// Length of each message test, and of the round trips'.
    #[arg(long, value_name = "SECONDS", default_value_t = 5)]
    seconds: u32,
    /// How often everything is measured, in turn; the median counts, of ratios that of the rounds'.
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
    /// Which ways; without `direct` nothing is compared.
    #[arg(
        long,
        value_enum,
        value_delimiter = ',',
        default_value = "direct,sketch,tidegate-dsr,tidegate-tracked,tidegate-nat,haproxy,nftables"
    )]
    paths: Vec<Route>,
    /// One line of JSON.
    #[arg(long)]
    json: bool,
}

/// Sets up, builds, measures and prints.
pub(super) fn run(args: &Args) -> Result<()> {
    let Some(programs) = elevate::with_programs(&["sketch"])? else {
        return Ok(());
    };
    note_interrupts();
    let mut rounds: Vec<Vec<Figures>> = vec![Vec::new(); args.paths.len()];
    for round in 1..=args.rounds {
        for (figures, route) in rounds.iter_mut().zip(&args.paths) {
            let name = name_of(*route);
            eprintln!("round {round} of {}: {name}", args.rounds);
            let measured = measure(args, *route, &programs);
            figures.push(measured.with_context(|| format!("cannot measure {name}"))?);
        }
    }
    let direct = args.paths.iter().position(|route| *route == Route::Direct);
    let direct = direct.and_then(|index| rounds.get(index));
    let outcomes: Vec<Outcome> = args
        .paths
        .iter()
        .zip(&rounds)
        .map(|(route, rounds)| Outcome {
            name: name_of(*route),
            figures: Figures::median(rounds),
            ratios: direct.map(|direct| Figures::ratio(rounds, direct)),
        })
        .collect();
    if args.json {
        let line = json!({
            "clients": args.clients,
            "publishers": args.publishers,
            "seconds": args.seconds,
            "rounds": args.rounds,
            "paths": figures::json(&outcomes, "to_direct"),
        });
        println!("{line}");
    } else {
        figures::print_table(&outcomes, "(x: to direct)");
    }
    Ok(())
}

/// Measures one way on a network of its own.
fn measure(args: &Args, route: Route, programs: &Binaries) -> Result<Figures> {
    let path = Path::open(route, programs)?;
    let conn = run_load(&path, "conn", args.clients, &CONNECT)?;
    let seconds = args.seconds;
    let duration = format!("{seconds}s");
    let hold = ["--hold", duration.as_str()];
    let pings = run_load(
        &path,
        "conn",
        args.publishers,
        &[&PINGS[..], &hold].concat(),
    )?;
    let talk = |qos: &str| {
        let arguments = [
            "-i",
            "0",
            "-I",
            "0",
            "-s",
            "256",
            "-q",
            qos,
            "--wait-all",
            "--duration",
            &duration,
        ];
        run_load(&path, "pub", args.publishers, &arguments)
    };
    let qos0 = talk("0")?;
    let busy = busy_seconds()?;
    let qos1 = talk("1")?;
    let busy = busy_seconds()? - busy;
    let drops = path.drops()?;
    if !drops.is_empty() {
        // A SYN that is sent again costs its round a second.
        eprintln!("  dropped packets: {drops:?}");
    }
    let rtt = pings.rtt_ms.context("no round trip was measured")?;
    let cpu = busy * 1e6 / qos1.acked.max(1) as f64;
    let balancer = path.balancer_cpu_seconds()?;
    Ok(Figures::new([
        (
            "connects_per_second",
            "connects/s",
            Some(conn.connects_per_second),
        ),
        (
            "qos0_per_second",
            "QoS 0 msg/s",
            Some(qos0.messages_per_second),
        ),
        (
            "qos1_per_second",
            "QoS 1 msg/s",
            Some(qos1.messages_per_second),
        ),
        ("rtt_p50_ms", "rtt p50 ms", Some(rtt.p50)),
        ("rtt_p99_ms", "rtt p99 ms", Some(rtt.p99)),
        // Of the whole machine, for a million messages of QoS 1.
        ("cpu_seconds_per_million_qos1", "CPU s/M QoS 1", Some(cpu)),
        // Of its own processes over all tests; work in the kernel on behalf of packets is not in it.
        ("balancer_cpu_seconds", "balancer CPU s", Some(balancer)),
    ]))
}

fn run_load(path: &Path, kind: &str, count: u32, arguments: &[&str]) -> Result<Summary> {
    let mut all = vec!["-h", path.target()];
    all.extend(arguments);
    let host = path.client();
    let load = Load::start(host, path.load_generator(), kind, kind, count, &all)?;
    let summary = load.finish(END)?;
    summary.all_connected()?;
    let (lost, errors) = (summary.lost, &summary.errors);
    ensure!(lost == 0, "{lost} clients were lost: {errors:?}");
    Ok(summary)
}

/// Seconds that this machine's processors were not idle, since boot.
fn busy_seconds() -> Result<f64> {
    let text = std::fs::read_to_string("/proc/stat")?;
    let line = text.lines().next().unwrap_or_default();
    let fields = line.split_ascii_whitespace().skip(1);
    let ticks: Vec<f64> = fields.filter_map(|field| field.parse().ok()).collect();
    // user nice system idle iowait irq softirq steal; guest time is inside user.
    let busy: f64 = [0, 1, 2, 5, 6]
        .iter()
        .filter_map(|index| ticks.get(*index))
        .sum();
    Ok(busy / ticks_per_second())
}
