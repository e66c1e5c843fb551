//! Fail-overs as a client sees them: Tidegate, and keepalived beside it in the same run.

mod adverts;
mod nodes;
mod report;

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use clap::ValueEnum;
use serde::Serialize;

use crate::elevate;
use crate::lab::{Answers, Family, Pinger, interrupted, note_interrupts, wait_until};
use crate::network::name_of;

use nodes::{ACTIVE, BACKUP, Nodes, SOON, Speaker, TTLS, v4};
use report::{Round, Row};

/// Pings before each event, in which all must be well.
const BEFORE: Duration = Duration::from_millis(300);

/// How long is looked on after a fail-over, besides some intervals of adverts.
const AFTER: Duration = Duration::from_millis(500);

/// The longest that a fail-over is waited for.
const PATIENCE: Duration = Duration::from_secs(30);

/// How often the client asks anew who has the address of a dead daemon, and how long it pings each time.
const RESOLUTIONS: usize = 20;
const RESOLUTION: Duration = Duration::from_millis(20);

/// How much to measure.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// Between two adverts.
    #[arg(long, value_delimiter = ',', default_value = "1s,100ms,10ms", value_parser = duration)]
    intervals: Vec<Duration>,
    /// What happens to the host that is Active.
    #[arg(
        long,
        value_enum,
        value_delimiter = ',',
        default_value = "host,kill,stop,release,partition,heal"
    )]
    cases: Vec<Case>,
    /// How often each of them happens.
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
    /// Who speaks VRRP, on both hosts.
    #[arg(
        long = "with",
        value_enum,
        value_delimiter = ',',
        default_value = "tidegate,keepalived"
    )]
    speakers: Vec<Speaker>,
    /// How long a partition lasts before it heals.
    #[arg(long, default_value = "9s", value_parser = duration)]
    partition: Duration,
    /// One line of JSON.
    #[arg(long)]
    json: bool,
}

/// What happens to the host that is Active.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
enum Case {
    /// Its cable is pulled.
    Host,
    /// Its daemon is killed, by SIGKILL.
    Kill,
    /// Its daemon is stopped, by SIGTERM.
    Stop,
    /// It hands over: `tidegate vrrp release`; a reload with a lower priority.
    Release,
    /// The two hosts do not hear each other, and clients hear both.
    Partition,
    /// They hear each other again.
    Heal,
}

impl Case {
    fn name(self) -> String {
        name_of(self)
    }

    /// Whether the other host has the address in the end.
    fn moves(self) -> bool {
        self != Self::Heal
    }

    /// Whether there is time to hand over.
    fn is_planned(self) -> bool {
        matches!(self, Self::Stop | Self::Release)
    }
}

/// Sets up, builds, measures and prints.
pub(super) fn run(args: &Args) -> Result<()> {
    let Some(programs) = elevate::with_programs(&[])? else {
        return Ok(());
    };
    note_interrupts();
    let mut rows = Vec::new();
    for interval in &args.intervals {
        for speaker in &args.speakers {
            let mut nodes = Nodes::new(*speaker, *interval, &programs)?;
            for case in &args.cases {
                let row = measure(args, &mut nodes, *speaker, *interval, *case);
                let row = row.with_context(|| {
                    let (case, speaker) = (case.name(), name_of(*speaker));
                    format!("{case} with {speaker} at {interval:?}")
                })?;
                rows.push(row);
            }
        }
    }
    let failures = report::failures(&rows);
    report::print(&rows, &failures, args.json);
    ensure!(failures.is_empty(), "{} goals were missed", failures.len());
    Ok(())
}

fn measure(
    args: &Args,
    nodes: &mut Nodes,
    speaker: Speaker,
    interval: Duration,
    case: Case,
) -> Result<Row> {
    let mut rounds = Vec::new();
    for number in 1..=args.rounds {
        if interrupted() {
            bail!("interrupted");
        }
        let round = match round(args, nodes, interval, case) {
            // Its reload by SIGHUP does not always come to an end.
            Err(error) if speaker == Speaker::Keepalived && !interrupted() => {
                eprintln!(
                    "keepalived {interval:?} {} {number} failed: {error:#}",
                    case.name()
                );
                nodes.begin_anew()?;
                None
            }
            round => Some(round.with_context(|| format!("round {number}"))?),
        };
        if let Some(round) = round.filter(|_| !args.json) {
            let (speaker, case) = (name_of(speaker), case.name());
            eprintln!("{speaker} {interval:?} {case} {number}: {round:.1?}");
        }
        rounds.push(round);
    }
    Ok(Row::of(speaker, interval, case, &rounds))
}

/// One fail-over, from steady answers of the one host to the same again.
fn round(args: &Args, nodes: &mut Nodes, interval: Duration, case: Case) -> Result<Round> {
    let pinger = Pinger::open(&nodes.topology.client, v4(Family::V4.vip()))?;
    let settle = AFTER + 4 * interval;
    let ((event, until, wrong), record) = pinger.ask(|answers| {
        nodes.wait_for_answers(answers, ACTIVE)?;
        if case == Case::Heal {
            nodes.part(true)?;
            nodes.wait_for_answers(answers, BACKUP)?;
            std::thread::sleep(args.partition);
        }
        std::thread::sleep(BEFORE);
        // At the same moment for both, or the difference would be chance: how long the next advert
        // was away when the host died.
        let address = nodes.address(ACTIVE);
        adverts::next(&nodes.topology.client, address, SOON)?;
        std::thread::sleep(interval / 2);
        let event = cause(nodes, case)?;
        if case.moves() {
            let what = format!("an answer of {}", nodes.host(BACKUP).name());
            wait_until(PATIENCE, &what, || answers.first(TTLS[BACKUP], event))?;
        } else {
            // If that takes too long, it is what was measured.
            drop(nodes.wait_for_answers(answers, ACTIVE));
        }
        std::thread::sleep(settle);
        let until = Instant::now();
        let wrong = if case == Case::Kill {
            wrong_answers(nodes, answers)?
        } else {
            0
        };
        undo(nodes, case)?;
        nodes.forget_neighbour()?;
        nodes.wait_for_answers(answers, ACTIVE)?;
        // For the Backup to know the Active.
        std::thread::sleep(settle);
        Ok((event, until, wrong))
    })?;
    Ok(Round {
        wrong,
        ..Round::of(&record, event, until)
    })
}

/// Has it happen, and returns when it did.
fn cause(nodes: &mut Nodes, case: Case) -> Result<Instant> {
    match case {
        Case::Host => nodes.unplug(ACTIVE),
        Case::Kill => nodes.kill(ACTIVE),
        Case::Stop => nodes.stop(ACTIVE),
        Case::Release => nodes.release(ACTIVE),
        Case::Partition => nodes.part(true),
        Case::Heal => nodes.part(false),
    }
}

/// Puts things back as they were.
fn undo(nodes: &mut Nodes, case: Case) -> Result<()> {
    match case {
        Case::Host => nodes.plug(ACTIVE),
        Case::Kill => nodes.start(ACTIVE),
        Case::Stop => {
            nodes.wait_for_end(ACTIVE)?;
            nodes.start(ACTIVE)
        }
        Case::Release => nodes.resume(ACTIVE),
        Case::Partition => nodes.part(false).map(drop),
        Case::Heal => Ok(()),
    }
}

/// Has the client ask anew who has the address, again and again, and counts answers of the host whose
/// daemon is dead.
fn wrong_answers(nodes: &Nodes, answers: &Answers) -> Result<usize> {
    let mut wrong = 0;
    for _ in 0..RESOLUTIONS {
        let begun = Instant::now();
        nodes.forget_neighbour()?;
        std::thread::sleep(RESOLUTION);
        wrong += usize::from(answers.first(TTLS[ACTIVE], begun).is_some());
    }
    Ok(wrong)
}

/// Reads `1s` and `10ms`.
fn duration(text: &str) -> Result<Duration, String> {
    let digits = text.find(|c: char| !c.is_ascii_digit());
    let (number, unit) = text.split_at(digits.unwrap_or(text.len()));
    match (number.parse(), unit) {
        (Ok(number), "ms") => Ok(Duration::from_millis(number)),
        (Ok(number), "s") => Ok(Duration::from_secs(number)),
        (Ok(_) | Err(_), _) => Err("such as 1s or 10ms".to_owned()),
    }
}
