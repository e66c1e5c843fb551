//! One node with as many clients as a process may have, for minutes, and others that come, go, take
//! each other over and subscribe: is every message delivered, and does all that the node holds stay as
//! it is?

mod churn;
mod levels;

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail, ensure};
use serde::Deserialize;

use crate::elevate;
use crate::lab::{
    Binaries, ConfigText, Host, Process, WorkDir, clean_leftovers, interrupted, note_interrupts,
    wait_until,
};
use crate::load::{Load, Summary};

use super::listening;
use super::verdict::Verdict;
use levels::{Levels, Sample};

/// For clients to be up.
const READY: Duration = Duration::from_secs(120);

/// Longest wait for a load to end by itself.
const END: Duration = Duration::from_secs(120);

const ADDRESS: (Ipv4Addr, u16) = (Ipv4Addr::LOCALHOST, 1883);

/// They share what is sent: one alone might be slower than all senders.
const RECEIVERS: u32 = 8;

const TOPIC: &str = "soak/%i";
const SHARE: &str = "$share/soak/soak/+";

/// Receivers end when nothing has come for so long.
const IDLE: &str = "3s";

/// Looks in all, or as many as there are seconds.
const SAMPLES: u32 = 60;

/// Of the rate asked for, what has to be reached for the run to mean anything.
const RATE: f64 = 0.95;

/// How much to measure.
#[derive(Clone, Copy, Debug, clap::Args)]
pub struct Args {
    /// Clients that each publish 256 bytes at QoS 1; a process has 20,000 files at most on many
    /// machines.
    #[arg(long, value_name = "N", default_value_t = 17_000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    clients: u32,
    /// Messages a second of all of them.
    #[arg(long, value_name = "N", default_value_t = 20_000, value_parser = clap::value_parser!(u32).range(1..=10_000_000))]
    rate: u32,
    /// For how long.
    #[arg(long, value_name = "SECONDS", default_value_t = 300, value_parser = clap::value_parser!(u32).range(1..=86_400))]
    seconds: u32,
    /// Steps a second of clients that come, break off, come back to what waits, are taken over,
    /// subscribe anew and end; 0: none.
    #[arg(long, value_name = "N", default_value_t = 50, value_parser = clap::value_parser!(u32).range(0..=500))]
    churn: u32,
    /// Without a store on disk.
    #[arg(long)]
    no_store: bool,
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
    let scene = Scene::open(args, &programs)?;
    let share = ["-t", SHARE, "-q", "1", "-i", "1", "--idle", IDLE];
    let mut receiving = scene.load("sub", RECEIVERS, &share)?;
    receiving.wait_ready(READY)?;
    let interval = 1000.0 * f64::from(args.clients) / f64::from(args.rate);
    let interval = interval.to_string();
    let topic = ["-t", TOPIC, "-q", "1", "-s", "256"];
    let pace = ["-i", "0.2", "--wait-all", "-I", &interval];
    let mut sending = scene.load("pub", args.clients, &[topic.as_slice(), &pace].concat())?;
    sending.wait_ready(READY)?;
    let (levels, steps) = scene.watch(args, &mut sending)?;
    let sent = sending.stop()?;
    let received = receiving.finish(END)?;
    if !args.json {
        levels.print();
    }
    let mut verdict = Verdict::default();
    judge_messages(args, &sent, &received, &mut verdict);
    verdict.note("steps", "steps of clients that come and go", steps);
    levels.judge(&mut verdict);
    verdict.tell(args.json)
}

fn judge_messages(args: &Args, sent: &Summary, received: &Summary, verdict: &mut Verdict) {
    let (published, acked, come) = (sent.published, sent.acked, received.received);
    let lost = sent.lost + received.lost;
    let (gaps, duplicates, rate) = (received.gaps, received.duplicates, sent.messages_per_second);
    verdict.note("clients", "clients that publish", args.clients);
    verdict.note("per_second", "messages a second", rate);
    verdict.note("published", "published", published);
    verdict.note("acked", "acknowledged", acked);
    verdict.note("received", "received", come);
    verdict.note("gaps", "missing", gaps);
    verdict.note("duplicates", "came twice", duplicates);
    verdict.note("lost", "clients cut off", lost);
    if let Some(latency) = received.latency_ms {
        verdict.note_latency("latency_ms", "latency", latency);
    }
    let failed = sent.failed;
    for (is_wrong, text) in [
        (
            failed > 0,
            format!("{failed} clients did not get in: {:?}", sent.errors),
        ),
        (
            lost > 0,
            format!("{lost} clients were cut off: {:?}", sent.errors),
        ),
        (
            acked != published,
            format!("of {published} messages {acked} were acknowledged"),
        ),
        (
            come != published,
            format!("of {published} messages {come} were received"),
        ),
        (gaps > 0, format!("{gaps} messages are missing")),
        (duplicates > 0, format!("{duplicates} messages came twice")),
        (
            rate < f64::from(args.rate) * RATE,
            format!("{rate:.0} messages a second are too few for {}", args.rate),
        ),
    ] {
        verdict.complain_if(is_wrong, text);
    }
}

/// A broker and its clients' host.
struct Scene {
    program: PathBuf,
    broker: Process,
    host: Host,
    /// Where the broker keeps what outlives it.
    store: Option<PathBuf>,
    _work: WorkDir,
}

/// What the broker says of itself.
#[derive(Deserialize)]
struct Status {
    sessions: u64,
    subscriptions: u64,
    store: Option<Stored>,
}

#[derive(Deserialize)]
struct Stored {
    bytes: u64,
}

impl Scene {
    fn open(args: &Args, programs: &Binaries) -> Result<Self> {
        let work = WorkDir::new()?;
        let host = Host::alone("bench", work.path())?;
        let store = (!args.no_store).then(|| host.work_dir().join("store"));
        let (address, socket) = (SocketAddr::from(ADDRESS), socket_of(&host));
        let mut text = format!(
            "node = \"soak\"\naccess.anonymous = true\n[[listener]]\naddress = \"{address}\"\n\
             [control]\nsocket = {socket:?}\n"
        );
        if let Some(store) = &store {
            text += &format!("[persistence]\ndirectory = {store:?}\nmin_free_bytes = 0\n");
        }
        let config = ConfigText::from(&*text).write(&host, "broker.toml")?;
        let mut command = host.command(&programs.broker)?;
        command.args(["run", "--config"]).arg(config);
        let mut broker = host.spawn("broker", command)?;
        listening::wait(&host, &mut broker, address)?;
        Ok(Self {
            program: programs.broker.clone(),
            broker,
            host,
            store,
            _work: work,
        })
    }

    fn load(&self, kind: &str, count: u32, arguments: &[&str]) -> Result<Load> {
        let arguments = [&["-h", "127.0.0.1", "--timeout", "60s"], arguments].concat();
        Load::start(&self.host, &self.program, kind, kind, count, &arguments)
    }

    /// Looks at the broker while others come and go; also how many steps these made.
    fn watch(&self, args: &Args, sending: &mut Load) -> Result<(Levels, u64)> {
        let is_over = AtomicBool::new(false);
        thread::scope(|scope| {
            let churning = scope.spawn(|| {
                let churn = || churn::go(ADDRESS.into(), args.churn, &is_over);
                self.host.netns().enter(churn)
            });
            let levels = self.look(args, || {
                ensure!(sending.is_running(), "the senders have ended");
                if churning.is_finished() {
                    bail!("those that come and go have ended");
                }
                Ok(())
            });
            is_over.store(true, Ordering::Relaxed);
            let steps = churning.join();
            let steps = steps.map_err(|_panic| anyhow!("those that come and go panicked"))??;
            Ok((levels?, steps))
        })
    }

    fn look(&self, args: &Args, mut check: impl FnMut() -> Result<()>) -> Result<Levels> {
        let pause = Duration::from_secs(u64::from(args.seconds.div_ceil(SAMPLES)));
        let length = Duration::from_secs(u64::from(args.seconds));
        let begin = Instant::now();
        let mut due = Duration::ZERO;
        let mut samples = Vec::new();
        wait_until(length + END, "the end of the soak", || {
            let passed = begin.elapsed();
            if interrupted() {
                return Some(Err(anyhow!("interrupted")));
            }
            if let Err(error) = check() {
                return Some(Err(error));
            }
            if passed >= due {
                due = passed + pause;
                match self.sample(passed) {
                    Ok(sample) => samples.push(sample),
                    Err(error) => return Some(Err(error.context("the broker has gone"))),
                }
            }
            (passed >= length).then_some(Ok(()))
        })??;
        Ok(Levels::new(samples))
    }

    fn sample(&self, passed: Duration) -> Result<Sample> {
        let socket = socket_of(&self.host);
        let socket = socket.to_str().context("the path of a socket is text")?;
        let arguments = ["status", "--json", "--socket", socket];
        let text = self.host.output(&self.program, &arguments)?;
        let status: Status =
            serde_json::from_str(&text).with_context(|| format!("no status: {text}"))?;
        let descriptors = format!("/proc/{}/fd", self.broker.pid());
        Ok(Sample {
            seconds: passed.as_secs_f64(),
            memory: self.broker.memory()? * 1_024,
            descriptors: std::fs::read_dir(descriptors)?.count() as u64,
            sessions: status.sessions,
            subscriptions: status.subscriptions,
            stored: status.store.map(|stored| stored.bytes),
            file: self.store.as_deref().map(size_of).transpose()?,
        })
    }
}

fn socket_of(host: &Host) -> PathBuf {
    host.work_dir().join("broker.sock")
}

/// Bytes of all files of a directory.
fn size_of(directory: &Path) -> Result<u64> {
    let entries = std::fs::read_dir(directory)
        .with_context(|| format!("cannot read {}", directory.display()))?;
    let sizes = entries.map(|entry| anyhow::Ok(entry?.metadata()?.len()));
    sizes.sum()
}
