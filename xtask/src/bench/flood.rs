//! A flood of SYNs from random sources while sessions are held and clients go on connecting: no
//! session may be lost, new clients must get through, and the balancer must not grow.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::elevate;
use crate::exec;
use crate::lab::{Binaries, Family, Process, interrupted, memory_of, note_interrupts, wait_until};
use crate::load::{Load, Summary};
use crate::network::{Backend, Balance, Forward, Network, PORT, Shape, name_of};

/// Each held session's PINGREQs: one that is lost shows soon.
const HELD: [&str; 8] = [
    "-k",
    "30",
    "--ping-interval",
    "5s",
    "-i",
    "0",
    "--connecting",
    "100",
];

/// New clients: as many as this one after the other, unless the flood is over before.
const NEW_CLIENTS: u32 = 15_000;

/// A hundred a second, each with time enough for SYNs that are sent again.
const NEW: [&str; 4] = ["-i", "10", "--timeout", "30s"];

/// How long the held clients may take to connect.
const CONNECT: Duration = Duration::from_secs(120);

/// How long the flood may take for a million SYNs.
const MILLION: Duration = Duration::from_secs(120);

/// A session that was cut shows at its next PINGREQ, whose answer may take ten seconds.
const SHOW: Duration = Duration::from_secs(16);

/// What the balancer's memory may grow by, for what it had not touched before.
const GROWTH_KIB: u64 = 4_096;

/// Of new connects, at least so many have to succeed.
const SUCCEED: f64 = 0.999;

/// How much to send.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// SYNs from random sources that have to come to the balancer.
    #[arg(long, value_name = "N", default_value_t = 5_000_000, value_parser = clap::value_parser!(u32).range(1..))]
    syns: u32,
    /// Sessions that are held meanwhile.
    #[arg(long, value_name = "N", default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..=40_000))]
    sessions: u32,
    /// SYNs that are sent in one go: the kernel takes about 25 ms to set one up.
    #[arg(long, value_name = "N", default_value_t = 50_000, value_parser = clap::value_parser!(u32).range(1..))]
    batch: u32,
    /// Pause between two batches.
    #[arg(long, value_name = "US", default_value_t = 20_000)]
    pause: u32,
    /// How packets reach the backends.
    #[arg(long, value_enum, default_value_t = Forward::Dsr)]
    forward: Forward,
    /// One line of JSON.
    #[arg(long)]
    json: bool,
}

/// What came out.
#[derive(Clone, Debug, Serialize)]
struct Outcome {
    forward: String,
    /// SYNs that the generator made.
    sent: u64,
    /// SYNs that the balancer answered with a challenge, or gave to a backend.
    counted: u64,
    /// Of these, how many were challenged.
    challenged: u64,
    syns_per_second: f64,
    sessions: u64,
    sessions_lost: u64,
    connects_tried: u64,
    connects_succeeded: u64,
    rss_kib_before: u64,
    rss_kib_after: u64,
    was_challenging: bool,
    /// Packets by how they ended, during the flood.
    verdicts: BTreeMap<String, u64>,
}

/// What the generator says in the end.
#[derive(Debug, Deserialize)]
struct Sent {
    sent: u64,
    seconds: f64,
}

/// Sets up, builds, measures and prints.
pub(super) fn run(args: &Args) -> Result<()> {
    let Some(programs) = elevate::with_programs(&["flood"])? else {
        return Ok(());
    };
    note_interrupts();
    let outcome = measure(args, &programs)?;
    outcome.print(args.json);
    outcome.judge(args)
}

fn measure(args: &Args, programs: &Binaries) -> Result<Outcome> {
    let shape = Shape {
        forward: args.forward,
        balance: Balance::Maglev,
        backend: Backend::Tidegate,
        family: Family::V4,
    };
    let mut network = Network::new(shape, programs)?;
    prepare_brokers(&network)?;
    network.start_tidegate()?;
    let lb = network.balancer_pids()[0];
    let held = start(&network, "held", args.sessions, &HELD)?;
    let held = ready(held)?;
    let before = Snapshot::of(&network)?;
    let rss_kib_before = memory_of(lb)?;
    let new = start(&network, "new", NEW_CLIENTS, &NEW)?;
    let (sent, was_challenging) = send(args, &network, &before)?;
    let new = new.stop()?;
    let rss_kib_after = memory_of(lb)?;
    let after = Snapshot::of(&network)?;
    let held = hold_on(held)?;
    Ok(Outcome {
        forward: name_of(args.forward),
        sent: sent.sent,
        counted: after.counted() - before.counted(),
        challenged: after.challenged - before.challenged,
        syns_per_second: sent.sent as f64 / sent.seconds,
        sessions: held.clients,
        sessions_lost: held.lost,
        connects_tried: new.connected + new.failed,
        connects_succeeded: new.connected,
        rss_kib_before,
        rss_kib_after,
        was_challenging,
        verdicts: after.verdicts_since(&before),
    })
}

/// Floods until so many SYNs have come through: a veth has room for 256 frames, and drops what is
/// too many. Also says whether clients were challenged meanwhile.
fn send(args: &Args, network: &Network, before: &Snapshot) -> Result<(Sent, bool)> {
    let mut sum = Sent {
        sent: 0,
        seconds: 0.0,
    };
    let mut was_challenging = false;
    let mut left = u64::from(args.syns);
    while left > 0 {
        let mut generator = flood(args, network, left)?;
        let within = MILLION * args.syns.div_ceil(1_000_000);
        wait_until(within, "the end of the flood", || {
            let now = Snapshot::of(network);
            was_challenging |= now.is_ok_and(|now| now.is_challenging);
            (interrupted() || !generator.is_running()).then_some(())
        })?;
        let sent: Sent = serde_json::from_str(&generator.finish(SHOW)?)?;
        sum.sent += sent.sent;
        sum.seconds += sent.seconds;
        let counted = Snapshot::of(network)?.counted() - before.counted();
        let came = u64::from(args.syns).saturating_sub(left);
        ensure!(counted > came, "no SYN came through");
        left = u64::from(args.syns).saturating_sub(counted);
    }
    Ok((sum, was_challenging))
}

/// Brokers answer SYNs of anybody, without a queue that runs full.
fn prepare_brokers(network: &Network) -> Result<()> {
    let client = network.topology().client.address(Family::V4);
    for host in network.topology().brokers() {
        host.netns().sysctl("net.ipv4.tcp_syncookies", "1")?;
        // Without a way back they drop the SYNs before they answer.
        host.netns()
            .ip(&[&format!("route add 10.0.0.0/8 via {client}")])?;
    }
    Ok(())
}

fn start(network: &Network, name: &str, count: u32, arguments: &[&str]) -> Result<Load> {
    let vip = network.vip().to_string();
    let mut all = vec!["-h", &vip];
    all.extend(arguments);
    let (host, program) = (&network.topology().client, &network.programs().broker);
    Load::start(host, program, name, "conn", count, &all)
}

fn ready(mut load: Load) -> Result<Load> {
    load.wait_ready(CONNECT)?;
    Ok(load)
}

/// Starts the generator on the clients' host.
fn flood(args: &Args, network: &Network, syns: u64) -> Result<Process> {
    let host = &network.topology().client;
    let program = network.programs().tidegate.with_file_name("flood");
    let mac = network.topology().lb1.mac()?;
    let mut command = host.command(program)?;
    command.args(["eth0", &mac, &network.vip().to_string()]);
    let numbers = [syns, args.batch.into(), args.pause.into()];
    command.args(numbers.map(|number: u64| number.to_string()));
    host.spawn("flood", command)
}

/// Waits until what was lost has shown.
fn hold_on(mut held: Load) -> Result<Summary> {
    let end = std::time::Instant::now() + SHOW;
    wait_until(SHOW * 2, "losses having shown", || {
        let is_over = std::time::Instant::now() >= end;
        (interrupted() || is_over || !held.is_running()).then_some(())
    })?;
    if interrupted() {
        bail!("interrupted");
    }
    held.stop()
}

/// What the balancer says of the service and of its packets.
struct Snapshot {
    is_challenging: bool,
    challenged: u64,
    new: u64,
    verdicts: BTreeMap<String, u64>,
}

impl Snapshot {
    fn of(network: &Network) -> Result<Self> {
        let text = exec::output(network.status_command().arg("--json"))?;
        let mut status: Value = serde_json::from_str(&text)?;
        let verdicts = serde_json::from_value(status["verdicts"].take())?;
        let (vip, port) = (json!(network.vip().to_string()), json!(PORT));
        let services = status["services"].as_array().context("no services")?;
        let ours = |service: &&Value| service["vip"] == vip && service["port"] == port;
        let service = services.iter().find(ours).context("no such service")?;
        let number = |value: &Value| value.as_u64().context("no number");
        Ok(Self {
            is_challenging: service["guard"]["is_challenging"] == json!(true),
            challenged: number(&service["guard"]["challenged"])?,
            new: number(&service["new_connections"])?,
            verdicts,
        })
    }

    /// SYNs: those that were challenged, and those that went to a backend.
    fn counted(&self) -> u64 {
        self.challenged + self.new
    }

    fn verdicts_since(&self, before: &Self) -> BTreeMap<String, u64> {
        let mut verdicts = self.verdicts.clone();
        for (verdict, count) in &mut verdicts {
            *count -= before.verdicts.get(verdict).copied().unwrap_or_default();
        }
        verdicts.retain(|_, count| *count > 0);
        verdicts
    }
}

impl Outcome {
    fn print(&self, json: bool) {
        if json {
            println!("{}", json!(self));
            return;
        }
        let Self {
            forward,
            sent,
            counted,
            challenged,
            syns_per_second,
            sessions,
            sessions_lost,
            connects_tried,
            connects_succeeded,
            rss_kib_before,
            rss_kib_after,
            was_challenging,
            verdicts,
        } = self;
        println!("{forward} maglev");
        println!("  SYNs sent           {sent:>10}  ({syns_per_second:.0} a second)");
        println!("  SYNs counted        {counted:>10}  ({challenged} challenged)");
        println!("  sessions held       {sessions:>10}");
        println!("  sessions lost       {sessions_lost:>10}");
        println!("  connects tried      {connects_tried:>10}");
        println!("  connects succeeded  {connects_succeeded:>10}");
        println!("  RSS before, KiB     {rss_kib_before:>10}");
        println!("  RSS after, KiB      {rss_kib_after:>10}");
        println!("  challenges          {was_challenging:>10}");
        for (verdict, count) in verdicts {
            println!("  {verdict:<19} {count:>10}");
        }
    }

    /// Fails if a promise was not kept.
    fn judge(&self, args: &Args) -> Result<()> {
        let lost = self.sessions_lost;
        ensure!(lost == 0, "{lost} sessions were lost");
        let counted = self.counted;
        ensure!(counted >= u64::from(args.syns), "only {counted} SYNs came");
        let (tried, succeeded) = (self.connects_tried, self.connects_succeeded);
        ensure!(
            tried > 0 && succeeded as f64 >= tried as f64 * SUCCEED,
            "of {tried} connects {succeeded} succeeded"
        );
        let (before, after) = (self.rss_kib_before, self.rss_kib_after);
        ensure!(
            after <= before + GROWTH_KIB,
            "the balancer grew from {before} KiB to {after} KiB"
        );
        Ok(())
    }
}
