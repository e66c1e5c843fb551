//! One of two nodes dies or freezes under load, again and again, while clients find their way to the
//! other one: through `tidegate`, or by themselves. Nothing that was acknowledged may be lost, sessions
//! are to go on, and wills to be published.

mod crowd;
mod site;

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::Result;

use crate::client::Dice;
use crate::lab::Binaries;

use super::super::verdict::{Samples, Verdict};
use crowd::{Crowd, WILLS};
use site::Site;

/// How much to measure.
#[derive(Clone, Copy, Debug, clap::Args)]
pub(super) struct Args {
    /// How often a node dies or freezes: by SIGKILL as often as by SIGSTOP if it is an even number.
    #[arg(long, value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    rounds: u32,
    /// Messages a second of all publishers, of QoS 1.
    #[arg(long, value_name = "N", default_value_t = 20_000, value_parser = clap::value_parser!(u32).range(50..=1_000_000))]
    rate: u32,
    /// Clients that publish.
    #[arg(long, value_name = "N", default_value_t = 40, value_parser = clap::value_parser!(u32).range(1..=400))]
    publishers: u32,
    /// Clients that receive, each a part.
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=100))]
    readers: u32,
    /// Clients that die with a node, each with a will.
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    wills: u32,
    /// How long clients wait for an answer before they connect anew.
    #[arg(long, value_name = "MS", default_value_t = 3_000, value_parser = clap::value_parser!(u64).range(100..=60_000))]
    patience: u64,
    /// Frozen nodes go on as they were, with sessions that have gone on elsewhere, and are not started
    /// anew.
    #[arg(long)]
    thaw: bool,
    /// Clients know both nodes and try one after the other, without a balancer in between.
    #[arg(long)]
    direct: bool,
    /// Tells at which moments it happens; a run tells its own.
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
    /// One line of JSON.
    #[arg(long)]
    json: bool,
}

/// How a node goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Kill,
    Freeze,
}

/// What happened to nodes.
#[derive(Debug, Default)]
struct Ends {
    /// When, and how.
    at: Vec<(Instant, End)>,
    /// Until the other node held it for gone, by kind.
    detection: [Samples; 2],
    /// Wills that are to be published.
    wills: Vec<u64>,
    /// Messages acknowledged a second, in the time before each.
    rates: Vec<f64>,
    /// How long publishers published.
    length: Duration,
}

impl Ends {
    /// Of silences, each with its beginning, how long those were that ended after such an end of a node,
    /// and before the next one.
    fn after<'a>(
        &self,
        kind: End,
        silences: impl Iterator<Item = &'a (Instant, Duration)>,
    ) -> Samples {
        let due = silences.filter(|(heard, lasted)| {
            let mut ends = self.at.iter().rev();
            let last = ends.find(|(at, _kind)| *at <= *heard + *lasted);
            last.is_some_and(|(_at, last)| *last == kind)
        });
        due.map(|(_heard, lasted)| *lasted).collect()
    }

    /// When something happened to a client, in words.
    fn tell(&self, name: &str, at: Instant) -> String {
        let rounds = self.at.iter().enumerate().rev();
        let mut before = rounds.filter(|(_round, (end, _kind))| *end <= at);
        match before.next() {
            Some((round, (end, _kind))) => {
                format!("{name} {:?} after round {}", at - *end, round + 1)
            }
            None => format!("{name} before all"),
        }
    }
}

/// Measures and prints.
pub(super) fn run(args: &Args, programs: &Binaries) -> Result<()> {
    let clock = SystemTime::now().duration_since(UNIX_EPOCH)?;
    let seed = args.seed.unwrap_or(clock.as_nanos() as u64);
    eprintln!("seed {seed}");
    let mut site = Site::new(args.direct, programs)?;
    let (ends, crowd, taken) = Crowd::new(*args, &site)?.live(&mut site, Dice::new(seed))?;
    let published: usize = taken.values().map(Vec::len).sum::<usize>() - ends.wills.len();
    let lost = crowd.lost(&taken);
    let (wills, messages): (Vec<_>, Vec<_>) = lost.iter().partition(|(topic, _)| topic == WILLS);
    let mut verdict = Verdict::default();
    verdict.note("seed", "seed", seed);
    verdict.note("rounds", "nodes that died or froze", args.rounds);
    verdict.note("acknowledged", "messages acknowledged", published);
    let rate = published as f64 / ends.length.as_secs_f64();
    verdict.note("per_second", "of these a second", rate);
    let rate = ends.rates.iter().sum::<f64>() / ends.rates.len().max(1) as f64;
    verdict.note("per_second_before", "in the time before nodes ended", rate);
    verdict.note("lost", "of these lost", messages.len());
    verdict.note("repeats", "came twice, as QoS 1 may", crowd.repeats());
    verdict.note("wills", "wills of clients that died", ends.wills.len());
    verdict.note("wills_lost", "of these not published", wills.len());
    let outages = crowd
        .stories()
        .map(|story| story.outages.len())
        .sum::<usize>();
    verdict.note("reconnects", "clients that connected anew", outages);
    let strangers = crowd.lost_sessions();
    verdict.note("sessions_lost", "sessions lost", strangers.len());
    for (end, name) in [(End::Kill, "killed"), (End::Freeze, "frozen")] {
        verdict.begin(name);
        let detection = &ends.detection[end as usize];
        verdict.note_times("detection_ms", "held for gone after", detection);
        let outages = crowd.stories().flat_map(|story| &story.outages);
        let outages = ends.after(end, outages);
        verdict.note_times("outage_ms", "silence of clients that came anew", &outages);
        let stalls = crowd.publishers().flat_map(|story| &story.stalls);
        let stalls = ends.after(end, stalls);
        verdict.note_times("stall_ms", "of publishers that had to wait", &stalls);
    }
    verdict.complain_if(
        !messages.is_empty(),
        format!(
            "{} acknowledged messages were lost: {:?}",
            messages.len(),
            some(&messages)
        ),
    );
    verdict.complain_if(
        !wills.is_empty(),
        format!(
            "{} wills were not published: {:?}",
            wills.len(),
            some(&wills)
        ),
    );
    let strangers: Vec<_> = strangers
        .into_iter()
        .map(|(name, at)| ends.tell(&name, at))
        .collect();
    verdict.complain_if(
        !strangers.is_empty(),
        format!(
            "{} sessions were lost: {:?}",
            strangers.len(),
            some(&strangers)
        ),
    );
    verdict.complain_if(published == 0, "nothing was published");
    verdict.tell(args.json)
}

/// The first of many.
fn some<T>(many: &[T]) -> &[T] {
    &many[..many.len().min(10)]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn silence_is_due_to_the_last_end_before_it_was_over() {
        let begin = Instant::now();
        let at = |second| begin + Duration::from_secs(second);
        let ends = Ends {
            at: vec![(at(10), End::Kill), (at(20), End::Freeze)],
            ..Ends::default()
        };
        let seconds = Duration::from_secs;
        // Last heard before the node ended, or somewhat later; before all; and over the second end.
        let silences = [
            (at(9), seconds(2)),
            (at(11), seconds(3)),
            (at(1), seconds(1)),
            (at(19), seconds(6)),
        ];
        let of = |kind| ends.after(kind, silences.iter());
        let killed: Samples = [seconds(2), seconds(3)].into_iter().collect();
        let frozen: Samples = [seconds(6)].into_iter().collect();
        assert_eq!((of(End::Kill), of(End::Freeze)), (killed, frozen));
        assert_eq!(ends.tell("c", at(12)), "c 2s after round 1");
        assert_eq!(ends.tell("c", at(9)), "c before all");
    }
}
