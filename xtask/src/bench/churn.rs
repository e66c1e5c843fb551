//! Held sessions while backends come and go: none may be lost but those of a backend that died.

mod changes;
mod report;
mod sessions;
mod site;

use std::collections::BTreeMap;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, bail, ensure};

use crate::elevate;
use crate::lab::{Binaries, Process, interrupted, note_interrupts, wait_until};
use crate::load::Load;
use crate::network::{Balance, Forward, name_of};

use changes::{Change, Planner, State};
use sessions::Session;
use site::{KEEP_ALIVE, Mode, Site, unix_now};

pub use report::{Outcome, Victim};

/// Backends in use at the start; two more are spare.
const SERVING: usize = 4;

/// Each client's PINGREQs: well within the keep-alive, and every session is heard of only so often.
const PING: Duration = Duration::from_secs(5);

/// The load generator gives a PINGRESP so long.
const PING_TIMEOUT: Duration = Duration::from_secs(10);

/// How long clients may take to connect.
const CONNECT: Duration = Duration::from_secs(120);

/// How long clients may take to be back after the last death.
const BACK: Duration = Duration::from_secs(60);

/// How long drains may go on after the last change and the learning window that it began.
const DRAINED: Duration = Duration::from_secs(60);

/// Between two times that clients are asked to leave: whom to ask takes reading all logs.
const ASK: Duration = Duration::from_millis(500);

/// Between two looks at drains.
const LOOK: Duration = Duration::from_millis(100);

/// How much to do.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// Clients that are connected all the time.
    #[arg(long, value_name = "N", default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..=60_000))]
    pub clients: u32,
    /// Changes of backends.
    #[arg(long, value_name = "N", default_value_t = 200)]
    pub changes: u32,
    /// Mean time between two changes.
    #[arg(long, value_name = "MS", default_value_t = 700)]
    pub pace: u32,
    /// Repeats the changes of an earlier run.
    #[arg(long, value_name = "N")]
    pub seed: Option<u64>,
    /// How packets reach the backends.
    #[arg(long, value_enum, default_value_t = Forward::Dsr)]
    pub forward: Forward,
    /// How a backend is chosen.
    #[arg(long, value_enum, default_value_t = Balance::Maglev)]
    pub balance: Balance,
    /// Every way of forwarding and choosing, one after the other.
    #[arg(long, conflicts_with_all = ["forward", "balance"])]
    pub all: bool,
    /// One line of JSON for each way.
    #[arg(long)]
    pub json: bool,
}

/// What `--all` measures.
const ALL: [(Forward, Balance); 7] = [
    (Forward::Dsr, Balance::Maglev),
    (Forward::Dsr, Balance::RoundRobin),
    (Forward::Dsr, Balance::LeastConn),
    (Forward::Nat, Balance::Maglev),
    (Forward::Nat, Balance::RoundRobin),
    (Forward::Nat, Balance::LeastConn),
    (Forward::Tunnel, Balance::Maglev),
];

/// Sets up, builds, measures and prints.
pub(super) fn run(args: &Args) -> Result<()> {
    let Some(programs) = elevate::with_programs(&[])? else {
        return Ok(());
    };
    note_interrupts();
    let modes = if args.all {
        ALL.to_vec()
    } else {
        vec![(args.forward, args.balance)]
    };
    let (mut lost, mut cut_off) = (0, 0);
    for (forward, balance) in modes {
        let args = Args {
            forward,
            balance,
            ..args.clone()
        };
        let outcome = measure(&args, &programs)?;
        outcome.print(args.json);
        lost += outcome.lost.len();
        cut_off += outcome.cut_off;
    }
    ensure!(lost == 0, "{lost} sessions were lost");
    ensure!(
        cut_off == 0,
        "backends were said to be drained that had {cut_off} clients"
    );
    Ok(())
}

/// Holds clients through the changes and says what became of them.
///
/// # Errors
/// When something does not start or a change is refused; lost sessions are no error.
pub fn measure(args: &Args, programs: &Binaries) -> Result<Outcome> {
    let seed = args.seed.unwrap_or_else(|| {
        let since = SystemTime::now().duration_since(UNIX_EPOCH);
        since.unwrap_or_default().as_millis() as u64
    });
    let mode = Mode {
        forward: args.forward,
        balance: args.balance,
    };
    let (forward, balance) = (name_of(mode.forward), name_of(mode.balance));
    eprintln!(
        "churn: {forward} {balance}, {} clients, seed {seed}",
        args.clients
    );
    let site = Site::new(mode, SERVING, programs)?;
    let mut clients = site.load(args.clients, PING)?;
    clients.wait_ready(CONNECT)?;
    let mut churn = Churn {
        planner: Planner::new(site.backends(), SERVING, seed),
        asked: vec![Vec::new(); site.backends()],
        asked_at: None,
        drains: (0..site.backends()).map(|_| None).collect(),
        cut_off: 0,
        made: Vec::new(),
        site,
        clients,
    };
    let start = Instant::now();
    churn
        .make_changes(args)
        .context("see also the seed above")?;
    churn.settle(args.clients)?;
    churn.sum_up(args, seed, start.elapsed())
}

/// A change that was made.
struct Made {
    at: f64,
    backend: usize,
    change: Change,
}

struct Churn {
    site: Site,
    clients: Load,
    planner: Planner,
    /// Of each backend: sessions whose clients were asked to leave it.
    asked: Vec<Vec<Session>>,
    /// When clients were last asked to.
    asked_at: Option<Instant>,
    /// Of each backend: who waits for it to be drained.
    drains: Vec<Option<Process>>,
    /// Clients that backends still had when they were said to be drained.
    cut_off: usize,
    made: Vec<Made>,
}

impl Churn {
    fn make_changes(&mut self, args: &Args) -> Result<()> {
        for number in 1..=args.changes {
            let (backend, change) = self.planner.next();
            let name = self.site.name(backend);
            if !args.json {
                eprintln!("{number:>4}  {change} {name}");
            }
            self.made.push(Made {
                at: unix_now(),
                backend,
                change,
            });
            self.make(backend, change)
                .with_context(|| format!("change {number}, {change} {name}"))?;
            let pause =
                Duration::from_millis(u64::from(args.pace) * 2).mul_f64(self.planner.share());
            self.watch_for(pause)?;
        }
        Ok(())
    }

    fn make(&mut self, backend: usize, change: Change) -> Result<()> {
        match change {
            Change::Add => self.site.set_member(backend, true),
            Change::Remove | Change::TakeOut => self.site.set_member(backend, false),
            Change::Drain => self.site.order(backend, "drain", &[]),
            Change::Enable => self.site.order(backend, "enable", &[]),
            Change::Weight(weight) => self.site.order(backend, "weight", &[&weight.to_string()]),
            Change::Kill => self.site.kill_broker(backend),
            Change::Return => self.site.start_broker(backend),
            Change::Evacuate => {
                self.asked[backend].clear();
                self.drains[backend] = Some(self.site.drain_and_wait(backend)?);
                Ok(())
            }
        }
    }

    /// Lets time pass in which drains go on.
    fn watch_for(&mut self, pause: Duration) -> Result<()> {
        let end = Instant::now() + pause;
        loop {
            // In this order: who leaves a moment after the drain has ended is still there to be counted.
            self.look_at_drains()?;
            if self.asked_at.is_none_or(|at| at.elapsed() >= ASK) {
                self.ask_clients_to_leave()?;
                self.asked_at = Some(Instant::now());
            }
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(());
            }
            self.rest(left.min(LOOK))?;
        }
    }

    /// What is drained is so by the balancer's word; the backend's kernel says whether that is true.
    fn look_at_drains(&mut self) -> Result<()> {
        for backend in 0..self.drains.len() {
            let Some(mut drain) = self.drains[backend].take_if(|drain| !drain.is_running()) else {
                continue;
            };
            drain.finish(Duration::ZERO)?;
            let left = self.site.clients_at(backend)?;
            if left > 0 {
                eprintln!(
                    "      {} is drained with {left} clients",
                    self.site.name(backend)
                );
            }
            self.cut_off += left;
            self.planner.note_empty(backend);
        }
        Ok(())
    }

    /// Waits, as there is nothing to wait for but time.
    fn rest(&self, time: Duration) -> Result<()> {
        let end = Instant::now() + time;
        wait_until(time * 2, "the next change", || {
            (interrupted() || Instant::now() >= end).then_some(())
        })?;
        if interrupted() {
            bail!("interrupted");
        }
        Ok(())
    }

    fn leaving(&self) -> Vec<usize> {
        let states = self.planner.states();
        let leaving = |backend: &usize| states[*backend] == State::Leaving;
        (0..states.len()).filter(leaving).collect()
    }

    /// Clients that were on their way when the first were asked are asked later; so are those that came
    /// back, as who connects from the port of a session that has ended within a minute does.
    fn ask_clients_to_leave(&mut self) -> Result<()> {
        for backend in self.leaving() {
            let mut leaving = self.site.sessions_of(backend)?;
            leaving.retain(|session| !self.asked[backend].contains(session));
            let clients: Vec<u32> = leaving.iter().map(|session| session.client).collect();
            self.clients.move_clients(&clients)?;
            self.asked[backend].extend(leaving);
        }
        Ok(())
    }

    /// Brings the dead back and waits until what was lost has shown.
    fn settle(&mut self, clients: u32) -> Result<()> {
        for backend in 0..self.site.backends() {
            if matches!(self.planner.states()[backend], State::Dead { .. }) {
                self.site.start_broker(backend)?;
            }
        }
        // A session that packets no longer reach shows at its next PINGREQ; one that was to be learnt and
        // was not shows at the first after the window.
        let window = Duration::from_secs(u64::from(KEEP_ALIVE)) * 3 / 2;
        self.watch_for(window + PING + PING_TIMEOUT)?;
        // Long since, nothing changes any more: all that a drain waits for has been asked to leave.
        let start = Instant::now();
        while self.drains.iter().any(Option::is_some) {
            ensure!(
                start.elapsed() < DRAINED,
                "backends that were asked to drain are not drained: {:?}",
                self.leaving()
            );
            self.watch_for(LOOK)?;
        }
        let mut last = 0;
        wait_until(BACK, "all clients being connected", || {
            last = (0..self.site.backends())
                .map(|backend| self.site.clients_at(backend).unwrap_or_default())
                .sum();
            (interrupted() || last == clients as usize).then_some(())
        })
        .with_context(|| format!("{last} of {clients} are"))?;
        Ok(())
    }

    fn sum_up(self, args: &Args, seed: u64, took: Duration) -> Result<Outcome> {
        let Self {
            site,
            clients,
            made,
            cut_off,
            ..
        } = self;
        let losses = clients.losses();
        let summary = clients.stop()?;
        let (sessions, incarnations) = (site.sessions(), site.incarnations());
        let mut changes = BTreeMap::new();
        for made in &made {
            *changes.entry(made.change.name()).or_insert(0) += 1;
        }
        let not_excused = losses
            .iter()
            .filter(|loss| !sessions.is_due_to_a_death(loss, &incarnations));
        let lost: Vec<Victim> = not_excused
            .map(|loss| {
                let home = sessions.home(loss.client, loss.at);
                let home = home.map(|home| site.name(incarnations[home].backend));
                let during = made.iter().rposition(|made| made.at <= loss.at);
                let during = during.map(|number| {
                    let Made {
                        at,
                        backend,
                        change,
                    } = made[number];
                    let (name, after) = (site.name(backend), loss.at - at);
                    format!(
                        "{:.1} s after change {}, {change} {name}",
                        after,
                        number + 1
                    )
                });
                Victim {
                    client: loss.source,
                    number: loss.client,
                    reason: loss.reason.clone(),
                    silent_seconds: loss.silent_ms as f64 / 1000.0,
                    backend: home.map(str::to_owned),
                    during,
                    trace: loss.source.and_then(|source| {
                        let source = source.to_string();
                        site.ask(&["trace", &source]).ok()
                    }),
                }
            })
            .collect();
        Ok(Outcome {
            forward: name_of(args.forward),
            balance: name_of(args.balance),
            seed,
            clients: args.clients,
            changes,
            reconnects: losses.len() - lost.len(),
            moved: summary.moved,
            health_changes: report::health_changes(&site.balancer_log()),
            drops: site.drops()?,
            lost,
            cut_off,
            seconds: took.as_secs_f64(),
        })
    }
}
