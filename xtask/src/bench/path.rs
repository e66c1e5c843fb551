//! MQTT through each way to the same brokers, from the same clients, in one run.

mod routes;

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde::Serialize;
use serde_json::json;

use crate::elevate;
use crate::lab::{Binaries, note_interrupts, ticks_per_second};
use crate::load::{Load, Summary};
use crate::network::name_of;

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

/// The figures of one way.
#[derive(Clone, Copy, Debug, Serialize)]
struct Figures {
    connects_per_second: f64,
    qos0_per_second: f64,
    qos1_per_second: f64,
    rtt_p50_ms: f64,
    rtt_p99_ms: f64,
    /// Of the whole machine, for a million messages of QoS 1.
    cpu_seconds_per_million_qos1: f64,
    /// Of the balancer's own processes over all tests; work in the kernel on behalf of packets is not in it.
    balancer_cpu_seconds: f64,
}

impl Figures {
    const NAMES: [&str; 7] = [
        "connects/s",
        "QoS 0 msg/s",
        "QoS 1 msg/s",
        "rtt p50 ms",
        "rtt p99 ms",
        "CPU s/M QoS 1",
        "balancer CPU s",
    ];

    const KEYS: [&str; 7] = [
        "connects_per_second",
        "qos0_per_second",
        "qos1_per_second",
        "rtt_p50_ms",
        "rtt_p99_ms",
        "cpu_seconds_per_million_qos1",
        "balancer_cpu_seconds",
    ];

    fn values(&self) -> [f64; 7] {
        let Self {
            connects_per_second,
            qos0_per_second,
            qos1_per_second,
            rtt_p50_ms,
            rtt_p99_ms,
            cpu_seconds_per_million_qos1,
            balancer_cpu_seconds,
        } = *self;
        [
            connects_per_second,
            qos0_per_second,
            qos1_per_second,
            rtt_p50_ms,
            rtt_p99_ms,
            cpu_seconds_per_million_qos1,
            balancer_cpu_seconds,
        ]
    }

    fn from_values(values: [f64; 7]) -> Self {
        let [
            connects_per_second,
            qos0_per_second,
            qos1_per_second,
            rtt_p50_ms,
            rtt_p99_ms,
            cpu_seconds_per_million_qos1,
            balancer_cpu_seconds,
        ] = values;
        Self {
            connects_per_second,
            qos0_per_second,
            qos1_per_second,
            rtt_p50_ms,
            rtt_p99_ms,
            cpu_seconds_per_million_qos1,
            balancer_cpu_seconds,
        }
    }

    /// Figure by figure.
    fn median(rounds: &[Self]) -> Self {
        Self::from_values(std::array::from_fn(|index| {
            let mut values: Vec<f64> = rounds.iter().map(|round| round.values()[index]).collect();
            values.sort_by(f64::total_cmp);
            values[values.len() / 2]
        }))
    }
}

/// What came out for one way.
struct Outcome {
    route: Route,
    figures: Figures,
    /// To direct, if that was measured.
    ratios: Option<[Option<f64>; 7]>,
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
    let direct = direct.map(|index| rounds[index].clone());
    let results: Vec<Outcome> = args
        .paths
        .iter()
        .zip(&rounds)
        .map(|(route, rounds)| Outcome {
            route: *route,
            figures: Figures::median(rounds),
            ratios: direct.as_ref().map(|direct| ratios(rounds, direct)),
        })
        .collect();
    if args.json {
        print_json(args, &results);
    } else {
        print_table(&results);
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
    Ok(Figures {
        connects_per_second: conn.connects_per_second,
        qos0_per_second: qos0.messages_per_second,
        qos1_per_second: qos1.messages_per_second,
        rtt_p50_ms: rtt.p50,
        rtt_p99_ms: rtt.p99,
        cpu_seconds_per_million_qos1: busy * 1e6 / qos1.acked.max(1) as f64,
        balancer_cpu_seconds: path.balancer_cpu_seconds()?,
    })
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

fn print_json(args: &Args, results: &[Outcome]) {
    let mut paths = serde_json::Map::new();
    for outcome in results {
        let Outcome {
            route,
            figures,
            ratios,
        } = outcome;
        let ratios = ratios.map(|ratios| {
            let named = Figures::KEYS
                .into_iter()
                .zip(ratios.map(|ratio| json!(ratio)));
            named.collect::<BTreeMap<_, _>>()
        });
        let entry = json!({ "figures": figures, "to_direct": ratios });
        paths.insert(name_of(*route), entry);
    }
    let line = json!({
        "clients": args.clients,
        "publishers": args.publishers,
        "seconds": args.seconds,
        "rounds": args.rounds,
        "paths": paths,
    });
    println!("{line}");
}

fn print_table(results: &[Outcome]) {
    print!("{:<16}", "(x: to direct)");
    for name in Figures::NAMES {
        print!("{name:>22}");
    }
    println!();
    for outcome in results {
        let Outcome {
            route,
            figures,
            ratios,
        } = outcome;
        print!("{:<16}", name_of(*route));
        for (index, value) in figures.values().into_iter().enumerate() {
            let ratio = ratios.and_then(|ratios| ratios[index]);
            let ratio = ratio.map(|ratio| format!(" ({ratio:.2}x)"));
            print!("{:>22}", format!("{value:.2}{}", ratio.unwrap_or_default()));
        }
        println!();
    }
}

/// Against direct, figure by figure: the median over rounds, each against the direct way of its own
/// round, as the machine is faster in one than in another. What direct has none of has no ratio.
fn ratios(ours: &[Figures], direct: &[Figures]) -> [Option<f64>; 7] {
    let pairs = || ours.iter().zip(direct);
    std::array::from_fn(|index| {
        let mut ratios: Vec<f64> = pairs()
            .map(|(ours, direct)| (ours.values()[index], direct.values()[index]))
            .filter(|(_, direct)| *direct > 0.0)
            .map(|(ours, direct)| ours / direct)
            .collect();
        ratios.sort_by(f64::total_cmp);
        ratios.get(ratios.len() / 2).copied()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_taken_figure_by_figure() {
        let rounds = [[3.0; 7], [1.0; 7], [2.0; 7]].map(Figures::from_values);
        assert_eq!(Figures::median(&rounds).values(), [2.0; 7]);
    }

    #[test]
    fn a_round_is_compared_with_its_own_direct_way() {
        let direct = [[4.0; 7], [1.0; 7], [2.0; 7]].map(Figures::from_values);
        let half = [[2.0; 7], [0.5; 7], [1.0; 7]].map(Figures::from_values);
        assert_eq!(ratios(&half, &direct), [Some(0.5); 7]);
        let none = [Figures::from_values([0.0; 7])];
        assert_eq!(ratios(&half, &none), [None; 7]);
    }
}
