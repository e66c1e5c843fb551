//! Our broker, mosquitto and rumqttd as its users run it: the same clients, in one run, one after the
//! other. Load generator and broker share this machine, so ratios say more than figures.

mod makes;

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::json;

use crate::elevate;
use crate::lab::{Host, Process, WorkDir, clean_leftovers, interrupted, note_interrupts};
use crate::load::{Load, Summary};
use crate::network::name_of;

use super::figures::{self, Figures, Outcome};
use makes::{Make, Programs, RUMQTTD};

/// For clients to be up: rumqttd takes a thousand a second at most.
const READY: Duration = Duration::from_secs(120);

/// Longest wait for a load to end by itself.
const END: Duration = Duration::from_secs(120);

/// Clients that wait for one sender's messages.
const FAN: u32 = 500;

/// How much to measure.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// Clients that are connected and say nothing.
    #[arg(long, value_name = "N", default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..=15_000))]
    idle: u32,
    /// Clients of the connect test.
    #[arg(long, value_name = "N", default_value_t = 5_000, value_parser = clap::value_parser!(u32).range(1..=15_000))]
    connects: u32,
    /// Senders, each with a receiver of its own.
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=5_000))]
    pairs: u32,
    /// Messages a second of one sender in the latency test.
    #[arg(long, value_name = "N", default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    rate: u32,
    /// Length of each message test.
    #[arg(long, value_name = "SECONDS", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=86_400))]
    seconds: u32,
    /// How often everything is measured, in turn; the median counts, of ratios that of the rounds'.
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
    /// Which brokers.
    #[arg(
        long,
        value_enum,
        value_delimiter = ',',
        default_value = "tidegate,mosquitto,rumqttd"
    )]
    brokers: Vec<Make>,
    /// One line of JSON.
    #[arg(long)]
    json: bool,
}

/// Sets up, builds, measures and prints.
pub(super) fn run(args: &Args) -> Result<()> {
    let Some(programs) = elevate::with_example("broker", RUMQTTD)? else {
        return Ok(());
    };
    note_interrupts();
    clean_leftovers().context("cannot remove what an earlier run left")?;
    let programs = &Programs::new(programs)?;
    let mut rounds: Vec<Vec<Figures>> = vec![Vec::new(); args.brokers.len()];
    for round in 1..=args.rounds {
        for (figures, make) in rounds.iter_mut().zip(&args.brokers) {
            eprintln!("round {round} of {}: {}", args.rounds, name_of(*make));
            figures.push(measure(args, *make, programs)?);
        }
    }
    let outcomes = outcomes(&args.brokers, &rounds);
    if args.json {
        let line = json!({
            "idle": args.idle,
            "connects": args.connects,
            "pairs": args.pairs,
            "rate": args.rate,
            "seconds": args.seconds,
            "rounds": args.rounds,
            "brokers": figures::json(&outcomes, "ours_to_this"),
        });
        println!("{line}");
    } else {
        figures::print_table(&outcomes, "(x: ours)");
    }
    Ok(())
}

fn outcomes(makes: &[Make], rounds: &[Vec<Figures>]) -> Vec<Outcome> {
    let ours = makes.iter().position(|make| *make == Make::Tidegate);
    let ours = ours.and_then(|index| rounds.get(index));
    let outcomes = makes.iter().zip(rounds).map(|(make, theirs)| Outcome {
        name: name_of(*make),
        figures: Figures::median(theirs),
        ratios: ours
            .filter(|_rounds| *make != Make::Tidegate)
            .map(|ours| Figures::ratio(ours, theirs)),
    });
    outcomes.collect()
}

/// A broker and its clients' host, of a test's own.
struct Scene<'a> {
    programs: &'a Programs,
    broker: Process,
    host: Host,
    _work: WorkDir,
}

/// A figure that cannot be had is told and left out: the others are worth having.
fn measure(args: &Args, make: Make, programs: &Programs) -> Result<Figures> {
    let test = |name: &str, test: &dyn Fn(&mut Scene<'_>) -> Result<Vec<f64>>| {
        let figures = Scene::open(make, programs).and_then(|mut scene| test(&mut scene));
        ensure!(!interrupted(), "interrupted");
        let figures = figures.with_context(|| format!("cannot measure {name}"));
        Ok(figures.unwrap_or_else(|error| {
            eprintln!("  {}: {error:#}", name_of(make));
            Vec::new()
        }))
    };
    let first = |figures: &[f64]| figures.first().copied();
    let idle = test("idle clients", &|scene| scene.idle(args))?;
    let connects = test("connects", &|scene| scene.connects(args))?;
    let qos0 = test("QoS 0", &|scene| scene.pairs(args, "0"))?;
    let qos1 = test("QoS 1", &|scene| scene.pairs(args, "1"))?;
    let fan = test("fan-out", &|scene| scene.fan_out(args))?;
    let latency = test("latency", &|scene| scene.latency(args))?;
    Ok(Figures::new([
        ("idle_bytes_per_client", "idle B/client", first(&idle)),
        ("connects_per_second", "connects/s", first(&connects)),
        ("qos0_per_second", "QoS 0 msg/s", first(&qos0)),
        ("qos1_per_second", "QoS 1 msg/s", first(&qos1)),
        ("fan_out_per_second", "fan-out msg/s", first(&fan)),
        ("latency_p50_ms", "p50 ms", first(&latency)),
        ("latency_p99_ms", "p99 ms", latency.get(1).copied()),
    ]))
}

impl<'a> Scene<'a> {
    fn open(make: Make, programs: &'a Programs) -> Result<Self> {
        let work = WorkDir::new()?;
        let host = Host::alone("bench", work.path())?;
        let broker = make.start(&host, programs)?;
        Ok(Self {
            programs,
            broker,
            host,
            _work: work,
        })
    }

    fn load(&self, kind: &str, count: u32, arguments: &[&str]) -> Result<Load> {
        // rumqttd takes a thousand a second at most; who waits longer for it is not lost.
        let always = ["-h", "127.0.0.1", "--timeout", "60s"];
        let arguments = [&always[..], arguments].concat();
        let program = &self.programs.broker;
        Load::start(&self.host, program, kind, kind, count, &arguments)
    }

    /// Memory of the broker for each client that says nothing.
    fn idle(&mut self, args: &Args) -> Result<Vec<f64>> {
        let before = self.pss()?;
        let mut load = self.load("conn", args.idle, &["-i", "0.5"])?;
        load.wait_ready(READY)?;
        let after = self.pss()?;
        load.stop()?.all_connected()?;
        let bytes = after.saturating_sub(before) as f64;
        Ok(vec![bytes / f64::from(args.idle)])
    }

    /// What the broker's process has of this machine's memory, shared pages in part.
    fn pss(&self) -> Result<u64> {
        let path = format!("/proc/{}/smaps_rollup", self.broker.pid());
        let text = std::fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))?;
        let line = text.lines().find_map(|line| line.strip_prefix("Pss:"));
        let kib = line.and_then(|line| line.split_ascii_whitespace().next());
        let kib: u64 = kib.context("no Pss in smaps_rollup")?.parse()?;
        Ok(kib * 1024)
    }

    fn connects(&mut self, args: &Args) -> Result<Vec<f64>> {
        let load = self.load("conn", args.connects, &["-i", "0", "--hold", "1s"])?;
        let summary = finish(load)?;
        Ok(vec![summary.connects_per_second])
    }

    /// As many messages as it takes, from each sender to its own receiver.
    fn pairs(&mut self, args: &Args, qos: &str) -> Result<Vec<f64>> {
        let topic = ["-t", "pair/%i", "-q", qos, "-i", "1"];
        let pairs = args.pairs;
        let senders = [&topic[..], &["-I", "0"]].concat();
        let (received, _summary) = self.talk(args, (pairs, &topic), (pairs, &senders))?;
        Ok(vec![received])
    }

    /// One sender, at the pace of its acknowledgements, and hundreds who want it all.
    fn fan_out(&mut self, args: &Args) -> Result<Vec<f64>> {
        let receivers = ["-t", "fan", "-q", "0", "-i", "1"];
        let sender = ["-t", "fan", "-q", "1", "-I", "0"];
        let (received, _summary) = self.talk(args, (FAN, &receivers), (1, &sender))?;
        Ok(vec![received])
    }

    /// From sender to receiver, well below what any of them can take.
    fn latency(&mut self, args: &Args) -> Result<Vec<f64>> {
        let interval = (1000.0 / f64::from(args.rate)).to_string();
        let topic = ["-t", "pair/%i", "-q", "0", "-i", "1"];
        let senders = [&topic[..], &["-I", &interval]].concat();
        let pairs = args.pairs;
        let (_rate, summary) = self.talk(args, (pairs, &topic), (pairs, &senders))?;
        let latency = summary.latency_ms.context("no message arrived")?;
        Ok(vec![latency.p50, latency.p99])
    }

    /// Messages received a second while senders sent, and what the receivers say of them.
    fn talk(
        &mut self,
        args: &Args,
        (receivers, receiving): (u32, &[&str]),
        (senders, sending): (u32, &[&str]),
    ) -> Result<(f64, Summary)> {
        let duration = format!("{}s", args.seconds);
        let mut receiving = self.load("sub", receivers, receiving)?;
        receiving.wait_ready(READY)?;
        let always = ["-s", "256", "--wait-all", "--duration", &duration];
        let sending = self.load("pub", senders, &[sending, &always].concat())?;
        finish(sending)?;
        let summary = receiving.stop()?;
        summary.all_connected()?;
        ensure!(summary.received > 0, "nothing was received");
        // From the first to the last that arrived: sockets hold many when the senders have ended.
        Ok((summary.messages_per_second, summary))
    }
}

fn finish(load: Load) -> Result<Summary> {
    let summary = load.finish(END)?;
    summary.all_connected()?;
    let (lost, errors) = (summary.lost, &summary.errors);
    ensure!(lost == 0, "{lost} clients were lost: {errors:?}");
    Ok(summary)
}
